"""Gradient flow with steps that a tolerance chooses: that of `lrcore.cpu.adaptive`.

The device makes slopes, sums and norms; the host reads the norms of a trial and decides, with the functions that the
CPU compiles. That is one answer for six gradients, and none for the grid points within a step.
"""

import numpy as np

from lrcore.adaptive import (
    ACCEPTED,
    EVALUATIONS,
    FACTORS,
    NEXT,
    NOISE,
    READY,
    REJECTED,
    STEP,
    TIME,
    first_step,
    first_trial,
    stable_size,
    step_factor,
)
from lrcore.cuda._target import Integer, Numbers, copy_to_host, cuda, kernel
from lrcore.cuda.grid import ON_GRID
from lrcore.cuda.objective import objective_to_device
from lrcore.cuda.passes import ADD, COPY, FILL, SCALE, Dots, total_inner
from lrcore.cuda.steps import GRID_STEPS
from lrcore.status import DIVERGED, OK, PAUSED


@kernel()
def _inner(
    memory: Numbers,
    at: Integer,
    count: Integer,
    scratch: Numbers,
    start: Integer,
    num_partials: Integer,
    out: Numbers,
):
    """⟨x, x⟩ from its partial sums."""
    if cuda.threadIdx.x == 0:
        out[0] = total_inner(memory, at, memory, at, count, (scratch, start, num_partials))


class _Diverged(Exception):
    """A loss on the grid was not finite: what was launched after it did nothing."""


def adaptive_rk_steps(params, widths, objective, flow, pair, losses, state, work):
    """Gradient flow on an Objective, a step of the grid each, by a `tableau.Pair`.

    Parameters as for `lrcore.cpu.adaptive_rk_steps`. `params`, `losses` and `state` are written.
    """
    integration = _Integration(params, objective, flow, pair, losses, state, work)
    try:
        status = integration.run(losses)
    except _Diverged:
        status = DIVERGED
    copy_to_host(work.memory[work.base : work.base + params.size], state.base)
    copy_to_host(work.memory[: params.size], params)
    integration.fetch_losses(losses)
    return status


