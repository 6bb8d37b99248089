"""A whole record in one call: every part of a `lrcore.sheet.Sheet`, from the layers, their product and their gradients.

What the kernels of `decomposition` and `metrics` do one by one is done here without a way through Python in between,
which took ten times as long as the arithmetic of 8 × 8 layers. The call returns where a decomposition cannot be
certified, and goes on when LAPACK has made it.
"""

import math
from typing import NamedTuple

import numpy as np

from lrcore import formulas, layout
from lrcore.cpu._arrays import array_at, clear_rows, copy
from lrcore.cpu._sums import inner
from lrcore.cpu._target import kernel, part
from lrcore.cpu._vector import data_ptr
from lrcore.cpu.chain import loss_and_gradient, product
from lrcore.cpu.decomposition import (
    ADDRESS,
    BYTES,
    COLUMNS,
    COUNT,
    DOUBLE,
    GOOD,
    OUTCOME,
    REASONS,
    ROWS,
    Decomposition,
    Room,
    decompose_plan,
    mend,
    values_of,
    vectors_of,
)
from lrcore.cpu.decomposition import allocate as allocate_decomposition
from lrcore.cpu.metrics import balancedness, directions, mode_strengths, rank_metrics, vector_alignment
from lrcore.cpu.svd import exact_triplets
from lrcore.cpu.workspace import Workspace
from lrcore.sheet import OF_A_LAYER, OF_RANKS, PRODUCT, SIDES, Compared

OF_PARAMS, OF_PRODUCT, OF_GRADIENT, OF_SLOPE, OF_BUFFER = range(5)
SOURCE, AT, VALUES, RANKS = range(4)  # columns of Scratch.places
NOWHERE = -1
LEFT, RIGHT = np.int64(0), np.int64(1)  # sides of `vectors_of`

# Where the parts go that are not of one matrix: rows of Scratch.goals
COSINES, ANGLES, STRENGTHS, BALANCEDNESS, NEIGHBOURS, DIRECTIONS, GRADIENT_NORM, SQUARED_NORM, COST = range(9)
representation_cost = part(formulas.representation_cost)
_PARTS = (
    (("cosines", "left"), ("cosines", "right")),
    (("angles", "left"), ("angles", "right")),
    (("strengths",),),
    (("balancedness",),),
    (("neighbours",),),
    (("directions",),),
    (("gradient_norm",),),
    (("squared_norm",),),
    (("cost",),),
)
FIRST, DECOMPOSED, LAST, DONE = range(4)  # how far a record is


class Scratch(NamedTuple):
    """What a kernel needs beside a network to fill a sheet.

    goals (9, 2), int64              where parts begin, those of the left side and of the right, or NOWHERE
    places (matrices + 4, 4), int64  of each matrix of `all`: which array it lies in, OF_PARAMS …, how many numbers
                                     behind its start; where its values go and its ranks, or NOWHERE
    matrices, int64                  how many are the network's: the product first, where it is decomposed. The others
                                     are those that angles come from: of each side the cosines and the sines
    first_layer, int64               the row of W_1 among them
    forms (3,), int64                whether the product, the slope and the gradient are made here
    strengths (2, modes)             as `mode_strengths` takes them
    """

    goals: np.ndarray
    places: np.ndarray
    matrices: int
    first_layer: int
    forms: np.ndarray
    strengths: np.ndarray
    all: Decomposition
    chain: Workspace


class SheetWorkspace(NamedTuple):
    """What a sheet is filled with: `scratch`; `arrays`, those of it and of the Compared; and described (arrays, 3),
    int64, by which the kernel is told of them. To hand over forty arrays takes as long as all arithmetic of 4 × 4
    layers.
    """

    scratch: Scratch
    arrays: tuple[np.ndarray, ...]
    described: np.ndarray


