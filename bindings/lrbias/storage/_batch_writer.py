"""A batch in progress: what its runs have recorded so far, in memory, and the file that is replaced by all of it."""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lrbias.errors import StoreError
from lrbias.storage._batch import ROWS, Member, columns_of, read_batch, write_batch
from lrbias.storage._format import LOSSES
from lrbias.storage._protocol import Arrays
from lrbias.storage._quantity import Group

TRAINING = "training goes on, or was killed"
GOES_ON = ("running", "interrupted")


class Entry(NamedTuple):
    """A run of a batch: quantities {name: interval, shape, dtype}, as config.json has them; its target (n_N, n_0)."""

    name: str
    settings: dict[str, Any]
    quantities: dict[str, dict[str, Any]]
    target: np.ndarray


class BatchWriter:
    """The arrays of a batch file by their names, and its document, while they are being made.

    entries    an Entry for each run
    start      (runs, parameters): the layers at step 0
    facts      what else the document says: steps, widths, made_with
    """

    def __init__(
        self, path: Path, owner: str, entries: Sequence[Entry], start: np.ndarray, facts: dict[str, Any]
    ) -> None:
        self.path = Path(path)
        self._owner = owner
        self._facts = facts
        self._step = 0
        self._elapsed = 0.0
        self._layouts: list[dict[str, Any]] = []
        self._checkpoints = {0: start}
        self._arrays = {LOSSES: np.full((len(entries), facts["steps"] + 1), np.nan, start.dtype)}
        self._arrays["params"] = start
        self._arrays["targets"] = np.stack([entry.target for entry in entries])
        for interval, width in _widths(entries).items():
            shape = len(entries), facts["steps"] // interval + 1, width
            self._arrays[f"{ROWS}{interval}"] = np.full(shape, np.nan)
        self.intervals = sorted(_widths(entries))
        self.members = [MemberWriter(self, self._described(entry)) for entry in entries]
        self.index = {member.path.name: place for place, member in enumerate(self.members)}

    def _described(self, entry: Entry) -> dict[str, Any]:
        """What the document says of a run that begins."""
        if entry.quantities not in self._layouts:
            self._layouts.append(entry.quantities)
        where = self._layouts.index(entry.quantities)
        reached = {"status": "new", "detail": "no step was made yet", "step": 0}
        return {"name": entry.name, "settings": entry.settings, **reached, "layout": where}

    @property
    def document(self) -> dict[str, Any]:
        listed = [member.described for member in self.members]
        return {
            "step": self._step,
            "elapsed": self._elapsed,
            **self._facts,
            "layouts": self._layouts,
            "members": listed,
        }

    @functools.cached_property
    def columns(self) -> list[dict[str, slice]]:
        return [columns_of(listed)[0] for listed in self._layouts]

    def __getitem__(self, name: str) -> np.ndarray:
        if name == "checkpoint_steps":
            return np.array(list(self._checkpoints))
        return np.stack([*self._checkpoints.values()]) if name == "checkpoints" else self._arrays[name]

    def restore(self) -> int:
        """Go on with what the file holds; returns the step that it has reached, 0 where there is none."""
        if not self.path.is_file():
            return 0
        batch = read_batch(self.path, self._owner)
        known = batch.document["members"]
        if [each["name"] for each in known] != list(self.index):
            raise StoreError(f"{self.path} holds other runs than this batch; remove it, and they are made anew.")
        self._step = batch.document["step"]
        self._elapsed = batch.document["elapsed"]
        for member, each in zip(self.members, known, strict=True):
            member.described.update({key: each[key] for key in ("status", "detail", "step")})
        names = [LOSSES, "params", *(f"{ROWS}{interval}" for interval in batch.intervals)]
        self._arrays.update({name: batch[name].copy() for name in names})
        steps = batch["checkpoint_steps"].tolist()
        self._checkpoints = dict(zip(steps, batch["checkpoints"], strict=True))
        return self._step

    def progress(self) -> dict[str, Any]:
        return {"step": self._step, "elapsed": self._elapsed}

    def keep(self, step: int, params: np.ndarray) -> None:
        """A checkpoint of all runs, unless there is one of that step."""
        self._checkpoints.setdefault(step, params)

    def write_checkpoint(self, step: int, arrays: Arrays, widths: Sequence[int]) -> None:
        """What all runs go on from; the last one stays."""
        self._arrays["params"] = arrays["params"]

    def commit(
        self, step: int, checkpoint: int, status: str, detail: str, intervals: list[int], elapsed: float
    ) -> None:
        """Replace the file by all that is known now; status and detail are those of the batch, its runs have theirs."""
        self._step = step
        self._elapsed = elapsed
        if status not in GOES_ON:
            self.keep(step, self._arrays["params"])
        self.save()

    def save(self) -> None:
        kept = {name: self[name] for name in ("checkpoint_steps", "checkpoints")}
        write_batch(self.path, self.document, {**self._arrays, **kept}, self._owner)

    def close(self) -> None:
        """Nothing: whoever made it has the lock."""


