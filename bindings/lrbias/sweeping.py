"""Many runs: a sweep makes a run for every combination of settings, in a folder that is also the queue.

    sweep.json          base, axes and the settings of every run; checksummed
    runs/NAME/          a run directory for each; NAME says what is varied

Finished runs are skipped, broken ones are resumed, so a sweep that was killed is started again with the same words. A
run that diverges is a row like the others; one that fails says why and is tried again next time.
"""

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import threading
import uuid
from pathlib import Path

import numpy as np

from lrbias import experiment
from lrbias.axes import expand, listed, varied_keys
from lrbias.errors import Interrupted, InvalidInput, StoreError, require, shorten
from lrbias.progress import RunsDisplay
from lrbias.run import open as open_run
from lrbias.settings import Count, validate
from lrbias.store import check_new, read_json, write_file, write_json
from lrbias.threads import cores
from lrbias.training import made_with, train
from lrbias.training import resume as resume_run
from lrbias.workers import run_all

FORMAT = 1
ENDED = ("finished", "stopped", "diverged")


def sweep(base, over, store, workers=None, executor=None, shard=None, progress=None):
    """Make the runs of a sweep that are not made yet, and return the Sweep.

    base      keys of an experiment that all runs share (see `lrbias run --help`); what is left out has its default
    over      {key: values}: a run for every combination; values that go together are one key with commas:
              {"depth,teacher_depth": [(2, 2), (3, 3)], "seed": range(5)}. A seed that is not varied is the same in all
    store     the folder of the sweep; an existing one must be of the same sweep, which then goes on
    workers   how many processes, each with one thread; None: one for each core
    executor  any executor of concurrent.futures instead, whose workers see the same files
    shard     (i, n): only every n-th run, from the i-th on (0 ≤ i < n), for job arrays that share the folder
    progress  True or False; None shows it on a terminal

    Raises InvalidInput, before anything is made, when the settings of any run are not accepted or `store` holds
    something else. What only making a run can show, as a target file that is not there, is a row of the table.
    """
    runs = expand(base, over)
    require(executor is None or hasattr(executor, "submit"), "executor", executor, "one of concurrent.futures, or None")
    workers = cores() if workers is None else validate(Count, "workers", workers)
    chosen = _shard(list(runs), shard)
    folder = _folder(Path(store), base, over, runs)
    return _make(folder, chosen, workers, executor, progress)


def open_sweep(path):
    """The Sweep at `path`, as far as it is."""
    require((Path(path) / "sweep.json").is_file(), "path", str(path), "a sweep directory, as lrbias sweep writes it")
    document = read_json(Path(path) / "sweep.json")
    if document.get("format") != FORMAT:
        raise StoreError(f"{path}/sweep.json has format {document.get('format')}; this version reads {FORMAT}.")
    return Sweep(Path(path), document)


