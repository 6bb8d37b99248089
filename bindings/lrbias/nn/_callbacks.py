"""Where other people's loops call a RankTracker: Lightning, the Trainer of transformers, loops like those of Keras.

Each counts what the tracker's `unit` says, steps of the optimizer or epochs, and notes what the loop knows under the
names of the tracker's `scalars`. A step is counted as late as the weights allow, just before the next one: by then
the loop has said what it has to say about it, validation too, and that stands in its record. What comes later stands
in the next one. A loop that goes on from its own checkpoint takes the tracker with it, one with resume=True and the
store of that run: the rows are those of training that was not interrupted, as far as the loop repeats what it had
not saved. The end of the training closes the tracker.
"""

from __future__ import annotations

import importlib
import math
import numbers
import sys
from typing import Any

from lrbias.errors import InvalidInput
from lrbias.runs import ModelRun


class _Counter:
    """The steps that a loop has made, and what it said about them, on their way to a tracker."""

    def __init__(self, tracker):
        self.tracker = tracker
        self._seen = {}

    def __call__(self, made):
        """The loop has made so many steps in all, and said everything about them."""
        while self.tracker.steps < made:
            self.tracker.step()

    def by(self, unit):
        return self.tracker.unit == unit

    def note(self, known):
        """Those of the numbers in {name: value} that the tracker has a place for."""
        chosen = {name: value for name, value in known.items() if name in self.tracker.scalars}
        self.tracker.note(**{name: value for name, value in chosen.items() if _is_number(value)})

    def begin(self, made):
        """The loop begins after so many steps."""
        if self.tracker.steps != made:
            self.tracker.load_state_dict({"steps": made})

    def note_new(self, known):
        """`note`, for loops that keep saying the same until they know better."""
        self.note({name: value for name, value in known.items() if value is not self._seen.get(name)})
        self._seen = dict(known)


def _is_number(value):
    return isinstance(value, numbers.Real) or getattr(value, "ndim", None) == 0


def lightning(tracker: Any) -> Any:
    """A callback for Lightning's Trainer; the metrics that the model logs are noted by their names.

    Steps are those of `trainer.global_step`, of all optimizers together. Where several are made in one batch they are
    measured at its end, and what was logged stands in the first record that is due there.
    """
    modules = ("lightning.pytorch.callbacks", "pytorch_lightning.callbacks")
    Callback: Any = _first(*modules, name="Callback", package="lightning")
    count = _Counter(tracker)

    class RankCallback(Callback):
        loaded = False

        @property
        def state_key(self):
            return f"lrbias.RankTracker.{tracker.unit}"

        def state_dict(self):
            return tracker.state_dict()

        def load_state_dict(self, state):
            tracker.load_state_dict(state)
            self.loaded = True

        def on_train_start(self, trainer, module):
            if not self.loaded:  # a checkpoint that was made without this callback says how far it is all the same
                count.begin(max(0, trainer.global_step - 1) if count.by("step") else trainer.current_epoch)

        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            # also by epochs: one that was saved after its last batch does not end again
            count(trainer.global_step if count.by("step") else trainer.current_epoch)

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            count.note_new(trainer.callback_metrics)

        def on_validation_end(self, trainer, module):
            if not trainer.sanity_checking:
                count.note_new(trainer.callback_metrics)

        def on_train_epoch_end(self, trainer, module):
            count.note_new(trainer.callback_metrics)
            count(trainer.global_step if count.by("step") else trainer.current_epoch + 1)

        def on_train_end(self, trainer, module):
            tracker.close()

        def on_exception(self, trainer, module, exception):
            tracker.close("interrupted", f"{type(exception).__name__} ended the training")

    return RankCallback()