def allocate(sheet, chain):
    """A SheetWorkspace for a Sheet. chain: a Workspace for its widths."""
    room = Room()
    shapes = [sheet.shape(key) for key in sheet.counts]
    places = [_place(sheet, key) for key in sheet.counts]
    for shape in _angle_shapes(sheet):
        shapes.append(shape)
        places.append((OF_BUFFER, room.take(math.prod(shape)), NOWHERE, NOWHERE))
    counts = [*sheet.counts.values(), *[0] * (len(shapes) - len(sheet.counts))]
    goals = [[_start(sheet, sides[i]) if i < len(sides) else NOWHERE for i in range(2)] for sides in _PARTS]
    scratch = Scratch(
        np.array(goals, np.int64),
        np.array(places, np.int64).reshape(-1, 4),
        len(sheet.counts),
        int(PRODUCT in sheet.counts),
        np.array([sheet.needs_product, sheet.needs_slope, sheet.needs_gradient], np.int64) * sheet.forms,
        np.zeros((2, sheet.compared.modes_left.shape[1])),
        allocate_decomposition(shapes, counts, room),
        chain,
    )
    arrays = tuple(_listed(sheet.compared, scratch))
    return SheetWorkspace(scratch, arrays, np.array([_describe(each) for each in arrays], np.int64))


def _listed(compared, scratch):
    """Everything that `_compared` and `_scratch` make again, in that order."""
    kinds = (np.float64, np.float64, np.int64, np.float64, np.float64)
    yield from (np.ascontiguousarray(each, kind) for each, kind in zip(compared[:5], kinds, strict=True))
    yield np.array([compared.numerical, compared.relative, compared.scale])
    yield from (scratch.goals, scratch.places, np.array([scratch.matrices, scratch.first_layer]), scratch.forms)
    yield from (scratch.strengths, *scratch.all)
    yield from (each for each in scratch.chain if isinstance(each, np.ndarray))


def _describe(array):
    """Its address, its rows and its columns; a vector has one row."""
    return array.ctypes.data, *(1,) * (2 - array.ndim), *array.shape


def _start(sheet, part):
    """Where a part begins."""
    return sheet.places[part].start if part in sheet.places else NOWHERE


def _place(sheet, key):
    """A row of `places` for a matrix of the network."""
    of_gradient = isinstance(key, tuple)
    i = key[1] if of_gradient else key
    source = (OF_PRODUCT, OF_SLOPE)[of_gradient] if i == PRODUCT else (OF_PARAMS, OF_GRADIENT)[of_gradient]
    at = 0 if i == PRODUCT else layout.offsets(sheet.widths)[i - 1]
    return source, at, _start(sheet, ("values", key)), _start(sheet, ("ranks", key))


def _angle_shapes(sheet):
    """Of the matrices that angles come from."""
    count = len(sheet.compared.clusters)
    if not any(("angles", side) in sheet.places for side in SIDES):
        return []
    return [shape for n in sheet.shape(PRODUCT) for shape in ((count, count), (n, count))]


def fill_sheet(sheet, point, out, work):
    """out (sheet.size,), float64: the numbers of a record of a network at a Point.

    work: workspace.allocate_sheet(sheet)
    """
    at = fill(FIRST, point, out, work.described)
    while at != DONE:
        found, matrices = work.scratch.all, work.scratch.matrices
        tried = slice(matrices) if at == DECOMPOSED else slice(matrices, None)
        sources = point.params, point.product, point.gradient, point.slope, found.buffer
        _mend(found.plan[tried], work.scratch.places[tried], sources)
        at = fill(at, point, out, work.described)


def _mend(plan, places, sources):
    """Let LAPACK decompose what was not certified."""
    for row, place in zip(plan, places, strict=True):
        if row[OUTCOME] != GOOD:
            m, n = int(row[ROWS]), int(row[COLUMNS])
            numbers = sources[place[SOURCE]].ravel()[place[AT] : place[AT] + m * n]
            double = numbers.reshape(m, n).astype(np.float64)
            mend(row, sources[OF_BUFFER], *exact_triplets(double, int(row[COUNT]), REASONS[row[OUTCOME]]))


