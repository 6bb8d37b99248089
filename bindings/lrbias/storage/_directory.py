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

import io
import json
import os
import re
import uuid
import zlib
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lrbias.errors import InvalidInput, StoreError, require, shorten
from lrbias.storage import _zarr_log as zarr_log
from lrbias.storage._documents import check_config, check_progress
from lrbias.storage._quantity import Quantity
from lrbias.system import (
    LOCK,
    Damaged,
    Owner,
    as_path,
    drafted,
    expect,
    lock,
    make_folder,
    not_writable,
    not_written,
    pack,
    parse_array,
    read_archive,
    read_bytes,
    remove_file,
    unpack,
    write_file,
)
from lrcore import layout

FORMAT = 2
CHUNK_BYTES = 1 << 18
LOSSES = "losses"  # the loss of every step: row = step
BESIDE = ("widths", "step")  # what a checkpoint says beside the arrays of a run
MOST_CHUNK_ROWS = 8192
MOST_JSON = 1 << 30  # bytes of a document
MOST_KEPT = 1 << 30, 1000  # bytes of a checkpoint, at most: so many, and so many times those of the layers
CHECKPOINT = re.compile(r"step-(\d{8,})\.npz")


def write_json(path, document):
    """A JSON object with a checksum of its other keys."""
    body = {key: document[key] for key in sorted(document)}
    body["crc32"] = _crc(body)
    write_file(path, (json.dumps(body, indent=1) + "\n").encode())


def read_json(path):
    try:
        document = json.loads(read_bytes(path, MOST_JSON))
        stored = document.pop("crc32")
        computed = _crc(document)
    except FileNotFoundError:
        raise StoreError(f"{path} is missing, so this is no complete run directory.") from None
    except (Damaged, ValueError, KeyError, AttributeError, TypeError, RecursionError, MemoryError) as error:
        raise StoreError(f"{path} is damaged or not readable ({error}); restore it from a copy.") from None
    if stored != computed:
        raise StoreError(f"{path} is damaged (its checksum does not match); restore it from a copy.")
    return document


def _crc(document):
    return zlib.crc32(json.dumps(document, sort_keys=True).encode())


