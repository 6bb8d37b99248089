"""Training steps and records against NumPy doing the same in the same process. Read the ratios, not the seconds."""

import numpy as np
import pytest

import lrbias as lb
from lrbias.metrics import Observation, Plan, Setup
from lrbias.threads import one_blas_thread
from lrcore import cpu, layout, tableau, workspace

STEPS = 50


def _network(n, depth=3):
    widths = layout.as_widths((n,) * (depth + 1))
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(n, n)) * 0.5 / np.sqrt(n) for _ in range(depth)]
    return layers, layout.flatten(layers)[0], widths, rng.normal(size=(n, n))


def numpy_steps(layers, target, lr, steps):
    """The same steps as a NumPy user writes them, gradients from the same 3(N−1) products."""
    for _ in range(steps):
        prefixes = [layers[0]]
        for layer in layers[1:]:
            prefixes.append(layer @ prefixes[-1])
        back = prefixes[-1] - target
        np.sum(back**2)
        for i in range(len(layers) - 1, 0, -1):
            gradient = back @ prefixes[i - 1].T
            back = layers[i].T @ back
            layers[i] = layers[i] - lr * gradient
        layers[0] = layers[0] - lr * back


@pytest.mark.parametrize("n", [4, 10, 32, 100])
@pytest.mark.parametrize("side", ["numpy", "lrcore"])
def test_gd_step(benchmark, n, side):
    benchmark.group = f"{STEPS} GD steps, N = 3, n = {n}"
    layers, params, widths, target = _network(n)
    work, losses = workspace.allocate(widths), np.empty(STEPS)
    with one_blas_thread():
        if side == "numpy":
            benchmark(numpy_steps, layers, target, 1e-4, STEPS)
        else:
            benchmark(cpu.gd_steps, params, widths, target, 1e-4, losses, work)


@pytest.mark.benchmark(group="10 steps, N = 3, n = 100")
@pytest.mark.parametrize("method", ["gd", "rk4"])
def test_rk4_against_gd(benchmark, method):
    _, params, widths, target = _network(100)
    work, losses = workspace.allocate(widths, stages=4), np.empty(10)
    a, b = tableau.RK4.astype(np.float64)
    with one_blas_thread():
        if method == "gd":
            benchmark(cpu.gd_steps, params, widths, target, 1e-4, losses, work)
        else:
            benchmark(cpu.rk_steps, params, widths, target, 1e-4, a, b, losses, work)


@pytest.mark.benchmark(group="one record, N = 3, n = 100")
@pytest.mark.parametrize("metrics", ["all", "singular_values", "effective_rank", "balancedness", "gradient_norm"])
def test_record(benchmark, metrics):
    network = lb.Network.gaussian((100,) * 4, seed=1)
    setup = Setup(lb.Factorization(lb.teacher()), network.widths, network.dtype, lb.Record(metrics=metrics), 1e-3)
    observation, plan = Observation(setup), Plan(setup)
    with one_blas_thread():
        benchmark(plan.measure, observation, network.params, 0, lambda name, row, value: None)
