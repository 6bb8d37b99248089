"""Training kernels against the reference, against exact solutions, and against themselves cut into pieces."""

import itertools

import numpy as np
import pytest

from lrcore import cpu, layout, reference, tableau, workspace
from lrcore.status import DIVERGED, OK
from networks import WIDTHS, make, relative

RK4 = tableau.RK4


def _steps(side, name, params, widths, target, h, losses, work):
    if name == "gd":
        return side.gd_steps(params, widths, target, params.dtype.type(h), losses, work)
    a, b = RK4.astype(params.dtype)
    return side.rk_steps(params, widths, target, params.dtype.type(h), a, b, losses, work)


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("name", ["gd", "rk4"])
def test_a_thousand_steps_equal_the_reference(name, widths):
    params, widths, target, work = make(widths, stages=4)
    expected = params.copy()
    losses, expected_losses = np.empty(1000), np.empty(1000)
    assert _steps(cpu, name, params, widths, target, 1e-3, losses, work) == OK
    assert _steps(reference, name, expected, widths, target, 1e-3, expected_losses, None) == OK
    assert relative(params, expected) < 1e-12
    assert np.abs(losses / expected_losses - 1).max() < 1e-12


KUTTA_38 = ([[0, 0, 0, 0], [1 / 3, 0, 0, 0], [-1 / 3, 1, 0, 0], [1, -1, 1, 0]], [1 / 8, 3 / 8, 3 / 8, 1 / 8])
METHODS = {name: tableau.TABLEAUS[name].astype(np.float64) for name in ("euler", "heun", "rk4")}


@pytest.mark.parametrize("widths", [(7, 3, 5), (6, 5), (50, 20, 80, 30)], ids=str)
@pytest.mark.parametrize("name", [*METHODS, "3/8"])
def test_every_kind_of_runge_kutta_method_equals_the_reference(name, widths):
    """Kutta's 3/8 rule looks back to slopes before the last one, so it stores them; the others store none."""
    a, b = METHODS.get(name, [np.array(part, np.float64) for part in KUTTA_38])
    params, widths, target, work = make(widths, stages=len(b))
    expected, losses, expected_losses = params.copy(), np.empty(300), np.empty(300)
    assert cpu.rk_steps(params, widths, target, 1e-2, a, b, losses, work) == OK
    assert reference.rk_steps(expected, widths, target, 1e-2, a, b, expected_losses) == OK
    assert relative(params, expected) < 1e-12
    assert relative(losses, expected_losses) < 1e-12


def test_one_euler_step_is_one_of_gd_bit_for_bit():
    params, widths, target, work = make((9, 4, 30), stages=1)
    flowed, losses = params.copy(), np.empty(50)
    cpu.gd_steps(params, widths, target, 1e-2, losses, work)
    cpu.rk_steps(flowed, widths, target, 1e-2, *METHODS["euler"], losses, work)
    assert np.array_equal(params, flowed)


@pytest.mark.parametrize("name", ["gd", "rk4"])
def test_float32_follows_the_reference(name):
    params, widths, target, work = make((7, 3, 5), np.float32, stages=4)
    expected, losses, expected_losses = params.copy(), np.empty(500, np.float32), np.empty(500, np.float32)
    _steps(cpu, name, params, widths, target, 1e-2, losses, work)
    _steps(reference, name, expected, widths, target, 1e-2, expected_losses, None)
    assert relative(params, expected) < 1e-5
    assert relative(losses, expected_losses) < 1e-5


@pytest.mark.parametrize("name", ["gd", "rk4"])
@pytest.mark.parametrize("widths", WIDTHS[:5], ids=str)
def test_chunks_do_not_change_bits(name, widths):
    params, widths, target, work = make(widths, stages=4)
    whole, losses = params.copy(), np.empty(60)
    _steps(cpu, name, whole, widths, target, 1e-2, losses, work)
    pieces = []
    for length in (1, 7, 30, 22):
        part = np.empty(length)
        fresh = workspace.allocate(widths, stages=4)
        for buffer in fresh[:-4]:
            buffer.fill(np.nan)  # nothing may be carried along in scratch
        _steps(cpu, name, params, widths, target, 1e-2, part, fresh)
        pieces.append(part)
    assert np.array_equal(params, whole)
    assert np.array_equal(np.concatenate(pieces), losses)


@pytest.mark.parametrize("name", ["gd", "rk4"])
def test_divergence_is_a_status(name):
    params, widths, target, work = make((5, 5, 5), stages=4)
    losses = np.full(200, -1.0)
    assert _steps(cpu, name, params, widths, target, 10.0, losses, work) == DIVERGED
    first_bad = int(np.argmin(np.isfinite(losses)))
    assert not np.isfinite(losses[first_bad])
    assert (losses[:first_bad] >= 0).all()
    assert (losses[first_bad + 1 :] == -1).all()


