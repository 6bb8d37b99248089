"""Many small networks of the same widths, trained in lock-step: the run is the innermost index, one lane of a vector.

A block holds as many runs as a vector has lanes. All steps of a call are made block after block, so that the numbers of
one block stay in the caches, and every instruction works on all runs of the block, whatever the widths are. The layout
is that of `layout.to_lanes`:

params    (blocks, P, lanes)        targets   (blocks, n_N·n_0, lanes)
lr, dt    (blocks, lanes)           losses    (blocks, steps, lanes)
statuses  (blocks, lanes), int64: written, not read

Every run gets the bits that `lrcore.cpu.step` gives to it alone: in its lane the same operations follow in the same
order. A run whose loss is not finite gets the status DIVERGED, keeps its parameters from then on and writes no further
losses; the other runs of its block go on. `active` has a bit for each run that goes on.

Below the two kernels, buffers are addresses (integers), and the unit of size is one number of every run.
"""

from typing import NamedTuple

import numpy as np

from lrcore.cpu._lanes import (
    add_lanes,
    fma_lanes,
    load_lanes,
    multiply_lanes,
    splat_lanes,
    store_lanes,
    subtract_lanes,
    where_lanes,
    zero_lanes,
)
from lrcore.cpu._runs import RUNS_ADD, RUNS_NEGATE, RUNS_RESIDUAL, RUNS_STORE, RUNS_TILE, tile_runs
from lrcore.cpu._target import kernel, part
from lrcore.cpu._vector import data_ptr, opaque
from lrcore.layout import LANE_BYTES
from lrcore.status import DIVERGED, OK

# NumPy integers: for every Python literal inside a tuple Numba would compile the called function anew.
ONE, UNIT = np.int64(1), np.int64(LANE_BYTES)
STORE = (np.int64(RUNS_STORE), np.int64(0), np.int64(0))
NEGATE = (np.int64(RUNS_NEGATE), np.int64(0), np.int64(0))
RESIDUAL, ADD = np.int64(RUNS_RESIDUAL), np.int64(RUNS_ADD)


class Pointers(NamedTuple):
    """Where the buffers of a workspace are, and some sizes in bytes.

    Arrays would do, but Numba counts the references to each at every call: for 4 × 4 layers that took as long as the
    products.
    """

    prefix: int
    prefix_size: int
    residual: int
    back: int
    back_size: int
    columns: int
    loss: int
    factors: int
    point: int
    stages: int
    params_size: int


@part
def batch_pointers(work, parameters):
    return Pointers(
        data_ptr(work.prefix),
        work.prefix.shape[0] * UNIT,
        data_ptr(work.residual),
        data_ptr(work.back),
        work.back.shape[1] * UNIT,
        data_ptr(work.columns),
        data_ptr(work.loss),
        data_ptr(work.factors),
        data_ptr(work.point),
        data_ptr(work.stages),
        parameters * UNIT,
    )


@kernel
def batch_gd_steps(params, widths, targets, lr, losses, statuses, work):
    """`gd_steps` of every run, with a learning rate each. `params`, `losses` and `statuses` are written."""
    dtype = params.dtype
    ptrs = batch_pointers(work, params.shape[1])
    factor = work.factors[0]
    for block in range(params.shape[0]):
        params_ptr = data_ptr(params[block])
        target_ptr = data_ptr(targets[block])
        status = statuses[block]
        active = start_runs(status)
        for lane in range(factor.size):
            factor[lane] = -lr[block, lane]
        for k in range(losses.shape[1]):
            _forward(dtype, params_ptr, widths, target_ptr, ptrs)
            active = record_losses(work.loss, losses[block, k], status, active)
            if active == 0:
                break
            _backward(dtype, params_ptr, widths, params_ptr, (ADD, ptrs.factors, active), ptrs)


@kernel
def batch_rk_steps(params, widths, targets, dt, tableau, losses, statuses, work):
    """`rk_steps` of every run, with a time step each. Needs a workspace with as many stages as b has."""
    a, b = tableau
    dtype = params.dtype
    ptrs = batch_pointers(work, params.shape[1])
    for block in range(params.shape[0]):
        params_ptr = data_ptr(params[block])
        target_ptr = data_ptr(targets[block])
        status = statuses[block]
        active = start_runs(status)
        scale_factors(dt[block], a, b, work.factors)
        for k in range(losses.shape[1]):
            _forward(dtype, params_ptr, widths, target_ptr, ptrs)
            active = record_losses(work.loss, losses[block, k], status, active)
            if active == 0:
                break
            _backward(dtype, params_ptr, widths, ptrs.stages, NEGATE, ptrs)
            for s in range(1, b.size):
                point = runs_stage_point(dtype, params_ptr, s, a, active, ptrs)
                _forward(dtype, point, widths, target_ptr, ptrs)
                _backward(dtype, point, widths, ptrs.stages + s * ptrs.params_size, NEGATE, ptrs)
            runs_add_stages(dtype, params_ptr, b.size, active, ptrs)


@part
def start_runs(status):
    """All runs of a block go on."""
    status[:] = OK
    return np.int64((1 << status.size) - 1)


@part
def record_losses(found, losses, status, active):
    """Write the losses that were found, of the runs that go on. Returns which of them still go on."""
    for lane in range(found.size):
        if active >> lane & 1:
            losses[lane] = found[lane]
            if not np.isfinite(losses[lane]):
                status[lane] = DIVERGED
                active -= 1 << lane
    return active


@part
def scale_factors(dt, a, b, factors):
    """Of every run dt·a_sj at s·(number of stages) + j, then dt·b_s."""
    stages = b.size
    for lane in range(dt.size):
        for s in range(stages):
            for j in range(s):
                factors[s * stages + j, lane] = dt[lane] * a[s, j]
            factors[stages * stages + s, lane] = dt[lane] * b[s]


