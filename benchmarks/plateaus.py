"""Runs with plateaus on which integrators are compared, and what each of them needs for one.

The error of a run is the largest |σ_i(t) − σ_i^ref(t)| / σ̂_1 at the times of a grid. The reference is dopri5 at
rtol = 1e-13: at 1e-12 its own error still reaches 1e-10.
"""

from harness import sized  # isort: split

import functools
from dataclasses import dataclass
from typing import NamedTuple

import chebyshev
import numpy as np
import switching

import lrbias as lb
from lrcore import cpu, layout
from lrcore.cpu import workspace

VALUES = "product/singular_values"
REFERENCE = 1e-13
RK4_STABLE = 2.785  # of h|λ|, λ < 0
FINE = 50  # a largest dt is found to a fiftieth
SHARE = 1e-2  # of rtol: what RKC2 gets where it takes turns with dopri5
UNFIT = np.inf  # the error of a run that diverged


@dataclass(frozen=True, eq=False)
class Case:
    """A run to time `end`, compared at multiples of `grid`. RK4 makes its largest error before `settled`."""

    name: str
    target: np.ndarray
    network: lb.Network
    grid: float
    end: float
    settled: float

    @property
    def times(self):
        return self.grid * np.arange(round(self.end / self.grid) + 1)

    @property
    def top(self):
        """σ̂_1."""
        return np.linalg.norm(self.target, 2)

    @property
    def sharpness(self):
        """The largest curvature once σ_1 is learnt: N σ̂_1^{2 − 2/N}."""
        return self.network.depth * self.top ** (2 - 2 / self.network.depth)

    def slope(self):
        """A function of all layers as a vector: minus the gradient."""
        widths = layout.as_widths(self.network.widths)
        target = layout.aligned_copy(self.target, float)
        point, gradient = (layout.aligned_copy(self.network.params, float) for _ in range(2))
        work = workspace.allocate(widths)

        def slope(y):
            point[:] = y
            cpu.loss_and_gradient(point, widths, target, gradient, work)
            return -gradient

        return slope


USUAL = (
    Case(
        "protocol: n = 100, N = 3, rank 10",
        lb.teacher((100, 100), rank=10, depth=3, spectral_norm=10.0, seed=0),
        lb.Network.gaussian((100,) * 4, gamma=1.1, seed=1),
        grid=0.25,
        end=50.0,
        settled=7.0,
    ),
    Case(
        "n = 20, N = 2, layers of norm 1e-6",
        lb.from_singular_values((20, 20), [10, 3, 1, 0.3], seed=1),
        lb.Network.balanced((20,) * 3, 1e-6, seed=1),
        grid=0.25,
        end=60.0,
        settled=60.0,
    ),
    Case(
        "n = 10, N = 3, layers of norm 1e-2",
        lb.from_singular_values((10, 10), [10, 3, 1], seed=1),
        lb.Network.balanced((10,) * 4, 1e-2, seed=1),
        grid=0.5,
        end=200.0,
        settled=100.0,
    ),
    Case(
        "n = 10, N = 3, layers of norm 1e-3",
        lb.from_singular_values((10, 10), [10, 3, 1], seed=1),
        lb.Network.balanced((10,) * 4, 1e-3, seed=1),
        grid=0.5,
        end=1600.0,
        settled=700.0,
    ),
)
SMALL = Case(
    "n = 4, N = 2",
    lb.from_singular_values((4, 4), [3, 1], seed=1),
    lb.Network.balanced((4,) * 3, 1e-2, seed=1),
    grid=0.25,
    end=10.0,
    settled=10.0,
)
CASES = sized(USUAL, (SMALL,))


class Found(NamedTuple):
    """What a scheme needs for a run, and how well it does; `more` is what it has besides."""

    gradients: int
    error: float
    more: object


def trained(case, method, end, checkpoint_every=10**9):
    """The Run of `method` to time `end`, which records at multiples of the grid."""
    record = lb.Record(every=round(case.grid / method.dt), metrics=("singular_values",))
    steps = round(end / method.dt)
    given = {"checkpoint_every": checkpoint_every, "forecast": False, "compress": "off", "progress": False}
    return lb.train(lb.Factorization(case.target), case.network, method, steps, record, **given)


@functools.cache
def reference(case):
    """(times, n): the singular values."""
    return trained(case, lb.GradientFlow(dt=case.grid, scheme="dopri5", rtol=REFERENCE), case.end)[VALUES]


def error(case, found):
    """Of a Run, or of singular values, at the first times of the grid."""
    if isinstance(found, lb.Run):
        if found.status != "finished":
            return UNFIT
        found = found[VALUES]
    return np.abs(found - reference(case)[: len(found)]).max() / case.top


@functools.cache
def dopri5(case, rtol):
    """Found by lrbias; more: the Run."""
    run = trained(case, lb.GradientFlow(dt=case.grid, scheme="dopri5", rtol=rtol), case.end)
    return Found(int(run["flow/evaluations"][-1]), error(case, run), run)


@functools.cache
def rk4(case, parts):
    """Found by lrbias with dt = grid / parts: the error until `settled`, the gradients until `end`; more: dt."""
    run = trained(case, lb.GradientFlow(dt=case.grid / parts), case.settled)
    return Found(4 * parts * round(case.end / case.grid), error(case, run), case.grid / parts)


def largest_rk4(case, goal):
    """Found with the largest dt = grid / parts, to 2 %, whose error is at most `goal`.

    Errors are taken to fall with dt. A guess comes from the fourth power.
    """
    least = int(np.ceil(case.grid * case.sharpness / RK4_STABLE))
    parts = least
    bad = least - 1
    good = None
    while good is None or good - bad > max(1, good // FINE):
        found = rk4(case, parts)
        if found.error <= goal:
            good = parts
        else:
            bad = parts
        guess = 2 * parts if found.error == UNFIT else int(np.ceil(parts * (found.error / goal) ** 0.25))
        parts = max(guess, bad + 1)
        if good is not None:
            parts = max(min(parts, good - max(1, good // FINE)), bad + 1)
    return rk4(case, good)


def _values(case, points):
    """(times, n): singular values of the products of layers."""
    products = []
    for point in points:
        layers = layout.layers(point, case.network.widths)
        products.append(functools.reduce(lambda below, layer: layer @ below, layers))
    return np.linalg.svd(np.array(products), compute_uv=False)


@functools.cache
def rkc2(case, rtol):
    """Found by chebyshev.py; more: its Trajectory without the points."""
    found = chebyshev.integrate(case.slope(), case.network.params.copy(), case.times, rtol)
    return Found(found.calls, error(case, _values(case, found.points)), found._replace(points=None))


@functools.cache
def both(case, rtol, share=SHARE):
    """Found by switching.py; more: its Trajectory without the points."""
    found = switching.integrate(case.slope(), case.network.params.copy(), case.times, rtol, share)
    return Found(found.calls, error(case, _values(case, found.points)), found._replace(points=None))


@functools.cache
def scipy(case, name, rtol):
    """Found by a solver of SciPy with Jacobians from differences; gradients: all of them; more: LU decompositions."""
    from scipy.integrate import solve_ivp

    slope = case.slope()
    calls = []
    start = case.network.params

    def counted(t, y):
        calls.append(t)
        return slope(y)

    given = {"method": name, "t_eval": case.times, "rtol": rtol, "atol": rtol * np.sqrt(np.mean(start**2))}
    found = solve_ivp(counted, (0.0, case.end), start.copy(), **given)
    assert found.success, found.message
    return Found(len(calls), error(case, _values(case, found.y.T)), found.nlu)
