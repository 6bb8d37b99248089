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
between two barriers.
"""

from typing import NamedTuple

import numpy as np

from lrcore import adaptive
from lrcore.adaptive import ACCEPTED, EVALUATIONS, FACTORS, NEXT, NOISE, READY, REJECTED, STEP, TIME, Flow, State
from lrcore.cpu._sums import inner
from lrcore.cpu._target import kernel, part
from lrcore.cpu._vector import noinline
from lrcore.cpu.gemm import Pointers, barrier, pointers, thread_range
from lrcore.cpu.objective import objective_forward, vector_field
from lrcore.cpu.step import PIECE, add_scaled, copy, stage_point
from lrcore.cpu.workspace import Workspace
from lrcore.objective import Objective
from lrcore.status import DIVERGED, OK, PAUSED

step_factor = part(adaptive.step_factor)
stable_size = part(adaptive.stable_size)
first_trial = part(adaptive.first_trial)
first_step = part(adaptive.first_step)


class _Integration(NamedTuple):
    """What all parts of a call work on: the flow, the pair (a, b, probes, dense), the state and the scratch."""

    widths: np.ndarray
    objective: Objective
    flow: Flow
    pair: tuple
    state: State
    work: Workspace
    ptrs: Pointers


@kernel
def adaptive_rk_steps(params, widths, objective, flow, pair, losses, state, work):
    """Gradient flow on an Objective, a step of the grid each, by a `tableau.Pair` as (a, b, error, dense).

    flow: an `adaptive.Flow`; state: the `adaptive.State` of this trajectory, on which `params` is at flow.first · dt.
    `params`, `losses` and `state` are written. Needs a workspace with as many stages as the pair, and the same one at
    each call, or clock[READY] = 0. DIVERGED also where no step both keeps the tolerance and moves time: then the loss
    is NaN and `params` the last grid point that was reached. PAUSED likewise, when flow.budget is spent: what is before
    the first NaN of `losses` is made, and a call for the rest goes on with the same bits.
    """
    ptrs = pointers(work)
    run = _Integration(widths, objective, flow, pair, state, work, ptrs)
    clock = state.clock
    begun = clock[EVALUATIONS]
    for k in range(losses.size):
        loss = objective_forward(params, widths, objective, flow.ridge, work, ptrs)
        losses[k] = loss
        if not np.isfinite(loss):
            return DIVERGED
        if clock[READY] == 0:
            _resume(run)
        grid_time = (flow.first + k + 1) * flow.dt
        while clock[TIME] + clock[STEP] < grid_time:
            if clock[EVALUATIONS] - begun >= flow.budget:
                losses[k] = np.nan
                return PAUSED
            if not _advance(run):
                losses[k] = np.nan
                return DIVERGED
        _interpolate(params, grid_time, run)
    return OK


@kernel
def _resume(run):
    """Fill the workspace: with the current step, or before the first with one of size 0, and choose the next size."""
    base = run.state.base
    clock = run.state.clock
    stages = run.work.stages
    a = run.pair[0]
    h = clock[STEP]
    proposed = clock[NEXT]
    evaluations = 0
    _evaluate_stages(np.intp(0), np.intp(1), h, run)
    if h > 0:
        _evaluate_stages(np.intp(1), a.shape[0], h, run)
    else:
        length = _norm(base, run)
        speed = _norm(stages[0], run)
        h = first_trial(length, speed)
        evaluations = 2
        _evaluate_stages(np.intp(1), np.intp(2), h, run)
        change = _zero_step(run) / (h * a[1, 0])
        proposed = first_step(h, speed, change, run.flow.atol + run.flow.rtol * length)
    if run.ptrs.thread_id == 0:
        clock[NEXT] = proposed
        clock[READY] = 1
        clock[EVALUATIONS] += evaluations
    barrier(run.ptrs)


@kernel
def _zero_step(run):
    """Make of the first slope a step of size 0, whose last slope and end are where it begins. Returns ‖k_2 − k_1‖."""
    base = run.state.base
    stages = run.work.stages
    first, last = thread_range(base.size, run.ptrs)
    slope = stages[0, first:last]
    changed = stages[1, first:last]
    add_scaled(base.dtype.type(-1), slope, changed, changed)
    copy(slope, stages[-1, first:last])
    copy(base[first:last], run.work.point[first:last])
    barrier(run.ptrs)
    return _norm(stages[1], run)


@kernel
def _advance(run):
    """The next step, as often tried as it takes to keep the tolerance; False when it cannot be made."""
    clock = run.state.clock
    a, _, probes, _ = run.pair
    t = clock[TIME] + clock[STEP]
    h = clock[NEXT]
    length = _begin_step(run)
    trials = 0
    step = 0.0
    accepted = False
    largest = FACTORS[-1]
    noise = NOISE * np.finfo(run.state.base.dtype).eps
    while not accepted and t < t + h < np.inf:
        _evaluate_stages(np.intp(1), a.shape[0], h, run)
        apart = _probe(h, probes[0], run)
        bent = _probe(1.0, probes[1], run)
        error = _probe(h, probes[2], run)
        reached = _norm(run.work.point, run)
        larger = reached if reached > length else length
        tolerance = run.flow.atol + run.flow.rtol * larger
        accepted = error <= tolerance < np.inf
        if accepted:
            step = h
        else:
            largest = 1.0  # right after a failure a step does not grow
        proposed = h * step_factor(error, tolerance, largest)
        h = stable_size(proposed, h, apart, bent, noise * larger)
        trials = trials + 1
    if run.ptrs.thread_id == 0:
        clock[TIME] = t
        clock[STEP] = step
        clock[NEXT] = h
        clock[EVALUATIONS] += trials * (a.shape[0] - 1)
        clock[REJECTED] += trials - accepted
        clock[ACCEPTED] += accepted
        clock[READY] = accepted  # what a failed trial leaves in the workspace is no step
    barrier(run.ptrs)
    return accepted


@kernel
def _begin_step(run):
    """The end of the last step becomes the base of the next, its last slope the first. Returns the norm of the base."""
    base = run.state.base
    stages = run.work.stages
    first, last = thread_range(base.size, run.ptrs)
    copy(run.work.point[first:last], base[first:last])
    copy(stages[run.pair[0].shape[0] - 1, first:last], stages[0, first:last])
    barrier(run.ptrs)
    return _norm(base, run)


@kernel
def _evaluate_stages(start, stop, h, run):
    """The slopes start … stop − 1 of a step of size h from `base`. The point of the last one is the step's end."""
    noinline()
    base = run.state.base
    work = run.work
    ridge = run.flow.ridge
    for s in range(start, stop):
        stage_point(base, base.dtype.type(h), run.pair[0], s, work, run.ptrs)
        objective_forward(work.point, run.widths, run.objective, ridge, work, run.ptrs)
        vector_field(work.point, run.widths, ridge, work.stages[s], run.ptrs)


