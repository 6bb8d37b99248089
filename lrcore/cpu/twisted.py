"""Singular vectors of an upper bidiagonal matrix for values that are known, eight side by side.

For a value σ the factorizations of BᵀB − σ² from its two ends are twisted together at the row where they leave least:
there the vector is largest, and its other elements follow by multiplications alone (Parlett and Dhillon 1997). For the
left vectors the same is done with B read from its end. Accurate when σ is apart from the other values. Close ones give
nearly the same vector; the error that is returned shows it.
"""

import math

import numpy as np

from lrcore.cpu._arrays import clear
from lrcore.cpu._lanes import (
    add_lanes,
    divide_lanes,
    fma_lanes,
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
from lrcore.cpu.bidiagonal import reflect_back
from lrcore.layout import LANE_BYTES

UNIT, LANES = np.int64(LANE_BYTES), np.int64(LANE_BYTES // 8)


@kernel
def leading_vectors(values, limit, work, lanes):
    """Rows of work.u and work.v: the first singular vectors of the matrix that was reduced in `work`, of length 1.

    values (n,): those of B. Returns whether their error is at most `limit`, see `bidiagonal_vectors`.
    """
    if not bidiagonal_vectors(work.diagonal, work.above, values, work.u, work.v, lanes) <= limit:
        return False
    reflect_back(work.left, work.factors[0], work.u)
    reflect_back(work.right, work.factors[1], work.v)
    return True


@kernel
def bidiagonal_vectors(diagonal, above, values, left, right, work):
    """Rows of left and right (count, ≥ n): the singular vectors of B for values[:count], each of length 1.

    diagonal, above, values: (n,). Returns the largest error of these vectors, relative to the largest value: what
    B v − σ u, Bᵀ u − σ v and the products of different vectors differ from 0 by, and squared lengths from 1; NaN if a
    vector could not be made. A vector of zeros, left where squares overflow, has no residual, but also no length.
    """
    count = left.shape[0]
    n = diagonal.size
    for first in range(0, count, LANES):
        last = min(first + LANES, count)
        _twisted(diagonal, above, values, first, last, np.int64(1), right, work)
        _twisted(diagonal, above, values, first, last, np.int64(-1), left, work)
    error = 0.0
    for i in range(count):
        error = max(error, _join(diagonal, above, values[i], left[i], right[i]) / values[0])
        for j in range(i + 1):
            inner_left = inner_right = -1.0 if j == i else 0.0
            for k in range(n):
                inner_left += left[i, k] * left[j, k]
                inner_right += right[i, k] * right[j, k]
            error = max(error, abs(inner_left), abs(inner_right))
        if not np.isfinite(left[i, 0] + right[i, 0]):
            return np.nan
    return error


@kernel
def _join(diagonal, above, value, u, v):
    """Give u the sign that belongs to v; the largest element of B v − σ u and Bᵀ u − σ v."""
    n = diagonal.size
    inner = 0.0
    for k in range(n):
        inner += u[k] * (diagonal[k] * v[k] + (above[k] * v[k + 1] if k + 1 < n else 0.0))
    if inner < 0:
        for k in range(n):
            u[k] = -u[k]
    error = 0.0
    for k in range(n):
        down = diagonal[k] * v[k] + (above[k] * v[k + 1] if k + 1 < n else 0.0) - value * u[k]
        across = diagonal[k] * u[k] + (above[k - 1] * u[k - 1] if k > 0 else 0.0) - value * v[k]
        error = max(error, abs(down), abs(across))
    return error


@kernel
def _twisted(diagonal, above, values, first, last, direction, out, work):
    """Rows first … last − 1 of out: eigenvectors of BᵀB (direction 1) or BBᵀ (−1: B read from its end), one per lane.

    From the top, s and the factors l; from the bottom, p and the factors u; they meet where |s + p + σ²| is least.
    """
    n = diagonal.size
    dtype = work.q.dtype
    lower = work.q
    upper = work.e
    stationary = work.q_new
    square = work.state[0]
    twists = work.state[1]
    for lane in range(LANES):
        square[lane] = values[min(first + lane, last - 1)] ** 2
    minus = subtract_lanes(zero_lanes(dtype), load_lanes(dtype, data_ptr(square)))
    s = minus
    for i in range(n):
        k = i if direction > 0 else n - 1 - i
        store_lanes(s, data_ptr(stationary) + i * UNIT)
        if i < n - 1:
            d = diagonal[k]
            e = above[k if direction > 0 else k - 1]
            ratio = divide_lanes(splat_lanes(e), add_lanes(s, splat_lanes(d * d)))
            store_lanes(multiply_lanes(ratio, splat_lanes(d)), data_ptr(lower) + i * UNIT)
            s = fma_lanes(multiply_lanes(s, ratio), splat_lanes(e), minus)
    p = add_lanes(splat_lanes(diagonal[n - 1 if direction > 0 else 0] ** 2), minus)
    twist = splat_lanes(dtype.type(n - 1))
    best = splat_lanes(dtype.type(np.inf))
    for i in range(n - 1, -1, -1):
        k = i if direction > 0 else n - 1 - i
        if i < n - 1:
            d = diagonal[k]
            e = above[k if direction > 0 else k - 1]
            ratio = divide_lanes(splat_lanes(d), fma_lanes(splat_lanes(e), splat_lanes(e), p))
            store_lanes(multiply_lanes(ratio, splat_lanes(e)), data_ptr(upper) + i * UNIT)
            p = fma_lanes(multiply_lanes(p, ratio), splat_lanes(d), minus)
        gamma = subtract_lanes(add_lanes(load_lanes(dtype, data_ptr(stationary) + i * UNIT), p), minus)
        gamma = multiply_lanes(gamma, gamma)
        better = less_lanes(gamma, best)
        best = where_lanes(better, gamma, best)
        twist = where_lanes(better, splat_lanes(dtype.type(i)), twist)
    store_lanes(twist, data_ptr(twists))
    for lane in range(last - first):
        _substitute(n, lane, np.int64(twists[lane]), direction, out[first + lane], lower, upper)


@kernel
def _substitute(n, lane, twist, direction, z, lower, upper):
    """The vector from its largest element to both ends."""
    step = direction
    at = twist if direction > 0 else n - 1 - twist
    z[at] = 1.0
    squares = 1.0
    value = 1.0
    for i in range(twist - 1, -1, -1):
        value *= -lower[i, lane]
        squares += value * value
        z[at - step * (twist - i)] = value
    value = 1.0
    for i in range(twist, n - 1):
        value *= -upper[i, lane]
        squares += value * value
        z[at + step * (i + 1 - twist)] = value
    factor = 1 / math.sqrt(squares)
    for k in range(n):
        z[k] *= factor
    clear(z[n:])
