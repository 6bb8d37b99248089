"""A = U B Vᵀ with B upper bidiagonal, by Householder reflections (Golub and Kahan 1965): the costly part of an SVD.

For every column k a reflection from the left clears what is below the diagonal, one from the right what is beside the
first superdiagonal. Each changes all of the remaining matrix, which is larger than the first-level cache, so what
counts is how often it passes through it. Done one after the other that is four times per column; here it is once. With
A the remaining matrix, u and v the reflections of this column and y vᵀ the change that the last one from the right
still owes, a strip of columns at a time goes through two passes while it is in the cache:

    down      w = τ (A − y vᵀ)ᵀ u, for the columns of the strip; then row k of what A becomes: r = a_k − y_k v − w
    across    A −= y vᵀ + u wᵀ and s = A r, summed over the strips

r becomes the next v = (r − β e) / (r_1 − β) only when all of it is known, but A v follows from s = A r and the first
column of A (Howell, Demmel, Fulton, Hammarling, Marmol 2008); that column, less what is owed, is the next u.

Works in float64 whatever the matrix has, and divides it by a power of two near its norm before, so that squares neither
overflow nor vanish. No bit depends on the processor: sums follow the lanes of `_lanes`.
"""

import math
from typing import NamedTuple

import numpy as np

from lrcore.cpu._arrays import clear, clear_rows
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
from lrcore.cpu._strips import STRIP, across_strip, downward_strip, total_rows
from lrcore.cpu._sums import inner
from lrcore.cpu._target import kernel, part
from lrcore.cpu._vector import data_ptr, load, store
from lrcore.layout import LANE_BYTES

