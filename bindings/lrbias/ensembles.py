"""Many trajectories of SGD on small networks, trained side by side and watched: which ranks do they visit?

A run of its own records everything; here thousands of runs record a few numbers each: the rank of the product with the
hysteresis of `lrbias.jumping`, the errors over observed and hidden entries, and in which of the sets B_r they are.

    ensemble.json       settings, and a fingerprint of everything that decides the numbers; checksummed
    data.npz            targets, masks and starts, and which of them each run has
    groups/NUMBER.npz   what GROUP runs recorded; written when they have ended

Groups are the queue: those that are there are not made again, so an ensemble that was stopped or killed goes on with
the same words and ends with the same bits.
"""

import hashlib
import itertools
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from lrbias.absorbing import NONE, AbsorbingSets
from lrbias.completion import Completion
from lrbias.ensemble_data import FORMAT, Ensemble, read_group, write_group
from lrbias.errors import Interrupted, InvalidInput, require
from lrbias.interrupts import collected
from lrbias.jumping import FLOOR, LOWER, UPPER, check_thresholds, first_rank, next_rank
from lrbias.method import SGD
from lrbias.network import Network
from lrbias.progress import RunsDisplay
from lrbias.settings import Count, Threads, validate
from lrbias.store import check_new, lock, read_json, write_json
from lrbias.threads import cores, one_blas_thread
from lrbias.training import made_with
from lrcore import layout, status

GROUP = 64  # runs that are trained together, eight to a vector
WIDEST = 64  # layers up to here; wider ones are better off as runs of their own


