"""Many runs: a sweep makes a run for every combination of settings, in a folder that is also the queue.

    sweep.json          base, axes, the settings of every run and what goes into which batch; checksummed
    runs/NAME/          a run directory for each; NAME says what is varied
    batches/NUMBER.npz  many small runs in one file instead

Finished runs are skipped, broken ones are resumed, so a sweep that was killed is started again with the same words. A
run that diverges is a row like the others; one that fails says why and is tried again next time.
"""

from __future__ import annotations

import glob
import json
import signal
import uuid
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from lrbias.devices import CPU, elsewhere, resolve
from lrbias.errors import Interrupted, InvalidInput, RunsFailed, StoreError, check, shorten
from lrbias.experiments import Experiment, path_words
from lrbias.settings import Count, check_switches, validate
from lrbias.steppers import Execution
from lrbias.storage import batch_path, check_new, owner_in, write_json
from lrbias.sweeps._axes import expand, plain_axes, plain_settings
from lrbias.sweeps._batches import make_batch, plan_batches
from lrbias.sweeps._table import ENDED, FORMAT, Sweep, read_sweep_json
from lrbias.sweeps._workers import dask_executor, is_client, is_executor, run_all
from lrbias.system import RunsDisplay, as_path, cores, drafted, remove_stale, terminable, usual_errors
from lrbias.training import made_with, train
from lrbias.training import resume as resume_run

RIVALS = 3  # drafts of one process that others may take for what a killed one left


@usual_errors
def sweep(  # noqa: PLR0913  what is made, and by whom
    base: dict[str, Any],
    over: dict[str, Any],
    store: str | PathLike[str],
    workers: int | None = None,
    executor: Any = None,
    scheduler: str | None = None,
    shard: tuple[int, int] | None = None,
    progress: bool | None = None,
    device: str | None = None,
) -> Sweep:
    """Make the runs of a sweep that are not made yet, and return the Sweep.

    base       keys of an experiment that all runs share (see `lrbias run --help`); what is left out has its default
    over       {key: values}: a run for every combination; values that go together are one key with commas:
               {"depth,teacher_depth": [(2, 2), (3, 3)], "seed": range(5)}. A seed that is not varied is the same in all
    store      the folder of the sweep; an existing one must be of the same sweep, which then goes on
    workers    how many processes, each with one thread; None: one for each core, or a single one where a GPU trains,
               which several would share. That pays where much is recorded, since it is measured on the cores
    executor   any executor of concurrent.futures instead, or a Dask Client, whose workers see the same files
    scheduler  the address of a running Dask scheduler instead, "tcp://HOST:PORT", or a Client of one (extra `dask`)
    shard      (i, n): only every n-th run, or batch of runs, from the i-th on (0 ≤ i < n), for job arrays that share
               the folder
    progress   True or False; None shows it on a terminal
    device     "cpu", "cuda" or "auto" (see `train`) for all runs; None: what the base says. It is no part of what a
               sweep is: one that was begun on a GPU goes on without it, and the other way round

    Networks of at most 16 neurons a layer are trained up to 64 at a time by the batched kernels, on a GPU those of at
    most 128 up to 4096 at a time, and kept in a file for each batch; every run has the bits that it has alone.

    Raises InvalidInput, before anything is made, when the settings of any run are not accepted or `store` holds
    something else. What only making a run can show, as a target file that is not there, is a row of the table; where
    not one run could be made, RunsFailed says why.
    """
    check_switches(progress=progress)
    base, over, runs = _expanded(base, over, device)
    accepted = "one of concurrent.futures, a Dask Client, or None"
    check(executor is None or is_executor(executor) or is_client(executor), "executor", executor, accepted)
    others = [name for name, given in (("executor", executor), ("workers", workers)) if given is not None]
    check(scheduler is None or not others, "scheduler", scheduler, f"either it or {' and '.join(others)}")
    find = resolve if executor is None and scheduler is None else elsewhere
    place = find(base.get("device", CPU.name))
    shard = _check_shard(shard)
    workers = _check_workers(workers, place)
    if is_client(executor):
        executor, scheduler = None, executor
    with nullcontext(executor) if scheduler is None else dask_executor(scheduler) as chosen:
        folder = _folder(as_path("store", store), base, over, runs, place, workers)
        return _make(folder, shard, place, workers, chosen, progress)


