"""What a user has called while a run goes on."""

import signal
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from lrbias.errors import check
from lrbias.storage import each_value

MOMENTS = ("on_start", "on_record", "on_commit", "on_end")


class Callbacks:
    """The callbacks of one run, each called in the thread that trains, in the order in which they were given.

    given: a list of objects with any of on_start(run), on_record(step, row), on_commit(step), on_end(run); a function
    that is none is on_record. A KeyboardInterrupt in one counts as Ctrl-C: `signals` gets its number, and
    `interrupted` is True.
    """

    def __init__(self, given: Any = ()) -> None:
        accepted = f"a list of functions of (step, row), or of objects with some of {', '.join(MOMENTS)}"
        check(isinstance(given, (list, tuple)), "callbacks", given, accepted)
        self.given = bool(given)
        self.interrupted = False
        self.signals: list[int] = []
        self._called: dict[str, list[Callable[..., Any]]] = {moment: [] for moment in MOMENTS}
        for callback in given:
            known = [moment for moment in MOMENTS if callable(getattr(callback, moment, None))]
            check(bool(known) or callable(callback), "callbacks", callback, accepted)
            for moment in known:
                self._called[moment].append(getattr(callback, moment))
            if not known:
                self._called["on_record"].append(callback)

    def ask(self, function: Callable[[int, dict[str, Any]], Any]) -> None:
        """Call a function (step, row) at records after those that were given."""
        self._called["on_record"].append(function)

    @property
    def records(self) -> bool:
        """Whether one is called at records."""
        return bool(self._called["on_record"])

    def start(self, view: Callable[[], Any]) -> None:
        """view: a function without arguments for the run, which is made only where somebody looks at it."""
        self._call_with_run("on_start", view)

    def record(self, step: int, row: dict[str, Any]) -> None:
        self._call("on_record", step, row)

    def commit(self, step: int) -> None:
        self._call("on_commit", step)

    def end(self, view: Callable[[], Any]) -> None:
        self._call_with_run("on_end", view)

    def _call_with_run(self, moment: str, view: Callable[[], Any]) -> None:
        if self._called[moment]:
            self._call(moment, view())

    def _call(self, moment: str, *arguments: Any) -> None:
        for callback in self._called[moment]:
            try:
                callback(*arguments)
            except KeyboardInterrupt:
                self.interrupted = True
                self.signals.append(signal.SIGINT)


def as_row(rows: Iterable[tuple[Any, int, Any]], dtypes: dict[str, str]) -> dict[str, Any]:
    """{name: value} as they are recorded, from rows (name or Group, row, value): copies, NumPy scalars of numbers."""
    with np.errstate(all="ignore"):  # what is not finite is told as such
        each = (pair for name, _, value in rows for pair in each_value(name, value))
        return {name: np.array(value, dtypes[name])[()] for name, value in each}
