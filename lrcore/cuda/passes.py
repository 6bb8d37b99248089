"""What a step does beside products: passes over vectors, columns and rows, in the order of sums that the CPU has.

Every pass is cut into shares (`gemm.Share`), one for each thread. Offsets lead into `memory`.
"""

import math
from typing import NamedTuple

from lrcore.cuda._target import Integer, device, fma, mul_rn
from lrcore.layout import SUM_GROUP, SUM_PIECE, lanes
from lrcore.status import DIVERGED

ADD = 0
SUBTRACT = 1
OPPOSITE = 2
SCALE = 3
COPY = 4
FILL = 5
VECTORS = 4  # of partial sums in an inner product (`lrcore.cpu._sums`)


class Vector(NamedTuple):
    """Where a vector lies in the memory."""

    at: Integer
    size: Integer


class Dots(NamedTuple):
    """Inner products of `count` rows of `size` numbers, the first at `origin`, with the vector at `at` in the memory.

    num_partials partial sums of each of them go to a scratch, from `start` on.
    """

    origin: Integer
    count: Integer
    size: Integer
    at: Integer
    num_partials: Integer
    start: Integer


def partial_count(dtype):
    """How many partial sums an inner product has."""
    return VECTORS * lanes(dtype)


@device
def combine(memory, kind, count, factor, x, base, out, share):
    """out = base + factor · x (ADD, rounded once), x − base, −x, factor · x, x, or factor (FILL)."""
    p = share.first
    while p < count:
        value = memory[x + p]
        if kind == ADD:
            memory[out + p] = fma(factor, value, memory[base + p])
        elif kind == SUBTRACT:
            memory[out + p] = value - memory[base + p]
        elif kind == OPPOSITE:
            memory[out + p] = memory.dtype.type(0) - value
        elif kind == SCALE:
            memory[out + p] = mul_rn(factor, value)
        elif kind == FILL:
            memory[out + p] = factor
        else:
            memory[out + p] = value
        p += share.step


@device
def column_squares(memory, rows, columns, residual, out, share):
    """Of every column the sum of squares, rows ascending."""
    column = share.first
    while column < columns:
        total = memory.dtype.type(0)
        for row in range(rows):
            value = memory[residual + row * columns + column]
            total = fma(value, value, total)
        memory[out + column] = total
        column += share.step


@device
def entry_residuals(memory, weights, target, rows, columns, residual, out, share):
    """The product at `residual` becomes ∂L/∂W of an Objective's entries; of every column the weighted squares."""
    column = share.first
    while column < columns:
        total = memory.dtype.type(0)
        for row in range(rows):
            at = row * columns + column
            difference = memory[residual + at] - target[at]
            grad_product = mul_rn(weights[at], difference)
            memory[residual + at] = grad_product
            total = fma(grad_product, difference, total)
        memory[out + column] = total
        column += share.step


@device
def column_loss(memory, sums):
    """Half the sum of a Vector of column sums: the loss."""
    total = memory[sums.at]
    for column in range(1, sums.size):
        total += memory[sums.at + column]
    return total / memory.dtype.type(2)


@device
def partial_inner(a, first_a, b, first_b, count, num_partials, i):
    """Partial sum i of ⟨a, b⟩: of every num_partials-th element from i on, as far as there is one for each sum."""
    total = a.dtype.type(0)
    k = i
    whole = count // num_partials * num_partials
    group_end = piece_end = 0
    while k < whole:
        group = a.dtype.type(0)
        group_end = min(group_end + SUM_GROUP, whole)
        while k < group_end:
            piece = a.dtype.type(0)
            piece_end = min(piece_end + SUM_PIECE, whole)
            while k < piece_end:
                piece = fma(a[first_a + k], b[first_b + k], piece)
                k += num_partials
            group += piece
        total += group
    return total


