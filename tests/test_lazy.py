"""Scaled outputs, the tangent parametrisation, and the linearised network."""

import json

import numpy as np
import pytest

import lrbias as lb
from lrbias.experiments import Experiment, read_toml
from lrcore import cpu, layout, reference
from lrcore.cpu import workspace
from runs import call, fingerprint, settings

TARGET = lb.from_singular_values((6, 5), [3.0, 1.5], seed=3)
START = lb.Network.gaussian((5, 7, 6), gamma=0.5, seed=2)
PROBLEMS = {
    "whole": lb.Factorization(TARGET),
    "entries": lb.Completion(TARGET, fraction=0.6, seed=1, reduction="mean"),
    "measurements": lb.Sensing(
        np.random.default_rng(0).normal(size=(20, 6, 5)), np.arange(20.0) / 20, reduction="mean"
    ),
    "regression": lb.Regression(np.random.default_rng(1).normal(size=(30, 5)), np.ones((30, 6))),
}
each_problem = pytest.mark.parametrize("kind", PROBLEMS)


def _loss_and_slope(problem, output):
    """Of an output, by the definitions, from the problem without a scale."""
    widths = layout.as_widths((output.shape[1], output.shape[0]))
    gradient = np.empty(output.size)
    loss = reference.objective_loss_and_gradient(output.ravel(), widths, problem.objective(np.float64), 0.0, gradient)
    return loss, gradient.reshape(output.shape)


@each_problem
def test_gradient_descent_with_a_scaled_output(kind):
    """By hand: the output is α W_2 W_1, and so the gradient of each layer has a factor α."""
    problem = PROBLEMS[kind]
    alpha = 2.5
    lr = 0.01
    run = lb.train(**settings(60, problem=problem, network=START.scaled(alpha), method=lb.GD(lr=lr)))
    first, second = (layer.copy() for layer in START.layers)
    for step in range(60):
        loss, slope = _loss_and_slope(problem, alpha * second @ first)
        assert run.losses[step] == pytest.approx(loss, rel=1e-12)
        first, second = first - lr * alpha * second.T @ slope, second - lr * alpha * slope @ first.T
    output = alpha * second @ first
    assert run.network.product() == pytest.approx(output, abs=1e-12)
    assert run["product/singular_values"][-1] == pytest.approx(np.linalg.svd(output, compute_uv=False), abs=1e-12)


def test_single_entries_with_a_scaled_output():
    """The expected step of SGD is that of GD: all entries in one batch make it."""
    problem = PROBLEMS["entries"]
    start = START.scaled(2.0)
    count = int(problem.mask.sum())
    method = lb.SGD(lr=0.05, batch=count, replacement=False)
    runs = [lb.train(**settings(40, problem=problem, network=start, method=m)) for m in (method, lb.GD(lr=0.05))]
    assert runs[0].network.params == pytest.approx(runs[1].network.params, abs=1e-12)


def test_a_scaled_run_is_kept_with_its_scale(tmp_path):
    arguments = settings(60, network=START.scaled(2.0), method=lb.GD(lr=0.005), store=tmp_path / "run")
    whole = fingerprint(lb.train(**{**arguments, "steps": 120, "store": None}))
    lb.train(**arguments)
    opened = lb.open(tmp_path / "run")
    assert opened.network.output_scale == opened.problem.output_scale == 2
    assert fingerprint(lb.resume(tmp_path / "run", steps=120)) == whole
    again = Experiment.from_words(read_toml(tmp_path / "run/experiment.toml")).arguments()
    assert np.array_equal(again["network"].params, START.params)
    assert again["network"].output_scale == 2
    checkpoint = str(tmp_path / "run/checkpoints/step-00000050.npz")
    started = Experiment.from_words({"network": checkpoint, "target": str(tmp_path / "run/target.npy")}).arguments()[
        "network"
    ]
    assert (started.output_scale, started.product().tolist()) == (2, opened.checkpoint(50).product().tolist())


def test_the_tangent_parametrisation_starts_alike_and_moves_less():
    widths = (5, 40, 30, 6)
    plain, tangent = lb.Network.gaussian(widths, gamma=0.5), lb.Network.gaussian(widths, parametrization="ntk")
    assert tangent.product() == pytest.approx(plain.product(), abs=1e-14)
    assert np.std(tangent.layers[1]) == pytest.approx(1, abs=0.1)
    assert tangent.output_scale == pytest.approx((5 * 40 * 30) ** -0.5)
    again = lb.Network.gaussian(**{key: value for key, value in tangent.settings().items() if key != "init"})
    assert np.array_equal(again.params, tangent.params)
    wide = lb.Network.gaussian(widths, gamma=1.0, parametrization="ntk")
    assert wide.product() == pytest.approx(lb.Network.gaussian(widths, gamma=1.0).product(), abs=1e-14)
    moved = []
    for network in (plain, tangent):
        run = lb.train(**settings(1, network=network, method=lb.GD(lr=0.01)))
        moved.append(np.linalg.norm(run.network.product() - network.product()))
    assert moved[1] < 0.1 * moved[0]


def test_a_deviation_in_place_of_gamma():
    network = lb.Network.gaussian((5, 400, 6), std=0.25, seed=1)
    assert [float(np.std(layer)) for layer in network.layers] == pytest.approx([0.25, 0.25], rel=0.1)
    assert network.settings()["std"] == 0.25


