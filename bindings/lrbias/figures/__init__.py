"""Figures of runs and of sweeps, and how all of them look."""
