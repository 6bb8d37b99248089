"""`resume`: a run goes on from one of its checkpoints, with the bits of one that was never interrupted."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from lrbias.devices import CPU, resolve
from lrbias.errors import InvalidInput, StoreError, check, check_settable
from lrbias.network import Network
from lrbias.problems import Problem
from lrbias.runs import MODEL, Run, check_settings, is_model, parts_of, problem_of, resumer
from lrbias.settings import Count, NonNegativeInt, Threads, check_switches, validate
from lrbias.steppers import Execution, Stepper, make_stepper
from lrbias.storage import RunFolder, RunWriter, refuse_writing
from lrbias.system import announce_compilation, one_blas_thread, usual_errors
from lrbias.training._callbacks import Callbacks
from lrbias.training._logging import Tell
from lrbias.training._provenance import made_with
from lrbias.training._run import Watch, run_of
from lrbias.training._run_recorder import RunRecorder
from lrbias.training._task import Task


@usual_errors
def resume(  # noqa: PLR0913  what of `train` can be another when a run goes on
    path: str | PathLike[str],
    steps: int | None = None,
    metrics: Any = None,
    from_checkpoint: int | None = None,
    progress: bool | None = None,
    threads: int | None = None,
    device: str | None = None,
    callbacks: Sequence[Any] = (),
    when: Any = None,
) -> Any:
    """Continue the run at `path` up to `steps` steps in all; None: as many as it was planned for.

    metrics          {name: function} for a run that records functions of the user's
    from_checkpoint  a step whose checkpoint to start from instead of the last one: rows after it are recomputed, with
                     the same bits, which also repairs damaged chunks
    threads, device  as in `train`; None: as before
    callbacks        as in `train`; the record at the step from which the run goes on is told again
    when             the function of `Stop(when=…)` for a run that has one

    The result is bit for bit that of a run which was never interrupted. A finished run is returned as it is. A run of
    `lb.nn.fit` is continued likewise (`lb.nn.resume`).
    """
    check_switches(progress=progress)
    refuse_writing(path)
    if is_model(RunFolder.existing(path).config()):
        others = {"metrics": metrics, "from_checkpoint": from_checkpoint, "threads": threads, "device": device}
        others.update(callbacks=callbacks or None, when=when)
        for name, value in others.items():
            check_settable(value is None, name, value, "it is a run of a model")
        return resumer(MODEL)(path, steps, progress=progress)
    called = Callbacks(callbacks)
    announce_compilation(progress)
    writer = RunWriter.reopen(path)
    try:
        config = writer.config()
        check_settings(writer.path, config)
        problem = problem_of(writer, config)
        known = writer.progress()
        steps = _planned(steps, config, known)
        start = _start(writer, known, from_checkpoint)
        if from_checkpoint is None and known["status"] in ("finished", "stopped") and steps == known["step"]:
            writer.mend_log()
            return Run(writer, config, problem)
        settings = {**config["settings"], "steps": max(steps, known["step"])}
        if threads is not None:
            settings["threads"] = validate(Threads, "threads", threads)
        settings["device"] = settings.get("device", CPU.name) if device is None else device
        config = {**config, "settings": settings}
        task = _task(writer.path, config, problem, metrics, when)
        return _continue(task, writer, config, start, Watch.of(task.stop, task.record, called, progress))
    finally:
        writer.close()


def _planned(steps: int | None, config: dict[str, Any], known: dict[str, Any]) -> int:
    """How many steps the run is to have in all."""
    steps = config["settings"]["steps"] if steps is None else validate(Count, "steps", steps)
    check(steps >= known["step"], "steps", steps, f"at least {known['step']}, the step that the run has reached")
    return steps


def _start(writer: RunWriter, known: dict[str, Any], from_checkpoint: int | None) -> int:
    """The step whose checkpoint to go on from."""
    if from_checkpoint is not None:
        start = validate(NonNegativeInt, "from_checkpoint", from_checkpoint)
        reached = [step for step in writer.checkpoint_steps() if step <= known["step"]]
        check(start in reached, "from_checkpoint", start, f"one of {reached}")
        return start
    if known["status"] == "diverged":
        raise InvalidInput(
            f"path = {str(writer.path)!r} is not accepted: expected a run that can go on, but this one diverged at "
            f"step {known['step']}; start one with a smaller step size."
        )
    return known["checkpoint"]


def _task(path: Path, config: dict[str, Any], problem: Problem, metrics: Any, when: Any) -> Task:
    """The Task of the run, with what the user has to give again."""
    settings = config["settings"]
    method, record, stop = parts_of(path, config)
    record = record.with_functions(metrics, config["functions"])
    stop = stop.with_function(when, config.get("when", False))
    device = resolve(settings["device"], settings["threads"])
    execution = Execution(settings["threads"], device, "auto" if config.get("reduced") else "off")
    return Task(problem, method, record, stop, execution)


def _continue(task: Task, writer: RunWriter, config: dict[str, Any], start: int, watch: Watch) -> Run:
    device = task.execution.device
    here = made_with(config["made_with"]["promise"], device)
    if here != config["made_with"]:  # another machine or version: its bits may differ, so say so
        config["resumed_with"] = [*config.get("resumed_with", []), {"step": start, **here}]
    with one_blas_thread(), device.fitting():
        stepper, recorder = _restored(task, writer, config, start, watch.tell)
        recorder.check(writer, config, start)
        writer.open_log(recorder.quantities, config["settings"]["steps"])
        writer.extend(config)
        return run_of(task, stepper, recorder, writer, config, start, watch)


def _restored(
    task: Task, writer: RunWriter, config: dict[str, Any], step: int, tell: Tell | None
) -> tuple[Stepper, RunRecorder]:
    """(stepper, recorder) as they were at the checkpoint of `step`; StoreError when it is not one of such a run."""
    arrays = writer.checkpoint_arrays(step)
    params = arrays.pop("params")
    layers = params
    if config.get("reduced"):  # the basis is that of the start, the numbers are those of the checkpoint
        layers = writer.checkpoint(0)
    stepper = make_stepper(task.method, task.problem, Network(layers, config["widths"]), task.execution)
    recorder = RunRecorder(task, stepper, functools.partial(writer.checkpoint, 0), config["quantities"], tell)
    try:
        recorder.restore(arrays)
        stepper.restore(params, arrays)
    except (KeyError, ValueError, TypeError, IndexError) as error:  # what this method needs is not there
        path = writer.checkpoint_path(step)
        reason = " ".join(f"{error}".split())
        raise StoreError(f"{path} is not of such a run ({reason}); resume with from_checkpoint=0.") from None
    return stepper, recorder
