"""The few numbers that are kept of each run of an ensemble at every record."""

import itertools

import numpy as np

from lrbias.events import FLOOR, first_rank, next_rank
from lrbias.metrics import NONE
from lrbias.sweeps._ensemble_data import TEST_ERROR
from lrbias.training import Recorder
from lrcore import layout


class EnsembleRecorder(Recorder):
    """Ranks, errors and sets of runs that are trained together.

    task  what an ensemble trains, with lists of problems; part: the places of these runs in them
    """

    def __init__(self, task, part, stepper):
        self._task = task
        self._stepper = stepper
        self.intervals = self.marks = [task.every]
        self._problems = [task.problems[i] for i in part]
        self._shared = all(problem is self._problems[0] for problem in self._problems)
        self._floor = FLOOR * np.array([[problem.svd.values[0]] for problem in self._problems])
        runs = len(part)
        rows = task.steps // task.every + 1
        self._ranks, self._absorbing = (np.zeros((runs, rows), np.int16) for _ in range(2))
        self._errors = {name: np.full((runs, rows), np.nan, np.float32) for name in ("train", "test")}
        self._ended = np.full(runs, task.steps)
        self._active = np.ones(runs, bool)

    def note(self, step, losses):
        active = self._stepper.active
        self._ended[self._active & ~active] = step + len(losses)
        self._active = active

    def record(self, step):
        """Ranks, errors and sets at this step; what has diverged keeps its rank and is in no set."""
        row = step // self._task.every
        active = self._active
        layers = _layers(np.where(active[:, None], self._stepper.params, 0), self._stepper.widths)
        with np.errstate(all="ignore"):  # on its way to divergence a product may not be finite
            product = layers[0]
            for layer in layers[1:]:
                product = layer @ product
            balancedness = _balancedness(layers)
            errors = self._errors_of(product)
        self._values = _singular_values(product)
        self._ranks[:, row] = self._rank(row)
        inside = self._task.sets.rank([_singular_values(layer) for layer in layers], balancedness)
        self._absorbing[:, row] = np.where(active, inside, NONE)
        for name, found in errors.items():
            self._errors[name][:, row] = np.where(active, found, np.nan)

    def _rank(self, row):
        """(runs,): with the hysteresis of `lb.jumps`."""
        lower = self._task.lower
        upper = self._task.upper
        if row == 0:
            return first_rank(self._values, lower, self._floor)
        before = self._ranks[:, row - 1]
        now = next_rank(before, self._values, lower, upper, self._floor)
        return np.where(self._active, now, before)

    def _errors_of(self, product):
        if self._shared:
            return {name: found.astype(np.float32) for name, found in self._problems[0].errors(product).items()}
        each = [problem.errors(own) for problem, own in zip(self._problems, product, strict=True)]
        return {name: np.array([found[name] for found in each], np.float32) for name in each[0]}

    def found(self):
        """What was recorded, {name: array}, a row for each run."""
        return {
            "ranks": self._ranks,
            "absorbing": self._absorbing,
            "train_error": self._errors["train"],
            TEST_ERROR: self._errors["test"],
            "diverged": ~self._active,
            "ended": self._ended,
            "values": self._values,
            "params": self._stepper.params,
        }


def _layers(params, widths):
    """Views (R, n_i, n_{i−1}) of the layers of R networks, W_1 first."""
    starts = layout.offsets(widths)
    return [
        params[:, a:b].reshape(-1, *shape)
        for a, b, shape in zip(starts, starts[1:], layout.shapes(widths), strict=False)
    ]


def _singular_values(matrices):
    """(R, k) of R matrices; NaN for one that is not finite, which LAPACK would raise an error for."""
    finite = np.isfinite(matrices).all(axis=(-2, -1))
    values = np.linalg.svd(np.where(finite[:, None, None], matrices, 0), compute_uv=False)
    return np.where(finite[:, None], values, np.nan)


def _balancedness(layers):
    """(R, N − 1): ‖W_{i+1}ᵀ W_{i+1} − W_i W_iᵀ‖_F."""
    pairs = itertools.pairwise(layers)
    found = [np.linalg.norm(above.mT @ above - below @ below.mT, axis=(-2, -1)) for below, above in pairs]
    return np.stack(found, axis=-1) if found else np.zeros((len(layers[0]), 0))
