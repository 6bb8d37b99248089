"""Single-entry SGD: against its definition, autograd, the mean gradient; the same bits in pieces and in a batch."""

import hashlib
import json

import numpy as np
import pytest
from scipy import stats

from backends import CPU, REFERENCE, at_full_size, cases, everywhere
from conftest import ROOT
from lrcore import cpu, layout, objective, random, reference, tableau
from lrcore.objective import BatchRates, Entries, Sampling
from lrcore.status import DIVERGED, OK
from networks import WIDTHS, make, relative

SMALL = [(4, 4), (7, 3, 5), (1, 9, 2, 6), (10, 10, 10, 10), (3, 5, 1, 4, 2, 6), (1, 1), (20, 18, 35, 9)]
SAMPLINGS = [(1, True), (1, False), (3, True), (5, False)]  # (batch, replacement)


def entries_of(target, count, seed=0, weight=1.0):
    """`count` entries of a matrix, or all of them."""
    chosen = np.random.default_rng(seed).permutation(target.size)[:count]
    rows, columns = np.unravel_index(chosen, target.shape)
    return Entries(rows, columns, target[rows, columns], target.dtype.type(weight))


def train(core, params, widths, entries, rates, ridges, sampling, pieces=None):
    """(params, losses, status); pieces: steps of each call."""
    params, losses, first = params.copy(), np.full(rates.size, np.nan, params.dtype), sampling.first
    work = core.workspace.allocate_sgd(widths, entries.rows.size, sampling.batch, params.dtype)
    for steps in pieces or [rates.size]:
        part = slice(first - sampling.first, first - sampling.first + steps)
        now = sampling._replace(first=first)
        status = core.sgd_steps(params, widths, entries, rates[part], ridges[part], now, losses[part], work)
        first += steps
    return params, losses, status


def case(widths, count=12, dtype=np.float64, steps=40):
    params, widths, target, _ = make(widths, dtype)
    rng = np.random.default_rng(5)
    entries = entries_of(target, min(count, target.size), weight=1.5)
    return (
        params,
        widths,
        entries,
        rng.uniform(0.01, 0.1, steps).astype(dtype),
        rng.uniform(0, 0.1, steps).astype(dtype),
    )


@pytest.mark.parametrize(("batch", "replacement"), SAMPLINGS)
@cases("widths", SMALL + WIDTHS[4:5])
def test_steps_equal_the_reference(core, widths, batch, replacement):
    params, widths, entries, rates, ridges = case(widths, steps=core.steps(40))
    sampling = Sampling(np.uint64(7), 11, min(batch, entries.rows.size), replacement)
    found = train(core, params, widths, entries, rates, ridges, sampling)
    expected = train(REFERENCE, params, widths, entries, rates, ridges, sampling)
    assert found[2] == expected[2] == OK
    assert relative(found[0], expected[0]) < 1e-12
    assert relative(found[1], expected[1]) < 1e-12


@cases("widths", SMALL)
def test_one_step_equals_autograd(core, widths):
    """One entry with ridge: the step is that of PyTorch's SGD on ½ (W_rc − Ŵ_rc)² + λ Σ ‖W_i‖²."""
    torch = pytest.importorskip("torch")
    params, widths, entries, _, _ = case(widths)
    entries = entries._replace(weight=1.0)
    lr = 0.3
    ridge = 0.05
    sampling = Sampling(np.uint64(1), 4, 1, True)
    layers = [torch.tensor(layer, requires_grad=True) for layer in layout.layers(params, widths)]
    drawn = np.empty(1, np.int64)
    core.draws(np.uint64(1), np.uint64(random.SAMPLE), 4, True, np.zeros(entries.rows.size + 2, np.int64), drawn)
    product = layers[0]
    for layer in layers[1:]:
        product = layer @ product
    residual = product[int(entries.rows[drawn[0]]), int(entries.columns[drawn[0]])] - entries.values[drawn[0]]
    (0.5 * residual**2 + ridge * sum((layer**2).sum() for layer in layers)).backward()
    expected = params - lr * np.concatenate([layer.grad.numpy().ravel() for layer in layers])
    found, losses, _ = train(core, params, widths, entries, np.array([lr]), np.array([ridge]), sampling)
    assert relative(found, expected) < 1e-12
    assert losses[0] == pytest.approx(0.5 * float(residual.detach()) ** 2, rel=1e-12)


