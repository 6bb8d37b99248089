"""Steps in chunks of one kernel call each, no longer than it takes for Ctrl-C and the display to be served."""

import time

import numpy as np

from lrbias.steppers._stepper import Stepper
from lrcore import status

CHUNK_SECONDS = 0.2  # longest kernel call: how soon Ctrl-C and the display are served. Bits do not depend on it
FIRST_CHUNK = 1
FIRST_BUDGET = 64  # gradients of such a call where a step takes as many as its error asks for


class Chunks:
    """The calls of one stepper, each fitted to CHUNK_SECONDS by how long the one before took."""

    def __init__(self, stepper: Stepper) -> None:
        self._stepper = stepper
        self._most = FIRST_CHUNK
        stepper.budget = FIRST_BUDGET

    def length(self, step: int, until: int) -> int:
        """How many steps the next call may make, from `step` on and no further than `until`."""
        return min(until - step, self._most, self._stepper.most_steps(step))

    def make(self, losses: np.ndarray, step: int) -> tuple[int, np.ndarray]:
        """At most as many steps as `losses` is long, the first of which is number `step`.

        Returns (status, the losses of the steps that were made).
        """
        started = time.perf_counter()
        code = self._stepper.step(losses, step)
        share = CHUNK_SECONDS / max(time.perf_counter() - started, 1e-9)
        if code != status.OK:
            losses = losses[: int(np.argmin(np.isfinite(losses)))]
        if code == status.PAUSED:
            self._stepper.budget = max(FIRST_BUDGET, int(self._stepper.budget * min(share, 2)))
        self._most = max(1, min(int(len(losses) * share), 2 * self._most))
        return code, losses


class WholeChunks(Chunks):
    """Calls that reach as far as is asked for, however long that takes."""

    def length(self, step: int, until: int) -> int:
        return min(until - step, self._stepper.most_steps(step))
