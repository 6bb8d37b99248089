"""The executors that are one block of threads, and parts of a kernel: on chip and in memory.

Shared arrays are made where a kernel begins, and are the `state` of its executor.
"""

from typing import Any, NamedTuple

from lrcore.cuda import passes
from lrcore.cuda._target import cuda, device, mul_rn
from lrcore.cuda.chain import chain
from lrcore.cuda.executors import Executor
from lrcore.cuda.gemm import Share, direct, narrow_tiled
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
def _share():
    """That of a thread."""
    return Share(cuda.threadIdx.x, cuda.blockDim.x)


@device
def _chip_matmul(memory, state, product, epilogue):
    direct(memory, product, epilogue, _share())
    cuda.syncthreads()


@device
def _memory_matmul(memory, state, product, epilogue):
    narrow_tiled(memory, state.left, state.right, product, epilogue, Share(0, 1))
    cuda.syncthreads()


@device
def _combine(memory, state, kind, count, factor, x, base, out):
    passes.combine(memory, kind, count, factor, x, base, out, _share())
    cuda.syncthreads()


@device
def _column_squares(memory, state, rows, columns, residual, out):
    passes.column_squares(memory, rows, columns, residual, out, _share())
    cuda.syncthreads()


@device
def _entry_residuals(memory, state, weights, target, rows, columns, residual, out):
    passes.entry_residuals(memory, weights, target, rows, columns, residual, out, _share())
    cuda.syncthreads()


@device
def _partial_dots(memory, state, rows, dots, scratch):
    passes.partial_dots(memory, rows, dots, scratch, _share())
    cuda.syncthreads()


@device
def _measurement_residuals(memory, state, objective, size, residual):
    passes.measurement_residuals(memory, objective, size, residual, _share())
    cuda.syncthreads()


@device
def _apply_adjoint(memory, state, objective, size, residual):
    count = objective.measurements
    factors = count * objective.num_partials
    passes.apply_adjoint(memory, objective.matrices, objective.scratch, factors, size, count, residual, _share())
    cuda.syncthreads()


@device
def _apply_covariance(memory, state, objective, size, residual):
    start = 2 * objective.num_partials
    passes.product_residual(memory, objective.target, size, residual, objective.scratch, start, _share())
    cuda.syncthreads()
    passes.apply_covariance(memory, objective.scratch, start, size, objective.inputs, residual, _share())
    cuda.syncthreads()


@device
def _target_loss(memory, state, sums, losses, at):
    if cuda.threadIdx.x == 0:
        passes.write_loss(state.status, passes.column_loss(memory, sums), losses, at)
    cuda.syncthreads()


@device
def _objective_loss(memory, state, sums, objective, ridge, point, losses, at):
    if cuda.threadIdx.x == 0:
        passes.reduce_loss(memory, state.status, sums, objective, ridge, point, losses, at)
    cuda.syncthreads()


def _executor(matmul):
    return Executor(
        device,
        mul_rn,
        _stopped,
        *chain(device, matmul, _combine),
        _combine,
        _column_squares,
        _entry_residuals,
        _partial_dots,
        _measurement_residuals,
        _apply_adjoint,
        _apply_covariance,
        _target_loss,
        _objective_loss,
    )


ON_CHIP = _executor(_chip_matmul)
IN_MEMORY = _executor(_memory_matmul)
