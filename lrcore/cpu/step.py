"""Training steps, many in one call. The loss of every step is written to `losses`, whose length is the number of steps.

`losses[k]` belongs to the point *before* step k, so the loss at the end is the first loss of the next call.
A non-finite loss ends the call at once with status DIVERGED: no further step is made and the rest of `losses` is left
as it was. Step sizes have the dtype of `params`. Several threads make a step together when each calls the kernel with
its own workspace of `workspace.team`.
"""

import numpy as np

from lrcore.cpu._target import kernel
from lrcore.cpu._vector import fma
from lrcore.cpu.chain import backward, forward
from lrcore.cpu.gemm import meet, share
from lrcore.status import DIVERGED, OK


@kernel
def gd_steps(params, widths, target, lr, losses, work):
    """Gradient descent: W_i ← W_i − lr ∇_i L, all layers from the old point. `params` and `losses` are written."""
    for k in range(losses.size):
        loss = forward(params, widths, target, work)
        losses[k] = loss
        if not np.isfinite(loss):
            return DIVERGED
        backward(params, widths, -lr, params, work)
    return OK


@kernel
def rk_steps(params, widths, target, dt, a, b, losses, work):
    """Steps of an explicit Runge-Kutta method (a (s, s), b (s,): a tableau) on the flow dW_i/dt = −∇_i L.

    `params` and `losses` are written. Needs a workspace with s stages.
    """
    start, end = share(params.size, work)
    for k in range(losses.size):
        for s in range(b.size):
            for p in range(start, end):
                work.point[p] = params[p]
                work.stages[s, p] = 0
            for j in range(s):
                if a[s, j] != 0:
                    _add_scaled(dt * a[s, j], work.stages[j], work.point, start, end)
            meet(work)
            loss = forward(work.point, widths, target, work)
            if s == 0:
                losses[k] = loss
                if not np.isfinite(loss):
                    return DIVERGED
            backward(work.point, widths, params.dtype.type(-1), work.stages[s], work)
        for s in range(b.size):
            _add_scaled(dt * b[s], work.stages[s], params, start, end)
        meet(work)
    return OK


@kernel
def _add_scaled(factor, x, out, start, end):
    """out += factor · x from `start` to `end`, rounded once."""
    for p in range(start, end):
        out[p] = fma(factor, x[p], out[p])
