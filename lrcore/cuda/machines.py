"""Who makes a step: three machines with the same parts, so that everything above them is written once.

on_chip    one block, memory of the run in shared memory, products straight from there
in_memory  one block, memory of the run in the GPU's (its second-level cache, mostly), tiled products
on_grid    all multiprocessors, a launch for each pass: one large network. The host goes through the same program, but
           waits for nothing: after a loss that is not finite, what it launches does nothing

In a block every part ends where its threads meet; on the grid the next launch waits for the one before.
"""

import math
import operator
from typing import Any, NamedTuple

from lrcore.cuda._target import cuda, device, fma, kernel, on_gpu, times
from lrcore.cuda.chain import walks
from lrcore.cuda.gemm import NARROW, direct, launch_product, narrow_tiled
from lrcore.cuda.passes import (
    column_total,
    combine_part,
    compare_part,
    inner_part,
    inner_total,
    measured_slope_part,
    square_part,
)
from lrcore.status import DIVERGED, OK

CHIP_THREADS, MEMORY_THREADS = on_gpu(64, 3), NARROW * NARROW
PASS_THREADS = on_gpu(256, 2)  # of a launch that passes over vectors
MOST_BLOCKS = on_gpu(2048, 3)


class Machine(NamedTuple):
    """The parts of which `lrcore.cuda.programs` makes steps. All take memory and state first; see `chain.walks`."""

    compiled: Any  # decorates what becomes part of a kernel
    times: Any  # the product of two numbers, rounded
    stopped: Any  # stopped(state): whether the run has ended
    forward: Any
    backward: Any
    combine: Any  # (…, kind, count, factor, x, base, out)
    square: Any  # (…, rows, columns, residual, out)
    compare: Any  # (…, weights, target, rows, columns, residual, out)
    project: Any  # (…, rows, origin, count, size, at, goal, start): partial sums of inner products
    differ: Any  # (…, goal, size, residual): differences and slopes of measurements
    respond: Any  # (…, goal, size, residual): ∂L/∂W from the slopes
    total: Any  # (…, columns, at_columns, losses, at): the loss of a whole target
    settle: Any  # (…, columns, at_columns, goal, ridge, parameters, point, losses, at): that of an Objective


class Goal(NamedTuple):
    """An `objective.Objective` on the device. measurements: how many rows `matrices` has.

    scratch: `parts` partial sums of each measurement, all slopes, all differences, the partial sums of the ridge.
    """

    weights: Any
    target: Any
    matrices: Any
    values: Any
    weight: Any
    measurements: int
    scratch: Any
    parts: int


# Parts as shares of a thread: `first`, `first + step`, …


@device
def _project_part(memory, rows, origin, count, size, at, scratch, parts, start, first, step):
    place = first
    while place < count * parts:
        row = place // parts
        part = place - row * parts
        scratch[start + place] = inner_part(rows, origin + row * size, memory, at, size, parts, part)
        place += step


@device
def _differ_part(memory, goal, size, residual, first, step):
    parts, k = goal.parts, first
    slopes = goal.measurements * parts
    while k < goal.measurements:
        found = inner_total(goal.matrices, k * size, memory, residual, size, goal.scratch, k * parts, parts)
        difference = found - goal.values[k]
        goal.scratch[slopes + k] = times(goal.weight, difference)
        goal.scratch[slopes + goal.measurements + k] = difference
        k += step


@device
def _tell(status, loss, losses, at):
    """Keep a loss; one that is not finite ends the run."""
    losses[at] = loss
    if not math.isfinite(loss):
        status[0] = DIVERGED


@device
def _settle(memory, status, columns, at_columns, goal, ridge, parameters, point, losses, at):
    """The loss of an Objective, by one thread."""
    parts, count = goal.parts, goal.measurements
    total = memory.dtype.type(0)
    if count > 0:
        for k in range(count):
            total = fma(goal.scratch[count * parts + k], goal.scratch[count * (parts + 1) + k], total)
        total = total / memory.dtype.type(2)
    else:
        total = column_total(memory, columns, at_columns)
    if ridge != 0:
        sums = count * (parts + 2)
        total += times(ridge, inner_total(memory, point, memory, point, parameters, goal.scratch, sums, parts))
    _tell(status, total, losses, at)


