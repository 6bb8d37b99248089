"""Writing a run directory: one process at a time, every file whole or not there."""

import io
import uuid
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np

from lrbias.errors import InvalidInput, StoreError, shorten
from lrbias.storage import _zarr_log as zarr_log
from lrbias.storage._directory import RunFolder
from lrbias.storage._format import (
    FORMAT,
    MOST_JSON,
    Facts,
    capacity,
    check_new,
    chunk_rows,
    progress_document,
    shortened,
    write_json,
)
from lrbias.storage._protocol import Arrays
from lrbias.storage._quantity import Quantity
from lrbias.system import (
    LOCK,
    Damaged,
    Owner,
    drafted,
    lock,
    make_folder,
    not_written,
    pack,
    read_bytes,
    remove_file,
    write_file,
)


class RunWriter(RunFolder):
    """The one writer of a run directory. Use `create` or `reopen`, and `close` at the end."""

    def __init__(self, path: Path, held: Any) -> None:
        super().__init__(path)
        self._lock = held
        self._owner = Owner()
        self._room: dict[str, int] = {}
        self._written: set[int] = set()  # checkpoints since the last commit
        self._superseded: set[int] = set()

    def _require_own(self) -> None:
        """A forked child has a copy of this writer: StoreError before it overwrites what its parent has written."""
        if not self._owner.here:
            raise StoreError(f"{self.path} is being written by the process that this one was forked from.")

    @classmethod
    def create(
        cls,
        path: str | PathLike[str],
        config: dict[str, Any],
        extra_files: dict[str, str],
        data: tuple[Any, ...],
        start: Arrays | None,
        quantities: Sequence[Quantity],
        steps: int,
    ) -> Self:
        """A new run directory at `path`, complete with its first checkpoint; nothing is left behind on failure.

        data: (target, observed), as `Problem` has them; () for none. start: the arrays of that checkpoint, as for
        `write_checkpoint`; None for none. quantities, steps: what will be recorded, and the number of steps as far as
        it is known: arrays grow beyond it.
        """
        path = check_new(path)
        config = {**config, "format": FORMAT, "run": uuid.uuid4().hex}
        with drafted(path) as draft:
            writer = cls(draft.folder, draft.held)
            writer._known = Facts.of(config)
            (draft.folder / "checkpoints").mkdir()
            config.update(writer._write_constants(data, extra_files))
            writer.open_log(quantities, steps)
            if start is not None:
                writer.write_checkpoint(0, start, config.get("widths", ()))
            progress = progress_document(0, 0, "new", "no step was made yet", [], 0.0)
            writer._write_progress(progress, [] if start is None else [0])
            write_json(draft.folder / "config.json", config)
        writer.path = path
        writer._lock = draft.held
        return writer

    @classmethod
    def reopen(cls, path: str | PathLike[str]) -> Self:
        """The run at `path` for writing; StoreError when another process writes to it."""
        folder = RunFolder.existing(path)
        writer = cls(folder.path, lock(folder.path / LOCK, folder.path))
        try:
            for partial in folder.path.rglob("*.partial"):
                if partial.is_file():
                    partial.unlink()
        except OSError as error:
            writer.close()
            raise not_written(folder.path, error, folder.path) from error
        return writer

    def _write_constants(self, data: tuple[Any, ...], extra_files: dict[str, str]) -> dict[str, Any]:
        """What never changes: target.npy, observed.npz unless the whole target is seen, and texts. Returns what
        config.json says of them."""
        contents = {name: text.encode() for name, text in extra_files.items()}
        if data:
            target, observed = data
            file = io.BytesIO()
            np.save(file, target)
            contents["target.npy"] = file.getvalue()
            if observed:
                contents["observed.npz"] = pack(observed)
        for name, content in contents.items():
            write_file(self.path / name, content)
        files = {name: {"bytes": len(content), "crc32": zlib.crc32(content)} for name, content in contents.items()}
        named = {f"{Path(name).stem}_crc32": facts["crc32"] for name, facts in files.items() if name not in extra_files}
        return {**named, "files": files}

    def open_log(self, quantities: Sequence[Quantity], steps: int) -> None:
        """Make ready for rows up to `steps`: arrays grow when a resumed run goes further than planned, and what
        describes them is written anew where it is damaged."""
        quantities = [self._facts.quantities[quantity.name] for quantity in quantities]
        for name in zarr_log.group_names(quantities):
            path = self.path / "log.zarr" / name / "zarr.json"
            if _accepted(path, zarr_log.check_group) is None:
                self._describe(path, zarr_log.GROUP)
        for quantity in quantities:
            path = self.path / "log.zarr" / quantity.name / "zarr.json"
            self._room[quantity.name] = _accepted(path, self._room_of(quantity)) or 0
            self._make_room(quantity, capacity(quantity, steps))

    def mend_log(self) -> None:
        """Write anew what describes the arrays, where that is damaged."""
        named = [replace(quantity, name=name) for name, quantity in self._facts.quantities.items()]
        self.open_log(named, self.progress()["step"])

    def _make_room(self, quantity: Quantity, rows: int) -> None:
        if self._room[quantity.name] < rows:
            document = zarr_log.array_document(quantity, chunk_rows(quantity), rows, self._facts.run)
            self._describe(self.path / "log.zarr" / quantity.name / "zarr.json", document)
            self._room[quantity.name] = rows

    def _describe(self, path: Path, document: dict[str, Any]) -> None:
        self._put(path.relative_to(self.path / "log.zarr"), zarr_log.as_text(document))

    def _put(self, key: Path | str, data: bytes) -> None:
        """Write a file of the log, with the folders above it; not the run directory, which may have been removed."""
        path = self.path / "log.zarr" / key
        try:
            make_folder(path.parent, within=self.path)
        except OSError as error:
            raise not_written(path, error, self.path) from error
        write_file(path, data)

    def write_block(self, name: str, index: int, block: np.ndarray) -> None:
        """Write chunk `index` of a quantity as a whole."""
        self._require_own()
        quantity = self._facts.quantities[name]
        end = (index + 1) * len(block)
        if not block.size:
            return
        stored = quantity.name
        if end > self._room[stored]:  # readers go by progress.json, so an array may be longer than what it holds
            self._make_room(quantity, max(end, 2 * self._room[stored]))
        self._put(zarr_log.chunk_key(quantity, index), zarr_log.pack_chunk(block, self._facts.run, stored, index))

    def write_tail(self, tails: dict[str, tuple[int, np.ndarray]]) -> None:
        """Replace the tail by {name: (first row, rows)}; readers find in it what no whole chunk holds yet."""
        self._require_own()
        stored = {name: quantity.name for name, quantity in self._facts.quantities.items()}
        arrays = {f"{first}:{stored[name]}": rows for name, (first, rows) in tails.items()}
        write_file(self.path / "tail.npz", pack(arrays, self._facts.run, "tail"))

    def write_checkpoint(self, step: int, arrays: Arrays, widths: Sequence[int]) -> None:
        """arrays: what training goes on from; of a deep linear network "params", the flat vector, with `widths`."""
        self._require_own()
        arrays = {**arrays, "widths": np.asarray(widths, np.int64), "step": np.asarray(step, np.int64)}
        write_file(self.checkpoint_path(step), pack(arrays, self._facts.run, f"checkpoint {step}"))
        self._written.add(step)

    def forget_checkpoint(self, step: int) -> None:
        """Remove a checkpoint as soon as the next commit has made it superfluous."""
        self._superseded.add(step)

    def commit(
        self, step: int, checkpoint: int, status: str, detail: str, intervals: list[int], elapsed: float
    ) -> None:
        """Make everything written so far count. Committed rows never become fewer."""
        self._require_own()
        known = self.progress()
        if step >= known["step"]:
            before = known["checkpoints"] if "checkpoints" in known else self.checkpoint_steps()
            kept = {*before, *self._written} - self._superseded
            document = progress_document(step, checkpoint, status, detail, intervals, elapsed)
            self._write_progress(document, sorted(kept))
            for superseded in self._superseded:
                remove_file(self.checkpoint_path(superseded))
            self._written = set()
            self._superseded = set()
        if status != "running":  # then every row is in a chunk
            remove_file(self.path / "tail.npz")

    def _write_progress(self, document: dict[str, Any], checkpoints: list[int]) -> None:
        """checkpoints: the steps that have to have one."""
        named = {} if self._facts.run is None else {"run": self._facts.run}
        write_json(self.path / "progress.json", {**document, **named, "checkpoints": checkpoints})

    def go_back(self, step: int) -> None:
        """Rows after `step` do not count any more."""
        self._require_own()
        write_json(self.path / "progress.json", shortened(self.progress(), step))

    def extend(self, config: dict[str, Any]) -> None:
        """Record that the run now goes further."""
        stored = {name: quantity.name for name, quantity in self._facts.quantities.items()}
        quantities = {stored[name]: listed for name, listed in config["quantities"].items()}
        write_json(self.path / "config.json", {**config, "quantities": quantities})

    def close(self) -> None:
        if self._owner.here:
            self._lock.release()


