"""Kernels of the GPU against those of the CPU, bit for bit, in every form that a network can take there.

In Numba's simulator, or on a GPU where there is one: see `gpu` in conftest.py.
"""

import numpy as np
import pytest

from backends import SIMULATED
from lrcore import adaptive, cpu, layout, objective, tableau
from lrcore.cpu import workspace
from lrcore.objective import BatchRates, Entries, Sampling
from lrcore.status import DIVERGED, OK
from networks import make

FORMS = ["chip", "block", "grid"]
WIDTHS = [(4, 4), (5, 3, 6), (1, 5, 2, 4), (3, 5, 1, 4, 2, 6), (1, 1)]
DTYPES = [np.float64, np.float32]
# of what the simulator is slow at; `make evidence` runs all of it there
SLOW = [pytest.mark.evidence] if SIMULATED else []
FEW_DTYPES = [np.float64, pytest.param(np.float32, marks=SLOW)]
FEW_WIDTHS = [(4, 3), (6, 3, 2, 7), pytest.param((5, 3, 6), marks=SLOW)]


def _work(gpu, form, widths, dtype, stages=0):
    """A workspace of a network that is made to take a form."""
    work = gpu.workspace.allocate(widths, dtype, stages)
    sizes = gpu.workspace.CHIP_SIZES
    work.chip = next(size for size in sizes if size >= work.offsets.size) if form == "chip" else 0
    work.spread = form == "grid"
    return work


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize(
    ("name", "dtype"), [("gd", DTYPES[0]), ("gd", DTYPES[1]), ("heun", DTYPES[0]), ("rk4", DTYPES[1])]
)
def test_steps_have_the_bits_of_the_cpu(gpu, name, widths, form, dtype):
    params, widths, target, work = make(widths, dtype, stages=4)
    ours = params.copy()
    losses = np.full(5, -1, dtype)
    expected = np.full(5, -1, dtype)
    there = _work(gpu, form, widths, dtype, 0 if name == "gd" else 4)
    h = dtype(0.05)
    if name == "gd":
        numbers = (h,)
        steps = "gd_steps"
    else:
        numbers = (h, tableau.TABLEAUS[name].astype(dtype))
        steps = "rk_steps"
        there = _work(gpu, form, widths, dtype, tableau.TABLEAUS[name].stages)
    assert getattr(cpu, steps)(params, widths, target, *numbers, expected, work) == OK
    assert getattr(gpu, steps)(ours, widths, target, *numbers, losses, there) == OK
    assert np.array_equal(ours, params)
    assert np.array_equal(losses, expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["gd", "rk4"])
def test_divergence_ends_a_run_as_on_the_cpu(gpu, name, form):
    params, widths, target, work = make((3, 4, 3), stages=4)
    ours = params.copy()
    losses = np.full(30, -1.0)
    expected = np.full(30, -1.0)
    there = _work(gpu, form, widths, np.float64, 4)
    numbers = (30.0,) if name == "gd" else (30.0, tableau.RK4.astype(np.float64))
    steps = "gd_steps" if name == "gd" else "rk_steps"
    with np.errstate(all="ignore"):
        assert getattr(cpu, steps)(params, widths, target, *numbers, expected, work) == DIVERGED
        assert getattr(gpu, steps)(ours, widths, target, *numbers, losses, there) == DIVERGED
    assert np.array_equal(losses, expected, equal_nan=True)
    assert np.array_equal(ours, params, equal_nan=True)
    assert losses[-1] == -1


def _objectives(widths, dtype, kind, rng):
    target = rng.normal(size=(widths[-1], widths[0])).astype(dtype)
    if kind == "entries":
        return objective.weighted(target, rng.integers(0, 2, target.shape), dtype)
    if kind == "regression":
        inputs = rng.normal(size=(9, widths[0])) / 3
        return objective.regression(target, inputs.T @ inputs, 0.1, dtype)
    matrices = rng.normal(size=(3, *target.shape))
    return objective.measured(matrices, rng.normal(size=3), 0.5, dtype)


