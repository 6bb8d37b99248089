"""The executor that is the whole device: a kernel for each part, and its launch."""

import operator

from lrcore.cuda import passes
from lrcore.cuda._target import Integer, Integers, Number, Numbers, cuda, device, kernel, plain
from lrcore.cuda.chain import chain
from lrcore.cuda.executors import MOST_BLOCKS, PASS_THREADS, DeviceObjective, Executor
from lrcore.cuda.gemm import NN, STORE, Epilogue, Product, Share, launch_product
from lrcore.cuda.passes import Dots, Vector
from lrcore.status import OK


@device
def _share():
    """That of a thread."""
    return Share(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, cuda.gridDim.x * cuda.blockDim.x)


@kernel()
def _combine(
    memory: Numbers,
    state: Integers,
    kind: Integer,
    count: Integer,
    factor: Number,
    x: Integer,
    base: Integer,
    out: Integer,
):
    if state[0] == OK:
        passes.combine(memory, kind, count, factor, x, base, out, _share())


@kernel()
def _column_squares(memory: Numbers, state: Integers, rows: Integer, columns: Integer, residual: Integer, out: Integer):
    if state[0] == OK:
        passes.column_squares(memory, rows, columns, residual, out, _share())


@kernel()
def _entry_residuals(
    memory: Numbers,
    state: Integers,
    weights: Numbers,
    target: Numbers,
    rows: Integer,
    columns: Integer,
    residual: Integer,
    out: Integer,
):
    if state[0] == OK:
        passes.entry_residuals(memory, weights, target, rows, columns, residual, out, _share())


@kernel()
def _partial_dots(memory: Numbers, state: Integers, rows: Numbers, dots: plain(Dots), scratch: Numbers):
    if state[0] == OK:
        passes.partial_dots(memory, rows, Dots(*dots), scratch, _share())


@kernel()
def _measurement_residuals(
    memory: Numbers, state: Integers, objective: DeviceObjective, size: Integer, residual: Integer
):
    if state[0] == OK:
        passes.measurement_residuals(memory, objective, size, residual, _share())


@kernel()
def _apply_adjoint(
    memory: Numbers,
    state: Integers,
    matrices: Numbers,
    scratch: Numbers,
    factors: Integer,
    size: Integer,
    count: Integer,
    residual: Integer,
):
    if state[0] == OK:
        passes.apply_adjoint(memory, matrices, scratch, factors, size, count, residual, _share())


@kernel()
def _product_residual(
    memory: Numbers,
    state: Integers,
    target: Numbers,
    size: Integer,
    residual: Integer,
    scratch: Numbers,
    start: Integer,
):
    if state[0] == OK:
        passes.product_residual(memory, target, size, residual, scratch, start, _share())


@kernel()
def _copy(memory: Numbers, state: Integers, size: Integer, residual: Integer, scratch: Numbers, start: Integer):
    if state[0] == OK:
        passes.copy(memory, size, residual, scratch, start, _share())


@kernel()
def _target_loss(memory: Numbers, state: Integers, sums: plain(Vector), losses: Numbers, at: Integer):
    if state[0] == OK and cuda.threadIdx.x == 0:
        passes.write_loss(state, passes.column_loss(memory, Vector(*sums)), losses, at)


@kernel()
def _objective_loss(
    memory: Numbers,
    state: Integers,
    sums: plain(Vector),
    objective: DeviceObjective,
    ridge: Number,
    point: plain(Vector),
    losses: Numbers,
    at: Integer,
):
    if state[0] == OK and cuda.threadIdx.x == 0:
        passes.reduce_loss(memory, state, Vector(*sums), objective, ridge, Vector(*point), losses, at)


def _blocks(count):
    return min(MOST_BLOCKS, -(-int(count) // PASS_THREADS))


def _launch_combine(memory, state, kind, count, factor, x, base, out):
    _combine(_blocks(count), PASS_THREADS, memory, state, kind, count, factor, x, base, out)


def _launch_column_squares(memory, state, rows, columns, residual, out):
    _column_squares(_blocks(columns), PASS_THREADS, memory, state, rows, columns, residual, out)


def _launch_entry_residuals(memory, state, weights, target, rows, columns, residual, out):
    _entry_residuals(_blocks(columns), PASS_THREADS, memory, state, weights, target, rows, columns, residual, out)


def _launch_partial_dots(memory, state, rows, dots, scratch):
    _partial_dots(_blocks(dots.count * dots.num_partials), PASS_THREADS, memory, state, rows, tuple(dots), scratch)


def _launch_measurement_residuals(memory, state, objective, size, residual):
    _measurement_residuals(_blocks(objective.measurements), PASS_THREADS, memory, state, objective, size, residual)


def _launch_apply_adjoint(memory, state, objective, size, residual):
    count = objective.measurements
    factors = count * objective.num_partials
    arrays = objective.matrices, objective.scratch
    _apply_adjoint(_blocks(size), PASS_THREADS, memory, state, *arrays, factors, size, count, residual)


def _launch_apply_covariance(memory, state, objective, size, residual):
    """The product is made in the scratch, where both factors are: one large network has large ones."""
    blocks = _blocks(size)
    scratch = objective.scratch
    inputs = objective.inputs
    difference = 2 * objective.num_partials
    covariance = difference + size
    out = covariance + inputs * inputs
    _product_residual(blocks, PASS_THREADS, memory, state, objective.target, size, residual, scratch, difference)
    product = Product(NN, size // inputs, inputs, inputs, difference, covariance, out)
    launch_product(scratch, state, product, Epilogue(STORE, scratch.dtype.type(1), 0))
    _copy(blocks, PASS_THREADS, memory, state, size, residual, scratch, out)


def _launch_target_loss(memory, state, sums, losses, at):
    _target_loss(1, 1, memory, state, tuple(sums), losses, at)


def _launch_objective_loss(memory, state, sums, objective, ridge, point, losses, at):
    _objective_loss(1, 1, memory, state, tuple(sums), objective, ridge, tuple(point), losses, at)


def _unchanged(function):
    return function


def _never(state):
    return False


ON_GRID = Executor(
    _unchanged,
    operator.mul,
    _never,
    *chain(_unchanged, launch_product, _launch_combine),
    _launch_combine,
    _launch_column_squares,
    _launch_entry_residuals,
    _launch_partial_dots,
    _launch_measurement_residuals,
    _launch_apply_adjoint,
    _launch_apply_covariance,
    _launch_target_loss,
    _launch_objective_loss,
)
