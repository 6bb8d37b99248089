"""Whether a run has ended in a minimum."""

import numpy as np

from lrcore import cpu, layout
from lrcore.cpu import workspace

CURVATURE_STEP = 1e-5


def least_curvature(run):
    """The smallest eigenvalue of the Hessian where a run has ended, by central differences of the gradient.

    Directions that only turn neighbouring layers against each other are flat, so at a minimum it is 0 up to rounding.
    """
    network, problem = run.network, run.problem
    widths = layout.as_widths(network.widths)
    goal = problem.objective(np.float64)
    work = workspace.allocate(widths)
    ridge = run.settings["ridge"]
    count = network.params.size
    hessian, ends = np.empty((count, count)), np.empty((2, count))
    for k in range(count):
        for end, step in zip(ends, (CURVATURE_STEP, -CURVATURE_STEP), strict=True):
            moved = network.params.copy()
            moved[k] += step
            cpu.objective_loss_and_gradient(moved, widths, goal, ridge, end, work)
        hessian[k] = (ends[0] - ends[1]) / (2 * CURVATURE_STEP)
    return float(np.linalg.eigvalsh((hessian + hessian.T) / 2)[0])
