"""Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011).

A stream is named by (seed, stream, domain) and its k-th number depends on nothing else: no state is carried along,
so layer 3 of a network is the same whatever its depth, and any part of a stream can be made alone.

The functions take and return uint64 scalars or arrays that hold 32-bit words, undecorated: each target compiles them.
"""

import numpy as np

MASK = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)
MULTIPLIER_0, MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL_0, WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
ROUNDS = 10

# Domains keep uses apart that share a seed: a teacher and a student of seed 0 have nothing in common.
TEACHER = 1
NETWORK = 2
ROTATION = 3
SAMPLE = 4
OBSERVED = 5
EIGENVECTORS = 6


def philox(c0, c1, c2, c3, k0, k1):
    """Four random 32-bit words from a counter (c0 … c3) and a key (k0, k1)."""
    for _ in range(ROUNDS):
        p0 = MULTIPLIER_0 * c0
        p1 = MULTIPLIER_1 * c2
        c0 = (p1 >> SHIFT) ^ c1 ^ k0
        c1 = p1 & MASK
        c2 = (p0 >> SHIFT) ^ c3 ^ k1
        c3 = p0 & MASK
        k0 = (k0 + WEYL_0) & MASK
        k1 = (k1 + WEYL_1) & MASK
    return c0, c1, c2, c3


def uniform(high, low):
    """A float64 in (0, 1], multiple of 2^−53, from two 32-bit words. Never 0, so that its logarithm exists."""
    return ((high << np.uint64(21)) + (low >> np.uint64(11)) + np.uint64(1)) * 1.1102230246251565e-16


def below(word, count):
    """An integer from 0 to count − 1 (count ≤ 2^32) from a 32-bit word; its probability is 1/count up to 2^−32."""
    return (word * count) >> SHIFT
