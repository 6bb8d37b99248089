"""Sums over long vectors, several vectors of partial sums at a time, in an order that depends on the length alone.

Every partial sum is a sum of sums of sums (`layout.SUM_PIECE`, `layout.SUM_GROUP`): with one chain of additions each,
inner products of 10⁷ numbers in float32 would be right to three digits only.
"""

import numpy as np

from lrcore.cpu._lanes import (
    add_lanes,
    fma_lanes,
    load_lanes,
    multiply_lanes,
    splat_lanes,
    sum_lanes,
    zero_lanes,
)
from lrcore.cpu._target import kernel
from lrcore.cpu._vector import data_ptr
from lrcore.layout import LANE_BYTES, SUM_GROUP, SUM_PIECE

UNIT = np.int64(LANE_BYTES)


@kernel
def inner(a, b):
    """⟨a, b⟩, in four vectors of sums."""
    dtype = a.dtype
    a_ptr = data_ptr(a)
    b_ptr = data_ptr(b)
    turn = 4 * LANE_BYTES
    whole = a.size * a.itemsize // turn * turn
    all0 = all1 = all2 = all3 = zero_lanes(dtype)
    for group in range(0, whole, SUM_GROUP * a.itemsize):
        group_end = min(group + SUM_GROUP * a.itemsize, whole)
        t0 = t1 = t2 = t3 = zero_lanes(dtype)
        for piece in range(group, group_end, SUM_PIECE * a.itemsize):
            piece_end = min(piece + SUM_PIECE * a.itemsize, group_end)
            s0 = s1 = s2 = s3 = zero_lanes(dtype)
            for at in range(piece, piece_end, turn):
                s0 = fma_lanes(load_lanes(dtype, a_ptr + at), load_lanes(dtype, b_ptr + at), s0)
                s1 = fma_lanes(load_lanes(dtype, a_ptr + at + UNIT), load_lanes(dtype, b_ptr + at + UNIT), s1)
                s2 = fma_lanes(load_lanes(dtype, a_ptr + at + 2 * UNIT), load_lanes(dtype, b_ptr + at + 2 * UNIT), s2)
                s3 = fma_lanes(load_lanes(dtype, a_ptr + at + 3 * UNIT), load_lanes(dtype, b_ptr + at + 3 * UNIT), s3)
            t0 = add_lanes(t0, s0)
            t1 = add_lanes(t1, s1)
            t2 = add_lanes(t2, s2)
            t3 = add_lanes(t3, s3)
        all0 = add_lanes(all0, t0)
        all1 = add_lanes(all1, t1)
        all2 = add_lanes(all2, t2)
        all3 = add_lanes(all3, t3)
    total = sum_lanes(add_lanes(add_lanes(all0, all1), add_lanes(all2, all3)))
    for k in range(whole // a.itemsize, a.size):
        total += a[k] * b[k]
    return total


@kernel
def squares(alpha, a, beta, b):
    """‖alpha a + beta b‖², in two vectors of sums."""
    dtype = a.dtype
    a_ptr = data_ptr(a)
    b_ptr = data_ptr(b)
    turn = 2 * LANE_BYTES
    first = splat_lanes(alpha)
    second = splat_lanes(beta)
    whole = a.size * a.itemsize // turn * turn
    all0 = all1 = zero_lanes(dtype)
    for group in range(0, whole, SUM_GROUP * a.itemsize):
        group_end = min(group + SUM_GROUP * a.itemsize, whole)
        t0 = t1 = zero_lanes(dtype)
        for piece in range(group, group_end, SUM_PIECE * a.itemsize):
            piece_end = min(piece + SUM_PIECE * a.itemsize, group_end)
            s0 = s1 = zero_lanes(dtype)
            for at in range(piece, piece_end, turn):
                x = multiply_lanes(second, load_lanes(dtype, b_ptr + at))
                x = fma_lanes(first, load_lanes(dtype, a_ptr + at), x)
                y = multiply_lanes(second, load_lanes(dtype, b_ptr + at + UNIT))
                y = fma_lanes(first, load_lanes(dtype, a_ptr + at + UNIT), y)
                s0 = fma_lanes(x, x, s0)
                s1 = fma_lanes(y, y, s1)
            t0 = add_lanes(t0, s0)
            t1 = add_lanes(t1, s1)
        all0 = add_lanes(all0, t0)
        all1 = add_lanes(all1, t1)
    total = sum_lanes(add_lanes(all0, all1))
    for k in range(whole // a.itemsize, a.size):
        total += (alpha * a[k] + beta * b[k]) ** 2
    return total
