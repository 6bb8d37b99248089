"""Metrics of a network at one point, from its parameters, its gradient and its singular values."""

import math

import numpy as np

from lrcore import formulas
from lrcore.cpu._arrays import clear
from lrcore.cpu._sums import inner, squares
from lrcore.cpu._target import kernel, part
from lrcore.cpu._tile import RESIDUAL, STORE, Epilogue
from lrcore.cpu._vector import data_ptr
from lrcore.cpu.gemm import NT, TN, epilogue, matmul_ptr, pointers

effective_rank = part(formulas.effective_rank)
entropy_rank = part(formulas.entropy_rank)
stable_rank = part(formulas.stable_rank)
count_above = part(formulas.count_above)


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
    """out[i−1] = ‖W_{i+1}ᵀ W_{i+1} − W_i W_iᵀ‖_F for i = 1 … N−1. Uses work.square and work.columns."""
    ptrs = pointers(work)
    one = params.dtype.type(1)
    size = ptrs.itemsize
    layer = data_ptr(params)
    gram = data_ptr(work.square)
    for i in range(1, widths.size - 1):
        n = widths[i]
        below = widths[i - 1]
        above = widths[i + 1]
        upper = layer + n * below * size
        clear(work.columns[:n])
        matmul_ptr(TN, (n, n, above), upper, upper, gram, epilogue(STORE, one), ptrs)
        matmul_ptr(NT, (n, n, below), layer, layer, gram, Epilogue(RESIDUAL, one, gram, ptrs.columns), ptrs)
        total = 0.0
        for j in range(n):
            total += work.columns[j]
        out[i - 1] = math.sqrt(total)
        layer = upper


@kernel
def directions(params, gradient, widths, step_size, out):
    """How each layer moves; row i−1 of out (N, 3) holds, for layer i,

    0  ‖∇_i‖_F, the norm of its gradient
    1  ⟨W_i, ∇_i⟩ / (‖W_i‖ ‖∇_i‖)
    2  the distance between W_i/‖W_i‖ now and after one Euler step of `step_size`
    """
    start = 0
    scalar = params.dtype.type
    for i in range(1, widths.size):
        end = start + widths[i] * widths[i - 1]
        weights = params[start:end]
        grad = gradient[start:end]
        norm = math.sqrt(inner(weights, weights))
        grad_norm = math.sqrt(inner(grad, grad))
        next_norm = math.sqrt(squares(scalar(1), weights, scalar(-step_size), grad))
        stretch = scalar(1 / next_norm - 1 / norm)
        out[i - 1, 0] = grad_norm
        out[i - 1, 1] = inner(weights, grad) / (norm * grad_norm)
        out[i - 1, 2] = math.sqrt(squares(stretch, weights, scalar(-step_size / next_norm), grad))
        start = end


@kernel
def mode_strengths(product, left, right, out):
    """out[0, i] = u_iᵀ · product · v_i: how much of direction i the product has, with its sign.

    left (m, k), right (n, k): the u_i and v_i as columns, in C order. out (2, k); its second row is scratch.
    """
    strength = out[0]
    along = out[1]
    clear(strength)
    for row in range(product.shape[0]):
        clear(along)
        for column in range(product.shape[1]):
            entry = product[row, column]
            for i in range(along.size):  # the innermost index, so that directions are the lanes of a vector
                along[i] += entry * right[column, i]
        for i in range(strength.size):
            strength[i] += left[row, i] * along[i]


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
