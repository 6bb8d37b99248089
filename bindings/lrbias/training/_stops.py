"""When a run ends before its last step: a `Stop` at work."""

from typing import Any

from lrbias.experiments import Stop
from lrbias.metrics import Record


class NoStops:
    """What ends a run before its last step: nothing.

    loss       the loss that a run stops at
    intervals  in steps: of looks that need a chunk to end there
    """

    loss: float | None = None
    intervals: tuple[int, ...] = ()

    def sentence(self, step: int) -> str | None:
        """Why the run stops at `step`, None where it goes on."""
        return None


class Stops(NoStops):
    """What a Stop says of one run.

    recorder: a RunRecorder, once there is one; it calls `look` at each record where a function is asked.
    """

    def __init__(self, stop: Stop, record: Record) -> None:
        self.loss = stop.loss
        self.intervals = () if stop.gradient is None else (record.every,)
        self.recorder: Any = None
        self._stop = stop
        self._every = record.every
        self._found = False  # what the function has said

    def look(self, step: int, row: dict[str, Any]) -> None:
        """Ask the function of the user's."""
        self._found = bool(self._stop.when(step, row))

    def sentence(self, step: int) -> str | None:
        """Why the run stops at `step`, None where it goes on."""
        if self._gradient_reached(step):
            return f"the gradient norm is at most {self._stop.gradient:g}"
        if self._plateaus_reached(step):
            return f"the effective rank has reached its plateau {self._stop.plateaus}"
        if self._found:
            return "the function that was given as `when` has said so"
        return None

    def _gradient_reached(self, step: int) -> bool:
        if self._stop.gradient is None or step % self._every:
            return False
        return self.recorder.gradient_norm(step) <= self._stop.gradient

    def _plateaus_reached(self, step: int) -> bool:
        watch = self.recorder.watch
        if not watch or step % watch.every:
            return False
        self.recorder.drain()
        return watch.reached()
