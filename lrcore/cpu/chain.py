"""The chain W_N ⋯ W_1: forward and backward in 3(N−1) products, no gradient stored.

Forward leaves the prefix products P_i = W_i ⋯ W_1 and the residual G = W_N ⋯ W_1 − target in the workspace; residual
and loss are made in the registers of the last product. Backward walks B_N = G, B_{i−1} = W_iᵀ B_i and adds
factor · B_i P_{i−1}ᵀ to layer i of `out`, again in registers, as soon as B_{i−1} is formed. W_i is not read again after
that, so `out` may be `params` itself: that is the in-place step.
"""

from lrcore.cpu._arrays import clear
from lrcore.cpu._lanes import fma_lanes, load_lanes, splat_lanes, store_lanes, subtract_lanes, sum_lanes, zero_lanes
from lrcore.cpu._target import kernel, part
from lrcore.cpu._tile import RESIDUAL, STAGE, STORE, UPDATE, Epilogue
from lrcore.cpu._vector import NULL, data_ptr, fma, load, load_int, store
from lrcore.cpu.gemm import NN, NT, TN, barrier, epilogue, matmul_ptr, pointers, thread_range
from lrcore.layout import LANE_BYTES


@kernel
def product(params, widths, out, work):
    """out (n_N, n_0) = W_N ⋯ W_1. Uses work.prefix."""
    if widths.size == 2:
        for k in range(params.size):  # assigning arrays would take longer to compile than the rest of this function
            store(params[k], data_ptr(out) + k * params.itemsize)
    else:
        chain_products(params.dtype.type(1), data_ptr(params), widths, data_ptr(out), NULL, pointers(work))


@kernel
def forward(params, widths, target, work):
    """The loss ½‖W_N ⋯ W_1 − target‖_F². Leaves in `work` what `backward` reads: prefix products and residual."""
    return forward_ptr(params.dtype.type(1), data_ptr(params), widths, data_ptr(target), pointers(work))


@kernel
def backward(params, widths, factor, out, work):
    """out += factor · ∇L(params), after `forward` at the same `params`; `out` may be `params` itself.

    Uses work.back; leaves work.residual as it was.
    """
    backward_ptr(UPDATE, factor, data_ptr(params), widths, data_ptr(out), NULL, pointers(work))


@kernel
def loss_and_gradient(params, widths, target, gradient, work):
    """The loss at `params`; its gradient into `gradient`, laid out like `params`."""
    one = params.dtype.type(1)
    ptrs = pointers(work)
    loss = forward_ptr(one, data_ptr(params), widths, data_ptr(target), ptrs)
    start, end = thread_range(gradient.size, ptrs)
    clear(gradient[start:end])
    barrier(ptrs)
    backward_ptr(UPDATE, one, data_ptr(params), widths, data_ptr(gradient), NULL, ptrs)
    return loss


# Below, what ends in `_ptr` is an address, as are `base` and `out`; numbers have the type of `one` or `factor`.


@part
def forward_ptr(one, params_ptr, widths, target_ptr, ptrs):
    """`forward` of addresses."""
    inputs = widths[0]
    size = ptrs.itemsize
    if ptrs.thread_id == 0:
        for j in range(inputs):
            store(one - one, ptrs.columns + j * size)
        if widths.size == 2:
            _single_layer(one, params_ptr, target_ptr, widths, ptrs)
    barrier(ptrs)
    if widths.size > 2:
        chain_products(one, params_ptr, widths, ptrs.residual, target_ptr, ptrs)
    total = load(ptrs.columns, one)
    for j in range(1, inputs):
        total += load(ptrs.columns + j * size, one)
    return total / (one + one)


@part
def chain_products(one, params_ptr, widths, product_ptr, target_ptr, ptrs):
    """P_2 … P_{N−1} into the workspace; P_N to `product_ptr`, minus the target when there is one (not NULL)."""
    depth = widths.size - 1
    inputs = widths[0]
    size = ptrs.itemsize
    layer = params_ptr
    previous = params_ptr
    out = ptrs.prefix
    end = epilogue(STORE, one)
    for i in range(2, depth + 1):
        rows = widths[i]
        inner = widths[i - 1]
        layer += inner * widths[i - 2] * size
        if i == depth:
            out = product_ptr
            if target_ptr != NULL:
                end = Epilogue(RESIDUAL, one, target_ptr, ptrs.columns)
        matmul_ptr(NN, (rows, inputs, inner), layer, previous, out, end, ptrs)
        previous = out
        out += rows * inputs * size


