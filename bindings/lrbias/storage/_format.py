"""What the files of a run directory have in common: names, limits, blocks of rows, documents with a checksum."""

import json
import math
import os
import re
import zlib
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lrbias.errors import StoreError, check
from lrbias.storage._earlier import current_quantities, current_settings
from lrbias.storage._quantity import Quantity
from lrbias.system import Damaged, as_path, not_writable, read_bytes, write_file
from lrcore import layout

FORMAT = 3
READABLE = (2, FORMAT)  # 2: with the words of `_earlier`
CHUNK_BYTES = 1 << 18
LOSSES = "losses"  # the loss of every step: row = step
BESIDE = ("widths", "step")  # what a checkpoint says beside the arrays of a run
MOST_CHUNK_ROWS = 8192
MOST_JSON = 1 << 30  # bytes of a document
MOST_KEPT = 1 << 30, 1000  # bytes of a checkpoint, at most: so many, and so many times those of the layers
CHECKPOINT = re.compile(r"step-(\d{8,})\.npz")


def write_json(path: Path, document: dict[str, Any]) -> None:
    """A JSON object with a checksum of its other keys."""
    body = {key: document[key] for key in sorted(document)}
    body["crc32"] = _crc(body)
    write_file(path, (json.dumps(body, indent=1) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
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


def _crc(document: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(document, sort_keys=True).encode())


def chunk_rows(quantity: Quantity) -> int:
    """Rows of one chunk: at most 256 KiB, a power of two."""
    row_bytes = np.dtype(quantity.dtype).itemsize * math.prod(quantity.shape)
    return min(MOST_CHUNK_ROWS, 1 << max(0, int(CHUNK_BYTES // max(row_bytes, 1)).bit_length() - 1))


def capacity(quantity: Quantity, steps: int) -> int:
    """Rows of the preallocated array: whole chunks that hold every row of `steps` steps."""
    rows = steps // quantity.interval + 1
    chunk = chunk_rows(quantity)
    return -(-rows // chunk) * chunk


def committed_rows(interval: int, step: int, status: str) -> int:
    """Rows that count at `step`. A run that diverged or failed keeps what it recorded before that step."""
    return (step - 1) // interval + 1 if status in ("diverged", "failed") else step // interval + 1


class Facts(NamedTuple):
    """What never changes of a run: its name, the quantities, and of a deep linear network the widths.

    quantities  by the names that they have now; each Quantity has the name of its files
    """

    run: str | None
    quantities: dict[str, Quantity]
    widths: tuple[int, ...] | None

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Facts":
        listed = config["quantities"]
        quantities = {
            name: Quantity(stored, tuple(listed[stored]["shape"]), listed[stored]["dtype"], listed[stored]["interval"])
            for name, stored in stored_names(config).items()
        }
        widths = tuple(config["widths"]) if "widths" in config else None
        return cls(config.get("run"), quantities, widths)

    @property
    def size(self) -> int:
        """How many numbers the layers have."""
        return layout.size(self.widths)

    @property
    def again(self) -> str:
        """How rows that are lost can be made again."""
        return "start the run again to have them" if self.widths is None else "resume with from_checkpoint=0"


def stored_names(config: dict[str, Any]) -> dict[str, str]:
    """{name of a quantity: its name in the files} of a document that was read as it is."""
    names = config["quantities"]
    if config.get("format") == FORMAT or config.get("kind") == "model":
        return {name: name for name in names}
    return current_quantities(names, config.get("functions", ()))


def current_config(config: dict[str, Any]) -> dict[str, Any]:
    """config.json of a run in the words of today."""
    if config.get("format") == FORMAT or config.get("kind") == "model":
        return config
    quantities = {name: config["quantities"][stored] for name, stored in stored_names(config).items()}
    found = {**config, "settings": current_settings(config["settings"]), "quantities": quantities}
    source = config.get("target_source")
    return {**found, "target_source": current_settings(source) if isinstance(source, dict) else source}


def progress_document(
    step: int, checkpoint: int, status: str, detail: str, intervals: list[int], elapsed: float
) -> dict[str, Any]:
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


def shortened(progress: dict[str, Any], step: int) -> dict[str, Any]:
    """The progress of a run that is resumed at an earlier step."""
    rows = {interval: committed_rows(int(interval), step, progress["status"]) for interval in progress["rows"]}
    return {**progress, "step": step, "rows": rows, "losses": step + 1}


def check_new(path: str | PathLike[str]) -> Path:
    """A path where a run can be made: InvalidInput when something is there or nothing can be put there."""
    named = str(path) != "" and as_path("store", path).name not in ("", "..")
    check(named, "store", str(path), "a folder that does not exist yet")
    path = as_path("store", path)
    try:
        taken = os.path.lexists(path)
        path.with_name(f".{path.name}.new.partial").exists()  # fails when the name is too long
        above = next(folder for folder in path.absolute().parents if folder.exists())
    except OSError as error:
        raise not_writable(path, error) from None
    check(not taken, "store", str(path), "a path that does not exist yet (or use resume)")
    writable = above.is_dir() and os.access(above, os.W_OK | os.X_OK)
    check(writable, "store", str(path), f"a folder that can be written ({above} is none)")
    return path
