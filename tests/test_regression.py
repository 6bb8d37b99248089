"""Networks fitted to data: the loss by its definition from the samples, whitening, modes, runs that keep no data."""

import itertools
import json
import os

import numpy as np
import pytest

import lrbias as lb
from lrbias import theory
from lrbias.experiments import Experiment, read_toml
from lrbias.problems._observed import load_observed, restore
from lrcore import cpu, layout
from lrcore.cpu import workspace
from runs import call, fingerprint, quiet_train, settings

SAMPLES, INPUTS, OUTPUTS = 40, 5, 6


def _data(samples=SAMPLES, rank=INPUTS, seed=0):
    """Inputs that vary more along some directions than along others, and outputs that no matrix fits."""
    rng = np.random.default_rng(seed)
    spread = rng.normal(size=(rank, INPUTS)) * np.geomspace(0.6, 0.2, rank)[:, None]
    inputs = rng.normal(size=(samples, rank)) @ spread + 0.2 * (rank == INPUTS)
    return inputs, inputs @ rng.normal(size=(INPUTS, OUTPUTS)) + 0.2 * rng.normal(size=(samples, OUTPUTS))


X, Y = _data()
RECORD = lb.Record(every=25, metrics=("gradient_norm", "gradient_singular_values", "errors", "mode_strengths"))


def _loss(product, inputs=X, outputs=Y):
    return 0.5 * np.sum((inputs @ product.T - outputs) ** 2) / len(inputs)


def _layers(widths=(INPUTS, 7, OUTPUTS), seed=1):
    return lb.Network.gaussian(widths, gamma=0.7, seed=seed).layers


def _chain(layers):
    """The product, and what stands above and below each layer in it."""
    above = [np.eye(layers[-1].shape[0])]
    below = [np.eye(layers[0].shape[1])]
    for layer in layers[:0:-1]:
        above.insert(0, above[0] @ layer)
    for layer in layers[:-1]:
        below.append(layer @ below[-1])
    return layers[-1] @ below[-1], above, below


@pytest.mark.parametrize(("samples", "rank"), [(SAMPLES, INPUTS), (SAMPLES, 3), (4, INPUTS)])
def test_the_moments_are_those_of_the_data(samples, rank):
    """Also where the inputs do not span their space: then the target is the solution of least norm."""
    inputs, outputs = _data(samples, rank)
    problem = lb.Regression(inputs, outputs)
    assert np.allclose(problem.covariance, inputs.T @ inputs / samples, rtol=0, atol=1e-14)
    assert np.allclose(problem.correlation, outputs.T @ inputs / samples, rtol=0, atol=1e-13)
    assert np.allclose(problem.target, np.linalg.lstsq(inputs, outputs, rcond=None)[0].T, rtol=0, atol=1e-11)
    assert np.allclose(problem.target @ problem.covariance, problem.correlation, rtol=0, atol=1e-13)
    assert problem.floor == pytest.approx(_loss(problem.target, inputs, outputs), rel=1e-12, abs=1e-20)
    assert (problem.samples, problem.shape, problem.whitening) == (samples, (OUTPUTS, INPUTS), None)
    assert repr(problem) == f"Regression({samples} samples, 5 inputs, 6 outputs)"


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_loss_gradient_and_errors_are_those_of_the_samples(scale, rng):
    problem = lb.Regression(X, Y).scaled(scale)
    params, widths = layout.flatten(_layers())
    gradient = np.empty_like(params)
    goal = problem.objective(np.float64)
    ridge = 0.02
    found = cpu.objective_loss_and_gradient(params, widths, goal, ridge, gradient, workspace.allocate(widths))

    def definition(params):
        return _loss(scale * _chain(layout.layers(params, widths))[0]) + ridge * np.sum(params**2)

    assert found == pytest.approx(definition(params), rel=1e-13)
    product = scale * _chain(layout.layers(params, widths))[0]
    slope = (X @ product.T - Y).T @ X / SAMPLES
    assert np.allclose(problem.slope(product), slope, rtol=0, atol=1e-13)
    for _ in range(5):  # along a line the loss is a polynomial of degree 4, for which this difference is exact
        direction = rng.normal(size=params.size)
        values = [definition(params + step * direction) for step in (-2, -1, 1, 2)]
        difference = np.dot([1, -8, 8, -1], values) / 12
        assert gradient @ direction == pytest.approx(difference, rel=1e-10, abs=1e-10 * max(values))
    products = rng.normal(size=(3, OUTPUTS, INPUTS))
    expected = [np.sqrt(np.mean((X @ each.T - Y) ** 2)) for each in products]
    assert np.allclose(problem.errors(products)["train"], expected, rtol=1e-13)
    assert list(problem.errors(problem.target)) == ["train"]