@pytest.mark.parametrize("dtype", FEW_DTYPES)
@pytest.mark.parametrize("form", ["block", "grid"])
@pytest.mark.parametrize("kind", ["entries", "measurements", "regression"])
@pytest.mark.parametrize("widths", FEW_WIDTHS, ids=str)
def test_objectives_have_the_bits_of_the_cpu(gpu, widths, kind, form, dtype, rng):
    params, widths, _, work = make(widths, dtype, stages=4)
    goal = _objectives(widths, dtype, kind, rng)
    ours = params.copy()
    rates = np.linspace(0.02, 0.04, 4).astype(dtype)
    ridges = np.array([0, 0.01, 0.02, 0.3], dtype)
    losses, expected = np.empty(4, dtype), np.empty(4, dtype)
    there = _work(gpu, form, widths, dtype, 4)
    for ridge in (dtype(0), dtype(0.1)):
        slope, expected_slope = np.empty_like(params), np.empty_like(params)
        loss = gpu.objective_loss_and_gradient(ours, widths, goal, ridge, slope, there)
        assert loss == cpu.objective_loss_and_gradient(params, widths, goal, ridge, expected_slope, work)
        assert np.array_equal(slope, expected_slope)
    assert cpu.objective_gd_steps(params, widths, goal, rates, ridges, expected, work) == OK
    assert gpu.objective_gd_steps(ours, widths, gpu.device_put(goal), rates, ridges, losses, there) == OK
    assert np.array_equal(ours, params)
    assert np.array_equal(losses, expected)
    numbers = dtype(0.1), dtype(0.02), tableau.RK4.astype(dtype)
    assert cpu.objective_rk_steps(params, widths, goal, *numbers, expected[:2], work) == OK
    assert gpu.objective_rk_steps(ours, widths, goal, *numbers, losses[:2], there) == OK
    assert np.array_equal(ours, params)
    assert np.array_equal(losses, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_loss_gradient_product_and_balancedness_have_the_bits_of_the_cpu(gpu, widths, dtype):
    params, widths, target, work = make(widths, dtype)
    there = gpu.workspace.allocate(widths, dtype)
    slope, expected = np.empty_like(params), np.empty_like(params)
    loss = gpu.loss_and_gradient(params, widths, target, slope, there)
    assert loss == cpu.loss_and_gradient(params, widths, target, expected, work)
    assert np.array_equal(slope, expected)
    for side, works, out in ((gpu, there, slope), (cpu, work, expected)):
        side.forward(params, widths, target, works)
        side.backward(params, widths, dtype(-0.3), out, works)
    assert np.array_equal(slope, expected)
    for name, shape in (("product", target.shape), ("balancedness", len(widths) - 2)):
        found, wanted = np.empty(shape, dtype), np.empty(shape, dtype)
        getattr(gpu, name)(params, widths, found, there)
        getattr(cpu, name)(params, widths, wanted, work)
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["gd", "rk4"])
def test_diagonal_steps_have_the_bits_of_the_cpu(gpu, name, dtype, rng):
    lanes = layout.lanes(dtype)
    modes = layout.aligned_copy(rng.normal(size=(3, 2 * lanes)), dtype)
    target, weights = (layout.aligned_copy(rng.random(2 * lanes), dtype) for _ in range(2))
    ours = modes.copy()
    losses = np.empty(4, dtype)
    expected = np.empty(4, dtype)
    stages = 0 if name == "gd" else 4
    numbers = (dtype(0.05),) if name == "gd" else (dtype(0.05), tableau.RK4.astype(dtype))
    steps = "diagonal_gd_steps" if name == "gd" else "diagonal_rk_steps"
    work = workspace.allocate_diagonal(3, 2 * lanes, dtype, stages)
    there = gpu.workspace.allocate_diagonal(3, 2 * lanes, dtype, stages)
    assert getattr(cpu, steps)(modes, target, weights, *numbers, expected, work) == OK
    assert getattr(gpu, steps)(ours, target, weights, *numbers, losses, there) == OK
    assert np.array_equal(ours, modes)
    assert np.array_equal(losses, expected)


