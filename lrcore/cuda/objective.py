"""Training on an `Objective` and a ridge, as in `lrcore.cpu.objective`.

One block makes the steps of a small network as it would on chip, though its memory is the device's: with tiles,
products and all that is needed beside them take more registers than a thread has.
"""

from typing import NamedTuple

import numpy as np

from lrcore.cuda._target import Integer, Integers, Number, Numbers, copy_to_host, empty, kernel, on_gpu, to_device
from lrcore.cuda.batch import device_offsets
from lrcore.cuda.block import Chip
from lrcore.cuda.chain import Network
from lrcore.cuda.executors import DeviceObjective
from lrcore.cuda.gemm import UPDATE
from lrcore.cuda.grid import ON_GRID
from lrcore.cuda.passes import SCALE, partial_count
from lrcore.cuda.steps import CHIP_STEPS, GRID_STEPS
from lrcore.cuda.workspace import require_memory

THREADS = on_gpu(256, 3)
_gd, _rk = CHIP_STEPS.objective_gd, CHIP_STEPS.objective_rk


def objective_to_device(objective):
    """The DeviceObjective of an `objective.Objective`, with scratch. A DeviceObjective stays what it is."""
    if isinstance(objective, DeviceObjective):
        return objective
    dtype = objective.target.dtype
    count = objective.values.size
    inputs = len(objective.covariance)
    partials = partial_count(dtype)
    size = objective.target.size
    arrays = objective.weights, objective.target, objective.matrices, objective.values
    numbers = 2 * partials + 2 * size + inputs**2 if inputs else count * (partials + 2) + partials
    what = f"an objective with {inputs} inputs" if inputs else f"an objective with {count} measurements"
    require_memory(sum(array.nbytes for array in arrays) + numbers * dtype.itemsize, what)
    there = [to_device(array) for array in arrays]
    scratch = empty(numbers, dtype)
    if inputs:
        start = 2 * partials + size
        scratch[start : start + inputs**2].copy_to_device(objective.covariance.reshape(-1))
    weight = dtype.type(objective.weight)
    return DeviceObjective(*there, weight, count, scratch, partials, inputs, dtype.type(objective.floor))


@kernel(products=True)
def _objective_gd(
    memory: Numbers,
    widths: Integers,
    objective: DeviceObjective,
    rates: Numbers,
    ridges: Numbers,
    losses: Numbers,
    status: Integers,
    steps: Integer,
):
    net = Network(memory, Chip(status), widths, device_offsets(widths, 0))
    _gd(net, objective, rates, ridges, losses, steps)


class Flow(NamedTuple):
    """A Runge-Kutta method (a, b) on a gradient flow with a ridge."""

    ridge: Number
    dt: Number
    a: Numbers
    b: Numbers


@kernel(products=True)
def _objective_rk(
    memory: Numbers,
    widths: Integers,
    objective: DeviceObjective,
    flow: Flow,
    losses: Numbers,
    status: Integers,
    steps: Integer,
):
    net = Network(memory, Chip(status), widths, device_offsets(widths, flow.b.size))
    _rk(net, objective, flow.ridge, flow.dt, flow.a, flow.b, losses, steps)


def objective_gd_steps(params, widths, objective, rates, ridges, losses, work):
    """Gradient descent on an Objective with η and λ for every step. `params` and `losses` are written."""
    work.load(0, params)
    work.reset()
    there = work.keep("losses", losses)
    objective = objective_to_device(objective)
    if work.spread:
        GRID_STEPS.objective_gd(work.net, objective, rates, ridges, there, losses.size)
    else:
        numbers = work.keep("rates", rates), work.keep("ridges", ridges)
        _objective_gd(1, THREADS, work.memory, work.device_widths, objective, *numbers, there, work.state, losses.size)
    return _finish(params, losses, there, work)


def objective_rk_steps(params, widths, objective, ridge, dt, tableau, losses, work):
    """Steps of an explicit Runge-Kutta method, tableau = (a, b), on dW_i/dt = −∇_i L − 2λ W_i.

    `params` and `losses` are written. Needs a workspace with as many stages as b has.
    """
    a, b = tableau
    work.load(0, params)
    work.reset()
    there = work.keep("losses", losses)
    objective = objective_to_device(objective)
    if work.spread:
        GRID_STEPS.objective_rk(work.net, objective, ridge, dt, a.reshape(-1), b, there, losses.size)
    else:
        flow = Flow(ridge, dt, work.keep("a", a), work.keep("b", b))
        _objective_rk(1, THREADS, work.memory, work.device_widths, objective, flow, there, work.state, losses.size)
    return _finish(params, losses, there, work)


def _finish(params, losses, there, work):
    copy_to_host(there[: losses.size], losses)
    copy_to_host(work.memory[: params.size], params)
    return work.status()


def objective_loss_and_gradient(params, widths, objective, ridge, gradient, work):
    """The loss with λ Σ ‖W_i‖² at `params`; its gradient into `gradient`, laid out like `params`."""
    work.load(0, params)
    work.reset()
    count = work.offsets.parameters
    there = work.keep("loss", np.empty(1, params.dtype))
    loss = np.empty(1, params.dtype)
    GRID_STEPS.objective_loss(work.net, objective_to_device(objective), ridge, 0, there, 0)
    copy_to_host(there, loss)
    work.reset()
    ON_GRID.combine(work.memory, work.state, SCALE, count, params.dtype.type(2) * ridge, 0, 0, work.out)
    ON_GRID.backward(work.net, UPDATE, params.dtype.type(1), 0, work.out)
    copy_to_host(work.memory[work.out : work.out + gradient.size], gradient)
    return loss[0]
