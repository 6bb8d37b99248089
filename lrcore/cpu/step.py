"""Training steps, many in one call. The loss of every step is written to `losses`, whose length is the number of steps.

`losses[k]` belongs to the point *before* step k, so the loss at the end is the first loss of the next call.
A non-finite loss ends the call at once with status DIVERGED: no further step is made and the rest of `losses` is left
as it was. Step sizes have the dtype of `params`. Several threads make a step together when each calls the kernel with
its own workspace of `workspace.thread_workspaces`.
"""

import numpy as np

from lrcore.cpu._target import kernel, part
from lrcore.cpu._tile import NEGATE, STAGE, UPDATE
from lrcore.cpu._vector import NULL, data_ptr, fma, store
from lrcore.cpu.chain import backward_ptr, forward_ptr
from lrcore.cpu.gemm import barrier, pointers, thread_range
from lrcore.status import DIVERGED, OK

PIECE = 2048  # parameters at a time in a pass over several vectors


@kernel
def gd_steps(params, widths, target, lr, losses, work):
    """Gradient descent: W_i ← W_i − lr ∇_i L, all layers from the old point. `params` and `losses` are written."""
    ptrs = pointers(work)
    params_ptr = data_ptr(params)
    target_ptr = data_ptr(target)
    one = params.dtype.type(1)
    for k in range(losses.size):
        loss = forward_ptr(one, params_ptr, widths, target_ptr, ptrs)
        losses[k] = loss
        if not np.isfinite(loss):
            return DIVERGED
        backward_ptr(UPDATE, -lr, params_ptr, widths, params_ptr, NULL, ptrs)
    return OK


@kernel
def rk_steps(params, widths, target, dt, tableau, losses, work):
    """Steps of an explicit Runge-Kutta method, tableau = (a (s, s), b (s,)), on the flow dW_i/dt = −∇_i L.

    `params` and `losses` are written. Needs a workspace with s stages.
    """
    a, b = tableau
    if _uses_only_last_stage(a):
        return _low_storage_steps(params, widths, target, dt, tableau, losses, work)
    ptrs = pointers(work)
    target_ptr = data_ptr(target)
    one = params.dtype.type(1)
    for k in range(losses.size):
        for s in range(b.size):
            point = data_ptr(params)
            if s > 0:
                stage_point(params, dt, a, s, work, ptrs)
                point = data_ptr(work.point)
            loss = forward_ptr(one, point, widths, target_ptr, ptrs)
            if s == 0:
                losses[k] = loss
                if not np.isfinite(loss):
                    return DIVERGED
            backward_ptr(NEGATE, -one, point, widths, data_ptr(work.stages[s]), NULL, ptrs)
        add_stages(params, dt, b, work, ptrs)
    return OK


@kernel
def _uses_only_last_stage(a):
    """Does every stage start from the slope of the one before it alone? Those of Euler, Heun and Kutta do."""
    for s in range(a.shape[0]):
        for j in range(s - 1):
            if a[s, j] != 0:
                return False
    return True


@kernel
def _low_storage_steps(params, widths, target, dt, tableau, losses, work):
    """`rk_steps` without storing stages: their sum and the next point are made with the products.

    The sum grows in work.stages[0]; it starts from `params` and at the last stage it is `params`.
    """
    a, b = tableau
    ptrs = pointers(work)
    target_ptr = data_ptr(target)
    one = params.dtype.type(1)
    stages = b.size
    start = data_ptr(params)
    middle = data_ptr(work.point)
    total = data_ptr(work.stages)
    zero = one - one
    for k in range(losses.size):
        for s in range(stages):
            point = start if s == 0 else middle
            loss = forward_ptr(one, point, widths, target_ptr, ptrs)
            if s == 0:
                losses[k] = loss
                if not np.isfinite(loss):
                    return DIVERGED
            if ptrs.thread_id == 0:
                store(total - start if s > 0 else NULL, ptrs.record)
                store(middle - start, ptrs.record + 8)
                store(dt * a[s + 1, s] if s + 1 < stages else zero, ptrs.record + 16)
            barrier(ptrs)
            out = total if s + 1 < stages else start
            backward_ptr(STAGE, dt * b[s], point, widths, out, start, ptrs)
    return OK


@part
def stage_point(params, dt, a, s, work, ptrs):
    """work.point = params + dt Σ_{j<s} a_sj stage_j, j ascending, each term rounded once."""
    start, end = thread_range(params.size, ptrs)
    fresh = True
    for j in range(s):
        if a[s, j] != 0:
            base = params if fresh else work.point
            add_scaled(dt * a[s, j], work.stages[j, start:end], base[start:end], work.point[start:end])
            fresh = False
    if fresh:
        copy(params[start:end], work.point[start:end])
    barrier(ptrs)


@part
def add_stages(params, dt, b, work, ptrs):
    """params += dt b_s stage_s, s ascending, each term rounded once; piece by piece, to stay in the cache."""
    start, end = thread_range(params.size, ptrs)
    for first in range(start, end, PIECE):
        last = min(first + PIECE, end)
        piece = params[first:last]
        for s in range(b.size):
            add_scaled(dt * b[s], work.stages[s, first:last], piece, piece)
    barrier(ptrs)


@part
def copy(x, out):
    """out = x. To compile an assignment of arrays takes longer than to compile most kernels."""
    for p in range(x.size):
        out[p] = x[p]


@part
def add_scaled(factor, x, base, out):
    """out = base + factor · x, rounded once; `out` may be `base`."""
    for p in range(x.size):
        out[p] = fma(factor, x[p], base[p])
