"""What a step does beside products: passes over vectors, columns and rows, in the order of sums that the CPU has.

Every pass is cut into shares: `first`, `first + step`, … are what a thread makes. Offsets lead into `memory`.
"""

import math

from lrcore.cuda._target import device, fma, times
from lrcore.layout import SUM_GROUP, SUM_PIECE, lanes
from lrcore.status import DIVERGED

ADD = 0
SUBTRACT = 1
OPPOSITE = 2
SCALE = 3
COPY = 4
FILL = 5
VECTORS = 4  # of partial sums in an inner product (`lrcore.cpu._sums`)


def part_count(dtype):
    """How many partial sums an inner product has."""
    return VECTORS * lanes(dtype)


@device
def combine_part(memory, kind, count, factor, x, base, out, first, step):
    """out = base + factor · x (ADD, rounded once), x − base, −x, factor · x, x, or factor (FILL)."""
    p = first
    while p < count:
        value = memory[x + p]
        if kind == ADD:
            memory[out + p] = fma(factor, value, memory[base + p])
        elif kind == SUBTRACT:
            memory[out + p] = value - memory[base + p]
        elif kind == OPPOSITE:
            memory[out + p] = memory.dtype.type(0) - value
        elif kind == SCALE:
            memory[out + p] = times(factor, value)
        elif kind == FILL:
            memory[out + p] = factor
        else:
            memory[out + p] = value
        p += step


@device
def square_part(memory, rows, columns, residual, out, first, step):
    """Of every column the sum of squares, rows ascending."""
    column = first
    while column < columns:
        total = memory.dtype.type(0)
        for row in range(rows):
            value = memory[residual + row * columns + column]
            total = fma(value, value, total)
        memory[out + column] = total
        column += step


@device
def compare_part(memory, weights, target, rows, columns, residual, out, first, step):
    """The product at `residual` becomes ∂L/∂W of an Objective's entries; of every column the weighted squares."""
    column = first
    while column < columns:
        total = memory.dtype.type(0)
        for row in range(rows):
            at = row * columns + column
            difference = memory[residual + at] - target[at]
            slope = times(weights[at], difference)
            memory[residual + at] = slope
            total = fma(slope, difference, total)
        memory[out + column] = total
        column += step


@device
def column_total(memory, columns, at):
    """Half the sum over the columns: the loss."""
    total = memory[at]
    for column in range(1, columns):
        total += memory[at + column]
    return total / memory.dtype.type(2)


@device
def inner_part(a, first_a, b, first_b, count, parts, part):
    """One of the partial sums of ⟨a, b⟩: of every parts-th element from `part` on, as far as they are all whole."""
    total = a.dtype.type(0)
    k = part
    whole = count // parts * parts
    group_end = piece_end = 0
    while k < whole:
        group = a.dtype.type(0)
        group_end = min(group_end + SUM_GROUP, whole)
        while k < group_end:
            piece = a.dtype.type(0)
            piece_end = min(piece_end + SUM_PIECE, whole)
            while k < piece_end:
                piece = fma(a[first_a + k], b[first_b + k], piece)
                k += parts
            group += piece
        total += group
    return total


@device
def inner_total(a, first_a, b, first_b, count, sums, at, parts):
    """⟨a, b⟩ from its partial sums at sums[at …], which are used up, and the elements after them."""
    lanes = parts // VECTORS
    for lane in range(lanes):
        low = sums[at + lane] + sums[at + lanes + lane]
        high = sums[at + 2 * lanes + lane] + sums[at + 3 * lanes + lane]
        sums[at + lane] = low + high
    total = fold_lanes(sums, at, lanes)
    for k in range(count // parts * parts, count):
        total += times(a[first_a + k], b[first_b + k])
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
def measured_slope_part(memory, matrices, scratch, slopes, size, count, residual, first, step):
    """residual = Σ_k slope_k · A_k, k ascending; the slopes are at scratch[slopes …]."""
    p = first
    while p < size:
        total = memory.dtype.type(0)
        for k in range(count):
            total = fma(scratch[slopes + k], matrices[k * size + p], total)
        memory[residual + p] = total
        p += step


@device
def project_part(memory, rows, origin, count, size, at, scratch, parts, start, first, step):
    """Partial sums of the inner products of `count` rows with what lies at `at`."""
    place = first
    while place < count * parts:
        row = place // parts
        part = place - row * parts
        scratch[start + place] = inner_part(rows, origin + row * size, memory, at, size, parts, part)
        place += step


@device
def differ_part(memory, goal, size, residual, first, step):
    """From them the differences of measurements, and the slopes of the loss; goal: a `machines.Goal`."""
    parts = goal.parts
    k = first
    slopes = goal.measurements * parts
    while k < goal.measurements:
        found = inner_total(goal.matrices, k * size, memory, residual, size, goal.scratch, k * parts, parts)
        difference = found - goal.values[k]
        goal.scratch[slopes + k] = times(goal.weight, difference)
        goal.scratch[slopes + goal.measurements + k] = difference
        k += step


@device
def miss_part(memory, target, size, residual, scratch, start, first, step):
    """D = W − target into the scratch, W the product at `residual`."""
    p = first
    while p < size:
        scratch[start + p] = memory[residual + p] - target[p]
        p += step


@device
def regress_part(memory, scratch, start, size, inputs, residual, first, step):
    """residual = D Σ, chains with k ascending; D and, behind it, Σ are in the scratch."""
    p = first
    while p < size:
        row = p // inputs
        at = start + row * inputs
        column = start + size + p - row * inputs
        total = memory.dtype.type(0)
        for k in range(inputs):
            total = fma(scratch[at + k], scratch[column + k * inputs], total)
        memory[residual + p] = total
        p += step


@device
def take_part(memory, size, residual, scratch, start, first, step):
    """residual = what lies in the scratch from `start` on."""
    p = first
    while p < size:
        memory[residual + p] = scratch[start + p]
        p += step


@device
def tell(status, loss, losses, at):
    """Keep a loss; one that is not finite ends the run."""
    losses[at] = loss
    if not math.isfinite(loss):
        status[0] = DIVERGED


@device
def settle_part(memory, status, columns, at_columns, goal, ridge, parameters, point, losses, at):
    """The loss of an Objective, by one thread. Of a regression the columns are all numbers of ∂L/∂W."""
    parts, count = goal.parts, goal.measurements
    total = memory.dtype.type(0)
    if goal.inputs > 0:
        total = inner_total(goal.scratch, 2 * parts, memory, at_columns, columns, goal.scratch, parts, parts)
        total = total / memory.dtype.type(2) + goal.floor
    elif count > 0:
        for k in range(count):
            total = fma(goal.scratch[count * parts + k], goal.scratch[count * (parts + 1) + k], total)
        total = total / memory.dtype.type(2)
    else:
        total = column_total(memory, columns, at_columns)
    if ridge != 0:
        sums = count * (parts + 2)
        total += times(ridge, inner_total(memory, point, memory, point, parameters, goal.scratch, sums, parts))
    tell(status, total, losses, at)
