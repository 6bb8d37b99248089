"""Leading eigenvalues of a symmetric operator."""

import numpy as np

from lrcore.eigenpairs import Eigenpairs


def lanczos(apply, start, count, tolerance, most=0):
    """From all eigenvalues: A is formed, a column for each unit vector."""
    size = start.shape[1]
    dense = np.empty((size, size))
    count = min(count, size)
    for unit, row in zip(np.eye(size), dense, strict=True):
        apply(unit, row)
    values, vectors = np.linalg.eigh((dense + dense.T) / 2)
    values = values[: -count - 1 : -1]
    vectors = vectors.T[: -count - 1 : -1]
    residuals = np.linalg.norm(vectors @ dense - values[:, None] * vectors, axis=1)
    return Eigenpairs(values, vectors, residuals, size)