@cases("widths", SMALL)
def test_the_mean_of_all_single_steps_is_the_step_of_the_mean_loss(core, widths):
    params, widths, target, _ = make(widths)
    entries = entries_of(target, 9)
    lr = np.array([0.2])
    ridge = np.array([0.01])
    count = entries.rows.size
    steps = []
    for k in range(count):
        alone = Entries(*(part[k : k + 1] for part in entries[:3]), 1.0)
        steps.append(train(core, params, widths, alone, lr, ridge, Sampling(np.uint64(0), 0, 1, True))[0])
    weights = np.zeros_like(target)
    weights[entries.rows, entries.columns] = 1 / count
    goal = objective.weighted(target, weights)
    losses = np.empty(1)
    whole = params.copy()
    core.objective_gd_steps(whole, widths, goal, lr, ridge, losses, core.workspace.allocate(widths))
    assert relative(np.mean(steps, axis=0), whole) < 1e-12
    batch = Sampling(np.uint64(0), 0, count, False)  # all entries without replacement: the same step
    assert relative(train(core, params, widths, entries, lr, ridge, batch)[0], whole) < 1e-12


@pytest.mark.parametrize(("batch", "replacement"), SAMPLINGS)
def test_bits_do_not_depend_on_the_length_of_the_calls(core, batch, replacement):
    widths, pieces = core.pick(((10, 10, 10, 10), [1, 2, 3, 294, 400]), ((4, 3, 5), [1, 2, 3, 6]))
    params, widths, entries, rates, ridges = case(widths, steps=sum(pieces))
    sampling = Sampling(np.uint64(7), 5, batch, replacement)
    whole = train(core, params, widths, entries, rates, ridges, sampling)
    found = train(core, params, widths, entries, rates, ridges, sampling, pieces)
    assert np.array_equal(whole[0], found[0])
    assert np.array_equal(whole[1], found[1])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("batch", "replacement"), SAMPLINGS)
@cases("widths", SMALL, [(4, 4), (2, 2, 3, 2)])
def test_runs_of_a_batch_have_the_bits_that_they_have_alone(core, widths, batch, replacement, dtype):
    """Every run has its own start, entries, rates and seed; one of them diverges."""
    runs, pieces = core.pick((19, [25, 35]), (5, [3, 6]))
    steps = sum(pieces)
    rng = np.random.default_rng(1)
    base, widths, target, _ = make(widths, dtype)
    count = min(11, target.size)
    batch = min(batch, count)
    own = [entries_of((target * rng.normal()).astype(dtype), count, seed) for seed in range(runs)]
    params = (base + 0.1 * rng.normal(size=(runs, base.size))).astype(dtype)
    lr = rng.uniform(0.01, 0.1, runs).astype(dtype)
    ridge = rng.uniform(0, 0.05, runs).astype(dtype)
    lr[3] = core.pick(1e4, 1e9) if len(widths) > 2 else np.finfo(dtype).max
    factors = rng.uniform(0.5, 1, (2, steps)).astype(dtype)
    seeds = rng.integers(0, 2**63, runs).astype(np.uint64)
    found = _train_batch(core, params, widths, own, (lr, ridge, factors), (seeds, batch, replacement), pieces)
    codes = []
    for i in range(runs):
        sampling = Sampling(seeds[i], 100, batch, replacement)
        alone = train(core, params[i], widths, own[i], lr[i] * factors[0], ridge[i] * factors[1], sampling)
        np.testing.assert_array_equal(found[0][i], alone[0])
        codes.append(alone[2])
        if alone[2] == OK:
            mean = alone[1][pieces[0] :].mean()
            rel = 1e-4 if dtype == np.float32 else 1e-12
            assert found[1][i] == pytest.approx(mean, rel=rel)
    assert np.array_equal(found[2], codes)
    assert codes[3] == DIVERGED
    assert codes.count(OK) == runs - 1


