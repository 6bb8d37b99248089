"""Counter-based random numbers: normal ones, and draws of entries."""

import numpy as np

from lrcore.random import MASK, SHIFT, below, philox, uniform


def normals(seed, stream, domain, out):
    """Box and Muller on Philox blocks, all at once; agrees with a target up to the last bits of log, cos and sin."""
    blocks = np.arange((out.size + 1) // 2, dtype=np.uint64)
    full = np.ones_like(blocks)
    seed = np.uint64(seed)
    stream = np.uint64(stream)
    domain = np.uint64(domain)
    counter = (blocks & MASK, blocks >> SHIFT, stream * full, domain * full)
    w0, w1, w2, w3 = philox(*counter, (seed & MASK) * full, (seed >> SHIFT) * full)
    radius = np.sqrt(-2 * np.log(uniform(w0, w1)))
    angle = 2 * np.pi * uniform(w2, w3)
    out[:] = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()[: out.size]


def draws(seed, domain, first, replacement, order, out):
    """Draws number first, first + 1, … of 0 … count − 1, with count = order.size − 2: independent ones
    (replacement), or a fresh permutation for every `count` of them.
    """
    count = order.size - 2
    seed = np.uint64(seed)
    domain = np.uint64(domain)
    numbers = first + np.arange(out.size)
    if replacement:
        full = np.ones(out.size, np.uint64)
        block = (numbers // 4).astype(np.uint64)
        key = (seed & MASK) * full, (seed >> SHIFT) * full
        words = np.stack(philox(block & MASK, block >> SHIFT, 0 * full, domain * full, *key))
        out[:] = below(words[numbers % 4, np.arange(out.size)], np.uint64(count))
        return
    epochs = {epoch: _permutation(seed, domain, epoch, count) for epoch in np.unique(numbers // count).tolist()}
    out[:] = [epochs[number // count][number % count] for number in numbers.tolist()]


def _permutation(seed, domain, epoch, count):
    """The permutation of 0 … count − 1 of an epoch, by Fisher and Yates."""
    order = list(range(count))
    stream = np.uint64(epoch + 1)
    for k in range(count - 1, 0, -1):
        counter = (np.uint64(k // 4), stream >> SHIFT, stream & MASK, domain)
        other = int(below(philox(*counter, seed & MASK, seed >> SHIFT)[k % 4], np.uint64(k + 1)))
        order[k], order[other] = order[other], order[k]
    return order
