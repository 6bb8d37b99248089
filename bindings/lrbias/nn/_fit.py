"""Training a network by SGD with weight decay, its ranks recorded, to be taken up again with the same bits.

Everything that a step draws is known from the seed and the number of the step, or from what a checkpoint holds: the
order of an epoch from (seed, epoch), crops, flips and dropout from the state of PyTorch's generator.
"""

import functools
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch.nn.functional import cross_entropy

from lrbias.errors import Interrupted, InvalidInput, StoreError, require, shorten
from lrbias.nn._augmentation import crops_and_flips
from lrbias.nn._datasets import Images, load
from lrbias.nn._matrices import patches, weight_matrices
from lrbias.nn._networks import build
from lrbias.nn._passes import unchanged
from lrbias.nn._tracker import configuration
from lrbias.nn._tracking import TRAINING, Tracked, Tracking
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
from lrbias.storage import Log, MemorySink, RunWriter, check_new, check_quantities
from lrbias.system import collected, display, resume_call, shell_command, usual_errors

SCALARS = ("loss", "train_accuracy", "test_accuracy")
TESTED = 500  # images at a time, where no gradient is needed
Momentum = Annotated[Number, Field(ge=0, lt=1), Accepts("a number of at least 0 and less than 1")]
Milestones = Annotated[tuple[Count, ...], Accepts("epochs, each an integer of at least 1")]


class Training(Settings):
    """How a network is trained: SGD on the mean cross entropy + λ‖W‖², W all of its parameters."""

    data: str = Field("fashion-mnist", description="name of a data set, see `lb.nn.load`")
    folder: File | None = Field(None, description="folder of the data set")
    samples: Count | None = Field(None, description="images to train on; all")
    test_samples: Count | None = Field(None, description="images to test on; all")
    pool: Count = Field(1, description="images are made smaller by this factor")
    data_seed: Seed = Field(0, description="seed of the choice of images")
    network: str = Field("mlp-bn", description="name of a network, see `lb.nn.build`")
    width: Count | None = Field(None, description="width of the network; its own default")
    depth: Count | None = Field(None, description="depth of the network; its own default")
    batch: Count = Field(16, description="images B of a step; those left over wait for another order")
    lr: Positive = Field(0.1, description="learning rate μ")
    weight_decay: NotNegative = Field(
        5e-4, description="λ: a step multiplies the weights by 1 − 2μλ (PyTorch's weight_decay is 2λ)"
    )
    momentum: Momentum = Field(0.0, description="momentum of torch.optim.SGD")
    epochs: Count = Field(10, description="how long")
    steps: Count | None = Field(None, description="stop after so many steps")
    milestones: Milestones = Field((), description="epochs at whose begin the learning rate is multiplied by `factor`")
    factor: Fraction = Field(0.1, description="factor of the learning rate at a milestone")
    augment: bool = Field(False, description="random crops with a margin of 4 pixels, and flips")
    seed: Seed = Field(0, description="seed of the weights, the orders, crops and flips")
    every: Count | None = Field(None, description="steps between records; an epoch")
    epsilon: Positive = Field(1e-3, description="ranks count singular values above epsilon times the norm")
    norm: str = Field("spectral", description="that norm: spectral or frobenius")

    def images(self):
        """The Images that these settings name."""
        return _loaded(self.data, self.samples, self.test_samples, self.pool, self.data_seed, self.folder)

    def model(self, images):
        """The network that these settings name, for such images, as PyTorch's generator draws it."""
        return build(self.network, images.train_inputs.shape[1:], images.classes, self.width, self.depth)

    def rate(self, epoch):
        """The learning rate in an epoch; the first is 0."""
        return self.lr * self.factor ** sum(milestone <= epoch for milestone in self.milestones)

    def order(self, epoch, count):
        """In which order an epoch goes through `count` images."""
        return np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(count)


@usual_errors
def fit(training, store=None, model=None, images=None, checkpoint_every=None, progress=None):
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
    require(isinstance(training, Training), "training", training, "a lb.nn.Training")
    if store is not None:
        check_new(store)
    given = {"images": images is not None, "model": model is not None}
    images = training.images() if images is None else images
    require(isinstance(images, Images), "images", images, "a lb.nn.Images")
    with torch.random.fork_rng(devices=[]):
        fitting = _Fitting(training, images, model, checkpoint_every)
        config = {**fitting.config(), "given": [name for name, own in given.items() if own]}
        if store is None:
            sink = MemorySink()
            sink.write_checkpoint(0, fitting.arrays(), ())
        else:
            quantities = fitting.tracking.quantities
            steps = fitting.steps
            sink = RunWriter.create(store, config, {}, (), fitting.arrays(), quantities, steps)
        return fitting.go(sink, config, 0, progress)


