"""Runge–Kutta–Chebyshev of order 2 with an error control: RKC2 of Sommeijer, Shampine and Verwer (1997).

A step of s stages is stable for −β(s) ≤ hλ ≤ 0 with β(s) ≈ 0.65 s², where s steps of Euler's reach 2s. So accuracy
chooses the length of a step and h|λ| the number of its stages. Made for spectra that lie close to the negative real
axis, as those of gradient flows do: their Jacobian is symmetric.

Plain NumPy, for comparisons: slopes are functions of a vector, every call of them is counted.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

DAMPING = 2 / 13
FEWEST, BEGIN = 2, 0.01  # stages; the first step, in times in which y would move by its own length
SAFETY, SHORTEST, LONGEST = 0.8, 0.1, 5.0  # of the step that the error of the last one suggests
MARGIN = 1.2  # these four are those of the authors' code
LOOK_AGAIN = 25
AGREED = 0.01
MOST_LOOKS = 50


class Coefficients(NamedTuple):
    """Y_j = (1 − μ_j − ν_j) y + μ_j Y_{j−1} + ν_j Y_{j−2} + h (slope_j f(Y_{j−1}) + first_j f(y)), each (s + 1,).

    Y_0 = y, Y_1 = y + h slope_1 f(y), and Y_s is where the step ends. reach: β(s).
    """

    mu: np.ndarray
    nu: np.ndarray
    slope: np.ndarray
    first: np.ndarray
    reach: float


@functools.cache
def coefficients(stages):
    """The Coefficients of a step of `stages` ≥ 2, from Chebyshev's T_j and its two derivatives at w_0 > 1."""
    w0, (t, dt, ddt) = 1 + DAMPING / stages**2, np.zeros((3, stages + 1))
    t[:2] = (1, w0)
    dt[1] = 1
    for j in range(2, stages + 1):
        t[j] = 2 * w0 * t[j - 1] - t[j - 2]
        dt[j] = 2 * w0 * dt[j - 1] - dt[j - 2] + 2 * t[j - 1]
        ddt[j] = 2 * w0 * ddt[j - 1] - ddt[j - 2] + 4 * dt[j - 1]
    w1 = dt[-1] / ddt[-1]
    b = np.empty(stages + 1)
    b[2:] = ddt[2:] / dt[2:] ** 2
    b[:2] = b[2]
    mu, nu, slope, first = np.zeros((4, stages + 1))
    slope[1] = b[1] * w1
    mu[2:] = 2 * w0 * b[2:] / b[1:-1]
    nu[2:] = -b[2:] / b[:-2]
    slope[2:] = 2 * w1 * b[2:] / b[1:-1]
    first[2:] = (b[1:-1] * t[1:-1] - 1) * slope[2:]
    return Coefficients(mu, nu, slope, first, (w0 + 1) / w1)


def stages_for(length):
    """The fewest stages whose reach β(s) is at least `length` = h|λ|."""
    stages = max(FEWEST, int(np.sqrt(length / 0.66)))
    while coefficients(stages).reach < length:
        stages += 1
    return stages


def step(slope, y, first, h, stages):
    """Where a step of size h from y ends, `first` being the slope there; calls `slope` stages − 1 times."""
    c = coefficients(stages)
    before = y
    now = y + h * c.slope[1] * first
    for j in range(2, stages + 1):
        slopes = c.slope[j] * slope(now) + c.first[j] * first
        before, now = now, (1 - c.mu[j] - c.nu[j]) * y + c.mu[j] * now + c.nu[j] * before + h * slopes
    return now


def measured_reach(stages):
    """How far |y_1 / y_0| ≤ 1 for y' = λy, in −hλ: steps at many points of the axis."""
    x = np.linspace(0, 1.2 * coefficients(stages).reach, 100_001)
    grows = np.abs(step(lambda y: -x * y, np.ones_like(x), -x, 1.0, stages)) > 1 + 1e-12
    return x[np.argmax(grows)]