@part
def runs_stage_point(dtype, params, s, a, active, ptrs):
    """Where stage s is evaluated: params + Σ dt·a_sj · stage_j, or params itself when there is nothing to add."""
    point = params
    for j in range(s):
        if a[s, j] != 0:
            factor = ptrs.factors + (s * a.shape[0] + j) * UNIT
            stage = ptrs.stages + j * ptrs.params_size
            _add_scaled(dtype, factor, stage, point, ptrs.point, ptrs.params_size, active)
            point = ptrs.point
    return point


@part
def runs_add_stages(dtype, params, stages, active, ptrs):
    """params += dt·b_s · stage_s, s ascending, in one pass: the stages of a block are larger than the nearest cache."""
    factors = ptrs.factors + stages * stages * UNIT
    before = opaque(params)
    for at in range(0, ptrs.params_size, UNIT):
        old = load_lanes(dtype, before + at)
        new = old
        for s in range(stages):
            stage = load_lanes(dtype, ptrs.stages + s * ptrs.params_size + at)
            new = fma_lanes(load_lanes(dtype, factors + s * UNIT), stage, new)
        store_lanes(where_lanes(active, new, old), params + at)


@kernel
def _add_scaled(dtype, factor, x, base, out, size, active):
    """out = base + factor · x, and base for the runs that have ended; `out` may be `base`."""
    scale = load_lanes(dtype, factor)
    before = opaque(base)
    for at in range(0, size, UNIT):
        old = load_lanes(dtype, before + at)
        store_lanes(where_lanes(active, fma_lanes(scale, load_lanes(dtype, x + at), old), old), out + at)


@kernel
def _forward(dtype, params, widths, target, ptrs):
    """Prefix products and residual, as `chain.forward`; the losses go to `ptrs.loss`."""
    depth = widths.size - 1
    inputs = widths[0]
    for j in range(inputs):
        store_lanes(zero_lanes(dtype), ptrs.columns + j * UNIT)
    if depth == 1:
        _subtract(dtype, params, target, widths, ptrs)
    previous = params
    product = ptrs.prefix
    layer = params + widths[1] * inputs * UNIT
    for i in range(2, depth + 1):
        rows = widths[i]
        inner = widths[i - 1]
        out = ptrs.residual if i == depth else product
        finish = (RESIDUAL, target, ptrs.columns) if i == depth else STORE
        _multiply(dtype, (layer, inner, ONE), (previous, inputs, ONE), (rows, inner, inputs), out, finish)
        layer += rows * inner * UNIT
        previous = product
        product = product + rows * inputs * UNIT
    total = load_lanes(dtype, ptrs.columns)
    for j in range(1, inputs):
        total = add_lanes(total, load_lanes(dtype, ptrs.columns + j * UNIT))
    store_lanes(multiply_lanes(splat_lanes(dtype.type(0.5)), total), ptrs.loss)


@kernel
def _subtract(dtype, params, target, widths, ptrs):
    """The residual of a single layer and the squares of its columns: what RESIDUAL does after a product."""
    for i in range(widths[1]):
        for j in range(widths[0]):
            at = (i * widths[0] + j) * UNIT
            column = ptrs.columns + j * UNIT
            difference = subtract_lanes(load_lanes(dtype, params + at), load_lanes(dtype, target + at))
            store_lanes(difference, ptrs.residual + at)
            store_lanes(fma_lanes(difference, difference, load_lanes(dtype, column)), column)


@kernel
def _backward(dtype, params, widths, out, finish, ptrs):
    """Gradients from the residual, as `chain.backward`; each ends in `out` (may be `params`) as `finish` says."""
    depth = widths.size - 1
    inputs = widths[0]
    back = ptrs.residual
    layer = ptrs.params_size
    prefix = ptrs.prefix + ptrs.prefix_size
    for i in range(depth, 1, -1):
        rows = widths[i]
        columns = widths[i - 1]
        layer -= rows * columns * UNIT
        prefix = params if i == 2 else prefix - columns * inputs * UNIT
        next_back = ptrs.back + i % 2 * ptrs.back_size
        shape = (columns, rows, inputs)
        _multiply(dtype, (params + layer, ONE, columns), (back, inputs, ONE), shape, next_back, STORE)
        shape = (rows, inputs, columns)
        _multiply(dtype, (back, inputs, ONE), (prefix, ONE, inputs), shape, out + layer, finish)
        back = next_back
    if finish[0] == ADD:
        _add_scaled(dtype, finish[1], back, out, out, layer, finish[2])
    else:
        for at in range(0, layer, UNIT):
            store_lanes(subtract_lanes(zero_lanes(dtype), load_lanes(dtype, back + at)), out + at)


@kernel
def _multiply(dtype, a, b, shape, out, finish):
    """out = a · b, shape = (rows, inner, columns); a and b: (address, step from row to row, from column to column)."""
    a_start, a_row, a_column = a
    b_start, b_row, b_column = b
    rows, inner, columns = shape
    mode, first, second = finish
    a_row = a_row * UNIT
    a_column = a_column * UNIT
    b_row = b_row * UNIT
    b_column = b_column * UNIT
    out_row = columns * UNIT
    for i in range(0, rows, RUNS_TILE):
        for j in range(0, columns, RUNS_TILE):
            at = i * out_row + j * UNIT
            end = (mode, first + at, second + j * UNIT) if mode == RESIDUAL else finish
            a_part = (a_start + i * a_row, a_row, a_column)
            b_part = (b_start + j * b_column, b_row, b_column)
            size = (min(RUNS_TILE, rows - i), inner, min(RUNS_TILE, columns - j))
            tile_runs(dtype, a_part, b_part, size, (out + at, out_row), end)
