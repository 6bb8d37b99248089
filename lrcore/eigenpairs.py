"""What `lanczos` returns."""

from typing import NamedTuple

import numpy as np


class Eigenpairs(NamedTuple):
    """The largest eigenvalues of a symmetric operator A on vectors of `size` numbers, largest first.

    values     (count,)
    vectors    (count, size), orthonormal: row i belongs to value i
    residuals  (count,)  ‖A v_i − values_i v_i‖
    products   how often A was applied
    """

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray
    products: int
