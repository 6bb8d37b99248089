"""The neural tangent kernel of the chain, K = Σ_i (A_i A_iᵀ) ⊗ (P_{i−1}ᵀ P_{i−1}), A_i = W_N ⋯ W_{i+1}.

K acts on directions of the output: K(M) = Σ_i A_i A_iᵀ M P_{i−1}ᵀ P_{i−1} is how the product moves where ∂L/∂W is −M.
It has (n_N n_0)² entries, its factors only N (n_N² + n_0²), and all that is asked of it comes from those.
"""

from lrcore.cpu._sums import inner
from lrcore.cpu._target import kernel
from lrcore.cpu._tile import STORE, UPDATE
from lrcore.cpu._vector import data_ptr
from lrcore.cpu.gemm import NN, NT, TN, epilogue, matmul_ptr, pointers


@kernel
def ntk_factors(params, widths, left, right, work):
    """left[i−1] = A_i A_iᵀ, right[i−1] = P_{i−1}ᵀ P_{i−1} for i = 1 … N.

    left (N, n_N, n_N), right (N, n_0, n_0): symmetric bit for bit; left[N−1] and right[0] are identity matrices. Uses
    work.turns.
    """
    depth = widths.size - 1
    ptrs = pointers(work.chain)
    _identity(left[depth - 1])
    _identity(right[0])
    one = params.dtype.type(1)
    start = data_ptr(params)
    end = start + params.size * ptrs.itemsize
    turns = (data_ptr(work.turns), work.turns.size // 2 * ptrs.itemsize)
    _from_the_input(one, start, widths, data_ptr(right), turns, ptrs)
    _from_the_output(one, end, widths, data_ptr(left), turns, ptrs)


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
    outputs, inputs = matrix.shape
    ptrs = pointers(work.chain)
    one = matrix.dtype.type(1)
    moved = data_ptr(work.moved)
    store = epilogue(STORE, one)
    for i in range(left.shape[0]):
        end = epilogue(UPDATE if i > 0 else STORE, one)
        matmul_ptr(NN, (outputs, inputs, outputs), data_ptr(left[i]), data_ptr(matrix), moved, store, ptrs)
        matmul_ptr(NN, (outputs, inputs, inputs), moved, data_ptr(right[i]), data_ptr(out), end, ptrs)


@kernel
def _identity(matrix):
    matrix[:] = 0
    for k in range(matrix.shape[0]):
        matrix[k, k] = 1


# Below, all but sizes are addresses; numbers have the type of `one`. turns: two buffers for products of the chain in
# turn, as the address of the first and the bytes from it to the second.


@kernel
def _from_the_input(one, params, widths, right, turns, ptrs):
    """P_iᵀ P_i for i = 1 … N−1, behind the first of the matrices at `right`."""
    first_turn, turn_size = turns
    inputs = widths[0]
    size = ptrs.itemsize
    store = epilogue(STORE, one)
    layer = params
    prefix = params
    for i in range(1, widths.size - 1):
        n = widths[i]
        below = widths[i - 1]
        if i > 1:
            product = first_turn + i % 2 * turn_size
            matmul_ptr(NN, (n, inputs, below), layer, prefix, product, store, ptrs)
            prefix = product
        right += inputs * inputs * size
        matmul_ptr(TN, (inputs, inputs, n), prefix, prefix, right, store, ptrs)
        layer += n * below * size


@kernel
def _from_the_output(one, end, widths, left, turns, ptrs):
    """A_i A_iᵀ for i = N−1 … 1, before the last of the matrices at `left`; `end` is where the last layer ends."""
    first_turn, turn_size = turns
    depth = widths.size - 1
    size = ptrs.itemsize
    store = epilogue(STORE, one)
    outputs = widths[depth]
    layer = end
    above = end
    left += (depth - 1) * outputs * outputs * size
    for i in range(depth - 1, 0, -1):
        n = widths[i]
        rows = widths[i + 1]
        layer -= n * rows * size
        if i == depth - 1:
            above = layer
        else:
            product = first_turn + i % 2 * turn_size
            matmul_ptr(NN, (outputs, n, rows), above, layer, product, store, ptrs)
            above = product
        left -= outputs * outputs * size
        matmul_ptr(NT, (outputs, outputs, n), above, above, left, store, ptrs)
