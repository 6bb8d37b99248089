"""Many runs of SGD on small networks, in lock-step."""

from collections.abc import Sequence

import numpy as np

from lrbias.devices import CPU, Device
from lrbias.methods import SGD
from lrbias.network import Network
from lrbias.problems import Problem
from lrbias.steppers._stepper import Stepper
from lrbias.steppers._steps import many_steps
from lrbias.storage import Arrays
from lrcore import layout, status


class EnsembleStepper(Stepper):
    """Runs of SGD with a problem, a network and a method each.

    params   (runs, parameters), a copy of what is trained in lanes
    active   (runs,): whether the loss of a run is finite as far as it was looked at, which is after every call
    """

    def __init__(
        self, methods: Sequence[SGD], problems: Sequence[Problem], networks: Sequence[Network], device: Device = CPU
    ) -> None:
        dtype = networks[0].dtype
        self.widths = networks[0].widths
        self._runs = len(networks)
        self._lanes = layout.lanes(dtype)
        self._trained = layout.to_lanes(np.stack([network.params for network in networks]), self._lanes)
        self._statuses = np.full((len(self._trained), self._lanes), status.OK, np.int64)
        self._steps = many_steps(methods, problems, self.widths, dtype, device)

    @property
    def params(self) -> np.ndarray:  # type: ignore[override] # made when it is asked for
        return layout.from_lanes(self._trained, self._runs)

    @property
    def active(self) -> np.ndarray:
        return layout.from_lanes(self._statuses, self._runs) == status.OK

    def step(self, losses: np.ndarray, step: int) -> int:
        """`losses` says how many steps are made, and stays as it is."""
        count = len(losses)
        self._steps(self._trained, count, self._statuses, step)
        self._steps(self._trained.copy(), 1, self._statuses, step + count)  # as `train` asks for the loss at the end
        return status.OK

    def state(self) -> Arrays:
        return {"statuses": self._statuses}

    def restore(self, params: np.ndarray, state: Arrays) -> None:
        self._trained = layout.to_lanes(params, self._lanes)
        self._statuses[:] = state["statuses"]
