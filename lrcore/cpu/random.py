"""Random numbers from the counter-based generator of `lrcore.random`: Gaussian ones, and which entry is drawn when."""

import math

import numpy as np

from lrcore import random
from lrcore.cpu._target import kernel, part

philox = part(random.philox)
uniform = part(random.uniform)
below = part(random.below)

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

    seed, domain: uint64. order (m + 2,) int64: scratch that starts as zeros and may be kept from call to call.
    With replacement every draw is independent: draw t is word t % 4 of block t // 4. Without, each epoch of m draws is
    a fresh permutation (Fisher and Yates), named by its number; `order` holds the last one, then one more than that
    number, and the seed mixed with the domain.
    """
    count = order.size - 2
    stamp = np.int64(seed ^ domain << SHIFT)
    if not replacement:
        epoch = first // count
        index = first % count
        for k in range(out.size):
            if order[count] != epoch + 1 or order[count + 1] != stamp:
                _shuffle(seed, domain, epoch, order)
                order[count] = epoch + 1
                order[count + 1] = stamp
            out[k] = order[index]
            index += 1
            if index == count:
                epoch = epoch + 1
                index = 0
        return
    block = np.uint64(0)
    low = seed & MASK
    high = seed >> SHIFT
    w0 = w1 = w2 = w3 = np.uint64(0)
    for k in range(out.size):
        draw = first + k
        if k == 0 or draw & 3 == 0:
            block = np.uint64(draw >> 2)
            w0, w1, w2, w3 = philox(block & MASK, block >> SHIFT, np.uint64(0), domain, low, high)
        out[k] = np.int64(below(_word(draw & 3, w0, w1, w2, w3), np.uint64(count)))


@kernel
def _shuffle(seed, domain, epoch, order):
    """The permutation of epoch number `epoch` into `order`: the exchange at index k is word k % 4 of block k // 4."""
    count = order.size - 2
    stream = np.uint64(epoch + 1)
    low = seed & MASK
    high = seed >> SHIFT
    for k in range(count):
        order[k] = k
    w0 = w1 = w2 = w3 = np.uint64(0)
    for k in range(count - 1, 0, -1):
        index = k & 3
        if index == 3 or k == count - 1:
            w0, w1, w2, w3 = philox(np.uint64(k >> 2), stream >> SHIFT, stream & MASK, domain, low, high)
        other = np.int64(below(_word(index, w0, w1, w2, w3), np.uint64(k + 1)))
        order[k], order[other] = order[other], order[k]


@kernel
def _word(index, w0, w1, w2, w3):
    return (w0 if index == 0 else w1) if index < 2 else (w2 if index == 2 else w3)
