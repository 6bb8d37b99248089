"""Entries, measurements, inputs and ridge under GD and Runge-Kutta: definitions, whole targets, exact solutions."""

import numpy as np
import pytest

from backends import cases, everywhere
from lrbias.system._threads import together
from lrcore import cpu, layout, objective, reference, tableau
from lrcore.cpu import workspace
from lrcore.status import DIVERGED, OK
from networks import WIDTHS, make, relative

SMALL = [(4, 4), (7, 3, 5), (1, 9, 2, 6), (3, 5, 1, 4, 2, 6), (1, 1)]
ON_GRID = (8, 7)  # in the simulator: too large for one block
KINDS = ["entries", "measurements", "regression"]


def _covariance(size, rng):
    inputs = rng.normal(size=(2 * size, size))
    return inputs.T @ inputs / len(inputs)


def goals(target, seed=0):
    """{name: Objective}: entries with different weights, measurements, and inputs with a covariance."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.1, 1, target.shape) * (rng.random(target.shape) < 0.6)
    matrices = rng.normal(size=(6, *target.shape))
    values = np.einsum("kij,ij->k", matrices, target)
    dtype = target.dtype
    return {
        "entries": objective.weighted(target, weights, dtype),
        "measurements": objective.measured(matrices, values, 0.05, dtype),
        "regression": objective.regression(target, _covariance(target.shape[1], rng), 0.3, dtype),
    }


@pytest.mark.parametrize("kind", KINDS)
@cases("widths", SMALL + WIDTHS[:1])
def test_loss_and_gradient_equal_the_reference_and_differences(core, widths, kind):
    params, widths, target, work = make(widths, core=core)
    goal = goals(target)[kind]
    ridge = 0.02
    found, expected = np.empty_like(params), np.empty_like(params)
    loss = core.objective_loss_and_gradient(params, widths, goal, ridge, found, work)
    assert loss == pytest.approx(
        reference.objective_loss_and_gradient(params, widths, goal, ridge, expected), rel=1e-12
    )
    assert relative(found, expected) < 1e-12
    chosen = np.linspace(0, params.size - 1, min(params.size, core.pick(20, 3))).astype(int)
    for k in chosen:  # a parabola along one weight
        ends = []
        for step in (1.0, -1.0):
            moved = params.copy()
            moved[k] += step
            ends.append(core.objective_loss_and_gradient(moved, widths, goal, ridge, expected, work))
        assert (ends[0] - ends[1]) / 2 == pytest.approx(found[k], abs=1e-10 * np.abs(found).max() + 1e-12 * loss)


@pytest.mark.parametrize("kind", KINDS)
@cases("widths", SMALL, [*SMALL, ON_GRID])
@pytest.mark.parametrize("method", ["gd", "rk4"])
def test_steps_equal_the_reference(core, method, widths, kind):
    params, widths, target, work = make(widths, stages=4, core=core)
    goal = goals(target)[kind]
    steps = core.pick(30, 4)
    rates, ridges = np.linspace(0.01, 0.05, steps), np.linspace(0, 0.3, steps)
    results = []
    for side in (core, reference):
        trained = params.copy()
        losses = np.empty(steps)
        if method == "gd":
            code = side.objective_gd_steps(trained, widths, goal, rates, ridges, losses, work)
        else:
            pair = tableau.RK4.a, tableau.RK4.b
            code = side.objective_rk_steps(trained, widths, goal, 0.1, 0.02, pair, losses, work)
        assert code == OK
        results.append((trained, losses))
    assert relative(results[0][0], results[1][0]) < 1e-12
    assert relative(results[0][1], results[1][1]) < 1e-12


@cases("widths", [(7, 3, 5), WIDTHS[0]])
def test_all_entries_with_weight_one_are_the_factorization(core, widths):
    params, widths, target, work = make(widths, core=core)
    steps = core.steps(20)
    goal = objective.weighted(target, np.ones_like(target))
    plain = params.copy()
    losses = np.empty((2, steps))
    core.gd_steps(plain, widths, target, 0.02, losses[0], work)
    core.objective_gd_steps(params, widths, goal, np.full(steps, 0.02), np.zeros(steps), losses[1], work)
    assert relative(params, plain) < 1e-13
    assert relative(losses[1], losses[0]) < 1e-13


def test_without_data_the_ridge_shrinks_the_weights_exactly(core):
    """Nothing observed: W ← (1 − 2ηλ) W under GD, and W(t) = e^(−2λt) W(0) under the flow, to fourth order."""
    params, widths, target, work = make(core.pick((7, 3, 5), (2, 1, 3)), stages=4, core=core)
    many = core.steps(50)
    start = params.copy()
    goal = objective.weighted(target, np.zeros_like(target))
    losses = np.empty(many)
    core.objective_gd_steps(params, widths, goal, np.full(many, 0.1), np.full(many, 0.2), losses, work)
    assert relative(params, 0.96**many * start) < 1e-13
    assert relative(losses, 0.2 * np.sum(start**2) * 0.96 ** (2 * np.arange(many))) < 1e-13
    errors, (counts, time) = [], core.pick(((10, 20, 40, 80), 4.0), ((5, 10, 20), 1.0))
    for steps in counts:
        params[:] = start
        pair = tableau.RK4.a, tableau.RK4.b
        core.objective_rk_steps(params, widths, goal, 0.5, time / steps, pair, np.empty(steps), work)
        errors.append(relative(params, np.exp(-time) * start))
    slopes = np.diff(np.log(errors)) / -np.log(2)
    assert slopes[-1] == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("widths", [WIDTHS[0], (53, 61)], ids=str)
@pytest.mark.parametrize("kind", ["entries", "regression"])
def test_threads_make_the_same_bits(kind, widths):
    params, widths, target, _ = make(widths)
    goal = goals(target)[kind]
    rates = np.full(10, 0.01)
    ridges = np.full(10, 0.1)
    found = []
    for threads in (1, 2, 3):
        trained = params.copy()
        losses = np.empty(10)
        works = workspace.thread_workspaces(widths, threads=threads)
        steps = together(
            lambda params, losses, _, work: cpu.objective_gd_steps(params, widths, goal, rates, ridges, losses, work),
            works,
        )
        assert steps(trained, losses) == OK
        found.append((trained, losses))
    for trained, losses in found[1:]:
        assert np.array_equal(trained, found[0][0])
        assert np.array_equal(losses, found[0][1])


@everywhere
def test_divergence_is_a_status(core):
    params, widths, target, work = make((4, 4, 4), core=core)
    goal = goals(target)["entries"]
    losses = np.full(200, np.nan)
    with np.errstate(all="ignore"):
        code = core.objective_gd_steps(params, widths, goal, np.full(200, 50.0), np.zeros(200), losses, work)
    assert code == DIVERGED
    assert np.isfinite(losses[0])
    assert np.isnan(losses[-1])


@pytest.mark.parametrize("kind", ["entries", "regression"])
def test_float32_stays_float32(core, kind):
    params, widths, target, work = make((7, 3, 5), np.float32, core=core)
    goal = goals(target)[kind]
    losses = np.empty(5, np.float32)
    rates, ridges = np.full(5, 0.1, np.float32), np.full(5, 0.01, np.float32)
    expected = params.copy()
    expected_losses = losses.copy()
    core.objective_gd_steps(params, widths, goal, rates, ridges, losses, work)
    reference.objective_gd_steps(expected, widths, goal, rates, ridges, expected_losses)
    assert layout.lanes(params.dtype) == 16
    assert relative(params, expected) < 1e-5
