"""Gaussian numbers from the counter-based generator of `lrcore.random`."""

import math

import numpy as np

from lrcore import random
from lrcore.cpu._target import formula, kernel

philox = formula(random.philox)
uniform = formula(random.uniform)


@kernel
def normals(seed, stream, domain, out):
    """Fill the vector `out` with standard normal numbers of the stream (seed, stream, domain), by Box and Muller.

    seed, stream, domain: uint64 (stream and domain below 2^32). Numbers 2k and 2k+1 come from block k.
    """
    mask, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    for block in range((out.size + 1) // 2):
        counter = np.uint64(block)
        w0, w1, w2, w3 = philox(counter & mask, counter >> shift, stream, domain, seed & mask, seed >> shift)
        radius = math.sqrt(-2.0 * math.log(uniform(w0, w1)))
        angle = 2.0 * math.pi * uniform(w2, w3)
        out[2 * block] = radius * math.cos(angle)
        if 2 * block + 1 < out.size:
            out[2 * block + 1] = radius * math.sin(angle)
