"""Closed forms and bounds. Sources: Saxe et al. 2014; Cohen et al. 2021 for the stability limit; seeds' notation."""

import math


def sharpness(top_value, depth):
    """Largest Hessian eigenvalue at a balanced minimum: N σ_1^{2 − 2/N}, σ_1 the target's spectral norm."""
    return depth * top_value ** (2 - 2 / depth)


def learning_rate_limit(top_value, depth):
    """Gradient descent is stable at a balanced minimum for lr < 2 / (N σ_1^{2 − 2/N})."""
    return 2 / sharpness(top_value, depth)


def saxe(t, value, initial):
    """A mode's singular value at time t, depth 2, balanced and aligned start: s e^{2st} / (e^{2st} − 1 + s/u_0)."""
    growth = math.exp(-2 * value * t)
    return value / (1 - growth + value / initial * growth)