def hugging_face(tracker: Any) -> Any:
    """A callback for the Trainer of transformers; what it logs (loss, eval_accuracy …) is noted by its names.

    Steps are those of `state.global_step`. Nobody tells a callback of an exception: what was recorded is committed
    when Python ends, and with each of the Trainer's checkpoints. `with tracker:` around the training closes it.
    """
    TrainerCallback: Any = _first("transformers", name="TrainerCallback", package="transformers")
    count = _Counter(tracker)

    class RankCallback(TrainerCallback):
        made = 0

        def on_train_begin(self, args, state, control, **others):
            reached = state.global_step if count.by("step") else state.epoch or 0.0
            self.made = int(reached)
            # the weights of a checkpoint are those of its last step, which may have been saved before it was measured
            begin = self.made - 1 if self.made == reached > 0 else self.made
            count.begin(begin)
            place = "step" if count.by("step") else "epoch"
            recorded = begin - begin % tracker.every
            for logs in state.log_history:
                if logs.get(place, 0) > recorded:
                    count.note(logs)

        def on_step_begin(self, args, state, control, **others):
            count(self.made)

        def on_step_end(self, args, state, control, **others):
            if count.by("step"):
                self.made = state.global_step

        def on_epoch_end(self, args, state, control, **others):
            if count.by("epoch"):
                self.made += 1

        def on_log(self, args, state, control, logs=None, **others):
            count.note(logs or {})
            if "train_runtime" in (logs or {}):  # its last words: the weights of the best step may be loaded now
                count(self.made)

        def on_save(self, args, state, control, **others):
            count(self.made)
            tracker.commit()

        def on_train_end(self, args, state, control, **others):
            tracker.close()

    return RankCallback()


class Keras:
    """For loops that call the methods of a callback as Keras does: its own with the PyTorch backend, or others.

    What is tracked is a module of PyTorch; under Keras that which a TorchModuleWrapper holds, not Keras' own layers.

    A step is a batch: that Keras accumulates gradients in its optimizer is not seen. A loop of one's own need not
    call more than on_train_batch_end(batch, logs), on_epoch_end(epoch, logs) and on_train_end(). Where it calls
    on_train_batch_begin(batch), too, the last step of an epoch waits for the logs of that.
    """

    async_safe = False  # Keras may call others beside the training

    def __init__(self, tracker):
        self._count = _Counter(tracker)
        self._made = tracker.steps
        self._waits = False

    def set_params(self, params):
        """Nothing of it is needed."""

    def set_model(self, model):
        """The tracker knows its model."""

    def on_train_begin(self, logs=None):
        self._made = self._count.tracker.steps  # which a checkpoint may have changed

    def on_train_batch_begin(self, batch, logs=None):
        self._waits = True
        self._count(self._made)

    def on_train_batch_end(self, batch, logs=None):
        self._count.note(logs or {})
        self._made += self._count.by("step")
        if not self._waits:
            self._count(self._made)

    def on_epoch_end(self, epoch, logs=None):
        self._count.note(logs or {})
        self._made += self._count.by("epoch")
        self._count(self._made)

    def on_train_end(self, logs=None):
        self._count(self._made)
        self._count.tracker.close()

    def __getattr__(self, name):
        if name.startswith("on_"):  # the other moments of a loop
            return lambda *arguments, **others: None
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def write_scalars(run: ModelRun, writer: Any, tag: str = "ranks") -> int:
    """What a ModelRun has recorded, as scalars for tensorboardX or torch.utils.tensorboard.

    writer: a SummaryWriter, or a folder to make one in (tensorboardX). Averages of the ranks and norms over the
    matrices as TAG/average/…, the rank of each one as TAG/layer/NAME/…, and what was noted as TAG/NAME. What is not
    finite is left out. Returns the number of scalars written. Raises InvalidInput without tensorboardX.
    """
    if not hasattr(writer, "add_scalar"):
        SummaryWriter = _first("tensorboardX", name="SummaryWriter", package="'lrbias[tensorboard]'")
        with SummaryWriter(str(writer)) as own:
            return write_scalars(run, own, tag)
    names = [f"average/{name.removeprefix('layers/')}" for name in run.names if name.startswith("layers/")]
    names += [f"layer/{layer.name}/{run.rank}" for layer in run.layers]
    count = 0
    for name in [*run.scalars, *names]:
        for step, value in zip(run.steps_of(name), run[name], strict=True):
            if math.isfinite(value):
                writer.add_scalar(f"{tag}/{name}", float(value), int(step))
                count += 1
    writer.flush()
    return count


def _first(*modules, name, package):
    """`name` from one of the modules that is in use already, else from the first that is installed."""
    for module in sorted(modules, key=lambda module: module.split(".")[0] not in sys.modules):
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if not module.startswith(error.name):  # something else is missing, which it needs
                raise
    library = modules[0].split(".")[0]
    raise InvalidInput(f"this needs {library}: pip install {package}.")
