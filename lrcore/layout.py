"""Layer widths and the one flat parameter vector.

`widths = (n_0, …, n_N)`; layer `W_i` has shape `(n_i, n_{i-1})` and the product is `W_N ⋯ W_1`.
`W_1` comes first in the vector, each layer in C order.
"""

import itertools
import math

import numpy as np

LANE_BYTES = 64  # of the innermost index of a batch: one cache line, the longest vector register there is
# A long sum is made of sums of so many numbers, added up to a sum of so many, and those one after the other: rounding
# then grows with the length of a piece, not with that of the vector. All vectors up to a SUM_PIECE are one piece.
SUM_PIECE = 1 << 14
SUM_GROUP = SUM_PIECE << 8


def depth(widths):
    """Number of layers N."""
    return len(widths) - 1


def shapes(widths):
    """The shape (n_i, n_{i-1}) of every layer, W_1 first."""
    return [(int(widths[i + 1]), int(widths[i])) for i in range(depth(widths))]


def size(widths):
    """Number of parameters: the length of the flat vector."""
    return sum(rows * columns for rows, columns in shapes(widths))


def offsets(widths):
    """Where each layer starts in the flat vector, and where the last one ends: N + 1 integers."""
    return [0, *itertools.accumulate(rows * columns for rows, columns in shapes(widths))]


def layers(params, widths):
    """Views of the layers, shapes (n_i, n_{i-1}), W_1 first: writing to them writes to `params`."""
    start = offsets(widths)
    return [params[start[i] : start[i + 1]].reshape(shape) for i, shape in enumerate(shapes(widths))]


def flatten(matrices, dtype=np.float64):
    """(params, widths) of a list of layers, W_1 first. The layers are copied."""
    widths = as_widths([matrices[0].shape[1], *(matrix.shape[0] for matrix in matrices)])
    return np.concatenate([np.asarray(matrix, dtype=dtype).ravel() for matrix in matrices]), widths


def as_widths(widths):
    """The integer array that kernels take: shape (N + 1,), int64."""
    return np.asarray(widths, dtype=np.int64)


def lanes(dtype):
    """Number of runs in one block of a batch."""
    return LANE_BYTES // np.dtype(dtype).itemsize


def to_lanes(array, lanes):
    """(R, …), a row for each run, as (blocks, …, lanes), where the run is the innermost index; a copy.

    The last run is repeated until its block is full: harmless company, which ends when the run itself ends.
    """
    array = np.asarray(array)
    blocks = -(-len(array) // lanes)
    runs = np.minimum(np.arange(blocks * lanes), len(array) - 1)
    blocked = aligned((blocks, *array.shape[1:], lanes), array.dtype)
    blocked[:] = np.moveaxis(array[runs].reshape(blocks, lanes, *array.shape[1:]), 1, -1)
    return blocked


def from_lanes(blocked, runs):
    """The inverse of `to_lanes`: (blocks, …, lanes) as (runs, …); a copy."""
    array = np.moveaxis(blocked, -1, 1)
    return array.reshape(-1, *array.shape[2:])[:runs].copy()


def aligned_copy(array, dtype):
    """A copy in C order that starts at a multiple of LANE_BYTES: products of aligned arrays are up to 8 % faster."""
    copy = aligned(array.shape, dtype)
    copy[...] = array
    return copy


def aligned(shape, dtype):
    """An empty array that starts at a multiple of LANE_BYTES: its vectors do not cross cache lines."""
    size = math.prod(shape if isinstance(shape, tuple) else (shape,)) * np.dtype(dtype).itemsize
    memory = np.empty(size + LANE_BYTES, np.uint8)
    start = -memory.ctypes.data % LANE_BYTES
    return memory[start : start + size].view(dtype).reshape(shape)
