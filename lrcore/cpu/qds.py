"""Singular values of upper bidiagonal matrices, up to eight side by side.

The differential quotient-difference algorithm with shifts (Fernando and Parlett 1994), one matrix in each lane. A sweep
is a chain of divisions in which each waits for the one before; eight chains take as long as one. With q the squares of
the diagonal and e those above it, a sweep with shift τ makes q̂, ê of B̂ with B̂ᵀB̂ = BBᵀ − τ; q_n tends to the smallest
value that is left. A shift above the smallest value shows as a negative d: such a sweep is undone and made again with
less. The shifts follow from the last 2 × 2 block, less what the next coupling may take away; after two failures, as
among values that are nearly equal, Gershgorin's lower bound is taken.

No sweep subtracts but the shift itself, so sweeps lose nothing. What loses something is taking values off:

    e_{n−1} negligible      It is dropped. This changes B, and so no value by more, by √e ≤ 16 ε σ_1.
    q_n e_{n−1} negligible  It is the square of what couples the last row of BBᵀ to the others. The row is dropped, but
                            not e_{n−1}: that is a part of the diagonal before, and large where q_n is nearly 0, as in
                            a matrix that has not full rank.

In the second case, to add e_{n−1} to q_{n−1} alone would also change the coupling q_{n−1} e_{n−2} of the row before; it
is the fault for which values of matrices with a zero column were once wrong by up to σ_1. So e_{n−1} goes up through
all rows that feel it (`_give_back`). `lrcore.cpu.inertia` proves the values that are found.
"""

import math

import numpy as np

from lrcore.cpu._arrays import copy_rows
from lrcore.cpu._lanes import (
    add_lanes,
    divide_lanes,
    fma_lanes,
    less_lanes,
    load_lanes,
    multiply_lanes,
    splat_lanes,
    sqrt_lanes,
    store_lanes,
    subtract_lanes,
    where_lanes,
    zero_lanes,
)
from lrcore.cpu._target import kernel
from lrcore.cpu._vector import data_ptr
from lrcore.layout import LANE_BYTES

