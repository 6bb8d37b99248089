"""From the weight matrices of a model to rows: copied in the thread that trains, decomposed beside it."""

import time
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from lrbias.errors import check
from lrbias.metrics import RANKS, ranks_of
from lrbias.runs import RANK, VALUES, Layer
from lrbias.settings import Count, Positive, Settings
from lrbias.storage import Log, Quantity
from lrbias.system import cores
from lrbias.training import Logger, MeasureError
from lrcore import cpu
from lrcore.cpu import workspace

NUMERICAL = 1e-6  # numerical_rank counts σ_i above it, as in the runs of deep linear networks
WAITING_BYTES = 1 << 28  # of copies that may wait to be measured
MEASURED = ("norm", *RANKS)
TAKEN = (VALUES, "layer", "layers", "average")  # names that scalars cannot have
DONE = ""  # the name of the row that ends a record
TRAINING = "the model is being trained, or that was killed"


class Tracked(Settings):
    """What is measured of the weight matrices, and when."""

    every: Count = Field(default=1, description="steps between records")
    unit: Literal["step", "epoch"] = Field(
        default="step", description="what a step is: one of the optimizer, or an epoch"
    )
    epsilon: Positive = Field(default=1e-3, description="the rank of W is #{σ_i > epsilon ‖W‖}")
    norm: Literal["spectral", "frobenius"] = Field(default="spectral", description="the norm ‖W‖ of that rank")


class Weights:
    """The matrices of a model in one flat vector, float64 when one of them is, else float32."""

    def __init__(self, matrices):
        self.matrices = matrices
        self.shapes = [matrix.shape for matrix in matrices]
        double = any(matrix.value().dtype == torch.float64 for matrix in matrices)
        ends = np.cumsum([rows * columns for rows, columns in self.shapes])
        self.flat = np.empty(ends[-1], np.float64 if double else np.float32)
        self._spans = [slice(end - r * c, end) for end, (r, c) in zip(ends, self.shapes, strict=True)]
        self._views = [torch.from_numpy(view) for view in self.split(self.flat)]

    def follow(self, matrices):
        """Read from these from now on, which a model has now. InvalidInput unless names and shapes are the same."""
        known = {matrix.name: matrix.shape for matrix in self.matrices}
        found = {matrix.name: matrix.shape for matrix in matrices}
        changed = [f"{name} is gone" for name in known if name not in found]
        changed += [f"{name} is new" for name in found if name not in known]
        changed += [
            f"{name} has shape {found[name]}, not {known[name]}"
            for name in known
            if name in found and found[name] != known[name]
        ]
        accepted = "the matrices that the tracker was made with; make a new tracker for this model"
        check(not changed, "model", f"<{'; '.join(changed[:3])}{'; …' if changed[3:] else ''}>", accepted)
        places = {matrix.name: matrix for matrix in matrices}
        self.matrices = [places[name] for name in known]

    def read(self):
        """The vector, filled from the model wherever that is."""
        for view, matrix in zip(self._views, self.matrices, strict=True):
            view.copy_(matrix.value())
        return self.flat

    def split(self, flat):
        """The matrices within a vector, as views."""
        return [flat[span].reshape(shape) for span, shape in zip(self._spans, self.shapes, strict=True)]


class Scratch:
    """What one thread needs to measure."""

    def __init__(self, weights):
        dtypes = [weights.flat.dtype] * len(weights.shapes)
        self.weights = weights
        self._work = workspace.allocate_weight_values(weights.shapes, dtypes)

    def values(self, flat):
        """Singular values of every matrix as float64, largest first."""
        return cpu.weight_values(self.weights.split(flat), self._work)


class WeightPlan:
    """Which rows a record has: singular values of all matrices end to end, norm and ranks of each, what was noted."""

    def __init__(self, weights, tracked, scalars, samples):
        self.every = tracked.every
        self._epsilon = tracked.epsilon
        self._noted = {}
        count = len(weights.shapes)
        kinds = {VALUES: ("f8", sum(map(min, weights.shapes)))}
        kinds.update({f"layers/{name}": ("f8", count) for name in MEASURED})  # counts, too, which may be NaN
        probed = ("layers/gradient_rank", "layers/sample_gradient_rank") if samples else ()
        kinds.update({name: ("f8", count) for name in probed})
        self.quantities = [Quantity(name, (length,), kind, self.every) for name, (kind, length) in kinds.items()]
        self.quantities += [Quantity(name, (), "f8", self.every) for name in scalars]

    def is_due(self, step):
        return step % self.every == 0

    def note(self, step, values):
        """What is known about a record in the thread that trains: {quantity: value}."""
        self._noted[step] = values

    def measure(self, scratch, flat, step, write):
        """Call write(quantity name, row, value) for everything at `step`."""
        row = step // self.every
        values = scratch.values(flat)
        write(VALUES, row, np.concatenate(values))
        table = np.empty((len(values), len(MEASURED)))
        with np.errstate(all="ignore"):  # what is not finite is recorded as such
            for place, each in enumerate(values):
                table[place] = np.sqrt(np.sum(each**2)), *ranks_of(each, NUMERICAL, self._epsilon)
        for name, column in zip(MEASURED, table.T, strict=True):
            write(f"layers/{name}", row, column)
        for name, value in self._noted.pop(step).items():
            write(name, row, value)
        write(DONE, row, None)


