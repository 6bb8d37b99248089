"""Singular values and vectors."""

import numpy as np


def singular_values(matrix):
    """σ_1 ≥ σ_2 ≥ … of a matrix (m, n); all NaN where an entry is not finite."""
    if not np.isfinite(matrix).all():
        return np.full(min(matrix.shape), np.nan, matrix.dtype)
    return np.linalg.svd(matrix, compute_uv=False)


def singular_triplets(matrix):
    """(u (m, k), values (k,), v (n, k)) with matrix = u · diag(values) · vᵀ, k the smaller side; NaN as above."""
    if not np.isfinite(matrix).all():
        m, n = matrix.shape
        return tuple(np.full(shape, np.nan, matrix.dtype) for shape in ((m, min(m, n)), (min(m, n),), (n, min(m, n))))
    u, values, vt = np.linalg.svd(matrix, full_matrices=False)
    return u, values, vt.T


def spectra(matrices, counts, work=None):
    """For each matrix (count leading left vectors, all singular values, count leading right vectors)."""
    results = []
    for matrix, count in zip(matrices, counts, strict=True):
        left, values, right = singular_triplets(matrix)
        results.append((left[:, :count], values, right[:, :count]))
    return results


def weight_values(matrices, work=None):
    """Singular values of each matrix, in float64 whatever its dtype."""
    return [singular_values(matrix.astype(np.float64)) for matrix in matrices]


def principal_angles(pairs, work=None):
    """By the cosines: exact in theory, accurate only to 1e-8 for small angles."""
    angles = []
    for a, b in pairs:
        cosines = singular_values(a.T @ b)
        angles.append(np.arccos(np.clip(cosines, -1, 1)))
    return angles
