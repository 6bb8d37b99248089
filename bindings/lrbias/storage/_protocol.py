"""What is kept of a run, wherever it is: in a run directory, in the file of a batch, in memory."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

Arrays = dict[str, np.ndarray]


@runtime_checkable
class RunSource(Protocol):
    """Reading what is kept of a run, as it is committed now.

    path  the run directory, or the one that a run of a batch would have; None in memory
    """

    @property
    def path(self) -> Path | None: ...

    def config(self) -> dict[str, Any]:
        """What config.json says: settings, quantities, versions."""

    def data(self) -> tuple[Any, ...]:
        """What the loss is made of: the arguments of `lrbias.problems.restore`."""

    def progress(self) -> dict[str, Any]:
        """The committed step, rows and losses, status, detail, seconds."""

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows start … stop − 1 of a quantity, as far as they are there."""

    def rows_at_once(self, name: str) -> int:
        """How many rows of a quantity are best read at once."""

    def checkpoint_steps(self) -> list[int]:
        """Steps that have a checkpoint, in order."""

    def checkpoint(self, step: int) -> np.ndarray:
        """The flat vector of the layers after `step` steps."""

    def checkpoint_arrays(self, step: int) -> Arrays:
        """Everything that training goes on from there."""

    def problems(self) -> list[str]:
        """One sentence for each file that is damaged, of those that hold neither rows nor a checkpoint."""


class LoopStorage(Protocol):
    """What the loop asks of the place where something is kept. path: where that is; None in memory."""

    @property
    def path(self) -> Path | None: ...

    def progress(self) -> dict[str, Any]:
        """How far it has come; `elapsed` are the seconds that it took."""

    def write_checkpoint(self, step: int, arrays: Arrays, widths: Any) -> None:
        """What training goes on from."""

    def commit(
        self, step: int, checkpoint: int, status: str, detail: str, intervals: list[int], elapsed: float
    ) -> None:
        """Make everything written so far count."""

    def close(self) -> None:
        """Nothing is written any more."""


@runtime_checkable
class RunStorage(RunSource, LoopStorage, Protocol):
    """Reading and writing what is kept of a run."""

    def write_block(self, name: str, index: int, block: np.ndarray) -> None:
        """A whole block of rows, index · len(block) being the first."""

    def write_tail(self, tails: dict[str, tuple[int, np.ndarray]]) -> None:
        """{name: (first row, rows)} of what no whole block holds yet."""
