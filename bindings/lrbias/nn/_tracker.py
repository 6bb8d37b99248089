"""A tracker for anyone's model and anyone's loop."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from importlib.metadata import version
from os import PathLike
from typing import Any, Self

from lrbias.errors import InvalidInput, check
from lrbias.nn._callbacks import Keras
from lrbias.nn._gradients import Probe
from lrbias.nn._matrices import weight_matrices
from lrbias.nn._tracking import TRAINING, Tracked, Tracking
from lrbias.runs import ModelRun
from lrbias.storage import Log, MemoryStorage, RunWriter, check_new
from lrbias.system import Owner, as_path
from lrbias.training import listed_quantities, made_with

COMMIT_SECONDS = 1.0  # what is measured counts at the latest so long after the commit before
PROMISE = "machine"


class RankTracker:
    """Watches the ranks of a model's weight matrices while it is trained, beside the training.

    Two lines: the tracker, and one that says when a step is made.

        tracker = lb.nn.RankTracker(model, every=100, store="runs/mine")
        tracker.watch(optimizer)

    Instead of `watch`: `tracker.step(loss=…)` in a loop of one's own, or a callback, `tracker.lightning()` for
    Lightning, `tracker.hugging_face()` for the Trainer of transformers, `tracker.keras()` for loops with callbacks as
    Keras has them. The model as it is when the tracker is made is the record of step 0.

    model    any torch.nn.Module; `lb.nn.weight_matrices` says what is a matrix in it. Looked through again at each
             record: modules that were replaced by others of the same shape are followed, any other change is refused
    every    interval in steps
    epsilon  the rank of W is #{σ_i > epsilon ‖W‖}
    norm     "spectral" (‖W‖ = σ_1) or "frobenius"; both are recorded, this is the one that is drawn
    unit     what a step is: "step" of an optimizer, or "epoch", for callbacks and figures
    layers   patterns like "encoder.*", or a function of a WeightMatrix: which matrices; None: all
    scalars  names of numbers that are noted beside the matrices
    probe    an `lb.nn.Probe`: the ranks of gradients, too, per sample and per batch, in the thread that trains
    store    folder to make for the run; None keeps it in memory
    resume   go on with the run in `store`, if there is one
    about    {name: value} to keep with the settings; `lr`, `weight_decay` (λ of λ‖W‖²) and `batch` give the bound of
             Galanti et al. its numbers

    Rows are committed once a second at most, and by `close`, by the end of a `with` block, and when Python ends: a
    killed process loses what was not committed. Raises InvalidInput for what is not accepted, StoreError when the
    folder cannot be written.
    """

    def __init__(  # noqa: PLR0913  what is tracked, and where it is kept
        self,
        model: Any,
        every: int = 1,
        epsilon: float = 1e-3,
        norm: str = "spectral",
        unit: str = "step",
        layers: Any = None,
        scalars: Sequence[str] = ("loss",),
        probe: Probe | None = None,
        store: str | PathLike[str] | None = None,
        resume: bool = False,
        about: dict[str, Any] | None = None,
    ) -> None:
        tracked = Tracked(every=every, epsilon=epsilon, norm=norm, unit=unit)
        matrices = weight_matrices(model, layers)
        probed = None if probe is None else probe.of(model, matrices)
        self._tracking = Tracking(matrices, tracked, scalars, probed, lambda: weight_matrices(model, layers))
        self._open = True
        self._noted: dict[str, Any] = {}
        self._watched: dict[Any, Any] = {}
        self._owner = Owner()
        patches = None if probe is None else self._tracking.probe.patches
        settings = {"model": type(model).__name__, **(about or {}), **tracked.model_dump()}
        self._config = configuration(settings, self._tracking, patches)
        going_on = resume and store is not None and (as_path("store", store) / "config.json").is_file()
        self._storage = self._reopened(store) if going_on else self._created(store)
        known = self._storage.progress()
        begun = known["status"] != "new"  # one that was killed at once has no rows
        self.steps = known["step"] if begun else 0
        self._tracking.begin(self._storage, self.steps + 1 if begun else 0, known["elapsed"], COMMIT_SECONDS)
        self._end = weakref.finalize(self, _end_in, self._owner, self._tracking)  # at the latest when Python ends
        if not begun:
            self._tracking.record(0)

    def _created(self, store: Any) -> Any:
        if store is None:
            return MemoryStorage(self._config)
        check_new(store)
        return RunWriter.create(store, self._config, {}, (), None, self._tracking.quantities, 0)

    def _reopened(self, store: Any) -> RunWriter:
        """The writer of a run that goes on; InvalidInput unless it is one of the same matrices and settings."""
        writer = RunWriter.reopen(store)
        try:
            same = _measured(writer.config()) == _measured(self._config)
            check(same, "store", str(store), "a run that tracked the same matrices and numbers, to go on with it")
            progress = writer.progress()
            if progress["status"] != "new":
                Log(self._tracking.quantities, writer).check(progress["step"] + 1)
            writer.open_log(self._tracking.quantities, progress["step"])
        except BaseException:
            writer.close()
            raise
        return writer

    def watch(self, optimizer: Any) -> Self:
        """Count every step of this optimizer from now on, until the tracker is closed. Returns the tracker.

        optimizer: a torch.optim.Optimizer, or what wraps one as its `optimizer`, like that of accelerate's `prepare`.
        One that is watched already is not counted twice.
        """
        self._require_open()
        innermost = _innermost(optimizer)
        accepted = "a torch.optim.Optimizer, or a wrapper that has one as its `optimizer`"
        check(hasattr(innermost, "register_step_post_hook"), "optimizer", optimizer, accepted)
        if id(innermost) not in self._watched:
            self._watched[id(innermost)] = innermost, innermost.register_step_post_hook(lambda *_: self.step())
        return self

    def note(self, **scalars: Any) -> None:
        """Numbers for the next record: note(loss=0.3)."""
        unknown = sorted(set(scalars) - set(self.scalars))
        accepted = f"names among {', '.join(self.scalars) or 'none'}, the scalars that the tracker was made with"
        check(not unknown, "scalars", unknown, accepted)
        self._noted.update({name: _number(value) for name, value in scalars.items()})

    def step(self, **scalars: Any) -> None:
        """A step was made, or an epoch. Measures where one is due; scalars: numbers for that, `step(loss=0.3)`."""
        self._require_open()
        self.note(**scalars)
        self.steps += 1
        if self.steps % self._tracking.tracked.every == 0:
            self._tracking.record(self.steps, self._noted)
            self._noted = {}

    def _require_open(self) -> None:
        if not self._open:
            raise InvalidInput("the tracker is closed: make a new one, with resume=True to go on with its run.")
        if not self._owner.here:
            raise InvalidInput("the tracker belongs to the process that this one was forked from: make one in here.")

    @property
    def unit(self) -> str:
        """What a step is: "step" of an optimizer or "epoch"."""
        return self._tracking.tracked.unit

    @property
    def every(self) -> int:
        """The interval of the records in steps."""
        return self._tracking.tracked.every

    @property
    def scalars(self) -> tuple[str, ...]:
        """Names of the numbers that can be noted."""
        return self._tracking.scalars

    def commit(self) -> None:
        """Make everything recorded so far count, whatever happens to the process afterwards."""
        self._require_open()
        self._tracking.commit("running", TRAINING)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint of one's own: the number of steps and what is noted. Commits the rows so far, so that a
        process that is killed afterwards can be resumed there."""
        if self._open:
            self.commit()
        return {"steps": self.steps, "noted": dict(self._noted)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint of one's own: later rows do not count any more, and are measured again.

        The tracker is one of the same run: the rows before are not measured again. Raises InvalidInput where they are
        not all there.
        """
        self._require_open()
        steps = state["steps"]
        most = self.steps - self.steps % self.every + self.every - 1
        accepted = f"at most {most}, before which this run has every record: take it up in its own store, or earlier"
        check(0 <= steps <= most, "steps", steps, accepted)
        self._tracking.rewind(steps)
        self.steps = steps
        self._noted = dict(state.get("noted", {}))

    @property
    def run(self) -> ModelRun:
        """The ModelRun so far, everything that was recorded in it."""
        if self._open and self._owner.here:
            self.commit()
        return ModelRun(self._storage, self._config)

    def close(self, status: str = "finished", detail: str = "the tracker was closed") -> ModelRun:
        """Measure and write what is left. Returns the ModelRun. In a forked child the run stays its parent's."""
        if self._open and not self._owner.here:
            self._open = False
            self._end.detach()
        if self._open:
            self._open = False
            for _, hook in self._watched.values():
                hook.remove()
            self._end.detach()
            _end(self._tracking, status, detail)
        return ModelRun(self._storage, self._config)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self.close()
        else:
            self.close("interrupted", f"{kind.__name__} ended the training")

    def lightning(self) -> Any:
        """A callback for Lightning's Trainer: counts `trainer.global_step`, or epochs where those are the unit, and
        notes what the model logs under the names of `scalars`."""
        from lrbias.nn._callbacks import lightning

        return lightning(self)

    def hugging_face(self) -> Any:
        """A callback for the Trainer of transformers: counts `state.global_step`, or epochs where those are the unit,
        and notes what is logged under the names of `scalars`."""
        from lrbias.nn._callbacks import hugging_face

        return hugging_face(self)

    def keras(self) -> Keras:
        """A callback with the methods that loops like those of Keras call: counts batches, or epochs where those are
        the unit, and notes what is logged under the names of `scalars`."""
        from lrbias.nn._callbacks import Keras

        return Keras(self)


def _end_in(owner, tracking):
    """`_end`, unless this is a forked child: the run is its parent's, and so is the thread that measures."""
    if owner.here:
        _end(tracking)


def _end(tracking, status="running", detail="Python ended before the tracker was closed"):
    """By default what can still be done when Python ends: by then Zarr writes no chunks, but a tail takes none."""
    try:
        tracking.commit(status, detail)
    finally:
        tracking.end()


def _innermost(optimizer):
    """The optimizer that makes the steps, within whatever wraps it."""
    seen = []
    while hasattr(optimizer, "optimizer") and optimizer not in seen:
        seen.append(optimizer)
        optimizer = optimizer.optimizer
    return optimizer


def _number(value):
    """A float, also of a tensor that has a gradient."""
    return float(value.item() if hasattr(value, "item") else value)


def _measured(config):
    """What the rows of a run depend on, beside the weights."""
    chosen = {name: config["settings"].get(name) for name in Tracked.model_fields}
    return config.get("layers"), config["quantities"], chosen


def configuration(settings, tracking, patches=None):
    """What config.json says of a run of a model."""
    return {
        "kind": "model",
        "settings": settings,
        "layers": [vars(layer) for layer in tracking.layers(patches)],
        "quantities": listed_quantities(tracking.quantities),
        "made_with": {**made_with(PROMISE), "torch": version("torch")},
    }
