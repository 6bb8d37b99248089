"""What a run records: the loss of every step, metrics beside the training, what its stepper says of itself."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lrbias.events import PlateauWatch
from lrbias.metrics import MetricSchedule, NetworkState, RunContext, logs_asynchronously
from lrbias.steppers import Stepper
from lrbias.storage import LOSSES, Arrays, Group, Log, RunStorage, as_recorded, check_quantities, losses_quantity
from lrbias.training._callbacks import as_row
from lrbias.training._logging import Logger, MeasureError, Row, Tell
from lrbias.training._recorder import Recorder
from lrbias.training._task import Task
from lrcore import status

EFFECTIVE_RANK = "product/effective_rank"
KEPT = "memory/"  # before the names of what metrics keep, in a checkpoint


class RunRecorder(Recorder):
    """The rows of a run, on their way to its storage.

    task     what is trained and how: a `Task`
    stepper  whose `params` are measured
    start    a function without arguments for the layers at step 0
    known    the quantities of a run that is resumed, as config.json has them
    tell     a function (step, row) that is called at each record, or None
    """

    def __init__(
        self,
        task: Task,
        stepper: Stepper,
        start: Callable[[], np.ndarray],
        known: dict[str, Any] | None = None,
        tell: Tell | None = None,
    ) -> None:
        self._task = task
        self._stepper = stepper
        threads = task.execution.threads
        device = task.execution.device
        dtype = stepper.params.dtype
        self.context = RunContext(task.problem, stepper.widths, dtype, task.record, task.method, device, start)
        self.network_state = NetworkState(self.context)
        self.schedule = MetricSchedule(self.context)
        asynchronous = logs_asynchronously(threads, task.record, stepper.widths, device) and task.stop.when is None
        self._thread_state = NetworkState(self.context) if asynchronous else None
        self.schedule.probe(self.network_state.at(stepper.params), known)
        self._own = stepper.quantities(task.record.every)
        self.quantities = as_recorded([losses_quantity(dtype), *self.schedule.quantities, *self._own], known)
        self.intervals = sorted({*self.schedule.intervals, *(quantity.interval for quantity in self._own)})
        self._tell = tell
        self.marks = sorted({*self.intervals, task.record.every}) if tell else self.intervals
        self._dtypes = {quantity.name: quantity.dtype for quantity in self.quantities}
        self._logger: Logger | None = None
        self.watch = None
        if task.stop.plateaus is not None:
            self.watch = PlateauWatch(task.stop.plateaus, task.record.intervals()["effective_rank"])

    def check(self, storage: RunStorage, config: dict[str, Any], step: int) -> None:
        """Before anything is written, read all that going on from `step` relies on; StoreError when it is damaged."""
        check_quantities(storage.path, config, self.quantities)
        Log(self.quantities, storage).check(step)
        if self.watch and step:
            self._watched(storage, step, self.watch.interval)

    @staticmethod
    def _watched(storage: RunStorage, step: int, interval: int) -> tuple[np.ndarray, np.ndarray]:
        """What a PlateauWatch has seen before `step`: rows of the effective rank, losses."""
        return storage.read(EFFECTIVE_RANK, 0, -(-step // interval)), storage.read(LOSSES, 0, step)

    def begin(self, storage: RunStorage, step: int) -> None:
        self._log = Log(self.quantities, storage)
        self._storage = storage
        self._logger = Logger(
            self.schedule,
            self.network_state,
            self._thread_state,
            self._write,
            ordered=self.schedule.ordered,
            tell=self._tell_of,
        )
        self._log.restore(step, storage.progress())
        if self.watch and step:
            self.watch.restore(*self._watched(storage, step, self.watch.interval))

    @property
    def _running_logger(self) -> Logger:
        assert self._logger is not None  # `begin` has made it
        return self._logger

    def _write(self, name: str | Group, row: int, value: Any) -> None:
        if isinstance(name, Group):
            self._log.set_group(name, row, value)
            if self.watch and EFFECTIVE_RANK in name.places:
                self.watch.note_rank(row, value[name.places[EFFECTIVE_RANK]][0])
        else:
            self._log.set(name, row, value)

    def losses(self, step: int, count: int) -> np.ndarray:
        return self._log.columns[LOSSES].view(step, count)

    def note(self, step: int, losses: np.ndarray) -> None:
        if self.watch:
            self.watch.note_losses(step, losses)

    def record(self, step: int) -> None:
        own = []
        for quantity, value in zip(self._own, self._stepper.values() if self._own else [], strict=True):
            if step % quantity.interval == 0:
                own.append((quantity.name, step // quantity.interval, value))
        for each in own:
            self._log.set(*each)
        told = None
        if self._tell and any(step % interval == 0 for interval in self.marks):
            told = {"loss": self._loss_at(step), **as_row(own, self._dtypes)}
        self._running_logger.measure(self._stepper.params, step, self._stepper.state(), told)

    def _tell_of(self, step: int, known: dict[str, Any], rows: list[Row]) -> None:
        """Tell of a record what is `known` of it, and its rows, as they are written."""
        if self._tell is not None:
            self._tell(step, {**known, **as_row(rows, self._dtypes)})

    @property
    def rank(self) -> float | None:
        return self._log.last(EFFECTIVE_RANK)

    def drain(self) -> None:
        self._running_logger.drain()

    def close_step(self, step: int, ending: str) -> bool:
        loss = self._loss_at(step)
        if not np.isfinite(loss):
            return False
        self._log.set(LOSSES, step, loss)
        return True

    def divergence(self, step: int) -> tuple[int, str]:
        loss = self._loss_at(step)
        self._log.set(LOSSES, step, loss)
        why = self._stepper.why_stuck(step) if np.isfinite(loss) else status.MEANING[status.DIVERGED]
        return step, f"the loss at step {step} is {loss}: {why}"

    def _loss_at(self, step: int) -> float:
        """The loss of the layers as they are: under a stochastic method that of the entries which it would draw."""
        with np.errstate(all="ignore"):
            if not self._task.method.stochastic:
                return self.network_state.at(self._stepper.params, step).loss
            return self._stepper.drawn_loss(step)

    def gradient_norm(self, step: int) -> float:
        """Of the gradient of the layers as they are."""
        return self.network_state.at(self._stepper.params, step).gradient_norm

    def hand_on(self, ending: str) -> None:
        if ending == "running":
            self._storage.write_tail(self._log.tails())
        else:
            self._log.flush()

    def state(self, step: int) -> Arrays:
        kept = {KEPT + name: array for name, array in self.schedule.memory.state(step).items()}
        scale = self.context.problem.output_scale
        if scale != 1:  # for who starts a network from this checkpoint
            kept["scale"] = np.array(scale, np.float64)
        return kept

    def restore(self, arrays: Arrays) -> None:
        """Take what `state` gave out of the arrays of a checkpoint, and go on from it."""
        kept = {name.removeprefix(KEPT): arrays.pop(name) for name in list(arrays) if name.startswith(KEPT)}
        arrays.pop("scale", None)  # which the problem has
        self.schedule.memory.restore(kept)

    def failed(self, error: MeasureError) -> None:
        self.close()
        if error.kept is not None:
            self.schedule.memory.restore(error.kept)

    def close(self) -> None:
        if self._logger:
            self._logger.close()