def _expanded(base, over, device):
    """(base, axes, runs) of a sweep that is made on `device`, or where the base says."""
    base = plain_settings(base)
    over = plain_axes(over)
    if device is not None:
        base = {**base, "device": device}
    return base, over, expand(base, over)


def _check_workers(workers, device):
    return (1 if device.is_accelerator else cores()) if workers is None else validate(Count, "workers", workers)


def _check_shard(shard):
    if shard is None:
        return 0, 1
    fits = isinstance(shard, (list, tuple)) and len(shard) == 2 and all(isinstance(number, int) for number in shard)
    check(fits and 0 <= shard[0] < shard[1], "shard", shard, "two integers (i, n) with 0 ≤ i < n")
    return shard


def _folder(path, base, over, runs, device, workers):
    """The folder of the sweep, made or recognised."""
    document = {
        "format": FORMAT,
        "base": base,
        "over": over,
        "runs": runs,
        "batches": plan_batches(runs, device, workers),
    }
    if (path / "sweep.json").is_file():
        known = read_sweep_json(path)
        _same_sweep(path, known, document)
        return path
    _check_plain(document)
    remove_stale(path.parent, f".{glob.escape(path.name)}.*.new")
    for attempt in range(1, RIVALS + 1):
        try:
            _make_folder(path, document)
        except (InvalidInput, StoreError):
            if (path / "sweep.json").is_file():  # another shard was quicker
                return _folder(path, base, over, runs, device, workers)
            if attempt == RIVALS:
                raise
        else:
            break
    return path


def _make_folder(path, document):
    """The folder of a new sweep; shards that begin together have a draft each, and the first one gets the name."""
    check_new(path)
    with drafted(path, f".{path.name}.{uuid.uuid4().hex}.new") as draft:
        (draft.folder / "runs").mkdir()
        (draft.folder / "batches").mkdir()
        write_json(draft.folder / "sweep.json", {**document, "made_with": made_with()})
    draft.held.release()


def _check_plain(document):
    """Settings go to other processes and into a file, so functions of the user's cannot be among them."""
    try:
        json.dumps(document)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"base = … is not accepted: expected values that a TOML file can hold ({error}).") from None


def _same_sweep(path, known, wanted):
    for part in ("base", "over"):
        plain = {"base": plain_settings, "over": plain_axes}[part]
        there = plain(known[part])  # an earlier version kept paths as they were given
        here = wanted[part]
        for key in sorted({*there, *here} - {"device"}):
            if there.get(key) != here.get(key):
                raise InvalidInput(
                    f"store = {str(path)!r} is not accepted: it holds another sweep, in which {part}.{key} is "
                    f"{shorten(there.get(key))} and not {shorten(here.get(key))}."
                )


def _make(folder, shard, device, workers, executor, progress):
    """Make or finish the runs of a shard; returns the Sweep with what failed."""
    document = read_sweep_json(folder)
    units = _units(document)[shard[0] :: shard[1]]
    jobs = _jobs(Sweep(folder, document), document, units, device)
    waiting = sum(len(job.settings) for job in jobs)
    total = sum(len(names) for _, names in units)
    failures = {}
    shown = RunsDisplay(progress, total, total - waiting)
    results = run_all(make_job, jobs, workers, executor, one_core=not device.is_accelerator)
    try:
        with terminable():
            for job, result, error in results:
                lost = ("failed", f"{type(error).__name__}: {error}")
                for name, (status, detail) in (result or dict.fromkeys(job.settings, lost)).items():
                    if status == "failed":
                        failures[name] = detail
                    shown.update(name, status)
    except KeyboardInterrupt as error:
        number = getattr(error, "signal", signal.SIGINT)
        kept = f"interrupted; what was made is in {folder}, and the same sweep goes on with it"
        raise Interrupted(kept, None, number) from None
    finally:
        results.close()
        shown.stop()
    made = Sweep(folder, document, failures)
    if failures and len(failures) == total:
        name, reason = next(iter(failures.items()))
        raise RunsFailed(f"every run of {folder} failed ({total} in all); {name}: {reason}", made)
    return made


class Job(NamedTuple):
    """What a worker makes at a time: a run, or a batch of them.

    owner     of a batch: whose it is; None for a run
    path      of the batch's file, or of the run directory
    settings  {name of a run: its settings}
    """

    owner: str | None
    path: str
    settings: dict[str, dict[str, Any]]


