"""Kinds of runs that others resume: the entry points `lrbias.resume` name, for the kind in config.json, a function."""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any


def resumer(kind: str) -> Callable[..., Any]:
    """The function (path, steps, progress=…) that continues runs of a kind."""
    (entry,) = entry_points(group="lrbias.resume", name=kind)
    return entry.load()
