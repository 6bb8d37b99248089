"""A run that is kept in memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lrbias.storage._format import progress_document, shortened
from lrbias.storage._protocol import Arrays


class MemoryStorage:
    """What a run directory does, in memory: a RunStorage. Arrays are not copied where they are written for good.

    config: what config.json would say, as far as somebody asks for it; data: (target, observed).
    """

    path: Path | None = None

    def __init__(self, config: dict[str, Any], data: tuple[Any, ...] = ()) -> None:
        self._config = config
        self._data = data
        self._blocks: dict[str, dict[int, np.ndarray]] = {}  # {quantity: {index: block}}
        self._tails: dict[str, tuple[int, np.ndarray]] = {}
        self._checkpoints: dict[int, Arrays] = {}
        self._superseded: set[int] = set()
        self._progress = progress_document(0, 0, "new", "no step was made yet", [], 0.0)

    def config(self) -> dict[str, Any]:
        return self._config

    def data(self) -> tuple[Any, ...]:
        """(target, observed, reduction, source), as `lrbias.problems.restore` takes it."""
        return *self._data, self._config["settings"].get("reduction", "sum"), self._config["target_source"]

    def extend(self, config: dict[str, Any]) -> None:
        """Record that the run now goes further."""
        self._config = config

    def progress(self) -> dict[str, Any]:
        return self._progress

    def write_block(self, name: str, index: int, block: np.ndarray) -> None:
        """Rows index · len(block) … of a quantity, which stay as they are from now on."""
        self._blocks.setdefault(name, {})[index] = block

    def write_tail(self, tails: dict[str, tuple[int, np.ndarray]]) -> None:
        """{name: (first row, rows)}: what no whole block holds yet. Rows may be added behind these later on."""
        self._tails = dict(tails)

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        first, tail = self._tails.get(name, (None, np.empty(0)))
        parts = [self._nothing(name)]
        for index, block in sorted(self._blocks.get(name, {}).items()):
            begin = index * len(block)
            end = begin + len(block) if first is None else min(begin + len(block), first)
            parts.append(block[max(start - begin, 0) : max(min(stop, end) - begin, 0)])
        if first is not None:
            parts.append(tail[max(start - first, 0) : max(stop - first, 0)])
        return np.concatenate(parts)

    def _nothing(self, name: str) -> np.ndarray:
        """No rows of a quantity."""
        quantity = self._config["quantities"][name]
        return np.empty((0, *quantity["shape"]), quantity["dtype"])

    def rows_at_once(self, name: str) -> int:
        """All of them."""
        return self._progress["step"] + 1

    def write_checkpoint(self, step: int, arrays: Arrays, widths: Sequence[int]) -> None:
        self._checkpoints[step] = {name: np.array(array) for name, array in arrays.items()}

    def forget_checkpoint(self, step: int) -> None:
        """Drop a checkpoint as soon as the next commit has made it superfluous."""
        self._superseded.add(step)

    def checkpoint_steps(self) -> list[int]:
        return sorted(self._checkpoints)

    def checkpoint(self, step: int) -> np.ndarray:
        return self._checkpoints[step]["params"].copy()

    def checkpoint_arrays(self, step: int) -> Arrays:
        return {name: array.copy() for name, array in self._checkpoints[step].items()}

    def commit(
        self, step: int, checkpoint: int, status: str, detail: str, intervals: list[int], elapsed: float
    ) -> None:
        """Make everything written so far count. Committed rows never become fewer."""
        if step >= self._progress["step"]:
            self._progress = progress_document(step, checkpoint, status, detail, intervals, elapsed)
            for superseded in self._superseded:
                self._checkpoints.pop(superseded, None)
            self._superseded = set()
        if status != "running":  # then every row is in a block
            self._tails = {}

    def go_back(self, step: int) -> None:
        """Rows after `step` do not count any more."""
        self._progress = shortened(self._progress, step)

    def problems(self) -> list[str]:
        """None: nothing in memory could be damaged."""
        return []

    def close(self) -> None:
        """Nothing: nobody else writes to it."""
