"""Training on an `Objective` and a ridge: the twin of `lrcore.cpu.objective`.

One block makes the steps of a small network as it would on chip, though its memory is the device's: with tiles,
products and all that is needed beside them take more registers than a thread has.
"""

import numpy as np

from lrcore.cuda._target import empty, fetch, kernel, on_gpu, put
from lrcore.cuda.batch import places_of_device
from lrcore.cuda.block import Chip
from lrcore.cuda.gemm import UPDATE
from lrcore.cuda.grid import on_grid as parts
from lrcore.cuda.machines import Goal
from lrcore.cuda.passes import SCALE, part_count
from lrcore.cuda.programs import on_chip, on_grid
from lrcore.cuda.workspace import require_memory

THREADS = on_gpu(256, 3)
_gd, _rk = on_chip.objective_gd, on_chip.objective_rk


def as_goal(objective):
    """The Goal of an `objective.Objective`: its arrays on the device, with scratch. A Goal stays what it is."""
    if isinstance(objective, Goal):
        return objective
    dtype = objective.target.dtype
    count = objective.values.size
    inputs = len(objective.covariance)
    parts = part_count(dtype)
    size = objective.target.size
    arrays = objective.weights, objective.target, objective.matrices, objective.values
    numbers = 2 * parts + 2 * size + inputs**2 if inputs else count * (parts + 2) + parts
    what = f"an objective with {inputs} inputs" if inputs else f"an objective with {count} measurements"
    require_memory(sum(array.nbytes for array in arrays) + numbers * dtype.itemsize, what)
    arrays = [put(array) for array in arrays]
    scratch = empty(numbers, dtype)
    if inputs:
        scratch[2 * parts + size : 2 * parts + size + inputs**2].copy_to_device(objective.covariance.reshape(-1))
    return Goal(*arrays, dtype.type(objective.weight), count, scratch, parts, inputs, dtype.type(objective.floor))


@kernel("xixxxxsnxnnsxxxin", products=True)
def _objective_gd(
    memory,
    widths,
    weights,
    target,
    rows,
    values,
    weight,
    count,
    scratch,
    parts,
    inputs,
    floor,
    rates,
    ridges,
    losses,
    status,
    steps,
):
    state = Chip(status)
    goal = Goal(weights, target, rows, values, weight, count, scratch, parts, inputs, floor)
    _gd(memory, state, widths, places_of_device(widths, 0), goal, rates, ridges, losses, steps)


@kernel("xixxxxsnxnnsssxxxin", products=True)
def _objective_rk(
    memory,
    widths,
    weights,
    target,
    rows,
    values,
    weight,
    count,
    scratch,
    parts,
    inputs,
    floor,
    ridge,
    dt,
    a,
    b,
    losses,
    status,
    steps,
):
    state = Chip(status)
    goal = Goal(weights, target, rows, values, weight, count, scratch, parts, inputs, floor)
    _rk(memory, state, widths, places_of_device(widths, b.size), goal, ridge, dt, a, b, losses, steps)


def objective_gd_steps(params, widths, objective, rates, ridges, losses, work):
    """Gradient descent on an Objective with η and λ for every step. `params` and `losses` are written."""
    work.load(0, params)
    work.reset()
    there = work.keep("losses", losses)
    goal = as_goal(objective)
    if work.spread:
        numbers = goal, rates, ridges, there
        on_grid.objective_gd(work.memory, work.state, work.widths, work.places, *numbers, losses.size)
    else:
        numbers = work.keep("rates", rates), work.keep("ridges", ridges), there
        _objective_gd(1, THREADS, work.memory, work.device_widths, *goal, *numbers, work.state, losses.size)
    return _ended(params, losses, there, work)


def objective_rk_steps(params, widths, objective, ridge, dt, tableau, losses, work):
    """Steps of an explicit Runge-Kutta method, tableau = (a, b), on dW_i/dt = −∇_i L − 2λ W_i.

    `params` and `losses` are written. Needs a workspace with as many stages as b has.
    """
    work.load(0, params)
    work.reset()
    there, goal, (a, b) = work.keep("losses", losses), as_goal(objective), tableau
    if work.spread:
        numbers = goal, ridge, dt, a.reshape(-1), b, there
        on_grid.objective_rk(work.memory, work.state, work.widths, work.places, *numbers, losses.size)
    else:
        numbers = ridge, dt, work.keep("a", a), work.keep("b", b), there
        _objective_rk(1, THREADS, work.memory, work.device_widths, *goal, *numbers, work.state, losses.size)
    return _ended(params, losses, there, work)


def _ended(params, losses, there, work):
    fetch(there[: losses.size], losses)
    fetch(work.memory[: params.size], params)
    return work.status()


def objective_loss_and_gradient(params, widths, objective, ridge, gradient, work):
    """The loss with λ Σ ‖W_i‖² at `params`; its gradient into `gradient`, laid out like `params`."""
    work.load(0, params)
    work.reset()
    memory = work.memory
    state = work.state
    count = work.places.parameters
    there = work.keep("loss", np.empty(1, params.dtype))
    loss = np.empty(1, params.dtype)
    on_grid.weigh(memory, state, work.widths, work.places, as_goal(objective), ridge, 0, there, 0)
    fetch(there, loss)
    work.reset()
    parts.combine(memory, state, SCALE, count, params.dtype.type(2) * ridge, 0, 0, work.out)
    parts.backward(memory, state, work.widths, work.places, UPDATE, params.dtype.type(1), 0, work.out)
    fetch(memory[work.out : work.out + gradient.size], gradient)
    return loss[0]
