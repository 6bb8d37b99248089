"""Sums over long vectors, several vectors of partial sums at a time, in an order that depends on the length alone."""

import numpy as np

from lrcore.cpu._lanes import (
    add_lanes,
    fma_lanes,
    load_lanes,
    multiply_lanes,
    spread_lanes,
    total_lanes,
    zero_lanes,
)
from lrcore.cpu._target import kernel
from lrcore.cpu._vector import address
from lrcore.layout import LANE_BYTES

UNIT = np.int64(LANE_BYTES)


@kernel
def inner(a, b):
    """⟨a, b⟩, in four vectors of sums."""
    dtype, at_a, at_b = a.dtype, address(a), address(b)
    s0 = s1 = s2 = s3 = zero_lanes(dtype)
    lanes = LANE_BYTES // a.itemsize
    whole = a.size // (4 * lanes) * 4 * LANE_BYTES
    for at in range(0, whole, 4 * LANE_BYTES):
        s0 = fma_lanes(load_lanes(dtype, at_a + at), load_lanes(dtype, at_b + at), s0)
        s1 = fma_lanes(load_lanes(dtype, at_a + at + UNIT), load_lanes(dtype, at_b + at + UNIT), s1)
        s2 = fma_lanes(load_lanes(dtype, at_a + at + 2 * UNIT), load_lanes(dtype, at_b + at + 2 * UNIT), s2)
        s3 = fma_lanes(load_lanes(dtype, at_a + at + 3 * UNIT), load_lanes(dtype, at_b + at + 3 * UNIT), s3)
    total = total_lanes(add_lanes(add_lanes(s0, s1), add_lanes(s2, s3)))
    for k in range(whole // a.itemsize, a.size):
        total += a[k] * b[k]
    return total


@kernel
def squares(alpha, a, beta, b):
    """‖alpha a + beta b‖², in two vectors of sums."""
    dtype, at_a, at_b = a.dtype, address(a), address(b)
    s0 = s1 = zero_lanes(dtype)
    first, second = spread_lanes(alpha), spread_lanes(beta)
    lanes = LANE_BYTES // a.itemsize
    whole = a.size // (2 * lanes) * 2 * LANE_BYTES
    for at in range(0, whole, 2 * LANE_BYTES):
        x = fma_lanes(first, load_lanes(dtype, at_a + at), multiply_lanes(second, load_lanes(dtype, at_b + at)))
        y = multiply_lanes(second, load_lanes(dtype, at_b + at + UNIT))
        y = fma_lanes(first, load_lanes(dtype, at_a + at + UNIT), y)
        s0, s1 = fma_lanes(x, x, s0), fma_lanes(y, y, s1)
    total = total_lanes(add_lanes(s0, s1))
    for k in range(whole // a.itemsize, a.size):
        total += (alpha * a[k] + beta * b[k]) ** 2
    return total