def _train_batch(core, params, widths, own, rates, sampling, pieces, first=100):
    """(params, losses of the last call, statuses), a row per run."""
    (lr, ridge, factors), (seeds, batch, replacement), runs = rates, sampling, len(params)
    lanes = core.lanes(params.dtype)
    rows, columns, values = (np.stack([getattr(e, name) for e in own]) for name in ("rows", "columns", "values"))
    blocked = [layout.to_lanes(array, lanes) for array in (rows.astype("i4"), columns.astype("i4"), values)]
    entries = Entries(*blocked, own[0].weight)
    made = layout.to_lanes(params, lanes)
    lr, ridge, seeds = (layout.to_lanes(array, lanes) for array in (lr, ridge, seeds))
    work = core.workspace.allocate_batch_sgd(widths, rows.shape[1], batch, params.dtype)
    statuses = np.full(lr.shape, OK)
    done = 0
    for steps in pieces:
        losses = np.zeros(lr.shape, params.dtype)
        own_rates = BatchRates(lr, ridge, factors[:, done : done + steps])
        now = Sampling(seeds, first + done, batch, replacement)
        core.batch_sgd_steps(made, widths, entries, own_rates, now, losses, statuses, work)
        done += steps
    return tuple(layout.from_lanes(array, runs) for array in (made, losses, statuses))


def sgd_hash(core=CPU):
    """Of losses and parameters after steps of every kernel that sees part of a target."""
    digest = hashlib.sha256()
    for widths in ((10, 10, 10, 10), (4, 4), (3, 5, 1, 4, 2, 6)):
        for batch, replacement in ((1, True), (3, False)):
            given = case(widths)
            for array in train(core, *given, Sampling(np.uint64(7), 3, batch, replacement))[:2]:
                digest.update(array.tobytes())
        params, sizes, entries, rates, ridges = given
        factors = np.stack([rates, ridges])
        lr = np.array([1.0, 0.7, 0.4])
        starts = np.stack([params, -params, params / 2])
        seeds = np.arange(3, dtype=np.uint64)
        made = _train_batch(core, starts, sizes, [entries] * 3, (lr, lr, factors), (seeds, 2, True), [40])
        digest.update(made[0].tobytes() + made[1].tobytes())
        weights = np.linspace(0, 1, sizes[-1] * sizes[0]).reshape(sizes[-1], sizes[0])
        goal = objective.weighted(weights - 0.5, weights)
        losses = np.empty(40)
        work = core.workspace.allocate(sizes, stages=4)
        core.objective_gd_steps(params, sizes, goal, rates, ridges, losses, work)
        digest.update(losses.tobytes())
        pair = tableau.RK4.a, tableau.RK4.b
        core.objective_rk_steps(params, sizes, goal, 0.1, 0.02, pair, losses, work)
        digest.update(losses.tobytes() + params.tobytes())
    return digest.hexdigest()


@at_full_size
def test_the_golden_hash_of_sgd(core):
    assert sgd_hash(core) == json.loads((ROOT / "tests/golden.json").read_text())["sgd"]


def test_a_batch_equals_the_reference(core):
    base, widths, target, _ = make((4, 3, 5))
    own = [entries_of(target, 7, seed) for seed in range(3)]
    params = np.stack([base * scale for scale in (1, 0.5, -1)])
    pieces = core.pick([10, 20], [3, 4])
    rates = np.array([0.1, 0.05, 0.02]), np.array([0.0, 0.1, 0.02]), np.ones((2, sum(pieces)))
    for sampling in ((np.arange(3, dtype=np.uint64), 2, True), (np.arange(3, dtype=np.uint64), 3, False)):
        found, expected = (
            _train_batch(side, params, widths, own, rates, sampling, pieces) for side in (core, REFERENCE)
        )
        assert relative(found[0], expected[0]) < 1e-12
        assert relative(found[1], expected[1]) < 1e-12