def _units(document):
    """[(number of a batch or None, names)] of what is made at a time, in the order of the runs."""
    batches = document.get("batches", {})
    batch_of = {name: number for number, names in batches.items() for name in names}
    units: dict[str, tuple[str | None, list[str]]] = {}
    for name in document["runs"]:
        number = batch_of.get(name)
        units.setdefault(number or name, (number, [] if number is None else batches[number]))
        if number is None:
            units[name][1].append(name)
    return list(units.values())


def _jobs(made, document, units, device):
    """A Job for each part of what is to be made. Paths are absolute: a worker may live elsewhere."""
    statuses = made.statuses()
    folder = made.path.absolute()
    jobs = []
    place = {"device": device.name, **({"threads": 1} if device.is_accelerator else {})}
    for number, names in units:
        waiting = [name for name in names if statuses[name] not in ENDED]
        settings = {name: {**_absolute(document["runs"][name]), **place} for name in names}
        if number is not None and (not batch_path(folder, number).is_file() or "running" in map(statuses.get, names)):
            jobs.append(Job(owner_in(document, number), str(batch_path(folder, number)), settings))
        else:  # a run that a batch could not make is tried alone
            jobs += [Job(None, str(folder / "runs" / name), {name: settings[name]}) for name in waiting]
    return jobs


def _absolute(settings):
    return {key: str(Path(value).absolute()) if key in path_words() else value for key, value in settings.items()}


def make_job(job):
    """Make what a Job says: {name: (status, detail)}. In a worker."""
    if job.owner is not None:
        return make_batch(job.path, job.settings, job.owner)
    ((name, keys),) = job.settings.items()
    return {name: make_run((job.path, keys))}


def make_run(job):
    """Train the run of a sweep, or finish it. job: (path, settings). Returns (status, detail), in a worker.

    Raises Interrupted when the worker is told to end: the run is saved then.
    """
    path = Path(job[0])
    settings = job[1]
    try:
        if not path.parent.is_dir():
            raise StoreError(f"{path.parent} was removed in the meantime.")
        if (path / "config.json").is_file():
            places = {key: settings.get(key) for key in ("threads", "device")}
            run = resume_run(path, progress=False, **places)
        else:
            run = train(**Experiment.from_words(settings).arguments(), store=path, progress=False, forecast=False)
    except Exception as error:  # a row of the table; the other runs go on
        return "failed", f"{type(error).__name__}: {error}"
    return run.status, run.detail


@usual_errors
def forecast_sweep(
    base: dict[str, Any], over: dict[str, Any], workers: int | None = None, device: str | None = None
) -> dict[str, Any]:
    """{runs, seconds, bytes}: what a sweep will take, from timing a few steps for each kind of network and method."""
    from lrbias.forecasts import cost
    from lrbias.sweeps._batches import batched_cost

    base, over, runs = _expanded(base, over, device)
    place = resolve(base.get("device", CPU.name))
    workers = _check_workers(workers, place)
    batched = {name: len(names) for names in plan_batches(runs, place, workers).values() for name in names}
    known: dict[Any, tuple[float, int]] = {}
    seconds = 0.0
    size = 0
    for name, settings in runs.items():
        kind = (name in batched, *(repr(settings.get(key)) for key in COSTLY))
        if kind not in known:
            whole = Experiment.from_words(settings)
            arguments = whole.arguments()
            del arguments["stop"], arguments["threads"], arguments["device"]
            arguments["execution"] = Execution(device=place, compress=arguments.pop("compress"))
            with place.fitting():
                one = name not in batched
                known[kind] = cost(**arguments, alone=True) if one else batched_cost(whole, place, batched[name])
        seconds = seconds + known[kind][0]
        size = size + known[kind][1]
    return {"runs": len(runs), "seconds": seconds / min(workers, len(runs)), "bytes": size}


COSTLY = (  # what runs that cost the same have in common
    *("shape", "widths", "depth", "target", "crop", "network", "method", "scheme", "dtype", "steps", "every"),
    *("metrics", "directions", "checkpoint_every", "init", "compress", "batch", "observed", "ridge"),
    *("inputs", "outputs"),
)
