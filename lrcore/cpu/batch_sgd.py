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
    choose_lanes,
    divide_lanes,
    fma_lanes,
    gather_lanes,
    lanes_at,
    less_lanes,
    load_lanes,
    multiply_lanes,
    spread_lanes,
    store_lanes,
    subtract_lanes,
    zero_lanes,
)
from lrcore.cpu._target import kernel
from lrcore.cpu._vector import address
from lrcore.cpu.batch import ONE, UNIT
from lrcore.cpu.random import draws
from lrcore.cpu.sgd import DOMAIN, batch_size, first_draw
from lrcore.objective import FLUSH_BELOW, FLUSH_EVERY
from lrcore.status import DIVERGED, OK


class _Places(NamedTuple):
    """Where the buffers of a workspace are; of f and b the size of what belongs to one entry of a batch."""

    f: int
    b: int
    per_sample: int
    rows: int
    columns: int
    residual: int
    goals: int
    total: int
    rate: int
    decay: int
    offsets: int


@kernel
def _places(work):
    return _Places(
        address(work.forward),
        address(work.back),
        work.forward.shape[1] * UNIT,
        address(work.rows),
        address(work.columns),
        address(work.residual),
        address(work.goals),
        address(work.total),
        address(work.rate),
        address(work.decay),
        work.rows.shape[1] * np.int64(8),
    )


@kernel
def batch_sgd_steps(params, widths, entries, lr, ridge, factors, sampling, losses, statuses, work):
    """`sgd_steps` of every run: factors.shape[1] steps, with rates lr · factors[0] and ridges ridge · factors[1].

    entries   rows and columns (blocks, m, lanes) int32, values (blocks, m, lanes), weight
    sampling  seed (blocks, lanes) uint64; first, batch and replacement as for one run
    losses    of every run the mean over the steps of this call, up to the one that is not finite
    statuses  are read, too: OK where a run goes on
    """
    dtype = params.dtype
    places = _places(work)
    count = entries.rows.shape[1]
    one = params.dtype.type(1)
    for block in range(params.shape[0]):
        point = address(params[block])
        sums = address(losses[block])
        status = statuses[block]
        rates = address(lr[block]), address(ridge[block])
        own = entries.rows[block], entries.columns[block], entries.values[block], sampling.seed[block]
        (going, every), filled, place = _going(status), np.int64(0), np.int64(0)
        losses[block, :], work.made[:] = 0, 0
        for k in range(factors.shape[1] if going else 0):
            if (sampling.first + k) % FLUSH_EVERY == 0:
                _flush(params[block], status)
            size = batch_size(sampling.first + k, count, sampling)
            if place == filled:
                filled = _draw_ahead(k, factors.shape[1], sampling, own, widths, work)
                place = np.int64(0)
            of_loss = entries.weight, dtype.type(size)
            _set_rates(one, rates, factors[0, k], factors[1, k], of_loss, places)
            for s in range(size):
                _ends(dtype, point, widths, s, place + s, places)
            finite = _set_loss(one, of_loss, sums, going, places)
            if finite & going != going:
                going = _end(finite, going, k, status, work)
                if going == 0:
                    break
            if going != every:
                _hold(dtype, going, size, places)
            for s in range(size):
                _update(one, point, widths, s, place + s, places)
            place += size
        for lane in range(lr.shape[1]):
            made = work.made[lane] if status[lane] == DIVERGED else factors.shape[1]
            losses[block, lane] /= max(made, 1)


@kernel
def _flush(params, status):
    """What is too small to matter becomes 0, in the runs that go on."""
    for p in range(params.shape[0]):
        for lane in range(params.shape[1]):
            if abs(params[p, lane]) < FLUSH_BELOW and status[lane] == OK:
                params[p, lane] = 0


@kernel
def _going(status):
    """The runs that go on, and all runs, as bits."""
    going = np.int64(0)
    for lane in range(status.size):
        if status[lane] == OK:
            going += np.int64(1) << lane
    return going, (np.int64(1) << status.size) - 1


