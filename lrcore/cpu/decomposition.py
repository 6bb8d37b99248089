"""Singular values of several matrices and leading vectors of some, in one call that stays out of Python.

`plan` has a row for each matrix. Where it lies is written there before a call, what became of it after. All of it is
in float64, whatever the matrices have, and compiled once for everyone who asks: `svd.spectra`, `sheet`.
"""

import math
from typing import NamedTuple

import numpy as np

from lrcore import layout
from lrcore.cpu._arrays import array_at, clear
from lrcore.cpu._target import kernel, part, standalone
from lrcore.cpu._vector import data_ptr, load
from lrcore.cpu.bidiagonal import bidiagonalize
from lrcore.cpu.inertia import proven_values
from lrcore.cpu.qds import LANES
from lrcore.cpu.twisted import leading_vectors
from lrcore.cpu.workspace import SHARED, LanesWorkspace, ReductionWorkspace, lanes_shapes, reduction_shapes

LARGEST = 800  # shorter side; up to here it was measured to be faster than LAPACK, whose reduction is blocked
PROVEN = 3e-14  # of σ_1: the largest error of values that is accepted; up to a size of 800 it was below 4e-15
CERTAIN = 1e-10  # the largest error of vectors that is accepted; orthogonality and residual are mostly below 1e-13

# Columns of a plan
#   ADDRESS, BYTES  where the matrix lies, and the size of its numbers
#   ROWS, COLUMNS   its shape
#   COUNT           how many of its vectors are wanted
#   VALUES          where in the buffer its values are found
#   COPY            where there is room for it in float64; all matrices share that
#   OUTCOME         what became of it, one of GOOD …
#   ARRAYS on       the arrays of its ReductionWorkspace, as `_room_for` gives them
ADDRESS, BYTES, ROWS, COLUMNS, COUNT, VALUES, COPY, OUTCOME, ARRAYS = range(9)
GOOD, REDUCTION, CONVERGENCE, PROOF, VECTORS, SIZE = range(6)
REASONS = ("", "reduction", "convergence", "proof", "vectors", "size")  # as `svd.lapack_calls` counts them
U, V = 9, 10  # the numbers of these arrays in a ReductionWorkspace
DOUBLE = 8  # bytes
SINGLE = np.float32(1)


class Decomposition(NamedTuple):
    """Scratch for `decompose`.

    plan    (matrices, ·), int64   see above
    group   (2, LANES), int64      of the matrices in the lanes: their sizes, their rows in the plan
    arrays  (7, 3), int64          those of a LanesWorkspace, and what the matrices in the lanes were divided by
    buffer                         all of these arrays
    """

    plan: np.ndarray
    group: np.ndarray
    arrays: np.ndarray
    buffer: np.ndarray


