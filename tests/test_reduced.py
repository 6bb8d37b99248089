"""Chains of numbers and compressed networks: the kernels against their reference, and both against whole layers."""

import warnings

import numpy as np
import pytest

import lrbias as lb
from backends import REFERENCE, cases
from lrbias.steppers import exact_reduction
from lrbias.steppers._reduction import CompressedStepper, DiagonalStepper
from lrcore import cpu, layout, tableau
from lrcore.cpu import workspace
from lrcore.status import DIVERGED, OK
from runs import fingerprint

VECTORS = np.array([[0, 1, 1, 1], [1, 0, 1, -1], [1, -1, 0, 1], [1, 1, -1, 0]]) / np.sqrt(3)
SYMMETRIC = VECTORS @ np.diag([10.0, 7.0, 5.0, -5.0]) @ VECTORS.T
SYMMETRIC = (SYMMETRIC + SYMMETRIC.T) / 2


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@cases("size", [16, 48, 112], [16, 48])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_chains_equal_the_reference(core, depth, size, dtype, rng):
    modes = rng.uniform(-1, 1, (depth, size)).astype(dtype)
    target = rng.normal(size=size).astype(dtype)
    weights = rng.integers(1, 9, size).astype(dtype)
    for name, extra, stages in (
        ("diagonal_gd_steps", (dtype(0.01),), 0),
        ("diagonal_rk_steps", (dtype(0.01), tableau.RK4.astype(dtype)), 4),
    ):
        results = []
        for side in (core, REFERENCE):
            own = modes.copy()
            losses = np.empty(core.pick(20, 4), dtype)
            work = side.workspace.allocate_diagonal(depth, size, dtype, stages)
            core.spoil(work)
            assert getattr(side, name)(own, target, weights, *extra, losses, work) == OK
            results.append((own, losses))
        tolerance = 1e-13 if dtype == np.float64 else 1e-5
        for mine, expected in zip(*results, strict=True):
            assert np.allclose(mine, expected, rtol=tolerance, atol=tolerance)


def test_chains_from_equal_layers_follow_the_recursion_of_the_paper(core):
    """d ← d − η d^{N−1} (d^N − λ); and from a perturbed first layer that for d_1 and d_2."""
    values, lr, depth, steps = np.array([10.0, 7.0, 5.0, -5.0]), *core.pick((1e-3, 3, 3000), (2e-2, 3, 20))
    values = np.concatenate([values, [3.0, 1.0, 0.0, -1.0]])
    modes, d = np.full((depth, 8), 0.1), np.full(8, 0.1)
    work = core.workspace.allocate_diagonal(depth, 8)
    ones = np.ones(8)
    core.diagonal_gd_steps(modes, values, ones, lr, np.empty(steps), work)
    for _ in range(steps):
        d = d - lr * d ** (depth - 1) * (d**depth - values)
    assert np.allclose(modes, d, rtol=1e-11)
    modes = np.full((depth, 8), 0.1)
    modes[0] = 0.05
    first = np.full(8, 0.05)
    other = np.full(8, 0.1)
    core.diagonal_gd_steps(modes, values, ones, lr, np.empty(steps), work)
    for _ in range(steps):
        rest = first * other ** (depth - 1) - values
        first, other = first - lr * other ** (depth - 1) * rest, other - lr * first * other ** (depth - 2) * rest
    assert np.allclose(modes, [first, other, other], rtol=1e-11)


def test_chains_that_diverge_say_so(core):
    modes = np.ones((2, 8))
    losses = np.full(50, -1.0)
    work = core.workspace.allocate_diagonal(2, 8)
    code = core.diagonal_gd_steps(modes, np.full(8, 5.0), np.ones(8), 9.0, losses, work)
    assert code == DIVERGED
    bad = int(np.argmin(np.isfinite(losses)))
    assert 0 < bad < 20
    assert (losses[bad + 1 :] == -1).all()


