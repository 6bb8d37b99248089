"""Metrics of a network at one point, from its parameters, its gradient and its singular values."""

import math

import numpy as np

from lrcore import formulas
from lrcore.cpu._target import formula, kernel
from lrcore.cpu.gemm import multiply_at, multiply_bt

effective_rank = formula(formulas.effective_rank)
entropy_rank = formula(formulas.entropy_rank)
stable_rank = formula(formulas.stable_rank)
count_above = formula(formulas.count_above)


@kernel
def rank_metrics(values, numerical_threshold, relative_threshold, out):
    """out (6,): effective, entropy, stable, numerical, relative and relative-to-Frobenius rank of `values`."""
    out[0] = effective_rank(values)
    out[1] = entropy_rank(values)
    out[2] = stable_rank(values)
    out[3] = count_above(values, numerical_threshold)
    out[4] = count_above(values, relative_threshold * values[0])
    out[5] = count_above(values, relative_threshold * values[0] * math.sqrt(out[2]))


@kernel
def balancedness(params, widths, out, work):
    """out[i−1] = ‖W_{i+1}ᵀ W_{i+1} − W_i W_iᵀ‖_F for i = 1 … N−1. Uses work.square."""
    start = 0
    for i in range(1, widths.size - 1):
        rows, columns, above = widths[i], widths[i - 1], widths[i + 1]
        middle = start + rows * columns
        lower = params[start:middle].reshape((rows, columns))
        upper = params[middle : middle + above * rows].reshape((above, rows))
        gram_upper = work.square[0, : rows * rows].reshape((rows, rows))
        gram_lower = work.square[1, : rows * rows].reshape((rows, rows))
        multiply_at(upper, upper, gram_upper, work)
        multiply_bt(lower, lower, gram_lower, work)
        total = 0.0
        for r in range(rows):
            for c in range(rows):
                total += (gram_upper[r, c] - gram_lower[r, c]) ** 2
        out[i - 1] = math.sqrt(total)
        start = middle


@kernel
def directions(params, gradient, widths, step_size, out):
    """How each layer moves; row i−1 of out (N, 3) holds, for layer i,

    0  ‖∇_i‖_F, the norm of its gradient
    1  ⟨W_i, ∇_i⟩ / (‖W_i‖ ‖∇_i‖)
    2  the distance between W_i/‖W_i‖ now and after one Euler step of `step_size`
    """
    start = 0
    for i in range(1, widths.size):
        end = start + widths[i] * widths[i - 1]
        weights, slope = params[start:end], gradient[start:end]
        ww, wg, gg = 0.0, 0.0, 0.0
        for k in range(weights.size):
            ww += weights[k] * weights[k]
            wg += weights[k] * slope[k]
            gg += slope[k] * slope[k]
        norm = math.sqrt(ww)
        next_norm = 0.0
        for k in range(weights.size):
            next_norm += (weights[k] - step_size * slope[k]) ** 2
        next_norm = math.sqrt(next_norm)
        change = 0.0
        for k in range(weights.size):
            change += ((weights[k] - step_size * slope[k]) / next_norm - weights[k] / norm) ** 2
        out[i - 1, 0] = math.sqrt(gg)
        out[i - 1, 1] = wg / (norm * math.sqrt(gg))
        out[i - 1, 2] = math.sqrt(change)
        start = end


@kernel
def vector_alignment(vectors, teacher, clusters, out):
    """out[i] = length of the projection of column i of `vectors` on the teacher's columns of cluster i.

    vectors, teacher: (n, ≥ k) with orthonormal columns; clusters (k, 2): columns first … last−1 of the teacher that
    belong to (nearly) the same singular value as column i, whose own basis is arbitrary. A cluster of one column
    gives |⟨u_i, û_i⟩|. Signs do not matter.
    """
    for i in range(clusters.shape[0]):
        total = 0.0
        for j in range(clusters[i, 0], clusters[i, 1]):
            inner = 0.0
            for r in range(vectors.shape[0]):
                inner += vectors[r, i] * teacher[r, j]
            total += inner * inner
        # rounding must not turn a cosine into a number above 1, whose angle would be NaN
        out[i] = np.minimum(math.sqrt(total), 1.0)