@kernel
def fill(at, point, out, described):
    """The record from where it is, `at`, until something is to be mended or it is DONE; returns how far it is.

    described: of a SheetWorkspace, which the caller keeps
    """
    compared = _compared(described)
    work = _scratch(point.params.dtype.type(1), described[6:])
    buffer = data_ptr(work.all.buffer)
    if at == FIRST:
        _form(point, work)
        _direct_parts(point, compared, out, work)
        starts = (
            data_ptr(point.params),
            data_ptr(point.product),
            data_ptr(point.gradient),
            data_ptr(point.slope),
            buffer,
        )
        _locate(work.all.plan, work.places, starts, point.params.itemsize)
    for phase in range(at, LAST):
        plan = work.all.plan[: work.matrices]
        if phase == DECOMPOSED:
            _parts_of_triplets(point.params.dtype, point.widths.size - 1, compared, out, work)
            plan = work.all.plan[work.matrices :]
        if decompose_plan(plan, work.all.group, work.all.arrays, work.all.buffer) > 0:
            return phase + 1
    for side in range(2):
        first = work.goals[ANGLES, side]
        if first >= 0:
            _angles(work.all.plan[work.matrices + 2 * side :], out[first : first + compared.clusters.shape[0]], buffer)
    return DONE


@part
def _compared(rows):
    """The Compared that is described by the first rows."""
    numbers = _vector(rows[5], 1.0)
    return Compared(
        _table(rows[0], 1.0),
        _table(rows[1], 1.0),
        _table(rows[2], 1),
        _table(rows[3], 1.0),
        _table(rows[4], 1.0),
        numbers[0],
        numbers[1],
        numbers[2],
    )


@part
def _scratch(one, rows):
    """The Scratch that is described by the rows after those. one: a number of the dtype of the network."""
    counts = _vector(rows[2], 1)
    return Scratch(
        _table(rows[0], 1),
        _table(rows[1], 1),
        counts[0],
        counts[1],
        _vector(rows[3], 1),
        _table(rows[4], 1.0),
        Decomposition(_table(rows[5], 1), _table(rows[6], 1), _table(rows[7], 1), _vector(rows[8], 1.0)),
        _chain(one, rows[9:]),
    )


@part
def _chain(one, rows):
    """The Workspace of one thread."""
    return Workspace(
        _vector(rows[0], one),
        _vector(rows[1], one),
        _vector(rows[2], one),
        _vector(rows[3], one),
        _vector(rows[4], one),
        _vector(rows[5], one),
        _table(rows[6], one),
        _vector(rows[7], one),
        _vector(rows[8], one),
        _vector(rows[9], 1),
        _vector(rows[10], 1),
        0,
        1,
    )


@part
def _table(row, like):
    """The array that a row describes."""
    return array_at(row[0], like, (row[1], row[2]))


@part
def _vector(row, like):
    """Likewise with one dimension."""
    return array_at(row[0], like, (row[2],))


@part
def _form(point, work):
    """The product, the slope and the gradient, where they are to be made here."""
    if work.forms[0]:
        product(point.params, point.widths, point.product, work.chain)
    if work.forms[1]:
        for i in range(point.slope.shape[0]):
            for j in range(point.slope.shape[1]):
                point.slope[i, j] = point.product[i, j] - point.target[i, j]
    if work.forms[2]:
        loss_and_gradient(point.params, point.widths, point.target, point.gradient, work.chain)


@part
def _locate(plan, places, starts, itemsize):
    """Where the matrices lie."""
    for i in range(plan.shape[0]):
        size = DOUBLE if places[i, SOURCE] == OF_BUFFER else itemsize
        plan[i, ADDRESS] = starts[places[i, SOURCE]] + places[i, AT] * size
        plan[i, BYTES] = size


@part
def _direct_parts(point, compared, out, work):
    """Parts that need no decomposition."""
    params = point.params
    gradient = point.gradient
    depth = point.widths.size - 1
    goals = work.goals[:, 0]
    if goals[SQUARED_NORM] >= 0:
        out[goals[SQUARED_NORM]] = inner(params, params)
    if goals[GRADIENT_NORM] >= 0:
        out[goals[GRADIENT_NORM]] = math.sqrt(inner(gradient, gradient))
    first = goals[DIRECTIONS]
    if first >= 0:
        rows = out[first : first + depth * OF_A_LAYER].reshape((depth, OF_A_LAYER))
        directions(params, gradient, point.widths, point.step_size, rows)
    first = goals[BALANCEDNESS]
    if first >= 0:
        balancedness(params, point.widths, out[first : first + depth - 1], work.chain)
    first = goals[STRENGTHS]
    if first >= 0:
        mode_strengths(point.product, compared.modes_left, compared.modes_right, work.strengths)
        copy(work.strengths[0], out[first : first + work.strengths.shape[1]])


