"""Curvature of an Objective: products of the Hessian H with vectors, by tangents of the chain.

Along a direction V = (V_1 … V_N) all that the chain makes has a tangent, marked by a dot:

    Ṗ_1 = V_1    Ṗ_i = W_i Ṗ_{i−1} + V_i P_{i−1}
    Ḃ_N = Ġ      Ḃ_{i−1} = W_iᵀ Ḃ_i + V_iᵀ B_i      (H V)_i = Ḃ_i P_{i−1}ᵀ + B_i Ṗ_{i−1}ᵀ + 2λ V_i

The loss is quadratic in the product, so Ġ = ∂²L/∂W² · Ṗ_N is linear and knows nothing of the point. The second
product of a sum is added to the first in the registers of its tiles. In all 6(N−1) products, those of two gradients.
"""

from lrcore.cpu._sums import inner
from lrcore.cpu._target import kernel
from lrcore.cpu._tile import STORE, UPDATE
from lrcore.cpu._vector import NULL, data_ptr, fma
from lrcore.cpu.chain import first_layer_gradient
from lrcore.cpu.gemm import NN, NT, TN, epilogue, matmul_ptr, pointers
from lrcore.cpu.objective import objective_forward
from lrcore.cpu.step import copy


@kernel
def hessian_point(params, widths, objective, ridge, work):
    """The loss with λ Σ ‖W_i‖² at `params`. Leaves in `work` what `hessian_vector` reads there: P_i, G and B_i."""
    ptrs = pointers(work.chain)
    store = epilogue(STORE, params.dtype.type(1))
    inputs = widths[0]
    size = ptrs.itemsize
    loss = objective_forward(params, widths, objective, ridge, work.chain, ptrs)
    layer = data_ptr(params) + _last_layer(widths, size)
    back = ptrs.residual
    next_back = data_ptr(work.back) + work.back.size * size
    for i in range(widths.size - 1, 2, -1):
        rows = widths[i]
        below = widths[i - 1]
        next_back -= below * inputs * size
        matmul_ptr(TN, (below, inputs, rows), layer, back, next_back, store, ptrs)
        layer -= below * widths[i - 2] * size
        back = next_back
    return loss


@kernel
def hessian_vector(params, widths, objective, ridge, direction, out, work):
    """out = H · direction, both laid out like `params`, after `hessian_point` at the same `params`.

    direction, out (P,): different arrays. Uses objective.product.
    """
    ptrs = pointers(work.chain)
    one = params.dtype.type(1)
    inputs = widths[0]
    grad_product = data_ptr(work.grad_product)
    moved = data_ptr(objective.product)
    regression = objective.covariance.shape[0] > 0
    if widths.size > 2:
        product = moved if regression else grad_product
        _push(one, data_ptr(params), data_ptr(direction), widths, data_ptr(work.prefix), product, ptrs)
    elif regression:
        copy(direction, objective.product)
    else:
        copy(direction, work.grad_product)
    if regression:
        shape = (widths[widths.size - 1], inputs, inputs)
        matmul_ptr(NN, shape, moved, data_ptr(objective.covariance), grad_product, epilogue(STORE, one), ptrs)
    else:
        _apply_loss_hessian(objective, work.grad_product)
    twice = (one + one) * ridge
    for p in range(out.size):
        out[p] = twice * direction[p]
    _pull(one, data_ptr(params), data_ptr(direction), widths, data_ptr(out), work, ptrs)


@kernel
def hessian(params, widths, objective, ridge, out, work):
    """The loss as `hessian_point` gives it; the Hessian into `out` (P, P), row j = H e_j. Uses work.direction."""
    loss = hessian_point(params, widths, objective, ridge, work)
    direction = work.direction
    direction[:] = 0
    for j in range(params.size):
        direction[j] = 1
        hessian_vector(params, widths, objective, ridge, direction, out[j], work)
        direction[j] = 0
    return loss


@kernel
def _apply_loss_hessian(objective, tangent):
    """Ṗ_N in `tangent` becomes Ġ, for entries and measurements."""
    if objective.matrices.shape[0] > 0:
        copy(tangent, objective.product)
        tangent[:] = 0
        for k in range(objective.values.size):
            row = objective.matrices[k]
            change = objective.weight * inner(row, objective.product)
            for p in range(row.size):
                tangent[p] = fma(change, row[p], tangent[p])
    else:
        weights = objective.weights.reshape(-1)
        for p in range(tangent.size):
            tangent[p] *= weights[p]


# Below, all but sizes and workspaces are addresses; numbers have the type of `one`.


@kernel
def _last_layer(widths, size):
    """How many bytes behind W_1 the last layer begins."""
    offset = NULL
    for i in range(1, widths.size - 1):
        offset += widths[i] * widths[i - 1] * size
    return offset


@kernel
def _push(one, params, direction, widths, tangents, product, ptrs):
    """Ṗ_2 … Ṗ_{N−1}, side by side from `tangents` on, and Ṗ_N to `product`."""
    depth = widths.size - 1
    inputs = widths[0]
    size = ptrs.itemsize
    prefix = ptrs.prefix
    store = epilogue(STORE, one)
    update = epilogue(UPDATE, one)
    layer = params
    step = direction
    below = params
    moved = direction
    for i in range(2, depth + 1):
        rows = widths[i]
        within = widths[i - 1]
        layer += within * widths[i - 2] * size
        step += within * widths[i - 2] * size
        out = product if i == depth else tangents
        shape = (rows, inputs, within)
        matmul_ptr(NN, shape, layer, moved, out, store, ptrs)
        matmul_ptr(NN, shape, step, below, out, update, ptrs)
        below = prefix
        moved = out
        prefix += rows * inputs * size
        tangents += rows * inputs * size


@kernel
def _pull(one, params, direction, widths, out, work, ptrs):
    """out += what H · direction has besides the ridge, from Ġ in work.grad_product; Ḃ_i and Ḃ_{i−1} take turns."""
    depth = widths.size - 1
    inputs = widths[0]
    size = ptrs.itemsize
    store = epilogue(STORE, one)
    update = epilogue(UPDATE, one)
    offset = _last_layer(widths, size)
    prefix = ptrs.prefix_end
    back = ptrs.residual
    moved = data_ptr(work.grad_product)
    tangent = data_ptr(work.prefix) + work.prefix.size * size
    next_back = data_ptr(work.back) + work.back.size * size
    for i in range(depth, 1, -1):
        rows = widths[i]
        below = widths[i - 1]
        layer = params + offset
        step = direction + offset
        prefix -= below * inputs * size
        tangent -= below * inputs * size
        next_back -= below * inputs * size
        first = params if i == 2 else prefix
        first_tangent = direction if i == 2 else tangent
        next_moved = ptrs.back + i % 2 * ptrs.back_turn
        matmul_ptr(NT, (rows, below, inputs), moved, first, out + offset, update, ptrs)
        matmul_ptr(NT, (rows, below, inputs), back, first_tangent, out + offset, update, ptrs)
        matmul_ptr(TN, (below, inputs, rows), layer, moved, next_moved, store, ptrs)
        matmul_ptr(TN, (below, inputs, rows), step, back, next_moved, update, ptrs)
        back = next_back
        moved = next_moved
        offset -= below * widths[i - 2] * size
    first_layer_gradient(update, moved, out, widths[1] * inputs * size, size)
