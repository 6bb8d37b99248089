"""What `train` and `resume` share: a run of a deep linear network in the loop."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from lrbias.experiments import Stop
from lrbias.metrics import Record
from lrbias.runs import Run
from lrbias.steppers import Stepper
from lrbias.storage import Arrays, Quantity, RunStorage
from lrbias.system import display, resume_call, shell_command
from lrbias.training._callbacks import Callbacks
from lrbias.training._commits import EverySteps
from lrbias.training._loop import Loop, Span, Subject
from lrbias.training._provenance import PORTABLE, made_with
from lrbias.training._run_recorder import RunRecorder
from lrbias.training._stops import Stops
from lrbias.training._task import Task


def config_of(task: Task, stepper: Stepper, recorder: RunRecorder, settings: dict[str, Any]) -> dict[str, Any]:
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


def listed_quantities(quantities: Iterable[Quantity]) -> dict[str, Any]:
    """{name: interval, shape, dtype}, as config.json has them."""
    return {q.name: {"interval": q.interval, "shape": list(q.shape), "dtype": q.dtype} for q in quantities}


def first_checkpoint(stepper: Stepper, recorder: RunRecorder) -> Arrays:
    """The arrays of the checkpoint with which a run begins."""
    return {**stepper.checkpoint(), **recorder.state(0)}


class Watch(NamedTuple):
    """What looks at a run while it goes on. progress: as for `display`."""

    stops: Stops
    callbacks: Callbacks
    progress: bool | None

    @classmethod
    def of(cls, stop: Stop, record: Record, callbacks: Callbacks, progress: bool | None) -> "Watch":
        stops = Stops(stop, record)
        if stop.when is not None:
            callbacks.ask(stops.look)
        return cls(stops, callbacks, progress)

    @property
    def tell(self) -> Callable[[int, dict[str, Any]], None] | None:
        """What is called at each record: a function (step, row), or None."""
        return self.callbacks.record if self.callbacks.records else None


def run_of(
    task: Task,
    stepper: Stepper,
    recorder: RunRecorder,
    storage: RunStorage,
    config: dict[str, Any],
    step: int,
    watch: Watch,
) -> Run:
    """Train from `step` to the end, whatever ends it; returns the Run."""
    settings = config["settings"]
    way_on = _way_on(storage.path, task, watch.callbacks) if storage.path else None
    watch.stops.recorder = recorder
    subject = Subject(lambda: Run(storage, config, task.problem), way_on, display(watch.progress))
    span = Span(step, settings["steps"], EverySteps(settings["checkpoint_every"]))
    return Loop(stepper, recorder, storage, span, subject, watch.stops, watch.callbacks).run()


def _way_on(path: Path, task: Task, callbacks: Callbacks) -> str:
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
