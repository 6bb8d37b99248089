"""The steps of a network in PyTorch: SGD on the mean cross entropy with weight decay."""

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from lrbias.errors import InvalidInput, shorten
from lrbias.nn._augmentation import crops_and_flips
from lrbias.nn._passes import unchanged
from lrbias.steppers import Stepper
from lrcore import status

TESTED = 500  # images at a time, where no gradient is needed


class TorchStepper(Stepper):
    """Steps of `model` on `images` as `training` (a Training) says.

    tally  since the last record: the sum of the losses, images put right, images
    loss   of the step that was made last
    """

    widths = ()  # what has no layers in a row has no widths

    def __init__(self, training, images, model, per_epoch):
        self._training = training
        self._images = images
        self._per_epoch = per_epoch
        self.model = model
        self.model.to(memory_format=torch.channels_last)  # in which convolutions on a CPU are made faster
        self.inputs, self._labels = (torch.from_numpy(a) for a in (images.train_inputs, images.train_labels))
        parameters = self.model.parameters()
        decay = 2 * training.weight_decay
        rate = training.lr
        self._optimizer = torch.optim.SGD(parameters, rate, training.momentum, weight_decay=decay, fused=True)
        self._augment = crops_and_flips(self.inputs.shape[-2:]) if training.augment else None
        self._order = None
        self.tally = np.zeros(3)
        self.loss = float("nan")

    def check_batch(self):
        """InvalidInput for a batch of one where batch normalisation would see one value of each channel."""
        if self._training.batch > 1:
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

    def most_steps(self, step):
        return 1

    def step(self, losses, step):
        inputs, labels = self._batch(step)
        self._optimizer.zero_grad()
        logits = self.model(inputs)
        loss = cross_entropy(logits, labels)
        losses[0] = self.loss = loss.item()
        if not np.isfinite(self.loss):
            return status.DIVERGED
        loss.backward()
        self._optimizer.step()
        right = int((logits.argmax(1) == labels).sum())
        self.tally += self.loss * len(labels), right, len(labels)
        return status.OK

    def _batch(self, step):
        """(inputs, labels) of a step; the first one of an epoch sets the learning rate."""
        epoch, place = divmod(step, self._per_epoch)
        if place == 0 or self._order is None:
            self._order = torch.from_numpy(self._training.order(epoch, len(self._labels)))
            self._optimizer.param_groups[0]["lr"] = self._training.rate(epoch)
        size = self._training.batch
        chosen = self._order[place * size : (place + 1) * size]
        inputs = self.inputs[chosen].contiguous(memory_format=torch.channels_last)
        if self._augment is not None:
            inputs = self._augment(inputs)
        return inputs, self._labels[chosen]

    def test_accuracy(self):
        """The share of the test images that the network puts right."""
        inputs, labels = (torch.from_numpy(a) for a in (self._images.test_inputs, self._images.test_labels))
        self.model.eval()
        with torch.no_grad():
            found = torch.cat([self.model(part).argmax(1) for part in inputs.split(TESTED)])
        self.model.train()
        return float((found == labels).double().mean())

    def checkpoint(self):
        arrays = {f"model/{name}": value.detach().numpy() for name, value in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            momentum = self._optimizer.state.get(parameter, {}).get("momentum_buffer")
            if momentum is not None:
                arrays[f"momentum/{name}"] = momentum.numpy()
        return {**arrays, "tally": self.tally, "generator": torch.get_rng_state().numpy()}

    def restore(self, params, state):
        """params: nothing; state: what `checkpoint` gave."""
        load_weights(self.model, state)
        for name, parameter in self.model.named_parameters():
            if f"momentum/{name}" in state:
                momentum = torch.empty_like(parameter)  # laid out like the parameter, which fused steps rely on
                momentum.copy_(torch.from_numpy(state[f"momentum/{name}"]))
                self._optimizer.state[parameter]["momentum_buffer"] = momentum
        self.tally[:] = state["tally"]
        torch.set_rng_state(torch.from_numpy(state["generator"]))


def load_weights(model, arrays):
    """The weights of a checkpoint into a model."""
    prefix = "model/"
    weights = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
