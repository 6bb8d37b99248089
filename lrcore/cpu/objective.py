"""Training on an `Objective`: entries or measurements of the product, or a regression; and a ridge λ Σ ‖W_i‖².

The chain is that of `lrcore.cpu.chain`; between its two halves stands a pass that makes the residual G = ∂L/∂W from
the product. It costs O(n²), or O(K n²) for K measurements, beside the products' O(N n³); for a regression it is one
more product, shared by the threads. With a ridge a step of gradient descent is W_i ← (1 − 2ηλ) W_i − η ∇_i L.
"""

import numpy as np

from lrcore.cpu._sums import inner
from lrcore.cpu._target import kernel
from lrcore.cpu._tile import NEGATE, STORE, UPDATE
from lrcore.cpu._vector import address, fma
from lrcore.cpu.chain import _chain, backward_at
from lrcore.cpu.gemm import AB, meet, places_of, product_at, share
from lrcore.cpu.step import _add_stages, _copy, _stage_point
from lrcore.status import DIVERGED, OK


@kernel
def objective_loss_and_gradient(params, widths, objective, ridge, gradient, work):
    """The loss with λ Σ ‖W_i‖² at `params`; its gradient into `gradient`, laid out like `params`."""
    places = places_of(work)
    one = params.dtype.type(1)
    loss = _forward(params, widths, objective, ridge, work, places)
    start, end = share(gradient.size, places)
    for p in range(start, end):
        gradient[p] = (one + one) * ridge * params[p]
    meet(places)
    backward_at(np.intp(UPDATE), one, address(params), widths, address(gradient), np.intp(0), places)
    return loss


@kernel
def objective_gd_steps(params, widths, objective, rates, ridges, losses, work):
    """Gradient descent on an Objective with η and λ for every step. `params` and `losses` are written."""
    places = places_of(work)
    start = address(params)
    one = params.dtype.type(1)
    for k in range(losses.size):
        loss = _forward(params, widths, objective, ridges[k], work, places)
        losses[k] = loss
        if not np.isfinite(loss):
            return DIVERGED
        # the update happens in place while layers are still needed, so the decay comes after it
        decay = one - (one + one) * rates[k] * ridges[k]
        backward_at(np.intp(UPDATE), -(rates[k] / decay), start, widths, start, np.intp(0), places)
        if decay != one:
            first, last = share(params.size, places)
            for p in range(first, last):
                params[p] *= decay
            meet(places)
    return OK


@kernel
def objective_rk_steps(params, widths, objective, ridge, dt, tableau, losses, work):
    """Steps of an explicit Runge-Kutta method, tableau = (a, b), on dW_i/dt = −∇_i L − 2λ W_i.

    `params` and `losses` are written. Needs a workspace with as many stages as b has.
    """
    (a, b), places = tableau, places_of(work)
    for k in range(losses.size):
        for s in range(b.size):
            point = params
            if s > 0:
                _stage_point(params, dt, a, s, work, places)
                point = work.point
            loss = _forward(point, widths, objective, ridge, work, places)
            if s == 0:
                losses[k] = loss
                if not np.isfinite(loss):
                    return DIVERGED
            _slope(point, widths, ridge, work.stages[s], work, places)
        _add_stages(params, dt, b, work, places)
    return OK


@kernel
def _forward(params, widths, objective, ridge, work, places):
    """The loss; leaves the prefix products and the residual in the workspace. All threads of a run return the same."""
    if widths.size > 2:
        _chain(params.dtype.type(1), address(params), widths, places.residual, np.intp(0), places)
    elif places.part == 0:
        _copy(params, work.residual)
    if objective.covariance.shape[0] > 0:
        _respond(params.dtype.type(1), objective, work.residual, places)
    if places.part == 0:
        total = _settle(objective, work.residual, work.columns)
        if ridge != 0:
            total += ridge * inner(params, params)
        work.columns[0] = total
    meet(places)
    total = work.columns[0]
    meet(places)
    return total


@kernel
def _slope(params, widths, ridge, slope, work, places):
    """slope = −∇L − 2λ params, after `_forward` there."""
    two, one = params.dtype.type(2), params.dtype.type(1)
    backward_at(np.intp(NEGATE), -one, address(params), widths, address(slope), np.intp(0), places)
    first, last = share(params.size, places)
    for p in range(first, last):
        slope[p] = fma(-two * ridge, params[p], slope[p])
    meet(places)


@kernel
def _respond(one, objective, residual, places):
    """The product in `residual` becomes ∂L/∂W = D Σ; D = product − target is left in objective.product."""
    difference = objective.product
    target = objective.target.reshape(-1)
    none = np.intp(0)
    outputs, inputs = objective.target.shape
    meet(places)  # a single layer is no product: one thread has copied it
    first, last = share(difference.size, places)
    for p in range(first, last):
        difference[p] = residual[p] - target[p]
    meet(places)
    left, right = address(difference), address(objective.covariance)
    product_at(
        np.intp(AB), np.intp(STORE), outputs, inputs, inputs, left, right, places.residual, one, none, none, places
    )


@kernel
def _settle(objective, residual, columns):
    """The loss, after which `residual` holds ∂L/∂W."""
    if objective.covariance.shape[0] > 0:
        return inner(residual, objective.product) / residual.dtype.type(2) + objective.floor
    if objective.matrices.shape[0] > 0:
        return _measure(objective, residual)
    return _compare(objective, residual, columns)


@kernel
def _compare(objective, residual, columns):
    """The loss of the entries of the product in `residual`, which becomes ∂L/∂W; squares are added by columns."""
    weights = objective.weights
    target = objective.target
    two = residual.dtype.type(2)
    inputs = target.shape[1]
    columns[:inputs] = 0
    for i in range(target.shape[0]):
        row = residual[i * inputs : (i + 1) * inputs]
        for j in range(inputs):
            difference = row[j] - target[i, j]
            row[j] = weights[i, j] * difference
            columns[j] = fma(row[j], difference, columns[j])
    total = columns[0]
    for j in range(1, inputs):
        total += columns[j]
    return total / two


@kernel
def _measure(objective, residual):
    """The loss of the measurements of the product in `residual`, which becomes ∂L/∂W."""
    product = objective.product
    two = residual.dtype.type(2)
    _copy(residual, product)
    residual[:] = 0
    total = two - two
    for k in range(objective.values.size):
        row = objective.matrices[k]
        difference = inner(row, product) - objective.values[k]
        slope = objective.weight * difference
        total = fma(slope, difference, total)
        for p in range(row.size):
            residual[p] = fma(slope, row[p], residual[p])
    return total / two
