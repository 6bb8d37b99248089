"""The executable specification: every kernel in plain NumPy, with the names and parameters of `lrcore.cpu`.

Written to be read and to be right. Nothing here is fast; tests hold each target to it.
"""

import numpy as np

from lrcore import layout
from lrcore.random import MASK, SHIFT, philox, uniform
from lrcore.status import DIVERGED, OK


def multiply(a, b, out, work=None):
    out[:] = a @ b


def multiply_at(a, b, out, work=None):
    out[:] = a.T @ b


def multiply_bt(a, b, out, work=None):
    out[:] = a @ b.T


def product(params, widths, out, work=None):
    """W_N ⋯ W_1."""
    out[:] = _chain(layout.layers(params, widths), widths[0], params.dtype)


def _chain(matrices, inputs, dtype):
    """The product of `matrices`, the first one rightmost; the identity of size `inputs` when there is none."""
    result = np.eye(inputs, dtype=dtype)
    for matrix in matrices:
        result = matrix @ result
    return result


def loss_and_gradient(params, widths, target, gradient, work=None):
    """½‖W − target‖_F² and ∇_i = (W_N ⋯ W_{i+1})ᵀ G (W_{i−1} ⋯ W_1)ᵀ with G = W − target, each from its definition."""
    matrices = layout.layers(params, widths)
    residual = np.empty_like(target)
    product(params, widths, residual)
    residual -= target
    for i, slope in enumerate(layout.layers(gradient, widths)):
        above = _chain(matrices[i + 1 :], widths[i + 1], params.dtype)
        below = _chain(matrices[:i], widths[0], params.dtype)
        slope[:] = above.T @ residual @ below.T
    return params.dtype.type(0.5) * np.sum(residual**2)


def forward(params, widths, target, work=None):
    """The loss alone."""
    return loss_and_gradient(params, widths, target, np.empty_like(params))


def backward(params, widths, factor, out, work):
    """out += factor · ∇L; `work.residual` holds G, from which the target is recovered."""
    residual = work.residual.reshape(widths[-1], widths[0])
    now = np.empty_like(residual)
    product(params, widths, now)
    gradient = np.empty_like(params)
    loss_and_gradient(params, widths, now - residual, gradient)
    out += factor * gradient


def gd_steps(params, widths, target, lr, losses, work=None):
    gradient = np.empty_like(params)
    for k in range(losses.size):
        losses[k] = loss_and_gradient(params, widths, target, gradient)
        if not np.isfinite(losses[k]):
            return DIVERGED
        params -= lr * gradient
    return OK


def rk_steps(params, widths, target, dt, a, b, losses, work=None):
    for k in range(losses.size):
        slopes = []
        for s in range(b.size):
            point = params + dt * sum((a[s, j] * slopes[j] for j in range(s)), np.zeros_like(params))
            gradient = np.empty_like(params)
            loss = loss_and_gradient(point, widths, target, gradient)
            if s == 0:
                losses[k] = loss
                if not np.isfinite(loss):
                    return DIVERGED
            slopes.append(-gradient)
        params += dt * sum(b[s] * slopes[s] for s in range(b.size))
    return OK


def diagonal_gd_steps(modes, target, weights, lr, losses, work=None):
    for k in range(losses.size):
        losses[k], slopes = _diagonal_gradient(modes, target, weights)
        if not np.isfinite(losses[k]):
            return DIVERGED
        modes -= lr * slopes
    return OK


def diagonal_rk_steps(modes, target, weights, dt, a, b, losses, work=None):
    for k in range(losses.size):
        slopes = []
        for s in range(b.size):
            point = modes + dt * sum((a[s, j] * slopes[j] for j in range(s)), np.zeros_like(modes))
            loss, gradient = _diagonal_gradient(point, target, weights)
            if s == 0:
                losses[k] = loss
                if not np.isfinite(loss):
                    return DIVERGED
            slopes.append(-gradient)
        modes += dt * sum(b[s] * slopes[s] for s in range(b.size))
    return OK


def _diagonal_gradient(modes, target, weights):
    """½ Σ w_j (Π_i d_ij − λ_j)², and of every mode (Π_{l≠i} d_lj)(Π_l d_lj − λ_j): its weight is left out."""
    residual = np.prod(modes, axis=0) - target
    others = [np.prod(np.delete(modes, i, axis=0), axis=0) for i in range(len(modes))]
    return modes.dtype.type(0.5) * np.sum(weights * residual**2), np.stack(others) * residual


