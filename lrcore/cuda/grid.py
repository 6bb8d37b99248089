"""The machine that is the whole device: a kernel for each part, and its launch."""

import operator

from lrcore.cuda._target import cuda, device, kernel
from lrcore.cuda.chain import walks
from lrcore.cuda.gemm import AB, STORE, launch_product
from lrcore.cuda.machines import MOST_BLOCKS, PASS_THREADS, Goal, Machine
from lrcore.cuda.passes import (
    column_total,
    combine_part,
    compare_part,
    differ_part,
    measured_slope_part,
    miss_part,
    project_part,
    settle_part,
    square_part,
    take_part,
    tell,
)
from lrcore.status import OK


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
        project_part(memory, rows, origin, count, size, at, scratch, parts, start, _here(), _all())


@kernel("xixxxxsnxnnsnn")
def _differ(
    memory,
    state,
    weights,
    target,
    matrices,
    values,
    weight,
    measurements,
    scratch,
    parts,
    inputs,
    floor,
    size,
    residual,
):
    if state[0] == OK:
        goal = Goal(weights, target, matrices, values, weight, measurements, scratch, parts, inputs, floor)
        differ_part(memory, goal, size, residual, _here(), _all())


@kernel("xixnnxn")
def _miss(memory, state, target, size, residual, scratch, start):
    if state[0] == OK:
        miss_part(memory, target, size, residual, scratch, start, _here(), _all())


@kernel("xinnxn")
def _take(memory, state, size, residual, scratch, start):
    if state[0] == OK:
        take_part(memory, size, residual, scratch, start, _here(), _all())


@kernel("xixxnnnn")
def _respond(memory, state, matrices, scratch, slopes, size, count, residual):
    if state[0] == OK:
        measured_slope_part(memory, matrices, scratch, slopes, size, count, residual, _here(), _all())


@kernel("xinnxxxxsnxnnssnnxn", name="settle")
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
    inputs,
    floor,
    ridge,
    parameters,
    point,
    losses,
    at,
):
    if state[0] == OK and cuda.threadIdx.x == 0:
        goal = Goal(weights, target, matrices, values, weight, measurements, scratch, parts, inputs, floor)
        settle_part(memory, state, columns, at_columns, goal, ridge, parameters, point, losses, at)


@kernel("xinnxn")
def _total(memory, state, columns, at_columns, losses, at):
    if state[0] == OK and cuda.threadIdx.x == 0:
        tell(state, column_total(memory, columns, at_columns), losses, at)


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


def _launch_regress(memory, state, goal, size, residual):
    """The product is made in the scratch, where both factors are: one large network has large ones."""
    blocks = _blocks(size)
    scratch = goal.scratch
    start = 2 * goal.parts
    inputs = goal.inputs
    covariance = start + size
    response = start + size + inputs * inputs
    _miss(blocks, PASS_THREADS, memory, state, goal.target, size, residual, scratch, start)
    where = size // inputs, inputs, inputs, start, covariance, response
    launch_product(scratch, state, AB, STORE, *where, 0, scratch.dtype.type(1))
    _take(blocks, PASS_THREADS, memory, state, size, residual, scratch, response)


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
    _launch_regress,
    _launch_total,
    _launch_settle,
)
