"""Tied networks UUᵀ: layers that stay tied bit for bit, the flow in closed form, and which losses they are for."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import lrbias as lb
from lrbias.experiments import Experiment, read_toml
from lrbias.problems._factorization import gaussian
from lrbias.problems._observed import restore
from lrbias.steppers import steps_of
from lrbias.sweeps._batches import plan_batches
from lrcore import random
from runs import call, fingerprint, settings


def _symmetric(n, values, seed=0):
    """A symmetric matrix, bit for bit, with these eigenvalues and zeros."""
    vectors = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, len(values))))[0]
    matrix = (vectors * values) @ vectors.T
    return (matrix + matrix.T) / 2


def _losses(n, seed=0):
    """{name: a loss of every kind that equals its mirror}; H has a negative eigenvalue, which UUᵀ cannot reach."""
    target = _symmetric(n, [1.0, 0.7, 0.4, -0.5], seed)
    matrices = np.random.default_rng(seed).normal(size=(3 * n, n, n)) / n
    matrices = matrices + matrices.transpose(0, 2, 1)
    return {
        "whole": lb.Factorization(target),
        "entries": lb.Completion(target, fraction=0.6, symmetric_mask=True),
        "mean": lb.Completion(target, fraction=0.6, symmetric_mask=True, reduction="mean"),
        "measurements": lb.Sensing(matrices, np.einsum("kij,ij->k", matrices, target), target),
    }


METHODS = {
    "gd": lb.GD(lr=0.05),
    "gd, ridge": lb.GD(lr=0.05, ridge=0.01),
    "gd, schedule": lb.GD(lr=0.05, lr_schedule="exponential_decay:factor=0.1,stop=1000"),
    "rk4": lb.GradientFlow(dt=0.05),
    "heun, ridge": lb.GradientFlow(dt=0.05, scheme="heun", ridge=0.01),
}
TARGET = _symmetric(6, [2.0, 1.0, -0.8])
QUIET = {"record": lb.Record(metrics=()), "forecast": False}


def _trained(problem, network, method, steps, threads=1):
    """(layers, losses) after so many steps of the kernel."""
    params = network.params.copy()
    losses = np.empty(steps, network.dtype)
    steps_of(method, problem, network.widths, network.dtype, threads)(params, losses)
    return lb.Network(params, network.widths).layers, losses


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", _losses(4))
def test_layers_stay_tied_bit_for_bit(kind, method, dtype):
    network = lb.Network.tied((10, 7, 10), 0.1, seed=1, dtype=dtype)
    (below, above), losses = _trained(_losses(10)[kind], network, METHODS[method], 3000)
    assert np.array_equal(above, below.T)
    assert above.dtype == dtype
    assert losses[-1] < losses[0]
    assert not np.array_equal(above, network.layers[1])


@pytest.mark.parametrize("kind", ["whole", "entries", "measurements"])
@pytest.mark.parametrize(("method", "widths"), [("gd", (70, 33, 70)), ("rk4", (35, 50, 35))])
def test_layers_stay_tied_with_two_threads(kind, method, widths):
    """Several panels for each thread, and a remainder."""
    network = lb.Network.tied(widths, 0.3, seed=2)
    problem = _losses(widths[0])[kind]
    alone, shared = (_trained(problem, network, METHODS[method], 200, threads)[0] for threads in (1, 2))
    assert np.array_equal(shared[1], shared[0].T)
    assert not np.array_equal(shared[1], network.layers[1])
    assert np.array_equal(shared[1], alone[1])


@pytest.mark.parametrize("kind", _losses(4))
def test_a_flow_that_chooses_its_steps_keeps_them_tied(kind):
    problem = _losses(10)[kind]
    network = lb.Network.tied((10, 7, 10), 0.1, seed=1)
    run = lb.train(problem, network, lb.GradientFlow(dt=0.5, scheme="dopri5"), 100, **QUIET)
    assert np.array_equal(run.network.layers[1], run.network.layers[0].T)
    assert run.losses[-1] < run.losses[0]


def test_the_last_bit_of_one_entry_breaks_the_tie():
    """So the loss has to be symmetric exactly, and not up to rounding."""
    target = TARGET.copy()
    target[0, 5] = np.nextafter(target[0, 5], 9)
    problem = lb.Factorization(target)
    assert problem.symmetric
    assert not problem.symmetric_loss
    below, above = _trained(problem, lb.Network.tied((6, 6, 6), 0.1), lb.GD(lr=0.05), 3000)[0]
    assert not np.array_equal(above, below.T)


def _closed_form(target, half, t):
    """UUᵀ at time t of U' = (H − UUᵀ)U: e^{tH} X (I + Xᵀ A X)⁻¹ Xᵀ e^{tH}, A = 2 ∫_0^t e^{2sH} ds, X the start."""
    values, vectors = np.linalg.eigh(target)
    safe = np.where(values == 0, 1, values)
    doubled = np.where(values == 0, 2 * t, np.expm1(2 * t * values) / safe)
    seen = vectors.T @ half
    grown = np.exp(t * values)[:, None] * (vectors.T @ half)
    inner = np.eye(half.shape[1]) + seen.T @ (doubled[:, None] * seen)
    return vectors @ grown @ np.linalg.solve(inner, grown.T) @ vectors.T


