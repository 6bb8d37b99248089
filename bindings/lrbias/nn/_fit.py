"""Training a network by SGD with weight decay, its ranks recorded, which can be resumed bitwise.

Everything that a step draws is known from the seed and the number of the step, or from what a checkpoint holds: the
order of an epoch from (seed, epoch), crops, flips and dropout from the state of PyTorch's generator.
"""

import functools
from os import PathLike
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field

from lrbias.errors import StoreError, check, check_settable, shorten
from lrbias.nn._datasets import Images, load
from lrbias.nn._fit_recorder import SCALARS, FitRecorder, first_row
from lrbias.nn._matrices import patches, weight_matrices
from lrbias.nn._networks import build
from lrbias.nn._stepper import TorchStepper, load_weights
from lrbias.nn._tracker import configuration
from lrbias.nn._tracking import Tracked, Tracking
from lrbias.runs import ModelRun
from lrbias.settings import (
    Accepts,
    Count,
    File,
    Fraction,
    NotNegative,
    Number,
    Positive,
    Seed,
    Settings,
    check_switches,
    validate,
)
from lrbias.storage import Log, MemoryStorage, RunWriter, check_new, check_quantities
from lrbias.system import display, resume_call, shell_command, usual_errors
from lrbias.training import EverySteps, Loop, Span, Subject

Momentum = Annotated[Number, Field(ge=0, lt=1), Accepts("a number of at least 0 and less than 1")]
Milestones = Annotated[tuple[Count, ...], Accepts("epochs, each an integer of at least 1")]


class Training(Settings):
    """How a network is trained: SGD on the mean cross entropy + λ‖W‖², W all of its parameters."""

    data: str = Field(default="fashion-mnist", description="name of a data set, see `lb.nn.load`")
    folder: File | None = Field(default=None, description="folder of the data set")
    samples: Count | None = Field(default=None, description="images to train on; all")
    test_samples: Count | None = Field(default=None, description="images to test on; all")
    pool: Count = Field(default=1, description="images are made smaller by this factor")
    data_seed: Seed = Field(default=0, description="seed of the choice of images")
    network: str = Field(default="mlp-bn", description="name of a network, see `lb.nn.build`")
    width: Count | None = Field(default=None, description="width of the network; its own default")
    depth: Count | None = Field(default=None, description="depth of the network; its own default")
    batch: Count = Field(default=16, description="images B of a step; those left over wait for another order")
    lr: Positive = Field(default=0.1, description="learning rate μ")
    weight_decay: NotNegative = Field(
        default=5e-4, description="λ: a step multiplies the weights by 1 − 2μλ (PyTorch's weight_decay is 2λ)"
    )
    momentum: Momentum = Field(default=0.0, description="momentum of torch.optim.SGD")
    epochs: Count = Field(default=10, description="how long")
    steps: Count | None = Field(default=None, description="stop after so many steps")
    milestones: Milestones = Field(
        default=(), description="epochs at whose begin the learning rate is multiplied by `factor`"
    )
    factor: Fraction = Field(default=0.1, description="factor of the learning rate at a milestone")
    augment: bool = Field(default=False, description="random crops with a margin of 4 pixels, and flips")
    seed: Seed = Field(default=0, description="seed of the weights, the orders, crops and flips")
    every: Count | None = Field(default=None, description="steps between records; an epoch")
    epsilon: Positive = Field(default=1e-3, description="ranks count singular values above epsilon times the norm")
    norm: str = Field(default="spectral", description="that norm: spectral or frobenius")

    def images(self) -> Images:
        """The Images that these settings name."""
        return _loaded(self.data, self.samples, self.test_samples, self.pool, self.data_seed, self.folder)

    def model(self, images: Images) -> torch.nn.Module:
        """The network that these settings name, for such images, as PyTorch's generator draws it."""
        return build(self.network, images.train_inputs.shape[1:], images.classes, self.width, self.depth)

    def rate(self, epoch: int) -> float:
        """The learning rate in an epoch; the first is 0."""
        return self.lr * self.factor ** sum(milestone <= epoch for milestone in self.milestones)

    def order(self, epoch: int, count: int) -> np.ndarray:
        """In which order an epoch goes through `count` images."""
        return np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(count)


