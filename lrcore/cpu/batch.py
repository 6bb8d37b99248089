"""Many small networks of the same widths, trained in lock-step: the run is the innermost index, one lane of a vector.

A block holds as many runs as a vector has lanes. All steps of a call are made block after block, so that the numbers of
one block stay in the caches, and every instruction works on all runs of the block, whatever the widths are. The layout
is that of `layout.to_lanes`:

params    (blocks, P, lanes)        targets   (blocks, n_N·n_0, lanes)
lr, dt    (blocks, lanes)           losses    (blocks, steps, lanes)
statuses  (blocks, lanes), int64: written, not read

Every run gets the bits that `lrcore.cpu.step` gives to it alone: in its lane the same operations follow in the same
order. A run whose loss is not finite gets the status DIVERGED, keeps its parameters from then on and writes no further
losses; the other runs of its block go on. `going` has a bit for each run that goes on.

Below the two kernels, buffers are addresses (integers), and the unit of size is one number of every run.
"""

from typing import NamedTuple

import numpy as np

from lrcore.cpu._lanes import (
    add_lanes,
    choose_lanes,
    fma_lanes,
    load_lanes,
    store_lanes,
    subtract_lanes,
    zero_lanes,
)
from lrcore.cpu._runs import RUNS_ADD, RUNS_NEGATE, RUNS_RESIDUAL, RUNS_STORE, RUNS_TILE, tile_runs
from lrcore.cpu._target import kernel
from lrcore.cpu._vector import address
from lrcore.layout import LANE_BYTES
from lrcore.status import DIVERGED, OK

# NumPy integers: for every Python literal inside a tuple Numba would compile the called function anew.
ONE, UNIT = np.int64(1), np.int64(LANE_BYTES)
STORE = (np.int64(RUNS_STORE), np.int64(0), np.int64(0))
NEGATE = (np.int64(RUNS_NEGATE), np.int64(0), np.int64(0))
RESIDUAL, ADD = np.int64(RUNS_RESIDUAL), np.int64(RUNS_ADD)


class _Places(NamedTuple):
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


@kernel
def _places(work, parameters):
    return _Places(
        address(work.prefix),
        work.prefix.shape[0] * UNIT,
        address(work.residual),
        address(work.back),
        work.back.shape[1] * UNIT,
        address(work.columns),
        address(work.loss),
        address(work.factors),
        address(work.point),
        address(work.stages),
        parameters * UNIT,
    )


@kernel
def batch_gd_steps(params, widths, targets, lr, losses, statuses, work):
    """`gd_steps` of every run, with a learning rate each. `params`, `losses` and `statuses` are written."""
    dtype = params.dtype
    places = _places(work, params.shape[1])
    factor = work.factors[0]
    for block in range(params.shape[0]):
        point = address(params[block])
        target = address(targets[block])
        status = statuses[block]
        going = _start(status)
        for lane in range(factor.size):
            factor[lane] = -lr[block, lane]
        for k in range(losses.shape[1]):
            _forward(dtype, point, widths, target, places)
            going = _record(work.loss, losses[block, k], status, going)
            if going == 0:
                break
            _backward(dtype, point, widths, point, (ADD, places.factors, going), places)


@kernel
def batch_rk_steps(params, widths, targets, dt, a, b, losses, statuses, work):
    """`rk_steps` of every run, with a time step each. Needs a workspace with as many stages as b has."""
    dtype = params.dtype
    places = _places(work, params.shape[1])
    for block in range(params.shape[0]):
        start = address(params[block])
        target = address(targets[block])
        status = statuses[block]
        going = _start(status)
        _scale(dt[block], a, b, work.factors)
        for k in range(losses.shape[1]):
            _forward(dtype, start, widths, target, places)
            going = _record(work.loss, losses[block, k], status, going)
            if going == 0:
                break
            _backward(dtype, start, widths, places.stages, NEGATE, places)
            for s in range(1, b.size):
                point = _stage_point(dtype, start, s, a, going, places)
                _forward(dtype, point, widths, target, places)
                _backward(dtype, point, widths, places.stages + s * places.params_size, NEGATE, places)
            _add_stages(dtype, start, b.size, going, places)


@kernel
def _start(status):
    """All runs of a block go on."""
    status[:] = OK
    return np.int64((1 << status.size) - 1)


