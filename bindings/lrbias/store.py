"""The run directory on disk: every write is whole or not there, and what was committed stays.

    config.json      settings, versions, quantities; checksummed
    experiment.toml  the file that repeats the run
    target.npy
    observed.npz     of a loss that is not that of a whole target: the mask, the measurements, or the moments of data
    log.zarr/        one preallocated array per quantity, written in whole chunks, each with a crc32c
    tail.npz         while a run goes on: the rows of chunks that are not full yet, first row in front of the name
    checkpoints/     step-00001000.npz …
    progress.json    written last: the committed step and rows. Readers clip to it
    lock             held by the one writer

A directory comes into being by one rename, complete with its first checkpoint. All file writes go through
`files.write_file`: temporary file, fsync, rename, fsync of the folder.
"""

import io
import json
import os
import zipfile
import zlib

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore, MemoryStore

from lrbias.errors import StoreError, require
from lrbias.files import LOCK, drafted, lock, make_folder, not_writable, not_written, remove_file, write_file
from lrbias.paths import as_path
from lrbias.threads import Owner

FORMAT = 2
# what NumPy and zipfile raise for a file that is not what was written
DAMAGE = (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)
CHUNK_BYTES = 1 << 18
BESIDE = ("widths", "step")  # what a checkpoint says beside the arrays of a run
MOST_CHUNK_ROWS = 8192


class DurableStore(LocalStore):
    """Zarr's local store with durable writes, and with an error where a missing chunk would read as fill values."""

    async def set(self, key, value):
        """In the thread that asks: handing a small file to another one takes longer than writing it."""
        path = self.root / key
        try:
            make_folder(path.parent, within=self.root)
        except OSError as error:
            raise not_written(path, error, self.root) from error
        write_file(path, value.to_bytes())

    async def get(self, key, prototype=None, byte_range=None):
        value = await super().get(key, prototype, byte_range)
        if value is None and "/c/" in key:
            raise StoreError(f"{self.root / key} is missing, so rows that were committed cannot be read.")
        return value


def write_json(path, document):
    """A JSON object with a checksum of its other keys."""
    body = {key: document[key] for key in sorted(document)}
    body["crc32"] = _crc(body)
    write_file(path, (json.dumps(body, indent=1) + "\n").encode())


