"""Distances between the paths that products of runs take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from lrbias.errors import check
from lrbias.runs import Run
from lrbias.runs import open as open_run
from lrbias.system import usual_errors
from lrcore import cpu

MATRIX = "product/matrix"
PIECE_BYTES = 1 << 25  # of each of two runs that is in memory at a time


@usual_errors
def trajectory_distance(run: Run, reference: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(t, distances, nearest t'): at each record of `run`, how far its product is from the trajectory of `reference`.

    run, reference   Runs or their paths, which recorded product/matrix: `Record(metrics={"product": 10, …})`
    t                (A,) step size · iteration at the records of `run`
    distances        (A,) min_t' ‖W(t) − W_ref(t')‖_F, t' up to the last record of the reference, whose products are
                     joined linearly from record to record; NaN where W is not finite
    nearest t'       (A,) where that is, in the time of the reference; of equally near times the earliest

    Nothing is taken at equal times, so runs are compared that go the same way, one faster than the other. Raises
    InvalidInput where a run has no record of product/matrix, or their targets differ in shape.
    """
    run, reference = _with_products(run, "run"), _with_products(reference, "reference")
    accepted = f"a run with a target of shape {run.target.shape}, as the other one has"
    check(run.target.shape == reference.target.shape, "reference", _shown(reference), accepted)
    distances, places = _nearest(run, reference)
    times = reference.steps_of(MATRIX) * reference.step_size
    return run.steps_of(MATRIX) * run.step_size, distances, np.interp(places, np.arange(len(times)), times)


def _with_products(run: Any, argument: str) -> Run:
    check(isinstance(run, (Run, str, os.PathLike)), argument, run, "a Run or the path of one")
    run = run if isinstance(run, Run) else open_run(run)
    check(has_products(run), argument, _shown(run), f"a run that recorded {MATRIX}, the metric product")
    return run


def has_products(run: Run) -> bool:
    return MATRIX in run and run.rows(MATRIX, 0, 1).shape == (1, *run.target.shape)


def _nearest(run: Run, reference: Run) -> tuple[np.ndarray, np.ndarray]:
    """(distances, places in rows of the reference) of all products of `run`."""
    count = len(run.steps_of(MATRIX))
    squares = np.full(count, np.inf)
    places = np.zeros(count)
    for first, points in _pieces(run, shared=0):
        part = slice(first, first + len(points))
        for offset, path in _pieces(reference, shared=1):
            cpu.nearest_on_path(points, path, offset, squares[part], places[part], np.empty(len(path)))
    return np.sqrt(squares), places


def _pieces(run: Run, shared: int) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first row, products as vectors) of pieces that share so many rows with the one before."""
    count = len(run.steps_of(MATRIX))
    size = max(PIECE_BYTES // (8 * run.target.size), 2)
    for first in range(0, max(count - shared, 1), size - shared):
        rows = run.rows(MATRIX, first, first + size)
        yield first, np.ascontiguousarray(rows.reshape(len(rows), -1), np.float64)


def _shown(run: Run) -> str:
    return str(run.path or run.label)
