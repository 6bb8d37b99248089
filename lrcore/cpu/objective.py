"""Training on an `Objective`: entries or measurements of the product, or a regression; and a ridge λ Σ ‖W_i‖².

The chain is that of `lrcore.cpu.chain`; between its two halves stands a pass that makes the residual G = ∂L/∂W from
the product. It costs O(n²), or O(K n²) for K measurements, beside the products' O(N n³); for a regression it is one
more product, shared by the threads. With a ridge a step of gradient descent is W_i ← (1 − 2ηλ) W_i − η ∇_i L.
"""

import numpy as np

from lrcore.cpu._sums import inner
from lrcore.cpu._target import kernel, part
from lrcore.cpu._tile import NEGATE, STORE, UPDATE
from lrcore.cpu._vector import NULL, data_ptr, fma
from lrcore.cpu.chain import backward_ptr, chain_products
from lrcore.cpu.gemm import NN, barrier, epilogue, matmul_ptr, pointers, thread_range
from lrcore.cpu.step import add_stages, copy, stage_point
from lrcore.status import DIVERGED, OK


@kernel
def objective_loss_and_gradient(params, widths, objective, ridge, gradient, work):
    """The loss with λ Σ ‖W_i‖² at `params`; its gradient into `gradient`, laid out like `params`."""
    ptrs = pointers(work)
    one = params.dtype.type(1)
    loss = objective_forward(params, widths, objective, ridge, work, ptrs)
    start, end = thread_range(gradient.size, ptrs)
    for p in range(start, end):
        gradient[p] = (one + one) * ridge * params[p]
    barrier(ptrs)
    backward_ptr(UPDATE, one, data_ptr(params), widths, data_ptr(gradient), NULL, ptrs)
    return loss


@kernel
def objective_gd_steps(params, widths, objective, rates, ridges, losses, work):
    """Gradient descent on an Objective with η and λ for every step. `params` and `losses` are written."""
    ptrs = pointers(work)
    params_ptr = data_ptr(params)
    one = params.dtype.type(1)
    for k in range(losses.size):
        loss = objective_forward(params, widths, objective, ridges[k], work, ptrs)
        losses[k] = loss
        if not np.isfinite(loss):
            return DIVERGED
        # the update happens in place while layers are still needed, so the decay comes after it
        decay = one - (one + one) * rates[k] * ridges[k]
        backward_ptr(UPDATE, -(rates[k] / decay), params_ptr, widths, params_ptr, NULL, ptrs)
        if decay != one:
            first, last = thread_range(params.size, ptrs)
            for p in range(first, last):
                params[p] *= decay
            barrier(ptrs)
    return OK


@kernel
def objective_rk_steps(params, widths, objective, ridge, dt, tableau, losses, work):
    """Steps of an explicit Runge-Kutta method, tableau = (a, b), on dW_i/dt = −∇_i L − 2λ W_i.

    `params` and `losses` are written. Needs a workspace with as many stages as b has.
    """
    a, b = tableau
    ptrs = pointers(work)
    for k in range(losses.size):
        for s in range(b.size):
            point = params
            if s > 0:
                stage_point(params, dt, a, s, work, ptrs)
                point = work.point
            loss = objective_forward(point, widths, objective, ridge, work, ptrs)
            if s == 0:
                losses[k] = loss
                if not np.isfinite(loss):
                    return DIVERGED
            vector_field(point, widths, ridge, work.stages[s], ptrs)
        add_stages(params, dt, b, work, ptrs)
    return OK


@part
def objective_forward(params, widths, objective, ridge, work, ptrs):
    """The loss; leaves the prefix products and ∂L/∂W in the workspace. All threads of a run return the same."""
    if widths.size > 2:
        chain_products(params.dtype.type(1), data_ptr(params), widths, ptrs.residual, NULL, ptrs)
    elif ptrs.thread_id == 0:
        copy(params, work.residual)
    if objective.covariance.shape[0] > 0:
        _apply_covariance(params.dtype.type(1), objective, work.residual, ptrs)
    if ptrs.thread_id == 0:
        total = _reduce_loss(objective, work.residual, work.columns)
        if ridge != 0:
            total += ridge * inner(params, params)
        work.columns[0] = total
    barrier(ptrs)
    total = work.columns[0]
    barrier(ptrs)
    return total


@part
def vector_field(params, widths, ridge, out, ptrs):
    """out = −∇L − 2λ params, after `objective_forward` there."""
    one = params.dtype.type(1)
    two = params.dtype.type(2)
    backward_ptr(NEGATE, -one, data_ptr(params), widths, data_ptr(out), NULL, ptrs)
    first, last = thread_range(params.size, ptrs)
    for p in range(first, last):
        out[p] = fma(-two * ridge, params[p], out[p])
    barrier(ptrs)


@kernel
def _apply_covariance(one, objective, residual, ptrs):
    """The product in `residual` becomes ∂L/∂W = D Σ; D = product − target is left in objective.product."""
    difference = objective.product
    target = objective.target.reshape(-1)
    outputs, inputs = objective.target.shape
    barrier(ptrs)  # a single layer is no product: one thread has copied it
    first, last = thread_range(difference.size, ptrs)
    for p in range(first, last):
        difference[p] = residual[p] - target[p]
    barrier(ptrs)
    shape = (outputs, inputs, inputs)
    covariance_ptr = data_ptr(objective.covariance)
    matmul_ptr(NN, shape, data_ptr(difference), covariance_ptr, ptrs.residual, epilogue(STORE, one), ptrs)


@kernel
def _reduce_loss(objective, residual, columns):
    """The loss, after which `residual` holds ∂L/∂W."""
    if objective.covariance.shape[0] > 0:
        return inner(residual, objective.product) / residual.dtype.type(2) + objective.floor
    if objective.matrices.shape[0] > 0:
        return _measurements_loss(objective, residual)
    return _entries_loss(objective, residual, columns)


@kernel
def _entries_loss(objective, residual, columns):
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
def _measurements_loss(objective, residual):
    """The loss of the measurements of the product in `residual`, which becomes ∂L/∂W."""
    product = objective.product
    two = residual.dtype.type(2)
    copy(residual, product)
    residual[:] = 0
    total = two - two
    for k in range(objective.values.size):
        row = objective.matrices[k]
        difference = inner(row, product) - objective.values[k]
        factor = objective.weight * difference
        total = fma(factor, difference, total)
        for p in range(row.size):
            residual[p] = fma(factor, row[p], residual[p])
    return total / two
