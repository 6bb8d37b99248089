"""Training steps, many in one call. The loss of every step is written to `losses`, whose length is the number of steps.

`losses[k]` belongs to the point *before* step k, so the loss at the end is the first loss of the next call.
A non-finite loss ends the call at once with status DIVERGED: no further step is made and the rest of `losses` is left
as it was. Step sizes have the dtype of `params`. Several threads make a step together when each calls the kernel with
its own workspace of `workspace.team`.
"""

import numpy as np

from lrcore.cpu._target import kernel
from lrcore.cpu._tile import NEGATE, STAGE, UPDATE
from lrcore.cpu._vector import address, fma, put
from lrcore.cpu.chain import backward_at, forward_at
from lrcore.cpu.gemm import meet, places_of, share
from lrcore.status import DIVERGED, OK

PIECE = 2048  # parameters at a time in a pass over several vectors


@kernel
def gd_steps(params, widths, target, lr, losses, work):
    """Gradient descent: W_i ← W_i − lr ∇_i L, all layers from the old point. `params` and `losses` are written."""
    places = places_of(work)
    start = address(params)
    goal = address(target)
    one = params.dtype.type(1)
    for k in range(losses.size):
        loss = forward_at(one, start, widths, goal, places)
        losses[k] = loss
        if not np.isfinite(loss):
            return DIVERGED
        backward_at(np.intp(UPDATE), -lr, start, widths, start, np.intp(0), places)
    return OK


@kernel
def rk_steps(params, widths, target, dt, a, b, losses, work):
    """Steps of an explicit Runge-Kutta method (a (s, s), b (s,): a tableau) on the flow dW_i/dt = −∇_i L.

    `params` and `losses` are written. Needs a workspace with s stages.
    """
    if _looks_back_once(a):
        return _lean_steps(params, widths, target, dt, a, b, losses, work)
    places = places_of(work)
    goal = address(target)
    one = params.dtype.type(1)
    for k in range(losses.size):
        for s in range(b.size):
            point = address(params)
            if s > 0:
                _stage_point(params, dt, a, s, work, places)
                point = address(work.point)
            loss = forward_at(one, point, widths, goal, places)
            if s == 0:
                losses[k] = loss
                if not np.isfinite(loss):
                    return DIVERGED
            backward_at(np.intp(NEGATE), -one, point, widths, address(work.stages[s]), np.intp(0), places)
        _add_stages(params, dt, b, work, places)
    return OK


@kernel
def _looks_back_once(a):
    """Does every stage start from the slope of the one before it alone? Those of Euler, Heun and Kutta do."""
    for s in range(a.shape[0]):
        for j in range(s - 1):
            if a[s, j] != 0:
                return False
    return True


@kernel
def _lean_steps(params, widths, target, dt, a, b, losses, work):
    """`rk_steps` without storing slopes: their sum and the next point are made with the products.

    The sum grows in work.stages[0]; it starts from `params` and at the last stage it is `params`.
    """
    places = places_of(work)
    goal = address(target)
    one = params.dtype.type(1)
    stages = b.size
    start = address(params)
    middle = address(work.point)
    total = address(work.stages)
    zero = one - one
    for k in range(losses.size):
        for s in range(stages):
            point = start if s == 0 else middle
            loss = forward_at(one, point, widths, goal, places)
            if s == 0:
                losses[k] = loss
                if not np.isfinite(loss):
                    return DIVERGED
            if places.part == 0:
                put(places.record, total - start if s > 0 else np.intp(0))
                put(places.record + 8, middle - start)
                put(places.record + 16, dt * a[s + 1, s] if s + 1 < stages else zero)
            meet(places)
            out = total if s + 1 < stages else start
            backward_at(np.intp(STAGE), dt * b[s], point, widths, out, start, places)
    return OK


@kernel
def _stage_point(params, dt, a, s, work, places):
    """work.point = params + dt Σ_{j<s} a_sj stage_j, j ascending, each term rounded once."""
    start, end = share(params.size, places)
    fresh = True
    for j in range(s):
        if a[s, j] != 0:
            base = params if fresh else work.point
            _add_scaled(dt * a[s, j], work.stages[j, start:end], base[start:end], work.point[start:end])
            fresh = False
    if fresh:
        _copy(params[start:end], work.point[start:end])
    meet(places)


@kernel
def _add_stages(params, dt, b, work, places):
    """params += dt b_s stage_s, s ascending, each term rounded once; piece by piece, to stay in the cache."""
    start, end = share(params.size, places)
    for first in range(start, end, PIECE):
        last = min(first + PIECE, end)
        piece = params[first:last]
        for s in range(b.size):
            _add_scaled(dt * b[s], work.stages[s, first:last], piece, piece)
    meet(places)


@kernel
def _copy(x, out):
    """out = x. To compile an assignment of arrays takes longer than to compile most kernels."""
    for p in range(x.size):
        out[p] = x[p]


@kernel
def _add_scaled(factor, x, base, out):
    """out = base + factor · x, rounded once; `out` may be `base`."""
    for p in range(x.size):
        out[p] = fma(factor, x[p], base[p])
