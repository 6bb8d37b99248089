"""Measuring beside the training: on another core, written in order, with bounded memory."""

import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lrbias.errors import StoreError
from lrbias.storage import Arrays, Group
from lrbias.system import Owner

Row = tuple[str | Group, int, Any]  # name, row, value
Tell = Callable[[int, dict[str, Any]], None]  # of a step and what was measured there
SNAPSHOTS = 8  # copies of the parameters that may wait to be measured at most


class MeasureError(Exception):
    """A metric or a function of the user's failed at `step`.

    The cause is its own exception. params, state: of the stepper there; kept: what metrics kept before that record,
    None where they keep nothing.
    """

    def __init__(self, step: int, params: np.ndarray, state: Arrays, kept: Arrays | None = None) -> None:
        super().__init__(f"a metric or a function failed at step {step}")
        self.step = step
        self.params = params
        self.state = state
        self.kept = kept


@dataclass
class _Snapshot:
    """The parameters at a step, and the rows (name, row, value) that were measured there once it is done.

    known: {name: value} of what needs no measuring, for whoever is told of the record; None where nobody is.
    """

    params: np.ndarray
    state: Arrays
    step: int
    known: dict[str, Any] | None
    rows: list[Row] = field(default_factory=list)
    kept: Arrays | None = None
    error: Exception | None = None
    done: bool = False

    def failed(self, error: Exception) -> MeasureError:
        """The MeasureError of `error` here."""
        failure = MeasureError(self.step, self.params.copy(), self.state, self.kept)
        failure.__cause__ = error
        return failure


class Logger:
    """Measures what is due, in the calling thread or asynchronously.

    The logging thread works through the snapshots, and when too many wait the calling thread measures some of them, so
    that both cores are busy whichever is slower, training or measuring. The kernels release the interpreter. Rows are
    written in the order of the steps, whoever measured them. The user's functions are always called in the thread that
    trains.

    own_state     a NetworkState for the calling thread
    thread_state  one for the logging thread; None: without that thread
    most          how many snapshots may wait
    ordered       a record needs the one before it, so the logging thread makes all of them
    tell          a function (step, known, rows), called for every record with something known, once it is written, in
                  the order of the steps and in the calling thread
    """

    def __init__(
        self,
        schedule: Any,
        own_state: Any,
        thread_state: Any,
        write: Callable[[str | Group, int, Any], None],
        most: int = SNAPSHOTS,
        ordered: bool = False,
        tell: Callable[[int, dict[str, Any], list[Row]], None] | None = None,
    ) -> None:
        self._schedule = schedule
        self._write = write
        self._tell = tell
        self._untold: deque[_Snapshot] = deque()  # written, in order
        self._own_state = own_state
        self._most = min(most, SNAPSHOTS)
        self._ordered = ordered
        self._waiting: deque[_Snapshot] = deque()  # not written yet, in order
        self._ready: queue.SimpleQueue[_Snapshot | None] = queue.SimpleQueue()  # not begun
        self._written = threading.Condition()
        self._failure: MeasureError | StoreError | None = None
        self._thread: threading.Thread | None = None
        self._owner = Owner()
        if thread_state is not None:
            self._thread = threading.Thread(target=self._work, args=(thread_state,), daemon=True)
            self._thread.start()

    def measure(self, params: np.ndarray, step: int, state: Arrays, known: dict[str, Any] | None = None) -> None:
        """Measure, or queue a snapshot of `params` (and of the stepper's `state`, for a failure).

        known: {name: value} of what else is told of this record. Raises MeasureError or StoreError, also for earlier
        steps.
        """
        if known is None and not self._schedule.is_due(step):
            return
        if self._thread is None:
            self._measure_here(params, step, state, known)
            return
        copies = {name: array.copy() for name, array in state.items()}
        snapshot = _Snapshot(params.copy(), copies, step, known)
        self._waiting.append(snapshot)
        self._ready.put(snapshot)
        while len(self._waiting) > self._most and self._failure is None:
            self._help(self._most)
        self._tell_what_is_written()
        self._raise()

    def _measure_here(self, params: np.ndarray, step: int, state: Arrays, known: dict[str, Any] | None) -> None:
        rows: list[Row] = []
        try:
            self._schedule.measure(self._own_state, params, step, lambda *row: rows.append(row))
        except Exception as error:
            kept = self._schedule.memory.state(step) if self._ordered else None
            raise MeasureError(step, params.copy(), state, kept) from error
        for row in rows:
            self._write(*row)
        if known is not None and self._tell is not None:
            try:
                self._tell(step, known, rows)
            except Exception as error:
                raise MeasureError(step, params.copy(), state) from error

    def drain(self) -> None:
        """Until everything queued is written. Raises MeasureError for the first that failed, or StoreError."""
        while self._waiting and self._failure is None:
            self._help(0)
        self._tell_what_is_written()
        self._raise()

    def close(self) -> None:
        """End the thread; what is still queued is dropped. Nothing in a forked child, which has no such thread."""
        if not self._owner.here:
            return
        if self._thread is not None:
            self._discard()
            self._ready.put(None)
            self._thread.join()
        self._waiting.clear()
        self._untold.clear()
        self._failure = None

    def _discard(self) -> None:
        while self._next() is not None:
            pass

    def _work(self, network_state: Any) -> None:
        while (snapshot := self._ready.get()) is not None:
            self._take(snapshot, network_state)

    def _help(self, enough: int) -> None:
        """Measure one snapshot here; where there is none to take, wait until at most `enough` are not written."""
        snapshot = None if self._ordered else self._next()
        if snapshot is not None:
            self._take(snapshot, self._own_state)
            return
        with self._written:
            self._written.wait_for(lambda: len(self._waiting) <= enough or self._failure is not None)

    def _next(self) -> _Snapshot | None:
        """A snapshot that nobody has begun, or None."""
        try:
            return self._ready.get_nowait()
        except queue.Empty:
            return None

    def _take(self, snapshot: _Snapshot, network_state: Any) -> None:
        try:
            self._schedule.measure(
                network_state,
                snapshot.params,
                snapshot.step,
                lambda *row: snapshot.rows.append(row),
            )
        except Exception as error:  # raised again, with its step, in the thread that trains
            snapshot.error = error
        if self._ordered:  # by the time that somebody asks, later records may have been made
            snapshot.kept = self._schedule.memory.state(snapshot.step)
        snapshot.done = True
        with self._written:
            self._write_what_is_done()
            self._written.notify_all()

    def _write_what_is_done(self) -> None:
        while self._waiting and self._waiting[0].done and self._failure is None:
            snapshot = self._waiting[0]
            if snapshot.error is not None:
                self._failure = snapshot.failed(snapshot.error)
                return
            try:
                for row in snapshot.rows:
                    self._write(*row)
            except StoreError as error:  # a full block could not be written: no fault of a metric's
                self._failure = error
                return
            if snapshot.known is not None:
                self._untold.append(snapshot)
            self._waiting.popleft()

    def _tell_what_is_written(self) -> None:
        while self._untold:
            snapshot = self._untold.popleft()
            try:
                if self._tell is not None and snapshot.known is not None:
                    self._tell(snapshot.step, snapshot.known, snapshot.rows)
            except Exception as error:
                raise snapshot.failed(error) from error

    def _raise(self) -> None:
        if self._failure is not None:
            failure = self._failure
            self._failure = None
            self._waiting.clear()
            raise failure
