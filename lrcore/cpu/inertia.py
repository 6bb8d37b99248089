"""Proof that values are those of a bidiagonal matrix: how many there are below each of them, counted on both sides.

Let A_k be the leading k × k minor of BᵀB − x², for an x ≥ 0. With q, e the squares of B's diagonal and superdiagonal,

    A_0 = 1,  C_0 = x²      A_k = q_k A_{k−1} − C_{k−1},   C_k = x² A_k + e_k C_{k−1}

and A_0 … A_n have as many changes of sign as B has values below x (Sturm, Sylvester). Value number i, counted from 0,
is within δ of σ̂_i if at least n − i values lie below σ̂_i + δ and at most n − 1 − i below σ̂_i − δ. Nothing is
assumed about how σ̂ was found, nor about clusters and zeros.

Where σ̂_i − δ … σ̂_i + δ is apart from all the other intervals, the sign of A_n at its ends is enough: if it changes,
the interval holds a value of B. None of those that were counted: they lie in their own intervals. So the values that
were not counted are as many as such intervals, and there is one in each of these, in order. Counting takes twice as
long as the sign.

Rounding weakens this by no more than 2u σ_1, u = 2^−53. With |η| ≤ u, a computed A_k is
(1 + η_1)(q_k A_{k−1} − C_{k−1}) and a computed C_k is (1 + η_3)(x² A_k + (1 + η_2) e_k C_{k−1}). Divided by the factors
that pile up, these are the exact minors of a matrix with q_k / (1 + η_3) and e_k (1 + η_2)/(1 + η_1), whose B differs
by at most u in every element.

No division is made. After every fourth row the lanes are multiplied by a power of two. Squares below FLOOR times the
largest are raised to that: this moves values by at most 2 √FLOOR σ_1 and keeps four rows from vanishing.
"""

import math

import numpy as np

from lrcore.cpu._lanes import (
    add_where_signs_differ,
    fma_lanes,
    load_lanes,
    multiply_lanes,
    power_toward_one,
    splat_lanes,
    store_lanes,
    subtract_lanes,
    zero_lanes,
)
from lrcore.cpu._target import kernel
from lrcore.cpu._vector import data_ptr
from lrcore.cpu.qds import bidiagonal_values
from lrcore.layout import LANE_BYTES

