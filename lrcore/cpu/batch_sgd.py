"""Many small networks trained by single-entry SGD in lock-step, a run in each lane, as in `lrcore.cpu.batch`.

params (blocks, P, lanes)    lr, ridge (blocks, lanes)    losses, statuses (blocks, lanes)

Every run has its own observed entries, learning rate, ridge and seed; the batch size, the kind of sampling and how
rates change with time are common. A run gets the bits that `lrcore.cpu.sgd` gives to it alone. Losses of single
entries say little, so only their mean over a call is kept. A run whose loss is not finite gets the status DIVERGED;
runs that have it, from this call or before it, keep their parameters.

Below the kernel, buffers are addresses, and the unit of size is one number of every run.
"""

from typing import NamedTuple

import numpy as np

from lrcore.cpu._lanes import (
    add_lanes,
    divide_lanes,
    fma_lanes,
    gather_lanes,
    lanes_at,
    less_lanes,
    load_lanes,
    multiply_lanes,
    splat_lanes,
    store_lanes,
    subtract_lanes,
    where_lanes,
    zero_lanes,
)
from lrcore.cpu._target import kernel
from lrcore.cpu._vector import data_ptr
from lrcore.cpu.batch import ONE, UNIT
from lrcore.cpu.random import draws
from lrcore.cpu.sgd import DOMAIN, batch_size, first_draw
from lrcore.objective import FLUSH_BELOW, FLUSH_EVERY
from lrcore.status import DIVERGED, OK


class _Pointers(NamedTuple):
    """Where the buffers of a workspace are; of f and b the size of what belongs to one entry of a batch."""

    f: int
    b: int
    per_sample: int
    rows: int
    columns: int
    residual: int
    values: int
    total: int
    rate: int
    decay: int
    offsets: int


@kernel
def _pointers(work):
    return _Pointers(
        data_ptr(work.forward),
        data_ptr(work.back),
        work.forward.shape[1] * UNIT,
        data_ptr(work.rows),
        data_ptr(work.columns),
        data_ptr(work.residual),
        data_ptr(work.values),
        data_ptr(work.total),
        data_ptr(work.rate),
        data_ptr(work.decay),
        work.rows.shape[1] * np.int64(8),
    )


@kernel
def batch_sgd_steps(params, widths, entries, rates, sampling, losses, statuses, work):
    """`sgd_steps` of every run: rates.factors.shape[1] steps, their learning rates and ridges from `BatchRates`.

    entries   rows and columns (blocks, m, lanes) int32, values (blocks, m, lanes), weight
    sampling  seed (blocks, lanes) uint64; first, batch and replacement as for one run
    losses    of every run the mean over the steps of this call, up to the one that is not finite
    statuses  are read, too: OK where a run goes on
    """
    dtype = params.dtype
    ptrs = _pointers(work)
    count = entries.rows.shape[1]
    steps = rates.factors.shape[1]
    one = params.dtype.type(1)
    for block in range(params.shape[0]):
        point = data_ptr(params[block])
        sums = data_ptr(losses[block])
        status = statuses[block]
        lr_and_ridge = (data_ptr(rates.lr[block]), data_ptr(rates.ridge[block]))
        own = (entries.rows[block], entries.columns[block], entries.values[block], sampling.seed[block])
        active, every = _active_runs(status)
        filled = np.int64(0)
        drawn = np.int64(0)
        losses[block, :] = 0
        work.steps_made[:] = 0
        for k in range(steps if active else 0):
            if (sampling.first + k) % FLUSH_EVERY == 0:
                _flush(params[block], status)
            size = batch_size(sampling.first + k, count, sampling)
            if drawn == filled:
                filled = _draw_ahead(k, steps, sampling, own, widths, work)
                drawn = np.int64(0)
            of_loss = entries.weight, dtype.type(size)
            _set_rates(one, lr_and_ridge, rates.factors[0, k], rates.factors[1, k], of_loss, ptrs)
            for s in range(size):
                _forward_back(dtype, point, widths, s, drawn + s, ptrs)
            finite = _set_loss(one, of_loss, sums, active, ptrs)
            if finite & active != active:
                active = _end(finite, active, k, status, work)
                if active == 0:
                    break
            if active != every:
                _freeze(dtype, active, size, ptrs)
            for s in range(size):
                _update(one, point, widths, s, drawn + s, ptrs)
            drawn += size
        for lane in range(status.size):
            made = work.steps_made[lane] if status[lane] == DIVERGED else steps
            losses[block, lane] /= max(made, 1)


