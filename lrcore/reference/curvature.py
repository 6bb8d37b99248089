"""The Hessian of a loss, by its products with vectors."""

import numpy as np

from lrcore import layout
from lrcore.reference.objective import grad_product, grad_product_change, objective_loss_and_gradient
from lrcore.reference.products import chain


def hessian_point(params, widths, objective, ridge, work=None):
    """The loss alone: `hessian_vector` needs nothing from here."""
    return objective_loss_and_gradient(params, widths, objective, ridge, np.empty_like(params))


def hessian_vector(params, widths, objective, ridge, direction, out, work=None):
    """The derivative of every ∇_i = A_iᵀ G P_{i−1}ᵀ + 2λ W_i along the direction, by the product rule."""
    matrices = layout.layers(params, widths)
    moves = layout.layers(direction, widths)
    inputs = widths[0]
    dtype = params.dtype
    residual = grad_product(chain(matrices, inputs, dtype), objective)
    change = grad_product_change(_chain_change(matrices, moves, inputs, dtype), objective)
    for i, part in enumerate(layout.layers(out, widths)):
        below = (matrices[:i], moves[:i], inputs)
        above = (matrices[i + 1 :], moves[i + 1 :], widths[i + 1])
        p, a = (chain(factors, size, dtype) for factors, _, size in (below, above))
        p_change, a_change = (_chain_change(*factors, dtype) for factors in (below, above))
        part[:] = a_change.T @ residual @ p.T + a.T @ change @ p.T + a.T @ residual @ p_change.T + 2 * ridge * moves[i]


def _chain_change(matrices, moves, inputs, dtype):
    """The derivative of the product of `matrices` as all of them move: one move at a time in place of its matrix."""
    size = len(matrices[-1]) if matrices else inputs
    result = np.zeros((size, inputs), dtype)
    for i, move in enumerate(moves):
        result += chain([*matrices[:i], move, *matrices[i + 1 :]], inputs, dtype)
    return result


def hessian(params, widths, objective, ridge, out, work=None):
    """out (P, P) = ∇²L, row by row; returns L."""
    for row, unit in zip(out, np.eye(params.size, dtype=params.dtype), strict=True):
        hessian_vector(params, widths, objective, ridge, unit, row)
    return hessian_point(params, widths, objective, ridge)
