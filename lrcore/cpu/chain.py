"""The chain W_N ⋯ W_1: forward and backward in 3(N−1) products, no gradient stored.

Forward leaves the prefix products P_i = W_i ⋯ W_1 and the residual G = W_N ⋯ W_1 − target in the workspace.
Backward walks B_N = G, B_{i−1} = W_iᵀ B_i and adds factor · B_i P_{i−1}ᵀ to layer i of `out` as soon as B_{i−1} is
formed. W_i is not read again after that, so `out` may be `params` itself: that is the in-place step.
"""

from lrcore.cpu._target import kernel
from lrcore.cpu.gemm import multiply, multiply_at, multiply_bt


@kernel
def _prefix_products(params, widths, last, work):
    """P_2 … P_{N−1} into work.prefix and P_N into `last` (n_N, n_0)."""
    depth, inputs = widths.size - 1, widths[0]
    layer_start = widths[1] * inputs
    previous = params[:layer_start].reshape((widths[1], inputs))
    prefix_start = 0
    for i in range(2, depth + 1):
        layer_end = layer_start + widths[i] * widths[i - 1]
        layer = params[layer_start:layer_end].reshape((widths[i], widths[i - 1]))
        if i == depth:
            multiply(layer, previous, last)
        else:
            prefix_end = prefix_start + widths[i] * inputs
            product = work.prefix[prefix_start:prefix_end].reshape((widths[i], inputs))
            multiply(layer, previous, product)
            previous, prefix_start = product, prefix_end
        layer_start = layer_end
    if depth == 1:
        last[:, :] = previous


@kernel
def _subtract_and_sum(residual, target, columns):
    """residual −= target; ½ Σ residual². Columns are summed side by side (vector lanes), then in order."""
    columns[:] = 0
    for i in range(residual.shape[0]):
        for j in range(residual.shape[1]):
            difference = residual[i, j] - target[i, j]
            residual[i, j] = difference
            columns[j] += difference * difference
    total = columns[0]
    for j in range(1, columns.size):
        total += columns[j]
    return total * residual.dtype.type(0.5)


@kernel
def product(params, widths, out, work):
    """out (n_N, n_0) = W_N ⋯ W_1. Uses work.prefix."""
    _prefix_products(params, widths, out, work)


@kernel
def forward(params, widths, target, work):
    """The loss ½‖W_N ⋯ W_1 − target‖_F². Leaves in `work` what `backward` reads: prefix products and residual."""
    residual = work.residual.reshape((widths[-1], widths[0]))
    _prefix_products(params, widths, residual, work)
    return _subtract_and_sum(residual, target, work.columns)


@kernel
def backward(params, widths, factor, out, work):
    """out += factor · ∇L(params), after `forward` at the same `params`; `out` may be `params` itself.

    Uses work.back and work.layer; leaves work.residual as it was.
    """
    depth, inputs = widths.size - 1, widths[0]
    prefix_end, layer_end = work.prefix.size, params.size
    back = work.residual.reshape((widths[depth], inputs))
    for i in range(depth, 1, -1):
        rows, columns = widths[i], widths[i - 1]
        layer_start = layer_end - rows * columns
        layer = params[layer_start:layer_end].reshape((rows, columns))
        if i == 2:
            prefix = params[: columns * inputs].reshape((columns, inputs))
        else:
            prefix_start = prefix_end - columns * inputs
            prefix = work.prefix[prefix_start:prefix_end].reshape((columns, inputs))
            prefix_end = prefix_start
        next_back = work.back[i % 2, : columns * inputs].reshape((columns, inputs))
        multiply_at(layer, back, next_back)
        gradient = work.layer[: rows * columns]
        multiply_bt(back, prefix, gradient.reshape((rows, columns)))
        add_scaled(factor, gradient, out[layer_start:layer_end])
        back, layer_end = next_back, layer_start
    add_scaled(factor, back.reshape(back.size), out[:layer_end])


@kernel
def add_scaled(factor, x, out):
    """out += factor · x, vectors of one length."""
    for k in range(x.size):
        out[k] += factor * x[k]


@kernel
def loss_and_gradient(params, widths, target, gradient, work):
    """The loss at `params`; its gradient into `gradient`, laid out like `params`."""
    loss = forward(params, widths, target, work)
    gradient[:] = 0
    backward(params, widths, params.dtype.type(1), gradient, work)
    return loss
