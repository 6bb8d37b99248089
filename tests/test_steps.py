"""Training kernels against the reference, against exact solutions, and against themselves cut into pieces."""

import itertools

import numpy as np
import pytest

from backends import cases
from lrcore import layout, reference, tableau
from lrcore.status import DIVERGED, OK
from networks import WIDTHS, make, relative

RK4 = tableau.RK4
TINY = [(4, 4), (7, 3, 5), (1, 9, 2, 6), (3, 5, 1, 4, 2, 6), (1, 1)]
TOO_LARGE = [(6, 6, 6), (7, 5, 7)]  # for what is on chip in the simulator, the last one for one block, too


def _steps(side, name, params, widths, target, h, losses, work):
    if name == "gd":
        return side.gd_steps(params, widths, target, params.dtype.type(h), losses, work)
    return side.rk_steps(params, widths, target, params.dtype.type(h), RK4.astype(params.dtype), losses, work)


@cases("widths", WIDTHS, TINY + TOO_LARGE)
@pytest.mark.parametrize("name", ["gd", "rk4"])
def test_many_steps_equal_the_reference(core, name, widths):
    params, widths, target, work = make(widths, stages=4, core=core)
    expected = params.copy()
    losses, expected_losses = np.empty((2, core.pick(1000 if max(widths) < 100 else 250, 5)))
    assert _steps(core, name, params, widths, target, 1e-3, losses, work) == OK
    assert _steps(reference, name, expected, widths, target, 1e-3, expected_losses, None) == OK
    assert relative(params, expected) < 1e-12
    assert np.abs(losses / expected_losses - 1).max() < 1e-12


KUTTA_38 = (
    np.array([[0, 0, 0, 0], [1 / 3, 0, 0, 0], [-1 / 3, 1, 0, 0], [1, -1, 1, 0]]),
    np.array([1 / 8, 3 / 8, 3 / 8, 1 / 8]),
)
METHODS = {name: tableau.TABLEAUS[name].astype(np.float64) for name in ("euler", "heun", "rk4")}


@cases("widths", [(7, 3, 5), (6, 5), (50, 20, 80, 30)])
@pytest.mark.parametrize("name", [*METHODS, "3/8"])
def test_every_kind_of_runge_kutta_method_equals_the_reference(core, name, widths):
    """Kutta's 3/8 rule looks back to slopes before the last one, so it stores them; the others store none."""
    scheme = METHODS.get(name, KUTTA_38)
    params, widths, target, work = make(widths, stages=len(scheme[1]), core=core)
    expected, (losses, expected_losses) = params.copy(), np.empty((2, core.steps(300)))
    assert core.rk_steps(params, widths, target, 1e-2, scheme, losses, work) == OK
    assert reference.rk_steps(expected, widths, target, 1e-2, scheme, expected_losses) == OK
    assert relative(params, expected) < 1e-12
    assert relative(losses, expected_losses) < 1e-12


def test_one_euler_step_is_one_of_gd_bit_for_bit(core):
    params, widths, target, work = make(core.pick((9, 4, 30), (5, 3, 8)), stages=1, core=core)
    flowed = params.copy()
    losses = np.empty(core.steps(50))
    core.gd_steps(params, widths, target, 1e-2, losses, work)
    core.rk_steps(flowed, widths, target, 1e-2, METHODS["euler"], losses, work)
    assert np.array_equal(params, flowed)


@pytest.mark.parametrize("name", ["gd", "rk4"])
def test_float32_follows_the_reference(core, name):
    params, widths, target, work = make((7, 3, 5), np.float32, stages=4, core=core)
    expected, (losses, expected_losses) = params.copy(), np.empty((2, core.steps(500)), np.float32)
    _steps(core, name, params, widths, target, 1e-2, losses, work)
    _steps(reference, name, expected, widths, target, 1e-2, expected_losses, None)
    assert relative(params, expected) < 1e-5
    assert relative(losses, expected_losses) < 1e-5


@pytest.mark.parametrize("name", ["gd", "rk4"])
@cases("widths", WIDTHS[:5], [(4, 4), (1, 9, 2, 6), TOO_LARGE[1]])
def test_chunks_do_not_change_bits(core, name, widths):
    params, widths, target, work = make(widths, stages=4, core=core)
    lengths = core.pick((1, 7, 30, 22), (1, 2))
    whole = params.copy()
    losses = np.empty(sum(lengths))
    _steps(core, name, whole, widths, target, 1e-2, losses, work)
    pieces = []
    for length in lengths:
        part = np.empty(length)
        fresh = core.workspace.allocate(widths, stages=4)
        core.spoil(fresh)  # nothing may be carried along in scratch
        _steps(core, name, params, widths, target, 1e-2, part, fresh)
        pieces.append(part)
    assert np.array_equal(params, whole)
    assert np.array_equal(np.concatenate(pieces), losses)


@pytest.mark.parametrize("name", ["gd", "rk4"])
def test_divergence_is_a_status(core, name):
    params, widths, target, work = make((5, 5, 5), stages=4, core=core)
    losses = np.full(200, -1.0)
    assert _steps(core, name, params, widths, target, 10.0, losses, work) == DIVERGED
    first_bad = int(np.argmin(np.isfinite(losses)))
    assert not np.isfinite(losses[first_bad])
    assert (losses[:first_bad] >= 0).all()
    assert (losses[first_bad + 1 :] == -1).all()


def _slope(steps, errors):
    return np.polyfit(np.log(1 / np.array(steps)), np.log(errors), 1)[0]


