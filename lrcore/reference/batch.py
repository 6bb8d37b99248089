"""Many networks of the same widths; runs lie in blocks of lanes."""

import numpy as np

from lrcore.reference.step import gd_steps, rk_steps


def batch_gd_steps(params, widths, targets, lr, losses, statuses, work=None):
    """One run after the other; the run is the first and the last index."""
    for i, j in np.ndindex(statuses.shape):
        run = params[i, :, j].copy()
        target = targets[i, :, j].reshape(widths[-1], widths[0])
        statuses[i, j] = gd_steps(run, widths, target, lr[i, j], losses[i, :, j])
        params[i, :, j] = run


def batch_rk_steps(params, widths, targets, dt, tableau, losses, statuses, work=None):
    """As `batch_gd_steps`, by a Runge–Kutta method."""
    for i, j in np.ndindex(statuses.shape):
        run = params[i, :, j].copy()
        target = targets[i, :, j].reshape(widths[-1], widths[0])
        statuses[i, j] = rk_steps(run, widths, target, dt[i, j], tableau, losses[i, :, j])
        params[i, :, j] = run
