"""The adaptive flow: against the reference, exact solutions and SciPy; the same bits on any grid, in any calls."""

import hashlib
import itertools
import json
import signal

import numpy as np
import pytest
from scipy.integrate import RK45, solve_ivp

import lrbias as lb
from backends import ALL, CPU, REFERENCE, at_full_size, cases, everywhere
from conftest import ROOT
from lrbias import theory
from lrbias.system._progress import Silent
from lrbias.system._threads import together
from lrbias.training import _run as running
from lrcore import adaptive, cpu, layout, objective, reference, tableau
from lrcore.adaptive import ACCEPTED, EVALUATIONS, NEXT, READY, REJECTED, STEP, TIME, Flow
from lrcore.cpu import workspace
from lrcore.status import DIVERGED, OK, PAUSED
from networks import WIDTHS, make, relative
from runs import fingerprint, settings
from test_objective import SMALL, goals

DOPRI5 = tableau.DOPRI5
TIGHT = Flow(ridge=0.0, dt=0.1, rtol=1e-8, atol=1e-11, first=0)


def integrate(params, widths, goal, flow, steps, core=CPU):
    """(params, losses, clock) after one call from time 0; `params` stays as it is."""
    dtype = params.dtype
    found = params.copy()
    state = adaptive.adaptive_state(params)
    work = core.workspace.allocate(widths, dtype, stages=7)
    losses = np.empty(steps, dtype)
    flow = flow._replace(ridge=dtype.type(flow.ridge))
    assert core.adaptive_rk_steps(found, widths, goal, flow, DOPRI5.astype(dtype), losses, state, work) == OK
    return found, losses, state.clock


def whole(target):
    return objective.weighted(target, np.ones_like(target), target.dtype)


def test_the_pair_is_that_of_scipy():
    assert relative(DOPRI5.a[:6, :5], RK45.A) < 1e-15
    assert relative(DOPRI5.b, [*RK45.B, 0]) < 1e-15
    assert relative(DOPRI5.error, -RK45.E) < 1e-13  # of opposite sign there
    assert relative(DOPRI5.dense, RK45.P) < 1e-15
    assert tableau.PAIRS == {"dopri5": DOPRI5}
    assert "dopri5" not in tableau.TABLEAUS


def test_the_error_estimate_is_of_order_four_and_no_more():
    defects = tableau.order_conditions(DOPRI5.a, DOPRI5.b - DOPRI5.error)
    assert max(defects[order] for order in range(1, 5)) < 1e-14
    assert defects[5] > 1e-4
    assert tableau.order_conditions(tableau.RK4.a, tableau.RK4.b)[5] > 1e-3


@pytest.mark.parametrize("part", ["a", "b_hat", "dense"])
def test_a_pair_refuses_wrong_coefficients(part):
    rows = [row[: s + 1] for s, row in enumerate(DOPRI5.a[1:].copy())]
    b_hat = DOPRI5.b - DOPRI5.error
    dense = DOPRI5.dense.copy()
    assert tableau._embedded("again", rows, b_hat, dense).stages == 7
    if part == "dense":  # still right at both ends: (θ − 1)² θ² is 0 there with its slope
        dense[2, 1:] += [0.01, -0.02, 0.01]
    else:
        {"a": rows[4], "b_hat": b_hat}[part][2] += 1e-6
    with pytest.raises(AssertionError, match="not a pair"):
        tableau._embedded("wrong", rows, b_hat, dense)


def test_a_factor_is_the_largest_that_keeps_the_tolerance():
    largest = adaptive.FACTORS[-1]
    for error in np.geomspace(1e-6, 1e6, 200):
        factor = adaptive.step_factor(error, 1.0, largest)
        allowed = [f for f in adaptive.FACTORS if f**5 * error <= 0.9**5] or [0.2]
        assert factor == max(allowed)
        assert error <= 1 or factor < 1
    assert adaptive.step_factor(0.0, 0.0, largest) == largest
    assert adaptive.step_factor(0.0, 1.0, 1.0) == 1.0
    for error, tolerance in ((np.nan, 1.0), (np.inf, 1.0), (1.0, np.inf), (1.0, np.nan), (1.0, 0.0)):
        assert adaptive.step_factor(error, tolerance, largest) == 0.2


