"""Paths as they are given: `~` is the home folder, and what the file system cannot take is refused in one sentence."""

import os
from pathlib import Path
from typing import Any

from lrbias.errors import InvalidInput, check


def as_path(argument: str, value: Any) -> Path:
    """`value` as a Path with `~` expanded. InvalidInput unless it is one, and one that can be looked up."""
    accepted = "a path"
    check(isinstance(value, (str, os.PathLike)), argument, value, accepted)
    try:
        path = Path(value).expanduser()
    except (TypeError, RuntimeError) as error:  # a path of bytes; a user without a home
        raise InvalidInput(f"{argument} = {str(value)!r} is not accepted: expected {accepted} ({error}).") from error
    try:
        path = _encodable(path)
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return path  # whoever wants a file that is there says so
    except (OSError, ValueError) as error:  # a name too long, no permission; a zero byte
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(
            f"{argument} = {_shortened(str(path))!r} is not accepted: expected a path that can be used ({reason})."
        ) from error
    return path


def _encodable(path: Path) -> Path:
    """The path with letters as the bytes of UTF-8, where the locale has only ASCII."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return Path(os.fsdecode(str(path).encode("utf-8")))
    return path


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
