"""Forecasts against runs and against closed forms."""

import warnings

import numpy as np
import pytest

import lrbias as lb
from lrbias import theory
from runs import settings


def test_escapes_are_forecast_from_the_actual_start():
    """A small protocol: every mode within 15 % of when it is measured, in the measured order."""
    problem = lb.Factorization(lb.spectrum((30, 20), [5.0, 4.0, 3.0, 2.0], seed=1))
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
    network, problem = lb.Network.from_layers(layers), lb.Factorization([[value]])
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