@usual_errors
def fit(
    training: Training,
    store: str | PathLike[str] | None = None,
    model: Any = None,
    images: Images | None = None,
    checkpoint_every: int | None = None,
    progress: bool | None = None,
) -> ModelRun:
    """Train a network as `training` (a Training) says, and return the ModelRun.

    store             folder to make for the run; None keeps it in memory
    model             a torch.nn.Module that maps a batch of images to logits, trained in place, instead of the network
                      that the settings name
    images            an Images instead of the data set that the settings name
    checkpoint_every  steps between checkpoints, of which the last is kept; None: an epoch
    progress          True or False; None shows progress on a terminal

    PyTorch uses as many threads as it is set to (`torch.set_num_threads`), on which its bits depend; its generator is
    left as it was. A loss that is no longer finite ends the run with status "diverged". Ctrl-C and SIGTERM save
    everything and raise Interrupted. Raises InvalidInput for what is not accepted, before anything is created.
    """
    check_switches(progress=progress)
    check(isinstance(training, Training), "training", training, "a lb.nn.Training")
    if store is not None:
        check_new(store)
    given = {"images": images is not None, "model": model is not None}
    images = training.images() if images is None else images
    check(isinstance(images, Images), "images", images, "a lb.nn.Images")
    with torch.random.fork_rng(devices=[]):
        fitting = _prepared(training, images, model, checkpoint_every)
        config = {**_config(fitting), "given": [name for name, own in given.items() if own]}
        first = fitting.stepper.checkpoint()
        if store is None:
            storage: MemoryStorage | RunWriter = MemoryStorage(config)
            storage.write_checkpoint(0, first, ())
        else:
            quantities = fitting.recorder.tracking.quantities
            storage = RunWriter.create(store, config, {}, (), first, quantities, fitting.length.steps)
        return _run(fitting, storage, config, 0, progress)


@usual_errors
def resume(
    path: str | PathLike[str],
    steps: int | None = None,
    model: Any = None,
    images: Images | None = None,
    progress: bool | None = None,
) -> ModelRun:
    """Continue the run of `fit` at `path`, up to `steps` steps in all; None: as many as it was planned for.

    model, images: again, where `fit` was given them. Bit for bit that of a run which was never interrupted, on the same
    machine with the same number of threads. A finished run is returned as it is.
    """
    check_switches(progress=progress)
    writer = RunWriter.reopen(path)
    try:
        config = writer.config()
        known = writer.progress()
        settings = config["settings"]
        accepted = "a run of lb.nn.fit; that of a tracker goes on in its own loop, with resume=True"
        check("steps_per_epoch" in settings, "path", str(path), accepted)
        _check_given(config, model=model, images=images)
        training = training_of(settings)
        planned = settings["total_steps"] if steps is None else validate(Count, "steps", steps)
        reached = known["step"]
        check(planned >= reached, "steps", steps, f"at least {reached}, the step that the run has reached")
        if known["status"] == "diverged" or (known["status"] == "finished" and planned == reached):
            writer.mend_log()
            return ModelRun(writer, config)
        if steps is not None:
            training = training.model_copy(update={"steps": steps})
        images = training.images() if images is None else images
        with torch.random.fork_rng(devices=[]):
            return _continue(writer, config, training, images, model, progress)
    finally:
        writer.close()


def _check_given(config, **given):
    """InvalidInput unless the same is given as `fit` was."""
    for name, value in given.items():
        given_before = name in config["given"]
        check_settable(value is None or given_before, name, type(value).__name__, "lb.nn.fit was not given it")
        check(value is not None or not given_before, name, value, "what lb.nn.fit was given")


def _continue(writer, config, training, images, model, progress):
    fitting = _prepared(training, images, model, config["settings"]["checkpoint_every"])
    quantities = fitting.recorder.tracking.quantities
    now = _config(fitting)
    config = {**config, "settings": now["settings"], "made_with": now["made_with"]}
    check_quantities(writer.path, config, quantities)
    start = writer.progress()["checkpoint"]
    Log(quantities, writer).check(first_row(start))
    _restore(fitting.stepper, writer, start)
    writer.open_log(quantities, fitting.length.steps)
    writer.extend(config)
    return _run(fitting, writer, config, start, progress)