@pytest.mark.parametrize("rank", [INPUTS, 3])
def test_whitening_is_that_of_zca(rank):
    """Σ^(−1/2), symmetric; Σ becomes the identity, or the projection onto the span of the inputs; the loss stays."""
    inputs, outputs = _data(rank=rank)
    plain, white = lb.Regression(inputs, outputs), lb.Regression(inputs, outputs, whiten=True)
    inverse = np.linalg.pinv(plain.covariance, rcond=1e-12)
    assert np.allclose(white.whitening @ white.whitening, inverse, rtol=0, atol=1e-11 * np.abs(inverse).max())
    assert np.array_equal(white.whitening, white.whitening.T)
    assert np.linalg.eigvalsh(white.whitening).min() > -1e-12
    projection = np.linalg.pinv(inputs) @ inputs
    assert np.allclose(white.covariance, projection, rtol=0, atol=1e-13)
    assert (rank == INPUTS) == np.array_equal(white.covariance, np.eye(INPUTS))
    assert white.floor == pytest.approx(plain.floor, rel=1e-12)
    assert np.allclose(white.target @ white.whitening, plain.target, rtol=0, atol=1e-12)
    by_hand = lb.Regression(inputs @ white.whitening, outputs)
    assert np.allclose(by_hand.covariance, white.covariance, rtol=0, atol=1e-12)
    assert np.allclose(by_hand.correlation, white.correlation, rtol=0, atol=1e-12)
    assert "5 whitened inputs" in repr(white)


def test_centring_leaves_what_a_bias_cannot_fit():
    centred = lb.Regression(X, Y, center=True)
    with_bias = np.linalg.lstsq(np.hstack([X, np.ones((SAMPLES, 1))]), Y, rcond=None)[0]
    assert np.allclose(centred.target, with_bias[:-1].T, rtol=0, atol=1e-12)
    assert centred.floor == pytest.approx(_loss(with_bias.T, np.hstack([X, np.ones((SAMPLES, 1))])), rel=1e-12)
    assert np.allclose(centred.covariance, np.cov(X.T, bias=True), rtol=0, atol=1e-13)
    assert centred.floor < lb.Regression(X, Y).floor


