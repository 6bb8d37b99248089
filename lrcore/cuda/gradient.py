"""Loss, product and gradient of one network, spread over the device: the kernels of `lrcore.cpu.chain`."""

import numpy as np

from lrcore.cuda._target import copy_to_host
from lrcore.cuda.gemm import UPDATE
from lrcore.cuda.grid import ON_GRID
from lrcore.cuda.steps import GRID_STEPS


def product(params, widths, out, work):
    """out (n_N, n_0) = W_N ⋯ W_1."""
    work.load(0, params)
    work.reset()
    ON_GRID.forward(work.net, 0, False)
    copy_to_host(work.memory[work.offsets.residual : work.offsets.residual + out.size], out)


def forward(params, widths, target, work):
    """The loss ½‖W_N ⋯ W_1 − target‖_F². Leaves on the device what `backward` reads."""
    work.load(0, params)
    work.load(work.offsets.target, target)
    work.reset()
    there = work.keep("loss", np.empty(1, params.dtype))
    loss = np.empty(1, params.dtype)
    ON_GRID.forward(work.net, 0, True)
    GRID_STEPS.loss(work.net, there, 0)
    copy_to_host(there, loss)
    work.reset()  # a gradient is wanted where the loss is not finite, too
    return loss[0]


def backward(params, widths, factor, out, work):
    """out += factor · ∇L(params), after `forward` at the same `params`; `out` may be `params` itself."""
    work.load(work.out, out)
    _add_gradient(factor, out, work)


def loss_and_gradient(params, widths, target, gradient, work):
    """The loss at `params`; its gradient into `gradient`, laid out like `params`."""
    loss = forward(params, widths, target, work)
    work.fill(work.out, work.offsets.parameters)
    _add_gradient(params.dtype.type(1), gradient, work)
    return loss


def _add_gradient(factor, out, work):
    ON_GRID.backward(work.net, UPDATE, factor, 0, work.out)
    copy_to_host(work.memory[work.out : work.out + out.size], out)
