"""The random numbers of `lrcore.random` on the device, for the draws of SGD."""

import numpy as np

from lrcore import random
from lrcore.cuda._target import device

philox = device(random.philox)
below = device(random.below)

MASK, SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)


@device
def word(index, w0, w1, w2, w3):
    """Word number `index` of a block."""
    return (w0 if index == 0 else w1) if index < 2 else (w2 if index == 2 else w3)


@device
def independent_draw(seed, domain, number, count):
    """The draw of that number from 0 … count − 1, with replacement: see `lrcore.cpu.random.draws`."""
    block = np.uint64(number >> 2)
    w0, w1, w2, w3 = philox(block & MASK, block >> SHIFT, np.uint64(0), domain, seed & MASK, seed >> SHIFT)
    return np.int64(below(word(number & 3, w0, w1, w2, w3), np.uint64(count)))


@device
def shuffle(seed, domain, epoch, order, start, count):
    """The permutation of an epoch to order[start …], by one thread."""
    stream = np.uint64(epoch + 1)
    low = seed & MASK
    high = seed >> SHIFT
    for k in range(count):
        order[start + k] = k
    w0 = w1 = w2 = w3 = np.uint64(0)
    for turn in range(count - 1):
        k = count - 1 - turn
        index = k & 3
        if index == 3 or turn == 0:
            w0, w1, w2, w3 = philox(np.uint64(k >> 2), stream >> SHIFT, stream & MASK, domain, low, high)
        other = np.int64(below(word(index, w0, w1, w2, w3), np.uint64(k + 1)))
        order[start + k], order[start + other] = order[start + other], order[start + k]
