"""A user who lets NumPy raise at every floating-point error can train, record, resume and draw."""

import warnings

import numpy as np
import pytest

import lrbias as lb


@pytest.fixture
def raising():
    """np.seterr(all="raise"), as a user has called it."""
    with np.errstate(all="raise"):
        yield


def test_runs_are_trained_resumed_read_and_drawn(raising, small, tmp_path):
    lb.train(*small, steps=20, store=tmp_path / "run", forecast=False, record=lb.Record(every=5))
    run = lb.resume(tmp_path / "run", steps=40)
    assert run.status == "finished"
    assert lb.open(tmp_path / "run").check() == []
    assert "finished at step 40" in repr(lb.open(tmp_path / "run"))
    assert lb.plots.save(run, tmp_path / "figures", ("png",))
    assert np.geterr() == dict.fromkeys(("divide", "over", "under", "invalid"), "raise")


@pytest.mark.parametrize(("gamma", "lr", "status"), [(90.0, 0.02, "finished"), (1.0, 1e3, "diverged")])
def test_underflow_and_overflow_are_results(raising, small, gamma, lr, status):
    problem, network, _ = small
    network = lb.Network.gaussian(network.widths, gamma=gamma, seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lb.ForecastWarning)
        assert lb.train(problem, network, lb.GD(lr=lr), 30).status == status
        assert lb.forecast(problem, network, lb.GD(lr=lr), 30).steps == 30
