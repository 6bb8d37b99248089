"""Training of the linearised network in the space of its outputs, by the tangent kernel of `lrcore.cpu.ntk`."""

import numpy as np

from lrcore.cpu._target import kernel
from lrcore.cpu._vector import fma
from lrcore.cpu.gemm import pointers
from lrcore.cpu.ntk import ntk_apply
from lrcore.cpu.objective import objective_forward
from lrcore.status import DIVERGED, OK


@kernel
def tangent_gd_steps(output, factors, objective, rates, losses, work):
    """Steps W ← W − η K(∂L/∂W) on an Objective, K by its factors (left, right); η for every step.

    output (n_N·n_0,), flat, and `losses` are written. These are the outputs of gradient descent on the weights of the
    network that is linearised where it has the kernel K. Uses all of `work`.
    """
    left, right = factors
    ptrs = pointers(work.chain)
    no_ridge = output.dtype.type(0)
    grad_product = work.chain.residual.reshape(objective.target.shape)
    change = work.change.reshape(objective.target.shape)
    for k in range(losses.size):
        loss = objective_forward(output, work.ends, objective, no_ridge, work.chain, ptrs)
        losses[k] = loss
        if not np.isfinite(loss):
            return DIVERGED
        ntk_apply(left, right, grad_product, change, work)
        for p in range(output.size):
            output[p] = fma(-rates[k], work.change[p], output[p])
    return OK