# One block. Shared arrays are made where a kernel begins, and are the `state` of its machine.


class Chip(NamedTuple):
    """status: shared, one int64."""

    status: Any


class Block(NamedTuple):
    """status: shared, one int64; left, right: shared, for the tiles of products."""

    status: Any
    left: Any
    right: Any


@device
def _stopped(state):
    return state.status[0] != OK


@device
def _chip_multiply(memory, state, form, mode, m, n, count, a, b, c, target, factor):
    direct(memory, form, mode, m, n, count, a, b, c, target, factor, cuda.threadIdx.x, cuda.blockDim.x)
    cuda.syncthreads()


@device
def _memory_multiply(memory, state, form, mode, m, n, count, a, b, c, target, factor):
    left, right = state.left, state.right
    narrow_tiled(memory, left, right, form, mode, m, n, count, a, b, c, target, factor, 0, 1)
    cuda.syncthreads()


@device
def _block_combine(memory, state, kind, count, factor, x, base, out):
    combine_part(memory, kind, count, factor, x, base, out, cuda.threadIdx.x, cuda.blockDim.x)
    cuda.syncthreads()


@device
def _block_square(memory, state, rows, columns, residual, out):
    square_part(memory, rows, columns, residual, out, cuda.threadIdx.x, cuda.blockDim.x)
    cuda.syncthreads()


@device
def _block_compare(memory, state, weights, target, rows, columns, residual, out):
    compare_part(memory, weights, target, rows, columns, residual, out, cuda.threadIdx.x, cuda.blockDim.x)
    cuda.syncthreads()


@device
def _block_project(memory, state, rows, origin, count, size, at, goal, start):
    first, step = cuda.threadIdx.x, cuda.blockDim.x
    _project_part(memory, rows, origin, count, size, at, goal.scratch, goal.parts, start, first, step)
    cuda.syncthreads()


@device
def _block_differ(memory, state, goal, size, residual):
    _differ_part(memory, goal, size, residual, cuda.threadIdx.x, cuda.blockDim.x)
    cuda.syncthreads()


@device
def _block_respond(memory, state, goal, size, residual):
    slopes = goal.measurements * goal.parts
    first, step = cuda.threadIdx.x, cuda.blockDim.x
    measured_slope_part(memory, goal.matrices, goal.scratch, slopes, size, goal.measurements, residual, first, step)
    cuda.syncthreads()


@device
def _block_total(memory, state, columns, at_columns, losses, at):
    if cuda.threadIdx.x == 0:
        _tell(state.status, column_total(memory, columns, at_columns), losses, at)
    cuda.syncthreads()


@device
def _block_settle(memory, state, columns, at_columns, goal, ridge, parameters, point, losses, at):
    if cuda.threadIdx.x == 0:
        _settle(memory, state.status, columns, at_columns, goal, ridge, parameters, point, losses, at)
    cuda.syncthreads()


def _of_block(multiply):
    sums = _block_square, _block_compare, _block_project, _block_differ, _block_respond, _block_total, _block_settle
    return Machine(device, times, _stopped, *walks(device, multiply, _block_combine), _block_combine, *sums)


on_chip, in_memory = _of_block(_chip_multiply), _of_block(_memory_multiply)


# The whole grid: kernels that make one part, and their launches.


@device
def _here():
    return cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x


@device
def _all():
    return cuda.gridDim.x * cuda.blockDim.x


@kernel("xinnsnnn")
def _combine(memory, state, kind, count, factor, x, base, out):
    if state[0] == OK:
        combine_part(memory, kind, count, factor, x, base, out, _here(), _all())