def _slope(steps, errors):
    return np.polyfit(np.log(1 / np.array(steps)), np.log(errors), 1)[0]


def _integrate(name, params, widths, target, time, steps):
    params, losses = params.copy(), np.empty(steps)
    assert _steps(cpu, name, params, widths, target, time / steps, losses, workspace.allocate(widths, stages=4)) == OK
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


ORDERS = [("gd", (400, 800, 1600, 3200, 6400), 1.0, 0.05), ("rk4", (40, 60, 80, 120, 160), 4.0, 0.1)]


@pytest.mark.parametrize(("name", "steps", "order", "tolerance"), ORDERS)
def test_order_against_the_exact_symmetric_flow(name, steps, order, tolerance, rng):
    basis, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    h = basis @ np.diag([3.0, 2.0, 1.0, 0.5, -0.7]) @ basis.T
    x0 = 0.3 * rng.normal(size=(5, 4))
    params, widths = layout.flatten([x0.T, x0])
    expected = exact_symmetric_flow(h, x0, 2.0)
    errors = [np.linalg.norm(_product(_integrate(name, params, widths, h, 2.0, k), widths) - expected) for k in steps]
    assert _slope(steps, errors) == pytest.approx(order, abs=tolerance)


@pytest.mark.parametrize(("name", "steps", "order", "tolerance"), ORDERS)
def test_order_against_saxes_curves(name, steps, order, tolerance, rng):
    """Balanced, aligned, rectangular: every mode follows u(t) = s e^{2st} / (e^{2st} − 1 + s/u_0)."""
    from lrbias.theory import saxe

    left, right = (np.linalg.qr(rng.normal(size=(n, 3)))[0] for n in (6, 4))
    values, initial, time = np.array([2.0, 1.2, 0.6]), np.array([0.05, 0.03, 0.1]), 2.5
    params, widths = layout.flatten([np.diag(np.sqrt(initial)) @ right.T, left @ np.diag(np.sqrt(initial))])
    target = left @ np.diag(values) @ right.T
    expected = [saxe(time, s, u) for s, u in zip(values, initial, strict=True)]
    errors = []
    for k in steps:
        product = _product(_integrate(name, params, widths, target, time, k), widths)
        errors.append(np.linalg.norm(np.diag(left.T @ product @ right) - expected))
    assert _slope(steps, errors) == pytest.approx(order, abs=tolerance)


def test_deep_modes_follow_their_scalar_equation():
    """N = 4, balanced and aligned: du/dt = N u^{2−2/N}(s − u), solved by SciPy to 1e-12."""
    from scipy.integrate import solve_ivp

    depth, value, initial, time = 4, 1.5, 0.2, 3.0
    equation = solve_ivp(
        lambda t, u: depth * u ** (2 - 2 / depth) * (value - u), (0, time), [initial], rtol=1e-12, atol=1e-14
    )
    params, widths = layout.flatten([np.array([[initial ** (1 / depth)]])] * depth)
    final = _integrate("rk4", params, widths, np.array([[value]]), time, 3000)
    assert _product(final, widths)[0, 0] == pytest.approx(equation.y[0, -1], rel=1e-9)


def test_rk4_conserves_balancedness_to_fourth_order():
    params, widths, target, work = make((4, 6, 5, 3), stages=4)
    start, end = np.empty(2), np.empty(2)
    drifts = []
    for steps in (20, 30, 40, 60, 80):
        final = _integrate("rk4", params, widths, target, 2.0, steps)
        grams = []
        for point in (params, final):
            layers = layout.layers(point, widths)
            grams.append([above.T @ above - below @ below.T for below, above in itertools.pairwise(layers)])
        drifts.append(max(np.linalg.norm(b - a) for a, b in zip(*grams, strict=True)))
    assert _slope((20, 30, 40, 60, 80), drifts) > 3.9
    cpu.balancedness(params, widths, start, work)
    cpu.balancedness(final, widths, end, work)
    assert np.abs(end - start).max() < 1e-5


def test_gd_drifts_in_balancedness_with_the_first_power_of_its_step():
    params, widths, target, work = make((4, 6, 5, 3))
    start = np.empty(2)
    cpu.balancedness(params, widths, start, work)
    drifts = []
    for steps in (200, 400, 800, 1600):
        end = np.empty(2)
        cpu.balancedness(_integrate("gd", params, widths, target, 2.0, steps), widths, end, work)
        drifts.append(np.abs(end - start).max())
    assert _slope((200, 400, 800, 1600), drifts) == pytest.approx(1.0, abs=0.1)
