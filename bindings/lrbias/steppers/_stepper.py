"""What makes the steps of a run, and knows what a checkpoint has to hold so that they go on with the same bits.

A `Trainer` belongs to one run. Between its calls the flat vector of all layers is what `expand` last wrote. Whole
layers are trained in that vector itself; others train fewer numbers (`lrbias.steppers`), keep a point between two
records (`Adaptive`), or let the network grow (`lrbias.steppers`).
"""

import functools

import numpy as np

from lrbias.devices import CPU
from lrbias.errors import require
from lrbias.methods import GradientFlow, Method
from lrbias.steppers._steps import steps_of
from lrbias.storage import Quantity
from lrbias.system import together
from lrcore import adaptive, layout, status
from lrcore.tableau import PAIRS

ENDLESS = 1 << 62
RECORDED = [adaptive.EVALUATIONS, adaptive.REJECTED, adaptive.STEP]
ROUNDING = 100  # units in the last place: smaller errors than these cannot be told from rounding
COUNTS = [adaptive.EVALUATIONS, adaptive.REJECTED, adaptive.ACCEPTED]


class Trainer:
    """The steps of one run."""

    reduced = None  # the name of a short form
    machine = False  # whether its bits depend on more than the start: on this machine's LAPACK
    ending = None  # a sentence when there is nothing more to do
    budget = adaptive.ENDLESS  # gradients after which a call may return PAUSED, where steps take as many as they need

    def begin(self, network):
        """Called before the first step of a new run, with the network that `train` was handed."""

    def advance(self, losses, step):
        """Make as many steps as `losses` is long, the first of which is number `step`; returns a status.

        Unless that is OK, those before the first NaN of `losses` are made.
        """
        raise NotImplementedError

    def stuck(self, step):
        """Why no step was made from `step`, where the loss is finite."""
        return status.MEANING[status.DIVERGED]

    def expand(self, params):
        """Write the layers into the flat vector `params`."""

    def state(self):
        """{name: array} that a checkpoint holds beside the layers."""
        return {}

    def restore(self, params, state):
        """Go on from the layers `params` and what `state` gave there."""
        raise NotImplementedError

    def snapshot(self, params):
        """Copies of both, for `restore`."""
        return params.copy(), {name: array.copy() for name, array in self.state().items()}

    def follow(self, other):
        """Go on counting where another trainer of the run has stopped."""

    def part_of_step(self, step):
        """How much of the step after `step` was made when a call was paused."""
        return 0.0

    def most(self, step):
        """How many steps one call may make from `step` on."""
        return ENDLESS

    def look(self, step):
        """Called after steps and before what is measured: is a stage of the training over? True asks for a commit."""
        return False

    def quantities(self, every):
        """What the trainer itself records at every `every`-th step."""
        return []

    def values(self):
        """The values of these now."""
        return []


class Whole(Trainer):
    """All layers, step by step, in the vector `params` itself."""

    def __init__(self, params, steps_of):
        self.params = params
        self._steps_of = steps_of

    def advance(self, losses, step):
        return self._steps_of(self.params, losses, step)

    def restore(self, params, state):
        self.params[:] = params

    def drawn_loss(self, step):
        """The loss of what a stochastic method would draw at `step`."""
        loss = np.empty(1, self.params.dtype)
        self._steps_of(self.params.copy(), loss, step)
        return loss[0]


class Adaptive(Trainer):
    """A flow whose steps an error estimate chooses; `params` are interpolated at the multiples of dt.

    The state is the point at which the integrator's current step began, and its clock (see `lrcore.adaptive`). After a
    call that was paused the clock is ahead of `params`; what it said there is kept for a record, which a resumed run
    makes again.
    """

    def __init__(self, problem, widths, params, flow, threads=1, device=CPU):
        dtype = params.dtype
        widths = layout.as_widths(widths)
        made = device.kernels.adaptive_rk_steps
        self.params = params
        self._state = adaptive.adaptive_state(params)
        self._dt = flow.dt
        self._noted = None  # what the clock said at `params`, after a pause
        pair = PAIRS[flow.scheme]
        goal = device.constant(problem.objective(dtype))
        state = self._state
        arrays = pair.astype(dtype)
        ridge = dtype.type(flow.ridge)

        def kernel(params, losses, step, work):
            numbers = adaptive.Flow(ridge, flow.dt, *flow.tolerances, step, self.budget)
            return made(params, widths, goal, numbers, arrays, losses, state, work)

        self._steps_of = together(kernel, device.workspace.thread_workspaces(widths, dtype, pair.stages, threads))

    def advance(self, losses, step):
        noted = self._now()
        code = self._steps_of(self.params, losses, step)
        paused_at_once = code == status.PAUSED and np.isnan(losses[0])
        self._noted = noted if paused_at_once else None
        return code

    def part_of_step(self, step):
        return max(0.0, self._state.clock[adaptive.TIME] / self._dt - step)

    def stuck(self, step):
        return f"no step of the integrator keeps the tolerance at t = {step * self._dt:g}, however small"

    def _now(self):
        """What the clock says at `params`."""
        return self._state.clock[RECORDED].copy() if self._noted is None else self._noted

    def state(self):
        noted = {} if self._noted is None else {"noted": self._noted}
        return {"base": self._state.base, "clock": self._state.clock, **noted}

    def restore(self, params, state):
        self.params[:] = params
        self._noted = state.get("noted")
        self._state.base[:], self._state.clock[:] = state["base"], state["clock"]
        self._state.clock[adaptive.READY] = 0  # the stages of the current step are made again

    def follow(self, other):
        self._state.clock[COUNTS] = other._state.clock[COUNTS]

    def quantities(self, every):
        numbers = {"evaluations": "i8", "rejections": "i8", "step_size": "f8"}
        return [Quantity(f"flow/{name}", (), kind, every) for name, kind in numbers.items()]

    def values(self):
        evaluations, rejections, size = self._now()
        return [int(evaluations), int(rejections), size]


@functools.singledispatch
def trainer_of(method, problem, widths, params, threads=1, device=CPU):
    """The Trainer of a run by `method`, whose layers are the flat vector `params`, which it may change in place.

    A method with steps of its own registers what makes them: `@trainer_of.register` for its class.
    """
    return Whole(params, steps_of(method, problem, widths, params.dtype, threads, device))


@trainer_of.register
def _(method: GradientFlow, problem, widths, params, threads=1, device=CPU):
    if method.fixed:
        return trainer_of.dispatch(Method)(method, problem, widths, params, threads, device)
    least = ROUNDING * np.finfo(params.dtype).eps
    accepted = f"at least {least:.2g} in {params.dtype}, where smaller errors are those of rounding"
    require(method.tolerances[0] >= least, "rtol", method.tolerances[0], accepted)
    return Adaptive(problem, widths, params, method, threads, device)