UNIT, LANES = np.int64(LANE_BYTES), np.int64(LANE_BYTES // 8)
FLOOR = 2.0**-104
APART = 3  # δ between values whose intervals of ±δ are apart, whatever is rounded
# Rows of work.state: x² below and above a value, how many values of B are less, and whether A_n changes its sign.
BELOW, ABOVE, LESS_BELOW, LESS_ABOVE, CHANGES = range(5)


@kernel
def proven_values(sizes, tolerance, work):
    """`bidiagonal_values` and `unproven_values` in one call: the lanes that did not converge, the lanes not proven."""
    unconverged = bidiagonal_values(sizes, work)
    return unconverged, unproven_values(sizes, tolerance, work)


@kernel
def unproven_values(sizes, tolerance, work):
    """The lanes, as bits, where some of work.values is not within tolerance · σ_1 of the same value of the matrix.

    sizes (LANES,): 0 for a lane that is not used. The matrices are those that `bidiagonal_values` was given. The first
    half of work.q_new and work.e_new, and work.state, are overwritten.
    """
    bits = np.int64(0)
    state = work.state
    values = work.values
    given = work.q.shape[0]
    q = work.q_new.reshape(work.q_new.size)
    e = work.e_new.reshape(work.e_new.size)
    for lane in range(LANES):
        size = sizes[lane]
        if size == 0:
            continue
        root = _scale(size, lane, work.q_new[given:], work.e_new[given:], q, e)
        if not _proven(size, tolerance, root, lane, values, q, e, state):
            bits |= 1 << lane
    return bits


@kernel
def _proven(size, tolerance, root, lane, values, q, e, state):
    """Whether the values of a lane, times root, are those of the matrix whose squares are q and e."""
    if root == 0:
        return values[0, lane] == 0
    delta = tolerance * values[0, lane]
    for first in range(0, size, LANES):
        for i in range(LANES):
            value = values[min(first + i, size - 1), lane]
            state[BELOW, i] = (max(value - delta, 0.0) * root) ** 2
            state[ABOVE, i] = ((value + delta) * root) ** 2
        last = min(first + LANES, size)
        if _apart(first, last, size, APART * delta, lane, values):
            _change_sign(q.dtype, size, q, e, data_ptr(state))
            for i in range(LANES):
                if state[CHANGES, i] != 1:
                    return False
            continue
        _count_less(q.dtype, size, q, e, data_ptr(state))
        for i in range(first, last):
            if not (state[LESS_BELOW, i - first] <= size - 1 - i and state[LESS_ABOVE, i - first] >= size - i):
                return False
    return True


@kernel
def _apart(first, last, size, gap, lane, values):
    """Whether values first … last − 1 are further than `gap` from each other and from those beside them."""
    apart = True
    for i in range(max(first, 1), min(last + 1, size)):
        apart = apart and values[i - 1, lane] - values[i, lane] > gap
    return apart


@kernel
def _scale(size, lane, q, e, to_q, to_e):
    """Column `lane` of q and e to to_q and to_e, their largest in (1/4, 1]; the factor of the values, or 0."""
    largest = 0.0
    for k in range(size):
        largest = max(largest, q[k, lane], e[k, lane])
    if not (largest > 0 and np.isfinite(largest)):
        return 0.0
    root = math.ldexp(1.0, -((math.frexp(largest)[1] + 1) // 2))
    factor = root * root
    for k in range(size):
        to_q[k] = max(q[k, lane] * factor, FLOOR)
        to_e[k] = max(e[k, lane] * factor, FLOOR)
    return root


@kernel
def _change_sign(dtype, size, q, e, state):
    """Row CHANGES of the state: 1 where A_n has not the same sign at the rows BELOW and ABOVE, else 0."""
    a = b = splat_lanes(dtype.type(1))
    minus_below = subtract_lanes(zero_lanes(dtype), load_lanes(dtype, state + BELOW * UNIT))
    minus_above = subtract_lanes(zero_lanes(dtype), load_lanes(dtype, state + ABOVE * UNIT))
    # −C, as in `_count_less`
    c = minus_below
    d = minus_above
    for k in range(size):
        q_k = splat_lanes(q[k])
        e_k = splat_lanes(e[k])
        a = fma_lanes(q_k, a, c)
        b = fma_lanes(q_k, b, d)
        c = fma_lanes(minus_below, a, multiply_lanes(e_k, c))
        d = fma_lanes(minus_above, b, multiply_lanes(e_k, d))
        if k % 4 == 3:
            below_power = power_toward_one(a, c)
            above_power = power_toward_one(b, d)
            a = multiply_lanes(a, below_power)
            c = multiply_lanes(c, below_power)
            b = multiply_lanes(b, above_power)
            d = multiply_lanes(d, above_power)
    store_lanes(add_where_signs_differ(zero_lanes(dtype), a, b), state + CHANGES * UNIT)


@kernel
def _count_less(dtype, size, q, e, state):
    """Rows LESS_BELOW and LESS_ABOVE of the state, from the rows BELOW and ABOVE."""
    a = b = splat_lanes(dtype.type(1))
    minus_below = subtract_lanes(zero_lanes(dtype), load_lanes(dtype, state + BELOW * UNIT))
    minus_above = subtract_lanes(zero_lanes(dtype), load_lanes(dtype, state + ABOVE * UNIT))
    # −C, so that a row takes three instructions
    c = minus_below
    d = minus_above
    less_below = less_above = zero_lanes(dtype)
    for k in range(size):
        q_k = splat_lanes(q[k])
        e_k = splat_lanes(e[k])
        a_next = fma_lanes(q_k, a, c)
        b_next = fma_lanes(q_k, b, d)
        less_below = add_where_signs_differ(less_below, a, a_next)
        less_above = add_where_signs_differ(less_above, b, b_next)
        a = a_next
        b = b_next
        c = fma_lanes(minus_below, a, multiply_lanes(e_k, c))
        d = fma_lanes(minus_above, b, multiply_lanes(e_k, d))
        if k % 4 == 3:
            below_power = power_toward_one(a, c)
            above_power = power_toward_one(b, d)
            a = multiply_lanes(a, below_power)
            c = multiply_lanes(c, below_power)
            b = multiply_lanes(b, above_power)
            d = multiply_lanes(d, above_power)
    store_lanes(less_below, state + LESS_BELOW * UNIT)
    store_lanes(less_above, state + LESS_ABOVE * UNIT)
