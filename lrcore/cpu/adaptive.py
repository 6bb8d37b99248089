"""Gradient flow with steps that a tolerance chooses: Dormand and Prince's pair, and dense output on a uniform grid.

```
  grid        t_k       t_{k+1}     t_{k+2}    t_{k+3}     params: read off a polynomial in each step
  ─────────────┼───────────┼───────────┼──────────┼──▶ t
  steps   ├──────────────┼────────────────────┼──────      base ─ slopes k_1 … k_7 ─▶ work.point
```

The steps know nothing of the grid, nor of how it is cut into calls: each is tried with the size that the last one
proposed, and made as soon as a grid point lies beyond the end of the current one. k_7 is the slope there, and so the
k_1 of the next step. A step costs six gradients however many grid points lie in it, each of these the loss alone.

Between calls the slopes stay in the workspace. A saved state is without them (clock[READY] = 0), and the first call
makes them again from `base`: at the same points, hence with the same bits.

Threads: all of them take the same decisions, from norms that thread 0 computes and from a clock that it alone writes,
between two meetings.
"""

import numpy as np

from lrcore import adaptive
from lrcore.adaptive import ACCEPTED, EVALUATIONS, FACTORS, NEXT, NOISE, READY, REJECTED, STEP, TIME
from lrcore.cpu._sums import inner
from lrcore.cpu._target import kernel, part
from lrcore.cpu._vector import stay_apart
from lrcore.cpu.gemm import meet, places_of, share
from lrcore.cpu.objective import _forward, _slope
from lrcore.cpu.step import PIECE, _add_scaled, _copy, _stage_point
from lrcore.status import DIVERGED, OK, PAUSED

step_factor = part(adaptive.step_factor)
stable_size = part(adaptive.stable_size)
first_trial = part(adaptive.first_trial)
first_step = part(adaptive.first_step)


@kernel
def adaptive_rk_steps(params, widths, objective, flow, pair, losses, state, work):
    """Gradient flow on an Objective, a step of the grid each, by a `tableau.Pair` as (a, b, error, dense).

    flow: an `adaptive.Flow`; state: the `adaptive.State` of this trajectory, on which `params` is at flow.first · dt.
    `params`, `losses` and `state` are written. Needs a workspace with as many stages as the pair, and the same one at
    each call, or clock[READY] = 0. DIVERGED also where no step both keeps the tolerance and moves time: then the loss
    is NaN and `params` the last grid point that was reached. PAUSED likewise, when flow.budget is spent: what is before
    the first NaN of `losses` is made, and a call for the rest goes on with the same bits.
    """
    places = places_of(work)
    clock = state.clock
    begun = clock[EVALUATIONS]
    for k in range(losses.size):
        loss = _forward(params, widths, objective, flow.ridge, work, places)
        losses[k] = loss
        if not np.isfinite(loss):
            return DIVERGED
        if clock[READY] == 0:
            _take_up(widths, objective, flow, pair, state, work, places)
        goal = (flow.first + k + 1) * flow.dt
        while clock[TIME] + clock[STEP] < goal:
            if clock[EVALUATIONS] - begun >= flow.budget:
                losses[k] = np.nan
                return PAUSED
            if not _advance(widths, objective, flow, pair, state, work, places):
                losses[k] = np.nan
                return DIVERGED
        _interpolate(params, goal, pair, state, work, places)
    return OK


@kernel
def _take_up(widths, objective, flow, pair, state, work, places):
    """Fill the workspace: with the current step, or before the first with one of size 0, and choose the next size."""
    (a, _, _, _), base, clock = pair, state.base, state.clock
    h = clock[STEP]
    proposed = clock[NEXT]
    made = 0
    _make_slopes(np.intp(0), np.intp(1), h, widths, objective, flow, a, base, work, places)
    if h > 0:
        _make_slopes(np.intp(1), a.shape[0], h, widths, objective, flow, a, base, work, places)
    else:
        length, speed = _norm(base, work, places), _norm(work.stages[0], work, places)
        h = first_trial(length, speed)
        made = 2
        _make_slopes(np.intp(1), np.intp(2), h, widths, objective, flow, a, base, work, places)
        change = _stand_still(base, work, places) / (h * a[1, 0])
        proposed = first_step(h, speed, change, flow.atol + flow.rtol * length)
    if places.part == 0:
        clock[NEXT] = proposed
        clock[READY] = 1
        clock[EVALUATIONS] += made
    meet(places)


