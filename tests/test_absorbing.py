"""The sets B_r: against their definition, on networks of known rank, and as they are recorded."""

import itertools

import numpy as np
import pytest

import lrbias as lb
from runs import settings

SETS = lb.AbsorbingSets()


def _facts(layers):
    """Arguments of `AbsorbingSets.rank` for one network."""
    balance = [np.linalg.norm(above.T @ above - below @ below.T) for below, above in itertools.pairwise(layers)]
    return [np.linalg.svd(layer, compute_uv=False) for layer in layers], np.array(balance)


def _rank(layers, sets=SETS):
    return int(sets.rank(*_facts(layers)))


def _is_in(layers, r, sets=SETS):
    """The definition of B_r, word for word."""
    for below, above in itertools.pairwise(layers):
        if np.linalg.norm(above.T @ above - below @ below.T) ** 2 > sets.balance:
            return False
    for layer in layers:
        values = np.linalg.svd(layer, compute_uv=False)
        if sum(min(1, value / sets.alpha) for value in values) > r + sets.slack:
            return False
    return all((layer**2).sum() <= sets.bound for layer in layers)


def _with_values(values, widths, seed=0):
    """Balanced layers that all have these singular values."""
    rng = np.random.default_rng(seed)
    sides = [np.linalg.qr(rng.normal(size=(n, len(values))))[0] for n in widths]
    return [(above * values) @ below.T for below, above in itertools.pairwise(sides)]


def test_the_rank_is_the_smallest_r_of_the_definition(rng):
    """Random networks, some near the bounds of balance and norm; a set contains those before it."""
    ranks = set()
    for _ in range(300):
        count = rng.integers(1, 5)
        layers = _with_values(rng.uniform(0, 1.5, count) * rng.choice([1, 4.5]), (5, 6, 4), rng.integers(2**32))
        layers = [layer + rng.uniform(0, 0.05) * rng.normal(size=layer.shape) for layer in layers]
        inside = [_is_in(layers, r) for r in range(6)]
        assert inside == sorted(inside), "nested"
        rank = _rank(layers)
        ranks.add(rank)
        assert inside == [0 <= rank <= r for r in range(6)]
    assert ranks == {-1, 1, 2, 3, 4}


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_balanced_network_with_k_large_values_is_in_b_k_and_not_before(k, depth):
    values = np.linspace(0.6, 2.0, k)[::-1]
    assert _rank(_with_values(values, (5,) * (depth + 1))) == k
    assert _rank(_with_values([*values, 0.1], (6,) * (depth + 1))) == k, "0.2 more is within the slack"
    assert _rank(_with_values([*values, 0.3], (6,) * (depth + 1))) == k + 1


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_balanced_start_with_a_narrow_layer_is_in_b_k_and_not_before(k):
    network = lb.Network.balanced((5, 8, k, 6), alpha=2.0, seed=1)
    assert min(np.linalg.svd(layer, compute_uv=False)[k - 1] for layer in network.layers) > SETS.alpha
    assert _rank(network.layers) == k


def test_small_values_count_in_part_and_none_is_rank_0():
    assert _rank(_with_values([1e-6, 1e-6], (4, 4, 4))) == 0
    assert _rank(_with_values([1.0], (4, 4, 4)), lb.AbsorbingSets(slack=2.5)) == 0
    assert [_rank(_with_values([0.26] * 4, (4, 4, 4), seed)) for seed in range(2)] == [2, 2]


def test_one_layer_that_is_not_balanced_is_in_no_set():
    layers = _with_values([1.0], (4, 4, 4))
    assert _rank([layers[0], 1.1 * layers[1]]) == 1
    assert _rank([layers[0], 1.2 * layers[1]]) == -1
    assert _rank([layers[0], 1.2 * layers[1]], lb.AbsorbingSets(balance=0.2)) == 1


def test_a_network_with_a_large_layer_is_in_no_set():
    assert _rank(_with_values([9.9], (4, 4, 4))) == 1
    assert _rank(_with_values([10.1], (4, 4, 4))) == -1
    assert _rank(_with_values([10.1], (4, 4))) == -1
    assert _rank(_with_values([10.1], (4, 4)), lb.AbsorbingSets(bound=103)) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_in_no_set(bad):
    values, balance = _facts(_with_values([1.0], (4, 4, 4)))
    assert SETS.rank(values, balance) == 1
    assert SETS.rank(values, balance + bad) == -1
    assert SETS.rank([values[0], values[1] + bad], balance) == -1


def test_many_networks_at_once_have_the_ranks_that_they_have_one_by_one(rng):
    networks = [
        _with_values(rng.uniform(0, 12) ** rng.integers(0, 2, 3), (4, 6, 3), rng.integers(2**32)) for _ in range(60)
    ]
    facts = [_facts(layers) for layers in networks]
    values = [np.stack([found[0][layer] for found in facts]) for layer in range(2)]
    together = SETS.rank(values, np.stack([found[1] for found in facts]))
    assert together.shape == (60,)
    assert list(together) == [_rank(layers) for layers in networks]
    assert len(set(together)) > 1


def test_a_run_records_the_rank_of_its_network():
    """With sets of the user's own, at every record; "all" does not record it."""
    start = lb.Network.balanced((5, 6, 6), alpha=0.5, seed=2)
    own = {"absorbing_balance": 0.5, "absorbing_slack": 0.25, "absorbing_alpha": 0.8, "absorbing_bound": 4.0}
    record = lb.Record(every=10, metrics=["absorbing_rank"], **own)
    run = lb.train(**settings(600, network=start, record=record, checkpoint_every=10))
    sets = lb.AbsorbingSets(balance=0.5, slack=0.25, alpha=0.8, bound=4.0)
    expected = [_rank(run.checkpoint(step).layers, sets) for step in run.steps_of("absorbing_rank")]
    assert list(run["absorbing_rank"]) == expected
    assert len(set(expected)) > 2
    assert "absorbing_rank" not in lb.train(**settings(10, record=lb.Record()))


@pytest.mark.parametrize("name", ["balance", "slack", "alpha", "bound"])
def test_the_numbers_of_the_sets_are_positive(name):
    for bad in (0, -1, float("nan"), float("inf"), "1"):
        with pytest.raises(lb.InvalidInput, match=f"^{name} = .* greater than 0"):
            lb.AbsorbingSets(**{name: bad})
