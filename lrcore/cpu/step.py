"""Training steps, many in one call. The loss of every step is written to `losses`, whose length is the number of steps.

`losses[k]` belongs to the point *before* step k, so the loss at the end is the first loss of the next call.
A non-finite loss ends the call at once with status DIVERGED: no further step is made and the rest of `losses` is left
as it was. Step sizes have the dtype of `params`. Several threads make a step together when each calls the kernel with
its own workspace of `workspace.team`.
"""

import numpy as np

from lrcore.cpu._target import kernel
from lrcore.cpu._vector import fma
from lrcore.cpu.chain import backward, downhill, forward
from lrcore.cpu.gemm import meet, share
from lrcore.status import DIVERGED, OK

PIECE = 2048  # parameters at a time in a pass over several vectors


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
    for k in range(losses.size):
        for s in range(b.size):
            point = params
            if s > 0:
                _stage_point(params, dt, a, s, work)
                point = work.point
            loss = forward(point, widths, target, work)
            if s == 0:
                losses[k] = loss
                if not np.isfinite(loss):
                    return DIVERGED
            downhill(point, widths, work.stages[s], work)
        _add_stages(params, dt, b, work)
    return OK


@kernel
def _stage_point(params, dt, a, s, work):
    """work.point = params + dt Σ_{j<s} a_sj stage_j, j ascending, each term rounded once."""
    start, end = share(params.size, work)
    fresh = True
    for j in range(s):
        if a[s, j] != 0:
            base = params if fresh else work.point
            _add_scaled(dt * a[s, j], work.stages[j, start:end], base[start:end], work.point[start:end])
            fresh = False
    if fresh:
        work.point[start:end] = params[start:end]
    meet(work)


@kernel
def _add_stages(params, dt, b, work):
    """params += dt b_s stage_s, s ascending, each term rounded once; piece by piece, to stay in the cache."""
    start, end = share(params.size, work)
    for first in range(start, end, PIECE):
        last = min(first + PIECE, end)
        piece = params[first:last]
        for s in range(b.size):
            _add_scaled(dt * b[s], work.stages[s, first:last], piece, piece)
    meet(work)


@kernel
def _add_scaled(factor, x, base, out):
    """out = base + factor · x, rounded once; `out` may be `base`."""
    for p in range(x.size):
        out[p] = fma(factor, x[p], base[p])