class Room:
    """What of a buffer is taken: whole lines of the cache each time, since vectors are loaded from there."""

    def __init__(self):
        self.size = 0

    def take(self, size):
        """Where the next `size` numbers begin."""
        first = self.size
        self.size += -(-size // LANES) * LANES
        return first


def allocate(shapes, counts, room=None):
    """A Decomposition of matrices of `shapes`, of which each has so many vectors; `room`: what else is in its buffer.

    What is not needed once a matrix is reduced is shared with those of the same shape.
    """
    room = room or Room()
    plan = np.zeros((len(shapes), ARRAYS + 3 * len(ReductionWorkspace._fields)), np.int64)
    copy = room.take(max((m * n for m, n in shapes), default=0))
    shared = {}
    for row, (m, n), count in zip(plan, shapes, counts, strict=True):
        outcome = SIZE if min(m, n) > LARGEST else GOOD
        arrays = []
        for i, shape in enumerate(reduction_shapes((m, n), count)):
            key = (max(m, n), min(m, n), i) if i < SHARED else None
            if key not in shared or key is None:
                shared[key] = _room_for(shape, room)
            arrays += shared[key]
        row[:] = 0, 0, m, n, count, room.take(min(m, n)), copy, outcome, *arrays
    largest = max((min(shape) for shape in shapes), default=1)
    lanes = np.array([_room_for(shape, room) for shape in (*lanes_shapes(largest), (LANES,))], np.int64)
    buffer = layout.aligned(room.size, np.float64)
    buffer[...] = 0
    return Decomposition(plan, np.zeros((2, LANES), np.int64), lanes, buffer)


def _room_for(shape, room):
    """Where in the buffer there is room for an array, its rows and its columns; a vector has one row."""
    return room.take(math.prod(shape)), *(1,) * (2 - len(shape)), *shape


def mend(row, buffer, left, values, right):
    """Put triplets from elsewhere where those of a row of a plan are looked for."""
    buffer[row[VALUES] : row[VALUES] + len(values)] = values
    upright = row[ROWS] >= row[COLUMNS]
    for number, vectors in ((U, left if upright else right), (V, right if upright else left)):
        array(row, number, buffer)[:, : len(vectors)] = vectors.T


def array(row, number, buffer):
    """One of the arrays of a ReductionWorkspace, as a view of the buffer."""
    first, rows, columns = (int(n) for n in row[ARRAYS + 3 * number :][:3])
    return buffer[first : first + rows * columns].reshape(rows, columns)


@kernel
def decompose(work):
    """Values and vectors of all matrices of work.plan into the buffer; how many of them could not be certified."""
    return decompose_plan(work.plan, work.group, work.arrays, work.buffer)


@part
def decompose_plan(plan, group, arrays, buffer):
    """`decompose` of one of several plans that have these in common."""
    _decompose(1.0, data_ptr(plan), plan.shape[0], plan.shape[1], data_ptr(group), data_ptr(arrays), data_ptr(buffer))
    refused = 0
    for i in range(plan.shape[0]):
        refused += plan[i, OUTCOME] != GOOD
    return refused


@standalone(0)
def _decompose(one, plan_ptr, matrices, width, group_ptr, arrays_ptr, buffer):
    plan = array_at(plan_ptr, matrices, (matrices, width))
    group = array_at(group_ptr, matrices, (2, LANES))
    arrays = array_at(arrays_ptr, matrices, (7, 3))
    lanes = _lanes(one, arrays, buffer)
    scales = _vector(one, arrays[6], buffer)
    sizes = group[0]
    i = 0
    while i < matrices:
        used = np.int64(0)  # the type of a literal 0 would make Numba compile `bidiagonalize` once more
        clear(sizes)
        while i < matrices and used < LANES:
            row = plan[i]
            if row[OUTCOME] != SIZE:
                scales[used] = bidiagonalize(_matrix(one, row, buffer), _reduction(one, row, buffer), used, lanes)
                sizes[used] = min(row[ROWS], row[COLUMNS]) if np.isfinite(scales[used]) else 0
                group[1, used] = i
                used += 1
            i += 1
        unconverged, unproven = proven_values(sizes, PROVEN, lanes)
        for lane in range(used):
            row = plan[group[1, lane]]
            row[OUTCOME] = _outcome(sizes[lane], unconverged >> lane & 1, unproven >> lane & 1)
            if row[OUTCOME] == GOOD:
                row[OUTCOME] = _finish(one, row, lane, scales[lane], buffer, lanes)


@part
def _outcome(size, unconverged, unproven):
    """What became of a matrix up to its values. size: 0 where it could not be reduced."""
    if size == 0:
        return REDUCTION
    if unconverged:
        return CONVERGENCE
    return PROOF if unproven else GOOD


@part
def _finish(one, row, lane, scale, buffer, lanes):
    """Values from the lanes to their place, and the vectors that are wanted; returns GOOD or VECTORS."""
    values = values_of(one, row, buffer)
    for k in range(values.size):
        values[k] = lanes.values[k, lane]
    outcome = GOOD
    if row[COUNT] > 0 and (scale == 0 or not leading_vectors(values, CERTAIN, _reduction(one, row, buffer), lanes)):
        outcome = VECTORS
    for k in range(values.size):
        values[k] *= scale
    return outcome


@part
def _matrix(one, row, buffer):
    """The matrix of a row, in float64."""
    place = row[ADDRESS]
    size = row[ROWS] * row[COLUMNS]
    if row[BYTES] != DOUBLE:
        place = buffer + row[COPY] * DOUBLE
        copy = array_at(place, one, (size,))
        for k in range(size):
            copy[k] = load(row[ADDRESS] + k * row[BYTES], SINGLE)
    return array_at(place, one, (row[ROWS], row[COLUMNS]))


@part
def values_of(one, row, buffer):
    """The values of a row. Here as below `one` is 1.0, and buffer an address."""
    return array_at(buffer + row[VALUES] * DOUBLE, one, (min(row[ROWS], row[COLUMNS]),))


@part
def vectors_of(one, row, side, buffer):
    """The left singular vectors of a row (side 0) or the right ones (side 1), a row each, and 0 beyond their length."""
    upright = row[ROWS] >= row[COLUMNS]
    number = U if upright == (side == 0) else V
    return _table(one, row[ARRAYS + 3 * number :], buffer)


@part
def _reduction(one, row, buffer):
    """The ReductionWorkspace of a row."""
    arrays = row[ARRAYS:]
    return ReductionWorkspace(
        _table(one, arrays, buffer),
        _vector(one, arrays[3:], buffer),
        _vector(one, arrays[6:], buffer),
        _table(one, arrays[9:], buffer),
        _table(one, arrays[12:], buffer),
        _table(one, arrays[15:], buffer),
        _table(one, arrays[18:], buffer),
        _vector(one, arrays[21:], buffer),
        _vector(one, arrays[24:], buffer),
        _table(one, arrays[27:], buffer),
        _table(one, arrays[30:], buffer),
    )


@part
def _lanes(one, arrays, buffer):
    """The LanesWorkspace."""
    return LanesWorkspace(
        _table(one, arrays[0], buffer),
        _table(one, arrays[1], buffer),
        _table(one, arrays[2], buffer),
        _table(one, arrays[3], buffer),
        _table(one, arrays[4], buffer),
        _table(one, arrays[5], buffer),
    )


@part
def _table(one, described, buffer):
    """The array that begins so far into the buffer."""
    return array_at(buffer + described[0] * DOUBLE, one, (described[1], described[2]))


@part
def _vector(one, described, buffer):
    """Likewise with one dimension."""
    return array_at(buffer + described[0] * DOUBLE, one, (described[2],))