def _integrate(core, name, params, widths, target, time, steps):
    params = params.copy()
    losses = np.empty(steps)
    work = core.workspace.allocate(widths, stages=4)
    assert _steps(core, name, params, widths, target, time / steps, losses, work) == OK
    return params


def _product(params, widths):
    out = np.empty((widths[-1], widths[0]))
    reference.product(params, widths, out)
    return out


def exact_symmetric_flow(h, x0, t):
    """Z = XXᵀ of Ẋ = (H − XXᵀ)X: e^{tH}X_0 (I + X_0ᵀ A_t X_0)^{-1} X_0ᵀ e^{tH}, A_t = 2∫_0^t e^{2sH} ds."""
    values, vectors = np.linalg.eigh(h)
    grown = vectors @ np.diag(np.exp(t * values)) @ vectors.T @ x0
    a = vectors @ np.diag(np.expm1(2 * t * values) / values) @ vectors.T
    return grown @ np.linalg.solve(np.eye(x0.shape[1]) + x0.T @ a @ x0, grown.T)


ORDERS = [
    ("gd", (400, 800, 1600, 3200, 6400), (20, 40, 80), 1.0, 0.05),
    ("rk4", (40, 60, 80, 120, 160), (8, 12, 16, 24), 4.0, 0.1),
]
each_order = pytest.mark.parametrize(("name", "many", "few", "order", "tolerance"), ORDERS, ids=["gd", "rk4"])


@each_order
def test_order_against_the_exact_symmetric_flow(core, name, many, few, order, tolerance, rng):
    steps, time = core.pick((many, 2.0), (few, 0.3))
    basis, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    h = basis @ np.diag([3.0, 2.0, 1.0, 0.5, -0.7]) @ basis.T
    x0 = 0.3 * rng.normal(size=(5, 4))
    params, widths = layout.flatten([x0.T, x0])
    expected = exact_symmetric_flow(h, x0, time)
    errors = []
    for k in steps:
        product = _product(_integrate(core, name, params, widths, h, time, k), widths)
        errors.append(np.linalg.norm(product - expected))
    assert _slope(steps, errors) == pytest.approx(order, abs=tolerance)


@each_order
def test_order_against_saxes_curves(core, name, many, few, order, tolerance, rng):
    """Balanced, aligned, rectangular: every mode follows u(t) = s e^{2st} / (e^{2st} − 1 + s/u_0)."""
    from lrbias.theory import saxe

    left, right = (np.linalg.qr(rng.normal(size=(n, 3)))[0] for n in (6, 4))
    steps, time = core.pick((many, 2.5), (few, 0.3))
    values, initial = np.array([2.0, 1.2, 0.6]), np.array([0.05, 0.03, 0.1])
    params, widths = layout.flatten([np.diag(np.sqrt(initial)) @ right.T, left @ np.diag(np.sqrt(initial))])
    target = left @ np.diag(values) @ right.T
    expected = [saxe(time, s, u) for s, u in zip(values, initial, strict=True)]
    errors = []
    for k in steps:
        product = _product(_integrate(core, name, params, widths, target, time, k), widths)
        errors.append(np.linalg.norm(np.diag(left.T @ product @ right) - expected))
    assert _slope(steps, errors) == pytest.approx(order, abs=tolerance)


def test_deep_modes_follow_their_scalar_equation(core):
    """N = 4, balanced and aligned: du/dt = N u^{2−2/N}(s − u), solved by SciPy to 1e-12."""
    from scipy.integrate import solve_ivp

    depth, value, initial, (steps, time) = 4, 1.5, 0.2, core.pick((3000, 3.0), (20, 0.2))
    equation = solve_ivp(
        lambda t, u: depth * u ** (2 - 2 / depth) * (value - u), (0, time), [initial], rtol=1e-12, atol=1e-14
    )
    params, widths = layout.flatten([np.array([[initial ** (1 / depth)]])] * depth)
    final = _integrate(core, "rk4", params, widths, np.array([[value]]), time, steps)
    assert _product(final, widths)[0, 0] == pytest.approx(equation.y[0, -1], rel=1e-9)


def test_rk4_conserves_balancedness_to_fourth_order(core):
    params, widths, target, work = make(core.pick((4, 6, 5, 3), (2, 4, 3, 2)), stages=4, core=core)
    start, end = np.empty(2), np.empty(2)
    counts, time = core.pick(((20, 30, 40, 60, 80), 2.0), ((4, 6, 8, 12), 0.4))
    drifts = []
    for steps in counts:
        final = _integrate(core, "rk4", params, widths, target, time, steps)
        grams = []
        for point in (params, final):
            layers = layout.layers(point, widths)
            grams.append([above.T @ above - below @ below.T for below, above in itertools.pairwise(layers)])
        drifts.append(max(np.linalg.norm(b - a) for a, b in zip(*grams, strict=True)))
    assert _slope(counts, drifts) > 3.9
    core.balancedness(params, widths, start, work)
    core.balancedness(final, widths, end, work)
    assert np.abs(end - start).max() < 1e-5


def test_gd_drifts_in_balancedness_with_the_first_power_of_its_step(core):
    params, widths, target, work = make(core.pick((4, 6, 5, 3), (2, 4, 3, 2)), core=core)
    start, (counts, time) = np.empty(2), core.pick(((200, 400, 800, 1600), 2.0), ((8, 16, 32), 0.08))
    core.balancedness(params, widths, start, work)
    drifts = []
    for steps in counts:
        end = np.empty(2)
        core.balancedness(_integrate(core, "gd", params, widths, target, time, steps), widths, end, work)
        drifts.append(np.abs(end - start).max())
    assert _slope(counts, drifts) == pytest.approx(1.0, abs=0.1)
