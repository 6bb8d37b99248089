"""What `train` and `resume` share: a run of a deep linear network in the loop."""

from typing import Any, NamedTuple

from lrbias.runs import Run
from lrbias.steppers import Execution
from lrbias.system import display, resume_call, shell_command
from lrbias.training._loop import EverySteps, Loop, Span, Subject
from lrbias.training._provenance import PORTABLE, made_with
from lrbias.training._stops import Stops


class Task(NamedTuple):
    """What is trained and how."""

    problem: Any
    method: Any
    record: Any
    stop: Any
    execution: Execution


def config_of(task, stepper, recorder, settings):
    """What config.json says of a run beside the format and checksums."""
    return {
        "settings": settings,
        "widths": list(stepper.widths),
        "output_scale": task.problem.output_scale,
        "target_source": task.problem.source,
        "quantities": listed_quantities(recorder.quantities),
        "functions": sorted(task.record.functions()),
        "reduced": stepper.reduced,
        "made_with": made_with("machine" if stepper.machine else PORTABLE, task.execution.device),
    }


def listed_quantities(quantities):
    """{name: interval, shape, dtype}, as config.json has them."""
    return {q.name: {"interval": q.interval, "shape": list(q.shape), "dtype": q.dtype} for q in quantities}


def first_checkpoint(stepper, recorder):
    """The arrays of the checkpoint with which a run begins."""
    return {**stepper.checkpoint(), **recorder.state(0)}


def run_of(task, stepper, recorder, storage, config, step, progress):
    """Train from `step` to the end, whatever ends it; returns the Run."""
    settings = config["settings"]
    way_on = _way_on(storage.path, task.record.functions()) if storage.path else None
    subject = Subject(lambda: Run(storage, config, task.problem), way_on, display(progress))
    span = Span(step, settings["steps"], EverySteps(settings["checkpoint_every"]))
    return Loop(stepper, recorder, storage, span, subject, Stops(task.stop, task.record, recorder)).run()


def _way_on(path, functions):
    """What to call in order to go on; functions of the user's are needed again."""
    if not functions:
        return shell_command("resume", path)
    return resume_call("lb.resume", path, metrics="{" + ", ".join(f"{name!r}: …" for name in functions) + "}")