@pytest.mark.parametrize(("widths", "ridge"), [((INPUTS, 7, 4, OUTPUTS), 0.05), ((INPUTS, OUTPUTS), 0.0)], ids=str)
def test_gradient_descent_is_a_loop_over_the_data(widths, ridge):
    layers = [layer.copy() for layer in _layers(widths)]
    run = lb.train(lb.Regression(X, Y), lb.Network.from_layers(layers), lb.GD(lr=0.05, ridge=ridge), 50, RECORD)
    losses = []
    for _ in range(50):
        product, above, below = _chain(layers)
        losses.append(_loss(product) + ridge * sum(np.sum(layer**2) for layer in layers))
        slope = (X @ product.T - Y).T @ X / SAMPLES
        slopes = [a.T @ slope @ b.T + 2 * ridge * w for a, b, w in zip(above, below, layers, strict=True)]
        layers = [layer - 0.05 * each for layer, each in zip(layers, slopes, strict=True)]
    assert np.allclose(run.losses[:-1], losses, rtol=1e-12)
    assert np.allclose(run.network.product(), _chain(layers)[0], rtol=0, atol=1e-12)
    residuals = X @ run.network.product().T - Y
    assert run["train_error"][-1] == pytest.approx(np.sqrt(np.mean(residuals**2)), rel=1e-12)
    slopes = np.linalg.svd(residuals.T @ X / SAMPLES, compute_uv=False)
    assert np.allclose(run["product/gradient_singular_values"][-1], slopes, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "method", [lb.GD(lr=0.02), lb.GradientFlow(dt=0.05), lb.GD(lr=0.02, ridge=0.01)], ids=["gd", "flow", "ridge"]
)
def test_whitened_inputs_are_a_factorization(method):
    white = lb.Regression(X, Y, whiten=True)
    network = lb.Network.from_layers(_layers())
    problems = white, lb.Factorization(white.target)
    runs = [lb.train(each, network, method, 200, RECORD, forecast=False) for each in problems]
    assert np.allclose(runs[0].losses - white.floor, runs[1].losses, rtol=1e-12, atol=1e-12)
    assert np.allclose(runs[0].network.params, runs[1].network.params, rtol=0, atol=1e-12)
    for name in ("gradient_norm", "product/gradient_singular_values", "product/mode_strengths"):
        assert np.allclose(runs[0][name], runs[1][name], rtol=0, atol=1e-12), name


def test_modes_are_those_of_the_correlation():
    problem = lb.Regression(X, Y)
    modes = problem.modes()
    assert np.allclose((modes.left * modes.strengths) @ modes.right.T, problem.correlation, rtol=0, atol=1e-13)
    assert np.allclose(modes.variances, [np.mean((X @ v) ** 2) for v in modes.right.T], rtol=1e-12)
    assert np.allclose(modes.values, modes.strengths / modes.variances, rtol=1e-12)
    assert (np.diff(modes.strengths) < 0).all()
    inside = modes.right.T @ problem.covariance @ modes.right
    beside = np.linalg.norm(inside - np.diag(np.diag(inside))) / np.linalg.norm(problem.covariance)
    assert modes.off == pytest.approx(beside, rel=1e-10)
    assert beside > 0.01
    white = lb.Regression(X, Y, whiten=True).modes()
    assert white.off < 1e-14
    assert np.allclose(white.values, white.strengths, rtol=1e-13)


STRENGTHS, VARIANCES = np.array([3.0, 2.0, 1.2]), np.array([4.0, 1.0, 0.3])  # values 0.75, 2, 4