@usual_errors
def resume(path, steps=None, model=None, images=None, progress=None):
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
        require("steps_per_epoch" in settings, "path", str(path), accepted)
        for name, value in (("model", model), ("images", images)):
            accepted = "what lb.nn.fit was given" if name in config["given"] else "nothing, as lb.nn.fit was given"
            require((value is not None) == (name in config["given"]), name, type(value).__name__, accepted)
        training = training_of(settings)
        planned = settings["total_steps"] if steps is None else validate(Count, "steps", steps)
        reached = known["step"]
        require(planned >= reached, "steps", steps, f"at least {reached}, the step that the run has reached")
        if known["status"] == "diverged" or (known["status"] == "finished" and planned == reached):
            writer.mend_log()
            return ModelRun(writer, config)
        if steps is not None:
            training = training.model_copy(update={"steps": steps})
        images = training.images() if images is None else images
        with torch.random.fork_rng(devices=[]):
            fitting = _Fitting(training, images, model, settings["checkpoint_every"])
            config = {**config, **{key: fitting.config()[key] for key in ("settings", "made_with")}}
            check_quantities(writer.path, config, fitting.tracking.quantities)
            start = known["checkpoint"]
            Log(fitting.tracking.quantities, writer).check(_first_row(start))
            _restore(fitting, writer, start)
            writer.open_log(fitting.tracking.quantities, fitting.steps)
            writer.extend(config)
            return fitting.go(writer, config, start, progress)
    finally:
        writer.close()


def _first_row(start):
    """The step from which rows are written by what goes on from `start`, whose own record is there."""
    return start + 1 if start else 0


def _restore(fitting, writer, step):
    """Go on from the checkpoint of `step`; StoreError when it does not fit to the model."""
    arrays = writer.checkpoint_arrays(step)
    try:
        fitting.restore(arrays)
    except (RuntimeError, KeyError, ValueError, TypeError) as error:  # of load_state_dict and of the generator
        path = writer.checkpoint_path(step)
        reason = shorten(" ".join(str(error).split()), 200)
        raise StoreError(f"{path} does not fit to the model ({reason}); start again.") from None


def trained(run, model=None, images=None):
    """(model, Images) of a ModelRun of `fit`, with the weights of its last checkpoint; others as for `resume`."""
    training = training_of(run.settings)
    images = training.images() if images is None else images
    with torch.random.fork_rng(devices=[]):
        model = training.model(images) if model is None else model
    _load_weights(model, run.checkpoint_arrays(run.checkpoints[-1]))
    return model, images


def training_of(settings):
    """The Training of the settings that a run keeps."""
    return Training(**{key: settings[key] for key in Training.model_fields})


@functools.lru_cache(maxsize=1)
def _loaded(*arguments):
    """Sweeps train many networks on the same images, which nothing changes."""
    return load(*arguments)


def _load_weights(model, arrays):
    prefix = "model/"
    weights = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})


def _way_on(path, config):
    """What to call in order to go on; what `fit` was given is needed again."""
    given = dict.fromkeys(config["given"], "…")
    return resume_call("lb.nn.resume", path, **given) if given else shell_command("resume", path)


