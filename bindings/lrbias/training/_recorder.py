"""What the loop asks of a recorder."""

from typing import Any

import numpy as np

from lrbias.storage import Arrays
from lrbias.training._logging import MeasureError


class Recorder:
    """Takes the losses of the steps and measures what is due. This one keeps nothing.

    intervals  in steps: of its rows
    marks      in steps: of records, at each of which a chunk ends
    """

    intervals: list[int]
    marks: list[int]

    @property
    def rank(self) -> float | None:
        """A number for the display, beside the loss."""
        return None

    def begin(self, storage: Any, step: int) -> None:
        """Write to `storage` from now on, the rows from `step` on."""

    def losses(self, step: int, count: int) -> np.ndarray:
        """The array that the losses of at most `count` steps from `step` on are written to."""
        return np.empty(count)

    def note(self, step: int, losses: np.ndarray) -> None:
        """These steps were made, the first of which is number `step`."""

    def record(self, step: int) -> None:
        """Measure what is due at `step`, beside the training where there is a core for that."""

    def drain(self) -> None:
        """Return when everything is written that was recorded so far."""

    def close_step(self, step: int, ending: str) -> bool:
        """Before a commit at `step`: write the loss there. False where it is not finite, which is divergence.

        ending: "running", or the status that the run ends with.
        """
        return True

    def divergence(self, step: int) -> tuple[int, str]:
        """(the step that a run has reached whose next loss is not finite, a sentence)."""
        raise NotImplementedError

    def detail(self, ending: str, sentence: str) -> str:
        """What is said of the run beside its status."""
        return sentence

    def hand_on(self, ending: str) -> None:
        """Hand all rows to the storage: as a tail while the run goes on, else whole blocks."""

    def state(self, step: int) -> Arrays:
        """{name: array} for a checkpoint at `step`, beside what the stepper needs."""
        return {}

    def failed(self, error: MeasureError) -> None:
        """Go back to the record where something of the user's failed (a MeasureError); nothing is recorded any more."""
        raise error

    def close(self) -> None:
        """Nothing is recorded any more."""
