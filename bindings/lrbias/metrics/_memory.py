"""What metrics keep from one record to the next, and how a resumed run has it again."""

import numpy as np


class Memory:
    """Arrays by name that a metric read at this record (`before`) and leaves for the next (`keep`).

    The record at the step where a run is resumed is made twice, before and after. So what was known before a record
    stays until the next one begins: a checkpoint at the same step holds that.
    """

    def __init__(self) -> None:
        self._step: int | None = None
        self._before: dict[str, np.ndarray] = {}
        self._after: dict[str, np.ndarray] = {}

    def turn_to(self, step: int) -> None:
        """A record at `step` begins, or begins again."""
        if step != self._step:
            self._step = step
            self._before = self._after
        self._after = dict(self._before)

    def before(self, name: str) -> np.ndarray | None:
        """What was kept under `name` at an earlier record, None at the first. Not to be written to."""
        return self._before.get(name)

    def keep(self, name: str, array: np.ndarray) -> None:
        """Keep an array, which is not copied, for the next record."""
        self._after[name] = array

    def settle(self) -> None:
        """The next record is another one than the last, whatever its step."""
        self._step = None

    def state(self, step: int) -> dict[str, np.ndarray]:
        """{name: array} for a checkpoint at `step`."""
        return dict(self._before if step == self._step else self._after)

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `state` gave."""
        self._step = None
        self._before = {}
        self._after = dict(state)
