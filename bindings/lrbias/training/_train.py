"""`train`: the door through which a run of a deep linear network begins."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any, NamedTuple, TypeVar

from lrbias.devices import resolve
from lrbias.errors import ForecastWarning, check
from lrbias.experiments import Stop, describe, to_toml
from lrbias.forecasts import first_warnings
from lrbias.methods import Method
from lrbias.metrics import Record
from lrbias.network import Network
from lrbias.problems import Problem
from lrbias.runs import Run
from lrbias.settings import Compress, Count, Threads, check_switches, validate
from lrbias.steppers import Execution, make_stepper
from lrbias.storage import MemoryStorage, RunWriter, check_new
from lrbias.system import announce_compilation, one_blas_thread, usual_errors
from lrbias.training._callbacks import Callbacks
from lrbias.training._run import Watch, config_of, first_checkpoint, run_of
from lrbias.training._run_recorder import RunRecorder
from lrbias.training._task import Task


@usual_errors
def train(  # noqa: PLR0913  the parts of an experiment, and how it is run
    problem: Problem,
    network: Network | None,
    method: Method,
    steps: int | None = None,
    record: Record | None = None,
    stop: Stop | None = None,
    checkpoint_every: int = 1000,
    store: str | PathLike[str] | None = None,
    progress: bool | None = None,
    forecast: bool = True,
    threads: int = 1,
    compress: str = "auto",
    device: str = "cpu",
    callbacks: Sequence[Any] = (),
) -> Run:
    """Train `network` on `problem` and return the Run.

    problem           what is fitted: Factorization(target), Completion(target, mask), Sensing(matrices, values) or
                      Regression(inputs, outputs)
    network           the initial Network; it is not changed. None for GLRL, which starts from nothing
    method            GD(lr=…), GradientFlow(dt=…), SGD(lr=…), GLRL(epsilon=…, inner=…) or Linearized(lr=…)
    steps             number of steps (iterations), at least 1; of GLRL at most so many, None: as many as it takes
    record            what is measured and when; Record() measures everything every 10 steps
    stop              when to end early; Stop() never does
    checkpoint_every  steps between checkpoints; everything recorded so far is committed with each
    store             folder to make for the run; None keeps it in memory
    progress          True or False; None shows progress on a terminal
    forecast          warn (ForecastWarning) when the step size is unstable or nothing is expected to happen in `steps`
    threads           how many threads share the products of a step, with the same bits; pays from about n = 200 on
    compress          "auto" trains fewer numbers where target and start allow it (`run.reduced` says so), "off" always
                      trains whole layers. They are equal in exact arithmetic; near a saddle the rounding errors of
                      whole layers grow, and can lead them elsewhere
    device            "cpu", "cuda" (an NVIDIA GPU, extra `cuda`, the same bits) or "auto": a GPU if one can be used
    callbacks         what to call meanwhile: functions of (step, row), or objects with any of on_start(run),
                      on_record(step, row), on_commit(step) and on_end(run). A row is {name: value} of what was
                      measured at that record, and the loss there; rows come in the order of the steps

    A loss that is no longer finite ends the run with status "diverged"; that is a result, not an error. Ctrl-C and
    SIGTERM save everything and raise Interrupted, whose `.run` is the run so far. An exception in a metric of the
    user's or in a callback saves everything, too, with status "failed", and is raised. Raises InvalidInput for settings
    that are not accepted (nothing is created then) and StoreError when the folder cannot be written.
    """
    check_switches(progress=progress, forecast=forecast)
    _check_kinds(problem, method)
    start = _Start(method.start(problem, network), network)
    record = _default(record, Record, "record")
    stop = _default(stop, Stop, "stop")
    stop.check(record)
    steps = method.most_steps if steps is None else steps
    asked = _checked(steps=steps, checkpoint_every=checkpoint_every, threads=threads, device=device, compress=compress)
    execution = Execution(asked["threads"], resolve(device, asked["threads"]), compress)
    task = _fitting(Task(problem, method, record, stop, execution), start.network)
    watch = Watch.of(stop, record, Callbacks(callbacks), progress)
    if store is not None:
        check_new(store)
    announce_compilation(progress)
    if forecast:
        _warn(first_warnings(task.problem, start.network, network, method, asked["steps"]))
    return _begin(task, start, asked, store, watch)


def _warn(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        warnings.warn(sentence, ForecastWarning, stacklevel=4)


def _check_kinds(problem: Any, method: Any) -> None:
    check(isinstance(problem, Problem), "problem", problem, "a Factorization, Completion, Sensing or Regression")
    accepted = "a method: GD, GradientFlow, SGD, GLRL, Linearized"
    check(isinstance(method, Method), "method", method, accepted)


def _checked(**asked: Any) -> dict[str, Any]:
    """These settings, as they are kept with the run. A device is checked where it is looked up."""
    kinds = {"steps": Count, "checkpoint_every": Count, "threads": Threads, "compress": Compress}
    return {name: validate(kinds[name], name, value) if name in kinds else value for name, value in asked.items()}


K = TypeVar("K")


class _Start(NamedTuple):
    """network: what is trained at first; given: what `train` was given, from which the method made it."""

    network: Any
    given: Any


def _default(value: Any, kind: type[K], argument: str) -> K:
    value = kind() if value is None else value
    check(isinstance(value, kind), argument, value, f"a {kind.__name__}")
    return value


def _fitting(task: Task, network: Network) -> Task:
    """The task for this network; InvalidInput where they do not fit together."""
    task.problem.check(network)
    network.check_method(task.method)
    task.method.check_record(task.record)
    task.stop.check_method(task.method)
    return task._replace(problem=task.problem.scaled(network.output_scale))


def _begin(task: Task, start: _Start, asked: dict[str, Any], store: str | PathLike[str] | None, watch: Watch) -> Run:
    """Make the run, with its first checkpoint, and train."""
    with one_blas_thread(), task.execution.device.fitting():
        stepper = make_stepper(task.method, task.problem, start.network, task.execution)
        recorder = RunRecorder(task, stepper, start.network.params.copy, tell=watch.tell)
        stepper.init(start.given)
        given = [] if start.given is None else [start.given]
        settings = describe(task.problem, *given, task.method, task.record, task.stop, **asked)
        config = config_of(task, stepper, recorder, settings)
        data = task.problem.target, task.problem.observed
        first = first_checkpoint(stepper, recorder)
        if store is None:
            storage: MemoryStorage | RunWriter = MemoryStorage(config, data)
            storage.write_checkpoint(0, first, stepper.widths)
        else:
            toml = {"experiment.toml": to_toml(settings)}
            storage = RunWriter.create(store, config, toml, data, first, recorder.quantities, asked["steps"])
        return run_of(task, stepper, recorder, storage, config, 0, watch)
