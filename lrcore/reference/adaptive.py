"""A flow whose steps an error estimate chooses (Dormand and Prince)."""

import numpy as np

from lrcore.adaptive import (
    ACCEPTED,
    EVALUATIONS,
    FACTORS,
    NEXT,
    NOISE,
    REJECTED,
    STEP,
    TIME,
    first_step,
    first_trial,
    stable_size,
    step_factor,
)
from lrcore.reference.objective import objective_loss_and_gradient
from lrcore.status import DIVERGED, OK, PAUSED


def adaptive_rk_steps(params, widths, objective, flow, pair, losses, state, work=None):
    """The slopes of the current step are not kept: every call makes them again, and leaves clock[READY] at 0."""

    def evaluate(point):
        gradient = np.empty_like(point)
        return objective_loss_and_gradient(point, widths, objective, flow.ridge, gradient), -gradient

    step = None
    begun = state.clock[EVALUATIONS]
    for k in range(losses.size):
        losses[k], _ = evaluate(params)
        if not np.isfinite(losses[k]):
            return DIVERGED
        if step is None:
            step = _resumed(evaluate, flow, pair, state)
        grid_time = (flow.first + k + 1) * flow.dt
        while state.clock[TIME] + state.clock[STEP] < grid_time:
            if state.clock[EVALUATIONS] - begun >= flow.budget:
                losses[k] = np.nan
                return PAUSED
            step = _next_step(evaluate, flow, pair, state, *step)
            if step is None:
                losses[k] = np.nan
                return DIVERGED
        dense = pair[3]
        theta = (grid_time - state.clock[TIME]) / state.clock[STEP]
        weights = dense @ theta ** np.arange(1, 5)
        params[:] = state.base + _combined(state.clock[STEP] * weights, step[0])
    return OK


def _resumed(evaluate, flow, pair, state):
    """The slopes of the current step and its end; before the first step those of one of size 0."""
    base, clock = state
    _, slope = evaluate(base)
    if clock[STEP] > 0:
        return _trial(evaluate, pair, base, slope, clock[STEP])
    length = _rms(base)
    speed = _rms(slope)
    h = first_trial(length, speed)
    soon = h * float(pair[0][1, 0])
    _, moved = evaluate(base + _combined([soon], [slope]))
    clock[NEXT] = first_step(h, speed, _rms(moved - slope) / soon, flow.atol + flow.rtol * length)
    clock[EVALUATIONS] += 2
    return [slope], base.copy()


def _next_step(evaluate, flow, pair, state, slopes, start):
    """As `_resumed`, of the step after the one with `slopes` that ended at `start`; None where it cannot be made."""
    state.base[:] = start
    clock = state.clock
    growth = FACTORS[-1]
    clock[TIME] = clock[TIME] + clock[STEP]
    clock[STEP] = 0
    while clock[TIME] < clock[TIME] + clock[NEXT] < np.inf:
        h = clock[NEXT]
        trial, end = _trial(evaluate, pair, start, slopes[-1], h)
        apart, bent, error = (
            _rms(_combined(factor * probe, trial)) for factor, probe in zip((h, 1, h), pair[2], strict=True)
        )
        length = max(_rms(start), _rms(end))
        tolerance = flow.atol + flow.rtol * length
        noise = NOISE * np.finfo(start.dtype).eps * length
        accepted = error <= tolerance < np.inf
        growth = growth if accepted else 1.0
        clock[NEXT] = stable_size(h * step_factor(error, tolerance, growth), h, apart, bent, noise)
        clock[EVALUATIONS] += len(trial) - 1
        clock[ACCEPTED if accepted else REJECTED] += 1
        if accepted:
            clock[STEP] = h
            return trial, end
    return None


def _trial(evaluate, pair, start, slope, h):
    """The slopes of a step of size h, the first one given, and its end, where the last one is."""
    slopes = [slope]
    for row in pair[0][1:]:
        end = start + _combined(h * row, slopes)
        slopes.append(evaluate(end)[1])
    return slopes, end


def _combined(weights, slopes):
    """Σ_i weights_i slopes_i in the type of the slopes."""
    return sum(slope.dtype.type(weight) * slope for weight, slope in zip(weights, slopes, strict=False))


def _rms(x):
    """The root mean square of a vector."""
    return float(np.sqrt(np.mean(x**2)))
