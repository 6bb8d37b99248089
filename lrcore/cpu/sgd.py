"""Stochastic gradient descent on the entries of a matrix: rank-one steps, O(N n²) each, in which no product is formed.

Entry (r, c) of W_N ⋯ W_1 needs f_1 = W_1 e_c, f_i = W_i f_{i−1}, its gradient b_{N−1} = W_Nᵀ e_r, b_{i−1} = W_iᵀ b_i:
∂/∂W_i is b_i f_{i−1}ᵀ, which for the first layer is one column and for the last one row. Every layer is multiplied by
1 − 2ηλ in the pass that updates it. Nothing is carried from step to step but the parameters: the draws of step k
depend on the seed and on k alone (see `lrcore.cpu.random.draws`).

At steps whose number is a multiple of FLUSH_EVERY, weights below FLUSH_BELOW become 0 before it.

Bits: every element of f and b is one chain of FMAs from +0, the inner index ascending; a new weight is
fma(g b_q, f_p, decay · w) for the first entry of a batch and fma(g b_q, f_p, w) for the others.
"""

import numpy as np

from lrcore.cpu._lanes import fma_lanes, load_lanes, multiply_lanes, splat_lanes, store_lanes, zero_lanes
from lrcore.cpu._target import kernel, part
from lrcore.cpu._vector import data_ptr, fma, itemsize, load, store
from lrcore.cpu.random import draws
from lrcore.layout import LANE_BYTES
from lrcore.objective import FLUSH_BELOW, FLUSH_EVERY
from lrcore.random import SAMPLE
from lrcore.status import DIVERGED, OK

UNIT = np.int64(LANE_BYTES)
DOMAIN = np.uint64(SAMPLE)


@kernel
def sgd_steps(params, widths, entries, rates, ridges, sampling, losses, work):
    """W_i ← (1 − 2ηλ) W_i − η · weight · mean over the batch of (W_rc − Ŵ_rc) ∂W_rc/∂W_i, all from the old point.

    entries: an `Entries`; sampling: a `Sampling`. rates, ridges: η and λ of every step. losses[k] is the mean of
    weight · ½ (W_rc − Ŵ_rc)² over the batch of step k, without the ridge. Without replacement the last batch of an
    epoch may be smaller. `params` and `losses` are written.
    """
    one = params.dtype.type(1)
    start = data_ptr(params)
    size = work.forward.shape[1] * params.itemsize
    half = one / (one + one)
    two = one + one
    entry_count = entries.rows.size
    f = data_ptr(work.forward)
    b = data_ptr(work.back)
    filled = np.int64(0)
    drawn = np.int64(0)  # how many of the draws made ahead have been used
    for k in range(losses.size):
        step = sampling.first + k
        if step % FLUSH_EVERY == 0:
            _flush(params)
        if drawn == filled:
            filled = _draw_ahead(step, losses.size - k, entry_count, sampling, work)
            drawn = np.int64(0)
        count = batch_size(step, entry_count, sampling)
        total = one - one
        number_of = params.dtype.type(count)
        for s in range(count):
            entry = work.drawn[drawn + s]
            where = entries.rows[entry], entries.columns[entry]
            product = _forward_back(one, start, widths, where, f + s * size, b + s * size)
            work.residual[s] = product - entries.values[entry]
            total += work.residual[s] * work.residual[s]
        losses[k] = half * entries.weight * total / number_of
        if not np.isfinite(losses[k]):
            return DIVERGED
        decay = one - two * rates[k] * ridges[k]
        rate = -(rates[k] * entries.weight / number_of)
        for s in range(count):
            entry = work.drawn[drawn + s]
            where = entries.rows[entry], entries.columns[entry]
            scale = decay if s == 0 else one
            _update(rate * work.residual[s], scale, s == 0, start, widths, where, (f + s * size, b + s * size))
        drawn += count
    return OK


