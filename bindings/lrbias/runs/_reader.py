"""What was recorded of a run of any kind: rows by the names of quantities, read while it is written or afterwards."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np

from lrbias.errors import InvalidInput, StoreError, shorten
from lrbias.settings import NonNegativeInt, validate
from lrbias.storage import LOSSES, RunSource, committed


class RunReader:
    """Rows and progress of a run. `source` is a RunSource, wherever the run is kept; nothing is read before it is asked
    for, and `refresh` looks at the progress again.
    """

    def __init__(self, source: RunSource, config: dict[str, Any]) -> None:
        self._source = source
        self._config = config
        self.refresh()

    def refresh(self) -> Self:
        """Look again at a run that is still being written. Returns the run."""
        self._progress = self._source.progress()
        return self

    @property
    def settings(self) -> dict[str, Any]:
        return self._config["settings"]

    @property
    def info(self) -> dict[str, Any]:
        """Versions, machine and promise level that the run was made with."""
        return self._config["made_with"]

    @property
    def path(self) -> Path | None:
        """The run directory, None for a run in memory."""
        return self._source.path

    @property
    def label(self) -> str:
        """What a legend calls it."""
        raise NotImplementedError

    @property
    def status(self) -> str:
        return self._progress["status"]

    @property
    def detail(self) -> str:
        return self._progress["detail"]

    @property
    def step(self) -> int:
        return self._progress["step"]

    @property
    def elapsed(self) -> float:
        return self._progress["elapsed"]

    @property
    def names(self) -> list[str]:
        """Names of all recorded quantities."""
        return list(self._config["quantities"])

    def __contains__(self, name: object) -> bool:
        return name in self._config["quantities"]

    def __getitem__(self, name: str) -> np.ndarray:
        interval = self._interval(name)
        return self._source.read(name, 0, self._rows(name, interval))

    def rows(self, name: str, first: int, last: int) -> np.ndarray:
        """Rows first … last − 1 of one of `run.names`, as far as they were recorded: for what is too large at once."""
        count = self._rows(name, self._interval(name))
        return self._source.read(name, first, max(first, min(last, count)))

    def _interval(self, name: Any) -> int:
        if not isinstance(name, str) or name not in self._config["quantities"]:
            raise InvalidInput(f"{shorten(name)} was not recorded in this run: expected one of {self._known()}.")
        return self._config["quantities"][name]["interval"]

    def _known(self) -> str:
        return ", ".join(self.names)

    def _rows(self, name: str, interval: int) -> int:
        return committed(self._progress, name, interval)

    def _has_rows(self, name: str) -> bool:
        return name in self and self._rows(name, self._interval(name)) > 0

    def steps_of(self, name: str) -> np.ndarray:
        """The steps at which a quantity was recorded."""
        interval = self._interval(name)
        return np.arange(self._rows(name, interval)) * interval

    @property
    def checkpoints(self) -> list[int]:
        """Steps that have a checkpoint."""
        return [step for step in self._source.checkpoint_steps() if step <= self.step]

    def _checkpoint_step(self, step: int) -> int:
        """`step`; InvalidInput unless it is one of `checkpoints`."""
        step = validate(NonNegativeInt, "step", step)
        if step not in self.checkpoints:
            raise InvalidInput(
                f"step = {shorten(step)} is not accepted: expected one of the checkpoints {shorten(self.checkpoints)}."
            )
        return step

    def to_xarray(self) -> Any:
        """All recorded quantities as an xarray.Dataset (extra `xarray`); one step coordinate per interval."""
        try:
            import xarray
        except ImportError:
            raise InvalidInput("to_xarray needs xarray: pip install 'lrbias[xarray]'.") from None
        variables = {}
        coordinates = {}
        for name in self.names:
            interval = self._interval(name)
            axis = "step" if interval == 1 else f"step_every_{interval}"
            values = self[name]
            axis = axis if name != LOSSES else "step"
            coordinates[axis] = np.arange(self._rows(name, interval)) * interval
            flat = name.replace("/", "_")
            variables[flat] = ((axis, *(f"{flat}_axis_{k}" for k in range(1, values.ndim))), values, {"name": name})
        return xarray.Dataset(variables, coordinates, {"status": self.status, "label": self.label})

    def check(self) -> list[str]:
        """Read everything that was committed, a file at a time; returns one sentence for each thing that is damaged.

        A run in memory has nothing that could be.
        """
        if self.path is None:
            return []
        found = list(self._source.problems())
        for name in self.names:
            count = self._rows(name, self._interval(name))
            rows = self._source.rows_at_once(name)
            for first in range(0, count, rows):
                last = min(first + rows, count)
                found += _sentence_of(functools.partial(self._source.read, name, first, last))
        for step in sorted({*self.checkpoints, *self._progress.get("checkpoints", ())}):
            found += _sentence_of(functools.partial(self._source.checkpoint_arrays, step))
        return list(dict.fromkeys(found))

    def summary(self) -> dict[str, Any]:
        """The facts of a run as a dictionary: what `lrbias info --json` prints."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(k)}</th><td>{escape(str(v))}</td></tr>"
            for k, v in self.summary().items()
        )
        return f"<table>{rows}</table>"


def _sentence_of(read: Callable[[], Any]) -> list[str]:
    try:
        read()
    except StoreError as error:
        return [str(error)]
    return []