def read_json(path):
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        stored = document.pop("crc32")
    except FileNotFoundError:
        raise StoreError(f"{path} is missing, so this is no complete run directory.") from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise StoreError(f"{path} is damaged or not readable ({error}); restore it from a copy.") from None
    if stored != _crc(document):
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
    rows, chunk = steps // quantity.interval + 1, chunk_rows(quantity)
    return -(-rows // chunk) * chunk


def committed_rows(interval, step, status):
    """Rows that count at `step`. A run that diverged or failed keeps what it recorded before that step."""
    return (step - 1) // interval + 1 if status in ("diverged", "failed") else step // interval + 1


class RunFolder:
    """Reading a run directory. Nothing is cached: every call sees what is committed now."""

    def __init__(self, path):
        self.path = as_path("path", path)
        self._group = None

    @classmethod
    def existing(cls, path):
        """The run at `path`; InvalidInput when there is none."""
        folder = cls(path)
        accepted = "a run directory, as lrbias run and lb.train(store=…) write it"
        require((folder.path / "config.json").is_file(), "path", str(path), accepted)
        return folder

    def config(self):
        config = read_json(self.path / "config.json")
        if config.get("format") != FORMAT:
            raise StoreError(
                f"{self.path / 'config.json'} has format {config.get('format')}; this version reads {FORMAT}."
            )
        return config

    def progress(self):
        return read_json(self.path / "progress.json")

    def data(self):
        """What the loss is made of: (target, observed, mean, source), as `lrbias.observed.restore` takes it."""
        config = self.config()
        target, observed = np.load(self._checked("target.npy", config["target_crc32"]), allow_pickle=False), {}
        if "observed_crc32" in config:
            with np.load(self._checked("observed.npz", config["observed_crc32"]), allow_pickle=False) as archive:
                observed = {name: archive[name] for name in archive.files}
        return target, observed, config["settings"].get("mean", False), config["target_source"]

    def _checked(self, name, checksum):
        """The bytes of a file that never changes, as a file; StoreError unless they are what was written."""
        path = self.path / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path} cannot be read ({error.strerror}); restore it from a copy.") from None
        if zlib.crc32(data) != checksum:
            raise StoreError(f"{path} is damaged (its checksum does not match); restore it from a copy.")
        return io.BytesIO(data)

    def checkpoint_path(self, step):
        return self.path / "checkpoints" / f"step-{step:08d}.npz"

    def checkpoint_steps(self):
        """Steps that have a checkpoint file, in order."""
        return sorted(int(file.stem.split("-")[1]) for file in (self.path / "checkpoints").glob("step-*.npz"))

    def checkpoint(self, step):
        """The flat parameter vector at `step`; StoreError when the file is missing or damaged."""
        return self._read_checkpoint(step, ["params"])["params"]

    def checkpoint_arrays(self, step):
        """All arrays that `write_checkpoint` was given for `step`; StoreError as for `checkpoint`."""
        return self._read_checkpoint(step)

    def _read_checkpoint(self, step, names=None):
        path = self.checkpoint_path(step)
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                names = [name for name in archive.files if name not in BESIDE] if names is None else names
                return {name: archive[name] for name in names}
        except FileNotFoundError:
            problem = "is missing"
        except DAMAGE as error:
            problem = f"is damaged ({error})"
        others = [known for known in self.checkpoint_steps() if known != step]
        earlier = max((known for known in others if known < step), default=None)
        advice = f"resume from an earlier one with from_checkpoint={earlier}" if earlier is not None else "start again"
        raise StoreError(f"{path} {problem}; {advice} (rows are recomputed with the same bits).")

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
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                (key,) = [key for key in archive.files if key.split(":", 1)[1] == name] or [None]
                return (int(key.split(":")[0]), archive[key]) if key else (0, np.empty(0))
        except FileNotFoundError:
            if not self.progress()["tail"]:
                return 0, np.empty(0)
            problem = "is missing"
        except DAMAGE as error:
            problem = f"is damaged ({error})"
        raise StoreError(f"{path} {problem}, and with it the last rows of {name}; resume with from_checkpoint=0.")

    def _read_chunks(self, name, start, stop):
        if self._group is None:
            self._group = zarr.open_group(DurableStore(self.path / "log.zarr", read_only=True), mode="r")
        try:
            return np.asarray(self._group[name][start : max(start, stop)])
        except StoreError:
            raise
        except (ValueError, OSError, KeyError, RuntimeError, TypeError) as error:
            where = self.path / "log.zarr" / name
            reason = " ".join(str(error).split())
            raise StoreError(
                f"{where} is damaged within rows {start} to {stop - 1} ({reason}); other quantities and chunks "
                "are intact, and resuming from a checkpoint before those rows recomputes them."
            ) from None


