"""The machines that are one block of threads, and parts of a kernel: on chip and in memory.

Shared arrays are made where a kernel begins, and are the `state` of its machine.
"""

from typing import Any, NamedTuple

from lrcore.cuda._target import cuda, device, times
from lrcore.cuda.chain import walks
from lrcore.cuda.gemm import direct, narrow_tiled
from lrcore.cuda.machines import Machine
from lrcore.cuda.passes import (
    column_total,
    combine_part,
    compare_part,
    differ_part,
    measured_slope_part,
    miss_part,
    project_part,
    regress_part,
    settle_part,
    square_part,
    tell,
)
from lrcore.status import OK


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
def _combine(memory, state, kind, count, factor, x, base, out):
    combine_part(memory, kind, count, factor, x, base, out, cuda.threadIdx.x, cuda.blockDim.x)
    cuda.syncthreads()


@device
def _square(memory, state, rows, columns, residual, out):
    square_part(memory, rows, columns, residual, out, cuda.threadIdx.x, cuda.blockDim.x)
    cuda.syncthreads()


@device
def _compare(memory, state, weights, target, rows, columns, residual, out):
    compare_part(memory, weights, target, rows, columns, residual, out, cuda.threadIdx.x, cuda.blockDim.x)
    cuda.syncthreads()


@device
def _project(memory, state, rows, origin, count, size, at, goal, start):
    first = cuda.threadIdx.x
    step = cuda.blockDim.x
    project_part(memory, rows, origin, count, size, at, goal.scratch, goal.parts, start, first, step)
    cuda.syncthreads()


@device
def _differ(memory, state, goal, size, residual):
    differ_part(memory, goal, size, residual, cuda.threadIdx.x, cuda.blockDim.x)
    cuda.syncthreads()


@device
def _respond(memory, state, goal, size, residual):
    slopes = goal.measurements * goal.parts
    first = cuda.threadIdx.x
    step = cuda.blockDim.x
    measured_slope_part(memory, goal.matrices, goal.scratch, slopes, size, goal.measurements, residual, first, step)
    cuda.syncthreads()


@device
def _regress(memory, state, goal, size, residual):
    first = cuda.threadIdx.x
    step = cuda.blockDim.x
    start = 2 * goal.parts
    miss_part(memory, goal.target, size, residual, goal.scratch, start, first, step)
    cuda.syncthreads()
    regress_part(memory, goal.scratch, start, size, goal.inputs, residual, first, step)
    cuda.syncthreads()


@device
def _total(memory, state, columns, at_columns, losses, at):
    if cuda.threadIdx.x == 0:
        tell(state.status, column_total(memory, columns, at_columns), losses, at)
    cuda.syncthreads()


@device
def _settle(memory, state, columns, at_columns, goal, ridge, parameters, point, losses, at):
    if cuda.threadIdx.x == 0:
        settle_part(memory, state.status, columns, at_columns, goal, ridge, parameters, point, losses, at)
    cuda.syncthreads()


def _of_block(multiply):
    sums = _square, _compare, _project, _differ, _respond, _regress, _total, _settle
    return Machine(device, times, _stopped, *walks(device, multiply, _combine), _combine, *sums)


on_chip, in_memory = _of_block(_chip_multiply), _of_block(_memory_multiply)