@pytest.mark.parametrize("d", [2, 6, 9])
@pytest.mark.parametrize(("scheme", "order"), [("rk4", 4), ("heun", 2), ("euler", 1)])
def test_the_flow_is_that_of_the_closed_form(scheme, order, d):
    """U' = −∇f(UUᵀ)U for f = ½‖· − H‖²: the error falls with the order of the scheme."""
    network = lb.Network.tied((6, d, 6), 0.3, seed=4)
    errors = []
    exact = _closed_form(TARGET, network.layers[1], 4.0)
    moved = np.abs(exact - network.product()).max()
    assert moved > 0.3
    for steps in (80, 160, 320):
        method = lb.GradientFlow(dt=4.0 / steps, scheme=scheme)
        run = lb.train(lb.Factorization(TARGET), network, method, steps, **QUIET)
        errors.append(np.abs(run.network.product() - exact).max())
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(2**order, rel=0.15)
    assert errors[2] < {4: 1e-8, 2: 1e-3, 1: 0.1}[order] * moved


def test_the_flow_of_a_ridge_is_that_of_a_smaller_target():
    """U' = (H − 2λ − UUᵀ)U."""
    network = lb.Network.tied((6, 4, 6), 0.3, seed=4)
    ridge = 0.1
    run = lb.train(lb.Factorization(TARGET), network, lb.GradientFlow(dt=0.0125, ridge=ridge), 320, **QUIET)
    exact = _closed_form(TARGET - 2 * ridge * np.eye(6), network.layers[1], 4.0)
    assert np.abs(run.network.product() - exact).max() < 1e-8


def test_a_whole_run_finds_the_leading_positive_eigenvalues():
    """A network of width 1 has the first one, wider ones have both that are positive."""
    target = _symmetric(6, [2.0, 1.0, -0.4, -0.5, -0.6, -0.7])
    vectors = np.linalg.eigh(target)[1]
    for d, expected in ((1, [2.0]), (3, [2.0, 1.0])):
        network = lb.Network.tied((6, d, 6), 0.01, seed=3)
        run = lb.train(lb.Factorization(target), network, lb.GD(lr=0.05), 1000, forecast=False)
        leading = vectors[:, ::-1][:, : len(expected)]
        assert np.abs(run.network.product() - (leading * expected) @ leading.T).max() < 1e-10
        assert run.reduced is None
        assert np.allclose(run["product/singular_values"][-1][: len(expected)], expected, atol=1e-10)
        assert np.allclose(
            run["layer/1/singular_values"][:, :d] ** 2, run["product/singular_values"][:, :d], rtol=1e-9, atol=1e-12
        )
        assert (run["layer/1/balancedness"] < 1e-15).all()
        assert np.array_equal(run.network.layers[1], run.network.layers[0].T)


def test_a_start_is_what_it_says():
    n, d, alpha = 200, 50, 0.4
    network = lb.Network.tied((n, d, n), alpha, seed=7)
    below, above = network.layers
    assert above.shape == (n, d)
    assert np.array_equal(above, below.T)
    normals = gaussian((n, d), 7, 1, random.NETWORK)
    assert np.allclose(above, normals * alpha / np.sqrt(n), rtol=1e-15)
    scaled = above * np.sqrt(n) / alpha  # n d = 10⁴ of them
    assert abs(scaled.mean()) < 5 / np.sqrt(n * d)
    assert abs(scaled.std() - 1) < 5 / np.sqrt(2 * n * d)
    assert (np.abs(scaled) < 1).mean() == pytest.approx(0.6827, abs=0.025)
    assert np.linalg.norm(above, 2) == pytest.approx(alpha * (1 + np.sqrt(d / n)), rel=0.03)
    assert np.array_equal(lb.Network.tied((n, d, n), alpha, seed=7).params, network.params)
    assert not np.array_equal(lb.Network.tied((n, d, n), alpha, seed=8).params, network.params)
    rounded = lb.Network.tied((n, d, n), alpha, seed=7, dtype="float32")
    assert np.array_equal(rounded.params, network.params.astype(np.float32))


