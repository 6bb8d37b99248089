"""The schemes that the adaptive flow is compared with (benchmarks/): RKC2, and dopri5 taking turns with it."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.polynomial.chebyshev import Chebyshev

from lrcore import adaptive, cpu, layout, reference
from lrcore.adaptive import ACCEPTED, EVALUATIONS, REJECTED
from lrcore.cpu import workspace
from lrcore.tableau import DOPRI5
from networks import make, relative
from test_adaptive import TIGHT, whole

BENCHMARKS = str(Path(__file__).resolve().parents[1] / "benchmarks")
LOGISTIC = 0.1  # w' = w (1 − w) from here


@pytest.fixture(scope="module")
def schemes():
    """The modules chebyshev and switching."""
    sys.path.append(BENCHMARKS)
    yield importlib.import_module("chebyshev"), importlib.import_module("switching")
    sys.path.remove(BENCHMARKS)


def logistic(w):
    return w * (1 - w)


def exact(t):
    return 1 / (1 + (1 / LOGISTIC - 1) * np.exp(-t))


def flow_of(widths):
    """(slope, parameters, target) of a small network; slope.calls counts."""
    params, widths, target, work = make(widths)
    gradient, place = np.empty_like(params), np.empty_like(params)

    def slope(y):
        slope.calls += 1
        place[:] = y
        cpu.loss_and_gradient(place, widths, target, gradient, work)
        return -gradient

    slope.calls = 0
    return slope, params, target


@pytest.mark.parametrize("stages", [2, 3, 4, 7, 30])
def test_a_step_multiplies_by_the_polynomial_of_the_paper(schemes, stages):
    """1 + T''/T'² · (T_s(w_0 + w_1 z) − T_s(w_0)) with w_1 = T'/T'': value, slope and curvature of exp at 0."""
    polynomial = Chebyshev.basis(stages)
    w0 = 1 + 2 / 13 / stages**2
    first = polynomial.deriv()(w0)
    second = polynomial.deriv(2)(w0)
    z = -np.linspace(0, 0.65 * stages**2, 200)
    expected = 1 + second / first**2 * (polynomial(w0 + first / second * z) - polynomial(w0))
    found = schemes[0].step(lambda y: z * y, np.ones_like(z), z, 1.0, stages)
    assert np.abs(found - expected).max() < 1e-12


@pytest.mark.parametrize("stages", [2, 3, 10, 51])
def test_the_stability_interval_is_that_of_the_paper(schemes, stages):
    stated = 2 / 3 * (stages**2 - 1) * (1 - 2 / 15 * 2 / 13)
    assert schemes[0].coefficients(stages).reach == pytest.approx(stated, rel=3e-3)
    assert stated < schemes[0].measured_reach(stages) < 1.2 * stated
    assert schemes[0].stages_for(schemes[0].coefficients(stages).reach) == stages
    assert schemes[0].stages_for(1.001 * schemes[0].coefficients(stages).reach) == stages + 1


@pytest.mark.parametrize("stages", [2, 5, 20])
def test_its_order_is_two(schemes, stages):
    errors = []
    for steps in (50, 100, 200):
        w = np.full(1, LOGISTIC)
        for _ in range(steps):
            w = schemes[0].step(logistic, w, logistic(w), 3 / steps, stages)
        errors.append(abs(w[0] - exact(3)))
    assert np.diff(np.log2(errors)) == pytest.approx(-2, abs=0.1)


def test_errors_fall_with_the_tolerance_between_steps_too(schemes):
    times = np.linspace(0, 30, 301)
    errors = []
    for rtol in (1e-4, 1e-6, 1e-8):
        found = schemes[0].integrate(logistic, np.full(1, LOGISTIC), times, rtol)
        assert found.sizes.max() > 2  # w = 1 is reached, stages follow
        errors.append(np.abs(found.points[:, 0] - exact(times)).max())
    assert (np.array(errors) < 100 * np.array([1e-4, 1e-6, 1e-8]) ** (2 / 3)).all()
    assert np.diff(np.log(errors)).max() < -np.log(10)


def test_the_largest_curvature_is_found(schemes):
    slope, params, _ = flow_of((4, 3, 5))
    size = params.size
    eye = np.eye(params.size)
    hessian = np.array([slope(params - 1e-6 * row) - slope(params + 1e-6 * row) for row in eye]) / 2e-6
    expected = np.abs(np.linalg.eigvalsh((hessian + hessian.T) / 2)).max()
    found = schemes[0].Sharpness(slope, size)(params, slope(params))
    assert 1.1 * expected < found < 1.21 * expected


@pytest.mark.parametrize("share", [0, 0.01])
def test_all_calls_are_counted(schemes, share):
    times = np.linspace(0, 20, 41)
    for index, arguments in ((0, ()), (1, (share,))):
        slope, params, _ = flow_of((4, 3, 5))
        found = schemes[index].integrate(slope, params, times, 1e-5, *arguments)
        assert found.calls == slope.calls
        assert 0 <= found.looks < found.calls


def test_without_turns_it_is_the_flow_of_lrcore(schemes):
    slope, params, target = flow_of((7, 3, 5))
    found = schemes[1].integrate(slope, params, np.linspace(0, 3, 31), TIGHT.rtol, 0)
    state = adaptive.adaptive_state(params)
    point = params.copy()
    flow = TIGHT._replace(atol=0.0)
    arrays = DOPRI5.astype(float)
    reference.adaptive_rk_steps(point, layout.as_widths((7, 3, 5)), whole(target), flow, arrays, np.empty(30), state)
    assert relative(found.points[-1], point) < 1e-12
    assert found.calls == state.clock[EVALUATIONS] == 2 + 6 * (state.clock[ACCEPTED] + state.clock[REJECTED])
    assert found.switches == found.stabilised == 0


def test_in_turns_what_has_settled_costs_little(schemes):
    slope, params, target = flow_of((4, 3, 5))
    times = np.linspace(0, 300, 61)
    widths = layout.as_widths((4, 3, 5))
    ends = []
    product = np.empty(target.shape)
    work = workspace.allocate(widths)
    plain, turns = (schemes[1].integrate(slope, params, times, 1e-6, share) for share in (0, 0.01))
    for found in (plain, turns):
        assert len(found.points) == len(times)
        cpu.product(found.points[-1], widths, product, work)
        ends.append(product.copy())
    assert turns.switches >= 1
    assert turns.calls < 0.4 * plain.calls
    assert relative(ends[1], ends[0]) < 1e-4