@pytest.mark.parametrize("dtype", FEW_DTYPES)
@pytest.mark.parametrize("chip", [True, False])
@pytest.mark.parametrize("name", ["gd", "rk4"])
def test_batches_have_the_bits_of_the_cpu(gpu, name, chip, dtype, rng, monkeypatch):
    """In waves of one block of runs, one of which diverges."""
    widths = layout.as_widths((3, 4, 2))
    runs = 20
    lanes = layout.lanes(dtype)
    stages = 0 if name == "gd" else 4
    params = layout.to_lanes(rng.normal(size=(runs, layout.size(widths))).astype(dtype), lanes)
    targets = layout.to_lanes(rng.normal(size=(runs, 6)).astype(dtype), lanes)
    rates = np.full(runs, 0.02, dtype)
    rates[3] = 1e6
    rates = layout.to_lanes(rates, lanes)
    ours = params.copy()
    shape = (len(params), 4, lanes)
    losses, expected = np.full(shape, -1, dtype), np.full(shape, -1, dtype)
    codes, wanted = np.empty((len(params), lanes), np.int64), np.empty((len(params), lanes), np.int64)
    numbers = () if name == "gd" else (tableau.RK4.astype(dtype),)
    steps = "batch_gd_steps" if name == "gd" else "batch_rk_steps"
    there = gpu.workspace.allocate_batch(widths, dtype, stages)
    if not chip:
        there.chip = 0
    monkeypatch.setattr(gpu.workspace, "free_memory", lambda: 1.2 * lanes * 8000)
    assert len(there.waves(len(params), lanes, 8000 - there.arena * np.dtype(dtype).itemsize)) == len(params)
    with np.errstate(all="ignore"):
        work = workspace.allocate_batch(widths, dtype, stages)
        getattr(cpu, steps)(params, widths, targets, rates, *numbers, expected, wanted, work)
        getattr(gpu, steps)(ours, widths, targets, rates, *numbers, losses, codes, there)
    assert np.array_equal(codes, wanted)
    assert codes[0, 3] == DIVERGED
    assert np.array_equal(losses, expected, equal_nan=True)
    assert np.array_equal(ours, params, equal_nan=True)


