"""The loss ½‖W − target‖_F² of a whole target and its gradient."""

import numpy as np

from lrcore import layout
from lrcore.reference.products import chain, product


def loss_and_gradient(params, widths, target, gradient, work=None):
    """½‖W − target‖_F² and ∇_i = (W_N ⋯ W_{i+1})ᵀ G (W_{i−1} ⋯ W_1)ᵀ with G = W − target, each from its definition."""
    matrices = layout.layers(params, widths)
    residual = np.empty_like(target)
    product(params, widths, residual)
    residual -= target
    for i, grad in enumerate(layout.layers(gradient, widths)):
        above = chain(matrices[i + 1 :], widths[i + 1], params.dtype)
        below = chain(matrices[:i], widths[0], params.dtype)
        grad[:] = above.T @ residual @ below.T
    return params.dtype.type(0.5) * np.sum(residual**2)


def forward(params, widths, target, work=None):
    """The loss alone."""
    return loss_and_gradient(params, widths, target, np.empty_like(params))


def backward(params, widths, factor, out, work):
    """out += factor · ∇L; `work.residual` holds G, from which the target is recovered."""
    residual = work.residual.reshape(widths[-1], widths[0])
    now = np.empty_like(residual)
    product(params, widths, now)
    gradient = np.empty_like(params)
    loss_and_gradient(params, widths, now - residual, gradient)
    out += factor * gradient