class MemberWriter(Member):
    """One run of a batch in progress: what is written goes into the arrays of the batch, and into its file with the
    next commit of that."""

    def __init__(self, batch: BatchWriter, described: dict[str, Any]) -> None:
        super().__init__(Path(described["name"]))
        self._writer = batch
        self.described = described

    @property
    def _batch(self) -> BatchWriter:
        return self._writer

    @property
    def _member(self) -> dict[str, Any]:
        return self.described

    @property
    def going(self) -> bool:
        """Whether the run goes on."""
        return self.described["status"] in ("new", "running")

    def rows(self, groups: Iterable[Group]) -> dict[str | Group, Any]:
        """{quantity: its rows, flat; Group: (the rows of all of its interval, which columns are its own)}: views to
        write to."""
        return {name: self._rows_of(name) for name in self._quantities} | {each: self._table(each) for each in groups}

    def _table(self, group: Group) -> tuple[np.ndarray, np.ndarray]:
        slices = self._batch.columns[self.described["layout"]]
        own = [np.arange(slices[name].start, slices[name].stop) for name in group.places]
        return self._batch[f"{ROWS}{group.interval}"][self._place], np.concatenate(own)

    def write_block(self, name: str, index: int, block: np.ndarray) -> None:
        """Rows index · len(block) … of a quantity, as far as the run can have any."""
        self._write(name, index * len(block), block)

    def write_tail(self, tails: dict[str, tuple[int, np.ndarray]]) -> None:
        """{name: (first row, rows)}."""
        for name, (first, rows) in tails.items():
            self._write(name, first, rows)

    def _write(self, name: str, first: int, rows: np.ndarray) -> None:
        there = self._rows_of(name)[first : first + len(rows)]
        there[:] = rows[: len(there)].reshape(there.shape)

    def write_checkpoint(self, step: int, arrays: Arrays, widths: Sequence[int]) -> None:
        """Only the layers are kept: methods of a batch need nothing else."""
        checkpoints = self._batch._checkpoints
        if step not in checkpoints:
            checkpoints[step] = self._batch["params"].copy()
        checkpoints[step][self._place] = arrays["params"]

    def commit(
        self, step: int, checkpoint: int, status: str, detail: str, intervals: list[int], elapsed: float
    ) -> None:
        """In the batch's file an interrupted run is one that goes on."""
        running = status in GOES_ON
        self.described.update(
            status="running" if running else status, detail=TRAINING if running else detail, step=step
        )

    def close(self) -> None:
        """Nothing: the batch goes on."""


def _widths(entries: Sequence[Entry]) -> dict[int, int]:
    """{interval: columns that the widest of the runs has}."""
    widths: dict[int, int] = {}
    for entry in entries:
        for interval, width in columns_of(entry.quantities)[1].items():
            widths[interval] = max(width, widths.get(interval, 0))
    return widths