@pytest.mark.parametrize("kind", ["entries", "measurements"])
@cases("widths", SMALL, [(2, 3), (3, 1, 2)])
def test_steps_equal_the_reference(core, widths, kind):
    params, widths, target, _ = make(widths)
    steps, rtol = core.pick((30, 1e-8), (2, 1e-4))
    flow = TIGHT._replace(ridge=0.02, rtol=rtol)
    goal = goals(target)[kind]
    (found, losses, clock), (expected, expected_losses, expected_clock) = (
        integrate(params, widths, goal, flow, steps, side) for side in (core, REFERENCE)
    )
    assert relative(found, expected) < 1e-11
    assert relative(losses, expected_losses) < 1e-11
    assert clock[:READY] == pytest.approx(expected_clock[:READY], rel=1e-12)
    assert clock[TIME] < steps * flow.dt <= clock[TIME] + clock[STEP]


def test_float32_follows_double_precision(core):
    params, widths, target, _ = make(core.pick((7, 3, 5), (3, 1, 2)), np.float32)
    steps = core.pick(50, 2)
    flow = TIGHT._replace(ridge=0.01, rtol=1e-4, atol=1e-6)
    found, losses, clock = integrate(params, widths, goals(target)["entries"], flow, steps, core)
    expected, expected_losses, _ = integrate(params, widths, goals(target)["entries"], flow, steps, REFERENCE)
    assert found.dtype == losses.dtype == np.float32
    assert clock.dtype == np.float64
    assert relative(found, expected) < 1e-4
    assert relative(losses, expected_losses) < 1e-4
    double = params.astype(np.float64)
    goal = goals(target.astype(np.float64))["entries"]
    exact, _, _ = integrate(double, widths, goal, TIGHT._replace(ridge=0.01), steps)
    assert relative(found, exact) < 1e-3


def test_a_mode_follows_saxe_at_every_grid_point(core):
    """1 × 1 layers from √u_0: u' = 2u(s − u)."""
    value, (initial, steps) = 2.0, core.pick((1e-4, 60), (0.5, 3))
    params, widths = layout.flatten([np.full((1, 1), np.sqrt(initial))] * 2)
    _, losses, _ = integrate(params, widths, whole(np.full((1, 1), value)), TIGHT, steps, core)
    expected = np.array([theory.saxe(TIGHT.dt * k, value, initial) for k in range(steps)])
    assert np.abs(value - np.sqrt(2 * losses) - expected).max() < 2e-7


def test_without_data_the_weights_decay_exactly(core):
    params, widths, target, _ = make(core.pick((7, 3, 5), (2, 1, 2)))
    steps = core.pick(100, 4)
    goal = objective.weighted(target, np.zeros_like(target))
    flow = TIGHT._replace(ridge=0.3)
    found, losses, _ = integrate(params, widths, goal, flow, steps, core)
    decay = np.exp(-2 * 0.3 * flow.dt * np.arange(steps + 1))
    assert relative(found, decay[-1] * params) < 2e-7
    assert np.abs(losses / (0.3 * np.sum(params**2) * decay[:-1] ** 2) - 1).max() < 4e-7


@at_full_size
def test_the_error_is_proportional_to_the_tolerance(core):
    initial = 0.1
    errors = []
    tolerances = 10.0 ** -np.arange(3, 10.25, 0.25)
    params, widths = layout.flatten([np.full((1, 1), np.sqrt(initial))] * 2)
    expected = np.array([theory.saxe(0.05 * k, 1.0, initial) for k in range(100)])
    for rtol in tolerances:
        flow = TIGHT._replace(rtol=rtol, atol=0.0, dt=0.05)
        _, losses, _ = integrate(params, widths, whole(np.ones((1, 1))), flow, 100, core)
        errors.append(np.abs(1 - np.sqrt(2 * losses) - expected).max())
    assert np.polyfit(np.log(tolerances), np.log(errors), 1)[0] == pytest.approx(1, abs=0.2)
    assert (np.array(errors) < 20 * tolerances).all()