UNIT, LANES, SIZE = np.int64(LANE_BYTES), np.int64(LANE_BYTES // 8), np.int64(8)
NOTHING = 1e-280  # a sum of squares below this may have lost most of itself; of a matrix of norm 1 it is nothing
KEPT = 1e-11  # relative change of the sum of squares that rounding can explain
SAFETY = 1e10  # a sum of squares that is not this much above the smallest number may lack some that vanished
SMALLEST = 2.0**-1020  # matrices whose largest number is below this go to LAPACK
STRIP_BYTES = 32768  # of a strip: it must stay in the first-level cache from one pass to the next


class _Pointers(NamedTuple):
    """Where the buffers of a workspace are; sizes in bytes."""

    a: int
    stride: int
    vectors: int
    w: int
    y: int
    sums: int
    left: int
    lefts: int
    left_size: int
    right: int
    rights: int
    right_size: int


@kernel
def _pointers(work):
    return _Pointers(
        data_ptr(work.matrix),
        work.matrix.shape[1] * SIZE,
        work.across.size // LANES,
        data_ptr(work.across),
        data_ptr(work.down),
        data_ptr(work.sums),
        data_ptr(work.left),
        work.left.shape[0],
        work.left.shape[1] * SIZE,
        data_ptr(work.right),
        work.right.shape[0],
        work.right.shape[1] * SIZE,
    )


@kernel
def bidiagonalize(matrix, work, lane, lanes):
    """B of a (m, n) matrix, or of its transpose if m < n: work.diagonal and work.above, divided by the returned scale.

    Their squares go to column `lane` of lanes.q and lanes.e. The reflections stay in work.left, work.right and
    work.factors if the workspace is for vectors. Returns 0 for zero, and NaN for what is not finite, near the smallest
    numbers, or has not kept its sum of squares.
    """
    scale = _scaled_copy(matrix, work.matrix)
    if not (np.isfinite(scale) and scale > 0):
        clear(work.diagonal)
        clear(work.above)
        _square(work.diagonal, work.above, lane, lanes)
        return scale
    rows = max(matrix.shape)
    columns = min(matrix.shape)
    dtype = work.matrix.dtype
    flat = work.matrix.reshape(work.matrix.size)
    total = inner(flat, flat)
    ptrs = _pointers(work)
    one = dtype.type(1)
    zero = dtype.type(0)
    u = ptrs.left
    v = ptrs.right
    clear(work.down)
    _next_column(0, rows, zero, zero, u, ptrs)
    for k in range(columns):
        tau, beta, _ = householder(dtype, k, u, rows)
        work.diagonal[k] = beta
        work.factors[0, k] = tau
        work.above[k] = 0
        if k < columns - 1:
            last = v
            v = ptrs.right + k % ptrs.rights * ptrs.right_size
            clear_rows(work.sums, k + 1, rows)
            _both_passes(dtype, k, rows, last, u, tau, v, ptrs)
            tau, beta, factor = householder(dtype, k + 1, v, columns)
            work.above[k] = beta
            work.factors[1, k] = tau
            for i in range((k + 1) // LANES * LANES, rows, LANES):
                total_rows(ptrs.sums + i * UNIT, tau * factor, ptrs.y + i * SIZE)
            u = ptrs.left + (k + 1) % ptrs.lefts * ptrs.left_size
            _next_column(k + 1, rows, tau * factor * beta, one, u, ptrs)
    kept = _square(work.diagonal, work.above, lane, lanes)
    return scale if abs(kept - total) <= KEPT * total else np.nan


@kernel
def _square(diagonal, above, lane, lanes):
    """The squares into lanes.q and lanes.e, and their sum: reflections leave it as it was."""
    q = lanes.q
    e = lanes.e
    total = 0.0
    for k in range(diagonal.size):
        q[k, lane] = diagonal[k] ** 2
        e[k, lane] = above[k] ** 2
        total += q[k, lane] + e[k, lane]
    return total


@kernel
def _scaled_copy(matrix, a):
    """A copy of the matrix, upright, divided by the returned power of two, which is about its norm.

    0 if it is zero, NaN if it is not finite or so small that its numbers have lost digits.
    """
    scale = _scale(matrix.reshape(matrix.size))
    if not (np.isfinite(scale) and scale > 0):
        return scale
    m, n = matrix.shape
    factor = 1 / scale
    if m >= n:
        for i in range(m):
            for j in range(n):
                a[i, j] = matrix[i, j] * factor
    else:
        for i in range(m):
            for j in range(n):
                a[j, i] = matrix[i, j] * factor
    return scale


@kernel
def _scale(flat):
    """What `_scaled_copy` returns: from the sum of squares or, where that is not certain, from the largest number."""
    total = inner(flat, flat)
    if np.isfinite(total) and total > SAFETY * np.finfo(flat.dtype).tiny:
        return math.ldexp(1.0, math.frexp(math.sqrt(total))[1])
    largest = 0.0
    for value in flat:
        if not np.isfinite(value):
            return np.nan
        largest = max(largest, abs(value))
    if largest == 0:
        return 0.0
    return math.ldexp(1.0, math.frexp(largest)[1] - 1) if largest > SMALLEST else np.nan


@kernel
def _next_column(k, rows, share, one, u, ptrs):
    """y −= share · column k of A; u = column k − y, from row k on and 0 before."""
    for i in range(k // LANES * LANES, k):
        store(one - one, u + i * SIZE)
    for i in range(k, rows):
        value = load(ptrs.a + i * ptrs.stride + k * SIZE, one)
        y = load(ptrs.y + i * SIZE, one) - share * value
        store(y, ptrs.y + i * SIZE)
        store(value - y, u + i * SIZE)


@part
def householder(dtype, k, x, count):
    """Turn x, which is 0 before k, into u with u_k = 1 and (1 − tau u uᵀ) x = beta e_k.

    Returns (tau, beta, factor): u is x − beta e_k times the factor; tau and the factor are 0 where nothing is to clear.
    """
    zero = dtype.type(0)
    one = dtype.type(1)
    head = load(x + k * SIZE, one)
    store(one - one, x + k * SIZE)
    first = k // LANES * UNIT
    last = (count + LANES - 1) // LANES * UNIT
    squares = zero_lanes(dtype)
    for at in range(first, last, UNIT):
        value = load_lanes(dtype, x + at)
        squares = fma_lanes(value, value, squares)
    rest = sum_lanes(squares)
    store(one, x + k * SIZE)
    if rest < NOTHING:
        return zero, head, zero
    norm = math.sqrt(head * head + rest)
    beta = -norm if head > 0 else norm
    factor = one / (head - beta)
    for at in range(first, last, UNIT):
        store_lanes(multiply_lanes(load_lanes(dtype, x + at), splat_lanes(factor)), x + at)
    store(one, x + k * SIZE)
    return (beta - head) / beta, beta, factor


@kernel
def _both_passes(dtype, k, rows, last, u, tau, r, ptrs):
    """Strip by strip: the reflection `last` from the right, whose y is known, then u from the left; r and the sums."""
    at = (k + 1) // LANES * UNIT
    vectors = ptrs.vectors - (k + 1) // LANES
    widest = max(1, min(STRIP, STRIP_BYTES // (UNIT * (rows - k))))
    row = ptrs.a + k * ptrs.stride
    one = dtype.type(1)
    zero = dtype.type(0)
    y = ptrs.y + k * SIZE
    u = u + k * SIZE
    while vectors > 0:
        strips = (vectors + widest - 1) // widest
        width = (vectors + strips - 1) // strips  # strips of much the same width
        v = last + at
        w = ptrs.w + at
        downward_strip((width, row + at, ptrs.stride, rows - k), y, v, u, w)
        _row(width * UNIT, row + at, load(y, one), v, tau, w, r + at)
        for j in range(at // SIZE, k + 1):
            store(zero, r + j * SIZE)
        below = row + ptrs.stride + at
        sums = ptrs.sums + (k + 1) * UNIT
        strip = (width, below, ptrs.stride, rows - k - 1)
        across_strip(strip, (y + SIZE, v, u + SIZE, w), r + at, sums)
        at += width * UNIT
        vectors -= width


@kernel
def _row(size, row, y, v, tau, w, r):
    """w times tau; r = row − y v − w, which is the row of A − y vᵀ − u wᵀ where u is 1."""
    for at in range(0, size, UNIT):
        scaled = multiply_lanes(load_lanes(tau, w + at), splat_lanes(tau))
        store_lanes(scaled, w + at)
        owed = fma_lanes(splat_lanes(-y), load_lanes(y, v + at), load_lanes(y, row + at))
        store_lanes(subtract_lanes(owed, scaled), r + at)


@kernel
def reflect_back(reflections, factors, vectors):
    """Apply the reflections 1 − τ u uᵀ, the last one first, to the rows of `vectors` (count, length).

    Row k of reflections (≥ count of factors, length) is u; factors (·,) the τ. Lengths are multiples of LANES.
    """
    dtype = vectors.dtype
    size = vectors.shape[1] * SIZE
    for k in range(factors.size - 1, -1, -1):
        if factors[k] == 0:
            continue
        u = data_ptr(reflections) + k * size
        for i in range(vectors.shape[0]):
            x = data_ptr(vectors) + i * size
            total = zero_lanes(dtype)
            for at in range(k // LANES * UNIT, size, UNIT):
                total = fma_lanes(load_lanes(dtype, u + at), load_lanes(dtype, x + at), total)
            share = splat_lanes(-factors[k] * sum_lanes(total))
            for at in range(k // LANES * UNIT, size, UNIT):
                store_lanes(fma_lanes(share, load_lanes(dtype, u + at), load_lanes(dtype, x + at)), x + at)