@everywhere
@pytest.mark.parametrize(("first", "flushed"), [(1024, True), (1025, False)])
def test_weights_that_nothing_holds_become_zero_at_certain_steps(core, first, flushed):
    """Otherwise a ridge makes them so small that arithmetic on them takes many times as long."""
    params, widths, entries, rates, ridges = case((4, 4, 4), steps=1)
    params[:5] = [1e-31, -1e-40, 1e-29, 5e-324, 0]
    found, _, _ = train(core, params, widths, entries, rates, ridges, Sampling(np.uint64(0), first, 1, True))
    assert list(found[:5] != 0) == ([False, False, True, False, False] if flushed else list(params[:5] != 0))


def test_runs_that_collapse_have_the_bits_that_they_have_alone(core):
    """A ridge that is too large: within some thousand steps, or at the next multiple of 1024, every weight is 0."""
    base, widths, target, _ = make((4, 4, 4))
    first, pieces, lr, ridge = core.pick((100, [2000, 4000], 0.1, [1.0, 0.3]), (1010, [10, 10], 1e-3, [499.5, 490]))
    entries = entries_of(target, 7)
    steps = sum(pieces)
    params = np.stack([base, base / 2])
    lr = np.full(2, lr)
    ridge = np.array(ridge)
    rates = (lr, ridge, np.ones((2, steps)))
    seeds = np.arange(2, dtype=np.uint64)
    made, _, _ = _train_batch(core, params, widths, [entries] * 2, rates, (seeds, 1, True), pieces, first)
    for i in range(2):
        sampling = Sampling(seeds[i], first, 1, True)
        alone = train(core, params[i], widths, entries, np.full(steps, lr[i]), np.full(steps, ridge[i]), sampling)
        assert np.array_equal(made[i], alone[0])
    assert not made[0].any()


@everywhere
def test_a_loss_that_is_not_finite_ends_the_call_and_changes_nothing(core):
    params, widths, entries, rates, ridges = case((4, 4, 4))
    start = params * 1e200
    with np.errstate(all="ignore"):
        found, losses, status = train(core, start, widths, entries, rates, ridges, Sampling(np.uint64(0), 0, 1, True))
    assert status == DIVERGED
    assert np.array_equal(found, start)
    assert np.isnan(losses[1:]).all()


@pytest.mark.parametrize(("first", "count"), [(0, 40), (13, 9), (2**34 + 3, 30)])
@pytest.mark.parametrize("replacement", [True, False])
def test_draws_equal_the_reference(first, count, replacement):
    found, expected = np.empty(count, np.int64), np.empty(count, np.int64)
    name = np.uint64(2**63 + 9), np.uint64(4)
    cpu.draws(*name, first, replacement, np.zeros(9, np.int64), found)
    reference.draws(*name, first, replacement, np.zeros(9, np.int64), expected)
    assert np.array_equal(found, expected)


def test_a_permutation_that_is_kept_is_not_taken_for_that_of_another_seed():
    order = np.zeros(9, np.int64)
    found = []
    for seed in (1, 2, 1):
        found.append(np.empty(7, np.int64))
        cpu.draws(np.uint64(seed), np.uint64(4), 0, False, order, found[-1])
    assert not np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_draws_with_replacement_are_uniform_and_independent():
    out = np.empty(60_000, np.int64)
    count = 10
    cpu.draws(np.uint64(3), np.uint64(4), 0, True, np.zeros(count + 2, np.int64), out)
    assert stats.chisquare(np.bincount(out, minlength=count)).pvalue > 1e-4
    pairs = np.bincount(out[:-1] * count + out[1:], minlength=count * count)
    assert stats.chisquare(pairs).pvalue > 1e-4


def test_draws_without_replacement_are_fresh_uniform_permutations():
    out = np.empty(6 * 20_000, np.int64)
    count = 6
    cpu.draws(np.uint64(3), np.uint64(4), 0, False, np.zeros(count + 2, np.int64), out)
    epochs = out.reshape(-1, count)
    assert (np.sort(epochs) == np.arange(count)).all()
    _, counts = np.unique(epochs, axis=0, return_counts=True)
    assert counts.size == 720
    assert stats.chisquare(counts).pvalue > 1e-4