def test_tied_networks_know_that_they_are():
    network = lb.Network.tied((4, 3, 4), 0.1)
    assert network.is_tied
    assert network.copy().is_tied
    assert not lb.Network.gaussian((4, 3, 4)).is_tied
    assert not lb.Network.from_layers(network.layers).is_tied
    expected = {"init": "tied", "widths": [4, 3, 4], "alpha": 0.1, "seed": 0, "dtype": "float64"}
    assert network.settings() == expected


def _one_sided(matrix):
    """The matrix with another entry (0, 1)."""
    matrix = matrix.copy()
    matrix[0, 1] += 1
    return matrix


def test_a_loss_is_symmetric_when_all_that_it_sees_is():
    every, hole = np.ones((6, 6)), np.ones((6, 6))
    hole[[0, 1], [1, 0]] = 0
    assert all(problem.symmetric_loss for problem in _losses(6).values())
    assert not lb.Factorization(_one_sided(TARGET)).symmetric_loss
    assert not lb.Factorization(TARGET[:4]).symmetric_loss
    assert not lb.Completion(_one_sided(TARGET), every).symmetric_loss
    assert lb.Completion(_one_sided(TARGET), hole).symmetric_loss  # what is hidden does not matter
    assert lb.Completion(np.where(hole, TARGET, np.nan)).symmetric_loss
    hole[0, 1] = 1
    assert not lb.Completion(TARGET, hole).symmetric_loss
    assert not lb.Completion(np.where(hole, TARGET, np.nan)).symmetric_loss
    matrices = np.stack([TARGET, _one_sided(TARGET)])
    assert not lb.Sensing(matrices, [1, 2]).symmetric_loss
    assert lb.Sensing(matrices[:1], [1], _one_sided(TARGET)).symmetric_loss  # nor does the truth that was measured


