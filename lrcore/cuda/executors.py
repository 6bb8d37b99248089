"""Who makes a step: three executors with the same parts, so that everything above them is written once.

ON_CHIP    one block, memory of the run in shared memory, products straight from there (block.py)
IN_MEMORY  one block, memory of the run in the GPU's (its second-level cache, mostly), tiled products (block.py)
ON_GRID    all multiprocessors, a launch for each pass: one large network. The host makes the same calls, but
           waits for nothing: after a loss that is not finite, what it launches does nothing (grid.py)

In a block every part ends at a barrier; on the grid the next launch waits for the one before.
"""

from typing import Any, NamedTuple

from lrcore.cuda._target import Integer, Number, Numbers, on_gpu
from lrcore.cuda.gemm import NARROW

CHIP_THREADS = on_gpu(64, 3)
MEMORY_THREADS = NARROW * NARROW
PASS_THREADS = on_gpu(256, 2)  # of a launch that passes over vectors
MOST_BLOCKS = on_gpu(2048, 3)


class Executor(NamedTuple):
    """The parts of which `lrcore.cuda.steps` makes steps. All but the first five take memory and state first."""

    jit: Any  # decorates what becomes part of a kernel
    mul_rn: Any  # the product of two numbers, rounded
    stopped: Any  # stopped(state): whether the run has ended
    forward: Any  # (net, point, compared): see `chain.Chain`
    backward: Any  # (net, mode, factor, point, out)
    combine: Any  # (…, kind, count, factor, x, base, out)
    column_squares: Any  # (…, rows, columns, residual, out)
    entry_residuals: Any  # (…, weights, target, rows, columns, residual, out)
    partial_dots: Any  # (…, rows, dots, scratch): partial sums of inner products, by `passes.Dots`
    measurement_residuals: Any  # (…, objective, size, residual): differences, and the loss's derivatives by measurement
    apply_adjoint: Any  # (…, objective, size, residual): ∂L/∂W from those derivatives
    apply_covariance: Any  # (…, objective, size, residual): ∂L/∂W of a regression, and D before it
    target_loss: Any  # (…, sums, losses, at): the loss of a whole target from sums of squares, a `passes.Vector`
    objective_loss: Any  # (…, sums, objective, ridge, point, losses, at): that of an objective; sums, point: Vectors


class DeviceObjective(NamedTuple):
    """An `objective.Objective` on the device. measurements: how many rows `matrices` has; inputs: how many Σ has.

    scratch: `num_partials` partial sums of each measurement, the derivatives of the loss by each, all differences, the
    partial sums of the ridge. Of a regression those of the ridge, then those of the loss, D = W − target, Σ, and room
    for D Σ.
    """

    weights: Numbers
    target: Numbers
    matrices: Numbers
    values: Numbers
    weight: Number
    measurements: Integer
    scratch: Numbers
    num_partials: Integer
    inputs: Integer
    floor: Number
