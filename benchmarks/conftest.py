"""Benchmarks run with one BLAS thread, as training does; `make bench` runs them alone."""

import harness


def pytest_addoption(parser):
    """The flag that harness.py looks for, as the scripts have it."""
    parser.addoption("--smallest", action="store_true", help="the smallest sizes: does everything still run?")


def pytest_report_header():
    return harness.machine()
