"""A package of somebody else: an initialization, a problem, a metric and a method of its own."""

import itertools
from typing import Annotated

import numpy as np
from pydantic import Field

from lrbias.methods import Method
from lrbias.metrics import metric
from lrbias.network import Drawn
from lrbias.problems import TARGETS, Factorization, Fitted, Target
from lrbias.settings import Finite, OneOf, Positive, Share
from lrbias.steppers import Stepper, stepper_of
from lrcore import cpu, layout, status
from lrcore.cpu import workspace


class Flat(Drawn):
    """Layers whose entries are all the same number."""

    name = "flat"
    height: Positive = Field(default=0.25, description="entry of every layer")

    def layers(self, widths):
        return [np.full((rows, columns), self.height) for columns, rows in itertools.pairwise(widths)]


class Shifted(Fitted):
    """A target with a number added to each of its entries."""

    name = "shifted"
    selected_by = ("shift",)
    target: Annotated[Target, OneOf(TARGETS)] = Field(TARGETS.read({}), description="where the target comes from")
    shift: Finite = Field(default=0.0, description="number that is added to every entry")

    def make(self, depth):
        return Factorization(self.target.make(depth).matrix + self.shift)


@metric("trace", lambda context: [("product/trace", (), "float")])
def trace(state):
    """The sum of the diagonal of the product."""
    return [np.trace(state.matrix(0))]


class HeavyBall(Method):
    """Gradient descent with momentum (Polyak 1964): v ← μ v − η ∂L/∂W, W ← W + v."""

    name = "heavy_ball"
    label = "heavy ball"
    lr: Positive = Field(1e-3, description="learning rate η")
    momentum: Share = Field(0.9, description="momentum μ")

    @property
    def fixed(self):
        return False

    @property
    def step_size(self):
        return self.lr

    @property
    def caption(self):
        return f"heavy ball, lr = {self.lr:g}, momentum = {self.momentum:g}"


class HeavyBallStepper(Stepper):
    """Keeps the velocity beside the layers, so that a run can be resumed at any step."""

    def __init__(self, method, problem, network):
        self.method = method
        self.params = network.params
        self.widths = network.widths
        self._velocity = np.zeros_like(self.params)
        self._gradient = np.empty_like(self.params)
        self._objective = problem.objective(self.params.dtype)
        self._work = workspace.allocate(self.widths, self.params.dtype)

    def step(self, losses, step):
        widths = layout.as_widths(self.widths)
        for i in range(losses.size):
            losses[i] = cpu.objective_loss_and_gradient(
                self.params, widths, self._objective, self.method.ridge, self._gradient, self._work
            )
            if not np.isfinite(losses[i]):
                losses[i:] = np.nan
                return status.DIVERGED
            self._velocity *= self.method.momentum
            self._velocity -= self.method.lr * self._gradient
            self.params += self._velocity
        return status.OK

    def state(self):
        return {"velocity": self._velocity}

    def restore(self, params, state):
        self.params[:] = params
        self._velocity[:] = state["velocity"]


@stepper_of.register
def _(method: HeavyBall, problem, network, execution):
    return HeavyBallStepper(method, problem, network)
