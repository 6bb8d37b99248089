"""Every scratch buffer of the kernels, allocated once per run.

A kernel finds its buffers by name and leaves them dirty; nothing in here outlives a call except where a kernel's
docstring says so (`forward` leaves what `backward` reads).
"""

from typing import NamedTuple

import numpy as np

from lrcore import layout


class Workspace(NamedTuple):
    """Scratch for one network of `widths`; n_0 is the input width, P the number of parameters.

    prefix    sum of n_i·n_0 for 1 < i < N   the prefix products P_2 … P_{N-1} (P_1 is W_1 itself)
    residual  n_N·n_0                        the product minus the target: B_N of the backward chain
    back      (2, max n_i·n_0)               B_i and B_{i-1}, which take turns
    layer     max n_i·n_{i-1}                one layer's gradient, or one Gram matrix's partner
    square    max n_i²                       a Gram matrix (balancedness)
    columns   n_0                            per-column sums of squares, for the loss
    point     P                              where a Runge-Kutta stage is evaluated
    stages    (s, P)                         the slopes of the stages
    """

    prefix: np.ndarray
    residual: np.ndarray
    back: np.ndarray
    layer: np.ndarray
    square: np.ndarray
    columns: np.ndarray
    point: np.ndarray
    stages: np.ndarray


def allocate(widths, dtype=np.float64, stages=0):
    """A Workspace for `widths`; `stages` is the number of Runge-Kutta stages, 0 when no flow is integrated."""
    inputs, inner = int(widths[0]), [int(n) for n in widths[1:-1]]
    largest_square = max([n * n for n in inner], default=0)
    parameters = layout.size(widths)
    return Workspace(
        prefix=np.empty(sum(inner[1:]) * inputs, dtype),
        residual=np.empty(int(widths[-1]) * inputs, dtype),
        back=np.empty((2, max(inner, default=0) * inputs), dtype),
        layer=np.empty(max([rows * columns for rows, columns in layout.shapes(widths)] + [largest_square]), dtype),
        square=np.empty(largest_square, dtype),
        columns=np.empty(inputs, dtype),
        point=np.empty(parameters if stages else 0, dtype),
        stages=np.empty((stages, parameters if stages else 0), dtype),
    )
