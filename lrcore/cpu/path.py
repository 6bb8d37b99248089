"""How far points are from a path: the polygonal line through the rows of an array.

Nothing is compared that need not be. Where a point is D away from row j and d from something else, all segments that
end less than D − d further along the path are passed over. Most rows are given up after the first part of the sum D²,
and a segment whose ends are near is compared only where it could be nearer by the lengths of the three sides. The
search begins where the nearest of the point before was, so that d is small at once.

Whatever is passed over is farther than what was found by more than rounding; everything else is compared, its position
included. So the result depends on the data alone: not on the order of the search, nor on how the path is cut.

Bits: distances come from difference vectors (D² − ⟨·,·⟩²/‖·‖² would cancel), as sums of FMAs in the lanes of one
vector, in an order that depends on the length of a row alone. Below the kernel, points and ends of segments are
addresses, and sizes are those of a row in bytes.
"""

import math

import numpy as np

from lrcore.cpu._lanes import fma_lanes, load_lanes, splat_lanes, subtract_lanes, sum_lanes, zero_lanes
from lrcore.cpu._target import kernel
from lrcore.cpu._vector import data_ptr, fma, load
from lrcore.layout import LANE_BYTES

UNIT = np.int64(LANE_BYTES)
ZERO = np.float64(0)
EACH = np.int64(8)  # bytes of a number
PARTS = 8  # of a sum that is given up when it is large enough
FURTHER = 4.0  # times what a sum needs to pass over one segment, so that it mostly passes over more
UNKNOWN = -1.0
CERTAIN = 1 - 1e-9  # times a distance: less by more than rounding, for rows of up to a million entries


@kernel
def nearest_on_path(points, path, offset, best, positions, lengths):
    """The smallest squared distance of every point from the path, and where that is.

    points (A, M), path (B, M): C-ordered, float64. Consecutive rows of `path` are joined by segments; what is nearest
    lies within one or at an end of one. Both results (A,) change only where this piece of a path is nearer than what
    was found before: best, squared distances, inf at first; positions, `offset` + row + fraction of the way to the next
    row, of equally near ones the smallest. lengths (B,) is scratch.

    Pieces of a path share one row each; `offset` is the number of a piece's first row. A row with an entry that is not
    finite is no part of the path, which has a gap there; a point with such an entry has the distance NaN.
    """
    _measure(path, lengths)
    size = path.shape[1] * path.itemsize
    hint = 0
    rows = data_ptr(path), size, lengths
    for i in range(points.shape[0]):
        if _is_finite(points[i]):
            nearest = best[i], positions[i]
            best[i], positions[i], hint = _search(data_ptr(points) + i * size, rows, offset, nearest, hint)
        else:
            best[i] = positions[i] = np.nan


@kernel
def _measure(path, lengths):
    """The length of the segment behind each row: 0 for the last one, inf where there is a gap."""
    size = path.shape[1] * path.itemsize
    last = path.shape[0] - 1
    for j in range(last):
        row = data_ptr(path) + j * size
        length = math.sqrt(_apart(row, row + size, size, np.inf))
        lengths[j] = length if length < np.inf else np.inf
    lengths[last] = 0 if _is_finite(path[last]) else np.inf


@kernel
def _is_finite(row):
    total = 0.0
    for k in range(row.size):
        total += 0 * row[k]  # NaN for what is not finite
    return total == 0


@kernel
def _search(point, rows, offset, nearest, hint):
    """(squared distance, position, row) of what is nearest to one point: `nearest`, or something in these rows."""
    path, size, lengths = rows
    near, position = _compare(point, rows, hint, offset, nearest)
    j = 0
    here = UNKNOWN
    last = lengths.size - 1
    while j <= last:
        known = math.sqrt(near)
        if here == UNKNOWN:
            limit = FURTHER * (known + lengths[j]) * (known + lengths[j])
            here = _apart(point, path + j * size, size, limit)
        reach = CERTAIN * math.sqrt(here) - known
        if reach > lengths[j]:
            while j <= last and reach > lengths[j]:
                reach -= lengths[j]
                j += 1
            here = UNKNOWN
            continue
        same = j == last or lengths[j] == 0
        there = here if same else _apart(point, path + (j + 1) * size, size, np.inf)
        if not (_least(here, there, lengths[j]) > near or _repeats(lengths, j)):
            before = position
            near, position = _compare(point, rows, j, offset, (near, position))
            hint = hint if position == before else j
        j = j + 1
        here = there
    return near, position, hint


