"""A file of runs that were trained in lock-step, and each of them read as if it had a directory of its own.

A small run would leave a hundred small files behind, ten thousand of them a million. So a batch keeps all that its runs
recorded in one file, NUMBER.npz, which is replaced as a whole:

    document           JSON: step, elapsed, made_with, steps, widths, layouts of rows, and every run's name, settings,
                       status, detail and last step
    losses             (runs, steps + 1)
    rows/INTERVAL      (runs, records, columns): what is recorded every INTERVAL steps, one quantity after the other as
                       the run's layout says; integers as floats, which is exact
    params, targets    (runs, parameters), (runs, n_N, n_0)
    checkpoint_steps, checkpoints   (k,), (k, runs, parameters)
"""

import functools
import io
import json
from pathlib import Path

import numpy as np

from lrbias.errors import InvalidInput, StoreError
from lrbias.log import LOSSES
from lrbias.paths import as_path
from lrbias.store import DAMAGE, progress_document, read_json, write_file

FORMAT = 1
ROWS = "rows/"


def columns_of(quantities):
    """({name: its columns}, {interval: number of columns}) of {name: {interval, shape, …}}, without the losses."""
    columns, widths = {}, {}
    for name, quantity in quantities.items():
        if name != LOSSES:
            first = widths.get(quantity["interval"], 0)
            last = first + int(np.prod(quantity["shape"], dtype=np.int64))
            columns[name], widths[quantity["interval"]] = slice(first, last), last
    return columns, widths


def write_batch(path, document, arrays):
    """Replace the batch at `path`."""
    data = io.BytesIO()
    np.savez(data, document=np.array(json.dumps({**document, "format": FORMAT})), **arrays)
    write_file(path, data.getbuffer())


def read_batch(path):
    """The Batch at `path` as it is now. The last one that was read stays in memory; StoreError when it is damaged."""
    try:
        return _read(Path(path), Path(path).stat().st_mtime_ns)
    except FileNotFoundError:
        raise StoreError(f"{path} is missing; the same sweep started again makes its runs anew.") from None
    except DAMAGE as error:
        raise _damaged(path, error) from None


@functools.lru_cache(maxsize=1)
def _read(path, modified):
    return Batch(path, path.read_bytes())


def _damaged(path, error):
    return StoreError(f"{path} is damaged ({error}); without it the same sweep, started again, makes its runs anew.")


class Batch:
    """What a batch file holds. Arrays are read when they are asked for, and verified then."""

    def __init__(self, path, data):
        self.path = path
        self._archive, self._known = np.load(io.BytesIO(data), allow_pickle=False), {}
        self.document = json.loads(str(self._archive["document"]))
        if self.document["format"] != FORMAT:
            raise StoreError(f"{path} has format {self.document['format']}; this version reads {FORMAT}.")
        self.intervals = [int(name[len(ROWS) :]) for name in self._archive.files if name.startswith(ROWS)]
        self.index = {member["name"]: i for i, member in enumerate(self.document["members"])}

    def __getitem__(self, name):
        if name not in self._known:
            try:
                self._known[name] = self._archive[name]
            except DAMAGE as error:
                raise _damaged(self.path, error) from None
        return self._known[name]


def find_batched(path):
    """The MemberFolder for the path SWEEP/runs/NAME of a run that a sweep keeps in a batch, or None."""
    path = as_path("path", path)
    sweep = path.parent.parent
    if path.parent.name != "runs" or (path / "config.json").exists() or not (sweep / "batches").is_dir():
        return None
    for number, names in read_json(sweep / "sweep.json").get("batches", {}).items():
        if path.name in names and batch_path(sweep, number).is_file():
            return member_at(sweep, number, path.name)
    return None


def batch_path(sweep, number):
    return Path(sweep) / "batches" / f"{number}.npz"


def member_at(sweep, number, name):
    """The MemberFolder of a run in batch `number`, or None where that has no such run."""
    file = batch_path(sweep, number)
    return MemberFolder(file, Path(sweep) / "runs" / name) if name in read_batch(file).index else None


class MemberFolder:
    """One run of a batch, with the methods for reading that a run directory has."""

    def __init__(self, file, path):
        self._file, self.path = file, path

    @property
    def _batch(self):
        return read_batch(self._file)

    @property
    def _place(self):
        return self._batch.index[self.path.name]

    @property
    def _member(self):
        return self._batch.document["members"][self._place]

    def config(self):
        document, member = self._batch.document, self._member
        return {
            "settings": {**member["settings"], "steps": document["steps"]},
            "widths": document["widths"],
            "quantities": document["layouts"][member["layout"]],
            "functions": [],
            "reduced": None,
            "made_with": document["made_with"],
        }

    def data(self):
        return self._batch["targets"][self._place], {}

    def progress(self):
        document, member = self._batch.document, self._member
        elapsed = document["elapsed"] / len(document["members"])
        reached = self.checkpoint_steps()[-1]
        progress = member["step"], reached, member["status"], member["detail"]
        return progress_document(*progress, self._batch.intervals, elapsed)

    def read(self, name, start, stop):
        if name == LOSSES:
            return self._batch[LOSSES][self._place, start:stop]
        quantities = self.config()["quantities"]
        quantity, (columns, _) = quantities[name], columns_of(quantities)
        rows = self._batch[f"{ROWS}{quantity['interval']}"][self._place, start : max(start, stop), columns[name]]
        return rows.reshape(len(rows), *quantity["shape"]).astype(quantity["dtype"])

    def checkpoint_steps(self):
        """A run that diverged has those from before that."""
        member, steps = self._member, self._batch["checkpoint_steps"].tolist()
        diverged = member["status"] == "diverged"
        return [step for step in steps if step < member["step"] or (step == member["step"] and not diverged)]

    def checkpoint(self, step):
        place = self._batch["checkpoint_steps"].tolist().index(step)
        return self._batch["checkpoints"][place, self._place].copy()

    def checkpoint_arrays(self, step):
        return {"params": self.checkpoint(step)}


def refuse_writing(path):
    """InvalidInput for a run that is kept in a batch: it has no directory to be continued in."""
    if find_batched(path) is not None:
        raise InvalidInput(
            f"path = {str(path)!r} is not accepted: expected a run directory, but this run is kept in a batch of its "
            "sweep; the sweep finishes it, and `lrbias run` with its settings and more steps takes it further."
        )
