"""Arrays in one .npz file that says whose it is: checked as a whole, and sized before memory is taken.

NumPy and unzip read such a file like any other. Its zip comment is the seal, "lrbias OWNER WHAT CRC": the run that it
belongs to, which of its files it is, and a CRC-32 of every byte before that number. A file without a seal is one from
before there were seals: of such a file the members are checked, each by the CRC-32 that a zip archive keeps of it.
"""

import contextlib
import io
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from os import PathLike
from typing import Any

import numpy as np

END = b"PK\x05\x06"  # begins the last record of a zip archive, whose last field is the length of the comment
END_BYTES = 22
CRC_DIGITS = 8
LONGEST_COMMENT = 400
COMMENT = re.compile(r"lrbias (\S+) (.+) ([0-9a-f]{8})")
MAGIC = b"\x93NUMPY"
KINDS = "biufcU"  # of the elements of arrays; no Python objects
HEADER = re.compile(
    r"\{'descr': '([<>|][a-zA-Z]\d{1,12})', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\), \} *\n"
)
OVERHEAD = 1 << 16  # bytes of a file, at most, that are no numbers: headers, names, the directory


class Damaged(Exception):
    """The bytes of a file are not what was written there. The text says in a few words what is wrong."""


@contextlib.contextmanager
def parsing() -> Iterator[None]:
    """Whatever a parser raises about bytes that it does not understand: they are Damaged."""
    try:
        yield
    except Damaged:
        raise
    except Exception as error:  # zipfile alone raises nine kinds of them
        raise Damaged(" ".join(f"{error or type(error).__name__}".split())[:200]) from None


def pack(arrays: dict[str, Any], owner: str | None = None, what: str = "") -> bytes:
    """The bytes of an .npz file with {name: array}, sealed as `what` of `owner`; owner None: without a seal."""
    data = io.BytesIO()
    np.savez(data, **arrays)
    if owner is not None:
        text = f"lrbias {owner} {what} ".encode()
        data.seek(-2, os.SEEK_END)
        data.write((len(text) + CRC_DIGITS).to_bytes(2, "little") + text)
        data.write(f"{zlib.crc32(data.getbuffer()):08x}".encode())
    return data.getvalue()


def read_archive(
    path: str | PathLike[str], owner: str | None = None, what: str = "", most: int | None = None
) -> dict[str, np.ndarray]:
    """{name: array} of the .npz file at `path`, every byte of it verified.

    owner, what: as for `pack`; owner None: whoever's it is. most: bytes that such a file has at most. Raises Damaged,
    and FileNotFoundError where there is no file.
    """
    return unpack(read_bytes(path, most), owner, what)


def read_any_archive(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """{name: array} of an .npz file that anybody wrote, compressed or not; Damaged unless every member is whole.

    NumPy alone would not see a flipped bit in the header of a member: it stops reading before the end, where the
    CRC-32 is compared.
    """
    with parsing():
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken:
            raise Damaged(f"Bad CRC-32 of {broken}")
        with np.load(path, allow_pickle=False) as members:
            return dict(members)


def read_bytes(path: str | PathLike[str], most: int | None = None) -> bytes:
    """The bytes of a file; Damaged when it has more than `most`, before memory is taken, or cannot be read."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if most is not None and size > most:
                raise Damaged(f"it has {size} bytes, where at most {most} can be")
            return file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Damaged(error.strerror or str(error)) from None
    except MemoryError:
        raise Damaged(f"its {size} bytes do not fit into memory") from None


def unpack(data: bytes, owner: str | None = None, what: str = "") -> dict[str, np.ndarray]:
    """{name: array} of the bytes that `pack` returned; Damaged unless they are those."""
    seal_of(data) if owner is None else check_seal(data, owner, what)
    arrays = {}
    with parsing(), zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            whole = member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size
            if not whole or member.file_size > len(data) or name == member.filename or name in arrays:
                raise Damaged(f"its member {member.filename} is none that was written")
            arrays[name] = parse_array(archive.read(member))  # which compares the CRC of the whole member
    return arrays


def check_seal(data: bytes, owner: str, what: str) -> None:
    """Damaged unless the bytes of an archive are whole, and `what` of `owner`."""
    found = seal_of(data)
    if found is None:
        raise Damaged("it does not say whose file it is")
    if found != (owner, what):
        raise Damaged("it belongs to another run" if found[0] != owner else f"it is {found[1]} and not {what}")


def seal_of(data: bytes) -> tuple[str, str] | None:
    """(owner, what) of a sealed archive, None of one without a seal; Damaged unless the checksum is right."""
    place = data.rfind(END, max(0, len(data) - END_BYTES - LONGEST_COMMENT))
    comment = data[place + END_BYTES :]
    if place < 0 or int.from_bytes(data[place + END_BYTES - 2 : place + END_BYTES], "little") != len(comment):
        raise Damaged("it does not end like an archive")
    if not comment:
        return None
    found = COMMENT.fullmatch(comment.decode("utf-8", "replace"))
    if not found or found[3] != f"{zlib.crc32(memoryview(data)[:-CRC_DIGITS]):08x}":
        raise Damaged("Bad CRC-32 over the whole file")
    return found[1], found[2]


def parse_array(data: bytes) -> np.ndarray:
    """The array of the bytes of an .npy file as `numpy.save` writes it; Damaged unless they are that, and no more."""
    if data[:6] != MAGIC or data[6:8] not in (b"\1\0", b"\2\0"):
        raise Damaged("it is no .npy file")
    start = 8 + 2 * data[6]
    end = start + int.from_bytes(data[8:start], "little")
    header = HEADER.fullmatch(data[start:end].decode("latin-1"))
    if not header:
        raise Damaged("the header of its .npy file is not one that was written")
    with parsing():
        dtype = np.dtype(header[1])
        shape = tuple(int(n) for n in header[3].replace(",", " ").split())
    count = 1
    for n in shape:
        count *= n
    if dtype.kind not in KINDS or count * dtype.itemsize != len(data) - end:
        raise Damaged(f"its header says {dtype} of shape {shape}, which is not what follows")
    if not count:
        return np.empty(shape, dtype)
    return np.frombuffer(data, dtype, offset=end).reshape(shape, order="F" if header[2] == "True" else "C").copy("K")


def expect(arrays: dict[str, np.ndarray], name: str, shape: Any, dtype: Any) -> np.ndarray:
    """The array of that name; Damaged unless it has this shape and dtype. None in the shape stands for any length."""
    if name not in arrays:
        raise Damaged(f"{name} is not in it")
    array = arrays[name]
    shown = tuple("any" if n is None else n for n in shape)
    same = len(array.shape) == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    if not same or array.dtype != np.dtype(dtype):
        raise Damaged(f"{name} is {array.dtype} of shape {array.shape}, not {np.dtype(dtype)} of shape {shown}")
    return array
