"""Small networks of a sweep, many at a time: the batched kernels give to each the bits that it has alone.

Which runs go together is decided when a sweep is made and stands in its sweep.json, so that it goes on as it began
however many workers there are. A batch saves all that it has now and then, and goes on from there when it was killed.
"""

import functools
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lrbias.devices import CPU, resolve
from lrbias.experiments import Experiment
from lrbias.forecasts import seconds_of
from lrbias.network import Drawn
from lrbias.steppers import BatchStepper
from lrbias.storage import BatchWriter, Entry, Group
from lrbias.sweeps._batch_recorder import BatchMember, BatchRecorder
from lrbias.system import display, lock, one_blas_thread
from lrbias.training import EverySeconds, Loop, Span, Subject, made_with

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

    An accelerator has a block of threads for each run, and is given so many that all of it is busy, wider ones, too.
    The bytes leave a hundred runs of 100 neurons that record often. A batch for each worker is enough there.
    """
    return Limits(128, 4096, 2 << 30, workers) if device.is_accelerator else Limits(16, 64, 64 << 20, 8)


def plan_batches(runs, device=CPU, workers=1):
    """{number: names} for the runs {name: settings} that are trained together: small networks without a stopping rule.

    Runs of a batch have the same widths, method, steps and records; targets, starts and step sizes are their own.
    """
    kinds: dict[str, tuple[Experiment, list[str]]] = {}
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
    if start.reducible and run.compress == "auto":
        return None
    if not (method.plain and method.fixed) or record.stateful or record.needs_initial:
        return None
    widths = start.layer_widths(shape)
    if max(widths) > most.widest or start.output_scale * start.output_scale_of(widths) != 1:
        return None
    own = {key: value for key, value in method.settings().items() if key not in ("lr", "dt")}
    return repr((widths, start.dtype, own, record.settings(), whole.steps, run.checkpoint_every))


def _size(whole, count, most):
    """How many of `count` runs like `whole` make a batch, 0 when it cannot be planned or they are too few."""
    try:
        member = BatchMember("", whole)
    except Exception:  # its own training will say what is wrong
        return 0
    fitting = most.bytes // member.bytes
    even = -(-count // (most.batches * FEWEST)) * FEWEST
    return int(min(even, most.most, fitting // FEWEST * FEWEST))


def make_batch(path, settings, owner):
    """Train the runs {name: settings} of the batch at `path`, or finish them. owner: whose batch it is.

    Returns {name: (status, detail)}, in a worker. Raises Interrupted when the worker is told to end: what was recorded
    is saved then.
    """
    path = Path(path)
    results = {}
    members = []
    for name, keys in settings.items():
        try:
            members.append(BatchMember(name, Experiment.from_words(keys)))
        except Exception as error:  # a row of the table; the others go on
            results[name] = ("failed", f"{type(error).__name__}: {error}")
    if not members:
        return results
    try:
        held = lock(path.with_suffix(".lock"), path)
        try:
            with one_blas_thread():
                ended = _train(path, members, owner)
        finally:
            held.release()
    except Exception as error:
        ended = {member.name: ("failed", f"{type(error).__name__}: {error}") for member in members}
    return {**results, **ended}


def _train(path, members, owner):
    """Train the members to their end, from where the file ends; returns {name: (status, detail)}."""
    first = members[0]
    device = resolve(first.settings["device"])
    stepper = _stepper(members, device)
    entries = [Entry(each.name, each.settings, each.quantities, each.problem.target) for each in members]
    facts = {"steps": first.steps, "widths": [int(n) for n in first.widths], "made_with": made_with(device=device)}
    batch = BatchWriter(path, owner, entries, stepper.params, facts)
    start = batch.restore()
    stepper.restore(batch["params"], {"active": [member.going for member in batch.members]})
    recorder = BatchRecorder(members, stepper, batch)
    span = Span(start, first.steps, EverySeconds(SAVE_SECONDS, SAVE_SHARE))
    Loop(stepper, recorder, batch, span, Subject(lambda: None, "the same sweep", display(False))).run()
    return {member.path.name: (member.described["status"], member.described["detail"]) for member in batch.members}


def _stepper(members, device):
    """What trains all of them."""
    targets = np.stack([member.problem.target for member in members])
    params = np.stack([member.params for member in members])
    return BatchStepper([member.method for member in members], targets, params, members[0].widths, device)


def batched_cost(whole, device=CPU, runs=FEWEST):
    """(seconds, bytes) of a run like `whole` within a batch of `runs`: timed steps and timed records.

    On the CPU one block is timed, since the others only follow it.
    """
    member = BatchMember("", whole)
    members = [member] * (min(runs, TIMED) if device.is_accelerator else FEWEST)
    stepper = _stepper(members, device)
    losses = np.empty((len(members), 10), member.params.dtype).T
    per_step = seconds_of(lambda: stepper.step(losses, 0)) / len(losses) / len(members)
    seconds = whole.steps * per_step
    for interval in member.schedule.intervals:
        # step = interval: this interval's metrics and, at worst, those of its divisors
        listed = member.quantities.items()
        rows: dict[str | Group, Any] = {
            name: np.empty((interval // q["interval"] + 1, math.prod(q["shape"]))) for name, q in listed
        }
        for group in member.schedule.groups.values():
            rows[group] = np.empty((interval // group.interval + 1, group.size)), slice(None)
        measured = seconds_of(functools.partial(member.measure, member.params, interval, rows))
        seconds += whole.steps / interval * measured
    return seconds, member.bytes
