"""Gradient flow with steps that a tolerance chooses: the twin of `lrcore.cpu.adaptive`.

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
from lrcore.cuda._target import cuda, fetch, kernel
from lrcore.cuda.grid import on_grid as parts
from lrcore.cuda.objective import as_goal
from lrcore.cuda.passes import ADD, COPY, FILL, SCALE, inner_total
from lrcore.cuda.programs import on_grid
from lrcore.status import DIVERGED, OK, PAUSED


@kernel("xnnxnnx")
def _inner(memory, at, count, scratch, parts, start, out):
    """⟨x, x⟩ from its partial sums."""
    if cuda.threadIdx.x == 0:
        out[0] = inner_total(memory, at, memory, at, count, scratch, start, parts)


class _Diverged(Exception):
    """A loss on the grid was not finite: what was launched after it did nothing."""


def adaptive_rk_steps(params, widths, objective, flow, pair, losses, state, work):
    """Gradient flow on an Objective, a step of the grid each, by a `tableau.Pair`.

    Parameters as for `lrcore.cpu.adaptive_rk_steps`. `params`, `losses` and `state` are written.
    """
    run = _Flow(params, objective, flow, pair, losses, state, work)
    try:
        status = run.go(losses)
    except _Diverged:
        status = DIVERGED
    fetch(work.memory[work.base : work.base + params.size], state.base)
    fetch(work.memory[: params.size], params)
    run.fetch_losses(losses)
    return status


class _Flow:
    """A call of the kernel. Points and slopes are told by where they lie in the memory of the device."""

    def __init__(self, params, objective, flow, pair, losses, state, work):
        self.work = work
        self.flow = flow
        self.clock = state.clock
        self.number = params.dtype.type
        self.a, _, self.probes, self.dense = pair
        self.goal = as_goal(objective)
        self.count = params.size
        self.stages = len(self.a)
        self.epsilon = np.finfo(params.dtype).eps
        self.there, self.one = work.keep("losses", losses), work.keep("norm", np.empty(1, params.dtype))
        work.load(0, params)
        work.reset()
        if self.clock[READY] == 0:
            work.load(work.base, state.base)
        self.lost = None

    def go(self, losses):
        begun = self.clock[EVALUATIONS]
        for k in range(losses.size):
            ridge = self.flow.ridge
            arguments = self._arguments()
            on_grid.weigh(*arguments, self.goal, ridge, 0, self.there, k)
            if self.clock[READY] == 0:
                self._take_up()
            goal = (self.flow.first + k + 1) * self.flow.dt
            while self.clock[TIME] + self.clock[STEP] < goal:
                if self.clock[EVALUATIONS] - begun >= self.flow.budget:
                    self.lost = k
                    return self.work.status() or PAUSED
                if not self._advance():
                    self.lost = k
                    return DIVERGED
            self._interpolate(goal)
        return self.work.status()

    def fetch_losses(self, losses):
        fetch(self.there[: losses.size], losses)
        if self.lost is not None:
            losses[self.lost] = np.nan

    def _arguments(self):
        return self.work.memory, self.work.state, self.work.widths, self.work.places

    def _stage(self, s):
        return self.work.places.stages + s * self.count

    def _combine(self, kind, factor, x, base, out):
        parts.combine(self.work.memory, self.work.state, kind, self.count, self.number(factor), x, base, out)

    def _norm(self, at):
        """The root mean square of what lies there, as the CPU rounds it."""
        goal = self.goal
        memory = self.work.memory
        start = goal.measurements * (goal.parts + 2)
        found = np.empty(1, self.number)
        parts.project(memory, self.work.state, memory, at, 1, self.count, at, goal, start)
        _inner(1, 1, memory, at, self.count, goal.scratch, goal.parts, start, self.one)
        fetch(self.one, found)
        if self.work.status() != OK:
            raise _Diverged
        return float(np.sqrt(found[0] / self.number(self.count)))

    def _take_up(self):
        """Fill the memory: with the current step, or before the first with one of size 0, and choose the next size."""
        clock, work, flow = self.clock, self.work, self.flow
        h = clock[STEP]
        proposed = clock[NEXT]
        made = 0
        self._make_slopes(0, 1, h)
        if h > 0:
            self._make_slopes(1, self.stages, h)
        else:
            length, speed = self._norm(work.base), self._norm(self._stage(0))
            h = first_trial(length, speed)
            made = 2
            self._make_slopes(1, 2, h)
            change = self._stand_still() / (h * float(self.a[1, 0]))
            proposed = first_step(h, speed, change, flow.atol + flow.rtol * length)
        clock[NEXT] = proposed
        clock[READY] = 1
        clock[EVALUATIONS] += made

    def _stand_still(self):
        """Make of the first slope a step of size 0, whose last slope and end are where it begins; ‖k_2 − k_1‖."""
        first, second = self._stage(0), self._stage(1)
        self._combine(ADD, -1, first, second, second)
        self._combine(COPY, 0, first, 0, self._stage(self.stages - 1))
        self._combine(COPY, 0, self.work.base, 0, self.work.places.point)
        return self._norm(second)

    def _advance(self):
        """The next step, as often tried as it takes to keep the tolerance; False when it cannot be made."""
        clock, work, flow = self.clock, self.work, self.flow
        t = clock[TIME] + clock[STEP]
        h = clock[NEXT]
        last = self.stages - 1
        self._combine(COPY, 0, work.places.point, 0, work.base)
        self._combine(COPY, 0, self._stage(last), 0, self._stage(0))
        length = self._norm(work.base)
        trials = 0
        made = 0.0
        accepted = False
        largest = FACTORS[-1]
        while not accepted and t < t + h < np.inf:
            self._make_slopes(1, self.stages, h)
            apart, bent = self._probe(h, self.probes[0]), self._probe(1.0, self.probes[1])
            off = self._probe(h, self.probes[2])
            reached = self._norm(work.places.point)
            larger = reached if reached > length else length
            tolerance = flow.atol + flow.rtol * larger
            accepted = off <= tolerance < np.inf
            if accepted:
                made = h
            else:
                largest = 1.0
            proposed = h * step_factor(off, tolerance, largest)
            h = stable_size(proposed, h, apart, bent, NOISE * self.epsilon * larger)
            trials = trials + 1
        clock[TIME] = t
        clock[STEP] = made
        clock[NEXT] = h
        clock[READY] = accepted
        clock[EVALUATIONS] += trials * last
        clock[REJECTED] += trials - accepted
        clock[ACCEPTED] += accepted
        return accepted

    def _make_slopes(self, start, stop, h):
        """The slopes start … stop − 1 of a step of size h from `base`. The point of the last one is the step's end."""
        arguments = self._arguments()
        work = self.work
        ridge = self.flow.ridge
        point = work.places.point
        rows = self.a.reshape(-1)
        for s in range(start, stop):
            on_grid.stage_point(work.memory, work.state, work.places, self.number(h), rows, self.stages, s, work.base)
            on_grid.weigh(*arguments, self.goal, ridge, point, self.there, -1)
            on_grid.slope(*arguments, ridge, point, self._stage(s))

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

    def _interpolate(self, goal):
        """params = base + h Σ_i k_i Σ_j dense_ij θ^{j+1}, θ = (goal − t) / h, i ascending, each term rounded once."""
        h = self.clock[STEP]
        dense = self.dense
        theta = (goal - self.clock[TIME]) / h
        self._combine(COPY, 0, self.work.base, 0, 0)
        for s in range(self.stages):
            weight = (((dense[s, 3] * theta + dense[s, 2]) * theta + dense[s, 1]) * theta + dense[s, 0]) * theta
            if weight != 0:
                self._combine(ADD, h * weight, self._stage(s), 0, 0)
