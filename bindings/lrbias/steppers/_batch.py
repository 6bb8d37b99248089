"""Small networks of one kind, many side by side: the batched kernels give to each the bits that it has alone."""

from collections.abc import Sequence

import numpy as np

from lrbias.devices import CPU, Device
from lrbias.methods import Method
from lrbias.steppers._stepper import Stepper
from lrbias.steppers._steps import batch_steps
from lrbias.storage import Arrays
from lrcore import layout, status


class BatchStepper(Stepper):
    """Runs in lock-step, by methods that differ in their step sizes.

    params   (runs, parameters), a copy of what is trained in lanes
    active   (runs,): whether a run goes on. One whose loss is no longer finite stops counting; its lane runs along
    """

    def __init__(
        self,
        methods: Sequence[Method],
        targets: np.ndarray,
        params: np.ndarray,
        widths: tuple[int, ...],
        device: Device = CPU,
    ) -> None:
        dtype = params.dtype
        self.widths = widths
        self.active = np.ones(len(params), bool)
        self._lanes = layout.lanes(dtype)
        self._trained = layout.to_lanes(params, self._lanes)
        blocked = layout.to_lanes(targets.reshape(len(targets), -1).astype(dtype), self._lanes)
        self._steps = batch_steps(methods, blocked, widths, dtype, device)

    @property
    def params(self) -> np.ndarray:  # type: ignore[override] # made when it is asked for
        return layout.from_lanes(self._trained, len(self.active))

    @property
    def ending(self) -> str | None:  # type: ignore[override] # made when it is asked for
        return None if self.active.any() else "no run goes on"

    def step(self, losses: np.ndarray, step: int) -> int:
        """losses (steps, runs): of a run that diverges, finite up to there. Which do so is in `active`."""
        runs = len(self.active)
        blocks, _, lanes = self._trained.shape
        blocked = np.empty((blocks, len(losses), lanes), losses.dtype)
        codes = np.empty((blocks, lanes), np.int64)
        self._steps(self._trained, blocked, codes)
        losses.T[:] = layout.from_lanes(blocked, runs)
        self.active &= layout.from_lanes(codes, runs) != status.DIVERGED
        return status.OK

    def state(self) -> Arrays:
        return {"active": self.active}

    def restore(self, params: np.ndarray, state: Arrays) -> None:
        self._trained = layout.to_lanes(params, self._lanes)
        self.active[:] = state["active"]
