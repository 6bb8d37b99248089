"""Loss, product and gradient of one network, spread over the device: the twin of the kernels of `lrcore.cpu.chain`."""

import numpy as np

from lrcore.cuda._target import fetch
from lrcore.cuda.gemm import UPDATE
from lrcore.cuda.grid import on_grid as parts
from lrcore.cuda.programs import on_grid


def product(params, widths, out, work):
    """out (n_N, n_0) = W_N ⋯ W_1."""
    work.load(0, params)
    work.reset()
    parts.forward(work.memory, work.state, work.widths, work.places, 0, False)
    fetch(work.memory[work.places.residual : work.places.residual + out.size], out)


def forward(params, widths, target, work):
    """The loss ½‖W_N ⋯ W_1 − target‖_F². Leaves on the device what `backward` reads."""
    work.load(0, params)
    work.load(work.places.target, target)
    work.reset()
    there = work.keep("loss", np.empty(1, params.dtype))
    loss = np.empty(1, params.dtype)
    parts.forward(work.memory, work.state, work.widths, work.places, 0, True)
    on_grid.loss(work.memory, work.state, work.widths, work.places, there, 0)
    fetch(there, loss)
    work.reset()  # a gradient is wanted where the loss is not finite, too
    return loss[0]


def backward(params, widths, factor, out, work):
    """out += factor · ∇L(params), after `forward` at the same `params`; `out` may be `params` itself."""
    work.load(work.out, out)
    _add_gradient(factor, out, work)


def loss_and_gradient(params, widths, target, gradient, work):
    """The loss at `params`; its gradient into `gradient`, laid out like `params`."""
    loss = forward(params, widths, target, work)
    work.fill(work.out, work.places.parameters)
    _add_gradient(params.dtype.type(1), gradient, work)
    return loss


def _add_gradient(factor, out, work):
    parts.backward(work.memory, work.state, work.widths, work.places, UPDATE, factor, 0, work.out)
    fetch(work.memory[work.out : work.out + out.size], out)
