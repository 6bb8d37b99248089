"""Training steps and records against NumPy doing the same in the same process. Read the ratios, not the seconds."""

from harness import sized  # isort: split

import peers
import pytest

import lrbias as lb
from lrbias.metrics import MetricSchedule, NetworkState, RunContext
from lrbias.system._threads import one_blas_thread

STEPS = sized(50, 2)
SIDES = {"numpy": peers.with_numpy, "lrcore": peers.ours}


@pytest.mark.parametrize("n", sized([4, 10, 32, 100], [4]))
@pytest.mark.parametrize("side", SIDES)
def test_gd_step(benchmark, n, side):
    benchmark.group = f"{STEPS} GD steps, N = 3, n = {n}"
    with one_blas_thread():
        benchmark(SIDES[side](n, STEPS))


@pytest.mark.benchmark(group="10 steps, N = 3, n = 100")
@pytest.mark.parametrize("method", [peers.ours, peers.ours_rk4])
def test_rk4_against_gd(benchmark, method):
    benchmark(method(100, 10))


@pytest.mark.benchmark(group="one record, N = 3, n = 100")
@pytest.mark.parametrize("metrics", ["all", "singular_values", "effective_rank", "balancedness", "gradient_norm"])
def test_record(benchmark, metrics):
    network = lb.Network.gaussian((100,) * 4, seed=1)
    setup = RunContext(
        lb.Factorization(lb.teacher()), network.widths, network.dtype, lb.Record(metrics=metrics), lb.GD(lr=1e-3)
    )
    observation = NetworkState(setup)
    plan = MetricSchedule(setup)
    with one_blas_thread():
        benchmark(plan.measure, observation, network.params, 0, lambda name, row, value: None)
