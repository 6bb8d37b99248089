"""What can go wrong, each with one sentence for the person who reads it."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PATH = re.compile(r"\b(?:Posix|Windows)Path\((['\"].*?['\"])\)")  # which a user gave as a word


class InvalidInput(ValueError):
    """An argument was not accepted. The sentence names the argument, its value and what is accepted."""


class StoreError(RuntimeError):
    """A run directory cannot be read or written as it should. The sentence names the file and a way out."""


class RunsFailed(RuntimeError):
    """Not one run of a sweep could be made. The sentence has the first reason; `.sweep` is the Sweep, whose table has
    all of them.
    """

    def __init__(self, message: str, sweep: Any) -> None:
        super().__init__(message)
        self.sweep = sweep


class FigureError(RuntimeError):
    """A figure could not be drawn, for a fault of ours or of matplotlib's; `.paths` are those that were."""

    def __init__(self, message: str, paths: Iterable[Path] = ()) -> None:
        super().__init__(message)
        self.paths = list(paths)


class Interrupted(KeyboardInterrupt):
    """Training was interrupted by a signal, number `.signal`, after everything was saved.

    `.run` holds what was recorded; None where the work was of several runs, or a second signal ended it at once.
    """

    def __init__(self, message: str, run: Any, signal: int | None) -> None:
        super().__init__(message)
        self.run = run
        self.signal = signal


class ForecastWarning(UserWarning):
    """A run is likely to show nothing: its learning rate is unstable, or no mode escapes within its steps."""


class DataWarning(UserWarning):
    """The data leave something open: a row or a column without any observed entry, a graph that is not connected."""


def refused(argument: str, value: Any, accepted: str) -> InvalidInput:
    """To be raised: "argument = value is not accepted: expected …"."""
    return InvalidInput(f"{argument} = {shorten(value)} is not accepted: expected {accepted}.")


def check(condition: Any, argument: str, value: Any, accepted: str) -> None:
    """Raise InvalidInput, as `refused` words it, unless `condition`."""
    if not condition:
        raise refused(argument, value, accepted)


def check_settable(condition: Any, argument: str, value: Any, reason: str) -> None:
    """Raise InvalidInput unless `condition`: "argument = value cannot be set: reason"."""
    if not condition:
        raise InvalidInput(f"{argument} = {shorten(value)} cannot be set: {reason}.")


def shorten(value: Any, limit: int = 60) -> str:
    """A value as it is shown in a sentence."""
    text = value if isinstance(value, str) and value.startswith("<") else PATH.sub(r"\1", repr(value))
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