def ensemble(
    problem,
    network,
    method,
    steps,
    runs=None,
    every=1000,
    sets=None,
    lower=LOWER,
    upper=UPPER,
    store=None,
    threads=None,
    progress=None,
):
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

    A run that diverges is a result: it is marked in `diverged`, keeps its rank, and its later errors are NaN. Ctrl-C
    and SIGTERM raise Interrupted; what `store` holds by then is not made again. Raises InvalidInput, and StoreError for
    a folder that is damaged or in use.
    """
    whole = _Plan(problem, network, method, runs)
    whole.steps, whole.every = validate(Count, "steps", steps), validate(Count, "every", every)
    require(whole.steps % whole.every == 0, "every", every, f"a divisor of steps = {steps}")
    lower, upper = check_thresholds(lower, upper)
    sets = AbsorbingSets() if sets is None else sets
    require(isinstance(sets, AbsorbingSets), "sets", sets, "an AbsorbingSets")
    whole.sets, whole.lower, whole.upper = sets, lower, upper
    threads = cores() if threads is None else validate(Threads, "threads", threads)
    folder = None if store is None else _folder(Path(store), whole)
    held = lock(folder / "lock", folder) if folder else None
    try:
        groups = _make(whole, folder, threads, progress)
    finally:
        if held:
            held.release()
    return Ensemble(whole.document(), groups, folder)


class _Plan:
    """What is trained: a problem, a start and a method for each run."""

    def __init__(self, problem, network, method, runs):
        given = (("problem", problem), ("network", network), ("method", method))
        lists = {name: len(value) for name, value in given if isinstance(value, (list, tuple))}
        count = validate(Count, "runs", next(iter(lists.values())) if runs is None and lists else runs)
        for name, length in lists.items():
            require(length == count, name, f"<a list of {length}>", f"a list of {count}, one for each run")
        single = not isinstance(method, (list, tuple))
        problems, networks, methods = (_listed(value, count) for value in (problem, network, method))
        _require_kinds(problems, networks, methods)
        if single:
            seeds = [(method.sampling_seed + i) % 2**64 for i in range(count)]
            methods = [method.model_copy(update={"sampling_seed": seed}) for seed in seeds]
        self.problems, self.networks, self.methods = problems, networks, methods

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
            "mean": np.array(problems[0].mean),
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
            require(isinstance(value, kind), argument, value, f"{'an' if kind is SGD else 'a'} {kind.__name__}")
    first, start, own = problems[0], networks[0], methods[0]
    for problem in problems:
        same = (problem.shape, problem.count, problem.mean) == (first.shape, first.count, first.mean)
        require(same, "problem", problem, f"problems like the first, {first!r}")
        require(problem.known.all(), "problem", problem, "targets whose hidden entries are known")
    widest = max(start.widths)
    require(widest <= WIDEST, "widths", start.widths, f"layers of at most {WIDEST} neurons; train wider ones alone")
    for network in networks:
        same = (network.widths, network.dtype) == (start.widths, start.dtype)
        require(same, "network", network, f"networks like the first, {start!r}")
        first.check(network)
    varied = {"lr", "ridge", "sampling_seed"}
    for method in methods:
        same = method.model_dump(exclude=varied) == own.model_dump(exclude=varied)
        require(same, "method", method, "methods that differ in lr, ridge and sampling_seed only")
    require(own.batch <= first.count, "batch", own.batch, f"at most {first.count}, the number of observed entries")


def _folder(path, whole):
    """The folder of the ensemble, made or recognised."""
    document = whole.document()
    if (path / "ensemble.json").is_file():
        known = read_json(path / "ensemble.json")
        for key in document:
            if known.get(key) != document[key] and key != "fingerprint":
                raise InvalidInput(
                    f"store = {str(path)!r} is not accepted: it holds another ensemble, whose {key} is different."
                )
        return path
    check_new(path)
    draft = path.with_name(f".{path.name}.new")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        (draft / "groups").mkdir(parents=True)
        write_group(draft / "data.npz", whole.data())
        write_json(draft / "ensemble.json", {**document, "made_with": made_with()})
        draft.rename(path)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise InvalidInput(f"store = {str(path)!r} is not accepted: it cannot be made ({error.strerror}).") from None
    return path


def _make(whole, folder, threads, progress):
    """The groups in order, each {name: array}; those that the folder holds are read."""
    parts = [range(first, min(first + GROUP, len(whole))) for first in range(0, len(whole), GROUP)]
    paths = [folder / "groups" / f"{number:05d}.npz" if folder else None for number in range(len(parts))]
    groups = {n: read_group(path) for n, path in enumerate(paths) if path and path.is_file()}
    made = sum(len(parts[n]) for n in groups)
    shown, stop = RunsDisplay(progress, len(whole), made), []
    with collected() as received, one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        waiting = [n for n in range(len(parts)) if n not in groups]
        if waiting:
            _Group(whole, parts[waiting[0]]).advance(0)  # compiles before threads share the work
        jobs = {pool.submit(_make_group, whole, parts[n], paths[n], received, stop): n for n in waiting}
        try:
            for job in as_completed(jobs):
                found = job.result()
                if found is not None:
                    groups[jobs[job]] = found
                    for run in parts[jobs[job]]:
                        shown.update(
                            f"{run}", "diverged" if found["diverged"][run - parts[jobs[job]][0]] else "finished"
                        )
        finally:
            stop.append(True)
            shown.stop()
    if received:
        kept = f"; {folder} holds {len(groups)} of {len(parts)} groups, and the same call goes on" if folder else ""
        raise Interrupted(f"interrupted{kept}", None, received[0])
    return [groups[n] for n in range(len(parts))]


def _make_group(whole, part, path, received, stop):
    """Train the runs of a group to their end, or None when that is not to be waited for."""
    group, started = _Group(whole, part), time.perf_counter()
    while group.step < whole.steps:
        if received or stop:
            return None
        group.advance(whole.every)
        group.record()
    found = {**group.found(), "seconds": np.array([time.perf_counter() - started])}
    if path:
        write_group(path, found)
    return found


class _Group:
    """Runs that are trained in lock-step, with what they recorded so far."""

    def __init__(self, whole, part):
        self.whole, self.step, self.row = whole, 0, 0
        chosen = slice(part.start, part.stop)
        networks, methods = whole.networks[chosen], whole.methods[chosen]
        self.problems, self.widths, dtype = whole.problems[chosen], networks[0].widths, networks[0].dtype
        self.runs, self.shared = len(part), all(problem is self.problems[0] for problem in self.problems)
        self.lanes = layout.lanes(dtype)
        self.params = layout.to_lanes(np.stack([network.params for network in networks]), self.lanes)
        self.statuses = np.full((len(self.params), self.lanes), status.OK, np.int64)
        self.steps = SGD.many_stepper(methods, self.problems, self.widths, dtype)
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
        params, going, row = layout.from_lanes(self.params, self.runs), self._going(), self.row
        layers, whole = _layers(np.where(going[:, None], params, 0), self.widths), self.whole
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