@kernel
def _single_layer(one, params_ptr, target_ptr, widths, ptrs):
    """Residual and squares for a chain of one layer, where there is no product to make them in."""
    size = ptrs.itemsize
    for i in range(widths[1]):
        for j in range(widths[0]):
            at = (i * widths[0] + j) * size
            column = ptrs.columns + j * size
            difference = load(params_ptr + at, one) - load(target_ptr + at, one)
            store(difference, ptrs.residual + at)
            store(fma(difference, difference, load(column, one)), column)


@part
def backward_ptr(mode, factor, params_ptr, widths, out, base, ptrs):
    """The gradients into `out` after `forward_ptr`, by mode.

    UPDATE   out += factor · ∇L
    NEGATE   out = −∇L
    STAGE    out = source − factor · ∇L and sum = base − weight · ∇L, where ptrs.record tells how many bytes behind
             `base` source and sum are, and the weight

    `out` and the sum may be `params` itself: of a layer nothing is read once it is written.
    """
    depth = widths.size - 1
    inputs = widths[0]
    size = ptrs.itemsize
    offset = NULL
    prefix = ptrs.prefix_end
    back = ptrs.residual
    for i in range(2, depth + 1):
        offset += widths[i - 1] * widths[i - 2] * size
    for i in range(depth, 1, -1):
        rows = widths[i]
        inner = widths[i - 1]
        prefix -= inner * inputs * size
        below = params_ptr if i == 2 else prefix
        layer = params_ptr + offset
        gradient = out + offset
        end = Epilogue(mode, factor, base + offset, ptrs.record)
        offset -= inner * widths[i - 2] * size
        next_back = ptrs.back + i % 2 * ptrs.back_turn
        matmul_ptr(TN, (inner, inputs, rows), layer, back, next_back, epilogue(STORE, factor), ptrs)
        matmul_ptr(NT, (rows, inner, inputs), back, below, gradient, end, ptrs)
        back = next_back
    start, stop = thread_range(widths[1] * inputs, ptrs)
    first = start * size
    end = Epilogue(mode, factor, base + first, ptrs.record)
    first_layer_gradient(end, back + first, out + first, (stop - start) * size, size)
    barrier(ptrs)


@part
def first_layer_gradient(end, gradient, out, length, size):
    """What `backward_ptr` does with the gradient of W_1, which is B_1 itself. end: an Epilogue; length in bytes."""
    factor = end.factor
    base = end.target
    scale = splat_lanes(factor)
    zero = zero_lanes(factor)
    source = out
    total = out
    weight = factor
    if end.mode == STAGE:
        source = base + load_int(end.columns)
        total = base + load_int(end.columns + 8)
        weight = load(end.columns + 16, factor)
    at = NULL
    while at + LANE_BYTES <= length:
        slope = load_lanes(factor, gradient + at)
        if end.mode == UPDATE:
            store_lanes(fma_lanes(scale, slope, load_lanes(factor, out + at)), out + at)
        else:
            slope = subtract_lanes(zero, slope)
            if end.mode == STAGE:
                origin = load_lanes(factor, base + at)
                store_lanes(fma_lanes(scale, slope, load_lanes(factor, source + at)), out + at)
                store_lanes(fma_lanes(splat_lanes(weight), slope, origin), total + at)
            else:
                store_lanes(slope, out + at)
        at += LANE_BYTES
    while at < length:
        slope = load(gradient + at, factor)
        if end.mode == UPDATE:
            store(fma(factor, slope, load(out + at, factor)), out + at)
        else:
            slope = sum_lanes(zero) - slope  # of an infinite factor factor - factor would be NaN
            if end.mode == STAGE:
                origin = load(base + at, factor)
                store(fma(factor, slope, load(source + at, factor)), out + at)
                store(fma(weight, slope, origin), total + at)
            else:
                store(slope, out + at)
        at += size
