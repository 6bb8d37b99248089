"""Many trajectories of SGD on small networks, trained side by side and watched: which ranks do they visit?

A run of its own records everything; here thousands of runs record a few numbers each: the rank of the product with the
hysteresis of `lrbias.events`, the errors over observed and hidden entries, and in which of the sets B_r they are.

    ensemble.json       settings, and a fingerprint of everything that decides the numbers; checksummed
    data.npz            targets, masks and starts, and which of them each run has
    groups/NUMBER.npz   what GROUP runs recorded; written when they have ended

Groups are the queue: those that are there are not made again, so an ensemble that was stopped or killed goes on with
the same words and ends with the same bits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from os import PathLike
from typing import NamedTuple

import numpy as np

from lrbias.devices import resolve
from lrbias.errors import Interrupted, InvalidInput, StoreError, check
from lrbias.events import LOWER, UPPER, check_thresholds
from lrbias.methods import SGD
from lrbias.metrics import AbsorbingSets
from lrbias.network import Network
from lrbias.problems import Completion
from lrbias.settings import Count, Threads, check_switches, validate
from lrbias.steppers import EnsembleStepper, WholeChunks
from lrbias.storage import check_new, write_json
from lrbias.sweeps._ensemble_data import FORMAT, Ensemble, data_problem, read_ensemble_json, read_group, write_group
from lrbias.sweeps._ensemble_recorder import EnsembleRecorder
from lrbias.system import (
    LOCK,
    RunsDisplay,
    as_path,
    collected,
    cores,
    display,
    drafted,
    lock,
    one_blas_thread,
    usual_errors,
)
from lrbias.training import Loop, Never, Span, Subject, made_with

GROUP = 64  # runs that are kept together, and trained together on the CPU, eight to a vector
SIDE_BY_SIDE = 64  # groups that are trained together on an accelerator
WIDEST = 64  # layers up to here; wider ones are better off as runs of their own


@usual_errors
def ensemble(  # noqa: PLR0913  as `train`, and what is counted in the runs
    problem: Completion | Sequence[Completion],
    network: Network | Sequence[Network],
    method: SGD | Sequence[SGD],
    steps: int,
    runs: int | None = None,
    every: int = 1000,
    sets: AbsorbingSets | None = None,
    lower: float = LOWER,
    upper: float = UPPER,
    store: str | PathLike[str] | None = None,
    threads: int | None = None,
    progress: bool | None = None,
    device: str = "cpu",
) -> Ensemble:
    """Train many networks by SGD and return the Ensemble.

    problem   a Completion, or a list with one for each run; all have the same shape and number of entries
    network   the start, or a list with one for each run; all have the same widths and dtype
    method    an SGD, or a list with one for each run, which differ in lr, ridge and sampling_seed only. Of a single
              one, run i = 0, 1, … has the sampling_seed plus i
    steps     of every run, a multiple of `every`
    runs      how many runs; None: as many as the lists have entries. Needed when nothing is a list
    every     steps between records; what happens within them is not seen
    sets      AbsorbingSets that say what B_r is; None: the defaults
    lower, upper  thresholds of the rank relative to σ_1, see `lb.jumps`; the floor is 1e-4 of the target's ‖Ŵ‖₂
    store     a folder to keep the ensemble in; an existing one must be of the same ensemble, which then goes on
    threads   groups of runs made side by side; None: one for each core. Bits do not depend on it
    progress  True or False; None shows it on a terminal
    device    "cpu", "cuda" or "auto", see `train`. For each of the threads, which measure, a GPU trains up to 4096
              runs together. Bits do not depend on it, and an ensemble begun on one may go on, on another

    A run that diverges is a result: it is marked in `diverged`, keeps its rank, and its later errors are NaN. Ctrl-C
    and SIGTERM raise Interrupted; what `store` holds by then is not made again. Raises InvalidInput, and StoreError for
    a folder that is damaged or in use.
    """
    check_switches(progress=progress)
    whole = _EnsembleTask(problem, network, method, runs)
    place = resolve(device)
    whole.steps = validate(Count, "steps", steps)
    whole.every = validate(Count, "every", every)
    check(whole.steps % whole.every == 0, "every", every, f"a divisor of steps = {steps}")
    lower, upper = check_thresholds(lower, upper)
    sets = AbsorbingSets() if sets is None else sets
    check(isinstance(sets, AbsorbingSets), "sets", sets, "an AbsorbingSets")
    whole.sets = sets
    whole.lower = lower
    whole.upper = upper
    threads = cores() if threads is None else validate(Threads, "threads", threads)
    folder = None if store is None else _folder(as_path("store", store), whole, place)
    held = lock(folder / LOCK, folder) if folder else None
    try:
        with place.fitting():
            groups = _make(whole, folder, threads, progress, place)
    finally:
        if held:
            held.release()
    return Ensemble(whole.document(), groups, folder)


class _EnsembleTask:
    """What is trained: a problem, a start and a method for each run."""

    steps: int
    every: int
    sets: AbsorbingSets
    lower: float
    upper: float

    def __init__(self, problem, network, method, runs):
        given = (("problem", problem), ("network", network), ("method", method))
        lists = {name: len(value) for name, value in given if isinstance(value, (list, tuple))}
        count = validate(Count, "runs", next(iter(lists.values())) if runs is None and lists else runs)
        for name, length in lists.items():
            check(length == count, name, f"<a list of {length}>", f"a list of {count}, one for each run")
        single = not isinstance(method, (list, tuple))
        problems, networks, methods = (_listed(value, count) for value in (problem, network, method))
        _require_kinds(problems, networks, methods)
        if single:
            seeds = [(method.sampling_seed + i) % 2**64 for i in range(count)]
            methods = [method.model_copy(update={"sampling_seed": seed}) for seed in seeds]
        self.problems = problems
        self.networks = networks
        self.methods = methods

    def __len__(self):
        return len(self.methods)

    def document(self):
        """What ensemble.json holds; the fingerprint stands for the arrays."""
        first = self.methods[0]
        shared = {key: value for key, value in first.settings().items() if key not in ("lr", "ridge", "sampling_seed")}
        facts = {
            "runs": len(self),
            "steps": self.steps,
            "every": self.every,
            "widths": list(self.networks[0].widths),
            "dtype": self.networks[0].dtype.name,
            "shared": shared,
            "lr": [method.lr for method in self.methods],
            "ridge": [method.ridge for method in self.methods],
            "sampling_seed": [method.sampling_seed for method in self.methods],
            "lower": self.lower,
            "upper": self.upper,
            "sets": self.sets.model_dump(),
            "data": self._digest(),
        }
        text = json.dumps(facts, sort_keys=True)
        return {"format": FORMAT, **facts, "fingerprint": hashlib.sha256(text.encode()).hexdigest()}

    def _digest(self):
        digest = hashlib.sha256()
        for array in self.data().values():
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def data(self):
        """The arrays of data.npz: every problem and start once, and the places of those that each run has."""
        problems, problem_of = _unique(self.problems)
        networks, start_of = _unique(self.networks)
        return {
            "targets": np.stack([problem.target for problem in problems]),
            "masks": np.stack([problem.mask for problem in problems]),
            "mean": np.array(problems[0].reduction == "mean"),
            "problem_of": problem_of,
            "starts": np.stack([network.params for network in networks]),
            "start_of": start_of,
        }


def _listed(value, count):
    return list(value) if isinstance(value, (list, tuple)) else [value] * count


def _unique(values):
    """(each object once, the place of every one)."""
    once = {id(value): value for value in values}
    places = {key: place for place, key in enumerate(once)}
    return list(once.values()), np.array([places[id(value)] for value in values])


def _require_kinds(problems, networks, methods):
    for argument, values, kind in (
        ("problem", problems, Completion),
        ("network", networks, Network),
        ("method", methods, SGD),
    ):
        for value in values:
            check(isinstance(value, kind), argument, value, f"{'an' if kind is SGD else 'a'} {kind.__name__}")
    first = problems[0]
    start = networks[0]
    own = methods[0]
    for problem in problems:
        same = (problem.shape, problem.count, problem.reduction) == (first.shape, first.count, first.reduction)
        check(same, "problem", problem, f"problems like the first, {first!r}")
        check(problem.known.all(), "problem", problem, "targets whose hidden entries are known")
    widest = max(start.widths)
    check(widest <= WIDEST, "widths", start.widths, f"layers of at most {WIDEST} neurons; train wider ones alone")
    for network in networks:
        same = (network.widths, network.dtype) == (start.widths, start.dtype)
        check(same, "network", network, f"networks like the first, {start!r}")
        check(network.output_scale == 1, "network", network, "networks whose output is the product of their layers")
        first.check(network)
        network.check_method(own)
    varied = {"lr", "ridge", "sampling_seed"}
    for method in methods:
        same = method.model_dump(exclude=varied) == own.model_dump(exclude=varied)
        check(same, "method", method, "methods that differ in lr, ridge and sampling_seed only")
    check(own.batch <= first.count, "batch", own.batch, f"at most {first.count}, the number of observed entries")


def _folder(path, whole, device):
    """The folder of the ensemble, made or recognised."""
    document = whole.document()
    if (path / "ensemble.json").is_file():
        known = read_ensemble_json(path)
        for key in document:
            if known.get(key) != document[key] and key not in ("format", "fingerprint"):
                raise InvalidInput(
                    f"store = {str(path)!r} is not accepted: it holds another ensemble, whose {key} is different."
                )
        return path
    check_new(path)
    with drafted(path) as draft:
        (draft.folder / "groups").mkdir()
        write_group(draft.folder / "data.npz", whole.data(), document["fingerprint"])
        made = {**document, "sealed": True, "made_with": made_with(device=device)}
        write_json(draft.folder / "ensemble.json", made)
    draft.held.release()
    return path


def _make(whole, folder, threads, progress, device):
    """The groups in order, each {name: array}; those that the folder holds are read."""
    parts = [range(first, min(first + GROUP, len(whole))) for first in range(0, len(whole), GROUP)]
    paths = [folder / "groups" / f"{number:05d}.npz" if folder else None for number in range(len(parts))]
    known = read_ensemble_json(folder) if folder else {}
    own = known.get("fingerprint", whole.document()["fingerprint"])
    groups = {n: _read_group(path, known, parts[n]) for n, path in enumerate(paths) if path and path.is_file()}
    if folder and data_problem(folder, known):
        write_group(folder / "data.npz", whole.data(), own)
    made = sum(len(parts[n]) for n in groups)
    shown = RunsDisplay(progress, len(whole), made)
    stop: list[bool] = []
    with collected() as received, one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        waiting = [n for n in range(len(parts)) if n not in groups]
        if waiting:
            stepper = _stepper(whole, parts[waiting[0]], device)
            stepper.step(np.empty(0), 0)  # compiles before threads share the work
        jobs = []
        for numbers in _side_by_side(waiting, threads, device):
            chosen = {n: (parts[n], paths[n]) for n in numbers}
            jobs.append(pool.submit(_make_groups, whole, chosen, own, device, received, stop))
        try:
            for job in as_completed(jobs):
                for n, found in job.result().items():
                    groups[n] = found
                    for run, diverged in zip(parts[n], found["diverged"], strict=True):
                        shown.update(f"{run}", "diverged" if diverged else "finished")
        finally:
            stop.append(True)
            shown.stop()
    if received:
        kept = "; nothing is kept: with a store the same call would go on"
        if folder:
            kept = f"; {folder} holds {len(groups)} of {len(parts)} groups, and the same call goes on"
        raise Interrupted(f"interrupted{kept}", None, received[0])
    return [groups[n] for n in range(len(parts))]


def _side_by_side(waiting, threads, device):
    """The groups that are trained together: one at a time; on an accelerator many, with some for every thread."""
    several = max(1, min(SIDE_BY_SIDE, -(-len(waiting) // threads))) if device.is_accelerator else 1
    return [waiting[first : first + several] for first in range(0, len(waiting), several)]


def _make_groups(whole, chosen, own, device, received, stop):
    """Train the runs of some groups together: {number: found}, nothing when their end is not to be waited for.

    chosen: {number: (part, path)}; own: the fingerprint.
    """
    part = [run for part, _ in chosen.values() for run in part]
    stepper = _stepper(whole, part, device)
    recorder = EnsembleRecorder(whole, part, stepper)
    files = _GroupFiles(chosen, own, recorder)
    span = Span(0, whole.steps, Never(), WholeChunks)
    Loop(stepper, recorder, files, span, Subject(lambda: None, None, display(False))).make(_Either(received, stop))
    return files.found


def _stepper(whole, part, device):
    """What trains the runs of a part together."""
    methods, problems, networks = (
        [values[i] for i in part] for values in (whole.methods, whole.problems, whole.networks)
    )
    return EnsembleStepper(methods, problems, networks, device)


class _Either(NamedTuple):
    """True once one of two lists is not empty."""

    first: list
    second: list

    def __bool__(self):
        return bool(self.first or self.second)


class _GroupFiles:
    """A LoopStorage for groups that have ended. chosen: {number: (part, path)}; `found`: {number: {name: array}}."""

    def __init__(self, chosen, owner, recorder):
        self.found = {}
        self._chosen = chosen
        self._owner = owner
        self._recorder = recorder

    path = None  # of all of them

    def progress(self):
        """A group begins at step 0."""
        return {"step": 0, "elapsed": 0.0}

    def close(self):
        """Nothing: every file is written whole."""

    def write_checkpoint(self, step, arrays, widths):
        """None is kept: a group that was interrupted is made anew."""

    def commit(self, step, checkpoint, status, detail, intervals, elapsed):
        """Write the groups, unless they were interrupted."""
        if status == "interrupted":
            return
        together = self._recorder.found()
        first = 0
        for n, (part, path) in self._chosen.items():
            rows = slice(first, first + len(part))
            first = first + len(part)
            own = {name: array[rows] for name, array in together.items()}
            self.found[n] = {**own, "seconds": np.array([elapsed / len(self._chosen)])}
            if path:
                write_group(path, self.found[n], self._owner)


def _read_group(path, document, part):
    """A group of the folder; StoreError unless it has as many runs as this part of the ensemble."""
    found = read_group(path, document)
    if len(found["ranks"]) != len(part):
        raise StoreError(
            f"{path} holds {len(found['ranks'])} runs, not {len(part)}; remove it, and they are made again."
        )
    return found