class Sharpness:
    """|λ|, the largest of the Jacobian, by the power method on differences of slopes; counts its own calls.

    It starts from the direction that it found last, and stops where two results in a row agree to 1 %.
    """

    def __init__(self, slope, size):
        self._slope = slope
        self.calls = 0
        self._direction = np.random.default_rng(0).normal(size=size)

    def __call__(self, y, first):
        small = np.sqrt(np.finfo(float).eps) * max(np.linalg.norm(y), np.finfo(float).tiny)
        found = 0.0
        for _ in range(MOST_LOOKS):
            unit = self._direction / np.linalg.norm(self._direction)
            change = (self._slope(y + small * unit) - first) / small
            self.calls += 1
            last = found
            found = np.linalg.norm(change)
            if found == 0:
                break
            self._direction = change
            if abs(found - last) <= AGREED * found:
                break
        return MARGIN * found


class Trial(NamedTuple):
    """A step: its end, the slope there, its error in units of the tolerance, the next size, its stages, and a cubic
    curve(θ) through both ends, 0 ≤ θ ≤ 1. It called the slope `stages` times.
    """

    end: np.ndarray
    last: np.ndarray
    error: float
    proposed: float
    stages: int
    curve: Callable


def trial(slope, y, first, h, sharpness, rtol):
    """The Trial of a step of size h from y, where the slope is `first`; |λ| = `sharpness` asks for its stages.

    It is to be made where ‖0.8 (y_n − y_{n+1}) + 0.4 h (f_n + f_{n+1})‖ ≤ rtol · max(‖y_n‖, ‖y_{n+1}‖): error ≤ 1.
    """
    stages = stages_for(h * sharpness)
    end = step(slope, y, first, h, stages)
    last = slope(end)
    error = np.linalg.norm(0.8 * (y - end) + 0.4 * h * (first + last))
    error /= rtol * max(np.linalg.norm(y), np.linalg.norm(end))
    factor = SAFETY * error ** (-1 / 3) if 0 < error < np.inf else SHORTEST if error else LONGEST
    proposed = h * min(max(factor, SHORTEST), LONGEST if error <= 1 else 1.0)
    return Trial(end, last, error, proposed, stages, functools.partial(_between, h, (y, end), (first, last)))


class Trajectory(NamedTuple):
    """points (len(times), P); calls of the slope, of them `looks` for |λ|; starts, sizes h, stages s of all steps."""

    points: np.ndarray
    calls: int
    looks: int
    starts: np.ndarray
    sizes: np.ndarray
    stages: np.ndarray


def integrate(slope, y, times, rtol):
    """The Trajectory of y' = slope(y) from y at times[0], read off at `times`."""
    time = times[0]
    first = slope(y)
    points = [y]
    calls = 1
    sharpness = Sharpness(slope, y.size)
    made = []
    since = LOOK_AGAIN
    h = BEGIN * np.linalg.norm(y) / np.linalg.norm(first)
    while len(points) < len(times):
        if since >= LOOK_AGAIN:
            largest = sharpness(y, first)
            since = 0
        tried = trial(slope, y, first, h, largest, rtol)
        calls = calls + tried.stages
        since = since + 1
        if tried.error <= 1:
            made.append((time, h, tried.stages))
            while len(points) < len(times) and times[len(points)] <= time + h:
                points.append(tried.curve((times[len(points)] - time) / h))
            time = time + h
            y = tried.end
            first = tried.last
        else:
            since = LOOK_AGAIN
        h = tried.proposed
    return Trajectory(np.array(points), calls + sharpness.calls, sharpness.calls, *np.array(made).T)


def _between(h, ends, slopes, theta):
    """Hermite's cubic."""
    (y, end), (first, last) = ends, slopes
    rest = 1 - theta
    inner = (1 - 2 * theta) * (end - y) - rest * h * first + theta * h * last
    return rest * y + theta * end - theta * rest * inner
