"""What is measured of a network."""

import numpy as np

from lrcore import layout


def rank_metrics(values, numerical_threshold, relative_threshold, out):
    """The six ranks of `values` (k,), largest first: Σσ/σ_1, exp of the entropy of σ/Σσ, Σσ²/σ_1², and counts of
    σ above a number, above a share of σ_1, above a share of ‖σ‖. All 0 for the zero matrix.
    """
    if values[0] == 0:
        out[:] = 0
        return
    p = values / values.sum()
    p = p[p != 0]
    out[:] = [
        values.sum() / values[0],
        np.exp(-np.sum(p * np.log(p))),
        np.sum((values / values[0]) ** 2),
        np.sum(values > numerical_threshold),
        np.sum(values / values[0] > relative_threshold),
        np.sum(values / np.linalg.norm(values) > relative_threshold),
    ]


def balancedness(params, widths, out, work=None):
    """out[i] = ‖W_{i+1}ᵀ W_{i+1} − W_i W_iᵀ‖_F of each layer and the one above it."""
    matrices = layout.layers(params, widths)
    for i in range(len(matrices) - 1):
        out[i] = np.linalg.norm(matrices[i + 1].T @ matrices[i + 1] - matrices[i] @ matrices[i].T)


def directions(params, gradient, widths, step_size, out):
    """Per layer out[i] = ‖∇_i‖, the cosine of W_i and ∇_i, and how far W_i/‖W_i‖ moves in a step −step_size · ∇_i."""
    pairs = zip(layout.layers(params, widths), layout.layers(gradient, widths), strict=True)
    for i, (layer, grad) in enumerate(pairs):
        moved = layer - step_size * grad
        out[i, 0] = np.linalg.norm(grad)
        out[i, 1] = np.sum(layer * grad) / (np.linalg.norm(layer) * np.linalg.norm(grad))
        out[i, 2] = np.linalg.norm(moved / np.linalg.norm(moved) - layer / np.linalg.norm(layer))


def mode_strengths(product, left, right, out):
    """out[0, i] = left_iᵀ · product · right_i for the columns of left (m, k) and right (n, k)."""
    out[0] = np.diag(left.T @ product @ right)


def vector_alignment(vectors, teacher, clusters, out):
    """out[i] = ‖T_iᵀ v_i‖ for column i of `vectors`, T_i the columns first … last − 1 of `teacher` (clusters[i])."""
    for i, (first, last) in enumerate(clusters):
        out[i] = min(np.linalg.norm(teacher[:, first:last].T @ vectors[:, i]), 1.0)


def entries_in_basis(matrix, vectors):
    """(diagonal of VᵀAV, Frobenius norm of the rest) for `matrix` A and `vectors` V, all (n, n)."""
    inside = np.array([[u @ matrix @ v for v in vectors.T] for u in vectors.T])
    diagonal = np.diag(inside).copy()
    return diagonal, np.sqrt((inside**2).sum() - (diagonal**2).sum())
