"""Training of the linearised network, by the tangent kernel K of its initialization: W ← W − η K(∂L/∂W)."""

from typing import Any

import numpy as np

from lrbias.errors import check
from lrbias.methods import Linearized
from lrbias.network import Network
from lrbias.problems import Problem
from lrbias.steppers._stepper import DEFAULT, Execution, Stepper, stepper_of
from lrbias.storage import Arrays
from lrcore import cpu, layout
from lrcore.cpu import workspace


class LinearizedStepper(Stepper):
    """`params` (n_N·n_0,) is the output, trained in place; the kernel is that of the network given to `init`.

    A checkpoint holds that network, from which the factors of the kernel are made again with the same bits.
    """

    def __init__(self, problem: Problem, network: Network, method: Linearized) -> None:
        self.params = network.params
        self.widths = network.widths
        self._method = method
        self._goal = problem.objective(self.params.dtype)
        self._origin: Arrays = {}

    def init(self, network: Network) -> None:
        origin = {"params": network.params, "widths": network.widths, "scale": network.output_scale}
        self._take({f"origin_{name}": value for name, value in origin.items()})

    def _take(self, origin: dict[str, Any]) -> None:
        self._origin = {name: np.asarray(value) for name, value in origin.items()}
        params = self._origin["origin_params"]
        dtype = self.params.dtype
        widths = layout.as_widths(self._origin["origin_widths"])
        depth = len(widths) - 1
        sides = (widths[-1], widths[0])
        self._left, self._right = (np.empty((depth, n, n), dtype) for n in sides)
        self._work = workspace.allocate_ntk(widths, dtype)
        cpu.ntk_factors(params, widths, self._left, self._right, self._work)
        self._left *= dtype.type(self._origin["origin_scale"] ** 2)

    def step(self, losses: np.ndarray, step: int) -> int:
        rates = self._method.rates(step, losses.size).astype(losses.dtype)
        factors = self._left, self._right
        return cpu.tangent_gd_steps(self.params, factors, self._goal, rates, losses, self._work)

    def state(self) -> Arrays:
        return self._origin

    def restore(self, params: np.ndarray, state: Arrays) -> None:
        self.params[:] = params
        self._take(state)


@stepper_of.register
def _(method: Linearized, problem: Problem, network: Network, execution: Execution = DEFAULT) -> Stepper:
    check(not execution.device.is_accelerator, "device", execution.device.name, "cpu for a linearised network")
    return LinearizedStepper(problem, network, method)