def _both(problem, network, method, steps, **options):
    """The run in its exact reduction and that of whole layers."""
    record = lb.Record(every=100, metrics=("singular_values", "gradient_norm"))
    arguments = {"record": record, "forecast": False, **options}
    short = lb.train(problem, network, method, steps, **arguments)
    return short, lb.train(problem, network, method, steps, compress="off", **arguments)


CASES = {
    "identical": (SYMMETRIC, lb.Network.scaled_identity(4, 3, 0.1), lb.GD(lr=1e-3), "diagonal"),
    "perturbed": (SYMMETRIC, lb.Network.perturbed(4, 3, 0.1, 0.05), lb.GD(lr=1e-3), "diagonal"),
    "perturbed flow": (SYMMETRIC, lb.Network.perturbed(4, 2, 0.1, 0.05), lb.GradientFlow(dt=1e-3), "diagonal"),
    "orthogonal": (
        lb.from_singular_values((20, 20), [4.0, 2.0, 1.0], seed=1),
        lb.Network.orthogonal((20,) * 4, 0.3, seed=2),
        lb.GD(lr=2e-3),
        "compressed",
    ),
    "orthogonal flow": (
        lb.from_singular_values((20, 20), [4.0, 2.0], seed=3),
        lb.Network.orthogonal((20,) * 3, 0.2, seed=4),
        lb.GradientFlow(dt=2e-3),
        "compressed",
    ),
    "identical, not symmetric": (
        lb.from_singular_values((16, 16), [4.0, 2.0], seed=5),
        lb.Network.perturbed(16, 3, 0.3, 0.1),
        lb.GD(lr=2e-3),
        "compressed",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_short_form_is_the_run_of_whole_layers(case):
    """Over 10 000 steps, to 1e-10 of the largest entry: losses, parameters, everything recorded."""
    target, network, method, form = case
    short, whole = _both(lb.Factorization(target), network, method, 10_000)
    assert (short.reduced, whole.reduced) == (form, None)
    assert f"trained in {form} form" in repr(short)
    assert short.names == whole.names
    for name in short.names:
        scale = np.abs(whole[name]).max()
        assert np.abs(short[name] - whole[name]).max() < 1e-10 * scale, name
    gap = np.abs(short.network.params - whole.network.params).max()
    assert gap < 1e-10 * np.abs(whole.network.params).max()
    assert short.losses[-1] < 0.6 * short.losses[0], "something was learnt"


def test_without_the_structure_there_is_no_short_form():
    method = lb.GD(lr=1e-3)
    symmetric, low = lb.Factorization(SYMMETRIC), lb.Factorization(lb.from_singular_values((20, 20), [2.0], seed=1))
    gaussian = lb.Network.gaussian((4,) * 4, seed=1)
    assert exact_reduction(method, symmetric, gaussian) is None
    assert exact_reduction(method, low, lb.Network.gaussian((20,) * 3, seed=1)) is None
    assert exact_reduction(method, symmetric, lb.Network.scaled_identity(4, 3, 0.1, "float32")) is None
    assert exact_reduction(method, low, lb.Network.orthogonal((20, 30, 20), 0.1)) is None
    full = lb.Factorization(lb.from_singular_values((20, 20), np.arange(1, 21.0), seed=1))
    assert exact_reduction(method, full, lb.Network.orthogonal((20,) * 3, 0.1)) is None, "not shorter"
    bent = lb.Network.scaled_identity(4, 3, 0.1)
    bent.layers[1][0, 1] = 1e-9
    assert exact_reduction(method, symmetric, bent) is None
    assert isinstance(exact_reduction(method, symmetric, lb.Network.scaled_identity(4, 3, 0.1)), DiagonalStepper)
    assert isinstance(exact_reduction(method, low, lb.Network.orthogonal((20,) * 3, 0.1)), CompressedStepper)


@pytest.mark.parametrize("form", ["perturbed", "orthogonal"])
def test_short_forms_are_resumed_with_the_same_bits(form, tmp_path):
    target, network, method, _ = CASES[form]
    problem = lb.Factorization(target)
    arguments = {
        "record": lb.Record(every=20, metrics=("singular_values",)),
        "forecast": False,
        "checkpoint_every": 150,
    }
    whole = lb.train(problem, network, method, 1000, **arguments)
    lb.train(problem, network, method, 400, store=tmp_path / "r", **arguments)
    again = lb.resume(tmp_path / "r", steps=1000)
    assert again.reduced == whole.reduced
    assert fingerprint(again) == fingerprint(whole)
    again = lb.resume(tmp_path / "r", from_checkpoint=300)
    assert fingerprint(again) == fingerprint(whole)


def test_short_forms_stop_and_fail_like_others(tmp_path):
    target, network, method, _ = CASES["perturbed"]
    problem = lb.Factorization(target)
    record = lb.Record(every=50, metrics=("singular_values",))
    free = lb.train(problem, network, method, 3000, record, forecast=False)
    threshold = free.losses[2000] * 1.0001
    run = lb.train(problem, network, method, 3000, record, lb.Stop(loss=threshold), forecast=False)
    assert run.step == int(np.argmax(free.losses <= threshold))
    assert np.array_equal(run.losses[:-1], free.losses[: run.step])
    assert run.losses[-1] == pytest.approx(free.losses[run.step], rel=1e-12)
    diverged = lb.train(problem, network, lb.GD(lr=5.0), 3000, record, forecast=False)
    assert diverged.status == "diverged"

    class Fails:
        calls = 0

        def __call__(self, network):
            self.calls += 1
            if self.calls > 8:
                raise RuntimeError("no more")
            return 0.0

    failing = lb.Record(every=50, metrics={"singular_values": 50, "mine": Fails()})
    with pytest.raises(RuntimeError, match="no more"):
        lb.train(problem, network, method, 1000, failing, store=tmp_path / "r", forecast=False)
    again = lb.resume(tmp_path / "r", metrics={"mine": lambda network: 0.0})
    assert np.array_equal(again.losses[:-1], free.losses[:1000])


def test_starts_are_what_they_say():
    perturbed = lb.Network.perturbed(3, 4, 0.5, 0.2)
    assert np.array_equal(perturbed.layers[0], 0.3 * np.eye(3))
    assert all(np.array_equal(layer, 0.5 * np.eye(3)) for layer in perturbed.layers[1:])
    orthogonal = lb.Network.orthogonal((5, 3, 7, 7), 0.4, seed=1)
    for layer in orthogonal.layers:
        assert np.allclose(np.linalg.svd(layer)[1], 0.4)
    balanced = lb.Network.balanced((6, 4, 9, 5), 0.5, seed=2)
    out = np.empty(2)
    cpu.balancedness(balanced.params, layout.as_widths(balanced.widths), out, workspace.allocate(balanced.widths))
    assert (out < 1e-15).all()
    assert np.linalg.norm(balanced.product(), 2) == pytest.approx(0.5**3)
    assert (np.linalg.svd(balanced.product())[1] > 1e-6).sum() == 4


def test_limits_of_the_theorems_are_warned_of():
    problem = lb.Factorization(SYMMETRIC)
    record = lb.Record(metrics=())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lb.train(problem, lb.Network.perturbed(4, 3, 0.1, 0.09), lb.GD(lr=1e-3), 3000, record)
        sentences = [str(warning.message) for warning in caught]
    assert any(s.startswith("lr = 0.001 is not below") and "recovery is proven" in s for s in sentences)
    assert any(s.startswith("beta = 0.09 is not below") for s in sentences)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lb.train(problem, lb.Network.scaled_identity(4, 3, 0.1), lb.GD(lr=1e-3), 3000, record)
    assert [str(w.message) for w in caught] == []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bent = lb.Factorization(SYMMETRIC + np.triu(np.ones((4, 4)), 1))
        lb.train(bent, lb.Network.scaled_identity(4, 3, 0.1), lb.GD(lr=1e-3), 3000, record)
    assert any("the target is not symmetric" in str(w.message) for w in caught)
