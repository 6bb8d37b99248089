"""The run directory on disk: every write is whole or not there, and what was committed stays.

    config.json      settings, versions, quantities; checksummed
    experiment.toml  the file that repeats the run
    target.npy
    observed.npz     of a loss that is not that of a whole target: the mask, the measurements, or the moments of data
    log.zarr/        one preallocated array per quantity, written in whole chunks, each with a crc32c (see `zarr_log`)
    tail.npz         while a run goes on: the rows of chunks that are not full yet, first row in front of the name
    checkpoints/     step-00001000.npz …
    progress.json    written last: the committed step, rows and checkpoints. Readers clip to it
    lock             held by the one writer

config.json gives the run a name of its own, `run`, and holds the checksums of the files that never change. All others
say the name, and which file they are: progress.json, the tail and checkpoints (see `archives`), each chunk. Runs from
before that have no such name; of their files all that can be known without it is checked.

A directory comes into being by one rename, complete with its first checkpoint. All file writes go through
`files.write_file`: temporary file, fsync, rename, fsync of the folder.
"""

import os
import zlib
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np

from lrbias.errors import StoreError, check, shorten
from lrbias.storage import _zarr_log as zarr_log
from lrbias.storage._documents import check_config, check_progress
from lrbias.storage._format import (
    BESIDE,
    CHECKPOINT,
    LOSSES,
    MOST_JSON,
    MOST_KEPT,
    READABLE,
    Facts,
    chunk_rows,
    current_config,
    read_json,
)
from lrbias.storage._protocol import Arrays
from lrbias.storage._quantity import Quantity
from lrbias.system import Damaged, as_path, expect, parse_array, read_archive, read_bytes, unpack

Tails = dict[str, tuple[int, np.ndarray]]  # (first row, rows) of each quantity
Stamp = tuple[int, int, int]  # inode, time and size of a file


def is_earlier(path: str | PathLike[str]) -> bool:
    """Whether a folder holds a run of an earlier format: the words of its experiment.toml are those of `_earlier`."""
    config = as_path("path", path) / "config.json"
    return config.is_file() and read_json(config).get("format") in READABLE[:-1]


