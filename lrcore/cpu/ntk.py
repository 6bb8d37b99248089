"""The neural tangent kernel of the chain, K = Σ_i (A_i A_iᵀ) ⊗ (P_{i−1}ᵀ P_{i−1}), A_i = W_N ⋯ W_{i+1}.

K acts on directions of the output: K(M) = Σ_i A_i A_iᵀ M P_{i−1}ᵀ P_{i−1} is how the product moves where ∂L/∂W is −M.
It has (n_N n_0)² entries, its factors only N (n_N² + n_0²), and all that is asked of it comes from those.
"""

import numpy as np

from lrcore.cpu._sums import inner
from lrcore.cpu._target import kernel
from lrcore.cpu._tile import STORE, UPDATE
from lrcore.cpu._vector import address
from lrcore.cpu.gemm import A_BT, AB, AT_B, places_of, product_at


@kernel
def ntk_factors(params, widths, left, right, work):
    """left[i−1] = A_i A_iᵀ, right[i−1] = P_{i−1}ᵀ P_{i−1} for i = 1 … N.

    left (N, n_N, n_N), right (N, n_0, n_0): symmetric bit for bit; left[N−1] and right[0] are identity matrices. Uses
    work.turns.
    """
    depth = widths.size - 1
    places = places_of(work.chain)
    _identity(left[depth - 1])
    _identity(right[0])
    one = params.dtype.type(1)
    start = address(params)
    turns = address(work.turns)
    half = work.turns.size // 2 * places.size
    _from_the_input(one, start, widths, address(right), turns, half, places)
    _from_the_output(one, start + params.size * places.size, widths, address(left), turns, half, places)


@kernel
def ntk_inner(left, right, other_left, other_right):
    """⟨K, K'⟩ = Σ_ij tr(left_i left'_j) tr(right_i right'_j), a Frobenius inner product, from the factors of both."""
    total = left.dtype.type(0)
    for i in range(left.shape[0]):
        for j in range(other_left.shape[0]):
            outputs = inner(left[i].reshape(-1), other_left[j].reshape(-1))
            total += outputs * inner(right[i].reshape(-1), other_right[j].reshape(-1))
    return total


@kernel
def ntk_apply(left, right, matrix, out, work):
    """out = K(matrix) = Σ_i left_i · matrix · right_i. matrix, out (n_N, n_0): different arrays. Uses work.moved."""
    (outputs, inputs), places, one, none = matrix.shape, places_of(work.chain), matrix.dtype.type(1), np.intp(0)
    at = address(matrix)
    goal = address(out)
    moved = address(work.moved)
    form = np.intp(AB)
    for i in range(left.shape[0]):
        a = address(left[i])
        b = address(right[i])
        mode = np.intp(UPDATE) if i > 0 else np.intp(STORE)
        product_at(form, np.intp(STORE), outputs, inputs, outputs, a, at, moved, one, none, none, places)
        product_at(form, mode, outputs, inputs, inputs, moved, b, goal, one, none, none, places)


@kernel
def _identity(matrix):
    matrix[:] = 0
    for k in range(matrix.shape[0]):
        matrix[k, k] = 1


# Below, all but sizes are addresses; numbers have the type of `one`. Two products of the chain take turns.


@kernel
def _from_the_input(one, params, widths, right, turns, half, places):
    """P_iᵀ P_i for i = 1 … N−1, behind the first of the matrices at `right`."""
    inputs = widths[0]
    size = places.size
    store = np.intp(STORE)
    none = np.intp(0)
    layer = params
    prefix = params
    for i in range(1, widths.size - 1):
        n, below = widths[i], widths[i - 1]
        if i > 1:
            goal = turns + i % 2 * half
            product_at(np.intp(AB), store, n, inputs, below, layer, prefix, goal, one, none, none, places)
            prefix = goal
        right += inputs * inputs * size
        product_at(np.intp(AT_B), store, inputs, inputs, n, prefix, prefix, right, one, none, none, places)
        layer += n * below * size


@kernel
def _from_the_output(one, end, widths, left, turns, half, places):
    """A_i A_iᵀ for i = N−1 … 1, before the last of the matrices at `left`; `end` is where the last layer ends."""
    depth = widths.size - 1
    size = places.size
    store = np.intp(STORE)
    none = np.intp(0)
    outputs = widths[depth]
    layer = end
    above = end
    left += (depth - 1) * outputs * outputs * size
    for i in range(depth - 1, 0, -1):
        n, rows = widths[i], widths[i + 1]
        layer -= n * rows * size
        if i == depth - 1:
            above = layer
        else:
            goal = turns + i % 2 * half
            product_at(np.intp(AB), store, outputs, n, rows, above, layer, goal, one, none, none, places)
            above = goal
        left -= outputs * outputs * size
        product_at(np.intp(A_BT), store, outputs, outputs, n, above, above, left, one, none, none, places)
