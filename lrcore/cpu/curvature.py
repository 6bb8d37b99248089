"""Curvature of an Objective: products of the Hessian H with vectors, by tangents of the chain.

Along a direction V = (V_1 … V_N) all that the chain makes has a tangent, marked by a dot:

    Ṗ_1 = V_1    Ṗ_i = W_i Ṗ_{i−1} + V_i P_{i−1}
    Ḃ_N = Ġ      Ḃ_{i−1} = W_iᵀ Ḃ_i + V_iᵀ B_i      (H V)_i = Ḃ_i P_{i−1}ᵀ + B_i Ṗ_{i−1}ᵀ + 2λ V_i

The loss is quadratic in the product, so Ġ = ∂²L/∂W² · Ṗ_N is linear and knows nothing of the point. The second
product of a sum is added to the first in the registers of its tiles. In all 6(N−1) products, those of two gradients.
"""

import numpy as np

from lrcore.cpu._sums import inner
from lrcore.cpu._target import kernel
from lrcore.cpu._tile import STORE, UPDATE
from lrcore.cpu._vector import address, fma
from lrcore.cpu.chain import _first_layer
from lrcore.cpu.gemm import A_BT, AB, AT_B, places_of, product_at
from lrcore.cpu.objective import _forward
from lrcore.cpu.step import _copy


@kernel
def hessian_point(params, widths, objective, ridge, work):
    """The loss with λ Σ ‖W_i‖² at `params`. Leaves in `work` what `hessian_vector` reads there: P_i, G and B_i."""
    places = places_of(work.chain)
    one = params.dtype.type(1)
    form = np.intp(AT_B)
    store = np.intp(STORE)
    none = np.intp(0)
    inputs = widths[0]
    size = places.size
    loss = _forward(params, widths, objective, ridge, work.chain, places)
    layer = address(params) + _last_layer(widths, size)
    back = places.residual
    goal = address(work.back) + work.back.size * size
    for i in range(widths.size - 1, 2, -1):
        rows, below = widths[i], widths[i - 1]
        goal -= below * inputs * size
        product_at(form, store, below, inputs, rows, layer, back, goal, one, none, none, places)
        layer -= below * widths[i - 2] * size
        back = goal
    return loss


@kernel
def hessian_vector(params, widths, objective, ridge, direction, out, work):
    """out = H · direction, both laid out like `params`, after `hessian_point` at the same `params`.

    direction, out (P,): different arrays. Uses objective.product.
    """
    places = places_of(work.chain)
    one = params.dtype.type(1)
    none = np.intp(0)
    inputs = widths[0]
    slope, moved = address(work.slope), address(objective.product)
    regression = objective.covariance.shape[0] > 0
    if widths.size > 2:
        last = moved if regression else slope
        _push(one, address(params), address(direction), widths, address(work.prefix), last, places)
    elif regression:
        _copy(direction, objective.product)
    else:
        _copy(direction, work.slope)
    if regression:
        form = np.intp(AB)
        rows = widths[widths.size - 1]
        sigma = address(objective.covariance)
        product_at(form, np.intp(STORE), rows, inputs, inputs, moved, sigma, slope, one, none, none, places)
    else:
        _respond(objective, work.slope)
    twice = (one + one) * ridge
    for p in range(out.size):
        out[p] = twice * direction[p]
    _pull(one, address(params), address(direction), widths, address(out), work, places)


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
def _respond(objective, slope):
    """Ṗ_N in `slope` becomes Ġ, for entries and measurements."""
    if objective.matrices.shape[0] > 0:
        _copy(slope, objective.product)
        slope[:] = 0
        for k in range(objective.values.size):
            row = objective.matrices[k]
            change = objective.weight * inner(row, objective.product)
            for p in range(row.size):
                slope[p] = fma(change, row[p], slope[p])
    else:
        weights = objective.weights.reshape(-1)
        for p in range(slope.size):
            slope[p] *= weights[p]


# Below, all but sizes and workspaces are addresses; numbers have the type of `one`.


@kernel
def _last_layer(widths, size):
    """How many bytes behind W_1 the last layer begins."""
    offset = np.intp(0)
    for i in range(1, widths.size - 1):
        offset += widths[i] * widths[i - 1] * size
    return offset


@kernel
def _push(one, params, direction, widths, tangents, last, places):
    """Ṗ_2 … Ṗ_{N−1}, side by side from `tangents` on, and Ṗ_N to `last`."""
    depth = widths.size - 1
    inputs = widths[0]
    size = places.size
    prefix = places.prefix
    form = np.intp(AB)
    store = np.intp(STORE)
    update = np.intp(UPDATE)
    none = np.intp(0)
    layer = params
    step = direction
    below = params
    moved = direction
    for i in range(2, depth + 1):
        rows, within = widths[i], widths[i - 1]
        layer += within * widths[i - 2] * size
        step += within * widths[i - 2] * size
        goal = last if i == depth else tangents
        product_at(form, store, rows, inputs, within, layer, moved, goal, one, none, none, places)
        product_at(form, update, rows, inputs, within, step, below, goal, one, none, none, places)
        below = prefix
        moved = goal
        prefix += rows * inputs * size
        tangents += rows * inputs * size


@kernel
def _pull(one, params, direction, widths, out, work, places):
    """out += what H · direction has besides the ridge, from Ġ in work.slope; Ḃ_i and Ḃ_{i−1} take turns."""
    depth = widths.size - 1
    inputs = widths[0]
    size = places.size
    none = np.intp(0)
    store, update = np.intp(STORE), np.intp(UPDATE)
    offset = _last_layer(widths, size)
    prefix = places.prefix_end
    back = places.residual
    moved = address(work.slope)
    tangent = address(work.prefix) + work.prefix.size * size
    next_back = address(work.back) + work.back.size * size
    for i in range(depth, 1, -1):
        rows = widths[i]
        below = widths[i - 1]
        layer = params + offset
        step = direction + offset
        prefix -= below * inputs * size
        tangent -= below * inputs * size
        next_back -= below * inputs * size
        first, first_tangent = (params, direction) if i == 2 else (prefix, tangent)
        goal = out + offset
        next_moved = places.back + i % 2 * places.back_turn
        product_at(np.intp(A_BT), update, rows, below, inputs, moved, first, goal, one, none, none, places)
        product_at(np.intp(A_BT), update, rows, below, inputs, back, first_tangent, goal, one, none, none, places)
        product_at(np.intp(AT_B), store, below, inputs, rows, layer, moved, next_moved, one, none, none, places)
        product_at(np.intp(AT_B), update, below, inputs, rows, step, back, next_moved, one, none, none, places)
        back = next_back
        moved = next_moved
        offset -= below * widths[i - 2] * size
    _first_layer(update, one, moved, out, none, none, widths[1] * inputs * size, size)