def test_what_does_not_fit_is_refused():
    for change, sentence in (
        ({"std": -1}, "std = -1 is not accepted: expected a finite number greater than 0"),
        ({"std": 1, "gamma": 1}, "std = 1.0 is not accepted: expected either std or gamma"),
        ({"parametrization": "mup"}, "parametrization = 'mup' is not accepted: expected standard or ntk"),
    ):
        with pytest.raises(lb.InvalidInput, match=sentence):
            lb.Network.gaussian((5, 6), **change)
    with pytest.raises(lb.InvalidInput, match="output_scale = 0 is not accepted"):
        START.scaled(0)
    record = lb.Record(metrics=("ntk",))
    with pytest.raises(lb.InvalidInput, match=r"metrics = 'ntk' is not accepted: expected metrics of a linear model"):
        lb.train(**settings(10, method=lb.Linearized(lr=0.1), record=record))
    with pytest.raises(lb.InvalidInput, match=r"ridge = 0.1 is not accepted: expected 0 for a linearised network"):
        lb.Linearized(lr=0.1, ridge=0.1)
    with pytest.raises(lb.InvalidInput, match="networks whose output is the product of their layers"):
        lb.ensemble(PROBLEMS["entries"], START.scaled(2.0), lb.SGD(lr=0.1), steps=10, runs=2, every=10)


@each_problem
@pytest.mark.parametrize("alpha", [1.0, 3.0])
def test_the_linearised_network_in_the_space_of_its_weights(kind, alpha):
    """f(θ) = W(θ_0) + J (θ − θ_0) under gradient descent on θ, with the derivative J of the output written out."""
    problem, (first, second), lr = PROBLEMS[kind], START.layers, 0.01
    run = lb.train(**settings(50, problem=problem, network=START.scaled(alpha), method=lb.Linearized(lr=lr)))
    moved = [np.zeros_like(first), np.zeros_like(second)]
    for step in range(50):
        output = alpha * (second @ first + second @ moved[0] + moved[1] @ first)
        loss, slope = _loss_and_slope(problem, output)
        assert run.losses[step] == pytest.approx(loss, rel=1e-11)
        moved = [moved[0] - lr * alpha * second.T @ slope, moved[1] - lr * alpha * slope @ first.T]
    output = alpha * (second @ first + second @ moved[0] + moved[1] @ first)
    assert run.network.product() == pytest.approx(output, abs=1e-12)


@each_problem
def test_the_kernel_of_its_steps_is_its_reference(kind, rng):
    problem = PROBLEMS[kind]
    widths = layout.as_widths(START.widths)
    left = np.empty((2, 6, 6))
    right = np.empty((2, 5, 5))
    work = workspace.allocate_ntk(widths)
    cpu.ntk_factors(START.params, widths, left, right, work)
    outputs = [rng.normal(size=30)] * 2
    losses = np.empty((2, 20))
    goal = problem.objective(np.float64)
    outputs = [output.copy() for output in outputs]
    for core, output, found in zip((cpu, reference), outputs, losses, strict=True):
        core.tangent_gd_steps(output, (left, right), goal, np.full(20, 0.005), found, work)
    assert outputs[0] == pytest.approx(outputs[1], abs=1e-12)
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_a_wide_scaled_network_follows_its_linearisation():
    """And with 100 times the scale, 100 times as closely: the deviation is O(1/α)."""
    halves = lb.Network.gaussian((5, 40, 6), std=0.2, seed=1).layers
    silent = lb.Network.from_layers([np.vstack([halves[0]] * 2), np.hstack([halves[1], -halves[1]])])
    gaps = []
    for alpha in (10.0, 100.0):
        runs = [
            lb.train(**settings(100, network=silent.scaled(alpha), method=method(lr=0.05 / alpha**2)))
            for method in (lb.GD, lb.Linearized)
        ]
        gaps.append(np.linalg.norm(runs[0].network.product() - runs[1].network.product()))
    assert gaps[0] < 0.01 * np.linalg.norm(TARGET)
    assert gaps[1] == pytest.approx(gaps[0] / 100, rel=0.2)


def test_a_linearised_run_is_kept_and_taken_up(tmp_path):
    arguments = settings(60, method=lb.Linearized(lr=0.02), network=lb.Network.from_layers(START.layers).scaled(1.5))
    whole = lb.train(**{**arguments, "steps": 120})
    lb.train(**arguments, store=tmp_path / "run")
    run = lb.resume(tmp_path / "run", steps=120)
    assert fingerprint(run) == fingerprint(whole)
    assert run.network_at(77).params.tolist() == whole.network_at(77).params.tolist()
    assert (run.start.params.tolist(), run.start.output_scale) == (START.params.tolist(), 1.5)
    again = Experiment.from_words(read_toml(tmp_path / "run/experiment.toml")).arguments()
    assert fingerprint(lb.train(**{**arguments, **again, "steps": 120})) == fingerprint(whole)
    full = lb.train(**{**arguments, "steps": 120, "method": lb.GD(lr=0.02)})
    assert lb.compare([full, run]).same_start


def test_the_command_line_has_the_same_words(capsys, tmp_path):
    words = "run --shape 6 5 --rank 2 --depth 2 --parametrization ntk --output-scale 2 --steps 20 --quiet --no-figures"
    assert call(capsys, f"{words} --lr 0.1 -o {tmp_path / 'full'} --metrics ntk distance_from_init --json")[0] == 0
    code, out, _ = call(capsys, f"{words} --method linearized --lr 0.1 -o {tmp_path / 'linear'} --json")
    assert code == 0
    assert json.loads(out)["method"] == "linearised, lr = 0.1"
    runs = [lb.open(tmp_path / name) for name in ("full", "linear")]
    assert runs[0].start.params.tolist() == runs[1].start.params.tolist()
    assert (
        runs[0].settings["output_scale"]
        == runs[0].start.output_scale / lb.Network.gaussian((5, 6, 6), parametrization="ntk").output_scale
    )
