"""Gradient flow whose steps an error estimate chooses (Dormand and Prince)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lrbias.errors import check
from lrbias.methods import GradientFlow, Method
from lrbias.network import Network
from lrbias.problems import Problem
from lrbias.steppers._stepper import DEFAULT, Execution, Stepper, stepper_of
from lrbias.storage import Arrays, Quantity
from lrbias.system import together
from lrcore import adaptive, layout, status
from lrcore.tableau import PAIRS

RECORDED = [adaptive.EVALUATIONS, adaptive.REJECTED, adaptive.STEP]
COUNTS = [adaptive.EVALUATIONS, adaptive.REJECTED, adaptive.ACCEPTED]
ROUNDING = 100  # units in the last place: smaller errors than these cannot be told from rounding


class AdaptiveStepper(Stepper):
    """A flow whose steps an error estimate chooses; `params` are interpolated at the multiples of dt.

    The state is the point at which the integrator's current step began, and its clock (see `lrcore.adaptive`). After a
    call that was paused the clock is ahead of `params`; what it said there is kept for a record, which a resumed run
    makes again.
    """

    def __init__(self, problem: Problem, network: Network, flow: GradientFlow, execution: Execution) -> None:
        self.params = network.params
        self.widths = network.widths
        self._state = adaptive.adaptive_state(self.params)
        self._dt = flow.dt
        self._noted: np.ndarray | None = None  # what the clock said at `params`, after a pause
        self._steps = self._bound(problem, flow, execution)

    def _bound(self, problem: Problem, flow: GradientFlow, execution: Execution) -> Callable[..., int]:
        """The kernel with everything that stays as it is: steps(params, losses, step) -> status."""
        device = execution.device
        dtype = self.params.dtype
        widths = layout.as_widths(self.widths)
        make = device.kernels.adaptive_rk_steps
        pair = PAIRS[flow.scheme]
        objective = device.device_put(problem.objective(dtype))
        state = self._state
        tableau = pair.astype(dtype)
        ridge = dtype.type(flow.ridge)

        def kernel(params: np.ndarray, losses: np.ndarray, step: int, work: Any) -> int:
            numbers = adaptive.Flow(ridge, flow.dt, *flow.tolerances, step, self.budget)
            return make(params, widths, objective, numbers, tableau, losses, state, work)

        return together(kernel, device.workspace.thread_workspaces(widths, dtype, pair.stages, execution.threads))

    def step(self, losses: np.ndarray, step: int) -> int:
        noted = self._now()
        code = self._steps(self.params, losses, step)
        paused_at_once = code == status.PAUSED and np.isnan(losses[0])
        self._noted = noted if paused_at_once else None
        return code

    def part_of_step(self, step: int) -> float:
        return max(0.0, self._state.clock[adaptive.TIME] / self._dt - step)

    def why_stuck(self, step: int) -> str:
        return f"no step of the integrator keeps the tolerance at t = {step * self._dt:g}, however small"

    def _now(self) -> np.ndarray:
        """What the clock says at `params`."""
        return self._state.clock[RECORDED].copy() if self._noted is None else self._noted

    def state(self) -> Arrays:
        noted: Arrays = {} if self._noted is None else {"noted": self._noted}
        return {"base": self._state.base, "clock": self._state.clock, **noted}

    def restore(self, params: np.ndarray, state: Arrays) -> None:
        self.params[:] = params
        self._noted = state.get("noted")
        self._state.base[:] = state["base"]
        self._state.clock[:] = state["clock"]
        self._state.clock[adaptive.READY] = 0  # the stages of the current step are made again

    def count_on(self, other: Any) -> None:
        self._state.clock[COUNTS] = other._state.clock[COUNTS]

    def quantities(self, every: int) -> list[Quantity]:
        numbers = {"evaluations": "i8", "rejections": "i8", "step_size": "f8"}
        return [Quantity(f"flow/{name}", (), kind, every) for name, kind in numbers.items()]

    def values(self) -> list[Any]:
        evaluations, rejections, size = self._now()
        return [int(evaluations), int(rejections), size]


@stepper_of.register
def _(method: GradientFlow, problem: Problem, network: Network, execution: Execution = DEFAULT) -> Stepper:
    if method.fixed:
        return stepper_of.dispatch(Method)(method, problem, network, execution)
    least = ROUNDING * np.finfo(network.dtype).eps
    accepted = f"at least {least:.2g} in {network.dtype}, where smaller errors are those of rounding"
    check(method.tolerances[0] >= least, "rtol", method.tolerances[0], accepted)
    return AdaptiveStepper(problem, network, method, execution)
