"""What a network that we train records: its matrices, and losses and accuracies since the record before."""

import numpy as np

from lrbias.training import Recorder

SCALARS = ("loss", "train_accuracy", "test_accuracy")


class FitRecorder(Recorder):
    """The rows of a `Tracking` at the steps of a TorchStepper."""

    def __init__(self, tracking, stepper):
        self.tracking = tracking
        self._stepper = stepper
        self.intervals = self.marks = [tracking.tracked.every]

    def begin(self, storage, step):
        self._start = step
        self._stepper.model.train()
        self.tracking.begin(storage, first_row(step))

    def losses(self, step, count):
        return np.empty(1)

    def record(self, step):
        if step % self.intervals[0] or 0 < step == self._start:  # the record of a checkpoint was made before it
            return
        losses, right, count = self._stepper.tally
        noted = {"loss": losses / count, "train_accuracy": right / count} if count else {}
        self.tracking.record(step, {**noted, "test_accuracy": self._stepper.test_accuracy()})
        self._stepper.tally[:] = 0

    @property
    def rank(self):
        return self.tracking.last

    def drain(self):
        self.tracking.drain()

    def divergence(self, step):
        return step + 1, f"the loss at step {step + 1} is {self._stepper.loss}"

    def detail(self, ending, sentence):
        return self.tracking.detail(ending, sentence)

    def hand_on(self, ending):
        self.tracking.hand_on(ending)

    def close(self):
        self.tracking.close()


def first_row(step):
    """The step from which rows are written by what goes on from `step`, whose own record is there."""
    return step + 1 if step else 0
