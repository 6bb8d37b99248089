"""Singular values and vectors through LAPACK (divide and conquer), so their bits belong to one machine.

A matrix with a non-finite entry has NaN for every value and vector: divergence is a result, not an exception.
"""

import numpy as np
import scipy.linalg


def singular_values(matrix):
    """The min(m, n) singular values of an (m, n) matrix, largest first."""
    if not np.isfinite(matrix).all():
        return np.full(min(matrix.shape), np.nan, matrix.dtype)
    try:
        return np.linalg.svd(matrix, compute_uv=False)
    except np.linalg.LinAlgError:  # divide and conquer can fail on a finite matrix; QR iteration does not
        return scipy.linalg.svd(matrix, compute_uv=False, lapack_driver="gesvd")


def singular_triplets(matrix):
    """(U (m, k), values (k,), V (n, k)) with k = min(m, n): column i of U and V belongs to value i."""
    m, n = matrix.shape
    if not np.isfinite(matrix).all():
        k = min(m, n)
        return tuple(np.full(shape, np.nan, matrix.dtype) for shape in ((m, k), (k,), (n, k)))
    try:
        u, values, vt = np.linalg.svd(matrix, full_matrices=False)
    except np.linalg.LinAlgError:
        u, values, vt = scipy.linalg.svd(matrix, full_matrices=False, lapack_driver="gesvd")
    return u, values, vt.T


def principal_angles(a, b):
    """Principal angles in radians, smallest first, between the spans of orthonormal columns a (n, k) and b (n, k).

    Small angles come from their sines and large ones from their cosines (Knyazev and Argentati 2002), so both are
    accurate to rounding. SciPy 1.17's subspace_angles picks the wrong one of the two when small and large angles mix.
    """
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return np.full(a.shape[1], np.nan)
    inner = a.T @ b
    cosines = np.minimum(singular_values(inner), 1.0)
    sines = np.minimum(singular_values(b - a @ inner), 1.0)[::-1]
    return np.where(cosines**2 >= 0.5, np.arcsin(sines), np.arccos(cosines))
