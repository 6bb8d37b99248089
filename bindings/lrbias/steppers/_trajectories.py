"""Runs of SGD in lock-step, and the few numbers that are kept of each at every record."""

import itertools

import numpy as np

from lrbias.devices import CPU
from lrbias.events import FLOOR, first_rank, next_rank
from lrbias.metrics import NONE
from lrbias.steppers._steps import many_steps
from lrcore import layout, status


class Group:
    """Runs that are trained together, with what they recorded so far.

    whole: what an ensemble trains, lists of problems, networks and methods; part: the places of these runs in them.
    """

    def __init__(self, whole, part, device=CPU):
        self.whole = whole
        self.step = 0
        self.row = 0
        listed = whole.problems, whole.networks, whole.methods
        self.problems, networks, methods = ([values[i] for i in part] for values in listed)
        self.widths, dtype = networks[0].widths, networks[0].dtype
        self.runs = len(part)
        self.shared = all(problem is self.problems[0] for problem in self.problems)
        self.lanes = layout.lanes(dtype)
        self.params = layout.to_lanes(np.stack([network.params for network in networks]), self.lanes)
        self.statuses = np.full((len(self.params), self.lanes), status.OK, np.int64)
        self.steps = many_steps(methods, self.problems, self.widths, dtype, device)
        rows = whole.steps // whole.every + 1
        self.ranks, self.absorbing = (np.zeros((self.runs, rows), np.int16) for _ in range(2))
        self.errors = {name: np.full((self.runs, rows), np.nan, np.float32) for name in ("train", "hidden")}
        self.ended = np.full(self.runs, whole.steps)
        self.floor = FLOOR * np.array([[problem.spectrum.values[0]] for problem in self.problems])
        self.record()

    def advance(self, count):
        """`count` steps of all runs that go on, which a run does whose loss there is finite."""
        going = self._going()
        self.steps(self.params, count, self.statuses, self.step)
        self.step += count
        self.steps(self.params.copy(), 1, self.statuses, self.step)  # as `train` asks for the loss at the end
        self.ended[going & ~self._going()] = self.step

    def _going(self):
        return layout.from_lanes(self.statuses, self.runs) == status.OK

    def record(self):
        """Ranks, errors and sets at this step; what has diverged keeps its rank and is in no set."""
        params = layout.from_lanes(self.params, self.runs)
        going = self._going()
        row = self.row
        layers = _layers(np.where(going[:, None], params, 0), self.widths)
        whole = self.whole
        with np.errstate(all="ignore"):  # on its way to divergence a product may not be finite
            product = layers[0]
            for layer in layers[1:]:
                product = layer @ product
            balancedness = _balancedness(layers)
            errors = self._errors(product)
        self.values = _singular_values(product)
        if row == 0:
            self.ranks[:, 0] = first_rank(self.values, whole.lower, self.floor)
        else:
            before = self.ranks[:, row - 1]
            now = next_rank(before, self.values, whole.lower, whole.upper, self.floor)
            self.ranks[:, row] = np.where(going, now, before)
        inside = whole.sets.rank([_singular_values(layer) for layer in layers], balancedness)
        self.absorbing[:, row] = np.where(going, inside, NONE)
        for name, found in errors.items():
            self.errors[name][:, row] = np.where(going, found, np.nan)
        self.row += 1

    def _errors(self, product):
        if self.shared:
            return {name: found.astype(np.float32) for name, found in self.problems[0].errors(product).items()}
        each = [problem.errors(own) for problem, own in zip(self.problems, product, strict=True)]
        return {name: np.array([found[name] for found in each], np.float32) for name in each[0]}

    def found(self):
        """What the group recorded, {name: array}, a row for each run."""
        return {
            "ranks": self.ranks,
            "absorbing": self.absorbing,
            "train_error": self.errors["train"],
            "hidden_error": self.errors["hidden"],
            "diverged": ~self._going(),
            "ended": self.ended,
            "values": self.values,
            "params": layout.from_lanes(self.params, self.runs),
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
