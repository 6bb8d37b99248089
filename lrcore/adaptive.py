"""An adaptive integrator as data: what is asked of it, what it keeps between calls, and how it chooses a step.

Only sums, products, quotients and square roots lead from errors to steps: powers, exponentials and logarithms of one
machine are not those of another. The functions at the end are compiled by each target.
"""

from typing import NamedTuple

import numpy as np

ENDLESS = 1 << 62


class Flow(NamedTuple):
    """dW_i/dt = −∇_i L − 2λ W_i at the times 0, dt, 2dt, …

    ridge  λ, of the dtype of the parameters
    dt     > 0, float; the integrator's own steps do not depend on it
    rtol   ≥ 0, float; an error of a step may have norm atol + rtol · (the norm of the parameters), norms being root
    atol   ≥ 0, float; mean squares over all of them. Not both 0
    first  the number of the first step of a call: it begins at time first · dt
    budget > 2: a call that has made so many gradients returns PAUSED before the next step of the integrator
    """

    ridge: float
    dt: float
    rtol: float
    atol: float
    first: int
    budget: int = ENDLESS


class State(NamedTuple):
    """What an integrator keeps between calls. With clock[READY] = 0 it can be saved and go on in another workspace.

    base   (P,)        the parameters at clock[TIME]
    clock  (7,) float64
    """

    base: np.ndarray
    clock: np.ndarray


# TIME        where the current step of the integrator begins
# STEP        its size h; 0 before the first one
# NEXT        the size with which the next one is tried
# EVALUATIONS, REJECTED, ACCEPTED   how many gradients, trials that failed, steps that were made
# READY       1 while the workspace holds the slopes of the current step and the point where it ends
TIME, STEP, NEXT, EVALUATIONS, REJECTED, ACCEPTED, READY = range(7)


def adaptive_state(params):
    """The State of a flow that starts at `params` (P,) and time 0; the parameters are copied."""
    return State(params.copy(), np.zeros(READY + 1))


SAFETY = 0.59049  # 0.9⁵
# Nothing between 1 and 1.1: where stability bounds the steps, they would creep over the bound and fail more often.
FACTORS = (0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)
FACTORS += (1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0)
STABLE = 3.0  # of h|λ|: a decaying mode is multiplied by 0.57 in a step then, and by 1 at 3.31
CREEP = 1.1
NOISE = 1000  # units in the last place


def step_factor(error, tolerance, largest):
    """The largest of FACTORS, up to `largest`, with which the next error is expected below 0.9⁵ · tolerance.

    An error of order h⁵ is expected. The smallest of FACTORS where none is enough, or something is not finite.
    """
    best = FACTORS[0]
    if tolerance < np.inf:
        for factor in FACTORS:
            if factor <= largest and factor * factor * factor * factor * factor * error <= SAFETY * tolerance:
                best = factor
    return best


def stable_size(proposed, h, apart, bent, noise):
    """`proposed`, the size of the step after one of size h, or less: what keeps explicit stages stable.

    The last two stages lie at the same time, `apart` from each other, and their slopes differ by `bent`: the ratio is
    the curvature |λ| along which the stages are spread, after a few steps the largest (Hairer and Wanner, IV.2). An
    error estimate alone lets h|λ| grow to where errors do not decay, so what has settled would tremble at the size of
    the tolerance for ever. Points no further apart than `noise`, which is rounding, say nothing: h then hardly grows.
    Nor do those of a trial that went astray say much: less than FACTORS[0] · h is never asked for.
    """
    if apart > noise:
        limit = STABLE * apart
        least = FACTORS[0] * h
        if proposed * bent > limit:
            proposed = limit / bent if limit / bent > least else least
        return proposed
    crept = CREEP * h
    return crept if apart > 0 and proposed > crept else proposed


def first_trial(length, speed):
    """The time in which parameters of norm `length` move by a twentieth of it; 1e-6 where that says nothing."""
    if length > 0 and speed > 0:
        h = 0.05 * length / speed
        if 0 < h < 1e100:
            return h
    return 1e-6


def first_step(h, speed, change, tolerance):
    """The size of the first step after Hairer, Nørsett and Wanner (II.4), to a factor of 2.

    speed: the norm of the slope; change: that of its change early in a `first_trial` h, per time. At most 20 h.
    """
    steepest = change if change > speed else speed
    h = 20 * h
    while h * h * h * h * h * steepest > 0.01 * tolerance:
        h = h / 2
    return h
