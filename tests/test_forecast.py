"""Forecasts against runs and against closed forms."""

import warnings

import numpy as np
import pytest

import lrbias as lb
from lrbias import theory
from lrbias.forecasts import _stability as stability
from lrbias.forecasts._escapes import Escape, escapes
from lrbias.metrics._hessian import Hessian
from runs import settings


def test_escapes_are_forecast_from_the_actual_start():
    """A small protocol: every mode within 15 % of when it is measured, in the measured order."""
    problem = lb.Factorization(lb.from_singular_values((30, 20), [5.0, 4.0, 3.0, 2.0], seed=1))
    network = lb.Network.gaussian((20, 30, 30, 30), gamma=1.4, seed=3)
    method = lb.GD(lr=5e-3)
    expected = lb.forecast(problem, network, method, 30_000)
    run = lb.train(problem, network, method, 30_000, lb.Record(metrics="mode_strengths"), forecast=False)
    measured = run.escape_steps()
    assert None not in measured
    assert np.allclose(expected.escape_steps, measured, rtol=0.15)
    assert measured == sorted(measured)


@pytest.mark.parametrize("depth", [2, 3])
def test_a_single_mode_is_forecast_exactly(depth):
    """One mode, balanced and aligned: the time from u_0 to s/2 has a closed form (depth 2) or a quadrature."""
    value, initial = 2.0, 1e-4
    layers = [np.array([[initial ** (1 / depth)]])] * depth
    network = lb.Network.from_layers(layers)
    problem = lb.Factorization([[value]])
    expected = lb.forecast(problem, network, lb.GD(lr=1e-3), 10_000).escape_steps[0] * 1e-3
    from scipy.integrate import quad

    exact = quad(lambda u: 1 / (depth * u ** (2 - 2 / depth) * (value - u)), initial, value / 2, limit=200)[0]
    assert expected == pytest.approx(exact, rel=5e-3)


def test_saxe_starts_at_its_start_and_ends_at_the_value():
    assert theory.saxe(0.0, 2.0, 0.1) == pytest.approx(0.1)
    assert theory.saxe(50.0, 2.0, 0.1) == pytest.approx(2.0)


@pytest.mark.parametrize(("depth", "limit"), [(2, 0.1), (3, 0.031), (4, 0.0158), (5, 0.01005)])
def test_stability_limits_of_the_protocol(depth, limit):
    assert theory.learning_rate_limit(10.0, depth) == pytest.approx(limit, rel=5e-3)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_gd_is_stable_below_the_limit_and_not_above(depth):
    """From next to a balanced minimum: distance shrinks below the limit and grows above it."""
    value = 3.0
    limit = theory.learning_rate_limit(value, depth)
    for factor, stable in ((0.98, True), (1.02, False)):
        layer = np.array([[value ** (1 / depth) * (1 + 1e-6)]])
        network = lb.Network.from_layers([layer] * depth)
        run = lb.train(
            lb.Factorization([[value]]), network, lb.GD(lr=factor * limit), 200, lb.Record(metrics=()), forecast=False
        )
        assert (run.losses[-1] < run.losses[0]) == stable


def test_warnings_of_unstable_and_hopeless_runs():
    arguments = settings(forecast=True)
    with pytest.warns(lb.ForecastWarning, match="stability limit"):
        lb.train(**{**arguments, "method": lb.GD(lr=0.4)})
    hopeless = lb.Network.gaussian((5, 7, 6), gamma=4, seed=2)
    with pytest.warns(lb.ForecastWarning, match="no mode is expected to escape within 20 steps"):
        lb.train(**{**arguments, "network": hopeless, "steps": 20})
    with pytest.warns(lb.ForecastWarning, match="target is zero"):
        lb.train(**{**arguments, "problem": lb.Factorization(np.zeros((6, 5)))})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lb.train(**arguments)


def test_size_on_disk_is_forecast(tmp_path):
    arguments = settings(2000, record=lb.Record(every=5), checkpoint_every=500)
    expected = lb.forecast(
        arguments["problem"], arguments["network"], arguments["method"], 2000, lb.Record(every=5), 500
    )
    lb.train(**arguments, store=tmp_path / "run")
    folders = (tmp_path / "run/log.zarr", tmp_path / "run/checkpoints")
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file() and file.name != "zarr.json"]
    assert expected.bytes == pytest.approx(sum(file.stat().st_size for file in files), rel=0.05)


def test_the_forecast_reads_well():
    arguments = settings()
    text = str(lb.forecast(arguments["problem"], arguments["network"], arguments["method"], 200))
    for words in ("expected time", "size on disk", "stable below", "escapes at step"):
        assert words in text


def _limits(problem, network, method):
    """The limits that a forecast tells: at the start, at a balanced minimum."""
    expected = lb.forecast(problem, network, method, 50, lb.Record(metrics=()))
    return expected.limit_at_start, expected.limit_at_minimum