@kernel
def _record(sums, losses, status, going):
    """The losses of the runs that go on, from their sums of squares. Returns which of them still go on."""
    for lane in range(sums.size):
        if going >> lane & 1:
            losses[lane] = sums[lane] * sums.dtype.type(0.5)
            if not np.isfinite(losses[lane]):
                status[lane] = DIVERGED
                going -= 1 << lane
    return going


@kernel
def _scale(dt, a, b, factors):
    """Of every run dt·a_sj at s·(number of stages) + j, then dt·b_s."""
    stages = b.size
    for lane in range(dt.size):
        for s in range(stages):
            for j in range(s):
                factors[s * stages + j, lane] = dt[lane] * a[s, j]
            factors[stages * stages + s, lane] = dt[lane] * b[s]


@kernel
def _stage_point(dtype, params, s, a, going, places):
    """Where stage s is evaluated: params + Σ dt·a_sj · stage_j, or params itself when there is nothing to add."""
    point = params
    for j in range(s):
        if a[s, j] != 0:
            factor = places.factors + (s * a.shape[0] + j) * UNIT
            stage = places.stages + j * places.params_size
            _add_scaled(dtype, factor, stage, point, places.point, places.params_size, going)
            point = places.point
    return point


@kernel
def _add_stages(dtype, params, stages, going, places):
    """params += dt·b_s · stage_s, s ascending, in one pass: the stages of a block are larger than the nearest cache."""
    factors = places.factors + stages * stages * UNIT
    for at in range(0, places.params_size, UNIT):
        old = load_lanes(dtype, params + at)
        new = old
        for s in range(stages):
            slope = load_lanes(dtype, places.stages + s * places.params_size + at)
            new = fma_lanes(load_lanes(dtype, factors + s * UNIT), slope, new)
        store_lanes(choose_lanes(going, new, old), params + at)


@kernel
def _add_scaled(dtype, factor, x, base, out, size, going):
    """out = base + factor · x, and base for the runs that have ended; `out` may be `base`."""
    scale = load_lanes(dtype, factor)
    for at in range(0, size, UNIT):
        old = load_lanes(dtype, base + at)
        store_lanes(choose_lanes(going, fma_lanes(scale, load_lanes(dtype, x + at), old), old), out + at)


@kernel
def _forward(dtype, params, widths, target, places):
    """Prefix products and residual, as `chain.forward`; the sums of squares go to `places.loss`."""
    depth = widths.size - 1
    inputs = widths[0]
    for j in range(inputs):
        store_lanes(zero_lanes(dtype), places.columns + j * UNIT)
    if depth == 1:
        _subtract(dtype, params, target, widths, places)
    previous = params
    product = places.prefix
    layer = params + widths[1] * inputs * UNIT
    for i in range(2, depth + 1):
        rows, inner = widths[i], widths[i - 1]
        out, finish = (places.residual, (RESIDUAL, target, places.columns)) if i == depth else (product, STORE)
        _multiply(dtype, (layer, inner, ONE), (previous, inputs, ONE), (rows, inner, inputs), out, finish)
        layer += rows * inner * UNIT
        previous = product
        product = product + rows * inputs * UNIT
    total = load_lanes(dtype, places.columns)
    for j in range(1, inputs):
        total = add_lanes(total, load_lanes(dtype, places.columns + j * UNIT))
    store_lanes(total, places.loss)


@kernel
def _subtract(dtype, params, target, widths, places):
    """The residual of a single layer and the squares of its columns: what RESIDUAL does after a product."""
    for i in range(widths[1]):
        for j in range(widths[0]):
            at = (i * widths[0] + j) * UNIT
            column = places.columns + j * UNIT
            difference = subtract_lanes(load_lanes(dtype, params + at), load_lanes(dtype, target + at))
            store_lanes(difference, places.residual + at)
            store_lanes(fma_lanes(difference, difference, load_lanes(dtype, column)), column)


@kernel
def _backward(dtype, params, widths, out, finish, places):
    """Gradients from the residual, as `chain.backward`; each ends in `out` (may be `params`) as `finish` says."""
    depth = widths.size - 1
    inputs = widths[0]
    back = places.residual
    layer = places.params_size
    prefix = places.prefix + places.prefix_size
    for i in range(depth, 1, -1):
        rows, columns = widths[i], widths[i - 1]
        layer -= rows * columns * UNIT
        prefix = params if i == 2 else prefix - columns * inputs * UNIT
        next_back = places.back + i % 2 * places.back_size
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
    (a_start, a_row, a_column), (b_start, b_row, b_column) = a, b
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