def _restore(stepper, writer, step):
    """Go on from the checkpoint of `step`; StoreError when it does not fit to the model."""
    arrays = writer.checkpoint_arrays(step)
    try:
        stepper.restore(None, arrays)
    except (RuntimeError, KeyError, ValueError, TypeError) as error:  # of load_state_dict and of the generator
        path = writer.checkpoint_path(step)
        reason = shorten(" ".join(str(error).split()), 200)
        raise StoreError(f"{path} does not fit to the model ({reason}); start again.") from None


def trained(run: ModelRun, model: Any = None, images: Images | None = None) -> tuple[torch.nn.Module, Images]:
    """(model, Images) of a ModelRun of `fit`, with the weights of its last checkpoint; others as for `resume`."""
    training = training_of(run.settings)
    images = training.images() if images is None else images
    with torch.random.fork_rng(devices=[]):
        model = training.model(images) if model is None else model
    load_weights(model, run.checkpoint_arrays(run.checkpoints[-1]))
    return model, images


def training_of(settings: dict[str, Any]) -> Training:
    """The Training of the settings that a run keeps."""
    return Training(**{key: settings[key] for key in Training.model_fields})


@functools.lru_cache(maxsize=1)
def _loaded(*arguments):
    """Sweeps train many networks on the same images, which nothing changes."""
    return load(*arguments)


def _way_on(path, config):
    """What to call in order to go on; what `fit` was given is needed again."""
    given = dict.fromkeys(config["given"], "…")
    return resume_call("lb.nn.resume", path, **given) if given else shell_command("resume", path)


class _Length(NamedTuple):
    """How long a network is trained, in steps, and how often that is committed."""

    steps: int
    per_epoch: int
    checkpoint_every: int


class _Fitting(NamedTuple):
    """A run that can begin. name: of the network; patches: {matrix: m_l}, as far as they are known."""

    training: Training
    length: _Length
    name: str
    patches: dict[str, int]
    stepper: TorchStepper
    recorder: FitRecorder


def _prepared(training, images, model, checkpoint_every):
    """The _Fitting of these; InvalidInput where they do not fit together. Seeds PyTorch's generator."""
    count = len(images.train_inputs)
    check(training.batch <= count, "batch", training.batch, f"at most {count}, the number of training images")
    per_epoch = count // training.batch
    steps = training.steps or training.epochs * per_epoch
    checkpoint_every = per_epoch if checkpoint_every is None else checkpoint_every
    length = _Length(steps, per_epoch, validate(Count, "checkpoint_every", checkpoint_every))
    torch.manual_seed(training.seed)
    name = training.network if model is None else type(model).__name__
    stepper = TorchStepper(training, images, training.model(images) if model is None else model, per_epoch)
    matrices = weight_matrices(stepper.model)
    known = patches(stepper.model, stepper.inputs[:2])
    stepper.check_batch()
    tracked = Tracked(every=training.every or per_epoch, epsilon=training.epsilon, norm=training.norm)
    recorder = FitRecorder(Tracking(matrices, tracked, SCALARS), stepper)
    return _Fitting(training, length, name, known, stepper, recorder)


def _config(fitting):
    """What config.json says of the run."""
    training = fitting.training
    length = fitting.length
    tracking = fitting.recorder.tracking
    more = {
        "total_steps": length.steps,
        "steps_per_epoch": length.per_epoch,
        "checkpoint_every": length.checkpoint_every,
    }
    tracked = {**tracking.tracked.model_dump(), "every": training.every}
    settings = {"model": fitting.name, **training.model_dump(mode="json"), **tracked, **more}
    config = configuration(settings, tracking, fitting.patches)
    return {**config, "made_with": {**config["made_with"], "threads": torch.get_num_threads()}}


def _run(fitting, storage, config, start, progress):
    """Train from step `start` to the end, whatever ends it; returns the ModelRun."""
    way_on = _way_on(storage.path, config) if storage.path else None
    subject = Subject(lambda: ModelRun(storage, config), way_on, display(progress, "average rank"))
    span = Span(start, fitting.length.steps, EverySteps(fitting.length.checkpoint_every), keeps_all=False)
    return Loop(fitting.stepper, fitting.recorder, storage, span, subject).run()