class _Integration:
    """A call of the kernel. Points and slopes are told by where they lie in the memory of the device."""

    def __init__(self, params, objective, flow, pair, losses, state, work):
        self.work = work
        self.flow = flow
        self.clock = state.clock
        self.number = params.dtype.type
        self.a, _, self.probes, self.dense = pair
        self.objective = objective_to_device(objective)
        self.count = params.size
        self.stages = len(self.a)
        self.epsilon = np.finfo(params.dtype).eps
        self.there = work.keep("losses", losses)
        self.square = work.keep("norm", np.empty(1, params.dtype))
        work.load(0, params)
        work.reset()
        if self.clock[READY] == 0:
            work.load(work.base, state.base)
        self.lost = None

    def run(self, losses):
        begun = self.clock[EVALUATIONS]
        for k in range(losses.size):
            GRID_STEPS.objective_loss(self.work.net, self.objective, self.flow.ridge, 0, self.there, k)
            if self.clock[READY] == 0:
                self._resume()
            grid_time = (self.flow.first + k + 1) * self.flow.dt
            while self.clock[TIME] + self.clock[STEP] < grid_time:
                if self.clock[EVALUATIONS] - begun >= self.flow.budget:
                    self.lost = k
                    return self.work.status() or PAUSED
                if not self._advance():
                    self.lost = k
                    return DIVERGED
            self._interpolate(grid_time)
        return self.work.status()

    def fetch_losses(self, losses):
        copy_to_host(self.there[: losses.size], losses)
        if self.lost is not None:
            losses[self.lost] = np.nan

    def _stage(self, s):
        return self.work.offsets.stages + s * self.count

    def _combine(self, kind, factor, x, base, out):
        ON_GRID.combine(self.work.memory, self.work.state, kind, self.count, self.number(factor), x, base, out)

    def _norm(self, at):
        """The root mean square of what lies there, as the CPU rounds it."""
        memory = self.work.memory
        scratch = self.objective.scratch
        partials = self.objective.num_partials
        start = self.objective.measurements * (partials + 2)
        square = np.empty(1, self.number)
        dots = Dots(at, 1, self.count, at, partials, start)
        ON_GRID.partial_dots(memory, self.work.state, memory, dots, scratch)
        _inner(1, 1, memory, at, self.count, scratch, start, partials, self.square)
        copy_to_host(self.square, square)
        if self.work.status() != OK:
            raise _Diverged
        return float(np.sqrt(square[0] / self.number(self.count)))

    def _resume(self):
        """Fill the memory: with the current step, or before the first with one of size 0, and choose the next size."""
        clock = self.clock
        h = clock[STEP]
        proposed = clock[NEXT]
        evaluations = 0
        self._evaluate_stages(0, 1, h)
        if h > 0:
            self._evaluate_stages(1, self.stages, h)
        else:
            length = self._norm(self.work.base)
            speed = self._norm(self._stage(0))
            h = first_trial(length, speed)
            evaluations = 2
            self._evaluate_stages(1, 2, h)
            change = self._zero_step() / (h * float(self.a[1, 0]))
            proposed = first_step(h, speed, change, self.flow.atol + self.flow.rtol * length)
        clock[NEXT] = proposed
        clock[READY] = 1
        clock[EVALUATIONS] += evaluations

    def _zero_step(self):
        """Make of the first slope a step of size 0, whose last slope and end are where it begins; ‖k_2 − k_1‖."""
        first = self._stage(0)
        second = self._stage(1)
        self._combine(ADD, -1, first, second, second)
        self._combine(COPY, 0, first, 0, self._stage(self.stages - 1))
        self._combine(COPY, 0, self.work.base, 0, self.work.offsets.point)
        return self._norm(second)

    def _advance(self):
        """The next step, as often tried as it takes to keep the tolerance; False when it cannot be made."""
        clock = self.clock
        work = self.work
        t = clock[TIME] + clock[STEP]
        h = clock[NEXT]
        last = self.stages - 1
        self._combine(COPY, 0, work.offsets.point, 0, work.base)
        self._combine(COPY, 0, self._stage(last), 0, self._stage(0))
        length = self._norm(work.base)
        trials = 0
        step = 0.0
        accepted = False
        largest = FACTORS[-1]
        while not accepted and t < t + h < np.inf:
            self._evaluate_stages(1, self.stages, h)
            apart = self._probe(h, self.probes[0])
            bent = self._probe(1.0, self.probes[1])
            error = self._probe(h, self.probes[2])
            reached = self._norm(work.offsets.point)
            larger = reached if reached > length else length
            tolerance = self.flow.atol + self.flow.rtol * larger
            accepted = error <= tolerance < np.inf
            if accepted:
                step = h
            else:
                largest = 1.0
            proposed = h * step_factor(error, tolerance, largest)
            h = stable_size(proposed, h, apart, bent, NOISE * self.epsilon * larger)
            trials = trials + 1
        clock[TIME] = t
        clock[STEP] = step
        clock[NEXT] = h
        clock[READY] = accepted
        clock[EVALUATIONS] += trials * last
        clock[REJECTED] += trials - accepted
        clock[ACCEPTED] += accepted
        return accepted

    def _evaluate_stages(self, start, stop, h):
        """The slopes start … stop − 1 of a step of size h from `base`. The point of the last one is the step's end."""
        work = self.work
        ridge = self.flow.ridge
        point = work.offsets.point
        rows = self.a.reshape(-1)
        for s in range(start, stop):
            GRID_STEPS.stage_point(work.net, self.number(h), rows, self.stages, s, work.base)
            GRID_STEPS.objective_loss(work.net, self.objective, ridge, point, self.there, -1)
            GRID_STEPS.vector_field(work.net, ridge, point, self._stage(s))

    def _probe(self, h, probe):
        """‖h Σ probe_i k_i‖. The sum is made in the place of the second slope, which only the first probe reads."""
        total = self._stage(1)
        step = self.number(h)
        if probe[1] != 0:
            self._combine(SCALE, step * probe[1], total, 0, total)
        else:
            self._combine(FILL, 0, 0, 0, total)
        for s in range(self.stages):
            if s != 1 and probe[s] != 0:
                self._combine(ADD, step * probe[s], self._stage(s), total, total)
        return self._norm(total)

    def _interpolate(self, grid_time):
        """params = base + h Σ_i k_i Σ_j dense_ij θ^{j+1}, θ = (grid_time − t) / h, i ascending, terms rounded once."""
        h = self.clock[STEP]
        dense = self.dense
        theta = (grid_time - self.clock[TIME]) / h
        self._combine(COPY, 0, self.work.base, 0, 0)
        for s in range(self.stages):
            weight = (((dense[s, 3] * theta + dense[s, 2]) * theta + dense[s, 1]) * theta + dense[s, 0]) * theta
            if weight != 0:
                self._combine(ADD, h * weight, self._stage(s), 0, 0)
