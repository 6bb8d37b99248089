"""The chain W_N ⋯ W_1: forward and backward in 3(N−1) products, no gradient stored.

Forward leaves the prefix products P_i = W_i ⋯ W_1 and the residual G = W_N ⋯ W_1 − target in the workspace; residual
and loss are made in the registers of the last product. Backward walks B_N = G, B_{i−1} = W_iᵀ B_i and adds
factor · B_i P_{i−1}ᵀ to layer i of `out`, again in registers, as soon as B_{i−1} is formed. W_i is not read again after
that, so `out` may be `params` itself: that is the in-place step.
"""

import numpy as np

from lrcore.cpu._target import kernel
from lrcore.cpu._tile import NEGATE, RESIDUAL, STORE, UPDATE
from lrcore.cpu._vector import address, fma
from lrcore.cpu.gemm import A_BT, AB, AT_B, meet, product_at, scratch, share

# Layers and chain products are passed as addresses: a view of an array costs as much as a small product.


@kernel
def _forward(params, widths, last, target, work):
    """P_2 … P_{N−1} into work.prefix; P_N to the address `last`, minus `target` when that is an address (not 0)."""
    depth, inputs, size, one = widths.size - 1, widths[0], params.itemsize, params.dtype.type(1)
    columns, need = address(work.columns), scratch(work)
    layer, prefix, previous = address(params), address(work.prefix), address(params)
    for i in range(2, depth + 1):
        layer += widths[i - 1] * widths[i - 2] * size
        goal = last if i == depth else prefix
        mode = np.intp(RESIDUAL) if i == depth and target != 0 else np.intp(STORE)
        rows, inner = widths[i], widths[i - 1]
        product_at(np.intp(AB), mode, rows, inputs, inner, layer, previous, goal, one, target, columns, need)
        previous = goal
        prefix += rows * inputs * size


@kernel
def _single_layer(params, target, out, columns):
    """Residual and squares for a chain of one layer, where there is no product to make them in."""
    inputs = columns.size
    for k in range(params.size):
        difference = params[k] - target[k // inputs, k % inputs]
        out[k] = difference
        columns[k % inputs] = fma(difference, difference, columns[k % inputs])


@kernel
def product(params, widths, out, work):
    """out (n_N, n_0) = W_N ⋯ W_1. Uses work.prefix."""
    if widths.size == 2:
        out[:, :] = params.reshape(out.shape)
    else:
        _forward(params, widths, address(out), np.intp(0), work)


@kernel
def forward(params, widths, target, work):
    """The loss ½‖W_N ⋯ W_1 − target‖_F². Leaves in `work` what `backward` reads: prefix products and residual."""
    if work.part == 0:
        for j in range(work.columns.size):
            work.columns[j] = 0
        if widths.size == 2:
            _single_layer(params, target, work.residual, work.columns)
    meet(work)
    if widths.size > 2:
        _forward(params, widths, address(work.residual), address(target), work)
    total = work.columns[0]
    for j in range(1, work.columns.size):
        total += work.columns[j]
    return total * params.dtype.type(0.5)


@kernel
def backward(params, widths, factor, out, work):
    """out += factor · ∇L(params), after `forward` at the same `params`; `out` may be `params` itself.

    Uses work.back; leaves work.residual as it was.
    """
    _backward(params, widths, np.intp(UPDATE), factor, out, work)


@kernel
def downhill(params, widths, out, work):
    """out = −∇L(params), after `forward` at the same `params`: the slope of the flow."""
    _backward(params, widths, np.intp(NEGATE), params.dtype.type(-1), out, work)


@kernel
def _backward(params, widths, mode, factor, out, work):
    """The gradients into `out` by `mode`, UPDATE or NEGATE; that of layer 1 is B_1 itself."""
    depth, inputs, size, one = widths.size - 1, widths[0], params.itemsize, params.dtype.type(1)
    none, store, need = np.intp(0), np.intp(STORE), scratch(work)
    turn = work.back.size // 2 * size
    offset, prefix = params.size * size, address(work.prefix) + work.prefix.size * size
    back = address(work.residual)
    for i in range(depth, 1, -1):
        rows, inner = widths[i], widths[i - 1]
        offset -= rows * inner * size
        prefix -= inner * inputs * size
        below = address(params) if i == 2 else prefix
        layer, goal = address(params) + offset, address(out) + offset
        next_back = address(work.back) + i % 2 * turn
        product_at(np.intp(AT_B), store, inner, inputs, rows, layer, back, next_back, one, none, none, need)
        product_at(np.intp(A_BT), mode, rows, inner, inputs, back, below, goal, factor, none, none, need)
        back = next_back
    start, end = share(widths[1] * inputs, work)
    if depth == 1:
        _first_layer(mode, factor, work.residual, out, start, end)
    else:
        _first_layer(mode, factor, work.back, out, start, end)
    meet(work)


@kernel
def _first_layer(mode, factor, gradient, out, start, end):
    """The gradient of layer 1 into `out` by `mode`, from `start` to `end`."""
    if mode == UPDATE:
        for k in range(start, end):
            out[k] = fma(factor, gradient[k], out[k])
    else:
        for k in range(start, end):
            out[k] = out.dtype.type(0) - gradient[k]


@kernel
def loss_and_gradient(params, widths, target, gradient, work):
    """The loss at `params`; its gradient into `gradient`, laid out like `params`."""
    loss = forward(params, widths, target, work)
    start, end = share(gradient.size, work)
    gradient[start:end] = 0
    meet(work)
    backward(params, widths, params.dtype.type(1), gradient, work)
    return loss
