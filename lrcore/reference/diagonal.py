"""Chains of numbers: what networks are whose layers are diagonal in one basis."""

import numpy as np

from lrcore.reference.step import runge_kutta
from lrcore.status import DIVERGED, OK


def diagonal_gd_steps(modes, target, weights, lr, losses, work=None):
    """Gradient descent on independent chains of numbers, modes (N, n): see `_diagonal_gradient`."""
    for k in range(losses.size):
        losses[k], gradient = _diagonal_gradient(modes, target, weights)
        if not np.isfinite(losses[k]):
            return DIVERGED
        modes -= lr * gradient
    return OK


def diagonal_rk_steps(modes, target, weights, dt, tableau, losses, work=None):
    """The same by a Runge–Kutta method, tableau = (a, b), with steps dt."""
    return runge_kutta(modes, lambda point: _diagonal_gradient(point, target, weights), dt, tableau, losses)


def _diagonal_gradient(modes, target, weights):
    """½ Σ w_j (Π_i d_ij − λ_j)², and of every mode (Π_{l≠i} d_lj)(Π_l d_lj − λ_j): its weight is left out."""
    residual = np.prod(modes, axis=0) - target
    others = [np.prod(np.delete(modes, i, axis=0), axis=0) for i in range(len(modes))]
    return modes.dtype.type(0.5) * np.sum(weights * residual**2), np.stack(others) * residual
