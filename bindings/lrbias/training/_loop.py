"""The one loop: steps in chunks, recorded and committed when it is due, until something ends them."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lrbias.errors import Interrupted, StoreError
from lrbias.steppers import Chunks, Stepper
from lrbias.storage import Arrays, LoopStorage
from lrbias.system import Owner, collected
from lrbias.training._callbacks import Callbacks
from lrbias.training._clock import Clock
from lrbias.training._logging import MeasureError
from lrbias.training._recorder import Recorder
from lrbias.training._stops import NoStops
from lrcore import status
from lrcore.adaptive import ENDLESS

TRAINING = "training goes on, or was killed"


class Subject(NamedTuple):
    """How the loop speaks of what it makes.

    view     a function without arguments for the run as it is now; None where there is nothing to look at
    way_on   what to call in order to go on; None where nothing was kept
    display  where progress is shown
    """

    view: Callable[[], Any]
    way_on: str | None
    display: Any


class Span(NamedTuple):
    """The steps of a loop.

    first      so many were made before it begins
    last       and so many when it ends
    commits    says when one is due
    chunks     Chunks or WholeChunks: how far one call of the stepper goes
    keeps_all  whether every checkpoint stays, or only the last one
    """

    first: int
    last: int
    commits: Any
    chunks: type = Chunks
    keeps_all: bool = True


class Loop:
    """Steps from one to another.

    stepper    makes them: a `Stepper`
    recorder   takes their losses and measures what is due: a `Recorder`
    storage    keeps what is committed: a `LoopStorage`
    span       which steps, and when to commit
    subject    how to speak of it
    stops      what ends it early
    callbacks  what is called meanwhile
    """

    def __init__(
        self,
        stepper: Stepper,
        recorder: Recorder,
        storage: LoopStorage,
        span: Span,
        subject: Subject,
        stops: NoStops | None = None,
        callbacks: Callbacks | None = None,
    ) -> None:
        self.stepper = stepper
        self.recorder = recorder
        self.storage = storage
        self.subject = subject
        self.stops = stops or NoStops()
        self.callbacks = callbacks or Callbacks()
        self.chunks = span.chunks(stepper)
        self.step = self.checkpoint = span.first
        self._last = span.last
        self._keeps_all = span.keeps_all
        self._commits = span.commits
        self._intervals = sorted({*recorder.marks, *self.stops.intervals, *span.commits.intervals})
        self._clock = Clock(storage.progress()["elapsed"] if span.first else 0.0)
        self._loss = float("nan")
        self._loss_reached = False
        self._stage_over = False  # whether the stepper asks for a commit here
        self._failed = False

    def run(self) -> Any:
        """Make the steps, whatever ends them; commit; return the run.

        Raises Interrupted, StoreError, and what a function of the user's raised.
        """
        owner = Owner()
        failure: BaseException | None = None
        try:
            self.subject.display.start(self.step, self._last)
            with collected() as self.callbacks.signals:
                ending = self.make(self.callbacks.signals)
        except StoreError as error:  # what could be written is committed already
            path = self.storage.path
            if path is None or not path.exists():  # then there is nothing to resume
                raise
            raise StoreError(f"{error} When that is mended: {self.subject.way_on}") from error
        except MeasureError as error:  # in a function of the user's, or for one in a metric
            ending = self._fail(error)
            failure = error.__cause__
        finally:
            self.recorder.close()
            if owner.here:  # a child that a metric forked ends here, too
                self.subject.display.stop()
            self.storage.close()
        self._end_callbacks(failure)
        if failure:
            raise failure from None
        run = self.subject.view()
        if ending == "interrupted" or self.callbacks.interrupted:
            raise Interrupted(f"interrupted at step {self.step}{self._kept()}", run, self.callbacks.signals[0])
        return run

    def make(self, signals: object) -> str:
        """Make the steps and commit; returns the status that ended them. signals: a list that fills when one comes."""
        self.recorder.begin(self.storage, self.step)
        self._call(self.callbacks.start, self.subject.view)
        self.recorder.record(self.step)
        self.recorder.drain()
        self._clock.start()  # every metric was compiled, by whichever thread measured here
        while True:
            ending = self._ending(signals)
            if ending:
                return self._commit(*ending)
            if self._commit_is_due() and self._commit("running", TRAINING) == "diverged":
                return "diverged"
            before = self.step
            if self._make_steps() == status.DIVERGED:
                return self._diverged()
            if self.step > before:
                self.recorder.record(self.step)
            self.subject.display.update(self.step, self._loss, self.recorder.rank)

    def _ending(self, signals: object) -> tuple[str, str] | None:
        """(status, sentence) when the run ends here, else None."""
        if self._loss_reached:
            return "stopped", f"the loss is at most {self.stops.loss:g}"
        sentence = self.stops.sentence(self.step) or self.stepper.ending
        if sentence:
            return "stopped", sentence
        if self.step >= self._last:
            return "finished", "all steps were made"
        if signals:
            return "interrupted", "interrupted by a signal; resume continues it"
        return None

    def _make_steps(self) -> int:
        """A chunk of steps, and where a loss threshold is reached, exactly as many as that takes; returns a status."""
        losses = self.recorder.losses(self.step, self._chunk_length())
        before = self.stepper.snapshot() if self.stops.loss is not None else None
        code, losses = self.chunks.make(losses, self.step)
        if code == status.DIVERGED:
            self.step += len(losses)
            with np.errstate(all="ignore"):  # the layers there, from whatever was trained in their place
                self.stepper.expand()
            return code
        if len(losses) == 0:  # within a step that takes long
            return code
        self._loss = losses[-1]
        if before is not None:
            losses = self._up_to_threshold(before, losses)
        self.stepper.expand()
        self.recorder.note(self.step, losses)
        self.step += len(losses)
        self._stage_over = self.stepper.ends_stage(self.step)
        return code

    def _chunk_length(self) -> int:
        """Steps until something is due, as far as the time for one kernel call allows."""
        due = min(((self.step // interval + 1) * interval for interval in self._intervals), default=self._last)
        return self.chunks.length(self.step, min(due, self._last))

    def _up_to_threshold(self, before: tuple[np.ndarray, Arrays], losses: np.ndarray) -> np.ndarray:
        """Losses up to the first one that the run stops at; the steps after it are taken back."""
        reached = losses <= self.stops.loss
        if not reached.any():
            return losses
        losses = losses[: int(np.argmax(reached))]
        self.stepper.restore(*before)
        self.stepper.budget = ENDLESS
        self.stepper.step(losses, self.step)
        self._loss_reached = True
        return losses

    def _commit_is_due(self) -> bool:
        return self.step > self.checkpoint and self._commits.due(self.step, self._stage_over)

    def _commit(self, ending: str, detail: str) -> str:
        """Make everything so far count, with a checkpoint. A loss that is not finite is divergence instead."""
        started = time.perf_counter()
        self.recorder.drain()
        if not self.recorder.close_step(self.step, ending):
            return self._diverged()
        self.recorder.hand_on(ending)
        arrays = {**self.stepper.checkpoint(), **self.recorder.state(self.step)}
        if not self._keeps_all and self.checkpoint != self.step:
            storage: Any = self.storage  # one that forgets
            storage.forget_checkpoint(self.checkpoint)
        self.storage.write_checkpoint(self.step, arrays, self.stepper.widths)
        self.checkpoint = self.step
        self._note_progress(ending, detail)
        self._commits.took(time.perf_counter() - started)
        return ending

    def _diverged(self) -> str:
        self.recorder.drain()
        self.step, detail = self.recorder.divergence(self.step)
        self.recorder.hand_on("diverged")
        self._note_progress("diverged", detail)
        return "diverged"

    def _note_progress(self, ending: str, detail: str) -> None:
        elapsed = self._clock.elapsed
        detail = self.recorder.detail(ending, detail)
        self.storage.commit(self.step, self.checkpoint, ending, detail, self.recorder.intervals, elapsed)
        if not self._failed:
            self._call(self.callbacks.commit, self.step)

    def _call(self, callback: Callable[[Any], None], argument: Any) -> None:
        """Raises MeasureError for what a callback has raised."""
        try:
            callback(argument)
        except Exception as error:
            raise MeasureError(self.step, *self.stepper.snapshot()) from error

    def _fail(self, error: MeasureError) -> str:
        """Commit where something has failed; training may be further by now. Returns the status."""
        self._failed = True
        self.recorder.failed(error)
        self.step = error.step
        self.stepper.restore(error.params, error.state)
        cause = error.__cause__
        ending = self._commit("failed", f"{type(cause).__name__}: {cause}")
        if self.subject.way_on and cause is not None:
            cause.add_note(f"The run up to there is saved; continue with: {self.subject.way_on}")
        return ending

    def _end_callbacks(self, failure: BaseException | None) -> None:
        try:
            self.callbacks.end(self.subject.view)
        except Exception as error:
            if failure is None:
                raise
            failure.add_note(f"on_end has failed, too: {type(error).__name__}: {error}")

    def _kept(self) -> str:
        """The rest of a sentence: what is there of an interrupted run, and how to go on with it."""
        if self.subject.way_on is None:
            return "; what was recorded is the `.run` of this exception; a run with a store could be resumed"
        return f", everything is saved; continue with: {self.subject.way_on}"