def _aligned(depth, size=OUTPUTS, seed=0):
    """A Regression whose covariance and correlation share directions, one of which no output depends on; and a
    balanced network aligned with it, with the strengths 0.02 of its modes."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (size, 4))
    samples = np.linalg.qr(rng.normal(size=(SAMPLES, 4)))[0] * np.sqrt(SAMPLES)
    spread = np.sqrt([*VARIANCES, 0.7])
    inputs = (samples * spread) @ right.T
    target = (left[:, :3] * (STRENGTHS / VARIANCES)) @ right[:, :3].T
    noise = rng.normal(size=(SAMPLES, size))
    noise -= samples @ (samples.T @ noise) / SAMPLES  # of which no input knows anything
    frames = [right[:, :3], *(np.linalg.qr(rng.normal(size=(size, 3)))[0] for _ in range(depth - 1)), left[:, :3]]
    layers = [0.02 ** (1 / depth) * frames[i + 1] @ frames[i].T for i in range(depth)]
    return lb.Regression(inputs, inputs @ target.T + 0.1 * noise), lb.Network.from_layers(layers)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_modes_follow_theory_and_are_learnt_in_the_order_of_their_strengths(depth):
    """Though the values that they tend to are in the other order."""
    problem, network = _aligned(depth)
    modes = problem.modes()
    step = 0.01
    assert modes.off < 1e-14
    assert np.allclose(modes.strengths[:3], STRENGTHS, rtol=1e-12)
    assert np.allclose(modes.variances[:3], VARIANCES, rtol=1e-12)
    assert np.allclose(modes.values, [0.75, 2, 4, 0], rtol=0, atol=1e-12)
    record = lb.Record(every=10, metrics=("mode_strengths",))
    run = lb.train(problem, network, lb.GradientFlow(dt=step), 1500, record, checkpoint_every=1500)
    found = run["product/mode_strengths"]
    times = run.steps_of("product/mode_strengths") * step
    halves = []
    for i in range(3):
        strength = STRENGTHS[i]
        variance = VARIANCES[i]
        expected = theory.mode(times, strength, 0.02, depth, variance)
        assert np.allclose(found[:, i], expected, rtol=1e-6, atol=1e-9)
        halves.append(theory.escape_time(strength, 0.02, depth, variance=variance))
        assert theory.mode([0, halves[i]], strength, 0.02, depth, variance)[1] == pytest.approx(
            modes.values[i] / 2, rel=1e-7
        )
    if depth > 1:
        assert halves == sorted(halves)
        passed = list(times[(found > 0.05).argmax(axis=0)])  # a strength that all of them pass
        assert passed == sorted(passed)
        assert passed[0] < passed[2]
    for below, above in itertools.pairwise(run.network.layers):
        assert np.abs(above.T @ above - below @ below.T).max() < 1e-7
    assert run.losses.min() >= problem.floor > 0


def test_a_variance_of_one_changes_nothing():
    t = np.linspace(0, 3, 7)
    assert np.array_equal(theory.mode(t, 2.0, 0.1, 3), theory.mode(t, 2.0, 0.1, 3, variance=1.0))
    assert theory.escape_time(2.0, 0.1, 3) == theory.escape_time(2.0, 0.1, 3, variance=1)
    with pytest.raises(lb.InvalidInput, match="variance = 0"):
        theory.mode(t, 2.0, 0.1, 3, variance=0)
    with pytest.raises(lb.InvalidInput, match="variance = -1"):
        theory.escape_time(2.0, 0.1, 3, variance=-1)


def test_a_variance_is_another_unit_of_time():
    """du/dt = N u^p (s − d u) is that of s/d and variance 1, d times as fast."""
    t = np.linspace(0, 3, 7)
    found = theory.mode(t, 2.0, 0.1, 2, variance=4.0)
    assert np.allclose(found, [theory.saxe(4 * each, 0.5, 0.1) for each in t], rtol=1e-8)
    assert theory.escape_time(2.0, 0.1, 3, variance=4.0) == pytest.approx(theory.escape_time(0.5, 0.1, 3) / 4, rel=1e-9)


def test_adaptive_flow_and_greedy_learning_reach_the_floor():
    problem, network = _aligned(2)
    flow = lb.GradientFlow(dt=1.0, scheme="dopri5", rtol=1e-8)
    record = lb.Record(every=10, metrics=("mode_strengths",))
    run = lb.train(problem, network, flow, 40, record)
    expected = [theory.mode([0, 40], s, 0.02, 2, d)[1] for s, d in zip(STRENGTHS, VARIANCES, strict=True)]
    assert np.allclose(run["product/mode_strengths"][-1], expected, rtol=1e-6)
    assert run.losses[-1] == pytest.approx(problem.floor, rel=1e-9)
    greedy = lb.train(problem, None, lb.GLRL(epsilon=1e-4, inner=flow, check_every=10), record=lb.Record(metrics=()))
    assert [phase.slope for phase in greedy.phases] == pytest.approx(list(STRENGTHS), rel=1e-6)
    assert [phase.rank for phase in greedy.phases] == [1, 2, 3]
    values = STRENGTHS / VARIANCES
    levels = problem.floor + 0.5 * np.array([np.sum((STRENGTHS * values)[k:]) for k in (1, 2, 3)])
    assert [phase.loss for phase in greedy.phases] == pytest.approx(list(levels), rel=1e-6)
    assert greedy.losses[-1] == pytest.approx(problem.floor, rel=1e-9)


@pytest.mark.parametrize(
    "method", [lb.GD(lr=0.05, ridge=0.01), lb.GradientFlow(dt=0.05, scheme="dopri5")], ids=["gd", "dopri5"]
)
def test_threads_make_the_same_bits(method):
    start = lb.Network.gaussian((INPUTS, 7, 3, OUTPUTS), gamma=0.7, seed=1)
    runs = [lb.train(lb.Regression(X, Y), start, method, 40, RECORD, threads=k) for k in (1, 2, 3)]
    assert len({fingerprint(run) for run in runs}) == 1


STORED = {
    "plain": lb.Regression(X, Y),
    "whitened": lb.Regression(X, Y, whiten=True, center=True),
    "singular": lb.Regression(*_data(rank=3), whiten=True),
}


@pytest.mark.parametrize("kind", STORED)
def test_a_run_directory_has_the_whole_problem(kind, tmp_path):
    problem = STORED[kind]
    run = lb.train(**settings(60, problem=problem, method=lb.GD(lr=0.02, ridge=0.01)), store=tmp_path / "run")
    opened = lb.open(tmp_path / "run").problem
    assert repr(opened) == repr(problem)
    assert {name: array.tobytes() for name, array in opened.observed.items()} == {
        name: array.tobytes() for name, array in problem.observed.items()
    }
    assert not any(array.shape[:1] == (SAMPLES,) for array in opened.observed.values())
    np.testing.assert_equal(opened.modes()._asdict(), problem.modes()._asdict())
    assert opened.facts() == {"samples": SAMPLES, "floor": problem.floor}
    arguments = Experiment.from_words(read_toml(tmp_path / "run/experiment.toml")).arguments()
    assert fingerprint(lb.train(**arguments)) == fingerprint(run)
    assert "over the samples\n" in repr(lb.train(**settings(5, problem=problem, record=RECORD)))


@pytest.mark.parametrize("method", [lb.GD(lr=0.02), lb.GradientFlow(dt=0.1, scheme="dopri5")], ids=["gd", "dopri5"])
def test_a_killed_run_goes_on_with_the_same_bits(method, tmp_path):
    """Its process ends without a word at step 70, after the commit at 50."""
    arguments = settings(100, problem=lb.Regression(X, Y), method=method)
    seen = []

    def end(network):
        seen.append(network)
        return os._exit(9) if len(seen) > 8 else 0.0

    record = lb.Record(every=10, metrics={"singular_values": 10, "end": end})
    pid = os.fork()
    if pid == 0:
        quiet_train(**{**arguments, "record": record}, store=tmp_path / "run")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert lb.open(tmp_path / "run").step == 50
    quiet = {"end": lambda network: 0.0}
    resumed = lb.resume(tmp_path / "run", metrics=quiet)
    whole = lb.train(**{**arguments, "record": lb.Record(every=10, metrics={"singular_values": 10, **quiet})})
    assert fingerprint(resumed) == fingerprint(whole)


def test_runs_of_other_data_are_not_compared():
    record = lb.Record(metrics=("singular_values", "effective_rank"))
    moments = {name: value for name, value in STORED["plain"].observed.items() if name != "covariance"}
    other = lb.Regression.from_moments(STORED["plain"].target, covariance=np.eye(INPUTS), **moments)
    runs = [lb.train(**settings(20, problem=each, record=record)) for each in (STORED["plain"], other)]
    with pytest.raises(lb.InvalidInput, match="see the same part"):
        lb.compare(runs)


def test_a_symmetric_loss_is_white_and_has_a_symmetric_target(rng):
    target = lb.from_eigenvalues(4, [2.0, 1.0], seed=1)
    white = lb.Regression.from_moments(target, 3 * np.eye(4), 3 * target, 0.1, 9)
    assert white.symmetric_loss
    product = rng.normal(size=(4, 4))
    assert white.errors(product)["train"] == pytest.approx(white.errors(product.T)["train"], rel=1e-14)
    run = lb.train(white, lb.Network.tied((4, 4, 4), alpha=0.5, seed=2), lb.GD(lr=0.05), 50, lb.Record(metrics=()))
    assert np.array_equal(run.network.layers[1], run.network.layers[0].T)
    for covariance, bent in ((np.diag([3.0, 3, 3, 2]), target), (3 * np.eye(4), target + np.triu(np.ones((4, 4))))):
        other = lb.Regression.from_moments(bent, covariance, bent @ covariance, 0.1, 9)
        assert not other.symmetric_loss
        with pytest.raises(lb.InvalidInput, match="init = 'tied'"):
            lb.train(other, lb.Network.tied((4, 4, 4), alpha=0.5), lb.GD(lr=0.05), 5)


NAN = np.full((SAMPLES, 2), np.nan)
MOMENTS = STORED["plain"].observed
REFUSED = {
    "rows": (lambda: lb.Regression(X, Y[1:]), "outputs = <an array of shape (39, 6)>", "as many rows as inputs, 40"),
    "vector": (lambda: lb.Regression(X, Y[:, 0]), "outputs = <an array of shape (40,)>", "a matrix"),
    "nan": (lambda: lb.Regression(NAN, Y), "inputs = ", "finite entries only (80 are NaN"),
    "infinite": (lambda: lb.Regression(X, Y * np.inf), "outputs = ", "finite"),
    "words": (lambda: lb.Regression([["a"]], Y), "inputs = ", "real numbers"),
    "zero": (lambda: lb.Regression(0 * X, Y), "inputs = ", "not all 0"),
    "constant": (lambda: lb.Regression(0 * X + 0.1, Y, center=True), "inputs = ", "differ from each other"),
    "whiten": (lambda: lb.Regression(X, Y, whiten=1), "whiten = 1", "True or False"),
    "center": (lambda: lb.Regression(X, Y, center="yes"), "center = 'yes'", "True or False"),
    "sgd": (
        lambda: lb.train(**settings(5, problem=STORED["plain"], method=lb.SGD(lr=0.1))),
        "Regression",
        "Completion",
    ),
    "widths": (
        lambda: lb.train(**settings(5, problem=STORED["plain"], network=lb.Network.gaussian((6, 6)))),
        "widths = (6, 6)",
        "start with 5",
    ),
    "covariance": (
        lambda: restore(STORED["plain"].target, {**MOMENTS, "covariance": np.eye(4)}),
        "covariance = <an array of shape (4, 4)>",
        "shape (5, 5)",
    ),
    "not symmetric": (
        lambda: restore(STORED["plain"].target, {**MOMENTS, "covariance": np.tri(5)}),
        "covariance = ",
        "a symmetric matrix",
    ),
    "correlation": (
        lambda: restore(STORED["plain"].target, {**MOMENTS, "correlation": np.eye(5)}),
        "correlation = ",
        "shape (6, 5)",
    ),
    "floor": (lambda: restore(STORED["plain"].target, {**MOMENTS, "floor": np.array(-1.0)}), "floor = ", "at least 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_accepted_is_said_in_one_sentence(case):
    make, *needles = REFUSED[case]
    with pytest.raises(lb.InvalidInput) as caught:
        make()
    assert "\n" not in str(caught.value)
    for needle in needles:
        assert needle in str(caught.value)


@pytest.fixture
def files(work):
    """X.npy and Y.csv in the current folder, and files that do not fit."""
    np.save("X.npy", X)
    np.savetxt("Y.csv", Y, delimiter=",")
    np.save("short.npy", Y[1:])
    np.savez("moments.npz", **MOMENTS)
    np.savez("some.npz", covariance=np.eye(5))
    return work


WORDS = (
    "--depth 2 --gamma 0.8 --lr 0.05 --steps 60 --checkpoint-every 30 --no-figures --quiet "
    "--metrics singular_values effective_rank errors"
)


def test_the_command_fits_data(files, capsys):
    code, out, _ = call(capsys, f"run --inputs X.npy --outputs Y.csv --whiten --center {WORDS} -o runs/white --json")
    facts = json.loads(out)
    expected = lb.Regression(X, Y, whiten=True, center=True)
    assert (code, facts["samples"], facts["widths"]) == (0, SAMPLES, [5, 6, 6])
    assert facts["floor"] == pytest.approx(expected.floor, rel=1e-9)
    assert facts["train_error"] > np.sqrt(2 * expected.floor / OUTPUTS)
    os.remove("X.npy")  # a run needs the data no more
    run = lb.open("runs/white")
    assert load_observed("runs/white/observed.npz").keys() == expected.observed.keys()
    code, out, _ = call(capsys, "resume runs/white --steps 90 --no-figures --quiet --json")
    assert (code, json.loads(out)["step"]) == (0, 90)
    code, _, _ = call(capsys, "run runs/white/experiment.toml --steps 90 --no-figures --quiet -o runs/again")
    assert code == 0
    assert fingerprint(lb.open("runs/again")) == fingerprint(lb.open("runs/white"))
    assert "over the samples" in repr(run)
    assert call(capsys, "plot runs/white --format png")[0] == 0


CLI = {
    "no outputs": ("--inputs X.npy", "outputs is missing", "the path of samples"),
    "no inputs": ("--outputs Y.csv", "inputs is missing", "the path of samples"),
    "missing": ("--inputs no.npy --outputs Y.csv", "inputs = 'no.npy'", "exists"),
    "rows": ("--inputs X.npy --outputs short.npy", "outputs = <an array of shape (39, 6)>", "as many rows"),
    "target": ("--inputs X.npy --outputs Y.csv --target Y.csv", "target = 'Y.csv'", "not of regression"),
    "teacher": ("--inputs X.npy --outputs Y.csv --rank 2 --shape 6 5", "rank = 2", "not of regression"),
    "entries": (
        "--inputs X.npy --outputs Y.csv --entries 3 --reduction mean",
        "inputs = 'X.npy'",
        "of problem regression, not of completion",
    ),
    "whiten": ("--whiten", "whiten = True", "of problem regression"),
    "center": ("--center", "center = True", "of problem regression"),
    "sgd": ("--inputs X.npy --outputs Y.csv --method sgd", "problem = Regression", "for SGD"),
    "moments without target": ("--observed moments.npz", "observed = 'moments.npz'", "a target file"),
    "moments and mean": ("--observed moments.npz --target Y.csv --reduction mean", "reduction = 'mean'", "not of data"),
    "some moments": ("--observed some.npz", "observed = 'some.npz'", "the moments of a regression"),
}


@pytest.mark.parametrize("case", CLI)
def test_the_command_says_what_it_does_not_accept(case, files, capsys):
    words, *needles = CLI[case]
    code, out, err = call(capsys, f"run {words} -o runs/no")
    assert (code, out, err.count("\n")) == (2, "", 1)
    for needle in needles:
        assert needle in err
    assert not (files / "runs").exists()


def test_a_sweep_varies_how_data_are_seen(files):
    base = {"inputs": "X.npy", "outputs": "Y.csv", "depth": 2, "steps": 20, "metrics": ["errors"]}
    made = lb.sweep(base, {"whiten": [False, True], "lr": [0.01, 0.02]}, "sweeps/a", workers=1, progress=False)
    assert set(made.statuses().values()) == {"finished"}
    losses = {(row["whiten"], row["lr"]): row["last_loss"] for row in made.table()}
    assert len(set(losses.values())) == 4