@kernel
def _probe(h, probe, run):
    """‖h Σ probe_i k_i‖. The sum is made in the place of the second slope, which only the first probe reads."""
    stages = run.work.stages
    total = stages[1]
    step = probe.dtype.type(h)
    first, last = thread_range(total.size, run.ptrs)
    for start in range(first, last, PIECE):
        end = min(start + PIECE, last)
        piece = total[start:end]
        if probe[1] != 0:
            piece *= step * probe[1]
        else:
            piece[:] = 0
        for s in range(probe.size):
            if s != 1 and probe[s] != 0:
                add_scaled(step * probe[s], stages[s, start:end], piece, piece)
    barrier(run.ptrs)
    return _norm(total, run)


@kernel
def _interpolate(params, grid_time, run):
    """params = base + h Σ_i k_i Σ_j dense_ij θ^{j+1}, θ = (grid_time − t) / h, i ascending, each term rounded once."""
    dense = run.pair[3]
    base = run.state.base
    h = run.state.clock[STEP]
    theta = (grid_time - run.state.clock[TIME]) / h
    first, last = thread_range(params.size, run.ptrs)
    for start in range(first, last, PIECE):
        end = min(start + PIECE, last)
        piece = params[start:end]
        copy(base[start:end], piece)
        for s in range(dense.shape[0]):
            weight = (((dense[s, 3] * theta + dense[s, 2]) * theta + dense[s, 1]) * theta + dense[s, 0]) * theta
            if weight != 0:  # nor is the second slope read here
                add_scaled(params.dtype.type(h * weight), run.work.stages[s, start:end], piece, piece)
    barrier(run.ptrs)


@kernel
def _norm(x, run):
    """The root mean square of x in double precision, the same for all threads, which have waited for each other."""
    columns = run.work.columns
    if run.ptrs.thread_id == 0:
        columns[0] = np.sqrt(inner(x, x) / x.dtype.type(x.size))
    barrier(run.ptrs)
    norm = np.float64(columns[0])
    barrier(run.ptrs)
    return norm
