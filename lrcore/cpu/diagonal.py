"""Training when all layers and the target are diagonal in the same basis: every mode is a chain of N numbers.

With W_i = V diag(modes[i−1]) Vᵀ and the target V diag(target) Vᵀ every gradient is diagonal in V too (Chou et al.), so
a step costs O(N n) instead of O(N n³). From W_i = αI, and from W_1 = (α−β)I with the others αI, this is the recursion
of their paper; nothing here asks for equal layers.

modes    (N, n), written; n is a multiple of the lanes of a vector: fill up with modes of weight 0 and target 0
target   (n,)
weights  (n,): how often a mode occurs; the loss is ½ Σ_j weights_j (Π_i modes_ij − target_j)²
losses   as in `lrcore.cpu.step`, with the same statuses

Modes are the lanes of vectors. Below the kernels, buffers are addresses, and sizes are those of a row in bytes.
"""

from typing import NamedTuple

import numpy as np

from lrcore.cpu._lanes import (
    fma_lanes,
    load_lanes,
    multiply_lanes,
    splat_lanes,
    store_lanes,
    subtract_lanes,
    sum_lanes,
    zero_lanes,
)
from lrcore.cpu._target import kernel
from lrcore.cpu._vector import data_ptr
from lrcore.layout import LANE_BYTES
from lrcore.status import DIVERGED, OK

UNIT = np.int64(LANE_BYTES)


class _Pointers(NamedTuple):
    """Addresses of target, weights and scratch; depth, and the size of a row in bytes."""

    target: int
    weights: int
    prefix: int
    back: int
    depth: int
    row: int


@kernel
def _pointers(modes, target, weights, work):
    row = modes.shape[1] * modes.itemsize
    scratch = (data_ptr(work.prefix), data_ptr(work.back))
    return _Pointers(data_ptr(target), data_ptr(weights), *scratch, modes.shape[0], row)


@kernel
def diagonal_gd_steps(modes, target, weights, lr, losses, work):
    """Gradient descent on every mode: `gd_steps` in the common basis."""
    ptrs = _pointers(modes, target, weights, work)
    start = data_ptr(modes)
    half = modes.dtype.type(0.5)
    for k in range(losses.size):
        losses[k] = loss = half * _forward(modes.dtype, start, ptrs)
        if not np.isfinite(loss):
            return DIVERGED
        _backward(-lr, start, start, ptrs)
    return OK


@kernel
def diagonal_rk_steps(modes, target, weights, dt, tableau, losses, work):
    """A Runge-Kutta method, tableau = (a (s, s), b (s,)), on the flow of every mode: `rk_steps` in the common basis."""
    a, b = tableau
    ptrs = _pointers(modes, target, weights, work)
    dtype = modes.dtype
    start = data_ptr(modes)
    half = dtype.type(0.5)
    point = data_ptr(work.point)
    stages = data_ptr(work.stages)
    size = ptrs.depth * ptrs.row
    for k in range(losses.size):
        for s in range(b.size):
            for i in range(ptrs.depth):
                for j in range(modes.shape[1]):
                    work.point[i, j] = modes[i, j]
            for j in range(s):
                if a[s, j] != 0:
                    _add_scaled(dt * a[s, j], stages + j * size, point, point, size)
            loss = half * _forward(dtype, point, ptrs)
            if s == 0:
                losses[k] = loss
                if not np.isfinite(loss):
                    return DIVERGED
            work.stages[s] = 0
            _backward(-dtype.type(1), point, stages + s * size, ptrs)
        for s in range(b.size):
            _add_scaled(dt * b[s], stages + s * size, start, start, size)
    return OK


@kernel
def _forward(dtype, modes, ptrs):
    """Prefix products and residual; returns Σ weights · residual²."""
    total = zero_lanes(dtype)
    for at in range(0, ptrs.row, UNIT):
        product = load_lanes(dtype, modes + at)
        for i in range(1, ptrs.depth):
            store_lanes(product, ptrs.prefix + (i - 1) * ptrs.row + at)
            product = multiply_lanes(load_lanes(dtype, modes + i * ptrs.row + at), product)
        residual = subtract_lanes(product, load_lanes(dtype, ptrs.target + at))
        store_lanes(residual, ptrs.back + at)
        total = fma_lanes(multiply_lanes(load_lanes(dtype, ptrs.weights + at), residual), residual, total)
    return sum_lanes(total)


@kernel
def _backward(factor, modes, out, ptrs):
    """out += factor · gradient, layer by layer from the last; `out` may be `modes`."""
    scale = splat_lanes(factor)
    for at in range(0, ptrs.row, UNIT):
        back = load_lanes(factor, ptrs.back + at)
        for i in range(ptrs.depth - 1, 0, -1):
            offset = i * ptrs.row + at
            grad = multiply_lanes(back, load_lanes(factor, ptrs.prefix + offset - ptrs.row))
            back = multiply_lanes(back, load_lanes(factor, modes + offset))
            store_lanes(fma_lanes(scale, grad, load_lanes(factor, out + offset)), out + offset)
        store_lanes(fma_lanes(scale, back, load_lanes(factor, out + at)), out + at)


@kernel
def _add_scaled(factor, x, base, out, size):
    """out = base + factor · x, rounded once; `out` may be `base`."""
    scale = splat_lanes(factor)
    for at in range(0, size, UNIT):
        store_lanes(fma_lanes(scale, load_lanes(factor, x + at), load_lanes(factor, base + at)), out + at)