@kernel
def _stand_still(base, work, places):
    """Make of the first slope a step of size 0, whose last slope and end are where it begins. Returns ‖k_2 − k_1‖."""
    stages, (first, last) = work.stages, share(base.size, places)
    slope, changed = stages[0, first:last], stages[1, first:last]
    _add_scaled(base.dtype.type(-1), slope, changed, changed)
    _copy(slope, stages[-1, first:last])
    _copy(base[first:last], work.point[first:last])
    meet(places)
    return _norm(stages[1], work, places)


@kernel
def _advance(widths, objective, flow, pair, state, work, places):
    """The next step, as often tried as it takes to keep the tolerance; False when it cannot be made."""
    (a, _, probes, _), base, clock = pair, state.base, state.clock
    t = clock[TIME] + clock[STEP]
    h = clock[NEXT]
    last_stage = a.shape[0] - 1
    first, last = share(base.size, places)
    _copy(work.point[first:last], base[first:last])
    _copy(work.stages[last_stage, first:last], work.stages[0, first:last])
    meet(places)
    length = _norm(base, work, places)
    trials = 0
    made = 0.0
    accepted = False
    largest = FACTORS[-1]
    noise = NOISE * np.finfo(base.dtype).eps
    while not accepted and t < t + h < np.inf:
        _make_slopes(np.intp(1), a.shape[0], h, widths, objective, flow, a, base, work, places)
        apart, bent = _probe(h, probes[0], work, places), _probe(1.0, probes[1], work, places)
        off = _probe(h, probes[2], work, places)
        reached = _norm(work.point, work, places)
        larger = reached if reached > length else length
        tolerance = flow.atol + flow.rtol * larger
        accepted = off <= tolerance < np.inf
        if accepted:
            made = h
        else:
            largest = 1.0  # right after a failure a step does not grow
        proposed = h * step_factor(off, tolerance, largest)
        h = stable_size(proposed, h, apart, bent, noise * larger)
        trials = trials + 1
    if places.part == 0:
        clock[TIME] = t
        clock[STEP] = made
        clock[NEXT] = h
        clock[EVALUATIONS] += trials * last_stage
        clock[REJECTED] += trials - accepted
        clock[ACCEPTED] += accepted
        clock[READY] = accepted  # what a failed trial leaves in the workspace is no step
    meet(places)
    return accepted


@kernel
def _make_slopes(start, stop, h, widths, objective, flow, a, base, work, places):
    """The slopes start … stop − 1 of a step of size h from `base`. The point of the last one is the step's end."""
    stay_apart()
    for s in range(start, stop):
        _stage_point(base, base.dtype.type(h), a, s, work, places)
        _forward(work.point, widths, objective, flow.ridge, work, places)
        _slope(work.point, widths, flow.ridge, work.stages[s], work, places)


@kernel
def _probe(h, probe, work, places):
    """‖h Σ probe_i k_i‖. The sum is made in the place of the second slope, which only the first probe reads."""
    total, step, (first, last) = work.stages[1], probe.dtype.type(h), share(work.point.size, places)
    for start in range(first, last, PIECE):
        end = min(start + PIECE, last)
        piece = total[start:end]
        if probe[1] != 0:
            piece *= step * probe[1]
        else:
            piece[:] = 0
        for s in range(probe.size):
            if s != 1 and probe[s] != 0:
                _add_scaled(step * probe[s], work.stages[s, start:end], piece, piece)
    meet(places)
    return _norm(total, work, places)


@kernel
def _interpolate(params, goal, pair, state, work, places):
    """params = base + h Σ_i k_i Σ_j dense_ij θ^{j+1} with θ = (goal − t) / h, i ascending, each term rounded once."""
    (_, _, _, dense), base, h = pair, state.base, state.clock[STEP]
    theta = (goal - state.clock[TIME]) / h
    first, last = share(params.size, places)
    for start in range(first, last, PIECE):
        end = min(start + PIECE, last)
        piece = params[start:end]
        _copy(base[start:end], piece)
        for s in range(dense.shape[0]):
            weight = (((dense[s, 3] * theta + dense[s, 2]) * theta + dense[s, 1]) * theta + dense[s, 0]) * theta
            if weight != 0:  # nor is the second slope read here
                _add_scaled(params.dtype.type(h * weight), work.stages[s, start:end], piece, piece)
    meet(places)


@kernel
def _norm(x, work, places):
    """The root mean square of x in double precision, the same for all threads of a run, which have met before."""
    if places.part == 0:
        work.columns[0] = np.sqrt(inner(x, x) / x.dtype.type(x.size))
    meet(places)
    norm = np.float64(work.columns[0])
    meet(places)
    return norm