class RunWriter(RunFolder):
    """The one writer of a run directory. Use `create` or `reopen`, and `close` at the end."""

    def __init__(self, path, held):
        super().__init__(path)
        self._lock, self._owner = held, Owner()

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
        with drafted(path) as draft:
            writer = cls(draft.folder, draft.held)
            (draft.folder / "checkpoints").mkdir()
            checksums = writer._write_data(*data) if data else {}
            for name, text in extra_files.items():
                write_file(draft.folder / name, text.encode())
            writer._create_arrays(quantities, steps)
            if start is not None:
                writer.write_checkpoint(0, start, config.get("widths", ()))
            write_json(draft.folder / "progress.json", progress_document(0, 0, "new", "no step was made yet", [], 0.0))
            config = {**config, "format": FORMAT, **checksums}
            write_json(draft.folder / "config.json", config)
        writer.path, writer._lock = path, draft.held
        writer._group, writer._arrays = writer._open_log(), {}
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

    def _write_data(self, target, observed):
        """target.npy, and observed.npz unless the whole target is seen; returns their checksums."""
        data = io.BytesIO()
        np.save(data, target)
        write_file(self.path / "target.npy", data.getvalue())
        checksums = {"target_crc32": zlib.crc32(data.getvalue())}
        if observed:
            data = io.BytesIO()
            np.savez(data, **observed)
            write_file(self.path / "observed.npz", data.getvalue())
            checksums["observed_crc32"] = zlib.crc32(data.getvalue())
        return checksums

    def _create_arrays(self, quantities, steps):
        """Made in memory and then written: zarr's steps on the way to a file take longer than all of its files."""
        files = {}
        group = zarr.open_group(MemoryStore(files), mode="w")
        for quantity in quantities:
            rows, dtype = chunk_rows(quantity), np.dtype(quantity.dtype)
            group.create_array(
                quantity.name,
                shape=(capacity(quantity, steps), *quantity.shape),
                chunks=(rows, *(max(1, n) for n in quantity.shape)),
                dtype=dtype,
                fill_value=np.nan if dtype.kind == "f" else 0,
                filters=None,
                compressors=[Crc32cCodec()],
                attributes={"interval": quantity.interval},
            )
        for key, content in files.items():
            path = self.path / "log.zarr" / key
            make_folder(path.parent)
            write_file(path, content.to_bytes())

    def open_log(self, quantities, steps):
        """Make ready for rows up to `steps`: arrays grow when a resumed run goes further than planned."""
        self._group, self._arrays = self._open_log(), {}
        for quantity in quantities:
            rows, array = capacity(quantity, steps), self._array(quantity.name)
            if array.shape[0] < rows:
                array.resize((rows, *quantity.shape))

    def _open_log(self):
        return zarr.open_group(DurableStore(self.path / "log.zarr"), mode="r+")

    def _array(self, name):
        if name not in self._arrays:
            self._arrays[name] = self._group[name].with_config({"write_empty_chunks": True})
        return self._arrays[name]

    def write_block(self, name, index, block):
        """Write chunk `index` of a quantity as a whole."""
        self._require_own()
        rows, array = len(block), self._array(name)
        end = (index + 1) * rows
        if end > array.shape[0]:  # readers go by progress.json, so an array may be longer than what it holds
            array.resize((max(end, 2 * array.shape[0]), *array.shape[1:]))
        array[end - rows : end] = block

    def write_tail(self, tails):
        """Replace the tail by {name: (first row, rows)}; readers find in it what no whole chunk holds yet."""
        self._require_own()
        data = io.BytesIO()
        np.savez(data, **{f"{first}:{name}": rows for name, (first, rows) in tails.items()})
        write_file(self.path / "tail.npz", data.getbuffer())

    def write_checkpoint(self, step, arrays, widths):
        """arrays: what training goes on from; of a deep linear network "params", the flat vector, with `widths`."""
        self._require_own()
        data = io.BytesIO()
        np.savez(data, **arrays, widths=np.asarray(widths, np.int64), step=np.int64(step))
        write_file(self.checkpoint_path(step), data.getvalue())

    def forget_checkpoint(self, step):
        """Remove a checkpoint that a later, committed one has made superfluous."""
        self._require_own()
        remove_file(self.checkpoint_path(step))

    def commit(self, step, checkpoint, status, detail, intervals, elapsed):
        """Make everything written so far count. Committed rows never become fewer."""
        self._require_own()
        known = self.progress()
        if step >= known["step"]:
            write_json(
                self.path / "progress.json", progress_document(step, checkpoint, status, detail, intervals, elapsed)
            )
        if status != "running":  # then every row is in a chunk
            remove_file(self.path / "tail.npz")

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
