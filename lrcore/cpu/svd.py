"""Singular values and vectors.

`spectra` is made for the metrics of a run: several matrices at once, all of their values, and of some a few leading
vectors. It goes through our own kernels: `bidiagonal` reduces, `qds` finds the values, `twisted` the vectors. The
values that they find have the same bits for every vector width. `inertia` proves that every value is within PROVEN σ_1
of that of the bidiagonal matrix; the reduction has to keep the sum of squares; residuals of vectors are computed. What
cannot be certified (values too close for their vectors to be told apart, a lane that does not converge) and matrices
larger than was measured go to LAPACK, whose bits belong to one machine. `lapack_calls` counts how often.

`weight_values` is made for the weights of real networks: matrices in float32 of which only the values are wanted.
There `tridiagonal` reduces the Gram matrix instead, which costs accuracy that such a matrix does not have.

A matrix with a non-finite entry has NaN for every value and vector: divergence is a result, not an exception.
"""

from collections import Counter

import numpy as np
import scipy  # which imports its parts when they are used

from lrcore.cpu import decomposition
from lrcore.cpu.decomposition import PROVEN, decompose
from lrcore.cpu.inertia import proven_values
from lrcore.cpu.qds import LANES
from lrcore.cpu.tridiagonal import bidiagonalize_gram

# How often LAPACK was called in this process, by reason: "size" (above LARGEST), "reduction" (near the smallest
# numbers, or a sum of squares that changed), "convergence", "proof" (of values), "vectors" (above CERTAIN, or of 0).
lapack_calls = Counter()


def spectra(matrices, counts, work):
    """(left (m, c), values (k,), right (n, c)) of each of `matrices`: all values and the first c singular vectors.

    matrices  (m, n) arrays in C order, float64 or float32; results have the same dtype
    counts    c for each, at most k = min(m, n); 0 for values alone
    work      workspace.allocate_spectra of the same shapes and counts
    """
    matrices = [np.ascontiguousarray(matrix) for matrix in matrices]
    for row, matrix, count in zip(work.plan, matrices, counts, strict=True):
        made_for = tuple(row[[decomposition.ROWS, decomposition.COLUMNS, decomposition.COUNT]].tolist())
        if matrix.dtype not in (np.float64, np.float32) or (*matrix.shape, count) != made_for:  # it goes by its address
            raise TypeError(f"{matrix.dtype} of shape {matrix.shape}, {count} vectors: the workspace is for {made_for}")
        row[[decomposition.ADDRESS, decomposition.BYTES]] = matrix.ctypes.data, matrix.itemsize
    decompose(work)
    return [
        _triplets(matrix, row, work.buffer)
        if row[decomposition.OUTCOME] == decomposition.GOOD
        else exact_triplets(matrix, count, decomposition.REASONS[row[decomposition.OUTCOME]])
        for matrix, count, row in zip(matrices, counts, work.plan, strict=True)
    ]


def _triplets(matrix, row, buffer):
    """What `spectra` gives for one matrix, from the buffer."""
    m, n = matrix.shape
    sides = (decomposition.U, decomposition.V) if m >= n else (decomposition.V, decomposition.U)
    left, right = (decomposition.array(row, number, buffer) for number in sides)
    first = row[decomposition.VALUES]
    values = buffer[first : first + min(m, n)]
    dtype = matrix.dtype
    return left[:, :m].T.astype(dtype), values.astype(dtype), right[:, :n].T.astype(dtype)


def _find_values(sizes, reduced, lanes):
    """Values of up to LANES bidiagonal matrices into lanes.values. For each "", or why they are not to be used.

    reduced: whether the reduction to this matrix succeeded
    """
    used = [size if whole else 0 for size, whole in zip(sizes, reduced, strict=True)]
    unconverged, unproven = proven_values(np.array(used + [0] * (LANES - len(used))), PROVEN, lanes)
    refused = []
    for lane, whole in enumerate(reduced):
        if not whole:
            refused.append("reduction")
        elif unconverged >> lane & 1:
            refused.append("convergence")
        else:
            refused.append("proof" if unproven >> lane & 1 else "")
    return refused


