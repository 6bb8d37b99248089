"""What `train` and `resume` share: a run of a deep linear network in the loop."""

from typing import Any, NamedTuple

from lrbias.runs import Run
from lrbias.steppers import Execution
from lrbias.system import display, resume_call, shell_command
from lrbias.training._callbacks import Callbacks
from lrbias.training._commits import EverySteps
from lrbias.training._loop import Loop, Span, Subject
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
        **({"when": True} if task.stop.when else {}),
        "reduced": stepper.reduced,
        "made_with": made_with("machine" if stepper.machine else PORTABLE, task.execution.device),
    }


def listed_quantities(quantities):
    """{name: interval, shape, dtype}, as config.json has them."""
    return {q.name: {"interval": q.interval, "shape": list(q.shape), "dtype": q.dtype} for q in quantities}


def first_checkpoint(stepper, recorder):
    """The arrays of the checkpoint with which a run begins."""
    return {**stepper.checkpoint(), **recorder.state(0)}


class Watch(NamedTuple):
    """What looks at a run while it goes on. progress: as for `display`."""

    stops: Stops
    callbacks: Callbacks
    progress: bool | None

    @classmethod
    def of(cls, stop, record, callbacks, progress):
        stops = Stops(stop, record)
        if stop.when is not None:
            callbacks.ask(stops.look)
        return cls(stops, callbacks, progress)

    @property
    def tell(self):
        """What is called at each record: a function (step, row), or None."""
        return self.callbacks.record if self.callbacks.records else None


def run_of(task, stepper, recorder, storage, config, step, watch):
    """Train from `step` to the end, whatever ends it; returns the Run."""
    settings = config["settings"]
    way_on = _way_on(storage.path, task, watch.callbacks) if storage.path else None
    watch.stops.recorder = recorder
    subject = Subject(lambda: Run(storage, config, task.problem), way_on, display(watch.progress))
    span = Span(step, settings["steps"], EverySteps(settings["checkpoint_every"]))
    return Loop(stepper, recorder, storage, span, subject, watch.stops, watch.callbacks).run()


def _way_on(path, task, callbacks):
    """What to call in order to go on; functions of the user's are needed again."""
    given = {}
    functions = task.record.functions()
    if functions:
        given["metrics"] = "{" + ", ".join(f"{name!r}: …" for name in functions) + "}"
    if task.stop.when:
        given["when"] = "…"
    if callbacks.given:
        given["callbacks"] = "[…]"
    return resume_call("lb.resume", path, **given) if given else shell_command("resume", path)