@kernel
def _draw_ahead(k, steps, sampling, own, widths, work):
    """Draws of all runs for as many steps from the k-th on as the buffers hold; returns how many they are.

    Made ahead, since a vector that is read right after its numbers were written one by one has to wait for them.
    """
    (rows, columns, values, seeds), inner, size = own, widths[widths.size - 2] * UNIT, UNIT // work.rows.shape[1]
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
            work.goals[draw, lane] = values[entry, lane]
    return filled


@kernel
def _set_rates(one, own, rate_factor, ridge_factor, of_loss, places):
    """1 − 2ηλ and −η · weight / size of every run; the sum of squares starts at 0."""
    (rates, ridges), (weight, size) = own, of_loss
    rate = multiply_lanes(load_lanes(one, rates), spread_lanes(rate_factor))
    ridge = multiply_lanes(load_lanes(one, ridges), spread_lanes(ridge_factor))
    shrink = multiply_lanes(multiply_lanes(spread_lanes(one + one), rate), ridge)
    store_lanes(subtract_lanes(spread_lanes(one), shrink), places.decay)
    step = divide_lanes(multiply_lanes(rate, spread_lanes(weight)), spread_lanes(size))
    store_lanes(subtract_lanes(zero_lanes(one), step), places.rate)
    store_lanes(zero_lanes(one), places.total)


@kernel
def _set_loss(one, of_loss, sums, going, places):
    """From the sums of squares the losses, added to `sums` where finite; returns which are."""
    weight, size = of_loss
    half = spread_lanes(one / (one + one) * weight)
    loss = divide_lanes(multiply_lanes(half, load_lanes(one, places.total)), spread_lanes(size))
    finite = less_lanes(loss, spread_lanes(one / (one - one)))
    old = load_lanes(one, sums)
    store_lanes(choose_lanes(finite & going, add_lanes(old, loss), old), sums)
    return finite


@kernel
def _end(finite, going, k, status, work):
    """The runs whose loss at step k is not finite end. Returns which still go on."""
    for lane in range(status.size):
        if going >> lane & 1 and not finite >> lane & 1:
            status[lane] = DIVERGED
            work.made[lane] = k
            going -= 1 << lane
    return going


@kernel
def _hold(dtype, going, size, places):
    """Make the update leave the weights of runs that have ended as they are: decay 1, and nothing to add."""
    zero = zero_lanes(dtype)
    one = spread_lanes(dtype.type(1))
    store_lanes(choose_lanes(going, load_lanes(dtype, places.decay), one), places.decay)
    for s in range(size):
        at = places.residual + s * UNIT
        store_lanes(choose_lanes(going, load_lanes(dtype, at), zero), at)
        for at in range(s * places.per_sample, (s + 1) * places.per_sample, UNIT):
            store_lanes(choose_lanes(going, load_lanes(dtype, places.f + at), zero), places.f + at)
            store_lanes(choose_lanes(going, load_lanes(dtype, places.b + at), zero), places.b + at)


@kernel
def _ends(dtype, params, widths, s, draw, places):
    """f and b of entry s of the batch, a draw made ahead, and its residual, whose square is added to the sum."""
    depth = widths.size - 1
    layer = params
    f = places.f + s * places.per_sample
    b = places.b + s * places.per_sample
    rows = places.rows + draw * places.offsets
    columns = places.columns + draw * places.offsets
    if depth == 1:
        found = gather_lanes(dtype, params, rows)
    else:
        here = f
        back = b
        found = zero_lanes(dtype)
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
            found = fma_lanes(last, load_lanes(dtype, here + p * UNIT), found)
        for i in range(depth - 1, 1, -1):
            layer -= widths[i] * widths[i - 1] * UNIT
            before = back - widths[i - 1] * UNIT
            _times(dtype, (layer, UNIT, widths[i - 1] * UNIT), (widths[i - 1], widths[i]), back, before)
            back = before
    residual = subtract_lanes(found, load_lanes(dtype, places.goals + draw * UNIT))
    store_lanes(residual, places.residual + s * UNIT)
    total = load_lanes(dtype, places.total)
    store_lanes(add_lanes(total, multiply_lanes(residual, residual)), places.total)