class Sweep:
    """The runs of a sweep.

    sweep.names      of all runs, in order; sweep[name] is the Run, sweep.settings(name) its settings
    sweep.varied     the keys that differ between them
    sweep.table()    a dictionary for every run: what is varied, status, losses, ranks, escape steps
    sweep.to_csv(…)  the same as a file, sweep.to_xarray() as an array with an axis for everything that is varied
    """

    def __init__(self, path, document, failures=None):
        self.path, self._document, self._failures = path, document, failures or {}

    @property
    def names(self):
        return list(self._document["runs"])

    @property
    def varied(self):
        return varied_keys(self._document["over"])

    def settings(self, name):
        require(name in self._document["runs"], "name", name, f"a run of this sweep ({shorten(self.names)})")
        return self._document["runs"][name]

    def __getitem__(self, name):
        self.settings(name)
        return open_run(self.path / "runs" / name)

    def __len__(self):
        return len(self.names)

    def table(self):
        """One dictionary a run. What a run has not got (yet) is None."""
        return [self._row(name) for name in self.names]

    def _row(self, name):
        settings = self.settings(name)
        row = {"run": name, **{key: settings[key] for key in self.varied}}
        folder = self.path / "runs" / name
        empty = dict.fromkeys((*NUMBERS, "escape_steps"))
        if name in self._failures:
            return {**row, "status": "failed", "detail": self._failures[name], **empty}
        if not (folder / "config.json").is_file():
            return {**row, "status": "missing", "detail": "not made yet", **empty}
        run = open_run(folder)
        facts = run.summary()
        escapes = facts.get("escape_steps")
        return {
            **row,
            "status": run.status,
            "detail": run.detail,
            "step": run.step,
            "t": run.step * run.step_size,
            "elapsed_s": run.elapsed,
            "first_loss": facts["first_loss"],
            "last_loss": facts["last_loss"],
            **{name: _last(run, name) for name in FINAL},
            "escaped": None if escapes is None else sum(step is not None for step in escapes),
            "plateaus": None if facts.get("plateaus") is None else len(facts["plateaus"]),
            "escape_steps": escapes,
        }

    def counts(self):
        """{status: number of runs}."""
        counts = {}
        for row in self.table():
            counts[row["status"]] = counts.get(row["status"], 0) + 1
        return counts

    def to_xarray(self):
        """The table as an xarray.Dataset (extra `xarray`), a dimension for every axis of the sweep.

        An axis of several settings has its rows as dimension, numbered, and each of its settings as a coordinate.
        Escape steps have a dimension `mode` more; NaN where a value did not escape.
        """
        try:
            import xarray
        except ImportError:
            raise InvalidInput("to_xarray needs xarray: pip install 'lrbias[xarray]'.") from None
        rows, over = self.table(), self._document["over"]
        dimensions = [key.replace(",", "_") for key in over]
        shape = [len(values) for values in over.values()]
        coordinates = {}
        for (key, values), dimension in zip(over.items(), dimensions, strict=True):
            names = varied_keys([key])
            columns = [values] if len(names) == 1 else zip(*values, strict=True)
            for name, column in zip(names, columns, strict=True):
                coordinates[name] = (dimension, [_cell(value) for value in column])
        modes = max((len(row["escape_steps"] or []) for row in rows), default=0)
        escapes = np.full((len(rows), modes), np.nan)
        for i, row in enumerate(rows):
            found = [np.nan if step is None else step for step in row["escape_steps"] or []]
            escapes[i, : len(found)] = found
        variables = {"escape_steps": ((*dimensions, "mode"), escapes.reshape(*shape, modes))}
        for name in ("run", "status", *NUMBERS):
            kind = object if name in ("run", "status") else float
            column = np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=kind)
            variables[name.replace("/", "_")] = (tuple(dimensions), column.reshape(shape))
        return xarray.Dataset(variables, coordinates)

    def to_csv(self, path):
        """Write the table; lists are joined by spaces, what is missing is empty."""
        rows, text = self.table(), io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _cell(value) for key, value in row.items()})
        write_file(Path(path), text.getvalue().encode())

    def __repr__(self):
        counts = ", ".join(f"{number} {status}" for status, number in self.counts().items())
        return f"Sweep over {', '.join(self.varied)}: {len(self)} runs ({counts}), store: {self.path}"


FINAL = ("product/effective_rank", "product/stable_rank", "product/numerical_rank")  # last rows in the table
NUMBERS = ("step", "t", "elapsed_s", "first_loss", "last_loss", *FINAL, "escaped", "plateaus")


def _last(run, name):
    return run[name][-1].item() if name in run and len(run.steps_of(name)) else None


def _cell(value):
    if isinstance(value, (list, tuple)):
        return " ".join("" if entry is None else str(entry) for entry in value)
    return value


def _shard(names, shard):
    if shard is None:
        return names
    fits = isinstance(shard, (list, tuple)) and len(shard) == 2 and all(isinstance(number, int) for number in shard)
    require(fits and 0 <= shard[0] < shard[1], "shard", shard, "two integers (i, n) with 0 ≤ i < n")
    return names[shard[0] :: shard[1]]


