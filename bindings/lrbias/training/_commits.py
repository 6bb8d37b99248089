"""When a loop commits on its way. `intervals` are those in steps at which a chunk has to end for that."""

import time


class EverySteps:
    """Commits at multiples of `every` steps, and where a stage of the training ends."""

    def __init__(self, every: int) -> None:
        self._every = every
        self.intervals = (every,)

    def due(self, step: int, stage_over: bool) -> bool:
        return step % self._every == 0 or stage_over

    def took(self, seconds: float) -> None:
        """A commit has taken so long."""


class EverySeconds:
    """Commits once so many seconds have passed, and longer where they take more than `share` of the time."""

    intervals = ()

    def __init__(self, seconds: float, share: float) -> None:
        self._seconds = self._pause = seconds
        self._share = share
        self._last = time.monotonic()

    def due(self, step: int, stage_over: bool) -> bool:
        return time.monotonic() - self._last > self._pause

    def took(self, seconds: float) -> None:
        self._pause = max(self._seconds, seconds / self._share)
        self._last = time.monotonic()


class Never:
    """Commits only at the end."""

    intervals = ()

    def due(self, step: int, stage_over: bool) -> bool:
        return False

    def took(self, seconds: float) -> None:
        """A commit has taken so long."""
