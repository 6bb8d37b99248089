"""Networks at any step, saddles that a run comes by, directions that converge."""

import numpy as np
import pytest

import lrbias as lb
from runs import settings

SIZE = 8
VALUES = (8.0, 2.5, 0.8)
PROBLEM = lb.Factorization(lb.from_singular_values((SIZE, SIZE), VALUES, seed=0))
FLOW = lb.GradientFlow(dt=0.05, scheme="dopri5", rtol=1e-8)
WAYS = {
    "gd": {},
    "flow": {"method": FLOW},
    "sgd": {"method": lb.SGD(lr=0.01, batch=2)},
    "greedy": {"method": lb.GLRL(epsilon=1e-3, inner=lb.GD(lr=0.05), tolerance=1e-4, check_every=10), "network": None},
    "diagonal": {"problem": lb.Factorization(np.diag([2.0, 1.0])), "network": lb.Network.scaled_identity(2, 2, 0.1)},
    "scaled": {"network": lb.Network.gaussian((5, 7, 6), gamma=1.0, seed=2).scaled(2.0), "method": lb.GD(lr=0.005)},
}


@pytest.mark.parametrize("way", WAYS)
def test_the_network_at_any_step_has_the_bits_of_the_run(way):
    run = lb.train(**settings(130, checkpoint_every=60, **WAYS[way]))
    every = lb.train(**settings(130, checkpoint_every=1, **WAYS[way]))
    for step in (0, 59, 60, 61, 117):
        assert np.array_equal(run.network_at(step).params, every.checkpoint(step).params)
        assert run.network_at(step).product().tolist() == every.checkpoint(step).product().tolist()
    for step in (-1, 131, 2.5):
        with pytest.raises(lb.InvalidInput, match=f"step = {step} is not accepted"):
            run.network_at(step)


@pytest.fixture(scope="module")
def path():
    start = lb.Network.gaussian((SIZE,) * 3, std=1e-5, seed=1)
    record = lb.Record(every=4, metrics=("gradient_norm",))
    return lb.train(**settings(1200, problem=PROBLEM, network=start, method=FLOW, record=record, checkpoint_every=500))


def test_a_flow_from_a_small_start_comes_by_a_saddle_of_every_rank(path):
    """At rank k the Hessian has (r − k)(h − k) eigenvalues below 0, h the hidden width; the smallest is −σ_{k+1}."""
    found = lb.saddles(path)
    assert [saddle.rank for saddle in found] == [0, 1, 2, 3]
    assert [saddle.index for saddle in found] == [(3 - k) * (SIZE - k) for k in range(3)] + [0]
    for k, saddle in enumerate(found):
        below = VALUES[k] if k < 3 else 0.0
        assert saddle.curvature == pytest.approx(-below, abs=1e-3)
        assert saddle.sharpness == pytest.approx(2 * VALUES[0] if k else VALUES[0], rel=1e-3)
        assert saddle.loss == pytest.approx(0.5 * sum(v**2 for v in VALUES[k:]), abs=1e-2)
        assert saddle.loss == path.losses[saddle.step]
        assert saddle.distance == pytest.approx(np.sqrt(2 * VALUES[k - 1]) if k else 0.0, rel=1e-2)
        assert saddle.gradient_norm == path["gradient_norm"][saddle.step // 4]


def test_large_networks_have_no_dense_hessian(path, monkeypatch):
    """Both ends of the spectrum are found all the same, by Lanczos."""
    from lrbias.analysis import _saddles as stationary

    dense = lb.saddles(path)
    assert len(dense) == 4
    monkeypatch.setattr(stationary, "LARGEST", 10)
    for a, b in zip(lb.saddles(path), dense, strict=True):
        assert a.index is None
        assert (a.sharpness, a.curvature) == pytest.approx((b.sharpness, b.curvature), abs=1e-4)


def test_a_prominence_decides_what_counts(path):
    assert len(lb.saddles(path, prominence=1e6)) < len(lb.saddles(path))
    with pytest.raises(lb.InvalidInput, match="prominence = 1 is not accepted: expected a number greater than 1"):
        lb.saddles(path, prominence=1)
    with pytest.raises(lb.InvalidInput, match="a run that recorded gradient_norm"):
        lb.saddles(lb.train(**settings(10, record=lb.Record(metrics=()))))


@pytest.mark.parametrize("ask", [lb.saddles, lb.directional_convergence])
def test_what_is_no_run_is_refused(ask):
    with pytest.raises(
        lb.InvalidInput, match="run = 'runs/gd' is not accepted: expected a Run of a deep linear network"
    ):
        ask("runs/gd")


def test_layers_of_zeros_have_no_direction():
    run = lb.train(**settings(130, **WAYS["greedy"]))
    assert np.isnan(lb.directional_convergence(run)[1][0]).all()


def test_directions_converge_to_the_last_ones(path):
    steps, gaps = lb.directional_convergence(path)
    assert steps.tolist() == path.checkpoints
    assert gaps.shape == (len(steps), 2)
    assert gaps[-1].tolist() == [0, 0]
    unit = [[layer / np.linalg.norm(layer) for layer in path.checkpoint(step).layers] for step in (0, path.step)]
    assert gaps[0] == pytest.approx([np.linalg.norm(a - b) for a, b in zip(*unit, strict=True)])
