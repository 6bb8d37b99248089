"""Layer widths and the one flat parameter vector.

`widths = (n_0, …, n_N)`; layer `W_i` has shape `(n_i, n_{i-1})` and the product is `W_N ⋯ W_1`.
`W_1` comes first in the vector, each layer in C order.
"""

import numpy as np


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
    return [0, *np.cumsum([rows * columns for rows, columns in shapes(widths)]).tolist()]


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