SAMPLINGS = [(1, True), (3, True), (1, False), (4, False)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("chip", [True, False])
@pytest.mark.parametrize(("batch", "replacement"), SAMPLINGS)
@pytest.mark.parametrize("widths", [(4, 3), (5, 3, 6), (4, 3, 2, 5), (3, 4, 2, 3, 4)], ids=str)
def test_sgd_has_the_bits_of_the_cpu(gpu, widths, batch, replacement, chip, dtype, rng):
    params, widths, target, _ = make(widths, dtype)
    chosen = rng.permutation(target.size)[:9]
    rows, columns = np.unravel_index(chosen, target.shape)
    entries = Entries(rows, columns, target.ravel()[chosen].copy(), dtype(9))
    rates = np.full(8, 0.01, dtype)
    ridges = np.linspace(0, 0.1, 8).astype(dtype)
    params[0] = 1e-31  # which a step whose number is a multiple of 1024 makes 0
    ours = params.copy()
    sampling = Sampling(np.uint64(2**63 + 5), 1021, batch, replacement)
    losses, expected = np.empty(8, dtype), np.empty(8, dtype)
    there = gpu.workspace.allocate_sgd(widths, 9, batch, dtype)
    if not chip:
        there.chip = 0
    work = workspace.allocate_sgd(widths, 9, batch, dtype)
    assert cpu.sgd_steps(params, widths, entries, rates, ridges, sampling, expected, work) == OK
    assert gpu.sgd_steps(ours, widths, entries, rates, ridges, sampling, losses, there) == OK
    assert np.array_equal(losses, expected)
    assert np.array_equal(ours, params)


@pytest.mark.parametrize("dtype", FEW_DTYPES)
@pytest.mark.parametrize(("batch", "replacement"), [(1, True), (4, False)])
def test_batched_sgd_has_the_bits_of_the_cpu(gpu, batch, replacement, dtype, rng):
    """Runs with entries, rates and seeds of their own; one has ended before, one diverges."""
    widths = layout.as_widths((4, 3, 5))
    lanes = layout.lanes(dtype)
    runs = 11
    params = layout.to_lanes(rng.normal(size=(runs, layout.size(widths))).astype(dtype), lanes)
    chosen = np.stack([rng.permutation(20)[:9] for _ in range(runs)])
    kinds = (chosen // 4).astype(np.int32), (chosen % 4).astype(np.int32), rng.normal(size=(runs, 9)).astype(dtype)
    entries = Entries(*(layout.to_lanes(kind, lanes) for kind in kinds), dtype(9))
    rates = np.linspace(0.01, 0.02, runs).astype(dtype)
    rates[2] = 1e6
    ridges = np.linspace(0, 0.1, runs).astype(dtype)
    factors = np.stack([np.linspace(1, 0.5, 7), np.linspace(0.5, 1, 7)]).astype(dtype)
    rates = BatchRates(layout.to_lanes(rates, lanes), layout.to_lanes(ridges, lanes), factors)
    sampling = Sampling(layout.to_lanes(np.arange(runs, dtype=np.uint64), lanes), 5, batch, replacement)
    ours = params.copy()
    codes = np.full((len(params), lanes), OK, np.int64)
    codes[0, 4] = DIVERGED
    wanted = codes.copy()
    losses = np.empty(codes.shape, dtype)
    expected = np.empty(codes.shape, dtype)
    work = workspace.allocate_batch_sgd(widths, 9, batch, dtype)
    there = gpu.workspace.allocate_batch_sgd(widths, 9, batch, dtype)
    with np.errstate(all="ignore"):
        cpu.batch_sgd_steps(params, widths, entries, rates, sampling, expected, wanted, work)
        gpu.batch_sgd_steps(ours, widths, entries, rates, sampling, losses, codes, there)
    assert np.array_equal(codes, wanted)
    assert codes[0, 2] == DIVERGED
    assert np.array_equal(losses, expected)
    assert np.array_equal(ours, params)


@pytest.mark.parametrize(("ridge", "dtype"), [(0.1, np.float64), (0, np.float32)])
def test_adaptive_steps_have_the_bits_of_the_cpu(gpu, ridge, dtype, rng):
    """In two calls, the second of which makes its slopes again."""
    params, widths, _, work = make((3, 2, 3), dtype, stages=7)
    goal = _objectives(widths, dtype, "entries", rng)
    pair = tableau.DOPRI5.astype(dtype)
    ours = params.copy()
    states = [adaptive.adaptive_state(params) for _ in range(2)]
    there = gpu.workspace.allocate(widths, dtype, 7)
    losses, expected = np.empty(2, dtype), np.empty(2, dtype)
    for first in (0, 2):
        flow = adaptive.Flow(dtype(ridge), 0.4, 1e-3, 0.0, first)
        assert cpu.adaptive_rk_steps(params, widths, goal, flow, pair, expected, states[0], work) == OK
        assert gpu.adaptive_rk_steps(ours, widths, goal, flow, pair, losses, states[1], there) == OK
        assert np.array_equal(losses, expected)
        assert np.array_equal(ours, params)
        assert np.array_equal(states[0].base, states[1].base)
        assert np.array_equal(states[0].clock, states[1].clock)
        states[1].clock[adaptive.READY] = 0
        there = gpu.workspace.allocate(widths, dtype, 7)
    assert states[0].clock[adaptive.ACCEPTED] > 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n", "count"), [(1, 1, 1), (9, 5, 7), (4, 12, 3), (17, 2, 4)])
def test_products_have_the_bits_of_the_cpu(gpu, m, n, count, dtype, rng):
    work = workspace.allocate((20, 20, 20), dtype)
    shapes = {
        "matmul_nn": ((m, count), (count, n)),
        "matmul_tn": ((count, m), (count, n)),
        "matmul_nt": ((m, count), (n, count)),
    }
    for name, (left, right) in shapes.items():
        a = rng.normal(size=left).astype(dtype)
        b = rng.normal(size=right).astype(dtype)
        out, expected = np.empty((m, n), dtype), np.empty((m, n), dtype)
        getattr(gpu, name)(a, b, out, None)
        getattr(cpu, name)(a, b, expected, work)
        assert np.array_equal(out, expected)


def test_too_little_memory_is_said_before_anything_is_launched(gpu, monkeypatch):
    monkeypatch.setattr(gpu.workspace, "free_memory", lambda: 1000.0)
    with pytest.raises(gpu.DeviceMemoryError, match=r"a network of widths \(50, 50, 50\) needs .* GiB of memory"):
        gpu.workspace.allocate((50, 50, 50))
    work = gpu.workspace.allocate_batch((20, 20, 20), np.float64)
    with pytest.raises(gpu.DeviceMemoryError, match="a batch of 8 runs"):
        work.waves(2, 8, 100)
