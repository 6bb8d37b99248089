"""What makes the steps of a run, and knows what a checkpoint has to hold so that they go on with the same bits.

A method is a frozen setting; `stepper_of` finds the Stepper that makes its steps. Each kind has a file of its own.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lrbias.devices import CPU, Device
from lrbias.methods import Method
from lrbias.network import Network
from lrbias.problems import Problem
from lrbias.steppers._steps import steps_of
from lrbias.storage import Arrays, Quantity
from lrcore import adaptive, status

ENDLESS = 1 << 62


class Execution(NamedTuple):
    """How the steps of a run are made; apart from `compress` its bits do not depend on it.

    threads   how many threads share the products of a step
    device    the Device that makes them
    compress  "auto": by an exact reduction where there is one; "off": on whole layers
    """

    threads: int = 1
    device: Device = CPU
    compress: str = "off"


class Stepper:
    """The steps of one run.

    params   the flat vector of all layers W_1 … W_N, as `expand` last wrote it
    widths   (n_0, …, n_N)
    reduced  the name of an exact reduction; None where whole layers are trained
    machine  whether the bits depend on more than the initialization: on this machine's LAPACK
    ending   a sentence when there is nothing more to do
    budget   gradients after which a call may return PAUSED, where a step takes as many as its error asks for
    """

    params: np.ndarray
    widths: tuple[int, ...]
    reduced: str | None = None
    machine: bool = False
    ending: str | None = None
    budget: int = adaptive.ENDLESS

    def init(self, network: Any) -> None:
        """Called before the first step of a new run, with the Network that `train` was given."""

    def step(self, losses: np.ndarray, step: int) -> int:
        """Make as many steps as `losses` is long, the first of which is number `step`; returns a status.

        Unless that is OK, those before the first NaN of `losses` are made.
        """
        raise NotImplementedError

    def expand(self) -> None:
        """Bring `params` up to date, where something else is trained in its place."""

    def state(self) -> Arrays:
        """{name: array}: what the next step depends on beside `params`."""
        return {}

    def restore(self, params: np.ndarray, state: Arrays) -> None:
        """Go on from the layers `params` and what `state` gave there."""
        raise NotImplementedError

    def checkpoint(self) -> Arrays:
        """{name: array}: everything that the next step depends on."""
        return {"params": self.params, **self.state()}

    def snapshot(self) -> tuple[np.ndarray, Arrays]:
        """Copies of the layers and of the state, for `restore`."""
        return self.params.copy(), {name: array.copy() for name, array in self.state().items()}

    def drawn_loss(self, step: int) -> float:
        """The loss of what a stochastic method would draw at `step`."""
        raise NotImplementedError

    def why_stuck(self, step: int) -> str:
        """Why no step was made from `step`, where the loss is finite."""
        return status.MEANING[status.DIVERGED]

    def count_on(self, other: Any) -> None:
        """Go on counting where another stepper of the run has stopped."""

    def part_of_step(self, step: int) -> float:
        """How much of the step after `step` was made when a call was paused."""
        return 0.0

    def most_steps(self, step: int) -> int:
        """How many steps one call may make from `step` on."""
        return ENDLESS

    def ends_stage(self, step: int) -> bool:
        """Called after steps and before what is measured: is a stage of the training over? True asks for a commit."""
        return False

    def quantities(self, every: int) -> list[Quantity]:
        """What the stepper itself records at every `every`-th step."""
        return []

    def values(self) -> list[Any]:
        """The values of these now."""
        return []


class LayerStepper(Stepper):
    """All layers, step by step, in the vector `params` itself."""

    def __init__(self, network: Network, steps: Callable[..., int]) -> None:
        self.params = network.params
        self.widths = network.widths
        self._steps = steps

    def step(self, losses: np.ndarray, step: int) -> int:
        return self._steps(self.params, losses, step)

    def restore(self, params: np.ndarray, state: Arrays) -> None:
        self.params[:] = params

    def drawn_loss(self, step: int) -> float:
        loss = np.empty(1, self.params.dtype)
        self._steps(self.params.copy(), loss, step)
        return loss[0]


DEFAULT = Execution()


@functools.singledispatch
def stepper_of(method: Method, problem: Problem, network: Network, execution: Execution = DEFAULT) -> Stepper:
    """The Stepper of a run by `method` from `network`, whose `params` it may change in place.

    A method with steps of its own registers what makes them: `@stepper_of.register` for its class.
    """
    steps = steps_of(method, problem, network.widths, network.dtype, execution.threads, execution.device)
    return LayerStepper(network, steps)
