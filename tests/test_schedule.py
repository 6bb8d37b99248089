"""Schedules: their factors by hand, in pieces, in every form, and what a run makes of them."""

import json

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lrbias as lb
from lrbias.methods import _schedules as schedule
from lrbias.steppers import steps_of
from runs import settings

MILESTONES = lb.PiecewiseConstant(factor=0.1, milestones=[50, 120])
DECAY = lb.ExponentialDecay(factor=0.25, start=10, stop=12)
EXAMPLES = [
    MILESTONES,
    lb.PiecewiseConstant(factor=1.0, milestones=(1,)),
    lb.ExponentialDecay(factor=1e-3, stop=70),
    lb.LinearDecay(factor=0.3, start=20, stop=51),
    lb.SquareWave(factor=0.1, period=7, share=0.4),
]

steady = hypothesis.settings(deadline=None)
factors = st.floats(1e-6, 1)
schedules = st.one_of(
    st.builds(
        lb.PiecewiseConstant,
        factor=factors,
        milestones=st.sets(st.integers(1, 200), min_size=1, max_size=20).map(sorted),
    ),
    st.builds(
        lambda decay, start, length, **rest: decay(start=start, stop=start + length, **rest),
        decay=st.sampled_from([lb.ExponentialDecay, lb.LinearDecay]),
        factor=factors,
        start=st.integers(0, 200),
        length=st.integers(1, 200),
    ),
    st.builds(lb.SquareWave, factor=factors, period=st.integers(1, 100), share=st.floats(0.01, 0.99)),
)


def test_a_piecewise_constant_schedule_multiplies_at_its_milestones():
    found = lb.PiecewiseConstant(factor=0.5, milestones=[2, 3, 6]).factors(0, 8)
    assert found.tolist() == [1, 1, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125]


def test_a_decay_is_geometric_or_linear_between_its_ends():
    geometric = lb.ExponentialDecay(factor=0.25, start=2, stop=4).factors(0, 6)
    linear = lb.LinearDecay(factor=0.25, start=2, stop=5).factors(0, 7)
    assert geometric.tolist() == [1, 1, 1, 0.5, 0.25, 0.25]
    assert linear == pytest.approx([1, 1, 1, 0.75, 0.5, 0.25, 0.25], rel=1e-15)


@pytest.mark.parametrize("decay", [lb.ExponentialDecay, lb.LinearDecay])
@steady
@given(factor=factors, length=st.integers(1, 300))
def test_a_decaying_number_ends_at_exactly_its_factor(decay, factor, length):
    found = decay(factor=factor, stop=length).factors(0, length + 3)
    assert found[0] == 1
    assert (found[length:] == factor).all()
    assert (np.diff(found) <= 1e-15).all()


def test_the_factors_of_a_square_wave_repeat():
    found = lb.SquareWave(factor=0.1, period=4, share=0.5).factors(0, 10)
    assert found.tolist() == [1, 1, 0.1, 0.1] * 2 + [1, 1]
    assert lb.SquareWave(factor=0.1, period=3, share=0.5).factors(0, 3).tolist() == [1, 1, 0.1]


@steady
@given(made=schedules, first=st.integers(0, 300), pieces=st.lists(st.integers(0, 50), max_size=6))
def test_a_factor_depends_on_its_step_alone(made, first, pieces):
    whole = made.factors(first, sum(pieces))
    parts = [np.empty(0)]
    place = first
    for length in pieces:
        parts.append(made.factors(place, length))
        place += length
    assert np.array_equal(np.concatenate(parts), whole)


@steady
@given(made=schedules)
def test_factors_are_positive_and_at_most_one(made):
    found = made.factors(0, 400)
    assert ((found > 0) & (found <= 1)).all()
    assert found[0] == 1


@steady
@given(base=st.floats(0.9, 1), exponents=st.lists(st.integers(0, 3000), min_size=1, max_size=30))
def test_powers_equal_those_of_numpy(base, exponents):
    np.testing.assert_allclose(schedule._powers(base, exponents), base ** np.array(exponents), rtol=1e-12)


@steady
@given(factor=st.floats(1e-6, 1), length=st.integers(1, 2000))
def test_geometric_factors_are_powers_of_the_factor(factor, length):
    found = lb.ExponentialDecay(factor=factor, stop=length).factors(0, length + 1)
    np.testing.assert_allclose(found, factor ** (np.arange(length + 1) / length), rtol=1e-12)


FORMS = [
    (
        "piecewise_constant:factor=0.1,milestones=50+120",
        {"kind": "piecewise_constant", "factor": 0.1, "milestones": [50, 120]},
        MILESTONES,
    ),
    (
        "exponential_decay:factor=0.25,start=10,stop=12",
        {"kind": "exponential_decay", "factor": 0.25, "start": 10, "stop": 12},
        DECAY,
    ),
    (
        "linear_decay:factor=1e-2,stop=9",
        {"kind": "linear_decay", "factor": 0.01, "stop": 9},
        lb.LinearDecay(factor=0.01, stop=9),
    ),
    (
        "square_wave:period=7,factor=1",
        {"kind": "square_wave", "factor": 1, "period": 7},
        lb.SquareWave(factor=1, period=7),
    ),
]