def chunk_rows(quantity):
    """Rows of one chunk: at most 256 KiB, a power of two."""
    row_bytes = np.dtype(quantity.dtype).itemsize * int(np.prod(quantity.shape, dtype=np.int64))
    return min(MOST_CHUNK_ROWS, 1 << max(0, int(CHUNK_BYTES // max(row_bytes, 1)).bit_length() - 1))


def capacity(quantity, steps):
    """Rows of the preallocated array: whole chunks that hold every row of `steps` steps."""
    rows = steps // quantity.interval + 1
    chunk = chunk_rows(quantity)
    return -(-rows // chunk) * chunk


def committed_rows(interval, step, status):
    """Rows that count at `step`. A run that diverged or failed keeps what it recorded before that step."""
    return (step - 1) // interval + 1 if status in ("diverged", "failed") else step // interval + 1


class _Facts(NamedTuple):
    """What never changes of a run: its name, the quantities, and of a deep linear network the widths."""

    run: str | None
    quantities: dict
    widths: tuple | None

    @classmethod
    def of(cls, config):
        listed = config["quantities"].items()
        quantities = {name: Quantity(name, tuple(q["shape"]), q["dtype"], q["interval"]) for name, q in listed}
        widths = tuple(config["widths"]) if "widths" in config else None
        return cls(config.get("run"), quantities, widths)

    @property
    def size(self):
        """How many numbers the layers have."""
        return layout.size(self.widths)

    @property
    def again(self):
        """How rows that are lost can be made again."""
        return "start the run again to have them" if self.widths is None else "resume with from_checkpoint=0"


class RunFolder:
    """Reading a run directory. Every call sees what is committed now; only what never changes is kept."""

    def __init__(self, path):
        self.path = as_path("path", path)
        self._known = None
        self._read_tail = None, {}

    @classmethod
    def existing(cls, path):
        """The run at `path`; InvalidInput when there is none."""
        folder = cls(path)
        accepted = "a run directory, as lrbias run and lb.train(store=…) write it"
        require((folder.path / "config.json").is_file(), "path", str(path), accepted)
        return folder

    def config(self):
        path = self.path / "config.json"
        config = read_json(path)
        if config.get("format") != FORMAT:
            raise StoreError(f"{path} has format {shorten(config.get('format'))}; this version reads {FORMAT}.")
        return check_config(path, config)

    @property
    def _facts(self):
        if self._known is None:
            self._known = _Facts.of(self.config())
        return self._known

    def progress(self):
        path = self.path / "progress.json"
        progress = check_progress(path, read_json(path))
        if progress.get("run") != self._facts.run:
            raise StoreError(f"{path} is damaged (it belongs to another run); restore it from a copy.")
        return progress

    def data(self):
        """What the loss is made of: (target, observed, mean, source), as `lrbias.problems.restore` takes it."""
        config = self.config()
        target = self._parsed("target.npy", parse_array, config)
        observed = self._parsed("observed.npz", unpack, config) if "observed_crc32" in config else {}
        return target, observed, config["settings"].get("mean", False), config["target_source"]

    def _parsed(self, name, parse, config):
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

    def checkpoint_path(self, step):
        return self.path / "checkpoints" / f"step-{step:08d}.npz"

    def checkpoint_steps(self):
        """Steps that have a checkpoint file, in order."""
        found = (CHECKPOINT.fullmatch(file.name) for file in (self.path / "checkpoints").glob("step-*.npz"))
        steps = (int(match[1]) for match in found if match)
        return sorted(step for step in steps if self.checkpoint_path(step).is_file())

    def checkpoint(self, step):
        """The flat parameter vector at `step`; StoreError when the file is missing or damaged."""
        return self.checkpoint_arrays(step)["params"]

    def checkpoint_arrays(self, step):
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

    def _checked_checkpoint(self, path, step):
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

    def read(self, name, start, stop):
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

    def _tail(self, name):
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

    def _tails(self, path):
        """{quantity: (first row, rows)} of the tail; the file is read once, however many quantities are asked for."""
        try:
            now = os.stat(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise Damaged(error.strerror) from None
        now = now.st_ino, now.st_mtime_ns, now.st_size
        if self._read_tail[0] != now:
            self._read_tail = now, self._parse_tail(path)
        return self._read_tail[1]

    def _parse_tail(self, path):
        quantities = self._facts.quantities
        tails = {}
        most = sum(zarr_log.most_bytes(quantity, chunk_rows(quantity)) for quantity in quantities.values())
        for key, rows in read_archive(path, self._facts.run, "tail", most).items():
            first, _, name = key.partition(":")
            if name not in quantities or not first.isdecimal() or not first.isascii():
                raise Damaged(f"{key} is no quantity of this run")
            quantity = quantities[name]
            first = int(first)
            expect({key: rows}, key, (None, *quantity.shape), quantity.dtype)
            if first % chunk_rows(quantity) or len(rows) > chunk_rows(quantity):
                raise Damaged(f"{key} does not begin a chunk")
            tails[name] = first, rows
        return tails

    def _read_chunks(self, name, start, stop):
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

    def _chunk_path(self, quantity, index):
        path = self.path / "log.zarr" / zarr_log.chunk_key(quantity, index)
        if not path.is_file():
            raise StoreError(
                f"{path} is missing, so rows that were committed cannot be read; {self._facts.again}."
            ) from None
        return path

    def _read_chunk(self, quantity, index, path):
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

    def rows_at_once(self, name):
        """How many rows of a quantity lie in one file."""
        return chunk_rows(self._facts.quantities[name])

    def problems(self):
        """One sentence for each file that is damaged or missing, of those that hold neither rows nor a checkpoint."""
        config = self.config()
        found = []
        for name in config.get("files", {}):
            try:
                self._parsed(name, len, config)
            except StoreError as error:
                found.append(str(error))
        for path, check in self._descriptions():
            try:
                check(read_bytes(path, MOST_JSON))
            except (Damaged, FileNotFoundError) as error:
                reason = "it is missing" if isinstance(error, OSError) else error
                found.append(f"{path} is damaged ({reason}); lrbias resume {self.path} writes it anew.")
        return found

    def _descriptions(self):
        """(path, what its bytes have to pass) of each zarr.json."""
        for name in zarr_log.group_names(self._facts.quantities.values()):
            yield self.path / "log.zarr" / name / "zarr.json", zarr_log.check_group
        for name, quantity in self._facts.quantities.items():
            yield self.path / "log.zarr" / name / "zarr.json", self._room_of(quantity)

    def _room_of(self, quantity):
        """A function of the bytes of a zarr.json: for how many rows the array has room."""
        return lambda data: zarr_log.described_room(data, quantity, chunk_rows(quantity), self._facts.run)


class RunWriter(RunFolder):
    """The one writer of a run directory. Use `create` or `reopen`, and `close` at the end."""

    def __init__(self, path, held):
        super().__init__(path)
        self._lock = held
        self._owner = Owner()
        self._room = {}
        self._written = set()  # checkpoints since the last commit
        self._superseded = set()

    def _require_own(self):
        """A forked child has a copy of this writer: StoreError before it overwrites what its parent has written."""
        if not self._owner.here:
            raise StoreError(f"{self.path} is being written by the process that this one was forked from.")

    @classmethod
    def create(cls, path, config, extra_files, data, start, quantities, steps):
        """A new run directory at `path`, complete with its first checkpoint; nothing is left behind on failure.

        data: (target, observed), as `Problem` has them; () for none. start: the arrays of that checkpoint, as for
        `write_checkpoint`; None for none. quantities, steps: what will be recorded, and the number of steps as far as
        it is known: arrays grow beyond it.
        """
        path = check_new(path)
        config = {**config, "format": FORMAT, "run": uuid.uuid4().hex}
        with drafted(path) as draft:
            writer = cls(draft.folder, draft.held)
            writer._known = _Facts.of(config)
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
    def reopen(cls, path):
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

    def _write_constants(self, data, extra_files):
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

    def open_log(self, quantities, steps):
        """Make ready for rows up to `steps`: arrays grow when a resumed run goes further than planned, and what
        describes them is written anew where it is damaged."""
        for name in zarr_log.group_names(quantities):
            path = self.path / "log.zarr" / name / "zarr.json"
            if _accepted(path, zarr_log.check_group) is None:
                self._describe(path, zarr_log.GROUP)
        for quantity in quantities:
            path = self.path / "log.zarr" / quantity.name / "zarr.json"
            self._room[quantity.name] = _accepted(path, self._room_of(quantity)) or 0
            self._make_room(quantity, capacity(quantity, steps))

    def mend_log(self):
        """Write anew what describes the arrays, where that is damaged."""
        self.open_log(list(self._facts.quantities.values()), self.progress()["step"])

    def _make_room(self, quantity, rows):
        if self._room[quantity.name] < rows:
            document = zarr_log.array_document(quantity, chunk_rows(quantity), rows, self._facts.run)
            self._describe(self.path / "log.zarr" / quantity.name / "zarr.json", document)
            self._room[quantity.name] = rows

    def _describe(self, path, document):
        self._put(path.relative_to(self.path / "log.zarr"), zarr_log.as_text(document))

    def _put(self, key, data):
        """Write a file of the log, with the folders above it; not the run directory, which may have been removed."""
        path = self.path / "log.zarr" / key
        try:
            make_folder(path.parent, within=self.path)
        except OSError as error:
            raise not_written(path, error, self.path) from error
        write_file(path, data)

    def write_block(self, name, index, block):
        """Write chunk `index` of a quantity as a whole."""
        self._require_own()
        quantity = self._facts.quantities[name]
        end = (index + 1) * len(block)
        if not block.size:
            return
        if end > self._room[name]:  # readers go by progress.json, so an array may be longer than what it holds
            self._make_room(quantity, max(end, 2 * self._room[name]))
        self._put(zarr_log.chunk_key(quantity, index), zarr_log.pack_chunk(block, self._facts.run, name, index))

    def write_tail(self, tails):
        """Replace the tail by {name: (first row, rows)}; readers find in it what no whole chunk holds yet."""
        self._require_own()
        arrays = {f"{first}:{name}": rows for name, (first, rows) in tails.items()}
        write_file(self.path / "tail.npz", pack(arrays, self._facts.run, "tail"))

    def write_checkpoint(self, step, arrays, widths):
        """arrays: what training goes on from; of a deep linear network "params", the flat vector, with `widths`."""
        self._require_own()
        arrays = {**arrays, "widths": np.asarray(widths, np.int64), "step": np.int64(step)}
        write_file(self.checkpoint_path(step), pack(arrays, self._facts.run, f"checkpoint {step}"))
        self._written.add(step)

    def forget_checkpoint(self, step):
        """Remove a checkpoint as soon as the next commit has made it superfluous."""
        self._superseded.add(step)

    def commit(self, step, checkpoint, status, detail, intervals, elapsed):
        """Make everything written so far count. Committed rows never become fewer."""
        self._require_own()
        known = self.progress()
        if step >= known["step"]:
            kept = {*known.get("checkpoints", self.checkpoint_steps()), *self._written} - self._superseded
            document = progress_document(step, checkpoint, status, detail, intervals, elapsed)
            self._write_progress(document, sorted(kept))
            for superseded in self._superseded:
                remove_file(self.checkpoint_path(superseded))
            self._written = set()
            self._superseded = set()
        if status != "running":  # then every row is in a chunk
            remove_file(self.path / "tail.npz")

    def _write_progress(self, document, checkpoints):
        """checkpoints: the steps that have to have one."""
        named = {} if self._facts.run is None else {"run": self._facts.run}
        write_json(self.path / "progress.json", {**document, **named, "checkpoints": checkpoints})

    def go_back(self, step):
        """Rows after `step` do not count any more."""
        self._require_own()
        write_json(self.path / "progress.json", shortened(self.progress(), step))

    def extend(self, config):
        """Record that the run now goes further."""
        write_json(self.path / "config.json", config)

    def close(self):
        if self._owner.here:
            self._lock.release()


def as_recorded(quantities, known):
    """`quantities` with counted ranks as integers where the run that is resumed has them so, from before they could be
    NaN. Rows of a network that is not finite are not kept, so none of these is.

    known: the quantities of that run, as config.json has them; None for a new run.
    """
    whole = {name for name, listed in (known or {}).items() if listed["dtype"] == "i4"}
    return [replace(each, dtype="i4") if each.name in whole and each.dtype == "f8" else each for each in quantities]


def check_quantities(path, config, quantities):
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
        raise StoreError(
            f"{Path(path) / 'config.json'} lists {name} as {shorten(there)}, where its settings make {shorten(here)}; "
            "restore it from a copy, or resume with the version that made it."
        )


def _accepted(path, check):
    """What `check` returns for the bytes of a file, True for nothing; None where it refuses them or there are none."""
    try:
        found = check(read_bytes(path, MOST_JSON))
    except (Damaged, FileNotFoundError):
        return None
    return True if found is None else found


def progress_document(step, checkpoint, status, detail, intervals, elapsed):
    """What progress.json says. A run whose status is "new" has no rows yet."""
    rows = {str(interval): committed_rows(interval, step, status) for interval in intervals}
    return {
        "format": FORMAT,
        "step": step,
        "checkpoint": checkpoint,
        "status": status,
        "detail": detail,
        "rows": rows,
        "losses": 0 if status == "new" else step + 1,
        "tail": status == "running",
        "elapsed": round(elapsed, 3),
    }


def shortened(progress, step):
    """The progress of a run that is taken up at an earlier step."""
    rows = {interval: committed_rows(int(interval), step, progress["status"]) for interval in progress["rows"]}
    return {**progress, "step": step, "rows": rows, "losses": step + 1}


def check_new(path):
    """A path where a run can be made: InvalidInput when something is there or nothing can be put there."""
    named = str(path) != "" and as_path("store", path).name not in ("", "..")
    require(named, "store", str(path), "a folder that does not exist yet")
    path = as_path("store", path)
    try:
        taken = os.path.lexists(path)
        path.with_name(f".{path.name}.new.partial").exists()  # fails when the name is too long
        above = next(folder for folder in path.absolute().parents if folder.exists())
    except OSError as error:
        raise not_writable(path, error) from None
    require(not taken, "store", str(path), "a path that does not exist yet (or use resume)")
    writable = above.is_dir() and os.access(above, os.W_OK | os.X_OK)
    require(writable, "store", str(path), f"a folder that can be written ({above} is none)")
    return path
