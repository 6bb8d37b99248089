"""What theory says of a run of the study, and what is read off the run beside it."""

import numpy as np

from lrbias import theory
from lrbias.studies.chou._parameters import ALPHA, LR, TRACED

EIGENVALUES = "product/eigenvalues_in_basis"


def half_steps(run):
    """For each eigenvalue the first recorded step at which its entry has half of it, or None."""
    entries = run[EIGENVALUES]
    steps = run.steps_of(EIGENVALUES)
    passed = entries * np.sign(run.problem.eigen.values) > np.abs(run.problem.eigen.values) / 2
    return [int(steps[column.argmax()]) if column.any() else None for column in passed.T]


def traced(run):
    """The place of the eigenvalue of Figure 5.3, as a slice."""
    i = int(np.argmin(np.abs(run.problem.eigen.values - TRACED)))
    return slice(i, i + 1)


def limit(run):
    """The learning rate up to which recovery is proven for the run's start."""
    norm = run.problem.svd.values[0]
    perturbed = run.settings["init"] == "perturbed"
    return (theory.perturbed_limit if perturbed else theory.identical_limit)(norm, run.depth, ALPHA)


def bounds(run, epsilon):
    """⌈T_N^Id⌉ for every eigenvalue of an identical start: by then |d − max(λ, 0)^{1/N}| ≤ epsilon."""
    return [
        int(np.ceil(theory.recovery_bound(float(value), run.depth, ALPHA, LR, epsilon)))
        for value in run.problem.eigen.values
    ]
