"""Training of the linearised network in the space of its outputs, by the tangent kernel of `lrcore.cpu.ntk`."""

import numpy as np

from lrcore.cpu._target import kernel
from lrcore.cpu._vector import fma
from lrcore.cpu.gemm import places_of
from lrcore.cpu.ntk import ntk_apply
from lrcore.cpu.objective import _forward
from lrcore.status import DIVERGED, OK


@kernel
def tangent_gd_steps(output, factors, objective, rates, losses, work):
    """Steps W ← W − η K(∂L/∂W) on an Objective, K by its factors (left, right); η for every step.

    output (n_N·n_0,), flat, and `losses` are written. These are the outputs of gradient descent on the weights of the
    network that is linearised where it has the kernel K. Uses all of `work`.
    """
    (left, right), places, none = factors, places_of(work.chain), output.dtype.type(0)
    shape = objective.target.shape
    slope = work.chain.residual.reshape(shape)
    change = work.change.reshape(shape)
    for k in range(losses.size):
        loss = _forward(output, work.ends, objective, none, work.chain, places)
        losses[k] = loss
        if not np.isfinite(loss):
            return DIVERGED
        ntk_apply(left, right, slope, change, work)
        for p in range(output.size):
            output[p] = fma(-rates[k], work.change[p], output[p])
    return OK