def singular_values(matrix):
    if not np.isfinite(matrix).all():
        return np.full(min(matrix.shape), np.nan, matrix.dtype)
    return np.linalg.svd(matrix, compute_uv=False)


def singular_triplets(matrix):
    if not np.isfinite(matrix).all():
        m, n = matrix.shape
        return tuple(np.full(shape, np.nan, matrix.dtype) for shape in ((m, min(m, n)), (min(m, n),), (n, min(m, n))))
    u, values, vt = np.linalg.svd(matrix, full_matrices=False)
    return u, values, vt.T


def spectra(matrices, counts, work=None):
    results = []
    for matrix, count in zip(matrices, counts, strict=True):
        left, values, right = singular_triplets(matrix)
        results.append((left[:, :count], values, right[:, :count]))
    return results


def entries_in_basis(matrix, vectors):
    inside = np.array([[u @ matrix @ v for v in vectors.T] for u in vectors.T])
    diagonal = np.diag(inside).copy()
    return diagonal, np.sqrt((inside**2).sum() - (diagonal**2).sum())


def principal_angles(pairs, work=None):
    """By the cosines: exact in theory, accurate only to 1e-8 for small angles."""
    angles = []
    for a, b in pairs:
        cosines = singular_values(a.T @ b)
        angles.append(np.arccos(np.clip(cosines, -1, 1)))
    return angles


def rank_metrics(values, numerical_threshold, relative_threshold, out):
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
    matrices = layout.layers(params, widths)
    for i in range(len(matrices) - 1):
        out[i] = np.linalg.norm(matrices[i + 1].T @ matrices[i + 1] - matrices[i] @ matrices[i].T)


def directions(params, gradient, widths, step_size, out):
    pairs = zip(layout.layers(params, widths), layout.layers(gradient, widths), strict=True)
    for i, (layer, slope) in enumerate(pairs):
        moved = layer - step_size * slope
        out[i, 0] = np.linalg.norm(slope)
        out[i, 1] = np.sum(layer * slope) / (np.linalg.norm(layer) * np.linalg.norm(slope))
        out[i, 2] = np.linalg.norm(moved / np.linalg.norm(moved) - layer / np.linalg.norm(layer))


def mode_strengths(product, left, right, out):
    out[0] = np.diag(left.T @ product @ right)


def vector_alignment(vectors, teacher, clusters, out):
    for i, (first, last) in enumerate(clusters):
        out[i] = min(np.linalg.norm(teacher[:, first:last].T @ vectors[:, i]), 1.0)


def normals(seed, stream, domain, out):
    """Box and Muller on Philox blocks, all at once; agrees with a target up to the last bits of log, cos and sin."""
    blocks = np.arange((out.size + 1) // 2, dtype=np.uint64)
    full = np.ones_like(blocks)
    seed, stream, domain = np.uint64(seed), np.uint64(stream), np.uint64(domain)
    counter = (blocks & MASK, blocks >> SHIFT, stream * full, domain * full)
    w0, w1, w2, w3 = philox(*counter, (seed & MASK) * full, (seed >> SHIFT) * full)
    radius, angle = np.sqrt(-2 * np.log(uniform(w0, w1))), 2 * np.pi * uniform(w2, w3)
    out[:] = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()[: out.size]


def batch_gd_steps(params, widths, targets, lr, losses, statuses, work=None):
    """One run after the other; the run is the first and the last index."""
    for i, j in np.ndindex(statuses.shape):
        run, target = params[i, :, j].copy(), targets[i, :, j].reshape(widths[-1], widths[0])
        statuses[i, j] = gd_steps(run, widths, target, lr[i, j], losses[i, :, j])
        params[i, :, j] = run


def batch_rk_steps(params, widths, targets, dt, a, b, losses, statuses, work=None):
    for i, j in np.ndindex(statuses.shape):
        run, target = params[i, :, j].copy(), targets[i, :, j].reshape(widths[-1], widths[0])
        statuses[i, j] = rk_steps(run, widths, target, dt[i, j], a, b, losses[i, :, j])
        params[i, :, j] = run


__all__ = [
    "backward",
    "balancedness",
    "batch_gd_steps",
    "batch_rk_steps",
    "diagonal_gd_steps",
    "diagonal_rk_steps",
    "directions",
    "entries_in_basis",
    "forward",
    "gd_steps",
    "loss_and_gradient",
    "mode_strengths",
    "multiply",
    "multiply_at",
    "multiply_bt",
    "normals",
    "principal_angles",
    "product",
    "rank_metrics",
    "rk_steps",
    "singular_triplets",
    "singular_values",
    "spectra",
    "vector_alignment",
]
