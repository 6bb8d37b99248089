"""Losses that see entries, measurements or data, with a ridge λ Σ ‖W_i‖²."""

import numpy as np

from lrcore import layout
from lrcore.reference.products import chain, product
from lrcore.reference.step import runge_kutta
from lrcore.status import DIVERGED, OK


def objective_loss_and_gradient(params, widths, objective, ridge, gradient, work=None):
    """The loss of an Objective with λ Σ ‖W_i‖², each gradient from its definition."""
    product_now = np.empty(objective.target.shape, params.dtype)
    product(params, widths, product_now)
    grad = gradient_of_layers(params, widths, grad_product(product_now, objective))
    gradient[:] = grad + 2 * ridge * params
    return loss_of_product(product_now, objective) + ridge * np.sum(params**2)


def loss_of_product(product_now, objective):
    """The loss of an Objective without the ridge."""
    half = product_now.dtype.type(0.5)
    if len(objective.matrices):
        differences = objective.matrices @ product_now.ravel() - objective.values
        return half * objective.weight * np.sum(differences**2)
    difference = product_now - objective.target
    return half * np.sum(grad_product(product_now, objective) * difference) + objective.floor


def gradient_of_layers(params, widths, grad_product):
    """The gradient of every layer, as one flat vector, from ∂L/∂W."""
    matrices = layout.layers(params, widths)
    gradient = np.empty_like(params)
    for i, part in enumerate(layout.layers(gradient, widths)):
        above = chain(matrices[i + 1 :], widths[i + 1], params.dtype)
        part[:] = above.T @ grad_product @ chain(matrices[:i], widths[0], params.dtype).T
    return gradient


def grad_product(product_now, objective):
    """∂L/∂W."""
    if len(objective.matrices):
        differences = objective.matrices @ product_now.ravel() - objective.values
        return objective.weight * (differences @ objective.matrices).reshape(product_now.shape)
    return grad_product_change(product_now - objective.target, objective)


def grad_product_change(change, objective):
    """How ∂L/∂W changes with W."""
    if len(objective.matrices):
        return objective.weight * (objective.matrices @ change.ravel() @ objective.matrices).reshape(change.shape)
    return change @ objective.covariance if len(objective.covariance) else objective.weights * change


def objective_gd_steps(params, widths, objective, rates, ridges, losses, work=None):
    """Gradient descent on an Objective with a learning rate and a ridge λ for each step."""
    gradient = np.empty_like(params)
    for k in range(losses.size):
        losses[k] = objective_loss_and_gradient(params, widths, objective, ridges[k], gradient)
        if not np.isfinite(losses[k]):
            return DIVERGED
        params -= rates[k] * gradient
    return OK


def objective_rk_steps(params, widths, objective, ridge, dt, tableau, losses, work=None):
    """A Runge–Kutta method, tableau = (a, b), on the flow of an Objective with ridge λ."""

    def evaluate(point):
        gradient = np.empty_like(point)
        return objective_loss_and_gradient(point, widths, objective, ridge, gradient), gradient

    return runge_kutta(params, evaluate, dt, tableau, losses)
