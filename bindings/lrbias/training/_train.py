"""`train`: the door through which a run of a deep linear network begins."""

import warnings
from typing import Any, NamedTuple

from lrbias.devices import resolve
from lrbias.errors import ForecastWarning, require
from lrbias.experiments import Stop, describe, to_toml
from lrbias.forecasts import first_warnings
from lrbias.methods import METHODS
from lrbias.metrics import Record
from lrbias.problems import Problem
from lrbias.settings import Compress, Count, Threads, check_switches, validate
from lrbias.steppers import Execution, make_stepper
from lrbias.storage import MemoryStorage, RunWriter, check_new
from lrbias.system import announce_compilation, one_blas_thread, usual_errors
from lrbias.training._run import Task, config_of, first_checkpoint, run_of
from lrbias.training._run_recorder import RunRecorder


@usual_errors
def train(
    problem,
    network,
    method,
    steps=None,
    record=None,
    stop=None,
    checkpoint_every=1000,
    store=None,
    progress=None,
    forecast=True,
    threads=1,
    compress="auto",
    device="cpu",
):
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
    device            "cpu", "cuda" (an NVIDIA GPU, extra `cuda`, the same bits) or "auto": a GPU where one can be
                      used, else the CPU

    A loss that is no longer finite ends the run with status "diverged"; that is a result, not an error. Ctrl-C and
    SIGTERM save everything and raise Interrupted, whose `.run` is the run so far. Raises InvalidInput for settings
    that are not accepted (nothing is created then) and StoreError when the folder cannot be written.
    """
    check_switches(progress=progress, forecast=forecast)
    require(isinstance(problem, Problem), "problem", problem, "a Factorization, Completion, Sensing or Regression")
    accepted = "a GD, GradientFlow, SGD, GLRL or Linearized"
    require(isinstance(method, tuple(METHODS.values())), "method", method, accepted)
    start = _Start(method.start(problem, network), network)
    record = _default(record, Record, "record")
    stop = _default(stop, Stop, "stop")
    stop.check(record)
    steps = validate(Count, "steps", method.most_steps if steps is None else steps)
    checkpoint_every = validate(Count, "checkpoint_every", checkpoint_every)
    threads = validate(Threads, "threads", threads)
    compress = validate(Compress, "compress", compress)
    task = Task(problem, method, record, stop, Execution(threads, resolve(device, threads), compress))
    task = _fitting(task, start.network)
    if store is not None:
        check_new(store)
    announce_compilation(progress)
    if forecast:
        for sentence in first_warnings(task.problem, start.network, network, method, steps):
            warnings.warn(sentence, ForecastWarning, stacklevel=3)
    asked = {"steps": steps, "checkpoint_every": checkpoint_every, "threads": threads}
    asked.update(device=device, compress=compress)
    return _begin(task, start, asked, store, progress)


class _Start(NamedTuple):
    """network: what is trained at first; given: what `train` was given, from which the method made it."""

    network: Any
    given: Any


def _default(value, kind, argument):
    value = kind() if value is None else value
    require(isinstance(value, kind), argument, value, f"a {kind.__name__}")
    return value


def _fitting(task, network):
    """The task for this network; InvalidInput where they do not fit together."""
    task.problem.check(network)
    network.check_method(task.method)
    task.method.check_record(task.record)
    task.stop.check_method(task.method)
    return task._replace(problem=task.problem.scaled(network.scale))


def _begin(task, start, asked, store, progress):
    """Make the run, with its first checkpoint, and train."""
    with one_blas_thread(), task.execution.device.fitting():
        stepper = make_stepper(task.method, task.problem, start.network, task.execution)
        recorder = RunRecorder(task, stepper, start.network.params.copy)
        stepper.init(start.given)
        given = [] if start.given is None else [start.given]
        settings = describe(task.problem, *given, task.method, task.record, task.stop, **asked)
        config = config_of(task, stepper, recorder, settings)
        data = task.problem.target, task.problem.observed
        first = first_checkpoint(stepper, recorder)
        if store is None:
            storage = MemoryStorage(config, data)
            storage.write_checkpoint(0, first, stepper.widths)
        else:
            toml = {"experiment.toml": to_toml(settings)}
            storage = RunWriter.create(store, config, toml, data, first, recorder.quantities, asked["steps"])
        return run_of(task, stepper, recorder, storage, config, 0, progress)