@kernel
def _times(dtype, matrix, shape, x, out):
    """out = A x; matrix: (address, bytes from row to row, from column to column). Five rows at a time, then one."""
    (start, down, right), (rows, columns), q = matrix, shape, 0
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
def _update(dtype, params, widths, s, draw, places):
    """Add entry s of the batch to every layer; the first one multiplies by the decay before."""
    depth = widths.size - 1
    inputs = widths[0]
    layer = params
    f = places.f + s * places.per_sample
    b = places.b + s * places.per_sample
    rows = places.rows + draw * places.offsets
    columns = places.columns + draw * places.offsets
    factor = multiply_lanes(load_lanes(dtype, places.rate), load_lanes(dtype, places.residual + s * UNIT))
    decay = load_lanes(dtype, places.decay) if s == 0 else spread_lanes(dtype)
    if depth == 1:
        store_lanes(factor, b)
        one = spread_lanes(dtype)
        _add_to_one(dtype, one, decay, (params, UNIT, widths[1] * inputs), (b, UNIT, ONE), rows)
        return
    _add_to_one(dtype, factor, decay, (layer, UNIT, inputs), (b, inputs * UNIT, widths[1]), columns)
    layer += widths[1] * inputs * UNIT
    for i in range(2, depth):
        b += widths[i - 1] * UNIT
        _add_to_all(dtype, factor, decay, layer, (b, widths[i]), (f, widths[i - 1]))
        layer += widths[i] * widths[i - 1] * UNIT
        f += widths[i - 1] * UNIT
    last = widths[depth - 1]
    _add_to_one(dtype, factor, decay, (layer, last * UNIT, widths[depth]), (f, UNIT, last), rows)


@kernel
def _add_to_one(dtype, factor, decay, lines, x, chosen):
    """Decay every line (a column or a row) of a layer; to the one that a run has chosen add factor · x.

    lines: (address, bytes from one to the next, how many); x: (address, bytes from one of a line to the next, length)
    """
    (layer, line, count), (start, step, length), p = lines, x, 0
    while p + 1 < count:  # two lines at a time: loops over a few numbers cost more than what they do
        here, there = lanes_at(dtype, chosen, p * line), lanes_at(dtype, chosen, (p + 1) * line)
        at = layer + p * line
        end = layer + p * line + length * step
        source = start
        while at < end:
            value = load_lanes(dtype, source)
            one = multiply_lanes(decay, load_lanes(dtype, at))
            other = multiply_lanes(decay, load_lanes(dtype, at + line))
            store_lanes(choose_lanes(here, fma_lanes(factor, value, one), one), at)
            store_lanes(choose_lanes(there, fma_lanes(factor, value, other), other), at + line)
            at += step
            source += UNIT
        p += 2
    if p < count:
        here = lanes_at(dtype, chosen, p * line)
        for q in range(length):
            at = layer + p * line + q * step
            old = multiply_lanes(decay, load_lanes(dtype, at))
            new = fma_lanes(factor, load_lanes(dtype, start + q * UNIT), old)
            store_lanes(choose_lanes(here, new, old), at)


@kernel
def _add_to_all(dtype, factor, decay, layer, left, right):
    """layer = decay · layer + (factor · left) rightᵀ, the first product rounded alone; (address, length) of each."""
    (b, rows), (f, columns) = left, right
    stride = columns * UNIT
    q = 0
    while q + 1 < rows:
        here = multiply_lanes(factor, load_lanes(dtype, b + q * UNIT))
        there = multiply_lanes(factor, load_lanes(dtype, b + q * UNIT + UNIT))
        at = layer + q * stride
        end = layer + (q + 1) * stride
        source = f
        while at < end:
            value = load_lanes(dtype, source)
            one = fma_lanes(here, value, multiply_lanes(decay, load_lanes(dtype, at)))
            other = fma_lanes(there, value, multiply_lanes(decay, load_lanes(dtype, at + stride)))
            store_lanes(one, at)
            store_lanes(other, at + stride)
            at += UNIT
            source += UNIT
        q += 2
    if q < rows:
        here = multiply_lanes(factor, load_lanes(dtype, b + q * UNIT))
        for p in range(columns):
            at = layer + q * stride + p * UNIT
            old = multiply_lanes(decay, load_lanes(dtype, at))
            store_lanes(fma_lanes(here, load_lanes(dtype, f + p * UNIT), old), at)