@kernel
def _least(here, there, length):
    """Less than the squared distance from a segment, from the squared distances `here` and `there` from its ends.

    This cancels where the segment is near; what rounding makes of that is taken off. NaN where nothing is known.
    """
    along = min(max((here + length * length - there) / (2 * length), 0.0), length)
    return here - along * along - (1 - CERTAIN) * (here + there)


@kernel
def _repeats(lengths, j):
    """Whether the segment behind row j is the one before it again: without length, so the earlier one is as near."""
    return j > 0 and lengths[j] == 0 and lengths[j - 1] == 0


@kernel
def _compare(point, rows, j, offset, nearest):
    """(squared distance, position): `nearest`, or the segment behind row j if nearer, or as near but earlier."""
    path, size, lengths = rows
    start = path + j * size
    end = start if j + 1 == lengths.size or lengths[j] == np.inf else start + size
    t = _fraction(point, start, end, size)
    # the distance from a row must be the same at the end of one segment and at the beginning of the next
    distance = _gap(point, start, end, t, size) if t < 1 else _gap(point, end, start, ZERO, size)
    position = (offset + j) + t
    if distance < nearest[0] or (distance == nearest[0] and position < nearest[1]):
        return distance, position
    return nearest


@kernel
def _fraction(point, start, end, size):
    """Where between start (0) and end (1) the point is projected to."""
    along = zero_lanes(ZERO)
    length = zero_lanes(ZERO)
    whole = size // UNIT * UNIT
    for at in range(0, whole, UNIT):
        origin = load_lanes(ZERO, start + at)
        step = subtract_lanes(load_lanes(ZERO, end + at), origin)
        along = fma_lanes(subtract_lanes(load_lanes(ZERO, point + at), origin), step, along)
        length = fma_lanes(step, step, length)
    product = sum_lanes(along)
    square = sum_lanes(length)
    for at in range(whole, size, EACH):
        origin = load(start + at, ZERO)
        step = load(end + at, ZERO) - origin
        product = fma(load(point + at, ZERO) - origin, step, product)
        square = fma(step, step, square)
    return min(product / square, 1.0) if product > 0 else 0.0


@kernel
def _gap(point, start, end, t, size):
    """‖point − start − t (end − start)‖²."""
    total = zero_lanes(ZERO)
    back = splat_lanes(-t)
    whole = size // UNIT * UNIT
    for at in range(0, whole, UNIT):
        origin = load_lanes(ZERO, start + at)
        step = subtract_lanes(load_lanes(ZERO, end + at), origin)
        gap = fma_lanes(back, step, subtract_lanes(load_lanes(ZERO, point + at), origin))
        total = fma_lanes(gap, gap, total)
    square = sum_lanes(total)
    for at in range(whole, size, EACH):
        origin = load(start + at, ZERO)
        gap = fma(-t, load(end + at, ZERO) - origin, load(point + at, ZERO) - origin)
        square = fma(gap, gap, square)
    return square


@kernel
def _apart(a, b, size, limit):
    """‖a − b‖², or the sum of its first terms as soon as that is above `limit`."""
    whole = size // UNIT * UNIT
    square = ZERO
    part = (whole // (PARTS * UNIT) + 1) * UNIT
    for first in range(0, whole, part):
        total = zero_lanes(ZERO)
        for at in range(first, min(first + part, whole), UNIT):
            gap = subtract_lanes(load_lanes(ZERO, a + at), load_lanes(ZERO, b + at))
            total = fma_lanes(gap, gap, total)
        square += sum_lanes(total)
        if square > limit:
            return square
    for at in range(whole, size, EACH):
        gap = load(a + at, ZERO) - load(b + at, ZERO)
        square = fma(gap, gap, square)
    return square