@pytest.mark.parametrize(("text", "keys", "made"), FORMS, ids=[text for text, _, _ in FORMS])
def test_text_dictionary_and_object_are_the_same_schedule(text, keys, made):
    methods = [lb.SGD(lr=0.1, ridge=0.1, lr_schedule=form, ridge_schedule=form) for form in (text, keys, made)]
    assert methods[0] == methods[1] == methods[2]
    assert methods[0].lr_schedule == methods[0].ridge_schedule == made


def test_a_schedule_of_a_ridge_that_is_zero_is_refused():
    with pytest.raises(lb.InvalidInput, match="which ridge_schedule multiplies"):
        lb.GD(lr=0.1, ridge_schedule="piecewise_constant:factor=0.5,milestones=3")


@pytest.mark.parametrize("made", EXAMPLES, ids=lambda made: made.kind)
def test_settings_of_a_schedule_give_it_back(made):
    keys = schedule.as_settings(made)
    assert schedule.as_schedule("lr_schedule", keys) == made
    assert schedule.as_schedule("lr_schedule", json.loads(json.dumps(keys))) == made


def test_learning_rate_and_ridge_follow_their_own_schedules():
    method = lb.SGD(
        lr=0.2,
        ridge=0.5,
        lr_schedule="piecewise_constant:factor=0.5,milestones=3",
        ridge_schedule="square_wave:factor=0.1,period=2",
    )
    assert method.rates(2, 3) == pytest.approx([0.2, 0.1, 0.1], rel=1e-15)
    assert method.ridges(2, 3) == pytest.approx([0.5, 0.05, 0.5], rel=1e-15)
    found = method.factors(2, 3, np.float32)
    assert found.dtype == np.float32
    assert np.allclose(found, [[1, 0.5, 0.5], [1, 0.1, 1]])


def test_no_schedule_is_a_factor_of_one():
    method = lb.GD(lr=0.3, ridge=0.1)
    assert method.rates(5, 3).tolist() == [0.3] * 3
    assert method.ridges(5, 3).tolist() == [0.1] * 3
    assert schedule.as_schedule("lr_schedule", None) is None


def _problem():
    return lb.Completion(settings()["problem"].target, entries=20, seed=4)


PLAN = lb.PiecewiseConstant(factor=0.5, milestones=[120])
PAIRS = [  # one method whose numbers are halved at step 120, and the two that it is made of
    (lb.GD(lr=0.02, lr_schedule=PLAN), lb.GD(lr=0.02), lb.GD(lr=0.01)),
    (
        lb.GD(lr=0.02, ridge=0.01, lr_schedule=PLAN, ridge_schedule=PLAN),
        lb.GD(lr=0.02, ridge=0.01),
        lb.GD(lr=0.01, ridge=0.005),
    ),
]


@pytest.mark.parametrize(("whole", "first", "second"), PAIRS, ids=["lr", "lr and ridge"])
def test_gd_with_steps_is_two_runs_one_after_the_other(whole, first, second):
    arguments = settings(problem=_problem(), record=lb.Record(metrics=()))
    found = lb.train(**{**arguments, "method": whole})
    begun = lb.train(**{**arguments, "method": first, "steps": 120})
    rest = lb.train(**{**arguments, "method": second, "steps": 80, "network": begun.network})
    assert np.array_equal(found.network.params, rest.network.params)
    assert np.array_equal(found.losses, np.concatenate([begun.losses[:120], rest.losses]))


@pytest.mark.parametrize("replacement", [True, False])
def test_sgd_with_steps_is_two_methods_one_after_the_other(replacement):
    """Which entries a step draws depends on its number, so the second method goes on from step 120."""
    own = {"batch": 3, "replacement": replacement, "sampling_seed": 5}
    whole = lb.SGD(lr=0.02, ridge=0.01, lr_schedule=PLAN, ridge_schedule=PLAN, **own)
    halves = lb.SGD(lr=0.02, ridge=0.01, **own), lb.SGD(lr=0.01, ridge=0.005, **own)
    problem = _problem()
    network = settings()["network"]
    found = network.params.copy()
    params = network.params.copy()
    losses = np.empty((2, 200))
    steps_of(whole, problem, network.widths, network.dtype)(found, losses[0], 0)
    for half, part in zip(halves, (slice(0, 120), slice(120, 200)), strict=True):
        steps_of(half, problem, network.widths, network.dtype)(params, losses[1][part], part.start)
    assert np.array_equal(found, params)
    assert np.array_equal(*losses)


def test_a_change_of_direction_is_that_of_the_step_that_is_made():
    """The learning rate of step 120 is half that of the first one, and so is what the metric says of it."""
    record = lb.Record(every=40, metrics=("direction_change",))
    run = lb.train(**settings(method=lb.GD(lr=0.02, lr_schedule=PLAN), record=record, checkpoint_every=40))
    start = run.checkpoint(120)
    again = lb.train(**settings(1, network=start, method=lb.GD(lr=0.01)))
    before = start.layers[0]
    moved = again.network.layers[0]
    change = np.linalg.norm(moved / np.linalg.norm(moved) - before / np.linalg.norm(before))
    assert run["layer/1/direction_change"][3] == pytest.approx(change, rel=1e-6)