class _Fitting:
    """A run in progress: model, optimizer, data and what is recorded."""

    def __init__(self, training, images, model, checkpoint_every):
        self.training = training
        self.images = images
        count = len(images.train_inputs)
        require(training.batch <= count, "batch", training.batch, f"at most {count}, the number of training images")
        self.per_epoch = count // training.batch
        self.steps = training.steps or training.epochs * self.per_epoch
        given = self.per_epoch if checkpoint_every is None else checkpoint_every
        self.checkpoint_every = validate(Count, "checkpoint_every", given)
        self.every = training.every or self.per_epoch
        torch.manual_seed(training.seed)
        self.name = training.network if model is None else type(model).__name__
        self.model = training.model(images) if model is None else model
        self.model.to(memory_format=torch.channels_last)  # in which convolutions on a CPU are made faster
        self.inputs, self.labels = (torch.from_numpy(a) for a in (images.train_inputs, images.train_labels))
        matrices = weight_matrices(self.model)
        self.patches = patches(self.model, self.inputs[:2])
        self._check_batch()
        tracked = Tracked(every=self.every, epsilon=training.epsilon, norm=training.norm)
        self.tracking = Tracking(matrices, tracked, SCALARS)
        momentum = training.momentum
        decay = 2 * training.weight_decay
        parameters = self.model.parameters()
        self.optimizer = torch.optim.SGD(parameters, training.lr, momentum, weight_decay=decay, fused=True)
        self.augment = crops_and_flips(self.inputs.shape[-2:]) if training.augment else None
        self._order = None
        self.tally = np.zeros(3)  # since the last record: losses, images put right, images
        self.last_loss = float("nan")

    def _check_batch(self):
        """InvalidInput for a batch of one where batch normalisation would see one value of each channel."""
        if self.training.batch > 1:
            return
        with unchanged(self.model), torch.no_grad():
            self.model.train()
            try:
                self.model(self.inputs[:1])
            except ValueError as error:
                reason = shorten(str(error), 100)
                raise InvalidInput(
                    f"batch = 1 is not accepted: expected at least 2 for this network ({reason})."
                ) from None

    def config(self):
        more = {"total_steps": self.steps, "steps_per_epoch": self.per_epoch, "checkpoint_every": self.checkpoint_every}
        tracked = {**self.tracking.tracked.model_dump(), "every": self.training.every}
        settings = {"model": self.name, **self.training.model_dump(mode="json"), **tracked, **more}
        config = configuration(settings, self.tracking, self.patches)
        return {**config, "made_with": {**config["made_with"], "threads": torch.get_num_threads()}}

    def arrays(self):
        """Everything that the next step depends on, for a checkpoint."""
        arrays = {f"model/{name}": value.detach().numpy() for name, value in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            momentum = self.optimizer.state.get(parameter, {}).get("momentum_buffer")
            if momentum is not None:
                arrays[f"momentum/{name}"] = momentum.numpy()
        return {**arrays, "tally": self.tally, "generator": torch.get_rng_state().numpy()}

    def restore(self, arrays):
        """Go on from what `arrays` gave."""
        _load_weights(self.model, arrays)
        for name, parameter in self.model.named_parameters():
            if f"momentum/{name}" in arrays:
                momentum = torch.empty_like(parameter)  # laid out like the parameter, which fused steps rely on
                momentum.copy_(torch.from_numpy(arrays[f"momentum/{name}"]))
                self.optimizer.state[parameter]["momentum_buffer"] = momentum
        self.tally[:] = arrays["tally"]
        torch.set_rng_state(torch.from_numpy(arrays["generator"]))

    def go(self, sink, config, start, progress):
        """Train from step `start` to the end, whatever ends it; commit; return the ModelRun."""
        self.tracking.begin(sink, _first_row(start), sink.progress()["elapsed"] if start else 0.0)
        self.sink = sink
        self.step = start
        self.checkpoint = start
        shown = display(progress, "average rank")
        try:
            shown.start(start, self.steps)
            with collected() as received:
                ending = self._loop(shown, received)
        except StoreError as error:
            raise StoreError(f"{error} When that is mended: {_way_on(sink.path, config)}") from error
        finally:
            shown.stop()
            self.tracking.end()
        run = ModelRun(sink, config)
        if ending == "interrupted":
            kept = "; what was recorded is the `.run` of this exception; a run with a store could be resumed"
            if run.path:
                kept = f", everything is saved; continue with: {_way_on(run.path, config)}"
            raise Interrupted(f"interrupted at step {self.step}{kept}", run, received[0])
        return run

    def _loop(self, shown, received):
        self.model.train()
        if self.step == 0:
            self._record()
        while self.step < self.steps:
            if received:
                return self._commit("interrupted", "interrupted by a signal; resume continues it")
            if not self._make_step():
                self.tracking.commit("diverged", f"the loss at step {self.step + 1} is {self.last_loss}", self.step + 1)
                return "diverged"
            self.step += 1
            if self.step % self.every == 0:
                self._record()
            if self.step % self.checkpoint_every == 0 and self.step < self.steps:
                self._commit("running", TRAINING)
            shown.update(self.step, self.last_loss, self.tracking.last)
        return self._commit("finished", "all steps were made")

    def _make_step(self):
        """One step; False when the loss is not finite."""
        epoch, place = divmod(self.step, self.per_epoch)
        if place == 0 or self._order is None:
            self._order = torch.from_numpy(self.training.order(epoch, len(self.labels)))
            self.optimizer.param_groups[0]["lr"] = self.training.rate(epoch)
        chosen = self._order[place * self.training.batch : (place + 1) * self.training.batch]
        inputs = self.inputs[chosen].contiguous(memory_format=torch.channels_last)
        labels = self.labels[chosen]
        if self.augment is not None:
            inputs = self.augment(inputs)
        self.optimizer.zero_grad()
        logits = self.model(inputs)
        loss = cross_entropy(logits, labels)
        self.last_loss = loss.item()
        if not np.isfinite(self.last_loss):
            return False
        loss.backward()
        self.optimizer.step()
        right = int((logits.argmax(1) == labels).sum())
        self.tally += self.last_loss * len(labels), right, len(labels)
        return True

    def _record(self):
        losses, right, count = self.tally
        noted = {"loss": losses / count, "train_accuracy": right / count} if count else {}
        self.tracking.record(self.step, {**noted, "test_accuracy": self.test_accuracy()})
        self.tally[:] = 0

    def test_accuracy(self):
        """The share of the test images that the network puts right."""
        inputs, labels = (torch.from_numpy(a) for a in (self.images.test_inputs, self.images.test_labels))
        self.model.eval()
        with torch.no_grad():
            found = torch.cat([self.model(part).argmax(1) for part in inputs.split(TESTED)])
        self.model.train()
        return float((found == labels).double().mean())

    def _commit(self, status, detail):
        if self.checkpoint != self.step:
            self.sink.forget_checkpoint(self.checkpoint)
        self.tracking.commit(status, detail, self.step, self.arrays())
        self.checkpoint = self.step
        return status
