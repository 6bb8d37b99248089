"""Jumps of the rank: constructed singular values, each with the number of jumps that a person would count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lrbias as lb
from lrbias.events._jumps import first_rank, next_rank

NAN = float("nan")


def _series(second, third=0.0, first=1.0):
    """Values of three directions, of which the later ones are given at each record; σ_1 stays."""
    columns = np.broadcast_arrays(first, second, third)
    return np.arange(len(columns[0])) * 10, np.stack(columns, axis=1)


def test_a_value_that_goes_to_and_fro_between_the_thresholds_never_jumps():
    middle = np.tile([0.011, 0.019], 50)
    assert lb.jumps(*_series(np.concatenate([[0.5], middle]))).events == []
    assert lb.jumps(*_series(np.concatenate([[0.005], middle]))).events == []
    assert len(lb.jumps(*_series(np.concatenate([[0.5], middle])), lower=0.015, upper=0.015).events) == 100


def test_a_clean_drop_is_one_jump_down_at_the_record_that_shows_it():
    found = lb.jumps(*_series([0.5, 0.3, 0.1, 0.011, 0.0099, 0.001, 0.001]))
    assert [(jump.step, jump.before, jump.after) for jump in found.events] == [(40, 2, 1)]
    assert (found.down, found.up, found.rank) == (1, 0, 1)
    assert list(found.ranks) == [2, 2, 2, 2, 1, 1, 1]


def test_several_directions_that_go_at_once_are_one_event_and_count_each():
    found = lb.jumps(*_series([0.5, 0.5, 0.001], [0.4, 0.4, 0.0005]))
    assert [(jump.step, jump.before, jump.after) for jump in found.events] == [(20, 3, 1)]
    assert (found.down, found.up) == (2, 0)


def test_up_after_down_counts_both_and_up_needs_the_upper_threshold():
    found = lb.jumps(*_series([0.5, 0.005, 0.015, 0.0201, 0.015, 0.005]))
    assert list(found.ranks) == [2, 1, 1, 2, 2, 1]
    assert [jump.step for jump in found.events] == [10, 30, 50]
    assert (found.down, found.up) == (2, 1)


def test_the_first_rank_counts_what_is_above_the_lower_threshold():
    assert list(lb.jumps(*_series([0.015, 0.015])).ranks) == [2, 2]
    assert list(lb.jumps(*_series([0.0099, 0.015])).ranks) == [1, 1]


@pytest.mark.parametrize("bad", [NAN, float("inf")])
def test_records_that_are_not_finite_keep_the_rank(bad):
    steps, values = _series([0.5, 0.5, 0.5, 0.001, 0.001])
    values[1] = bad
    values[2, 1] = bad
    values[4, 2] = bad
    found = lb.jumps(steps, values)
    assert list(found.ranks) == [2, 2, 2, 1, 1]
    assert [jump.step for jump in found.events] == [30]


def test_what_is_left_of_a_product_that_collapsed_is_rounding_and_has_rank_0(rng):
    """All values fall together by thirty orders of magnitude; then each is noise, at times the larger one."""
    falling = np.logspace(0, -30, 60)[:, None] * [1.0, 0.5, 0.2]
    noise = np.sort(rng.uniform(0, 1e-30, (200, 3)))[:, ::-1] * np.logspace(0, -6, 3) ** rng.integers(0, 2, (200, 1))
    values = np.concatenate([falling, noise, np.zeros((3, 3))])
    steps = np.arange(len(values))
    found = lb.jumps(steps, values)
    assert (found.down, found.up, found.rank) == (3, 0, 0)
    assert (np.diff(found.ranks) <= 0).all()
    flickering = lb.jumps(steps, values, floor=0)
    assert flickering.up > 20
    assert flickering.ranks[30] == 3


def test_a_floor_of_the_users_own_is_a_value_not_a_share():
    steps = np.arange(2)
    values = np.array([[5.0, 3.0, 1.0], [5.0, 0.9, 0.8]])
    assert list(lb.jumps(steps, values, floor=0.9).ranks) == [3, 1]
    assert list(lb.jumps(steps, values).ranks) == [3, 3]


@pytest.mark.parametrize("factor", [1e-200, 1e-3, 7.0, 1e100])
def test_the_scale_of_all_values_changes_nothing(factor, rng):
    values = np.sort(10.0 ** rng.uniform(-5, 0, (300, 4)))[:, ::-1]
    found, scaled = lb.jumps(np.arange(300), values), lb.jumps(np.arange(300), values * factor)
    assert len(found.events) > 50
    assert scaled.events == found.events


def _scalar_rank(states, values, lower, upper, floor):
    """The definition, one direction after the other: (whether each counts now)."""
    if not np.isfinite(values).all():
        return states
    now = []
    for state, value in zip(states, values, strict=True):
        if value > upper * values[0] and value > floor:
            now.append(True)
        elif value <= lower * values[0] or value <= floor:
            now.append(False)
        else:
            now.append(state)
    return now


NUMBER = st.one_of(st.sampled_from([0.0, 0.01, 0.02, 1.0, NAN, float("inf")]), st.floats(0, 2))
RECORD = st.lists(NUMBER, min_size=4, max_size=4).map(lambda values: sorted(values, reverse=True))


@given(
    st.lists(st.lists(RECORD, min_size=3, max_size=3), min_size=1, max_size=6),
    st.lists(st.integers(0, 4), min_size=3, max_size=3),
    st.sampled_from([(0.01, 0.02), (0.3, 0.3), (0.2, 0.9)]),
    st.sampled_from([0.0, 0.05, 1.5]),
)
def test_the_ranks_of_many_runs_are_those_of_a_loop_over_runs_and_directions(records, ranks, thresholds, floor):
    states = [[i < rank for i in range(4)] for rank in ranks]
    now = np.array(ranks)
    for record in records:
        now = next_rank(now, np.array(record), *thresholds, np.full((3, 1), floor))
        states = [_scalar_rank(state, values, *thresholds, floor) for state, values in zip(states, record, strict=True)]
        assert list(now) == [sum(state) for state in states]


def test_first_ranks_of_many_runs_have_floors_of_their_own():
    values = np.array([[1.0, 0.5, 0.001], [1.0, 0.5, 0.001], [0.0, 0.0, 0.0]])
    assert list(first_rank(values, 0.01, np.array([[0.1], [0.6], [0.0]]))) == [2, 1, 0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lower": 0.03}, "lower = 0.03 .* at most upper = 0.02"),
        ({"lower": 0}, "lower = 0 .* greater than 0"),
        ({"lower": NAN}, "lower = nan"),
        ({"upper": 1.5}, "upper = 1.5 .* less than 1"),
        ({"lower": 1.0, "upper": 1.0}, "upper = 1.0 .* less than 1"),
        ({"upper": "0.02"}, "upper = '0.02'"),
        ({"floor": -1}, "floor = -1 .* at least 0"),
    ],
    ids=str,
)
def test_bad_thresholds_are_refused(options, said):
    with pytest.raises(lb.InvalidInput, match=said):
        lb.jumps(*_series([0.5, 0.5]), **options)


@pytest.mark.parametrize(
    ("steps", "values"), [([], np.ones((0, 2))), ([0, 1], np.ones((3, 2))), ([0, 1], np.ones(2))], ids=["0", "3", "1-D"]
)
def test_there_is_a_row_for_each_step(steps, values):
    with pytest.raises(lb.InvalidInput, match="a row for each step"):
        lb.jumps(steps, values)


def test_a_run_counts_its_jumps_as_the_function_does(small):
    problem, network, method = small
    run = lb.train(problem, network, method, 400, lb.Record(every=5, metrics=["singular_values"]), forecast=False)
    values = run["product/singular_values"]
    found = run.jumps(lower=0.3, upper=0.4)
    assert found.events == lb.jumps(run.steps_of("product/singular_values"), values, 0.3, 0.4).events
    assert found.events
    assert run.jumps().events != found.events
    assert run.summary()["rank_jumps"]["rank"] == run.jumps().rank
