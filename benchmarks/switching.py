"""A prototype: dopri5 where accuracy bounds the step, RKC2 where stability does. Plain NumPy, for comparisons.

dopri5 is that of `lrcore.reference`, with its tolerances and its sizes. RKC2 (`chebyshev.py`) takes over after three
steps in a row for which the estimate of errors would have allowed more than 1.5 times what keeps them stable, dopri5
after two in a row that save less than a fifth of the gradients.
"""

from typing import NamedTuple

import chebyshev
import numpy as np

from lrcore import adaptive
from lrcore.tableau import DOPRI5

STIFF, PATIENCE = 1.5, 3
SAVES, DOUBTS = 0.8, 2
REST = 10  # steps of dopri5 before they are looked at again
BEGIN = 3.0  # RKC2's first step, in steps of dopri5
FRESH = 6  # gradients of a step
ROUNDING = 1e-12


class Trial(NamedTuple):
    """A step of dopri5: slopes (7, P), end (P,), its error in units of the tolerance.

    accurate, stable: the next size by the error alone, and the one that stability allows, too.
    """

    slopes: np.ndarray
    end: np.ndarray
    error: float
    accurate: float
    stable: float


def trial(slope, y, first, h, rtol, growth=adaptive.FACTORS[-1]):
    """The Trial of a step of size h from y, where the slope is `first`."""
    slopes = [first]
    with np.errstate(over="ignore", invalid="ignore"):  # a step that is far too long is tried again
        for row in DOPRI5.a[1:]:
            end = y + h * (row[: len(slopes)] @ slopes)
            slopes.append(slope(end))
        slopes = np.array(slopes)
        length = max(_rms(y), _rms(end))
        apart, bent, error = (_rms(probe @ slopes) for probe in DOPRI5.probes)
        accurate = h * adaptive.step_factor(h * error, rtol * length, growth)
        noise = adaptive.NOISE * np.finfo(float).eps * length
        stable = adaptive.stable_size(accurate, h, h * apart, bent, noise)
        stable = max(stable, adaptive.FACTORS[0] * h)  # stages that lie far away say nothing of |λ| here
        return Trial(slopes, end, h * error / (rtol * length), accurate, stable)


def _rms(x):
    return np.sqrt(np.mean(x**2))


class Trajectory(NamedTuple):
    """points (len(times), P); calls of the slope, of them `looks` for |λ| and `stabilised` in steps of RKC2.

    steps (made, 3): start, size and error (in units of the tolerance) of every step of dopri5; switches to RKC2.
    """

    points: np.ndarray
    calls: int
    looks: int
    stabilised: int
    steps: np.ndarray
    switches: int


class _Place:
    """Where an integration is, and what it has read off and counted on the way there."""

    def __init__(self, slope, y, times, rtol):
        self.slope = slope
        self.times = times
        self.points = [y]
        self.steps = []
        self.time = times[0]
        self.y = y
        self.first = slope(y)
        tried = adaptive.first_trial(_rms(y), _rms(self.first))  # the first size is chosen as in lrcore
        soon = tried * DOPRI5.a[1, 0]
        change = _rms(slope(y + soon * self.first) - self.first) / soon
        self.h = adaptive.first_step(tried, _rms(self.first), change, rtol * _rms(y))
        self.fresh, self.stabilised, self.switches = 2, 0, 0

    def done(self):
        return len(self.points) == len(self.times)

    def go(self, end, last, curve):
        """Make a step of size h; curve(θ) is a point of it."""
        while not self.done() and self.times[len(self.points)] <= self.time + self.h:
            self.points.append(curve((self.times[len(self.points)] - self.time) / self.h))
        self.time = self.time + self.h
        self.y = end
        self.first = last


def integrate(slope, y, times, rtol, share):
    """The Trajectory of y' = slope(y), read off at `times`.

    RKC2 works with rtol · share; where that is less than ROUNDING, all steps are those of dopri5.
    """
    place = _Place(slope, y, times, rtol)
    sharpness = chebyshev.Sharpness(slope, y.size)
    while not place.done():
        _fresh(place, rtol, rtol * share >= ROUNDING)
        if not place.done():
            _stabilised(place, sharpness, rtol * share)
    calls = place.fresh + place.stabilised + sharpness.calls
    steps = np.array(place.steps).reshape(-1, 3)
    return Trajectory(np.array(place.points), calls, sharpness.calls, place.stabilised, steps, place.switches)


def _fresh(place, rtol, may_switch):
    """Steps of dopri5 until stability bounds them."""
    stiff = -REST
    growth = adaptive.FACTORS[-1]
    while not place.done() and (stiff < PATIENCE or not may_switch):
        made = trial(place.slope, place.y, place.first, place.h, rtol, growth)
        h = place.h
        y = place.y
        place.fresh = place.fresh + FRESH
        growth = 1.0
        if made.error <= 1:
            place.steps.append((place.time, h, made.error))
            place.go(made.end, made.slopes[-1], lambda theta, y=y, h=h, k=made.slopes: y + h * _dense(theta) @ k)
            growth = adaptive.FACTORS[-1]
            stiff = stiff + 1 if made.accurate > STIFF * made.stable or stiff < 0 else 0
        place.h = made.stable


def _dense(theta):
    return DOPRI5.dense @ theta ** np.arange(1, 5)


def _stabilised(place, sharpness, rtol):
    """Steps of RKC2 until they save too little."""
    doubts, since, place.h, place.switches = 0, chebyshev.LOOK_AGAIN, BEGIN * place.h, place.switches + 1
    while not place.done() and doubts < DOUBTS:
        if since >= chebyshev.LOOK_AGAIN:
            largest = sharpness(place.y, place.first)
            since = 0
        made = chebyshev.trial(place.slope, place.y, place.first, place.h, largest, rtol)
        place.stabilised = place.stabilised + made.stages
        since = since + 1
        if made.error <= 1:
            place.go(made.end, made.last, made.curve)
        else:
            since = chebyshev.LOOK_AGAIN
        place.h = made.proposed
        bound = adaptive.STABLE * chebyshev.MARGIN / largest if largest else np.inf  # of a step of dopri5
        cheap = chebyshev.stages_for(place.h * largest) / place.h < SAVES * FRESH / bound
        doubts = 0 if cheap else doubts + 1
    place.h = min(place.h, bound)