def as_recorded(quantities: Sequence[Quantity], known: dict[str, Any] | None) -> list[Quantity]:
    """`quantities` with counted ranks as integers where the run that is resumed has them so, from before they could be
    NaN. Rows of a network that is not finite are not kept, so none of these is.

    known: the quantities of that run, as config.json has them; None for a new run.
    """
    whole = {name for name, listed in (known or {}).items() if listed["dtype"] == "i4"}
    return [replace(each, dtype="i4") if each.name in whole and each.dtype == "f8" else each for each in quantities]


def check_quantities(path: Path | None, config: dict[str, Any], quantities: Sequence[Quantity]) -> None:
    """StoreError unless config.json of the run at `path` lists these quantities, the ones that its settings make."""
    listed = {q.name: {"interval": q.interval, "shape": list(q.shape), "dtype": q.dtype} for q in quantities}
    for name in sorted({*listed, *config["quantities"]}):
        there = config["quantities"].get(name)
        here = listed.get(name)
        if there == here:
            continue
        if there and here and name in config.get("functions", ()):
            raise InvalidInput(
                f"metrics = {name} is not accepted: expected a function of values like those that were recorded, "
                f"{there['dtype']} of shape {tuple(there['shape'])}."
            )
        file = path / "config.json" if path else "config.json"
        raise StoreError(
            f"{file} lists {name} as {shorten(there)}, where its settings make {shorten(here)}; "
            "restore it from a copy, or resume with the version that made it."
        )


def _accepted(path: Path, verify: Callable[[bytes], Any]) -> Any:
    """What `verify` returns for the bytes of a file, True for nothing; None where it refuses them or there are none."""
    try:
        found = verify(read_bytes(path, MOST_JSON))
    except (Damaged, FileNotFoundError):
        return None
    return True if found is None else found