@part
def _parts_of_triplets(dtype, depth, compared, out, work):
    """Parts that are made of values and vectors, and the matrices that angles come from.

    Values are rounded to the dtype of the network: ranks are those of what is recorded.
    """
    buffer = data_ptr(work.all.buffer)
    plan = work.all.plan
    for i in range(work.matrices):
        values = values_of(1.0, plan[i], buffer)
        for k in range(values.size):
            values[k] = dtype.type(values[k])
        first = work.places[i, VALUES]
        if first >= 0:
            copy(values, out[first : first + values.size])
        first = work.places[i, RANKS]
        if first >= 0:
            _ranks(values, compared, out[first : first + OF_RANKS])
    if work.goals[COST, 0] >= 0:
        out[work.goals[COST, 0]] = _cost(values_of(1.0, plan[PRODUCT], buffer), compared.scale, depth)
    first = work.goals[NEIGHBOURS, 0]
    if first >= 0:
        _neighbours(plan[work.first_layer :], out[first : first + depth - 1], buffer)
    for side in range(2):
        cosines = work.goals[COSINES, side]
        angles = work.goals[ANGLES, side]
        if cosines < 0 and angles < 0:
            continue
        teacher = compared.left if side == 0 else compared.right
        vectors = vectors_of(1.0, plan[PRODUCT], side, buffer)[:, : teacher.shape[0]]
        if cosines >= 0:
            vector_alignment(vectors.T, teacher, compared.clusters, out[cosines : cosines + compared.clusters.shape[0]])
        if angles >= 0:
            _compare(vectors, teacher, plan[work.matrices + 2 * side :])


@part
def _ranks(values, compared, out):
    """The ranks. All are NaN where a value is: counts of what is above a threshold, too, which would be 0 there."""
    for k in range(out.size):
        out[k] = np.nan
    for value in values:
        if not np.isfinite(value):
            return
    rank_metrics(values, compared.numerical, compared.relative, out)


@part
def _cost(values, scale, depth):
    """The representation cost of the product of the layers, which is that of the network but for its scale."""
    return representation_cost(values, depth) / scale ** (2 / depth)


@part
def _neighbours(layers, out, buffer):
    """|⟨u_1(W_i), v_1(W_{i+1})⟩| of every layer that has one above it. layers: their rows of the plan."""
    for i in range(out.size):
        below = vectors_of(1.0, layers[i], LEFT, buffer)
        above = vectors_of(1.0, layers[i + 1], RIGHT, buffer)
        out[i] = abs(inner(below[0], above[0]))


@part
def _compare(vectors, teacher, rows):
    """With columns a = vectorsᵀ and as many columns b of the teacher: c = aᵀ b, and what is left, b − a c.

    rows: of the plan, for these two matrices.
    """
    count = vectors.shape[0]
    cosines = array_at(rows[0, ADDRESS], 1.0, (count, count))
    rest = array_at(rows[1, ADDRESS], 1.0, (teacher.shape[0], count))
    clear_rows(cosines, 0, count)
    for r in range(teacher.shape[0]):
        for i in range(count):
            for j in range(count):
                cosines[i, j] += vectors[i, r] * teacher[r, j]
    for r in range(teacher.shape[0]):
        for j in range(count):
            rest[r, j] = teacher[r, j]
        for i in range(count):
            for j in range(count):
                rest[r, j] -= vectors[i, r] * cosines[i, j]


@part
def _angles(rows, out, buffer):
    """Small angles from their sines, large ones from their cosines: see `svd.principal_angles`. rows: of the plan."""
    cosines = values_of(1.0, rows[0], buffer)
    sines = values_of(1.0, rows[1], buffer)
    for i in range(out.size):
        cosine = np.minimum(cosines[i], 1.0)
        sine = np.minimum(sines[out.size - 1 - i], 1.0)
        out[i] = math.asin(sine) if cosine * cosine >= 0.5 else math.acos(cosine)
