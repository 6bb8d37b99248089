"""Matrices from files: `.npy`, tables of numbers, images."""

import csv
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from lrbias.errors import InvalidInput, check, shorten
from lrbias.settings import as_matrix
from lrbias.system import as_path

IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".pgm")
TABLES = (".csv", ".tsv", ".txt")
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")  # Pillow's modes of grey values with 16 bits
PLAIN_FORMATS = ("PNG", "PPM")  # whose mode "I" is of 16 bits; in a TIFF it can be anything
PNG_DEPTH = 24  # the byte of a PNG file that says how many bits a channel has
BITS_PER_SAMPLE = 258  # the tag of a TIFF that says so


def read_matrix(argument: str, path: Any) -> np.ndarray:
    """The matrix of a file, float64. InvalidInput, which calls the file `argument`, unless it can be read as one.

    `.npy` and tables as they are. Of an image the grey values, turned as its EXIF orientation says: 8 and 16 bits
    from 0 (black) to 1 (white), floating-point numbers as they are.
    """
    path = as_path(argument, path)
    check(path.is_file(), argument, str(path), "the path of a .npy, .csv, .tsv, .txt or image file that exists")
    suffix = path.suffix.lower()
    accepted = ".npy, " + ", ".join(TABLES + IMAGES)
    check(suffix == ".npy" or suffix in TABLES + IMAGES, argument, str(path), f"a file that ends in one of {accepted}")
    read = _read_npy if suffix == ".npy" else _read_table if suffix in TABLES else _read_image
    try:
        matrix = read(path)
    except Exception as error:  # a decoder that is given a foreign file raises almost anything
        reason = shorten(error.args[0] if isinstance(error, _Refused) else str(error) or type(error).__name__, 160)
        raise InvalidInput(
            f"{argument} = {str(path)!r} is not accepted: expected a readable {suffix} file ({_unquoted(reason)})."
        ) from error
    return as_matrix(argument, matrix, source=str(path))


class _Refused(ValueError):
    """A file that could be decoded, but only to other numbers than it holds."""


def _unquoted(reason: str) -> str:
    return reason[1:-1] if reason[:1] in "'\"" and reason[-1:] == reason[:1] else reason


def _read_npy(path: Path) -> np.ndarray:
    return np.load(path, allow_pickle=False)


# --- tables


def _read_table(path: Path) -> np.ndarray:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    rows = [(number, row) for number, row in enumerate(map(_without_comment, lines), start=1) if row.strip()]
    if not rows:
        raise _Refused("the file is empty")
    delimiter = _delimiter([row for _, row in rows])
    try:
        return np.loadtxt([row for _, row in rows], delimiter=delimiter, quotechar='"', comments=None, ndmin=2)
    except ValueError as error:
        raise _Refused(_what_is_wrong(rows, delimiter) or str(error)) from error


def _without_comment(line: str) -> str:
    return line.partition("#")[0]


def _delimiter(rows: list[str]) -> str | None:
    """What stands between the cells: a tab, a semicolon or a comma, whichever there is first; None: spaces."""
    for delimiter in ("\t", ";", ","):
        if any(delimiter in row for row in rows):
            return delimiter
    return None


def _what_is_wrong(rows: list[tuple[int, str]], delimiter: str | None) -> str | None:
    """Which cell is no number, or which row has another length, by its line in the file and its column from 1."""
    first = None
    for line, row in rows:
        cells = row.split() if delimiter is None else next(csv.reader([row], delimiter=delimiter))
        for column, cell in enumerate(cells, start=1):
            if (wrong := _wrong_cell(cell)) is not None:
                return f"line {line}, column {column} {wrong}"
        first = first or (line, len(cells))
        if len(cells) != first[1]:
            return f"line {line} has {len(cells)} columns, line {first[0]} has {first[1]}"
    return None


def _wrong_cell(cell: str) -> str | None:
    cell = cell.strip()
    if not cell:
        return "is empty"
    try:
        float(cell)
    except ValueError:
        hint = ", a decimal comma: write a point" if _is_number(cell.replace(",", ".")) else ""
        return f"is {shorten(cell, 40)}, not a number{hint}"
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# --- images


def _read_image(path: Path) -> np.ndarray:
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # an image too large to be meant
        # Without a name: Pillow would map an uncompressed TIFF, and mix up the sides of one that is turned.
        with open(path, "rb") as file, Image.open(file) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # of a camera, whose other images are previews of the first
                raise _Refused(f"it holds {frames} images; save the one that is meant")
            kind = image.format  # which a turned copy does not know
            bits = _bits(path, image)
            grey, white = _grey_values(ImageOps.exif_transpose(image), kind, bits)
            return np.asarray(grey, dtype=np.float64) / white


def _grey_values(image: Any, kind: str | None, bits: int | None) -> tuple[Any, float]:
    """(an image of grey values, what white is in them). Refused where Pillow would cut the numbers short."""
    if image.mode == "F":
        return image, 1.0
    if image.mode in SIXTEEN_BITS or (image.mode == "I" and kind in PLAIN_FORMATS):
        return image, 65535.0
    if image.mode == "I" or (bits or 8) > 8:
        accepted = "8 bits a channel, 16 bits of grey or floating-point numbers can be read: save it as one, or as .npy"
        raise _Refused(accepted)
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
        raise _Refused("parts of it are transparent; put it on a background")
    return image.convert("L"), 255.0


def _bits(path: Path, image: Any) -> int | None:
    """How many bits a channel has in the file, where it says so: Pillow reads colours of 16 bits as 8, silently."""
    if image.format == "PNG":
        with open(path, "rb") as file:
            return file.read(PNG_DEPTH + 1)[PNG_DEPTH]
    if image.format == "TIFF":
        return max(image.tag_v2.get(BITS_PER_SAMPLE, (1,)))
    return None