@device
def total_inner(a, first_a, b, first_b, count, partials):
    """⟨a, b⟩ from its partial sums, which are used up, and the elements after them. partials = (array, at, how many)"""
    sums, at, num_partials = partials
    lanes = num_partials // VECTORS
    for lane in range(lanes):
        low = sums[at + lane] + sums[at + lanes + lane]
        high = sums[at + 2 * lanes + lane] + sums[at + 3 * lanes + lane]
        sums[at + lane] = low + high
    total = fold_lanes(sums, at, lanes)
    for k in range(count // num_partials * num_partials, count):
        total += mul_rn(a[first_a + k], b[first_b + k])
    return total


@device
def fold_lanes(sums, at, lanes):
    """The sum of `lanes` numbers, halves first; they are used up."""
    while lanes > 1:
        lanes //= 2
        for lane in range(lanes):
            sums[at + lane] += sums[at + lanes + lane]
    return sums[at]


@device
def apply_adjoint(memory, matrices, scratch, factors, size, count, residual, share):
    """residual = Σ_k factor_k · A_k, k ascending; the factors are at scratch[factors …]."""
    p = share.first
    while p < size:
        total = memory.dtype.type(0)
        for k in range(count):
            total = fma(scratch[factors + k], matrices[k * size + p], total)
        memory[residual + p] = total
        p += share.step


@device
def partial_dots(memory, rows, dots, scratch, share):
    """Partial sums of inner products, by `Dots`."""
    partials = dots.num_partials
    index = share.first
    while index < dots.count * partials:
        row = index // partials
        first = dots.origin + row * dots.size
        total = partial_inner(rows, first, memory, dots.at, dots.size, partials, index - row * partials)
        scratch[dots.start + index] = total
        index += share.step


@device
def measurement_residuals(memory, objective, size, residual, share):
    """From them the differences of measurements, and the derivatives of the loss by each; a `DeviceObjective`."""
    scratch = objective.scratch
    partials = objective.num_partials
    count = objective.measurements
    factors = count * partials
    k = share.first
    while k < count:
        sums = (scratch, k * partials, partials)
        measured = total_inner(objective.matrices, k * size, memory, residual, size, sums)
        difference = measured - objective.values[k]
        scratch[factors + k] = mul_rn(objective.weight, difference)
        scratch[factors + count + k] = difference
        k += share.step


@device
def product_residual(memory, target, size, residual, scratch, start, share):
    """D = W − target into the scratch, W the product at `residual`."""
    p = share.first
    while p < size:
        scratch[start + p] = memory[residual + p] - target[p]
        p += share.step


@device
def apply_covariance(memory, scratch, start, size, inputs, residual, share):
    """residual = D Σ, chains with k ascending; D and, behind it, Σ are in the scratch."""
    p = share.first
    while p < size:
        row = p // inputs
        at = start + row * inputs
        column = start + size + p - row * inputs
        total = memory.dtype.type(0)
        for k in range(inputs):
            total = fma(scratch[at + k], scratch[column + k * inputs], total)
        memory[residual + p] = total
        p += share.step


@device
def copy(memory, size, residual, scratch, start, share):
    """residual = what lies in the scratch from `start` on."""
    p = share.first
    while p < size:
        memory[residual + p] = scratch[start + p]
        p += share.step


@device
def write_loss(status, loss, losses, at):
    """Keep a loss; one that is not finite ends the run."""
    losses[at] = loss
    if not math.isfinite(loss):
        status[0] = DIVERGED


@device
def reduce_loss(memory, status, sums, objective, ridge, point, losses, at):
    """The loss of a DeviceObjective, by one thread. sums: a Vector of column sums; of a regression all of ∂L/∂W."""
    scratch = objective.scratch
    partials = objective.num_partials
    count = objective.measurements
    total = memory.dtype.type(0)
    if objective.inputs > 0:
        total = total_inner(scratch, 2 * partials, memory, sums.at, sums.size, (scratch, partials, partials))
        total = total / memory.dtype.type(2) + objective.floor
    elif count > 0:
        for k in range(count):
            total = fma(scratch[count * partials + k], scratch[count * (partials + 1) + k], total)
        total = total / memory.dtype.type(2)
    else:
        total = column_loss(memory, sums)
    if ridge != 0:
        start = count * (partials + 2)
        squares = total_inner(memory, point.at, memory, point.at, point.size, (scratch, start, partials))
        total += mul_rn(ridge, squares)
    write_loss(status, total, losses, at)
