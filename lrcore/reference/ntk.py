"""The tangent kernel, and training of the linearised network by it."""

import numpy as np

from lrcore import layout
from lrcore.reference.objective import objective_loss_and_gradient
from lrcore.reference.products import chain
from lrcore.status import DIVERGED, OK


def ntk_factors(params, widths, left, right, work=None):
    """left[i] = A Aᵀ and right[i] = Pᵀ P, A the product of the layers above layer i, P of those below.

    The tangent kernel maps a matrix S to Σ_i left_i · S · right_i.
    """
    matrices = layout.layers(params, widths)
    for i in range(len(matrices)):
        above = chain(matrices[i + 1 :], widths[i + 1], params.dtype)
        below = chain(matrices[:i], widths[0], params.dtype)
        left[i] = above @ above.T
        right[i] = below.T @ below


def ntk_inner(left, right, other_left, other_right):
    """Tr KK', K = Σ_i left_i ⊗ right_i."""
    return np.sum(np.einsum("iab,jba->ij", left, other_left) * np.einsum("iab,jba->ij", right, other_right))


def ntk_apply(left, right, matrix, out, work=None):
    """out = Σ_i left_i · matrix · right_i."""
    out[:] = sum(a @ matrix @ b for a, b in zip(left, right, strict=True))


def tangent_gd_steps(output, factors, objective, rates, losses, work=None):
    """∂L/∂W of a network of one layer, moved by Σ_i left_i · ∂L/∂W · right_i."""
    left, right = factors
    shape = objective.target.shape
    ends = np.array([shape[1], shape[0]])
    grad_product = np.empty_like(output)
    for k in range(losses.size):
        losses[k] = objective_loss_and_gradient(output, ends, objective, output.dtype.type(0), grad_product)
        if not np.isfinite(losses[k]):
            return DIVERGED
        output -= rates[k] * sum(a @ grad_product.reshape(shape) @ b for a, b in zip(left, right, strict=True)).ravel()
    return OK