class Tracking:
    """The rows of one run: `record` at a step, and `commit` where a trainer can be resumed.

    matrices: of `weight_matrices`; tracked: a Tracked; scalars: names of what is noted beside them; probe: a Probe that
    is asked for the ranks of gradients, or None. look_up: a function that lists the matrices as the model has them at a
    record, where its modules may be replaced meanwhile; None: they stay.
    """

    def __init__(self, matrices, tracked, scalars=(), probe=None, look_up=None):
        named = not isinstance(scalars, str) and all(isinstance(name, str) and name.isidentifier() for name in scalars)
        accepted = f"names like loss, other than {', '.join(TAKEN)}"
        check(named and not set(scalars) & set(TAKEN), "scalars", scalars, accepted)
        self.weights = Weights(matrices)
        self.tracked = tracked
        self.scalars = tuple(scalars)
        self.probe = probe
        self._look_up = look_up
        self._plan = WeightPlan(self.weights, tracked, self.scalars, probe is not None)
        self.quantities = self._plan.quantities
        self.recorded = -1
        self._logger: Any = None  # a Logger, once `begin` has made it

    def layers(self, patches=None):
        """A Layer for each matrix, as config.json has them."""
        known = patches or {}
        matrices = self.weights.matrices
        return [Layer(m.name, m.kind, m.shape[0], m.shape[1], known.get(m.name)) for m in matrices]

    def begin(self, storage, step, elapsed=0.0, commit_seconds=None):
        """Write to `storage` from now on; the rows up to `step` are there. commit_seconds: commit what is measured when
        so long a time has passed; None: only `commit` does."""
        self._storage = storage
        self._log = Log(self.quantities, storage)
        self._log.restore(step)
        self.recorded = step - 1
        self._elapsed = elapsed
        self._begun = time.monotonic()
        self._commit_seconds = commit_seconds
        self._last_commit = self._begun
        beside = Scratch(self.weights) if cores() > 1 else None
        most = max(1, WAITING_BYTES // self.weights.flat.nbytes)
        self._logger = Logger(self._plan, Scratch(self.weights), beside, self._write, most)

    def record(self, step, noted=None):
        """Measure the model as it is, beside the training. noted: {scalar: value}."""
        if not self._plan.is_due(step):
            return
        self._follow()
        known = dict.fromkeys(self.scalars, np.nan) | (noted or {})
        if self.probe is not None:
            found = self.probe.ranks(strict=False)
            known["layers/gradient_rank"] = [ranks.batch for ranks in found]
            known["layers/sample_gradient_rank"] = [max(ranks.sample) for ranks in found]
        self._plan.note(step, known)
        self._checked(self._logger.measure, self.weights.read(), step, {})

    def _follow(self):
        """Read from the modules that the model has now."""
        if self._look_up is not None:
            self.weights.follow(self._look_up())
            if self.probe is not None:
                self.probe.matrices = self.weights.matrices

    def rewind(self, step):
        """Go on after `step`: later rows do not count any more, and are written again."""
        self.commit("running", TRAINING)  # rows are read back from where a commit puts them
        self.recorded = min(self.recorded, step - step % self.tracked.every)
        self._storage.go_back(self.recorded)
        self._log.restore(step + 1)

    def drain(self):
        """Until everything recorded so far is measured."""
        self._checked(self._logger.drain)

    def _checked(self, act, *arguments):
        try:
            act(*arguments)
        except MeasureError as error:  # of numerics, not of the model's values: those are recorded as they are
            raise error.__cause__ or error from None

    def _write(self, name, row, value):
        if name != DONE:
            self._log.set(name, row, value)
            return
        self.recorded = row * self.tracked.every
        now = time.monotonic()
        if self._commit_seconds is not None and now - self._last_commit >= self._commit_seconds:
            self._storage.write_tail(self._log.tails())
            self._note_progress("running", TRAINING)
            self._last_commit = now

    def _note_progress(self, status, detail):
        elapsed = self._elapsed + time.monotonic() - self._begun
        self._storage.commit(self.recorded, 0, status, detail, [self.tracked.every], elapsed)

    def commit(self, status, detail):
        """Make everything recorded so far count."""
        self.drain()
        self.hand_on(status)
        self._note_progress(status, self.detail(status, detail))

    def hand_on(self, status):
        """Hand all rows to the storage: as a tail while the run goes on, else whole blocks."""
        if status == "running":
            self._storage.write_tail(self._log.tails())
        else:
            self._log.flush()

    def detail(self, status, detail):
        """`detail`, and of a run that has finished, how many weights are not finite at the last record."""
        lost = self._lost_matrices() if status == "finished" else 0
        if not lost:
            return detail
        count = len(self.weights.matrices)
        return f"{lost} of {count} weight matrices are not finite at the last record; {detail}"

    def _lost_matrices(self):
        """How many matrices were not finite at the record that was measured last."""
        norms = self._log.last("layers/norm")
        return 0 if norms is None else int(np.count_nonzero(~np.isfinite(norms)))

    @property
    def last(self):
        """The mean of the rank over the matrices at the record that was measured last; None before the first."""
        found = self._log.last(f"layers/{RANK[self.tracked.norm]}")
        return None if found is None else float(np.mean(found))

    def close(self):
        """End the thread that measures."""
        if self._logger:
            self._logger.close()

    def end(self):
        """End the thread and give the folder free."""
        self.close()
        self._storage.close()