UNIT, LANES = np.int64(LANE_BYTES), np.int64(LANE_BYTES // 8)
EPS = float(np.finfo(np.float64).eps)
NEGLIGIBLE = (16 * EPS) ** 2  # a coupling e is dropped below this times the largest value squared
SMALLEST = 1e-300  # makes a shift of 0 a negative number, too
MOST_SWEEPS = 100  # per value; about two pairs are made, and up to 48 where a small value hides between equal ones

# Rows of work.state, a number for each lane. Integers are exact in float64 and can be compared as vectors.
#   START, END           rows of the block in work; END < 0 when the lane is done
#   SHIFT, TOTAL         of the next sweep; of all sweeps so far
#   TINY                 what is negligible
#   FAILED               the least d of the sweep with the shift
#   LOWEST, BEFORE_TWO   the least d of the sweep without one; the least before its last two
#   SPLIT                the last row with a negligible e, or −1
#   TRIES                how often the shift was too large
#   A_, B_, C_, D_       q_{n−1}, e_{n−1}, q_n, e_{n−2} of the block
START, END, SHIFT, TOTAL, TINY, FAILED, LOWEST, BEFORE_TWO, SPLIT, TRIES, A_, B_, C_, D_ = range(14)
STATES = 14


@kernel
def bidiagonal_values(sizes, work):
    """The values of up to LANES matrices into work.values (n + 3, LANES), largest first.

    sizes (LANES,): 0 for a lane that is not used. work.q and work.e hold the squares of the diagonal and of what is
    above it, and are overwritten. The bits of what is returned say which lanes did not converge.
    """
    state = work.state
    dtype = work.q.dtype
    given = work.q.shape[0]
    copy_rows(work.q, work.q_new, given)
    copy_rows(work.e, work.e_new, given)
    largest = np.int64(0)
    for lane in range(LANES):
        _prepare(sizes[lane], lane, work)
        largest = max(largest, sizes[lane])
    for _ in range(MOST_SWEEPS * largest):
        first, last = _deflate(work)
        if last < 0:
            break
        _choose_shifts(dtype, data_ptr(state))
        _sweep_twice(dtype, first, last, work)
        _accept(dtype, first, last, work)
    failed = np.int64(0)
    for lane in range(LANES):
        values = work.values[: sizes[lane], lane]
        _sort(values)
        for value in values:
            if not np.isfinite(value):
                failed |= 1 << lane
        if state[END, lane] >= 0:
            failed |= 1 << lane
    return failed


@kernel
def _prepare(size, lane, work):
    """The start of a lane: larger squares first, for the smallest are found from the end."""
    q = work.q
    e = work.e
    state = work.state
    for i in range(STATES):
        state[i, lane] = 0
    state[END, lane] = size - 1
    state[SPLIT, lane] = -1
    for i in range(size, q.shape[0]):
        q[i, lane] = 1
        e[i, lane] = 0
    if size == 0:
        return
    e[size - 1, lane] = 0
    if q[0, lane] < q[size - 1, lane]:
        for i in range(size // 2):
            q[i, lane], q[size - 1 - i, lane] = q[size - 1 - i, lane], q[i, lane]
        for i in range((size - 1) // 2):
            e[i, lane], e[size - 2 - i, lane] = e[size - 2 - i, lane], e[i, lane]
    largest = 0.0
    for i in range(size):
        largest = max(largest, q[i, lane], e[i, lane])
    state[TINY, lane] = NEGLIGIBLE * largest
    state[START, lane] = _start_of_block(lane, size - 1, 0.0, state[TINY, lane], e)


@kernel
def _deflate(work):
    """Take off the values that are found; (first, last) row that is still in work in any lane, last = −1 if none is."""
    q = work.q
    e = work.e
    state = work.state
    first = np.int64(q.shape[0])
    last = np.int64(-1)
    for lane in range(LANES):
        start = np.int64(state[START, lane])
        end = np.int64(state[END, lane])
        if end >= 0 and state[TRIES, lane] == 0:
            tiny = state[TINY, lane]
            split = state[SPLIT, lane]
            ends = _ends(q[end, lane], e[end - 1, lane], state[TOTAL, lane], tiny)
            if ends or end - start < 2 or e[end - 2, lane] <= tiny or split >= 0:
                start, end = _take_off(lane, start, end, q, e, state, work.values)
            if end >= 0:
                state[A_, lane] = q[end - 1, lane]
                state[B_, lane] = e[end - 1, lane]
                state[C_, lane] = q[end, lane]
                state[D_, lane] = e[end - 2, lane]
        if end >= 0:
            first = min(first, start)
            last = max(last, end)
    return first, last


@kernel
def _take_off(lane, start, end, q, e, state, values):
    """The values at the end of a lane's block that stand alone or in a pair; then another block, when one is done."""
    total = state[TOTAL, lane]
    tiny = state[TINY, lane]
    split = np.int64(state[SPLIT, lane])
    while end >= 0:
        if end == start:
            values[end, lane] = math.sqrt(total + q[end, lane])
            end -= 1
        elif _ends(q[end, lane], e[end - 1, lane], total, tiny):
            values[end, lane] = math.sqrt(total + q[end, lane])
            end -= 1
            if e[end, lane] <= tiny:
                q[end, lane] += e[end, lane]
            else:
                _give_back(lane, start, end, 4 * EPS * total, tiny, q, e)
        elif end - 1 == start or e[end - 2, lane] <= tiny:
            small, large = _two(q[end - 1, lane], e[end - 1, lane], q[end, lane])
            values[end, lane] = math.sqrt(total + small)
            values[end - 1, lane] = math.sqrt(total + large)
            end -= 2
        else:
            break
        if end < start and end >= 0:
            total = -e[end, lane] - SMALLEST
            e[end, lane] = 0
            start = _start_of_block(lane, end, total, tiny, e)
            state[LOWEST, lane] = 0
    if start <= split < end - 2:  # what is before it becomes another block; its shifts are kept at the coupling
        start = split + 1
        e[split, lane] = -total - SMALLEST
        state[LOWEST, lane] = 0
    state[SPLIT, lane] = -1
    state[START, lane] = start
    state[END, lane] = end
    state[TOTAL, lane] = total
    return start, end


@kernel
def _start_of_block(lane, end, total, tiny, e):
    """The first row of the block that ends at `end`; total: of the shifts of this block, kept at its coupling."""
    start = end
    while start > 0 and e[start - 1, lane] > tiny:
        start -= 1
    if start > 0 and e[start - 1, lane] >= 0:  # negligible, but not yet split
        e[start - 1, lane] = -total - SMALLEST
    return start


@kernel
def _give_back(lane, start, end, bound, tiny, q, e):
    """The row after `end` was taken off; give its e, which stays part of BBᵀ, to the rows before it.

    The diagonal of BBᵀ is q_i + e_i, and the square beside it q_{i+1} e_i. Both are kept without e_end: q_end grows by
    it, so e_{end−1} shrinks, and what that has lost goes to q_{end−1}, and so on. It may stop where the rest is within
    the bound, for then it is missing in one element of the diagonal alone; and where it is negligible: added to q alone
    it changes B by no more than its root, and small values stay accurate.
    """
    rest = e[end, lane]
    for i in range(end, start, -1):
        if rest <= tiny:
            q[i, lane] += rest
            return
        if rest <= bound:
            return
        before = q[i, lane]
        q[i, lane] = before + rest
        share = e[i - 1, lane] / q[i, lane]
        e[i - 1, lane] = before * share
        rest *= share
    q[start, lane] += rest


@kernel
def _ends(q, e, total, tiny):
    """Is the last value found? In BBᵀ, q_n e_{n−1} is the square of what couples it to the others."""
    bound = 4 * EPS * total + tiny
    return e <= tiny or q * e <= bound * bound


@kernel
def _two(a, b, c):
    """The eigenvalues of BBᵀ for squares a, c on the diagonal and b above it, small first."""
    half = 0.5 * (a + b - c)
    large = 0.5 * (a + b + c) + math.sqrt(half * half + c * b)
    return c * (a / large), large


@kernel
def _choose_shifts(dtype, state):
    """Guesses at the smallest eigenvalues, mostly from below.

    The smaller eigenvalue of the last 2 × 2 block, less ρ or ρ²/gap, where ρ is the residual of its vector; at least a
    quarter of the least d; 0 in a new block, of which nothing is known. Lanes that try again have their shift already.
    """
    zero = zero_lanes(dtype)
    half = splat_lanes(dtype.type(0.5))
    a = load_lanes(dtype, state + A_ * UNIT)
    b = load_lanes(dtype, state + B_ * UNIT)
    c = load_lanes(dtype, state + C_ * UNIT)
    d = load_lanes(dtype, state + D_ * UNIT)
    top = add_lanes(a, b)
    product = multiply_lanes(b, c)
    difference = multiply_lanes(half, subtract_lanes(top, c))
    root = sqrt_lanes(fma_lanes(difference, difference, product))
    small = multiply_lanes(c, divide_lanes(a, fma_lanes(half, add_lanes(top, c), root)))
    rest = subtract_lanes(top, small)
    weight = divide_lanes(product, fma_lanes(rest, rest, product))
    residual = multiply_lanes(weight, multiply_lanes(a, d))
    guess = subtract_lanes(small, sqrt_lanes(residual))
    gap = fma_lanes(
        load_lanes(dtype, state + BEFORE_TWO * UNIT), splat_lanes(dtype.type(0.75)), subtract_lanes(zero, small)
    )
    better = subtract_lanes(small, divide_lanes(residual, gap))
    apart = less_lanes(zero, gap) & less_lanes(residual, multiply_lanes(gap, gap)) & less_lanes(guess, better)
    guess = where_lanes(apart, better, guess)
    lowest = load_lanes(dtype, state + LOWEST * UNIT)
    least = multiply_lanes(splat_lanes(dtype.type(0.25)), lowest)
    guess = where_lanes(less_lanes(least, guess), guess, least)
    guess = where_lanes(less_lanes(zero, lowest), guess, zero)
    again = less_lanes(zero, load_lanes(dtype, state + TRIES * UNIT))
    store_lanes(where_lanes(again, load_lanes(dtype, state + SHIFT * UNIT), guess), state + SHIFT * UNIT)


@kernel
def _sweep_twice(dtype, first, last, work):
    """A sweep with the shift and, one row behind it, one without: the chains of both run at the same time.

    Of every lane over its rows START … END, into q_new and e_new, where row i is row i + 1. The second sweep costs
    nothing, since the processor waits for divisions, and contracts the last coupling once more.
    """
    q = data_ptr(work.q)
    e = data_ptr(work.e)
    q_new = data_ptr(work.q_new)
    e_new = data_ptr(work.e_new)
    state = data_ptr(work.state)
    start = load_lanes(dtype, state + START * UNIT)
    end = load_lanes(dtype, state + END * UNIT)
    shift = load_lanes(dtype, state + SHIFT * UNIT)
    tiny = load_lanes(dtype, state + TINY * UNIT)
    one = splat_lanes(dtype.type(1))
    index = splat_lanes(dtype.type(first))
    minus = subtract_lanes(zero_lanes(dtype), shift)
    d = d_second = q_before = e_before = zero_lanes(dtype)
    failed = lowest = before_two = splat_lanes(dtype.type(np.inf))
    split = splat_lanes(dtype.type(-1))
    inside_before = closing_before = starts_before = np.intp(0)
    q_here = load_lanes(dtype, q + first * UNIT)
    for at in range(first * UNIT, (last + 2) * UNIT, UNIT):
        starts, inside, closing = _row_masks(index, one, start, end)
        e_here = load_lanes(dtype, e + at)
        q_next = load_lanes(dtype, q + at + UNIT)
        d = where_lanes(starts, subtract_lanes(q_here, shift), d)
        failed = where_lanes(closing & less_lanes(d, failed), d, failed)
        total = add_lanes(d, e_here)
        ratio = divide_lanes(q_next, total)
        q_first = where_lanes(closing, where_lanes(inside, total, d), q_here)
        e_first = where_lanes(inside, multiply_lanes(e_here, ratio), e_here)
        d = fma_lanes(d, ratio, minus)

        d_second = where_lanes(starts_before, q_before, d_second)
        before_two = where_lanes(inside_before, lowest, before_two)  # at END − 1: all d's up to END − 2
        lowest = where_lanes(closing_before & less_lanes(d_second, lowest), d_second, lowest)
        total = add_lanes(d_second, e_before)
        ratio = divide_lanes(q_first, total)
        e_second = multiply_lanes(e_before, ratio)
        store_lanes(where_lanes(closing_before, where_lanes(inside_before, total, d_second), q_before), q_new + at)
        store_lanes(where_lanes(inside_before, e_second, e_before), e_new + at)
        split = where_lanes(inside_before & ~less_lanes(tiny, e_second), subtract_lanes(index, one), split)
        d_second = multiply_lanes(d_second, ratio)

        index = add_lanes(index, one)
        q_here = q_next
        q_before = q_first
        e_before = e_first
        inside_before = inside
        closing_before = closing
        starts_before = starts
    store_lanes(failed, state + FAILED * UNIT)
    store_lanes(lowest, state + LOWEST * UNIT)
    store_lanes(before_two, state + BEFORE_TWO * UNIT)
    store_lanes(split, state + SPLIT * UNIT)


@kernel
def _row_masks(index, one, start, end):
    """The lanes in whose block row `index` is the first, is before the last, and is at all."""
    begun = less_lanes(start, add_lanes(index, one))
    closing = begun & less_lanes(index, add_lanes(end, one))
    starts = closing & less_lanes(index, add_lanes(start, one))
    return starts, begun & less_lanes(index, end), closing


@kernel
def _accept(dtype, first, last, work):
    """Keep the sweeps of the lanes without a negative d; a smaller shift for the others."""
    state = work.state
    kept = np.int64(0)
    for lane in range(LANES):
        if state[END, lane] < 0:
            continue
        if state[FAILED, lane] >= 0:
            kept |= 1 << lane
            state[TOTAL, lane] += state[SHIFT, lane]
            state[TRIES, lane] = 0
            continue
        state[TRIES, lane] += 1
        shift = 0.25 * state[SHIFT, lane]
        if state[TRIES, lane] == 1:  # when only the last d is negative, this is from below
            shift = max(shift, (state[SHIFT, lane] + state[FAILED, lane]) * (1 - 2 * EPS))
        elif state[TRIES, lane] == 2:
            start = np.int64(state[START, lane])
            end = np.int64(state[END, lane])
            shift = max(shift, _lower_bound(lane, start, end, work.q, work.e))
        state[SHIFT, lane] = shift if state[TRIES, lane] < 4 else 0.0
    q = data_ptr(work.q)
    e = data_ptr(work.e)
    q_new = data_ptr(work.q_new)
    e_new = data_ptr(work.e_new)
    for at in range(first * UNIT, (last + 1) * UNIT, UNIT):
        store_lanes(where_lanes(kept, load_lanes(dtype, q_new + at + UNIT), load_lanes(dtype, q + at)), q + at)
        store_lanes(where_lanes(kept, load_lanes(dtype, e_new + at + UNIT), load_lanes(dtype, e + at)), e + at)


@kernel
def _lower_bound(lane, start, end, q, e):
    """Gershgorin's lower bound of the eigenvalues of BBᵀ: sharp where equal values are all but uncoupled."""
    before = 0.0
    bound = np.inf
    for i in range(start, end):
        beside = math.sqrt(q[i + 1, lane] * e[i, lane])
        bound = min(bound, q[i, lane] + e[i, lane] - before - beside)
        before = beside
    return min(bound, q[end, lane] - before) * (1 - 4 * EPS)


@kernel
def _sort(values):
    """Largest first, in place; they nearly are."""
    for i in range(1, values.size):
        value = values[i]
        j = i
        while j > 0 and values[j - 1] < value:
            values[j] = values[j - 1]
            j -= 1
        values[j] = value
