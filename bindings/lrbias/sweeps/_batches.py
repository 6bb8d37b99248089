"""Small networks of a sweep, many at a time: the batched kernels give to each the bits that it has alone.

Which runs go together is decided when a sweep is made and stands in its sweep.json, so that it goes on as it began
however many workers there are. A batch saves all that it has now and then, and goes on from there when it was killed.
"""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lrbias.devices import CPU, resolve
from lrbias.errors import Interrupted, StoreError
from lrbias.experiments import Experiment, describe
from lrbias.forecasts import seconds_of
from lrbias.metrics import Observation, Plan, Setup
from lrbias.network import Drawn
from lrbias.steppers import batch_steps
from lrbias.storage import LOSSES, ROWS, batch_owner, columns_of, losses_quantity, read_batch, write_batch
from lrbias.system import collected, lock, one_blas_thread
from lrbias.training import CHUNK_SECONDS, FIRST_CHUNK, listed_quantities, made_with
from lrcore import layout, status

SHORTENED = ("identical", "perturbed", "orthogonal")  # starts that lrbias.steppers._reduction knows a short cut for
FEWEST = 8  # runs in a batch: the lanes of a vector
SAVE_SECONDS = 15.0
SAVE_SHARE = 0.1  # of the time, at most, that a batch is saved in
TIMED = 256  # runs side by side that a forecast times, where there are as many


class Limits(NamedTuple):
    """Of batches.

    widest   layers of a network that is trained beside others
    most     runs in a batch
    bytes    that a batch keeps in memory and saves as one file
    batches  at least as many for a kind of run, so that several workers have something to do
    """

    widest: int
    most: int
    bytes: int
    batches: int


def limits(device, workers):
    """On the CPU eight runs fill a vector; up to 16 neurons a layer they were measured to be faster than one by one.

    A device apart has a block of threads for each run, and is given so many that all of it is busy, wider ones, too.
    The bytes leave a hundred runs of 100 neurons that record often. A batch for each worker is enough there.
    """
    return Limits(128, 4096, 2 << 30, workers) if device.apart else Limits(16, 64, 64 << 20, 8)


def plan_batches(runs, device=CPU, workers=1):
    """{number: names} for the runs {name: settings} that are trained together: small networks without a stopping rule.

    Runs of a batch have the same widths, method, steps and records; targets, starts and step sizes are their own.
    """
    kinds = {}
    most = limits(device, workers)
    for name, settings in runs.items():
        whole = Experiment.from_words(settings)
        kind = _kind(whole, most)
        if kind is not None:
            kinds.setdefault(kind, (whole, []))[1].append(name)
    batches = []
    for whole, names in kinds.values():
        size = _size(whole, len(names), most) if len(names) >= FEWEST else 0
        if size:
            batches += [names[first : first + size] for first in range(0, len(names), size)]
    return {f"{number:04d}": names for number, names in enumerate(batches)}


def _kind(whole, most):
    """What runs of one batch have in common, None for a run that is trained alone."""
    method, record, start, run = whole.method, whole.record, whole.network, whole.run
    shape = whole.problem.whole_shape
    if shape is None or not isinstance(start, Drawn) or whole.stop.settings() or run.threads > 1:
        return None
    if start.name in SHORTENED and run.compress == "auto":
        return None
    if not (method.plain and method.fixed) or record.remembers or record.looks_back:
        return None
    widths = start.layer_widths(shape)
    if max(widths) > most.widest or start.output_scale * start.scale(widths) != 1:
        return None
    own = {key: value for key, value in method.settings().items() if key not in ("lr", "dt")}
    return repr((widths, start.dtype, own, record.settings(), whole.steps, run.checkpoint_every))


