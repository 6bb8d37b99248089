"""Matrix products in the three forms of the chain: A·B, Aᵀ·B and A·Bᵀ, written to a given output.

They go through `np.dot`, that is through the BLAS of SciPy: bits are the same on one machine with one BLAS thread,
not across machines.
"""

import numpy as np

from lrcore.cpu._target import kernel


@kernel
def multiply(a, b, out):
    """out (m, n) = a (m, k) · b (k, n)."""
    np.dot(a, b, out)


@kernel
def multiply_at(a, b, out):
    """out (m, n) = aᵀ · b with a (k, m), b (k, n)."""
    np.dot(a.T, b, out)


@kernel
def multiply_bt(a, b, out):
    """out (m, n) = a · bᵀ with a (m, k), b (n, k)."""
    np.dot(a, b.T, out)