def test_one_step_has_order_five_at_its_end_and_four_inside(core):
    """The step is prescribed by a state; its local errors are O(h⁶) and O(h⁵)."""
    initial = 0.1
    sizes = 0.4 / 2.0 ** np.arange(4)
    inside = []
    end = []
    params, widths = layout.flatten([np.full((1, 1), np.sqrt(initial))] * 2)
    goal = whole(np.ones((1, 1)))
    pair = DOPRI5.astype(float)
    work = core.workspace.allocate(widths, stages=7)
    for h in sizes:
        state = adaptive.adaptive_state(params)
        point = params.copy()
        found = []
        state.clock[[STEP, NEXT]] = h
        for first in range(8):
            flow = TIGHT._replace(dt=h / 8, first=first)
            assert core.adaptive_rk_steps(point, widths, goal, flow, pair, np.empty(1), state, work) == OK
            found.append(point[0] * point[1])
        assert list(state.clock[[TIME, STEP, EVALUATIONS, ACCEPTED]]) == [0, h, 0, 0]
        errors = np.abs(found - np.array([theory.saxe(h * k / 8, 1.0, initial) for k in range(1, 9)]))
        inside.append(errors[:-1].max())
        end.append(errors[-1])
    slopes = np.diff(np.log([inside, end])) / -np.log(2)
    assert slopes[0, 1:] == pytest.approx(5, abs=0.2)
    assert slopes[1, 1:].min() > 5.6


@cases("rtol", [1e-5, 1e-7, 1e-9], [1e-5])
def test_balancedness_is_conserved_to_the_tolerance(core, rtol):
    params, widths, target, _ = make(core.pick((7, 3, 5), (2, 1, 2)))
    flow = TIGHT._replace(rtol=rtol, atol=rtol, dt=core.pick(0.1, 2.0))
    found, _, clock = integrate(params, widths, whole(target), flow, core.pick(100, 1), core)
    differences = []
    for point in (params, found):
        below, above = layout.layers(point, widths)
        differences.append(above.T @ above - below @ below.T)
    assert np.abs(found - params).max() > 0.3
    assert np.abs(differences[1] - differences[0]).max() < 0.3 * rtol * clock[ACCEPTED]