TIED = lb.Network.tied((6, 4, 6), 0.1)
REFUSED = {
    "one layer": (lambda: lb.Network.tied((6, 6), 0.1), "widths = (6, 6)", "(n, d, n)"),
    "three layers": (lambda: lb.Network.tied((6, 6, 6, 6), 0.1), "widths = (6, 6, 6, 6)", "depth 2"),
    "not square": (lambda: lb.Network.tied((6, 4, 5), 0.1), "widths = (6, 4, 5)", "(n, d, n)"),
    "alpha": (lambda: lb.Network.tied((6, 4, 6), 0), "alpha = 0", "greater than 0"),
    "seed": (lambda: lb.Network.tied((6, 4, 6), 0.1, seed=-1), "seed = -1", "2^64"),
    "dtype": (lambda: lb.Network.tied((6, 4, 6), 0.1, dtype="half"), "dtype = 'half'", "float64 or float32"),
    "target": (
        lambda: lb.Factorization(_one_sided(TARGET)).check(TIED),
        "init = 'tied'",
        "(target + target.T) / 2",
    ),
    "mask": (lambda: lb.Completion(TARGET, np.tri(6)).check(TIED), "init = 'tied'", "mask"),
    "measurements": (lambda: lb.Sensing([np.tri(6)], [1]).check(TIED), "init = 'tied'", "measurements"),
    "shape": (lambda: lb.Factorization(np.eye(5)).check(TIED), "widths = (6, 4, 6)", "end with 5"),
    "SGD": (lambda: TIED.check_method(lb.SGD(lr=0.1)), "method = 'sgd'", "gd or flow"),
    "pairs of rectangles": (
        lambda: lb.Completion(TARGET[:4], entries=3, symmetric_mask=True),
        "symmetric_mask = True",
        "not square",
    ),
    "pairs of a mask": (
        lambda: lb.Completion(TARGET, np.tri(6), symmetric_mask=True),
        "symmetric_mask = True",
        "to be drawn",
    ),
    "pairs of positions": (
        lambda: lb.Completion(TARGET, entries=[[0, 1]], symmetric_mask=True),
        "symmetric_mask = True",
        "be drawn",
    ),
    "pairs of all": (lambda: lb.Completion(TARGET, symmetric_mask=True), "symmetric_mask = True", "to be drawn"),
    "pairs, a number": (
        lambda: lb.Completion(TARGET, entries=3, symmetric_mask=1),
        "symmetric_mask = 1",
        "True or False",
    ),
    "too many pairs": (
        lambda: lb.Completion(TARGET, entries=22, symmetric_mask=True),
        "entries = 22",
        "at most 21, the known pairs",
    ),
    "too few pairs": (
        lambda: lb.Completion(TARGET, fraction=0.01, symmetric_mask=True),
        "fraction = 0.01",
        "at least 0.0476",
    ),
    "no pair is known": (
        lambda: lb.Completion(np.where(np.tri(6, k=-1), TARGET, np.nan), entries=1, symmetric_mask=True),
        "symmetric_mask = True",
        "both entries are known",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_accepted(case):
    refused, *needles = REFUSED[case]
    with pytest.raises(lb.InvalidInput) as caught:
        refused()
    for needle in needles:
        assert needle in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_networks_take_any_loss_and_method():
    lb.Factorization(_one_sided(TARGET)).check(lb.Network.from_layers(TIED.layers))
    lb.Network.from_layers(TIED.layers).check_method(lb.SGD(lr=0.1))
    TIED.check_method(lb.GD(lr=0.1))
    TIED.check_method(lb.GradientFlow(dt=0.1))


def test_training_asks_for_a_symmetric_loss(tmp_path):
    problem = lb.Factorization(_one_sided(TARGET))
    with pytest.raises(lb.InvalidInput, match="init = 'tied'"):
        lb.train(problem, TIED, lb.GD(lr=0.1), 5, store=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _drawn(**changes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lb.DataWarning)
        return lb.Completion(TARGET, **changes, symmetric_mask=True)


@pytest.mark.parametrize(("fraction", "count"), [(1, 21), (0.5, 10), (0.43, 9), (1 / 21, 1)])
def test_a_fraction_is_a_number_of_pairs(fraction, count):
    problem = _drawn(fraction=fraction, seed=8)
    assert np.array_equal(problem.mask, problem.mask.T)
    assert np.triu(problem.mask).sum() == count
    assert np.array_equal(problem.mask, _drawn(entries=count, seed=8).mask)


def test_more_pairs_of_one_seed_contain_the_fewer():
    for count in range(1, 21):
        fewer, more = (np.triu(_drawn(entries=k, seed=6).mask) for k in (count, count + 1))
        assert more[fewer].all()
        assert more.sum() == fewer.sum() + 1 == count + 1


def test_every_pair_is_drawn_as_often_as_any_other():
    counts = sum(_drawn(entries=7, seed=seed).mask.astype(int) for seed in range(600))
    spread = np.sqrt(600 / 3 * 2 / 3)
    assert (np.abs(counts - 200) < 5 * spread).all()
    assert counts.std() > 0.5 * spread


def test_a_pair_of_which_one_is_not_known_is_not_drawn():
    target = TARGET.copy()
    target[0, 1] = target[5, 2] = target[4, 4] = np.nan
    problem = lb.Completion(target, fraction=1, symmetric_mask=True)
    assert problem.count == 36 - 5
    assert problem.symmetric_loss
    assert not problem.mask[[0, 1, 5, 2, 4], [1, 0, 2, 5, 4]].any()
    again = restore(problem.target, problem.observed)
    assert np.array_equal(again.mask, problem.mask)
    assert "symmetric_mask" not in problem.settings()  # a run keeps this mask


def test_a_run_is_made_again_from_its_experiment_file(tmp_path):
    """Target, pairs and start; and going on after a kill is as if there had been none."""
    problem = lb.Completion(TARGET, entries=14, seed=9, symmetric_mask=True)
    arguments = settings(200, problem=problem, network=lb.Network.tied((6, 4, 6), 0.2, seed=5))
    run = lb.train(**arguments, store=tmp_path / "run")
    assert {**run.settings, "symmetric_mask": True, "entries": 14, "mask_seed": 9, "init": "tied"} == run.settings
    again = Experiment.from_words(read_toml(tmp_path / "run/experiment.toml")).arguments()
    assert again["network"].is_tied
    assert fingerprint(lb.train(**again, forecast=False)) == fingerprint(run)
    lb.train(**{**arguments, "steps": 120}, store=tmp_path / "half")
    assert fingerprint(lb.resume(tmp_path / "half", steps=200)) == fingerprint(run)
    assert np.array_equal(run.network.layers[1], run.network.layers[0].T)


def test_the_command_line_has_symmetric_starts(work, capsys):
    np.save("h.npy", TARGET)
    words = "run --target h.npy --init tied --widths 6 4 6 --alpha 0.2 --seed 5 --lr 0.02 --steps 100"
    words += " --metrics effective_rank --quiet --no-figures"
    assert call(capsys, f"{words} --entries 14 --symmetric-mask --mask-seed 9 -o a")[0] == 0
    assert call(capsys, "run a/experiment.toml --quiet --no-figures -o b")[0] == 0
    assert fingerprint(lb.open("a")) == fingerprint(lb.open("b"))
    assert np.array_equal(lb.open("b").checkpoint(0).params, lb.Network.tied((6, 4, 6), 0.2, seed=5).params)
    assert np.array_equal(lb.open("b").problem.mask, _drawn(entries=14, seed=9).mask)
    assert call(capsys, f"{words} --observed a/observed.npz -o c")[0] == 0
    assert call(capsys, "run a/experiment.toml --observed a/observed.npz --quiet --no-figures -o d")[0] == 0
    assert np.array_equal(lb.open("c").losses, lb.open("a").losses)
    assert np.array_equal(lb.open("d").losses, lb.open("a").losses)


COMMANDS = {
    "depth": ("--target h.npy --depth 3", "widths = (6, 6, 6, 6)", "depth 2"),
    "a teacher": ("--depth 2", "init = 'tied'", "(target + target.T) / 2"),
    "single entries": ("--target h.npy --depth 2 --entries 14", "init = 'tied'", "mask"),
    "sgd": ("--target h.npy --depth 2 --method sgd", "method = 'sgd'", "gd or flow"),
    "gamma": ("--target h.npy --depth 2 --gamma 1", "gamma = 1.0", "of network gaussian, not of tied"),
    "pairs of nothing": ("--target h.npy --depth 2 --symmetric-mask", "symmetric_mask = True", "of problem completion"),
    "pairs of a file": (
        "--target h.npy --depth 2 --observed h.npy --symmetric-mask",
        "symmetric_mask = True",
        "those of a file",
    ),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_the_command_line_says_what_is_not_accepted(case, work, capsys):
    np.save("h.npy", TARGET)
    words, *needles = COMMANDS[case]
    code, out, sentence = call(capsys, f"run --init tied {words}")
    assert (code, out, sentence.count("\n")) == (2, "", 1)
    for needle in needles:
        assert needle in sentence
    assert [path.name for path in work.iterdir()] == ["h.npy"]


def test_a_batch_of_a_sweep_does_not_take_what_is_not_symmetric():
    """Batches do not pass through `train`."""
    keys = {"init": "tied", "depth": 2, "shape": [6, 6], "rank": 2}
    runs = {str(seed): {**keys, "seed": seed} for seed in range(8)}
    assert plan_batches({name: {**keys, "init": "balanced"} for name, keys in runs.items()})
    assert plan_batches(runs) == {}
    with pytest.raises(lb.InvalidInput, match="init = 'tied'"):
        Experiment.from_words(runs["0"]).arguments()


def test_a_sweep_has_symmetric_starts(tmp_path):
    np.save(tmp_path / "h.npy", TARGET)
    base = {"target": str(tmp_path / "h.npy"), "init": "tied", "depth": 2, "lr": 0.02, "steps": 50, "metrics": []}
    with ThreadPoolExecutor(1) as executor:
        made = lb.sweep(base, {"alpha": [0.1, 0.2]}, tmp_path / "s", executor=executor, progress=False)
    for alpha in (0.1, 0.2):
        problem = lb.Factorization(TARGET)
        network = lb.Network.tied((6, 6, 6), alpha, seed=1)
        alone = lb.train(problem, network, lb.GD(lr=0.02), 50, **QUIET)
        assert np.array_equal(made[f"alpha={alpha}"].losses, alone.losses)


def test_a_tied_start_has_depth_two_unless_told_otherwise(tmp_path):
    np.save(tmp_path / "h.npy", TARGET)
    arguments = Experiment.from_words({"init": "tied", "target": str(tmp_path / "h.npy")}).arguments()
    assert (arguments["network"].widths, arguments["network"].is_tied) == ((6, 6, 6), True)
