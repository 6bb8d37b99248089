"""Random numbers from the counter-based generator of `lrcore.random`: Gaussian ones, and which entry is drawn when."""

import math

import numpy as np

from lrcore import random
from lrcore.cpu._target import formula, kernel

philox = formula(random.philox)
uniform = formula(random.uniform)
below = formula(random.below)

MASK, SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)


@kernel
def normals(seed, stream, domain, out):
    """Fill the vector `out` with standard normal numbers of the stream (seed, stream, domain), by Box and Muller.

    seed, stream, domain: uint64 (stream and domain below 2^32). Numbers 2k and 2k+1 come from block k.
    """
    for block in range((out.size + 1) // 2):
        counter = np.uint64(block)
        w0, w1, w2, w3 = philox(counter & MASK, counter >> SHIFT, stream, domain, seed & MASK, seed >> SHIFT)
        radius = math.sqrt(-2.0 * math.log(uniform(w0, w1)))
        angle = 2.0 * math.pi * uniform(w2, w3)
        out[2 * block] = radius * math.cos(angle)
        if 2 * block + 1 < out.size:
            out[2 * block + 1] = radius * math.sin(angle)


@kernel
def draws(seed, domain, first, replacement, order, out):
    """The draws number first, first + 1, … of the stream (seed, domain) from 0 … m − 1 into `out` (int64).

    seed, domain: uint64. order (m + 1,) int64: scratch that starts as zeros and may be kept from call to call.
    With replacement every draw is independent: draw t is word t % 4 of block t // 4. Without, each epoch of m draws is
    a fresh permutation (Fisher and Yates), named by its number; `order` holds the last one that was made.
    """
    count = order.size - 1
    if not replacement:
        epoch, place = first // count, first % count
        for k in range(out.size):
            if order[count] != epoch + 1:
                _shuffle(seed, domain, epoch, order)
            out[k] = order[place]
            place += 1
            if place == count:
                epoch, place = epoch + 1, 0
        return
    block, low, high = np.uint64(0), seed & MASK, seed >> SHIFT
    w0 = w1 = w2 = w3 = np.uint64(0)
    for k in range(out.size):
        draw = first + k
        if k == 0 or draw & 3 == 0:
            block = np.uint64(draw >> 2)
            w0, w1, w2, w3 = philox(block & MASK, block >> SHIFT, np.uint64(0), domain, low, high)
        place = draw & 3
        word = (w0 if place == 0 else w1) if place < 2 else (w2 if place == 2 else w3)
        out[k] = np.int64(below(word, np.uint64(count)))


@kernel
def _shuffle(seed, domain, epoch, order):
    """The permutation of epoch number `epoch` into `order`, and that number behind it."""
    count, stream = order.size - 1, np.uint64(epoch + 1)
    for k in range(count):
        order[k] = k
    for k in range(count - 1, 0, -1):
        word, _, _, _ = philox(np.uint64(k), stream >> SHIFT, stream & MASK, domain, seed & MASK, seed >> SHIFT)
        other = np.int64(below(word, np.uint64(k + 1)))
        order[k], order[other] = order[other], order[k]
    order[count] = epoch + 1