def test_the_limit_at_a_large_start_is_that_of_its_curvature():
    """GD diverges at a step size that a balanced minimum would stand; the smaller limit is warned of."""
    problem = lb.Factorization(lb.from_singular_values((30, 30), [5.0, 4.0, 3.0], seed=1))
    network = lb.Network.gaussian((30,) * 4, gamma=0.3, seed=1)
    exact = 2 / Hessian(network.params, network.widths, problem.objective(np.float64)).end(1).values[0]
    start, minimum = _limits(problem, network, lb.GD(lr=0.05))
    assert start == pytest.approx(exact, rel=0.02)
    assert minimum == pytest.approx(2 / (3 * 5 ** (4 / 3)))
    assert start < 0.05 < minimum
    with pytest.warns(lb.ForecastWarning, match="the stability limit 2/λ at the start"):
        run = lb.train(problem, network, lb.GD(lr=0.05), 50, lb.Record(metrics=()))
    assert run.status == "diverged"
    assert run.step < 10


@pytest.mark.parametrize("scheme", ["euler", "heun", "rk4"])
def test_a_flow_has_the_limit_of_its_scheme(scheme):
    """Next to a minimum, from the two sides of the limit."""
    value, depth = 3.0, 2
    layers = [np.array([[value ** (1 / depth) * (1 + 1e-6)]])] * depth
    problem = lb.Factorization([[value]])
    network = lb.Network.from_layers(layers)
    start, minimum = _limits(problem, network, lb.GradientFlow(dt=0.1, scheme=scheme))
    assert minimum == pytest.approx({"euler": 2, "heun": 2, "rk4": 2.7852936}[scheme] / 6)
    assert start == pytest.approx(minimum, rel=1e-3)
    for factor, stable in ((0.98, True), (1.02, False)):
        method = lb.GradientFlow(dt=factor * minimum, scheme=scheme)
        run = lb.train(problem, network, method, 200, lb.Record(metrics=()), forecast=False)
        assert (run.losses[-1] < run.losses[0]) == stable
    assert _limits(problem, network, lb.GradientFlow(dt=0.1, scheme="dopri5")) == (None, None)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_limits_at_the_start_hold_for_every_loss(depth, ridge, rng):
    """Against the dense Hessian, with the ridge of the method and a scaled output."""
    target = rng.normal(size=(4, 5))
    problems = [
        lb.Factorization(target),
        lb.Completion(target, fraction=0.6, reduction="mean"),
        lb.Sensing(rng.normal(size=(7, 4, 5)), rng.normal(size=7)),
        lb.Regression(rng.normal(size=(30, 5)), rng.normal(size=(30, 4))),
    ]
    for problem, scale in zip(problems, (1.0, 2.0, 0.5, 3.0), strict=True):
        network = lb.Network.gaussian((5, *[6] * (depth - 1), 4), gamma=0.4, seed=depth).scaled(scale)
        goal = problem.scaled(scale).objective(np.float64)
        exact = Hessian(network.params, network.widths, goal, ridge).eigenvalues()[-1]
        found = stability.limits(problem, network, lb.GD(lr=0.01, ridge=ridge)).start
        assert found == pytest.approx(2 / exact, rel=0.01)


@pytest.mark.parametrize("ridge", [0.0, 0.01, 0.3, 2.0])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_limit_at_the_minimum_has_the_ridge(depth, ridge):
    """At a minimum that a fine flow has found."""
    problem = lb.Factorization(np.diag([3.0, 2.0, 1.0]))
    start = lb.Network.from_layers([np.diag([3.0, 2.0, 1.0]) ** (1 / depth)] * depth)
    method = lb.GradientFlow(dt=0.05, ridge=ridge)
    run = lb.train(problem, start, method, 2000, lb.Record(metrics=()), forecast=False)
    exact = Hessian(run.network.params, run.widths, problem.objective(np.float64), ridge).eigenvalues()[-1]
    assert stability.curvature_at_minimum(problem, depth, ridge) == pytest.approx(exact, rel=1e-3)


def test_the_limit_of_a_linearised_network_is_that_of_its_start():
    problem = lb.Factorization(np.diag([2.0, 1.0]))
    network = lb.Network.gaussian((2, 3, 2), gamma=0.2, seed=1).scaled(2)
    limit = lb.forecast(problem, network, lb.Linearized(lr=0.01), 10, lb.Record(metrics=())).step_size_limit
    for factor, stable in ((0.98, True), (1.02, False)):
        method = lb.Linearized(lr=factor * limit)
        run = lb.train(problem, network, method, 1500, lb.Record(metrics=()), forecast=False)
        assert (run.losses[-1] < run.losses[0]) == stable


def test_schedules_have_the_limit_of_their_largest_rate(small):
    problem, network, _ = small
    method = lb.GD(lr=0.4, lr_schedule="piecewise_constant:factor=0.1,milestones=5")
    assert _limits(problem, network, method) == _limits(problem, network, lb.GD(lr=0.4))
    with pytest.warns(lb.ForecastWarning, match=r"lr = 0\.4 is not below"):
        lb.train(problem, network, method, 10, lb.Record(metrics=()))


