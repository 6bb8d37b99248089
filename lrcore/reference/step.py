"""Steps of gradient descent and of Runge–Kutta methods on a whole target."""

import numpy as np

from lrcore.reference.gradient import loss_and_gradient
from lrcore.status import DIVERGED, OK


def gd_steps(params, widths, target, lr, losses, work=None):
    """Gradient descent, params ← params − lr · ∇L, as many steps as `losses` is long: losses[k] is L before step k."""
    gradient = np.empty_like(params)
    for k in range(losses.size):
        losses[k] = loss_and_gradient(params, widths, target, gradient)
        if not np.isfinite(losses[k]):
            return DIVERGED
        params -= lr * gradient
    return OK


def rk_steps(params, widths, target, dt, tableau, losses, work=None):
    """A Runge–Kutta method, tableau = (a, b), with steps dt on the gradient flow; losses[k] is L before step k."""

    def evaluate(point):
        gradient = np.empty_like(point)
        return loss_and_gradient(point, widths, target, gradient), gradient

    return runge_kutta(params, evaluate, dt, tableau, losses)


def runge_kutta(point, evaluate, dt, tableau, losses):
    """Steps on dx/dt = −∇L(x), changing `point`; evaluate(x) → (L, ∇L)."""
    a, b = tableau
    for k in range(losses.size):
        stages = []
        for s in range(b.size):
            here = point + dt * sum((a[s, j] * stages[j] for j in range(s)), np.zeros_like(point))
            loss, gradient = evaluate(here)
            if s == 0:
                losses[k] = loss
                if not np.isfinite(loss):
                    return DIVERGED
            stages.append(-gradient)
        point += dt * sum(b[s] * stages[s] for s in range(b.size))
    return OK