def _folder(path, base, over, runs):
    """The folder of the sweep, made or recognised."""
    document = {
        "format": FORMAT,
        "base": _listed(base),
        "over": {key: listed(values) for key, values in over.items()},
        "runs": {name: _listed(settings) for name, settings in runs.items()},
    }
    if (path / "sweep.json").is_file():
        known = read_json(path / "sweep.json")
        _same_sweep(path, known, document)
        return path
    _check_plain(document)
    check_new(path)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    try:
        (draft / "runs").mkdir(parents=True)
        write_json(draft / "sweep.json", {**document, "made_with": made_with()})
        os.rename(draft, path)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        if (path / "sweep.json").is_file():  # another shard was quicker
            return _folder(path, base, over, runs)
        raise InvalidInput(f"store = {str(path)!r} is not accepted: it cannot be made ({error.strerror}).") from None
    return path


def _check_plain(document):
    """Settings go to other processes and into a file, so functions of the user's cannot be among them."""
    try:
        json.dumps(document)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"base = … is not accepted: expected values that a TOML file can hold ({error}).") from None


def _listed(settings):
    return {key: listed(value) for key, value in settings.items()}


def _same_sweep(path, known, wanted):
    for part in ("base", "over"):
        there, here = known[part], wanted[part]
        for key in sorted({*there, *here}):
            if there.get(key) != here.get(key):
                raise InvalidInput(
                    f"store = {str(path)!r} is not accepted: it holds another sweep, in which {part}.{key} is "
                    f"{shorten(there.get(key))} and not {shorten(here.get(key))}."
                )


def _make(folder, names, workers, executor, progress):
    """Make or finish the runs `names`; returns the Sweep with what failed."""
    document = read_json(folder / "sweep.json")
    waiting = [name for name in names if not _has_ended(folder / "runs" / name)]
    failures, shown = {}, RunsDisplay(progress, len(names), len(names) - len(waiting))
    jobs = [(str(folder / "runs" / name), document["runs"][name]) for name in waiting]
    results = run_all(make_run, jobs, workers, executor)
    try:
        with _terminable():
            for (path, _), result, error in results:
                name = Path(path).name
                status, detail = result or ("failed", f"{type(error).__name__}: {error}")
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
    return Sweep(folder, document, failures)


@contextlib.contextmanager
def _terminable():
    """SIGTERM is like Ctrl-C, where Python lets us say so: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number, frame):
        raise Interrupted("terminated", None, number)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _has_ended(path):
    """Is there nothing left to do for the run at `path`?"""
    return (path / "config.json").is_file() and open_run(path).status in ENDED


def make_run(job):
    """Train the run of a sweep, or finish it. job: (path, settings). Returns (status, detail), in a worker.

    Raises Interrupted when the worker is told to end: the run is saved then.
    """
    path, settings = Path(job[0]), job[1]
    try:
        if (path / "config.json").is_file():
            run = resume_run(path, progress=False)
        else:
            whole = experiment.Experiment(**settings)
            problem = whole.problem()
            method, record, stop = whole.parts()
            network = whole.student(problem)
            run = train(
                problem,
                network,
                method,
                whole.steps,
                record,
                stop,
                whole.checkpoint_every,
                path,
                progress=False,
                forecast=False,
                threads=whole.threads,
            )
    except Exception as error:  # a row of the table; the other runs go on
        return "failed", f"{type(error).__name__}: {error}"
    return run.status, run.detail


def forecast_sweep(base, over, workers=None):
    """{runs, seconds, bytes}: what a sweep will take, from timing a few steps for each kind of network and method."""
    from lrbias.forecasting import cost

    runs = expand(base, over)
    known, seconds, size = {}, 0.0, 0
    for settings in runs.values():
        whole = experiment.Experiment(**settings)
        method, record, _ = whole.parts()
        kind = (str(whole.shape), str(whole.widths), whole.depth, whole.target, whole.method, whole.scheme, whole.dtype)
        kind = (*kind, whole.steps, whole.every, str(whole.metrics), whole.checkpoint_every)
        if kind not in known:
            problem = whole.problem()
            network = whole.student(problem)
            known[kind] = cost(problem, network, method, whole.steps, record, whole.checkpoint_every, alone=True)
        seconds, size = seconds + known[kind][0], size + known[kind][1]
    workers = cores() if workers is None else validate(Count, "workers", workers)
    return {"runs": len(runs), "seconds": seconds / min(workers, len(runs)), "bytes": size}
