"""Products of matrices, and the product of a network."""

import numpy as np

from lrcore import layout


def matmul_nn(a, b, out, work=None):
    """out (m, n) = a (m, k) · b (k, n)."""
    out[:] = a @ b


def matmul_tn(a, b, out, work=None):
    """out (m, n) = aᵀ · b with a (k, m), b (k, n)."""
    out[:] = a.T @ b


def matmul_nt(a, b, out, work=None):
    """out (m, n) = a · bᵀ with a (m, k), b (n, k)."""
    out[:] = a @ b.T


def product(params, widths, out, work=None):
    """W_N ⋯ W_1."""
    out[:] = chain(layout.layers(params, widths), widths[0], params.dtype)


def chain(matrices, inputs, dtype):
    """The product of `matrices`, the first one rightmost; the identity of size `inputs` when there is none."""
    result = np.eye(inputs, dtype=dtype)
    for matrix in matrices:
        result = matrix @ result
    return result
