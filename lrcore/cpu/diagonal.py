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

import numpy as np

from lrcore.cpu._lanes import (
    fma_lanes,
    load_lanes,
    multiply_lanes,
    spread_lanes,
    store_lanes,
    subtract_lanes,
    total_lanes,
    zero_lanes,
)
from lrcore.cpu._target import kernel
from lrcore.cpu._vector import address
from lrcore.layout import LANE_BYTES
from lrcore.status import DIVERGED, OK

UNIT = np.int64(LANE_BYTES)


@kernel
def diagonal_gd_steps(modes, target, weights, lr, losses, work):
    """Gradient descent on every mode: `gd_steps` in the common basis."""
    dtype = modes.dtype
    depth = modes.shape[0]
    size = modes.shape[1] * modes.itemsize
    start = address(modes)
    goal = (address(target), address(weights))
    half = modes.dtype.type(0.5)
    scratch = address(work.prefix), address(work.back)
    for k in range(losses.size):
        losses[k] = loss = half * _forward(dtype, start, depth, size, goal, scratch)
        if not np.isfinite(loss):
            return DIVERGED
        _backward(dtype, -lr, start, depth, size, start, scratch)
    return OK


@kernel
def diagonal_rk_steps(modes, target, weights, dt, a, b, losses, work):
    """An explicit Runge-Kutta method (a (s, s), b (s,)) on the flow of every mode: `rk_steps` in the common basis."""
    dtype = modes.dtype
    depth = modes.shape[0]
    size = modes.shape[1] * modes.itemsize
    start = address(modes)
    goal = (address(target), address(weights))
    half = modes.dtype.type(0.5)
    scratch = address(work.prefix), address(work.back)
    point = address(work.point)
    stages = address(work.stages)
    whole = depth * size
    for k in range(losses.size):
        for s in range(b.size):
            for i in range(depth):
                for j in range(modes.shape[1]):
                    work.point[i, j] = modes[i, j]
            for j in range(s):
                if a[s, j] != 0:
                    _add_scaled(dtype, dt * a[s, j], stages + j * whole, point, point, whole)
            loss = half * _forward(dtype, point, depth, size, goal, scratch)
            if s == 0:
                losses[k] = loss
                if not np.isfinite(loss):
                    return DIVERGED
            work.stages[s] = 0
            _backward(dtype, -modes.dtype.type(1), point, depth, size, stages + s * whole, scratch)
        for s in range(b.size):
            _add_scaled(dtype, dt * b[s], stages + s * whole, start, start, whole)
    return OK


@kernel
def _forward(dtype, modes, depth, size, goal, scratch):
    """Prefix products and residual; returns Σ weights · residual²."""
    (target, weights), (prefix, back) = goal, scratch
    total = zero_lanes(dtype)
    for at in range(0, size, UNIT):
        product = load_lanes(dtype, modes + at)
        for i in range(1, depth):
            store_lanes(product, prefix + (i - 1) * size + at)
            product = multiply_lanes(load_lanes(dtype, modes + i * size + at), product)
        residual = subtract_lanes(product, load_lanes(dtype, target + at))
        store_lanes(residual, back + at)
        total = fma_lanes(multiply_lanes(load_lanes(dtype, weights + at), residual), residual, total)
    return total_lanes(total)


@kernel
def _backward(dtype, factor, modes, depth, size, out, scratch):
    """out += factor · gradient, layer by layer from the last; `out` may be `modes`."""
    prefix, back = scratch
    scale = spread_lanes(factor)
    for at in range(0, size, UNIT):
        behind = load_lanes(dtype, back + at)
        for i in range(depth - 1, 0, -1):
            place = i * size + at
            slope = multiply_lanes(behind, load_lanes(dtype, prefix + place - size))
            behind = multiply_lanes(behind, load_lanes(dtype, modes + place))
            store_lanes(fma_lanes(scale, slope, load_lanes(dtype, out + place)), out + place)
        store_lanes(fma_lanes(scale, behind, load_lanes(dtype, out + at)), out + at)


@kernel
def _add_scaled(dtype, factor, x, base, out, size):
    """out = base + factor · x, rounded once; `out` may be `base`."""
    scale = spread_lanes(factor)
    for at in range(0, size, UNIT):
        store_lanes(fma_lanes(scale, load_lanes(dtype, x + at), load_lanes(dtype, base + at)), out + at)
