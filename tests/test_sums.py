"""Sums over long vectors: as right as a short one's, in an order that the length alone decides, here and on a GPU."""

import math

import numpy as np
import pytest

from lrcore import layout
from lrcore.cpu._sums import inner, squares

LONG = 9_000_000


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_long_sums_are_as_right_as_short_ones(rng, dtype):
    x = (0.1 + 0.01 * rng.random(LONG)).astype(dtype)  # of one sign: rounding does not cancel
    exact = math.fsum(np.square(x, dtype=np.float64))
    one = dtype(1)
    few = float(16 * np.finfo(dtype).eps)
    assert inner(x, x) == pytest.approx(exact, rel=few)
    assert squares(one, x, dtype(0), x) == pytest.approx(exact, rel=few)


def _inner(a, b, part_count, piece, group):
    """⟨a, b⟩ in the order of `inner`, where products are exact: piece by piece, group by group."""
    products = (a * b).reshape(-1, part_count)
    groups = []
    for start in range(0, len(products), group // part_count):
        one = products[start : start + group // part_count]
        pieces = [_chain(one[at : at + piece // part_count]) for at in range(0, len(one), piece // part_count)]
        groups.append(_chain(pieces))
    return _chain(groups)


def _chain(rows):
    """The sum of rows, one after the other from 0."""
    rows = np.asarray(rows)
    return np.add.accumulate(np.concatenate([np.zeros_like(rows[:1]), rows]))[-1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_order_of_a_long_sum(rng, dtype):
    parts = 4 * layout.lanes(dtype)
    size = (layout.SUM_GROUP + 3 * layout.SUM_PIECE) // parts * parts + 5 * parts
    a, b = (rng.integers(1, 1000, size).astype(dtype) / dtype(1024) for _ in range(2))
    sums = _inner(a, b, parts, layout.SUM_PIECE, layout.SUM_GROUP).reshape(4, -1)
    row = (sums[0] + sums[1]) + (sums[2] + sums[3])
    while row.size > 1:
        row = row[: row.size // 2] + row[row.size // 2 :]
    assert inner(a, b) == row[0]


def test_the_order_of_a_long_sum_on_a_gpu(gpu, rng, monkeypatch):
    """Of one partial sum, with pieces that the simulator has time for."""
    from lrcore.cuda import _target, passes

    if not _target.SIMULATED:
        pytest.skip("calls a function of the device, which only the simulator has in Python")
    parts = 64
    piece = 4 * 64
    group = 16 * 64
    monkeypatch.setattr(passes, "SUM_PIECE", piece)
    monkeypatch.setattr(passes, "SUM_GROUP", group)
    a, b = (rng.integers(1, 1000, 40 * parts).astype(np.float32) / np.float32(1024) for _ in range(2))
    expected = _inner(a, b, parts, piece, group)
    found = [passes.partial_inner(a, 0, b, 0, a.size + 3, parts, part) for part in range(parts)]
    assert np.array_equal(found, expected)