@kernel
def _flush(params):
    """What is too small to matter becomes 0."""
    for p in range(params.size):
        if abs(params[p]) < FLUSH_BELOW:
            params[p] = 0


@kernel
def _draw_ahead(step, left, count, sampling, work):
    """Draws for as many of the `left` steps from `step` on as the buffer holds; returns how many they are."""
    here = first_draw(step, count, sampling)
    ahead = min(max(work.drawn.size // sampling.batch, 1), left)
    filled = first_draw(step + ahead, count, sampling) - here
    draws(sampling.seed, DOMAIN, here, sampling.replacement, work.order, work.drawn[:filled])
    return filled


@part
def first_draw(step, count, sampling):
    """The number of a step's first draw. Without replacement an epoch is `count` draws, its last batch the rest."""
    if sampling.replacement:
        return step * sampling.batch
    per_epoch = (count + sampling.batch - 1) // sampling.batch
    return step // per_epoch * count + step % per_epoch * sampling.batch


@part
def batch_size(step, count, sampling):
    """How many entries step `step` draws."""
    return first_draw(step + 1, count, sampling) - first_draw(step, count, sampling)


# Below, params, f and b are addresses; numbers have the type of `one` or `factor`.


@kernel
def _forward_back(one, params, widths, where, f, b):
    """f_1 … f_{N−1} and b_1 … b_{N−1}, one after the other; returns W_rc."""
    row, column = where
    depth = widths.size - 1
    inputs = widths[0]
    size = itemsize(one)
    zero = one - one
    if depth == 1:
        return load(params + (row * inputs + column) * size, one)
    for q in range(widths[1]):
        store(load(params + (q * inputs + column) * size, one), f + q * size)
    layer = params + widths[1] * inputs * size
    here = f
    for i in range(2, depth):
        after = here + widths[i - 1] * size
        _times(one, layer, here, widths[i], widths[i - 1], after)
        layer += widths[i] * widths[i - 1] * size
        here = after
    last = layer + row * widths[depth - 1] * size
    inner = widths[depth - 1]
    product = zero
    for p in range(inner):
        product = fma(load(last + p * size, one), load(here + p * size, one), product)
    back = b + (here - f)
    for p in range(inner):
        store(load(last + p * size, one), back + p * size)
    for i in range(depth - 1, 1, -1):
        layer -= widths[i] * widths[i - 1] * size
        before = back - widths[i - 1] * size
        _times_transposed(one, layer, back, widths[i], widths[i - 1], before)
        back = before
    return product


@kernel
def _times(one, matrix, x, rows, columns, out):
    """out = A x: eight rows at a time, each a chain over the columns."""
    size = itemsize(one)
    zero = one - one
    stride = columns * size
    q = 0
    while q + 8 <= rows:
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = zero
        at = matrix + q * stride
        for p in range(columns):
            value = load(x + p * size, one)
            here = at + p * size
            s0 = fma(load(here, one), value, s0)
            s1 = fma(load(here + stride, one), value, s1)
            s2 = fma(load(here + 2 * stride, one), value, s2)
            s3 = fma(load(here + 3 * stride, one), value, s3)
            s4 = fma(load(here + 4 * stride, one), value, s4)
            s5 = fma(load(here + 5 * stride, one), value, s5)
            s6 = fma(load(here + 6 * stride, one), value, s6)
            s7 = fma(load(here + 7 * stride, one), value, s7)
        store(s0, out + q * size)
        store(s1, out + (q + 1) * size)
        store(s2, out + (q + 2) * size)
        store(s3, out + (q + 3) * size)
        store(s4, out + (q + 4) * size)
        store(s5, out + (q + 5) * size)
        store(s6, out + (q + 6) * size)
        store(s7, out + (q + 7) * size)
        q += 8
    while q < rows:
        total = zero
        for p in range(columns):
            total = fma(load(matrix + q * stride + p * size, one), load(x + p * size, one), total)
        store(total, out + q * size)
        q += 1


@kernel
def _times_transposed(one, matrix, x, rows, columns, out):
    """out = Aᵀ x: four vectors of columns at a time, then one, then single columns, each a chain over the rows."""
    size = itemsize(one)
    stride = columns * size
    at = np.int64(0)
    end = columns * size
    while at + 4 * UNIT <= end:
        s0 = s1 = s2 = s3 = zero_lanes(one)
        here = matrix + at
        for q in range(rows):
            value = splat_lanes(load(x + q * size, one))
            s0 = fma_lanes(load_lanes(one, here), value, s0)
            s1 = fma_lanes(load_lanes(one, here + UNIT), value, s1)
            s2 = fma_lanes(load_lanes(one, here + 2 * UNIT), value, s2)
            s3 = fma_lanes(load_lanes(one, here + 3 * UNIT), value, s3)
            here += stride
        store_lanes(s0, out + at)
        store_lanes(s1, out + at + UNIT)
        store_lanes(s2, out + at + 2 * UNIT)
        store_lanes(s3, out + at + 3 * UNIT)
        at += 4 * UNIT
    while at + UNIT <= end:
        total = zero_lanes(one)
        for q in range(rows):
            value = splat_lanes(load(x + q * size, one))
            total = fma_lanes(load_lanes(one, matrix + at + q * stride), value, total)
        store_lanes(total, out + at)
        at += UNIT
    while at < end:
        total = one - one
        for q in range(rows):
            total = fma(load(matrix + at + q * stride, one), load(x + q * size, one), total)
        store(total, out + at)
        at += size


@kernel
def _update(factor, decay, fresh, params, widths, where, factors):
    """layer i = decay · layer i + factor · b_i f_{i−1}ᵀ; decay is 1 unless `fresh`."""
    row, column = where
    f, b = factors
    depth = widths.size - 1
    inputs = widths[0]
    size = itemsize(factor)
    if fresh:
        _scale(decay, params, widths[1] * inputs * size)
    if depth == 1:
        at = params + (row * inputs + column) * size
        store(load(at, factor) + factor, at)
        return
    for q in range(widths[1]):
        at = params + (q * inputs + column) * size
        store(fma(factor, load(b + q * size, factor), load(at, factor)), at)
    layer = params + widths[1] * inputs * size
    for i in range(2, depth):
        b += widths[i - 1] * size
        for q in range(widths[i]):
            stride = widths[i - 1] * size
            _scale_and_add(decay, factor * load(b + q * size, factor), f, layer, stride)
            layer += stride
        f += widths[i - 1] * size
    stride = widths[depth - 1] * size
    if fresh:
        _scale(decay, layer, widths[depth] * stride)
    _add_scaled(factor, f, layer + row * stride, widths[depth - 1])


@kernel
def _scale(factor, at, length):
    """Multiply what lies in `length` bytes from `at` on."""
    end = at + length
    spread = splat_lanes(factor)
    while at + UNIT <= end:
        store_lanes(multiply_lanes(spread, load_lanes(factor, at)), at)
        at += UNIT
    while at < end:
        store(factor * load(at, factor), at)
        at += itemsize(factor)


@kernel
def _scale_and_add(scale, factor, x, out, length):
    """out = scale · out + factor · x, the first product rounded by itself; `length` in bytes."""
    at = np.int64(0)
    first = splat_lanes(scale)
    second = splat_lanes(factor)
    while at + UNIT <= length:
        old = multiply_lanes(first, load_lanes(factor, out + at))
        store_lanes(fma_lanes(second, load_lanes(factor, x + at), old), out + at)
        at += UNIT
    while at < length:
        store(fma(factor, load(x + at, factor), scale * load(out + at, factor)), out + at)
        at += itemsize(factor)


@kernel
def _add_scaled(factor, x, out, count):
    """out += factor · x."""
    size = itemsize(factor)
    for p in range(count):
        store(fma(factor, load(x + p * size, factor), load(out + p * size, factor)), out + p * size)