def test_what_rests_never_escapes():
    """A start of zeros, and a direction that no layer has: fixed points, at which forecasts did not end."""
    problem = lb.Factorization(np.diag([2.0, 1.0]))
    method = lb.GD(lr=0.01)
    nothing = lb.Network.from_layers([np.zeros((2, 2))] * 2)
    assert escapes(problem, nothing, 0.01, 1000, 2) == [Escape(None, "never")] * 2
    assert "never from this start" in str(lb.forecast(problem, nothing, method, 1000, lb.Record(metrics=())))
    half = lb.Network.from_layers([np.diag([0.1, 0.0])] * 2)
    first, second = escapes(problem, half, 0.01, 1000, 2)
    exact = theory.escape_time(2.0, 0.01, 2) / 0.01
    assert first.step == pytest.approx(exact, rel=0.01)
    assert second.outcome == "never"
    assert escapes(problem, lb.Network.from_layers([np.zeros((2, 2))]), 0.01, 1000, 2)[0].step == pytest.approx(
        69, abs=1
    )


def test_what_leaves_floating_point_is_not_known():
    problem = lb.Factorization(np.eye(5))
    huge = lb.Network.gaussian((5,) * 41, std=1e12, seed=1)
    expected = lb.forecast(problem, huge, lb.GD(lr=0.01), 1000, lb.Record(metrics=()))
    assert set(expected.outcomes) == {"unknown"}
    assert expected.limit_at_start is None
    assert "not known" in str(expected)


def test_a_flow_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr("lrbias.forecasts._escapes.MOST", 20)
    problem = lb.Factorization(np.eye(5))
    network = lb.Network.gaussian((5,) * 4, gamma=2, seed=1)
    assert {escape.outcome for escape in escapes(problem, network, 0.01, 1000, 5)} == {"unknown"}


@pytest.mark.parametrize("turned", [False, True])
def test_negative_eigenvalues_escape_from_perturbed_starts_alone(turned):
    """Chou et al.; with a λ and −λ whose space has any basis, too."""
    values = [8.0, -6, 4, -4] if turned else [8.0, -6, 4, -2]
    problem = lb.Factorization(lb.from_eigenvalues(6, values, seed=1))
    method = lb.GD(lr=0.002)
    record = lb.Record(every=1, metrics=("mode_strengths",))
    for network in (lb.Network.scaled_identity(6, 3, 0.2), lb.Network.perturbed(6, 3, 0.3, 0.1)):
        found = escapes(problem, network, 0.002, 3000, 4)
        run = lb.train(problem, network, method, 3000, record, forecast=False)
        for expected, measured in zip(found, run.escape_steps(), strict=True):
            if measured is None:
                assert expected == Escape(None, "never")
            else:
                assert abs(expected.step - measured) <= 0.02 * measured + 2


def _error_of_the_forecast(seed):
    """(modes, median and largest relative error of their escape steps) of a random run that is GD near its flow."""
    rng = np.random.default_rng(seed)
    depth, size, rank = rng.integers(2, 5), rng.integers(10, 31), rng.integers(2, 7)
    values = np.sort(rng.uniform(1, 6, rank))[::-1]
    problem = lb.Factorization(lb.from_singular_values((size, size), values, seed=seed))
    network = lb.Network.gaussian((size,) * (depth + 1), gamma=rng.uniform(0.9, 1.3), seed=seed + 1)
    method = lb.GD(lr=0.02 * theory.learning_rate_limit(values[0], depth))
    found = escapes(problem, network, method.lr, 100_000, rank)
    last = max(escape.step or 0 for escape in found)
    record = lb.Record(every=max(last // 2000, 1), metrics=("mode_strengths",))
    run = lb.train(problem, network, method, min(int(1.6 * last), 100_000), record, forecast=False)
    pairs = [(e.step, m) for e, m in zip(found, run.escape_steps(), strict=True) if e.step and m]
    return np.array([abs(expected - measured) / measured for expected, measured in pairs])


@pytest.mark.evidence
def test_the_error_of_the_forecast_over_random_settings():
    """Modes that share a start hinder each other, so late ones are foretold less well."""
    errors = [_error_of_the_forecast(seed) for seed in range(30)]
    every = np.concatenate(errors)
    print(f"{every.size} escapes of {len(errors)} runs: median error {np.median(every):.1%}, largest {every.max():.0%}")
    print("first modes: largest", f"{max(each[0] for each in errors if each.size):.1%}")
    assert np.median(every) < 0.1


def test_a_step_that_takes_any_number_of_gradients_is_timed_in_part(small):
    """A ridge of 1e5 over dt = 1000 is some 10⁸ gradients a step: the forecast makes a few hundred of them."""
    problem, network, _ = small
    stiff = lb.GradientFlow(dt=1000.0, scheme="dopri5", ridge=1e5)
    assert lb.forecast(problem, network, stiff, steps=10).seconds > 60
    usual = lb.GradientFlow(dt=0.1, scheme="dopri5")
    assert 0 < lb.forecast(problem, network, usual, steps=10).seconds < 60