def weight_values(matrices, work):
    """All singular values of each of `matrices` as float64, largest first: arrays of length k = min(m, n).

    matrices  (m, n) arrays in C order, float64 or float32
    work      workspace.allocate_weight_values of the same shapes and dtypes

    float64 goes through `spectra`. float32 goes through the Gram matrix G of the shorter side, in float64: four to
    sixteen times as fast as LAPACK on the matrix itself in float32 (benchmarks/weight_values.md), and more accurate.

    G and its reduction are off by ε σ_1² in norm, hence (Weyl) |σ̂² − σ²| ≤ ε σ_1². Divided by σ̂ + σ, which is at
    least σ and at least |σ̂ − σ|, that is |σ̂ − σ| ≤ min(ε σ_1/σ, √ε) σ_1. ε < 8e-14: the values of B are proven
    within PROVEN σ_1, which is 6e-14 of σ_1², and G and its reduction were measured to be off by less than 2e-14 for
    k ≤ 2048 and longer sides up to 1e6 (`gram` adds section by section). So values that a relative rank counts
    (1e-3 σ_1) are within 8e-11 σ_1, those above 1e-6 σ_1 within 8e-8 σ_1, and what should be 0 is below 3e-7 σ_1,
    about what rounding a matrix to float32 does to it. Mostly ε < 2e-14; it is 2.2e-14 for an orthogonal 35 × 35
    matrix. LAPACK itself, in float64, is off by 1e-11 σ_1² for 16 × 1e6 equal numbers.
    """
    results = [None] * len(matrices)
    double = [i for i, matrix in enumerate(matrices) if matrix.dtype == np.float64]
    triplets = spectra([matrices[i] for i in double], [0] * len(double), work.spectra) if double else []
    for i, (_, values, _) in zip(double, triplets, strict=True):
        results[i] = values
    single = [i for i, matrix in enumerate(matrices) if matrix.dtype != np.float64]
    single.sort(key=lambda i: -min(matrices[i].shape))  # eight in the lanes take as long as the largest of them
    for first in range(0, len(single), LANES):
        group = single[first : first + LANES]
        for i, values in zip(group, _values_by_gram([matrices[i] for i in group], work), strict=True):
            results[i] = values
    return results


def _values_by_gram(matrices, work):
    """The values of at most LANES matrices in float32."""
    shifts = [bidiagonalize_gram(matrix, work.gram, lane, work.lanes) for lane, matrix in enumerate(matrices)]
    sizes = [min(matrix.shape) for matrix in matrices]
    refused = _find_values(sizes, [shift > 0 for shift in shifts], work.lanes)
    results = []
    for lane, (matrix, shift) in enumerate(zip(matrices, shifts, strict=True)):
        if shift == 0:
            results.append(np.zeros(sizes[lane]))
        elif refused[lane]:
            results.append(exact_triplets(matrix.astype(np.float64), 0, refused[lane])[1])
        else:
            squares = work.lanes.values[: sizes[lane], lane] ** 2 - shift
            results.append(np.sqrt(np.maximum(squares, 0)))
    return results


def exact_triplets(matrix, count, reason):
    """What `spectra` gives for one matrix, by LAPACK in float64; counted under the reason where it is finite."""
    double = matrix.astype(np.float64, copy=False)
    m, n = matrix.shape
    dtype = matrix.dtype
    if np.isfinite(matrix).all():
        lapack_calls[reason] += 1
    if count == 0:
        return np.empty((m, 0), dtype), singular_values(double).astype(dtype, copy=False), np.empty((n, 0), dtype)
    left, values, right = singular_triplets(double)
    return tuple(part.astype(dtype, copy=False) for part in (left[:, :count], values, right[:, :count]))


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


def entries_in_basis(matrix, vectors):
    """(diagonal of Vᵀ · matrix · V, Frobenius norm of the rest). matrix (n, n); vectors (n, k): V, orthonormal."""
    inside = vectors.T @ matrix @ vectors
    diagonal = np.diag(inside).copy()
    return diagonal, np.linalg.norm(inside - np.diag(diagonal))


def principal_angles(pairs, work):
    """Principal angles in radians, smallest first, between the spans of the orthonormal columns of each pair.

    pairs  ((a, b), …): a, b (n, k)
    work   workspace.allocate_spectra of shapes (k, k), (n, k) for every pair, no vectors

    Small angles come from their sines and large ones from their cosines (Knyazev and Argentati 2002), so both are
    accurate to rounding. SciPy 1.17's subspace_angles picks the wrong one of the two when small and large angles mix.
    """
    matrices = []
    for a, b in pairs:
        inner = a.T @ b
        matrices += [inner, b - a @ inner]
    values = [np.minimum(values, 1.0) for _, values, _ in spectra(matrices, [0] * len(matrices), work)]
    cosines = values[::2]
    sines = [s[::-1] for s in values[1::2]]
    return [np.where(c**2 >= 0.5, np.arcsin(s), np.arccos(c)) for c, s in zip(cosines, sines, strict=True)]
