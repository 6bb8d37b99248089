"""Measuring beside the training: on another core, in order, with bounded memory."""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from lrbias.errors import StoreError

SNAPSHOTS = 8  # copies of the parameters that may wait to be measured


class MeasureError(Exception):
    """A metric failed at `step`, where the parameters were `params`; the cause is the metric's own exception."""

    def __init__(self, step, params):
        super().__init__(f"a metric failed at step {step}")
        self.step, self.params = step, params


class Recorder:
    """Measures what is due, either at once or in a thread of its own that works through snapshots in order.

    The kernels and LAPACK release the interpreter, so a thread of its own uses another core where there is one.
    Functions of the user's are always called at once, in the thread that trains.
    """

    def __init__(self, plan, observation, write, threads):
        self._plan, self._observation, self._write = plan, observation, write
        alone = len(os.sched_getaffinity(0)) <= threads or bool(plan.setup.record.functions())
        self._pool = None if alone else ThreadPoolExecutor(1, thread_name_prefix="lrbias-metrics")
        self._waiting = deque()

    def measure(self, params, step):
        """Measure, or queue a snapshot of `params`; waits when SNAPSHOTS are queued. Raises MeasureError."""
        if not self._plan.due(step):
            return
        if self._pool is None:
            self._measure(params, step)
            return
        while len(self._waiting) >= SNAPSHOTS:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._measure, params.copy(), step))

    def _measure(self, params, step):
        try:
            self._plan.measure(self._observation, params, step, self._write)
        except StoreError:  # a full block could not be written: no fault of a metric's
            raise
        except Exception as error:
            raise MeasureError(step, params.copy()) from error

    def drain(self):
        """Wait until everything queued is measured. Raises MeasureError for the first that failed."""
        while self._waiting:
            self._waiting.popleft().result()

    def close(self):
        """End the thread; what is still queued is dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._waiting.clear()