@kernel("xinnnn")
def _square(memory, state, rows, columns, residual, out):
    if state[0] == OK:
        square_part(memory, rows, columns, residual, out, _here(), _all())


@kernel("xixxnnnn")
def _compare(memory, state, weights, target, rows, columns, residual, out):
    if state[0] == OK:
        compare_part(memory, weights, target, rows, columns, residual, out, _here(), _all())


@kernel("xixnnnnxnn")
def _project(memory, state, rows, origin, count, size, at, scratch, parts, start):
    if state[0] == OK:
        _project_part(memory, rows, origin, count, size, at, scratch, parts, start, _here(), _all())


@kernel("xixxxxsnxnnn")
def _differ(memory, state, weights, target, matrices, values, weight, measurements, scratch, parts, size, residual):
    if state[0] == OK:
        goal = Goal(weights, target, matrices, values, weight, measurements, scratch, parts)
        _differ_part(memory, goal, size, residual, _here(), _all())


@kernel("xixxnnnn")
def _respond(memory, state, matrices, scratch, slopes, size, count, residual):
    if state[0] == OK:
        measured_slope_part(memory, matrices, scratch, slopes, size, count, residual, _here(), _all())


@kernel("xinnxxxxsnxnsnnxn", name="settle")
def _settle_kernel(
    memory,
    state,
    columns,
    at_columns,
    weights,
    target,
    matrices,
    values,
    weight,
    measurements,
    scratch,
    parts,
    ridge,
    parameters,
    point,
    losses,
    at,
):
    if state[0] == OK and cuda.threadIdx.x == 0:
        goal = Goal(weights, target, matrices, values, weight, measurements, scratch, parts)
        _settle(memory, state, columns, at_columns, goal, ridge, parameters, point, losses, at)


@kernel("xinnxn")
def _total(memory, state, columns, at_columns, losses, at):
    if state[0] == OK and cuda.threadIdx.x == 0:
        _tell(state, column_total(memory, columns, at_columns), losses, at)


def _blocks(count):
    return min(MOST_BLOCKS, -(-int(count) // PASS_THREADS))


def _launch_combine(memory, state, kind, count, factor, x, base, out):
    _combine(_blocks(count), PASS_THREADS, memory, state, kind, count, factor, x, base, out)


def _launch_square(memory, state, rows, columns, residual, out):
    _square(_blocks(columns), PASS_THREADS, memory, state, rows, columns, residual, out)


def _launch_compare(memory, state, weights, target, rows, columns, residual, out):
    _compare(_blocks(columns), PASS_THREADS, memory, state, weights, target, rows, columns, residual, out)


def _launch_project(memory, state, rows, origin, count, size, at, goal, start):
    where = rows, origin, count, size, at, goal.scratch, goal.parts, start
    _project(_blocks(count * goal.parts), PASS_THREADS, memory, state, *where)


def _launch_differ(memory, state, goal, size, residual):
    _differ(_blocks(goal.measurements), PASS_THREADS, memory, state, *goal, size, residual)


def _launch_respond(memory, state, goal, size, residual):
    slopes = goal.measurements * goal.parts
    where = goal.matrices, goal.scratch, slopes, size, goal.measurements, residual
    _respond(_blocks(size), PASS_THREADS, memory, state, *where)


def _launch_total(memory, state, columns, at_columns, losses, at):
    _total(1, 1, memory, state, columns, at_columns, losses, at)


def _launch_settle(memory, state, columns, at_columns, goal, ridge, parameters, point, losses, at):
    _settle_kernel(1, 1, memory, state, columns, at_columns, *goal, ridge, parameters, point, losses, at)


def _as_it_is(function):
    return function


def _never(state):
    return False


on_grid = Machine(
    _as_it_is,
    operator.mul,
    _never,
    *walks(_as_it_is, launch_product, _launch_combine),
    _launch_combine,
    _launch_square,
    _launch_compare,
    _launch_project,
    _launch_differ,
    _launch_respond,
    _launch_total,
    _launch_settle,
)