@cases("widths", [(7, 3, 5), (50, 20, 80, 30)], [(2, 3)])
def test_neither_grid_nor_calls_nor_a_new_workspace_change_bits(core, widths):
    """The whole in one call; the same in calls of different lengths; half the time step; saved and resumed."""
    params, widths, target, _ = make(widths)
    goal = goals(target)["entries"]
    pair = DOPRI5.astype(float)
    calls = core.pick([1, 0, 7, 16], [1, 0, 1])
    steps = sum(calls)
    tight = TIGHT._replace(rtol=core.pick(1e-8, 1e-3))
    expected, expected_losses, expected_clock = integrate(params, widths, goal, tight._replace(dt=0.2), steps, core)

    def run(lengths, dt, resume):
        found = params.copy()
        state = adaptive.adaptive_state(params)
        work = core.workspace.allocate(widths, stages=7)
        losses = np.full(sum(lengths), np.nan)
        first = 0
        for length in lengths:
            if resume:
                work = core.workspace.allocate(widths, stages=7)
                state = adaptive.State(*(part.copy() for part in state))
                state.clock[READY] = 0
                core.spoil(work)
            flow = tight._replace(dt=dt, first=first)
            part = losses[first : first + length]
            assert core.adaptive_rk_steps(found, widths, goal, flow, pair, part, state, work) == OK
            first += length
        return found, losses[:: len(losses) // steps], state.clock

    for lengths, dt, resume in (
        (calls, 0.2, False),
        ([1] * steps, 0.2, True),
        ([2 * steps], 0.1, False),
        (core.pick([5, 1, 1, 30, 11], [2, 1, 1]), 0.1, True),
    ):
        found, losses, clock = run(lengths, dt, resume)
        assert np.array_equal(found, expected)
        assert np.array_equal(losses, expected_losses)
        assert np.array_equal(clock, expected_clock)


def test_a_grid_point_at_the_end_of_a_step_belongs_to_that_step():
    """No step is made beyond it, and a grid that is finer or that stops there reads the same number."""
    params, widths, target, work = make((7, 3, 5), stages=7)
    found = []
    for parts in (1, 4):
        state = adaptive.adaptive_state(params)
        point = params.copy()
        state.clock[[STEP, NEXT]] = 0.25
        flow = TIGHT._replace(dt=0.25 / parts)
        cpu.adaptive_rk_steps(point, widths, whole(target), flow, DOPRI5.astype(float), np.empty(parts), state, work)
        assert list(state.clock[[TIME, STEP, ACCEPTED]]) == [0, 0.25, 0]
        assert relative(point, work.point) < 1e-15
        found.append(point)
    assert np.array_equal(*found)


def test_threads_make_the_same_bits():
    params, widths, target, _ = make(WIDTHS[0])
    goal = goals(target)["entries"]
    flow = TIGHT._replace(ridge=0.1)
    found = []
    for threads in (1, 2):
        point = params.copy()
        losses = np.empty(8)
        state = adaptive.adaptive_state(params)
        steps = together(
            lambda params, losses, _, work, state=state: cpu.adaptive_rk_steps(
                params, widths, goal, flow, DOPRI5.astype(float), losses, state, work
            ),
            workspace.thread_workspaces(widths, stages=7, threads=threads),
        )
        assert steps(point, losses) == OK
        found.append((point, losses, *state))
    for one, two in zip(*found, strict=True):
        assert np.array_equal(one, two)


def test_evaluations_are_counted(monkeypatch):
    """The reference is counted from outside: its gradients are those of the integrator and one for each loss."""
    params, widths, target, _ = make((7, 3, 5))
    calls = []
    gradient = reference.objective_loss_and_gradient

    def counted(*arguments):
        calls.append(arguments)
        return gradient(*arguments)

    monkeypatch.setattr("lrcore.reference.adaptive.objective_loss_and_gradient", counted)
    _, losses, expected = integrate(params, widths, whole(target), TIGHT._replace(rtol=1e-4), 200, REFERENCE)
    assert expected[EVALUATIONS] == len(calls) - losses.size
    assert expected[EVALUATIONS] == 2 + 6 * (expected[ACCEPTED] + expected[REJECTED])
    assert expected[REJECTED] > 0
    _, _, clock = integrate(params, widths, whole(target), TIGHT._replace(rtol=1e-4), 200)
    assert np.array_equal(clock[EVALUATIONS:READY], expected[EVALUATIONS:READY])


@at_full_size
def test_what_has_settled_stays_still(core):
    """An error estimate alone lets the step grow to where errors do not decay: gradients stay at the tolerance."""
    params, widths, target, work = make((5, 5, 5), core=core)
    goal = whole(target)
    gradient = np.empty_like(params)
    point, _, clock = integrate(params, widths, goal, TIGHT._replace(rtol=1e-3, dt=1.0), 2000, core)
    core.objective_loss_and_gradient(point, widths, goal, 0.0, gradient, work)
    assert np.abs(gradient).max() < 1e-12
    moved_gradient = np.empty_like(params)
    hessian = np.empty((params.size, params.size))
    for k in range(params.size):
        moved = point.copy()
        moved[k] += 1e-6
        core.objective_loss_and_gradient(moved, widths, goal, 0.0, moved_gradient, work)
        hessian[k] = (moved_gradient - gradient) / 1e-6
    sharpness = np.linalg.eigvalsh((hessian + hessian.T) / 2)[-1]
    assert 2.5 < clock[STEP] * sharpness < 3.31


@at_full_size
def test_a_plateau_is_crossed_with_few_gradients(core):
    """Depth 3 from layers 0.01·I, each mode is a scalar equation. RK4 with dt = 1e-3 needs 4 000 gradients a time."""
    values = np.array([3.0, 2.0])
    small = 0.01
    params, widths = layout.flatten([small * np.eye(2)] * 3)
    flow = TIGHT._replace(dt=1.0)
    product = np.empty((2, 2))
    for steps in (15, 60):
        found, losses, clock = integrate(params, widths, whole(np.diag(values)), flow, steps, core)
        core.product(found, widths, product, core.workspace.allocate(widths))
        expected = [theory.mode(float(steps), value, small**3, 3)[0] for value in values]
        assert relative(product, np.diag(expected)) < 1e-6
        assert clock[EVALUATIONS] < 4000 * steps / 40
    assert losses[10] > 6.4  # of 6.5 at the start
    assert losses[-1] < 1e-9


@everywhere
def test_a_call_that_is_paused_goes_on_with_the_same_bits(core):
    """It returns within a step of the grid, and between two; what is before the first NaN of the losses is made."""
    params, widths, target, _ = make(core.pick((7, 3, 5), (2, 3)))
    goal = goals(target)["entries"]
    pair = DOPRI5.astype(float)
    steps = core.pick(6, 2)
    flow = TIGHT._replace(dt=2.0, rtol=core.pick(1e-8, 1e-3), budget=8)
    made = 0
    codes = []
    expected, expected_losses, expected_clock = integrate(params, widths, goal, flow._replace(budget=1000), steps, core)
    found = params.copy()
    state = adaptive.adaptive_state(params)
    work = core.workspace.allocate(widths, stages=7)
    losses = np.full(steps, np.inf)
    while made < steps:
        part = losses[made:]
        now = flow._replace(first=made)
        codes.append(core.adaptive_rk_steps(found, widths, goal, now, pair, part, state, work))
        made = steps if codes[-1] == OK else made + int(np.argmin(np.isfinite(part)))
    assert set(codes) == {OK, PAUSED}
    assert len(codes) > 1 + (expected_clock[EVALUATIONS] - 2) // 18
    assert np.array_equal(found, expected)
    assert np.array_equal(losses, expected_losses)
    assert np.array_equal(state.clock[:READY], expected_clock[:READY])


class Ending(Silent):
    """A display that sends a signal at one of its updates."""

    def __init__(self, calls, step=0):
        self.left = calls
        self.first = step

    def update(self, step, loss, rank):
        self.left -= step >= self.first
        if self.left == 0:
            signal.raise_signal(signal.SIGTERM)


STIFF = lb.GradientFlow(dt=10.0, scheme="dopri5", ridge=1e3)  # tens of thousands of gradients in a step
GREEDY = lb.GLRL(inner=lb.GradientFlow(dt=3e3, scheme="dopri5"), check_every=1)


@pytest.mark.parametrize(("method", "calls", "first"), [(STIFF, 3, 0), (STIFF, 2, 1), (GREEDY, 3, 0)])
def test_an_interrupt_within_a_long_step_is_served_and_changes_no_bits(tmp_path, monkeypatch, method, calls, first):
    """At the given call from step `first` on: how many a step takes depends on the machine."""
    network = None if method.name == "glrl" else settings()["network"]
    record = lb.Record(every=1, metrics=("singular_values", "gradient_norm"))
    arguments = settings(4, network=network, method=method, record=record)
    with monkeypatch.context() as patch:
        patch.setattr(running, "display", lambda progress: Ending(calls, first))
        with pytest.raises(lb.Interrupted) as caught:
            lb.train(**arguments, store=tmp_path / "run")
    step = caught.value.run.step
    assert step == 0 if first == 0 else first <= step < 4
    assert fingerprint(lb.resume(tmp_path / "run")) == fingerprint(lb.train(**arguments))


def test_a_step_that_cannot_be_made_is_told(tmp_path):
    """The loss is finite there, the gradient is not."""
    network = lb.Network.from_layers([np.full((1, 1), weight) for weight in (1e149, 1e-149, 1e149)])
    method = lb.GradientFlow(dt=1.0, scheme="dopri5")
    run = lb.train(lb.Factorization(np.ones((1, 1))), network, method, 3, forecast=False, store=tmp_path / "run")
    assert (run.status, run.step) == ("diverged", 0)
    assert "no step of the integrator keeps the tolerance at t = 0" in run.detail


CANNOT = {"loss": ((np.nan, 1.0), 0.0), "gradient": ((1e300, 1e-200), 0.0), "time": ((1.0, 0.5), 1e21)}


@cases("what", list(CANNOT), ["loss", "time"], ALL)
def test_what_cannot_be_integrated_is_a_status(core, what):
    """A loss that is not finite; a finite one whose gradient is not; steps too small to be added to the time."""
    start, time = CANNOT[what]
    params, widths = layout.flatten([np.full((1, 1), weight) for weight in start])
    state = adaptive.adaptive_state(params)
    losses = np.full(5, -1.0)
    before = params.copy()
    state.clock[TIME] = time
    flow = TIGHT._replace(dt=1e6, first=int(time / 1e6))
    work = core.workspace.allocate(widths, stages=7)
    with np.errstate(all="ignore"):
        code = core.adaptive_rk_steps(
            params, widths, whole(np.ones((1, 1))), flow, DOPRI5.astype(float), losses, state, work
        )
    assert code == DIVERGED
    assert np.isnan(losses[0])
    assert (losses[1:] == -1).all()
    assert np.array_equal(params, before, equal_nan=True)
    assert list(state.clock[[TIME, STEP, ACCEPTED, READY]]) == [time, 0, 0, 0]


@cases("start", list(itertools.product([1e-4, 1e-1, 3.0], [1e-1, 1e-3, 1e-6])), [(3.0, 0.1)], ALL)
def test_a_trial_that_went_astray_says_nothing_about_stability(core, start):
    """Five layers whose product escapes from a plateau or falls steeply: a step may be tried that is far too long."""
    size, rtol = start
    params, widths = layout.flatten([np.full((1, 1), size)] * 5)
    flow = Flow(ridge=0.0, dt=0.1, rtol=rtol, atol=0.0, first=0)
    with np.errstate(all="ignore"):
        _, losses, clock = integrate(params, widths, whole(np.ones((1, 1))), flow, core.pick(200, 1), core)
    assert losses[-1] <= losses[0]
    assert 0 < clock[ACCEPTED] < 3000


@cases("proposed", [5.0, 10.0, 1e28, 1e60], [10.0, 1e60], ALL)
def test_a_trial_that_is_far_too_long_is_made_shorter(core, proposed):
    """w' = 1 − w from 3. Of the longer trials the numbers are finite and their squares are not, or neither is."""
    start, widths = layout.flatten([np.full((1, 1), 3.0)])
    goal = whole(np.ones((1, 1)))
    pair = DOPRI5.astype(float)
    losses = np.empty(core.pick(20, 2))
    clocks = []
    for side in (REFERENCE, core):
        params = start.copy()
        state = adaptive.adaptive_state(start)
        work = side.workspace.allocate(widths, stages=7)
        state.clock[[STEP, NEXT]] = 0.1, proposed
        with np.errstate(all="ignore"):
            assert side.adaptive_rk_steps(params, widths, goal, TIGHT, pair, losses, state, work) == OK
        assert params[0] == pytest.approx(1 + 2 * np.exp(-TIGHT.dt * losses.size), abs=1e-7)
        assert 0 < state.clock[REJECTED] < 100
        clocks.append(state.clock[:READY])
    assert clocks[1] == pytest.approx(clocks[0], rel=1e-9)


@everywhere
@pytest.mark.parametrize("point", [0.0, 2.0])
def test_where_the_gradient_is_zero_time_goes_on(core, point):
    """The saddle at zero and a minimum of (w_2 w_1 − 4)²: long steps, soon longer than the grid."""
    params, widths = layout.flatten([np.full((1, 1), point)] * 2)
    steps = core.pick(50, 2)
    flow = TIGHT._replace(dt=100.0)
    found, losses, clock = integrate(params, widths, whole(np.full((1, 1), 4.0)), flow, steps, core)
    assert np.array_equal(found, params)
    assert (losses == 0.5 * (point**2 - 4) ** 2).all()
    assert clock[TIME] + clock[STEP] >= 100 * steps
    assert clock[REJECTED] == 0
    assert clock[EVALUATIONS] < 120


@pytest.mark.parametrize("rtol", [1e-4, 1e-7])
def test_it_costs_what_scipy_costs(rtol):
    params, widths, target, work = make((6, 4, 5))
    gradient = np.empty_like(params)
    goal = whole(target)
    flow = TIGHT._replace(rtol=rtol, atol=1e-3 * rtol)

    def slope(_, point):
        cpu.objective_loss_and_gradient(point, widths, goal, 0.0, gradient, work)
        return -gradient

    other = solve_ivp(slope, (0.0, 10.0), params, rtol=rtol, atol=1e-3 * rtol)
    found, _, clock = integrate(params, widths, goal, flow, 100)
    assert relative(found, other.y[:, -1]) < 30 * rtol
    assert 0.5 < clock[EVALUATIONS] / other.nfev < 1.5


def flow_hash(core=CPU):
    """Of losses, parameters and clocks on entries and measurements, with a ridge; NumPy's stream is not in it."""
    digest = hashlib.sha256()
    for widths in ((4, 4), (7, 9, 5), (20, 23, 21, 20)):
        params = np.sin(np.arange(layout.size(widths))) / np.sqrt(max(widths))
        sizes = layout.as_widths(widths)
        shape = (widths[-1], widths[0])
        target = np.cos(np.arange(shape[0] * shape[1])).reshape(shape)
        matrices = np.sin(np.arange(3 * target.size)).reshape(3, *shape)
        for goal in (objective.weighted(target, np.abs(target)), objective.measured(matrices, np.arange(3.0))):
            found, losses, clock = integrate(params, sizes, goal, TIGHT._replace(ridge=0.01), 60, core)
            digest.update(found.tobytes() + losses.tobytes() + clock.tobytes())
    return digest.hexdigest()


@at_full_size
def test_the_golden_hash_of_the_adaptive_flow(core):
    assert flow_hash(core) == json.loads((ROOT / "tests/golden.json").read_text())["flow"]
