"""Plateaus: known staircases, and the levels that theory gives to a trained network."""

import numpy as np
import pytest

import lrbias as lb
from runs import settings


def _staircase(levels, length=200, rise=10):
    """A fall from 30 to the first level, then levels of `length` records with climbs of `rise` records between."""
    parts = [np.geomspace(30, levels[0], 100)]
    for level, following in zip(levels, [*levels[1:], None], strict=True):
        parts.append(np.full(length, level))
        if following is not None:
            parts.append(np.linspace(level, following, rise + 2)[1:-1])
    values = np.concatenate(parts)
    return np.arange(len(values)) * 10, values


def test_a_staircase_is_found_step_by_step():
    levels = [1.0, 1.9, 2.7, 3.2]
    steps, values = _staircase(levels)
    found = lb.plateaus(steps, values)
    assert [plateau.level for plateau in found] == pytest.approx(levels, abs=0.01)
    for k, plateau in enumerate(found):
        assert abs(plateau.start - 10 * (100 + 210 * k)) <= 30
        assert abs(plateau.end - 10 * (299 + 210 * k)) <= 30


def test_noise_below_the_flatness_changes_nothing_and_drift_is_joined(rng):
    steps, values = _staircase([1.0, 2.0, 3.0])
    noisy = lb.plateaus(steps, values + rng.uniform(-0.01, 0.01, len(values)))
    assert [plateau.level for plateau in noisy] == pytest.approx([1, 2, 3], abs=0.02)
    drifting = values + np.linspace(0, 0.1, len(values))
    assert len(lb.plateaus(steps, drifting)) == 3


def test_short_stops_and_the_start_are_no_plateaus():
    steps, values = _staircase([1.0, 2.0, 3.0], length=200)
    values[310:500] = np.linspace(1, 3, 190)  # the second step is gone
    assert [round(plateau.level) for plateau in lb.plateaus(steps, values)] == [1, 3]
    assert lb.plateaus(steps, np.full(len(steps), 15.0)) == []
    assert lb.plateaus(steps, np.linspace(30, 20, len(steps))) == []
    assert lb.plateaus([], []) == []
    assert lb.plateaus([0, 1], [np.nan, np.nan]) == []


def test_nan_ends_a_plateau():
    steps, values = _staircase([1.0])
    values[200] = np.nan
    assert len(lb.plateaus(steps, values)) == 1  # two halves of one level
    assert lb.plateaus(steps, values)[0].level == pytest.approx(1, abs=0.01)


def test_long_logs_take_no_time_to_speak_of():
    """100 000 records on no plateau: linear in their number, or this test would not end."""
    steps = np.arange(100_000)
    values = np.concatenate([np.linspace(30, 1, 1000), np.linspace(1, 20_000, 99_000)])
    assert lb.plateaus(steps, values) == []


def test_lengths_must_agree():
    with pytest.raises(lb.InvalidInput, match="as many as steps"):
        lb.plateaus([0, 1, 2], [1.0, 2.0])


def test_plateaus_of_a_run_are_at_the_levels_of_theory():
    """Σ_{i≤k} σ̂_i / σ̂_1 for k = 1, 2, 3, from a small start at depth 3."""
    target = lb.from_singular_values((12, 12), [4.0, 2.0, 1.0], seed=1)
    network = lb.Network.gaussian((12,) * 4, gamma=1.8, seed=2)
    run = lb.train(lb.Factorization(target), network, lb.GD(lr=0.01), 30_000, forecast=False)
    levels = [plateau.level for plateau in run.plateaus()]
    assert levels == pytest.approx([1, 1.5, 1.75], abs=0.03)
    assert [plateau["level"] for plateau in run.summary()["plateaus"]] == levels
    assert "effective rank stays at 1.0" in repr(run)


def test_a_run_without_the_rank_has_no_plateaus_in_its_summary():
    run = lb.train(**settings(record=lb.Record(metrics=())))
    assert "plateaus" not in run.summary()
    with pytest.raises(lb.InvalidInput, match="effective_rank"):
        run.plateaus()


def _three_values(**changes):
    """A run that learns three values on three plateaus."""
    arguments = {
        "problem": lb.Factorization(lb.from_singular_values((12, 12), [4.0, 2.0, 1.0], seed=1)),
        "network": lb.Network.gaussian((12,) * 4, gamma=1.8, seed=2),
        "method": lb.GD(lr=0.01),
        "steps": 30_000,
        "record": lb.Record(metrics=["effective_rank", "singular_values"]),
        "forecast": False,
    }
    return {**arguments, **changes}


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_stopping_on_a_plateau_gives_the_best_approximation_of_its_rank(wanted):
    arguments = _three_values(stop=lb.Stop(plateaus=wanted))
    run = lb.train(**arguments)
    assert (run.status, run.step % 160) == ("stopped", 0)
    assert run.detail == f"the effective rank has reached its plateau {wanted}"
    left, values, right = arguments["problem"].svd[:3]
    best = (left[:, :wanted] * values[:wanted]) @ right[:, :wanted].T
    assert np.linalg.norm(run.network.product() - best) < 0.02 * values[0]
    assert len(run.plateaus()) == wanted


def test_a_run_that_stops_on_a_plateau_is_resumed_with_the_same_bits(tmp_path):
    """Killed by a metric of the user's at a step before the plateau; then resumed."""
    whole = lb.train(**_three_values(stop=lb.Stop(plateaus=2)))

    def fails(network):
        raise RuntimeError("killed")

    class Fails:
        calls = 0

        def __call__(self, network):
            self.calls += 1
            return 0.0 if self.calls < 120 else fails(network)

    metrics = {"effective_rank": 10, "singular_values": 10, "mine": Fails()}
    record = lb.Record(every=10, metrics=metrics)
    with pytest.raises(RuntimeError, match="killed"):
        lb.train(**_three_values(stop=lb.Stop(plateaus=2), record=record, store=tmp_path / "r"))
    assert lb.open(tmp_path / "r").step < whole.step
    again = lb.resume(tmp_path / "r", metrics={"mine": lambda network: 0.0})
    assert again.step == whole.step
    assert np.array_equal(again.losses, whole.losses)
    assert np.array_equal(again.network.params, whole.network.params)


def test_the_start_is_no_plateau_to_stop_on():
    """Nothing is learnt within these steps, although the effective rank hardly changes in them."""
    run = lb.train(**_three_values(steps=400, stop=lb.Stop(plateaus=1)))
    assert run.status == "finished"
