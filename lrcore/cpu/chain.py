"""The chain W_N ⋯ W_1: forward and backward in 3(N−1) products, no gradient stored.

Forward leaves the prefix products P_i = W_i ⋯ W_1 and the residual G = W_N ⋯ W_1 − target in the workspace; residual
and loss are made in the registers of the last product. Backward walks B_N = G, B_{i−1} = W_iᵀ B_i and adds
factor · B_i P_{i−1}ᵀ to layer i of `out`, again in registers, as soon as B_{i−1} is formed. W_i is not read again after
that, so `out` may be `params` itself: that is the in-place step.
"""

import numpy as np

from lrcore.cpu._lanes import fma_lanes, load_lanes, spread_lanes, store_lanes, subtract_lanes, zero_lanes
from lrcore.cpu._target import kernel, part
from lrcore.cpu._tile import RESIDUAL, STAGE, STORE, UPDATE
from lrcore.cpu._vector import address, fma, integer, number, put
from lrcore.cpu.gemm import A_BT, AB, AT_B, meet, places_of, product_at, share
from lrcore.layout import LANE_BYTES


@kernel
def product(params, widths, out, work):
    """out (n_N, n_0) = W_N ⋯ W_1. Uses work.prefix."""
    if widths.size == 2:
        for k in range(params.size):  # assigning arrays would take longer to compile than the rest of this function
            put(address(out) + k * params.itemsize, params[k])
    else:
        _chain(params.dtype.type(1), address(params), widths, address(out), np.intp(0), places_of(work))


@kernel
def forward(params, widths, target, work):
    """The loss ½‖W_N ⋯ W_1 − target‖_F². Leaves in `work` what `backward` reads: prefix products and residual."""
    return forward_at(params.dtype.type(1), address(params), widths, address(target), places_of(work))


@kernel
def backward(params, widths, factor, out, work):
    """out += factor · ∇L(params), after `forward` at the same `params`; `out` may be `params` itself.

    Uses work.back; leaves work.residual as it was.
    """
    backward_at(np.intp(UPDATE), factor, address(params), widths, address(out), np.intp(0), places_of(work))


@kernel
def loss_and_gradient(params, widths, target, gradient, work):
    """The loss at `params`; its gradient into `gradient`, laid out like `params`."""
    one = params.dtype.type(1)
    places = places_of(work)
    loss = forward_at(one, address(params), widths, address(target), places)
    start, end = share(gradient.size, places)
    gradient[start:end] = 0
    meet(places)
    backward_at(np.intp(UPDATE), one, address(params), widths, address(gradient), np.intp(0), places)
    return loss


# Below, params, target and out are addresses; numbers have the type of `one` or `factor`.


@part
def forward_at(one, params, widths, target, places):
    """`forward` of addresses."""
    inputs = widths[0]
    size = places.size
    if places.part == 0:
        for j in range(inputs):
            put(places.columns + j * size, one - one)
        if widths.size == 2:
            _single_layer(one, params, target, widths, places)
    meet(places)
    if widths.size > 2:
        _chain(one, params, widths, places.residual, target, places)
    total = number(places.columns, one)
    for j in range(1, inputs):
        total += number(places.columns + j * size, one)
    return total / (one + one)


@kernel
def _chain(one, params, widths, last, target, places):
    """P_2 … P_{N−1} into the workspace; P_N to the address `last`, minus `target` when that is an address (not 0)."""
    depth = widths.size - 1
    inputs = widths[0]
    size = places.size
    layer = params
    prefix = places.prefix
    previous = params
    for i in range(2, depth + 1):
        rows, inner = widths[i], widths[i - 1]
        layer += inner * widths[i - 2] * size
        goal = last if i == depth else prefix
        mode = np.intp(RESIDUAL) if i == depth and target != 0 else np.intp(STORE)
        columns = places.columns
        product_at(np.intp(AB), mode, rows, inputs, inner, layer, previous, goal, one, target, columns, places)
        previous = goal
        prefix += rows * inputs * size


@kernel
def _single_layer(one, params, target, widths, places):
    """Residual and squares for a chain of one layer, where there is no product to make them in."""
    size = places.size
    for i in range(widths[1]):
        for j in range(widths[0]):
            at = (i * widths[0] + j) * size
            column = places.columns + j * size
            difference = number(params + at, one) - number(target + at, one)
            put(places.residual + at, difference)
            put(column, fma(difference, difference, number(column, one)))


@part
def backward_at(mode, factor, params, widths, out, base, places):
    """The gradients into `out` after `forward_at`, by mode.

    UPDATE   out += factor · ∇L
    NEGATE   out = −∇L
    STAGE    out = source − factor · ∇L and goal = base − weight · ∇L, where places.record tells how many bytes behind
             `base` source and goal are, and the weight

    `out` and the goal may be `params` itself: of a layer nothing is read once it is written.
    """
    depth = widths.size - 1
    inputs = widths[0]
    size = places.size
    none = np.intp(0)
    store = np.intp(STORE)
    offset = np.intp(0)
    prefix = places.prefix_end
    back = places.residual
    for i in range(2, depth + 1):
        offset += widths[i - 1] * widths[i - 2] * size
    for i in range(depth, 1, -1):
        rows, inner = widths[i], widths[i - 1]
        prefix -= inner * inputs * size
        below = params if i == 2 else prefix
        layer = params + offset
        goal = out + offset
        origin = base + offset
        offset -= inner * widths[i - 2] * size
        next_back = places.back + i % 2 * places.back_turn
        product_at(np.intp(AT_B), store, inner, inputs, rows, layer, back, next_back, factor, none, none, places)
        product_at(np.intp(A_BT), mode, rows, inner, inputs, back, below, goal, factor, origin, places.record, places)
        back = next_back
    start, end = share(widths[1] * inputs, places)
    first = start * size
    _first_layer(mode, factor, back + first, out + first, base + first, places.record, (end - start) * size, size)
    meet(places)


@kernel
def _first_layer(mode, factor, gradient, out, base, record, length, size):
    """What `backward_at` does with the gradient of W_1, which is B_1 itself. Addresses, length in bytes."""
    at = np.intp(0)
    spread = spread_lanes(factor)
    zero = zero_lanes(factor)
    none = factor - factor
    source = out
    goal = out
    weight = factor
    if mode == STAGE:
        source = base + integer(record)
        goal = base + integer(record + 8)
        weight = number(record + 16, factor)
    while at + LANE_BYTES <= length:
        slope = load_lanes(factor, gradient + at)
        if mode == UPDATE:
            store_lanes(fma_lanes(spread, slope, load_lanes(factor, out + at)), out + at)
        else:
            slope = subtract_lanes(zero, slope)
            if mode == STAGE:
                origin = load_lanes(factor, base + at)
                store_lanes(fma_lanes(spread, slope, load_lanes(factor, source + at)), out + at)
                store_lanes(fma_lanes(spread_lanes(weight), slope, origin), goal + at)
            else:
                store_lanes(slope, out + at)
        at += LANE_BYTES
    while at < length:
        slope = number(gradient + at, factor)
        if mode == UPDATE:
            put(out + at, fma(factor, slope, number(out + at, factor)))
        else:
            slope = none - slope
            if mode == STAGE:
                origin = number(base + at, factor)
                put(out + at, fma(factor, slope, number(source + at, factor)))
                put(goal + at, fma(weight, slope, origin))
            else:
                put(out + at, slope)
        at += size