def _size(whole, count, most):
    """How many of `count` runs like `whole` make a batch, 0 when it cannot be planned or they are too few."""
    try:
        member = Member("", whole)
    except Exception:  # its own training will say what is wrong
        return 0
    fitting = most.bytes // member.bytes
    even = -(-count // (most.batches * FEWEST)) * FEWEST
    return int(min(even, most.most, fitting // FEWEST * FEWEST))


def make_batch(job):
    """Train the runs of a batch, or finish them. job: (path of its file, {name: settings}).

    Returns {name: (status, detail)}, in a worker. Raises Interrupted when the worker is told to end: what was recorded
    is saved then.
    """
    path = Path(job[0])
    settings = job[1]
    results = {}
    members = []
    for name, keys in settings.items():
        try:
            members.append(Member(name, Experiment.from_words(keys)))
        except Exception as error:  # a row of the table; the others go on
            results[name] = ("failed", f"{type(error).__name__}: {error}")
    if not members:
        return results
    try:
        held = lock(path.with_suffix(".lock"), path)
        try:
            with one_blas_thread():
                training = _BatchTraining(path, members, resolve(members[0].settings["device"]), batch_owner(settings))
                ended = training.go()
        finally:
            held.release()
    except Exception as error:
        ended = {member.name: ("failed", f"{type(error).__name__}: {error}") for member in members}
    return {**results, **ended}


class Member:
    """One run of a batch: what it starts from and what measures it."""

    def __init__(self, name, whole):
        arguments = whole.arguments()
        network = arguments["network"]
        others = ("steps", "checkpoint_every", "threads", "device", "compress")
        self.name = name
        self.problem = arguments["problem"]
        self.method = arguments["method"]
        self.params = network.params
        self.widths = network.widths
        self.record = arguments["record"]
        self.steps = whole.steps
        self.checkpoint_every = whole.run.checkpoint_every
        parts = self.problem, network, self.method, self.record
        self.settings = describe(*parts, **{key: arguments[key] for key in others})
        setup = Setup(self.problem, self.widths, self.params.dtype, self.record, self.method)
        self.observation = Observation(setup)
        self.plan = Plan(setup)
        self.quantities = listed_quantities([losses_quantity(self.params.dtype), *self.plan.quantities])
        self.columns = columns_of(self.quantities)
        self.status, self.detail, self.step = "running", "training goes on, or was killed", 0

    @property
    def bytes(self):
        """What the run takes in memory and in the file."""
        rows = sum(width * (self.steps // interval + 1) for interval, width in self.columns[1].items())
        checkpoints = (self.steps // self.checkpoint_every + 2) * self.params.size
        return 8 * (rows + self.steps + 1 + checkpoints)

    def measure(self, params, step, rows):
        """Write what is due at `step` into rows[interval] (records, columns)."""
        columns = self.columns[0]
        quantities = self.quantities

        def write(name, row, value):
            rows[quantities[name]["interval"]][row, columns[name]] = np.ravel(value)

        self.plan.measure(self.observation, params, step, write)

    def end(self, status, detail, step):
        self.status = status
        self.detail = detail
        self.step = step

    def loss(self, params):
        with np.errstate(all="ignore"):
            return self.observation.at(params).loss


def batched_cost(whole, device=CPU, runs=FEWEST):
    """(seconds, bytes) of a run like `whole` within a batch of `runs`: timed steps and timed records.

    On the CPU one block is timed, since the others only follow it.
    """
    member = Member("", whole)
    members = [member] * (min(runs, TIMED) if device.apart else FEWEST)
    training = _BatchTraining(Path(), members, device)
    blocks, _, lanes = training.params.shape
    losses, statuses = np.empty((blocks, 10, lanes), member.params.dtype), np.empty((blocks, lanes), np.int64)
    per_step = seconds_of(lambda: training.advance(training.params, losses, statuses)) / 10 / len(members)
    seconds = whole.steps * per_step
    rows = {interval: array[0, :2] for interval, array in training.rows.items()}
    for interval in member.plan.intervals:
        # step = interval: this interval's metrics and, at worst, those of its divisors
        due = {other: np.empty((interval // other + 1, rows[other].shape[1])) for other in rows}
        measured = seconds_of(lambda due=due, step=interval: member.measure(member.params, step, due))
        seconds += whole.steps / interval * measured
    return seconds, member.bytes


class _BatchTraining:
    """A batch in progress. `going` are the places of the runs whose loss is still finite."""

    def __init__(self, path, members, device, owner=None):
        first = members[0]
        self.device = device
        self.owner = owner
        self.path = path
        self.members = members
        self.widths = first.widths
        self.steps = first.steps
        self.step = 0
        self.elapsed = 0.0
        self.chunk = FIRST_CHUNK
        runs = len(members)
        dtype = first.params.dtype
        self.lanes = layout.lanes(dtype)
        self.losses = np.full((runs, self.steps + 1), np.nan, dtype)
        widths = {}
        for member in members:
            for interval, width in member.columns[1].items():
                widths[interval] = max(width, widths.get(interval, 0))
        self.rows = {
            interval: np.full((runs, self.steps // interval + 1, width), np.nan) for interval, width in widths.items()
        }
        self.checkpoints = {0: np.stack([member.params for member in members])}
        self._load(self.checkpoints[0])
        targets = np.stack([member.problem.target.ravel() for member in members]).astype(dtype)
        methods = [member.method for member in members]
        self.advance = batch_steps(methods, layout.to_lanes(targets, self.lanes), self.widths, dtype, device)
        self.intervals = sorted({*widths, first.checkpoint_every})
        if path.is_file():
            self._restore(read_batch(path, owner))

    def _load(self, params):
        self.params = layout.to_lanes(params, self.lanes)

    def _now(self):
        """(runs, parameters) at this step."""
        return layout.from_lanes(self.params, len(self.members))

    @property
    def going(self):
        return [i for i, member in enumerate(self.members) if member.status == "running"]

    def _restore(self, batch):
        """Go on where the file ends."""
        document = batch.document
        if [known["name"] for known in document["members"]] != [member.name for member in self.members]:
            raise StoreError(f"{self.path} holds other runs than this batch; remove it, and they are made anew.")
        self.step, self.elapsed = document["step"], document["elapsed"]
        for member, known in zip(self.members, document["members"], strict=True):
            member.end(known["status"], known["detail"], known["step"])
        self.losses = batch[LOSSES].copy()
        self.rows = {i: batch[f"{ROWS}{i}"].copy() for i in batch.intervals}
        steps = batch["checkpoint_steps"].tolist()
        self.checkpoints = dict(zip(steps, batch["checkpoints"], strict=True))
        self._load(batch["params"])

    def go(self):
        """Train to the end; returns {name: (status, detail)}."""
        self.began = self.saved = time.monotonic()
        self.pause = SAVE_SECONDS
        with collected() as received:
            self._measure()
            while self.step < self.steps and self.going:
                if received:
                    self._save()
                    raise Interrupted(f"interrupted at step {self.step}, everything is saved", None, received[0])
                if time.monotonic() - self.saved > self.pause:
                    self._save()
                self._make_steps()
                self._measure()
        self._finish()
        return {member.name: (member.status, member.detail) for member in self.members}

    def _make_steps(self):
        due = min((self.step // interval + 1) * interval for interval in self.intervals)
        count = min(due - self.step, self.steps - self.step, self.chunk)
        blocks, _, lanes = self.params.shape
        losses = np.empty((blocks, count, lanes), self.losses.dtype)
        statuses = np.empty((blocks, lanes), np.int64)
        started = time.perf_counter()
        self.advance(self.params, losses, statuses)
        seconds = time.perf_counter() - started
        self._note(layout.from_lanes(losses, len(self.members)), layout.from_lanes(statuses, len(self.members)))
        self.step += count
        self.chunk = max(1, min(int(count * CHUNK_SECONDS / max(seconds, 1e-9)), 2 * self.chunk))

    def _note(self, losses, codes):
        """Keep the losses of the steps just made, and end the runs that diverged in them."""
        params = self._now() if (codes == status.DIVERGED).any() else None
        for i in self.going:
            finite = np.isfinite(losses[i])
            made = len(finite) if codes[i] == status.OK else int(np.argmin(finite))
            self.losses[i, self.step : self.step + made] = losses[i, :made]
            if codes[i] == status.DIVERGED:
                self._diverged(i, self.step + made, params[i])

    def _diverged(self, i, step, params):
        self.losses[i, step] = loss = self.members[i].loss(params)
        detail = f"the loss at step {step} is {loss}: {status.MEANING[status.DIVERGED]}"
        self.members[i].end("diverged", detail, step)

    def _measure(self):
        params = None
        if any(self.step % interval == 0 for interval in self.intervals):
            params = self._now()
            for i in self.going:
                rows = {interval: rows[i] for interval, rows in self.rows.items()}
                self.members[i].measure(params[i], self.step, rows)
            if self.step % self.members[0].checkpoint_every == 0:
                self.checkpoints.setdefault(self.step, params)

    def _finish(self):
        params = self._now()
        for i in self.going:
            loss = self.members[i].loss(params[i])
            if np.isfinite(loss):
                self.losses[i, self.step] = loss
                self.members[i].end("finished", "all steps were made", self.step)
            else:
                self._diverged(i, self.step, params[i])
        self.checkpoints.setdefault(self.step, params)
        self._save()

    def _save(self):
        """Replace the file by all that is known now."""
        started = time.monotonic()
        params = self._now()
        layouts = []
        listed = []
        for i, member in enumerate(self.members):
            if member.status == "running":
                member.step, self.losses[i, self.step] = self.step, member.loss(params[i])
            if member.quantities not in layouts:
                layouts.append(member.quantities)
            facts = {key: getattr(member, key) for key in ("name", "settings", "status", "detail", "step")}
            listed.append({**facts, "layout": layouts.index(member.quantities)})
        self.saved = time.monotonic()
        self.elapsed = self.elapsed + self.saved - self.began
        self.began = self.saved
        document = {"step": self.step, "elapsed": self.elapsed, "steps": self.steps}
        document.update(made_with=made_with(device=self.device))
        document.update(widths=[int(n) for n in self.widths], layouts=layouts, members=listed)
        arrays = {f"{ROWS}{interval}": rows for interval, rows in self.rows.items()}
        arrays.update(params=params, targets=np.stack([member.problem.target for member in self.members]))
        arrays.update(
            checkpoint_steps=np.array(list(self.checkpoints)), checkpoints=np.stack([*self.checkpoints.values()])
        )
        write_batch(self.path, document, {LOSSES: self.losses, **arrays}, self.owner)
        self.pause = max(SAVE_SECONDS, (time.monotonic() - started) / SAVE_SHARE)