class RunFolder:
    """Reading a run directory. Every call sees what is committed now; only what never changes is kept."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = as_path("path", path)
        self._known: Facts | None = None
        self._read_tail: tuple[Stamp | None, Tails] = None, {}

    @classmethod
    def existing(cls, path: str | PathLike[str]) -> Self:
        """The run at `path`; InvalidInput when there is none."""
        folder = cls(path)
        accepted = "a run directory, as lrbias run and lb.train(store=…) write it"
        check((folder.path / "config.json").is_file(), "path", str(path), accepted)
        return folder

    def config(self) -> dict[str, Any]:
        return current_config(self._document())

    def _document(self) -> dict[str, Any]:
        """config.json as it is."""
        path = self.path / "config.json"
        config = read_json(path)
        if config.get("format") not in READABLE:
            known = " and ".join(map(str, READABLE))
            raise StoreError(f"{path} has format {shorten(config.get('format'))}; this version reads {known}.")
        return check_config(path, config)

    @property
    def _facts(self) -> Facts:
        if self._known is None:
            self._known = Facts.of(self._document())
        return self._known

    def progress(self) -> dict[str, Any]:
        path = self.path / "progress.json"
        progress = check_progress(path, read_json(path))
        if progress.get("run") != self._facts.run:
            raise StoreError(f"{path} is damaged (it belongs to another run); restore it from a copy.")
        return progress

    def data(self) -> tuple[Any, ...]:
        """What the loss is made of: (target, observed, reduction, source), as `lrbias.problems.restore` takes it."""
        config = self.config()
        target = self._parsed("target.npy", parse_array, config)
        observed = self._parsed("observed.npz", unpack, config) if "observed_crc32" in config else {}
        return target, observed, config["settings"].get("reduction", "sum"), config["target_source"]

    def _parsed(self, name: str, parse: Callable[[bytes], Any], config: dict[str, Any]) -> Any:
        """What `parse` makes of a file that never changes; StoreError unless the file is what was written."""
        path = self.path / name
        facts = config.get("files", {}).get(name, {})
        checksum = facts.get("crc32", config.get(f"{path.stem}_crc32"))
        try:
            data = read_bytes(path, facts.get("bytes"))
            if zlib.crc32(data) != checksum:
                raise Damaged("its checksum does not match")
            return parse(data)
        except FileNotFoundError:
            raise StoreError(f"{path} is missing; restore it from a copy.") from None
        except Damaged as error:
            raise StoreError(f"{path} is damaged ({error}); restore it from a copy.") from None

    def checkpoint_path(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step-{step:08d}.npz"

    def checkpoint_steps(self) -> list[int]:
        """Steps that have a checkpoint file, in order."""
        found = (CHECKPOINT.fullmatch(file.name) for file in (self.path / "checkpoints").glob("step-*.npz"))
        steps = (int(match[1]) for match in found if match)
        return sorted(step for step in steps if self.checkpoint_path(step).is_file())

    def checkpoint(self, step: int) -> np.ndarray:
        """The flat parameter vector at `step`; StoreError when the file is missing or damaged."""
        return self.checkpoint_arrays(step)["params"]

    def checkpoint_arrays(self, step: int) -> Arrays:
        """All arrays that `write_checkpoint` was given for `step`; StoreError as for `checkpoint`."""
        path = self.checkpoint_path(step)
        try:
            arrays = self._checked_checkpoint(path, step)
            return {name: array for name, array in arrays.items() if name not in BESIDE}
        except FileNotFoundError:
            problem = "is missing"
        except Damaged as error:
            problem = f"is damaged ({error})"
        earlier = max((known for known in self.checkpoint_steps() if known < step), default=None)
        advice = f"resume from an earlier one with from_checkpoint={earlier}" if earlier is not None else "start again"
        raise StoreError(f"{path} {problem}; {advice} (rows are recomputed with the same bits).")

    def _checked_checkpoint(self, path: Path, step: int) -> Arrays:
        facts = self._facts
        most = None
        if facts.widths:
            dtype = facts.quantities[LOSSES].dtype
            most = MOST_KEPT[0] + MOST_KEPT[1] * facts.size * np.dtype(dtype).itemsize
        arrays = read_archive(path, facts.run, f"checkpoint {step}", most)
        if int(expect(arrays, "step", (), "i8")) != step:
            raise Damaged(f"it is that of step {arrays['step']}")
        widths = expect(arrays, "widths", (None,), "i8")
        if facts.widths:
            expect(arrays, "params", (facts.size,), dtype)
            if tuple(widths) != facts.widths:
                raise Damaged(f"it is of a network with layers of {' → '.join(map(str, widths))} neurons")
        return arrays

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows start … stop of a quantity; StoreError when some are missing or fail their checksum."""
        first, tail = self._tail(name)
        inner = slice(max(start, first) - first, max(stop - first, 0))
        parts = [
            self._read_chunks(name, start, min(stop, first)),
            tail[inner],
            self._read_chunks(name, max(start, first + len(tail)), stop),
        ]
        parts = [part for part in parts if len(part)] or parts[:1]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _tail(self, name: str) -> tuple[int, np.ndarray]:
        """(first row, rows) of a quantity's last chunk while it is not full; no rows once the run has ended."""
        path = self.path / "tail.npz"
        nothing = (0, np.empty(0))
        try:
            return self._tails(path).get(name, nothing)
        except FileNotFoundError:
            if not self.progress()["tail"]:
                return nothing
            problem = "is missing"
        except Damaged as error:
            problem = f"is damaged ({error})"
        raise StoreError(f"{path} {problem}, and with it the last rows of {name}; {self._facts.again}.")

    def _tails(self, path: Path) -> Tails:
        """{quantity: (first row, rows)} of the tail; the file is read once, however many quantities are asked for."""
        try:
            stat = os.stat(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise Damaged(error.strerror) from None
        now = stat.st_ino, stat.st_mtime_ns, stat.st_size
        if self._read_tail[0] != now:
            self._read_tail = now, self._parse_tail(path)
        return self._read_tail[1]

    def _parse_tail(self, path: Path) -> Tails:
        quantities = {quantity.name: (name, quantity) for name, quantity in self._facts.quantities.items()}
        tails: Tails = {}
        most = sum(zarr_log.most_bytes(quantity, chunk_rows(quantity)) for _, quantity in quantities.values())
        for key, rows in read_archive(path, self._facts.run, "tail", most).items():
            number, _, stored = key.partition(":")
            if stored not in quantities or not number.isdecimal() or not number.isascii():
                raise Damaged(f"{key} is no quantity of this run")
            name, quantity = quantities[stored]
            first = int(number)
            expect({key: rows}, key, (None, *quantity.shape), quantity.dtype)
            if first % chunk_rows(quantity) or len(rows) > chunk_rows(quantity):
                raise Damaged(f"{key} does not begin a chunk")
            tails[name] = first, rows
        return tails

    def _read_chunks(self, name: str, start: int, stop: int) -> np.ndarray:
        quantity = self._facts.quantities[name]
        count = max(0, stop - start)
        rows = chunk_rows(quantity)
        indices = range(start // rows, -(-max(stop, start) // rows)) if count and 0 not in quantity.shape else range(0)
        paths = [self._chunk_path(quantity, index) for index in indices]  # all of them, before memory is taken
        found = np.empty((count, *quantity.shape), quantity.dtype)
        for index, path in zip(indices, paths, strict=True):
            first = max(start, index * rows)
            last = min(stop, (index + 1) * rows)
            found[first - start : last - start] = self._read_chunk(quantity, index, path)[
                first - index * rows : last - index * rows
            ]
        return found

    def _chunk_path(self, quantity: Quantity, index: int) -> Path:
        path = self.path / "log.zarr" / zarr_log.chunk_key(quantity, index)
        if not path.is_file():
            raise StoreError(
                f"{path} is missing, so rows that were committed cannot be read; {self._facts.again}."
            ) from None
        return path

    def _read_chunk(self, quantity: Quantity, index: int, path: Path) -> np.ndarray:
        rows = chunk_rows(quantity)
        try:
            data = read_bytes(path, zarr_log.most_bytes(quantity, rows))
            return zarr_log.unpack_chunk(data, quantity, rows, self._facts.run, index)
        except (Damaged, FileNotFoundError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise StoreError(
                f"{path} is damaged, rows {index * rows} to {(index + 1) * rows - 1} of {quantity.name} ({reason}); "
                f"other quantities and chunks are intact; {self._facts.again}."
            ) from None

    def rows_at_once(self, name: str) -> int:
        """How many rows of a quantity lie in one file."""
        return chunk_rows(self._facts.quantities[name])

    def problems(self) -> list[str]:
        """One sentence for each file that is damaged or missing, of those that hold neither rows nor a checkpoint."""
        config = self.config()
        found = []
        for name in config.get("files", {}):
            try:
                self._parsed(name, len, config)
            except StoreError as error:
                found.append(str(error))
        for path, verify in self._descriptions():
            try:
                verify(read_bytes(path, MOST_JSON))
            except (Damaged, FileNotFoundError) as error:
                reason = "it is missing" if isinstance(error, OSError) else error
                found.append(f"{path} is damaged ({reason}); lrbias resume {self.path} writes it anew.")
        return found

    def _descriptions(self) -> Iterator[tuple[Path, Callable[[bytes], Any]]]:
        """(path, what its bytes have to pass) of each zarr.json."""
        for name in zarr_log.group_names(self._facts.quantities.values()):
            yield self.path / "log.zarr" / name / "zarr.json", zarr_log.check_group
        for quantity in self._facts.quantities.values():
            yield self.path / "log.zarr" / quantity.name / "zarr.json", self._room_of(quantity)

    def _room_of(self, quantity: Quantity) -> Callable[[bytes], int]:
        """A function of the bytes of a zarr.json: for how many rows the array has room."""
        return lambda data: zarr_log.described_room(data, quantity, chunk_rows(quantity), self._facts.run)