@kernel
def _flush(params, status):
    """What is too small to matter becomes 0, in the runs that go on."""
    for p in range(params.shape[0]):
        for lane in range(params.shape[1]):
            if abs(params[p, lane]) < FLUSH_BELOW and status[lane] == OK:
                params[p, lane] = 0


@kernel
def _active_runs(status):
    """The runs that go on, and all runs, as bits."""
    active = np.int64(0)
    for lane in range(status.size):
        if status[lane] == OK:
            active += np.int64(1) << lane
    return active, (np.int64(1) << status.size) - 1


@kernel
def _draw_ahead(k, steps, sampling, own, widths, work):
    """Draws of all runs for as many steps from the k-th on as the buffers hold; returns how many they are.

    Made ahead, since a vector that is read right after its numbers were written one by one has to wait for them.
    """
    rows, columns, values, seeds = own
    inner = widths[widths.size - 2] * UNIT
    size = UNIT // work.rows.shape[1]
    count = rows.shape[0]
    step = sampling.first + k
    here = first_draw(step, count, sampling)
    ahead = min(max(work.drawn.size // sampling.batch, 1), steps - k)
    filled = first_draw(step + ahead, count, sampling) - here
    for lane in range(work.rows.shape[1]):
        draws(seeds[lane], DOMAIN, here, sampling.replacement, work.order[lane], work.drawn[:filled])
        for draw in range(filled):
            entry = work.drawn[draw]
            row = rows[entry, lane] * inner
            column = columns[entry, lane] * UNIT
            # with one layer there is no row of a last and column of a first one, but only the entry itself
            work.rows[draw, lane] = row + lane * size + (column if widths.size == 2 else 0)
            work.columns[draw, lane] = column + lane * size
            work.values[draw, lane] = values[entry, lane]
    return filled


@kernel
def _set_rates(one, lr_and_ridge, rate_factor, ridge_factor, of_loss, ptrs):
    """1 − 2ηλ and −η · weight / size of every run; the sum of squares starts at 0."""
    rates, ridges = lr_and_ridge
    weight, size = of_loss
    rate = multiply_lanes(load_lanes(one, rates), splat_lanes(rate_factor))
    ridge = multiply_lanes(load_lanes(one, ridges), splat_lanes(ridge_factor))
    shrink = multiply_lanes(multiply_lanes(splat_lanes(one + one), rate), ridge)
    store_lanes(subtract_lanes(splat_lanes(one), shrink), ptrs.decay)
    step = divide_lanes(multiply_lanes(rate, splat_lanes(weight)), splat_lanes(size))
    store_lanes(subtract_lanes(zero_lanes(one), step), ptrs.rate)
    store_lanes(zero_lanes(one), ptrs.total)


@kernel
def _set_loss(one, of_loss, sums, active, ptrs):
    """From the sums of squares the losses, added to `sums` where finite; returns which are."""
    weight, size = of_loss
    half = splat_lanes(one / (one + one) * weight)
    loss = divide_lanes(multiply_lanes(half, load_lanes(one, ptrs.total)), splat_lanes(size))
    finite = less_lanes(loss, splat_lanes(one / (one - one)))
    old = load_lanes(one, sums)
    store_lanes(where_lanes(finite & active, add_lanes(old, loss), old), sums)
    return finite


@kernel
def _end(finite, active, k, status, work):
    """The runs whose loss at step k is not finite end. Returns which still go on."""
    for lane in range(status.size):
        if active >> lane & 1 and not finite >> lane & 1:
            status[lane] = DIVERGED
            work.steps_made[lane] = k
            active -= 1 << lane
    return active


@kernel
def _freeze(dtype, active, size, ptrs):
    """Make the update leave the weights of runs that have ended as they are: decay 1, and nothing to add."""
    zero = zero_lanes(dtype)
    one = splat_lanes(dtype.type(1))
    store_lanes(where_lanes(active, load_lanes(dtype, ptrs.decay), one), ptrs.decay)
    for s in range(size):
        at = ptrs.residual + s * UNIT
        store_lanes(where_lanes(active, load_lanes(dtype, at), zero), at)
        for at in range(s * ptrs.per_sample, (s + 1) * ptrs.per_sample, UNIT):
            store_lanes(where_lanes(active, load_lanes(dtype, ptrs.f + at), zero), ptrs.f + at)
            store_lanes(where_lanes(active, load_lanes(dtype, ptrs.b + at), zero), ptrs.b + at)


@kernel
def _forward_back(dtype, params, widths, s, draw, ptrs):
    """f and b of entry s of the batch, a draw made ahead, and its residual, whose square is added to the sum."""
    depth = widths.size - 1
    layer = params
    f = ptrs.f + s * ptrs.per_sample
    b = ptrs.b + s * ptrs.per_sample
    rows = ptrs.rows + draw * ptrs.offsets
    columns = ptrs.columns + draw * ptrs.offsets
    if depth == 1:
        product = gather_lanes(dtype, params, rows)
    else:
        here = f
        back = b
        product = zero_lanes(dtype)
        for q in range(widths[1]):
            store_lanes(gather_lanes(dtype, layer + q * widths[0] * UNIT, columns), here + q * UNIT)
        layer += widths[1] * widths[0] * UNIT
        for i in range(2, depth):
            after = here + widths[i - 1] * UNIT
            _times(dtype, (layer, widths[i - 1] * UNIT, UNIT), (widths[i], widths[i - 1]), here, after)
            layer += widths[i] * widths[i - 1] * UNIT
            back += widths[i - 1] * UNIT
            here = after
        for p in range(widths[depth - 1]):
            last = gather_lanes(dtype, layer + p * UNIT, rows)
            store_lanes(last, back + p * UNIT)
            product = fma_lanes(last, load_lanes(dtype, here + p * UNIT), product)
        for i in range(depth - 1, 1, -1):
            layer -= widths[i] * widths[i - 1] * UNIT
            before = back - widths[i - 1] * UNIT
            _times(dtype, (layer, UNIT, widths[i - 1] * UNIT), (widths[i - 1], widths[i]), back, before)
            back = before
    residual = subtract_lanes(product, load_lanes(dtype, ptrs.values + draw * UNIT))
    store_lanes(residual, ptrs.residual + s * UNIT)
    total = load_lanes(dtype, ptrs.total)
    store_lanes(add_lanes(total, multiply_lanes(residual, residual)), ptrs.total)


@kernel
def _times(dtype, matrix, shape, x, out):
    """out = A x; matrix: (address, bytes from row to row, from column to column). Five rows at a time, then one."""
    start, down, right = matrix
    rows, columns = shape
    q = 0
    while q + 5 <= rows:
        s0 = s1 = s2 = s3 = s4 = zero_lanes(dtype)
        at = start + q * down
        end = start + q * down + columns * right
        source = x
        while at < end:
            value = load_lanes(dtype, source)
            s0 = fma_lanes(load_lanes(dtype, at), value, s0)
            s1 = fma_lanes(load_lanes(dtype, at + down), value, s1)
            s2 = fma_lanes(load_lanes(dtype, at + 2 * down), value, s2)
            s3 = fma_lanes(load_lanes(dtype, at + 3 * down), value, s3)
            s4 = fma_lanes(load_lanes(dtype, at + 4 * down), value, s4)
            at += right
            source += UNIT
        store_lanes(s0, out + q * UNIT)
        store_lanes(s1, out + (q + 1) * UNIT)
        store_lanes(s2, out + (q + 2) * UNIT)
        store_lanes(s3, out + (q + 3) * UNIT)
        store_lanes(s4, out + (q + 4) * UNIT)
        q += 5
    while q < rows:
        total = zero_lanes(dtype)
        for p in range(columns):
            weight = load_lanes(dtype, start + q * down + p * right)
            total = fma_lanes(weight, load_lanes(dtype, x + p * UNIT), total)
        store_lanes(total, out + q * UNIT)
        q += 1


@kernel
def _update(one, params, widths, s, draw, ptrs):
    """Add entry s of the batch to every layer; the first one multiplies by the decay before."""
    depth = widths.size - 1
    inputs = widths[0]
    layer = params
    f = ptrs.f + s * ptrs.per_sample
    b = ptrs.b + s * ptrs.per_sample
    rows = ptrs.rows + draw * ptrs.offsets
    columns = ptrs.columns + draw * ptrs.offsets
    factor = multiply_lanes(load_lanes(one, ptrs.rate), load_lanes(one, ptrs.residual + s * UNIT))
    decay = load_lanes(one, ptrs.decay) if s == 0 else splat_lanes(one)
    if depth == 1:
        store_lanes(factor, b)
        entries = (params, UNIT, widths[1] * inputs)
        _add_to_line(one, splat_lanes(one), decay, entries, (b, UNIT, ONE), rows)
        return
    _add_to_line(one, factor, decay, (layer, UNIT, inputs), (b, inputs * UNIT, widths[1]), columns)
    layer += widths[1] * inputs * UNIT
    for i in range(2, depth):
        b += widths[i - 1] * UNIT
        _add_to_all(one, factor, decay, layer, (b, widths[i]), (f, widths[i - 1]))
        layer += widths[i] * widths[i - 1] * UNIT
        f += widths[i - 1] * UNIT
    last = widths[depth - 1]
    _add_to_line(one, factor, decay, (layer, last * UNIT, widths[depth]), (f, UNIT, last), rows)


@kernel
def _add_to_line(one, factor, decay, lines, x, chosen):
    """Decay every line (a column or a row) of a layer; to the one that a run has chosen add factor · x.

    lines: (address, bytes from one to the next, how many); x: (address, bytes from one of a line to the next, length)
    """
    layer, line, count = lines
    start, step, length = x
    p = 0
    while p + 1 < count:  # two lines at a time: loops over a few numbers cost more than what they do
        here = lanes_at(one, chosen, p * line)
        there = lanes_at(one, chosen, (p + 1) * line)
        at = layer + p * line
        end = layer + p * line + length * step
        source = start
        while at < end:
            value = load_lanes(one, source)
            old = multiply_lanes(decay, load_lanes(one, at))
            next_old = multiply_lanes(decay, load_lanes(one, at + line))
            store_lanes(where_lanes(here, fma_lanes(factor, value, old), old), at)
            store_lanes(where_lanes(there, fma_lanes(factor, value, next_old), next_old), at + line)
            at += step
            source += UNIT
        p += 2
    if p < count:
        here = lanes_at(one, chosen, p * line)
        for q in range(length):
            at = layer + p * line + q * step
            old = multiply_lanes(decay, load_lanes(one, at))
            new = fma_lanes(factor, load_lanes(one, start + q * UNIT), old)
            store_lanes(where_lanes(here, new, old), at)


@kernel
def _add_to_all(one, factor, decay, layer, left, right):
    """layer = decay · layer + (factor · left) rightᵀ, the first product rounded alone; (address, length) of each."""
    b, rows = left
    f, columns = right
    stride = columns * UNIT
    q = 0
    while q + 1 < rows:
        here = multiply_lanes(factor, load_lanes(one, b + q * UNIT))
        there = multiply_lanes(factor, load_lanes(one, b + q * UNIT + UNIT))
        at = layer + q * stride
        end = layer + (q + 1) * stride
        source = f
        while at < end:
            value = load_lanes(one, source)
            new = fma_lanes(here, value, multiply_lanes(decay, load_lanes(one, at)))
            next_new = fma_lanes(there, value, multiply_lanes(decay, load_lanes(one, at + stride)))
            store_lanes(new, at)
            store_lanes(next_new, at + stride)
            at += UNIT
            source += UNIT
        q += 2
    if q < rows:
        here = multiply_lanes(factor, load_lanes(one, b + q * UNIT))
        for p in range(columns):
            at = layer + q * stride + p * UNIT
            old = multiply_lanes(decay, load_lanes(one, at))
            store_lanes(fma_lanes(here, load_lanes(one, f + p * UNIT), old), at)
