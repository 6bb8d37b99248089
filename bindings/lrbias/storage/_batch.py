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

The file says whose it is (see `archives`): its owner is a hash of the names and settings of its runs, as the sweep
lists them, so that a batch of another sweep, or one under another number, is not taken for this one.
"""

import functools
import hashlib
import json
import math
import os
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lrbias.errors import InvalidInput, StoreError
from lrbias.storage._documents import Count, Name, NonNegativeInt, Quantity, Text
from lrbias.storage._earlier import current_quantities, current_settings
from lrbias.storage._format import LOSSES, progress_document, read_json
from lrbias.storage._protocol import Arrays
from lrbias.system import Damaged, as_path, check_seal, expect, pack, parsing, read_bytes, unpack, write_file
from lrcore import layout

FORMAT = 3  # 1: without an owner; 1 and 2: with the words of `_earlier`
ROWS = "rows/"
WHAT = "batch"
# settings that may be others when a batch is finished: where it is made, and where its files lie
PLACE = ("device", "threads", "target", "network", "observed", "inputs", "outputs")


def columns_of(quantities: dict[str, Any]) -> tuple[dict[str, slice], dict[int, int]]:
    """({name: its columns}, {interval: number of columns}) of {name: {interval, shape, …}}, without the losses."""
    columns = {}
    widths: dict[int, int] = {}
    for name, quantity in quantities.items():
        if name != LOSSES:
            first = widths.get(quantity["interval"], 0)
            last = first + math.prod(quantity["shape"])
            columns[name] = slice(first, last)
            widths[quantity["interval"]] = last
    return columns, widths


def batch_owner(settings: dict[str, dict[str, Any]]) -> str:
    """Whose a batch of the runs {name: settings} is."""
    kept = {name: {key: own[key] for key in own if key not in PLACE} for name, own in settings.items()}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:32]


def owner_in(document: dict[str, Any], number: str) -> str:
    """Whose batch `number` of the sweep is that sweep.json describes."""
    if number in document.get("owners", {}):
        return document["owners"][number]
    return batch_owner({name: document["runs"][name] for name in document["batches"][number]})


def write_batch(path: Path, document: dict[str, Any], arrays: Arrays, owner: str) -> None:
    """Replace the batch at `path`."""
    text = np.array(json.dumps({**document, "format": FORMAT}))
    write_file(path, pack({"document": text, **arrays}, owner, WHAT))


def read_batch(path: Path, owner: str | None = None) -> "Batch":
    """The Batch at `path` as it is now; StoreError when it is damaged, or not that of `owner` (None: of whomever).

    The last one that was read stays in memory.
    """
    try:
        now = os.stat(path)
        return _read(Path(path), owner, (now.st_ino, now.st_mtime_ns, now.st_size))
    except FileNotFoundError:
        raise StoreError(f"{path} is missing; the same sweep started again makes its runs anew.") from None
    except (Damaged, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StoreError(
            f"{path} is damaged ({reason}); without it the same sweep, started again, makes its runs anew."
        ) from None


@functools.lru_cache(maxsize=1)
def _read(path: Path, owner: str | None, now: tuple[int, int, int]) -> "Batch":
    return Batch(path, read_bytes(path), owner)


class _MemberDocument(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: Text
    settings: dict[Text, object]
    status: Text
    detail: Text
    step: NonNegativeInt
    layout: NonNegativeInt


class _BatchDocument(BaseModel):
    model_config = ConfigDict(extra="allow")
    format: Count
    step: NonNegativeInt
    steps: Count
    elapsed: float
    widths: list[Count] = Field(min_length=2)
    layouts: list[dict[Name, Quantity]] = Field(min_length=1)
    members: list[_MemberDocument] = Field(min_length=1)
    made_with: dict[Text, object]


class Batch:
    """What a batch file holds, all of it verified: `document`, and arrays by their names."""

    def __init__(self, path: Path, data: bytes, owner: str | None) -> None:
        self.path = path
        self._arrays = unpack(data)
        self.document = _parsed(self._arrays)
        if self.document["format"] > FORMAT:
            raise StoreError(f"{path} has format {self.document['format']}; this version reads {FORMAT}.")
        if self.document["format"] >= 2 and owner is not None:
            check_seal(data, owner, WHAT)
        self.index = {member["name"]: i for i, member in enumerate(self.document["members"])}
        with parsing():
            self.intervals = [int(name[len(ROWS) :]) for name in self._arrays if name.startswith(ROWS)]
            self._check()

    def _check(self) -> None:
        """Damaged unless the arrays have the shapes that the document says."""
        arrays = self._arrays
        document = self.document
        runs = len(document["members"])
        steps = document["steps"]
        widths = document["widths"]
        size = layout.size(widths)
        dtype = document["layouts"][0][LOSSES]["dtype"]
        kept = len(expect(arrays, "checkpoint_steps", (None,), "i8"))
        expect(arrays, LOSSES, (runs, steps + 1), dtype)
        expect(arrays, "params", (runs, size), dtype)
        expect(arrays, "checkpoints", (kept, runs, size), dtype)
        expect(arrays, "targets", (runs, widths[-1], widths[0]), arrays["targets"].dtype)
        for listed in document["layouts"]:
            for interval, columns in columns_of(listed)[1].items():
                rows = expect(arrays, f"{ROWS}{interval}", (runs, steps // interval + 1, None), "f8")
                if rows.shape[2] < columns:
                    raise Damaged(f"{ROWS}{interval} has {rows.shape[2]} columns, not {columns}")
        places = {member["layout"] for member in document["members"]}
        if len(self.index) != runs or max(places) >= len(document["layouts"]) or document["step"] > steps:
            raise Damaged("its document contradicts itself")

    @functools.cached_property
    def columns(self) -> list[dict[str, slice]]:
        return [columns_of(listed)[0] for listed in self.document["layouts"]]

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]


def _parsed(arrays: Arrays) -> dict[str, Any]:
    """The document of a batch; Damaged unless it is one."""
    text = expect(arrays, "document", (), arrays["document"].dtype if "document" in arrays else "U1")
    try:
        document = json.loads(str(text))
        _BatchDocument.model_validate(document)
    except (ValueError, RecursionError, ValidationError) as error:
        raise Damaged(f"its document is none: {' '.join(str(error).split())[:200]}") from None
    return document if document["format"] == FORMAT else _current(document)


def _current(document: dict[str, Any]) -> dict[str, Any]:
    """The document of a batch of an earlier format, in the words of today."""
    members = [{**member, "settings": current_settings(member["settings"])} for member in document["members"]]
    layouts = [
        {name: quantities[stored] for name, stored in current_quantities(quantities).items()}
        for quantities in document["layouts"]
    ]
    return {**document, "members": members, "layouts": layouts}


def find_batched(path: str | PathLike[str]) -> "MemberFolder | None":
    """The MemberFolder for the path SWEEP/runs/NAME of a run that a sweep keeps in a batch, or None."""
    path = as_path("path", path)
    sweep = path.parent.parent
    if path.parent.name != "runs" or (path / "config.json").exists() or not (sweep / "batches").is_dir():
        return None
    document = read_json(sweep / "sweep.json")
    for number, names in document.get("batches", {}).items():
        if path.name in names and batch_path(sweep, number).is_file():
            return member_at(sweep, number, path.name, owner_in(document, number))
    return None


def batch_path(sweep: Path, number: str) -> Path:
    return Path(sweep) / "batches" / f"{number}.npz"


def member_at(sweep: Path, number: str, name: str, owner: str) -> "MemberFolder | None":
    """The MemberFolder of a run in batch `number`, or None where that has no such run."""
    file = batch_path(sweep, number)
    return MemberFolder(file, Path(sweep) / "runs" / name, owner) if name in read_batch(file, owner).index else None


class Members(Protocol):
    """What holds the runs of a batch: a Batch, or a BatchWriter. index: the place of each by its name."""

    index: dict[str, int]
    intervals: list[int]

    @property
    def columns(self) -> list[dict[str, slice]]:
        """{quantity: its columns} of each layout of rows."""

    @property
    def document(self) -> dict[str, Any]:
        """What the file says of its runs."""

    def __getitem__(self, name: str) -> np.ndarray:
        """An array of the file."""


class Member:
    """One run of a batch, read from what holds the batch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def _batch(self) -> Members:
        raise NotImplementedError

    @property
    def _place(self) -> int:
        return self._batch.index[self.path.name]

    @property
    def _member(self) -> dict[str, Any]:
        return self._batch.document["members"][self._place]

    def config(self) -> dict[str, Any]:
        document = self._batch.document
        member = self._member
        return {
            "settings": {**member["settings"], "steps": document["steps"]},
            "widths": document["widths"],
            "quantities": self._quantities,
            "functions": [],
            "reduced": None,
            "made_with": document["made_with"],
        }

    def data(self) -> tuple[Any, ...]:
        return self._batch["targets"][self._place], {}

    def progress(self) -> dict[str, Any]:
        document = self._batch.document
        member = self._member
        elapsed = document["elapsed"] / len(document["members"])
        reached = self.checkpoint_steps()[-1]
        progress = member["step"], reached, member["status"], member["detail"]
        intervals = [] if member["status"] == "new" else self._batch.intervals
        return progress_document(*progress, intervals, elapsed)

    @property
    def _quantities(self) -> dict[str, Any]:
        return self._batch.document["layouts"][self._member["layout"]]

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        quantity = self._quantities[name]
        rows = self._rows_of(name)[start : max(start, stop)]
        return rows.reshape(len(rows), *quantity["shape"]).astype(quantity["dtype"])

    def _rows_of(self, name: str) -> np.ndarray:
        """The part of an array of the batch that has the rows of a quantity: a view."""
        if name == LOSSES:
            return self._batch[LOSSES][self._place]
        quantities = self._quantities
        columns = self._batch.columns[self._member["layout"]][name]
        return self._batch[f"{ROWS}{quantities[name]['interval']}"][self._place, :, columns]

    def checkpoint_steps(self) -> list[int]:
        """A run that diverged has those from before that."""
        member = self._member
        steps = self._batch["checkpoint_steps"].tolist()
        diverged = member["status"] == "diverged"
        return [step for step in steps if step < member["step"] or (step == member["step"] and not diverged)]

    def checkpoint(self, step: int) -> np.ndarray:
        place = self._batch["checkpoint_steps"].tolist().index(step)
        return self._batch["checkpoints"][place, self._place].copy()

    def checkpoint_arrays(self, step: int) -> Arrays:
        return {"params": self.checkpoint(step)}

    def rows_at_once(self, name: str) -> int:
        """All of them: the file is read, and verified, as a whole."""
        return self._batch.document["steps"] + 1

    def problems(self) -> list[str]:
        """None: a file that was read is intact."""
        return []


class MemberFolder(Member):
    """One run of a batch file, with the methods for reading that a run directory has."""

    def __init__(self, file: Path, path: Path, owner: str) -> None:
        super().__init__(path)
        self._file = file
        self._owner = owner

    @property
    def _batch(self) -> Batch:
        return read_batch(self._file, self._owner)


def refuse_writing(path: str | PathLike[str]) -> None:
    """InvalidInput for a run that is kept in a batch: it has no directory to be continued in."""
    if find_batched(path) is not None:
        raise InvalidInput(
            f"path = {str(path)!r} is not accepted: expected a run directory, but this run is kept in a batch of its "
            "sweep; the sweep finishes it, and `lrbias run` with its settings and more steps takes it further."
        )
