"""The log of a run as files of Zarr 3: what describes the arrays, and chunks that say whose they are.

Zarr and everything built on it read these files with standard codecs: bytes, gzip, crc32c. The gzip stream is not
compressed; its header has a comment, and that holds the run, the quantity and the number of the chunk. So a chunk of
another run, or one under another name, is found, with no index that could be lost. Runs from before this have chunks
without that (bytes, crc32c); for them `run` is None here.

The files are made here and not by the package zarr: they do not depend on its settings then, and what describes an
array can be compared with what it has to be.
"""

import json
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import google_crc32c
import numpy as np

from lrbias.storage._quantity import Quantity
from lrbias.system import Damaged

GZIP = b"\x1f\x8b\x08\x10" + bytes(5) + b"\xff"  # deflate, with a comment, without a time, of no system in particular
RAW_DEFLATE = -zlib.MAX_WBITS
OVERHEAD = 1 << 12  # bytes of a chunk's file, at most, beside a thousandth of its rows
NOTHING = ("storage_transformers", "dimension_names", "consolidated_metadata")  # may be there, and empty
GROUP = {"attributes": {}, "zarr_format": 3, "node_type": "group"}


def _size(shape: Sequence[int]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def chunk_key(quantity: Quantity, index: int) -> str:
    """The path of a chunk within the log."""
    return "/".join([quantity.name, "c", str(index), *("0" for _ in quantity.shape)])


def pack_chunk(rows: np.ndarray, run: str | None, name: str, index: int) -> bytes:
    """The bytes of chunk `index` of the quantity `name`."""
    raw = np.ascontiguousarray(rows, rows.dtype.newbyteorder("<")).tobytes()
    body = raw if run is None else _wrapped(raw, run, name, index)
    return body + struct.pack("<I", google_crc32c.value(body))


def _wrapped(raw: bytes, run: str | None, name: str, index: int) -> bytes:
    deflate = zlib.compressobj(0, zlib.DEFLATED, RAW_DEFLATE)
    stream = deflate.compress(raw) + deflate.flush()
    end = struct.pack("<II", zlib.crc32(raw), len(raw) & 0xFFFFFFFF)
    return b"".join((GZIP, _comment(run, name, index), stream, end))


def _comment(run: str | None, name: str, index: int) -> bytes:
    return f"lrbias {run} {name} {index}\0".encode()


def most_bytes(quantity: Quantity, rows: int) -> int:
    """Bytes that the file of a chunk of `rows` rows has at most."""
    raw = rows * _size(quantity.shape) * np.dtype(quantity.dtype).itemsize
    return raw + raw // 1000 + OVERHEAD


def unpack_chunk(data: bytes, quantity: Quantity, rows: int, run: str | None, index: int) -> np.ndarray:
    """The `rows` rows of a chunk from the bytes of its file; Damaged unless they are that chunk of that run."""
    dtype = np.dtype(quantity.dtype).newbyteorder("<")
    shape = (rows, *quantity.shape)
    body = memoryview(data)[:-4]
    if len(data) < 4 or google_crc32c.value(bytes(body)) != int.from_bytes(data[-4:], "little"):
        raise Damaged("its checksum does not match")
    raw = body if run is None else _unwrapped(body, run, quantity.name, index, _size(shape) * dtype.itemsize)
    if len(raw) != _size(shape) * dtype.itemsize:
        raise Damaged(f"it has {len(raw)} bytes of rows, where {_size(shape) * dtype.itemsize} have to be")
    return np.frombuffer(raw, dtype).reshape(shape)


def _unwrapped(body: memoryview, run: str | None, name: str, index: int, count: int) -> bytes:
    start = GZIP + _comment(run, name, index)
    if body[: len(start)] != start:
        said = bytes(body[len(GZIP) : len(GZIP) + 400]).partition(b"\0")[0].decode("utf-8", "replace")
        another = "another run" if f"lrbias {run} " not in said else f"chunk {' '.join(said.split()[2:])}"
        raise Damaged(f"it is that of {another}" if said.startswith("lrbias ") else "it does not say whose chunk it is")
    inflate = zlib.decompressobj(RAW_DEFLATE)
    try:
        raw = inflate.decompress(body[len(start) :], count + 1)
    except zlib.error as error:
        raise Damaged(str(error)) from None
    if len(raw) == count and not inflate.eof:
        inflate.decompress(inflate.unconsumed_tail, 1)
    if inflate.unused_data != struct.pack("<II", zlib.crc32(raw), len(raw) & 0xFFFFFFFF):
        raise Damaged("its stream is not as long as its rows")
    return raw


def array_document(quantity: Quantity, rows: int, room: int, run: str | None) -> dict[str, Any]:
    """What zarr.json says of a quantity's array with room for `room` rows, in chunks of `rows`."""
    dtype = np.dtype(quantity.dtype)
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}} if dtype.itemsize > 1 else {"name": "bytes"}]
    if run is not None:
        codecs.append({"name": "gzip", "configuration": {"level": 0}})
    document: dict[str, Any] = {
        "shape": [room, *quantity.shape],
        "data_type": dtype.name,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [rows, *(max(1, n) for n in quantity.shape)]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": {"f": "NaN", "b": False, "c": [0.0, 0.0]}.get(dtype.kind, 0),
        "codecs": [*codecs, {"name": "crc32c"}],
        "attributes": {"interval": quantity.interval},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }
    if run is not None:
        document["attributes"]["checksum"] = zlib.crc32(json.dumps([run, quantity.name, document]).encode())
    return document


def group_names(quantities: Iterable[Quantity]) -> list[str]:
    """The groups of the log, the whole of it first: "" and what stands before a / in names."""
    names = {"": None}
    for quantity in quantities:
        parts = quantity.name.split("/")
        names.update({"/".join(parts[:depth]): None for depth in range(1, len(parts))})
    return list(names)


def as_text(document: dict[str, Any]) -> bytes:
    """The bytes of a zarr.json."""
    return json.dumps(document, indent=2).encode()


def described_room(data: bytes, quantity: Quantity, rows: int, run: str | None) -> int:
    """For how many rows the array has room that the bytes of a zarr.json describe; Damaged unless it is that of the
    quantity, in chunks of `rows`."""
    found = _without_nothing(_parsed(data))
    shape = found.get("shape")
    room = shape[0] if isinstance(shape, list) and shape else None
    if type(room) is not int or room < 0 or found != _without_nothing(array_document(quantity, rows, room, run)):
        raise Damaged("it does not describe the quantity that config.json lists")
    return room


def check_group(data: bytes) -> None:
    """Damaged unless the bytes of a zarr.json describe a group."""
    if _without_nothing(_parsed(data)) != GROUP:
        raise Damaged("it does not describe a group")


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"it is no JSON ({' '.join(str(error).split())[:100]})") from None
    if not isinstance(found, dict):
        raise Damaged("it is no JSON object")
    return found


def _without_nothing(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in NOTHING or value not in (None, [], {})}
