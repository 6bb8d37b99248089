"""Who makes a step: three machines with the same parts, so that everything above them is written once.

on_chip    one block, memory of the run in shared memory, products straight from there (block.py)
in_memory  one block, memory of the run in the GPU's (its second-level cache, mostly), tiled products (block.py)
on_grid    all multiprocessors, a launch for each pass: one large network. The host goes through the same program, but
           waits for nothing: after a loss that is not finite, what it launches does nothing (grid.py)

In a block every part ends where its threads meet; on the grid the next launch waits for the one before.
"""

from typing import Any, NamedTuple

from lrcore.cuda._target import on_gpu
from lrcore.cuda.gemm import NARROW

CHIP_THREADS = on_gpu(64, 3)
MEMORY_THREADS = NARROW * NARROW
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
    regress: Any  # (…, goal, size, residual): ∂L/∂W of a regression, and D before it
    total: Any  # (…, columns, at_columns, losses, at): the loss of a whole target
    settle: Any  # (…, columns, at_columns, goal, ridge, parameters, point, losses, at): that of an Objective


class Goal(NamedTuple):
    """An `objective.Objective` on the device. measurements: how many rows `matrices` has; inputs: how many Σ has.

    scratch: `parts` partial sums of each measurement, all slopes, all differences, the partial sums of the ridge. Of
    a regression those of the ridge, then those of the loss, D = W − target, Σ, and room for D Σ.
    """

    weights: Any
    target: Any
    matrices: Any
    values: Any
    weight: Any
    measurements: int
    scratch: Any
    parts: int
    inputs: int
    floor: Any
