"""The tracker: its rows are those of torch.linalg.svdvals, every kind of layer, beside the training, crash-safe."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import lrbias as lb
from lrbias.metrics import RANKS
from lrbias.runs._tracked import ModelRun
from runs import call

torch.set_num_threads(1)


class Everything(nn.Module):
    """A layer of every kind that has matrices."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, groups=1)
        self.up = nn.ConvTranspose2d(8, 4, 2)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.recurrent = nn.GRU(12, 5)
        self.linear = nn.Linear(20, 7)

    def forward(self, x):
        raise NotImplementedError


def low_rank(model, seed=0):
    """Every matrix gets a few large singular values and many of 1e-4 or so of them, on either side of 1e-3."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                flat = parameter.flatten(1)
                left, values, right = torch.linalg.svd(flat, full_matrices=False)
                values = values[0] * torch.logspace(0, -5.3, len(values))
                parameter.copy_((left * values @ right).reshape(parameter.shape))
    return model


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    )


def train(model, steps, tracker=None, seed=1):
    """Plain SGD on random labels; returns what is needed to go on."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(64, 12, generator=generator)
    labels = torch.randint(0, 3, (64,), generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, weight_decay=1e-2)
    if tracker is not None:
        tracker.watch(optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        if tracker is not None:
            tracker.note(loss=loss.item())
        optimizer.step()
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ranks_are_counts_of_svdvals_for_every_kind_of_layer_and_both_norms(dtype):
    model = low_rank(Everything().to(dtype))
    matrices = lb.nn.weight_matrices(model)
    assert {matrix.kind for matrix in matrices} == {"linear", "convolution", "attention", "recurrent"}
    assert len(matrices) == 1 + 1 + 4 + 6 + 1
    run = lb.nn.RankTracker(model, epsilon=1e-3).close()
    assert [layer.name for layer in run.layers] == [matrix.name for matrix in matrices]
    both = {"relative_rank": 2, "relative_rank_frobenius": "fro"}
    for matrix in matrices:
        value = matrix.value().double()
        exact = torch.linalg.svdvals(value)
        ours = run[f"layer/{matrix.name}/singular_values"][0]
        np.testing.assert_allclose(
            ours, exact, rtol=0, atol=(1e-7 if dtype == torch.float32 else 1e-13) * exact[0].item()
        )
        for name, order in both.items():
            expected = int((exact / torch.linalg.matrix_norm(value, order) > 1e-3).sum())
            assert run[f"layer/{matrix.name}/{name}"][0] == expected
        assert run[f"layer/{matrix.name}/norm"][0] == pytest.approx(torch.linalg.matrix_norm(value).item(), rel=1e-6)
        stable = (exact**2).sum() / exact[0] ** 2
        assert run[f"layer/{matrix.name}/stable_rank"][0] == pytest.approx(stable.item(), rel=1e-6)
        assert run[f"layer/{matrix.name}/effective_rank"][0] == pytest.approx((exact.sum() / exact[0]).item(), rel=1e-6)
    counts = [
        int((torch.linalg.svdvals(m.value()) > 1e-3 * torch.linalg.matrix_norm(m.value(), 2)).sum()) for m in matrices
    ]
    assert run["average/relative_rank"][0] == np.mean(counts)
    assert run.average(layers="attention*")[0] == np.mean(
        [count for count, matrix in zip(counts, matrices, strict=True) if matrix.name.startswith("attention")]
    )


def test_rows_are_those_of_the_model_at_that_step(tmp_path):
    """Whoever measures, and whenever: copies are made at the step."""
    seen = {0: [matrix.value().clone() for matrix in lb.nn.weight_matrices(network())]}
    model = network()
    tracker = lb.nn.RankTracker(model, every=3, store=tmp_path / "run")
    tracker.watch(optimizer := torch.optim.SGD(model.parameters(), 0.1))
    inputs = torch.randn(64, 12, generator=torch.Generator().manual_seed(1))
    for step in range(1, 11):
        optimizer.zero_grad()
        (model(inputs) ** 2).mean().backward()
        optimizer.step()
        if step % 3 == 0:
            seen[step] = [matrix.value().clone() for matrix in lb.nn.weight_matrices(model)]
    run = tracker.close()
    assert list(run.steps_of("singular_values")) == list(seen)
    for row, matrices in enumerate(seen.values()):
        for place, matrix in zip(("0", "3", "5"), matrices, strict=True):
            exact = torch.linalg.svdvals(matrix.double())
            np.testing.assert_allclose(run[f"layer/{place}/singular_values"][row], exact, atol=1e-6)
    norms = np.array([[torch.linalg.matrix_norm(m).item() for m in matrices] for matrices in seen.values()])
    np.testing.assert_allclose(run["layers/norm_ratio"][1:], norms[:-1] / norms[1:], rtol=1e-5)
    assert np.isnan(run["layers/norm_ratio"][0]).all()


def test_a_run_in_memory_and_one_on_disk_hold_the_same_and_are_read_alike(tmp_path):
    runs = []
    for store in (None, tmp_path / "run"):
        model = network()
        tracker = lb.nn.RankTracker(model, every=2, store=store)
        train(model, 21, tracker)
        before = tracker.run
        assert (before.status, before.step) == ("running", 20)
        assert before["average/stable_rank"].shape == (11,)
        runs.append(tracker.close())
    memory, disk = runs
    opened = lb.open(tmp_path / "run")
    assert isinstance(opened, ModelRun)
    assert opened.check() == []
    assert opened.status == "finished"
    for name in memory.names:
        np.testing.assert_array_equal(memory[name], disk[name])
        np.testing.assert_array_equal(memory[name], opened[name])
    assert np.isnan(opened["loss"][0])
    assert np.isfinite(opened["loss"][1:]).all()
    with pytest.raises(lb.InvalidInput, match=r"layer/0/nothing.*was not recorded"):
        opened["layer/0/nothing"]


def test_more_records_than_the_first_chunk_holds(tmp_path):
    """Nobody knows beforehand how many steps a tracker will see: arrays grow."""
    model = nn.Linear(2, 2)
    with lb.nn.RankTracker(model, store=tmp_path / "run") as tracker:
        for step in range(20_000):
            with torch.no_grad():
                model.weight[0, 0] = step
            tracker.step(loss=step)
    run = lb.open(tmp_path / "run")
    assert run.check() == []
    np.testing.assert_array_equal(run["loss"][1:], np.arange(20_000))
    assert run["singular_values"].shape == (20_001, 2)
    assert run["singular_values"][-1, 0] > 19_998


def test_a_tracker_goes_on_in_its_folder_and_can_go_back(tmp_path):
    model = network()
    with lb.nn.RankTracker(model, every=2, store=tmp_path / "whole") as tracker:
        train(model, 20, tracker)
    expected = lb.open(tmp_path / "whole")
    model = network()
    with lb.nn.RankTracker(model, every=2, store=tmp_path / "run") as tracker:
        train(model, 8, tracker)
    states = tracker.state_dict()
    with lb.nn.RankTracker(network(7), every=2, store=tmp_path / "run", resume=True) as tracker:
        train(network(7), 4, tracker)  # goes astray, and is resumed again where it was
    with lb.nn.RankTracker(model, every=2, store=tmp_path / "run", resume=True) as tracker:
        assert tracker.steps == 12
        tracker.load_state_dict(states)
        train(model, 12, tracker)
    run = lb.open(tmp_path / "run")
    assert run.step == 20
    for name in run.names:
        np.testing.assert_array_equal(run[name], expected[name])
    with pytest.raises(lb.InvalidInput, match="tracked the same matrices"):
        lb.nn.RankTracker(nn.Linear(3, 3), every=2, store=tmp_path / "run", resume=True)


def test_a_killed_process_keeps_what_was_committed(tmp_path):
    script = f"""
import os, signal, torch, lrbias as lb
from lrbias.nn import _tracker as module
module.COMMIT_SECONDS = 0.0
model = torch.nn.Linear(4, 4)
tracker = lb.nn.RankTracker(model, store={str(tmp_path / "run")!r})
for step in range(50):
    with torch.no_grad():
        model.weight.mul_(0.5)
    tracker.step(loss=step)
tracker._tracking.drain()
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", script], check=False, env=os.environ)
    assert ended.returncode == -signal.SIGKILL
    run = lb.open(tmp_path / "run")
    assert (run.status, run.step) == ("running", 50)
    np.testing.assert_array_equal(run["loss"][1:], np.arange(50))
    values = run["singular_values"]
    np.testing.assert_allclose(values[50], values[0] * 0.5**50, rtol=1e-6)
    assert run.check() == []


def test_what_is_recorded_when_python_ends_is_kept(tmp_path):
    script = (
        "import torch, lrbias as lb; model = torch.nn.Linear(4, 4); "
        f"tracker = lb.nn.RankTracker(model, store={str(tmp_path / 'run')!r}); [tracker.step() for _ in range(30)]"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ)
    run = lb.open(tmp_path / "run")
    assert (run.status, run.step, run.detail) == ("running", 30, "Python ended before the tracker was closed")
    assert run["singular_values"].shape == (31, 4)


def test_an_exception_ends_the_run_as_interrupted(tmp_path):
    tracker = lb.nn.RankTracker(nn.Linear(2, 2), store=tmp_path / "run")
    tracker.step()
    with pytest.raises(ZeroDivisionError), tracker:
        raise ZeroDivisionError
    run = lb.open(tmp_path / "run")
    assert (run.status, run.step, run.detail) == ("interrupted", 1, "ZeroDivisionError ended the training")


def test_weights_that_are_not_finite_are_recorded_as_such():
    model = nn.Linear(3, 3)
    tracker = lb.nn.RankTracker(model)
    with torch.no_grad():
        model.weight[0, 0] = float("nan")
    tracker.step()
    run = tracker.close()
    assert np.isnan(run["singular_values"][1]).all()
    assert run["average/relative_rank"][0] == 3
    for name in RANKS:  # counts are no zeros: that is the rank of a zero matrix
        assert np.isnan(run[f"average/{name}"][1]), name
    assert run.detail == "1 of 1 weight matrices are not finite at the last record; the tracker was closed"
    assert "rank 3.0 → nan" in str(run)


def test_gradients_that_are_not_finite_do_not_end_the_training():
    model = nn.Linear(3, 3)
    probe = lb.nn.Probe(nn.functional.mse_loss, torch.ones(2, 3), torch.zeros(2, 3))
    tracker = lb.nn.RankTracker(model, probe=probe)
    with torch.no_grad():
        model.weight[0, 0] = float("inf")
    tracker.step()
    run = tracker.close()
    for name in ("gradient_rank", "sample_gradient_rank"):
        assert np.isfinite(run[f"layer/weight/{name}"][0])
        assert np.isnan(run[f"layer/weight/{name}"][1])


def test_the_ranks_of_gradients_are_recorded_and_bounded():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 10))
    inputs = torch.randn(3, 1, 5, 5)
    labels = torch.tensor([0, 1, 2])
    probe = lb.nn.Probe(nn.functional.cross_entropy, inputs, labels)
    tracker = lb.nn.RankTracker(model, probe=probe)
    tracker.step()
    run = tracker.close()
    assert {layer.name: layer.patches for layer in run.layers} == {"0": 4, "3": 1}
    np.testing.assert_array_equal(run["layer/0/sample_gradient_rank"], [4, 4])
    np.testing.assert_array_equal(run["layer/3/sample_gradient_rank"], [1, 1])
    np.testing.assert_array_equal(run["layer/3/gradient_rank"], [3, 3])
    assert (run["layer/0/gradient_rank"] <= 6).all()


def test_the_bound_takes_the_numbers_of_the_run():
    model = nn.Linear(30, 30)
    probe = lb.nn.Probe(nn.functional.cross_entropy, torch.randn(2, 30), torch.tensor([0, 1]))
    about = {"lr": 0.1, "weight_decay": 0.01, "batch": 4}
    run = lb.nn.RankTracker(model, probe=probe, about=about).close()
    (name,) = run.bounds()
    assert run.bounds()[name] == pytest.approx(4 * np.log(2 / 1e-3) / (2 * 0.1 * 0.01))
    assert run.bounds(0.5)[name] == pytest.approx(4 * np.log(4) / (2 * 0.1 * 0.01))
    assert lb.nn.RankTracker(model).close().bounds() == {}


def test_after_n_steps_of_sgd_the_distance_from_rank_b_n_keeps_the_lemma():
    """Lemma 3.2 with equality in what it is made of: W_T − (1 − 2μλ)^n W_{T−n} has rank at most B n."""
    torch.manual_seed(0)
    model = nn.Linear(40, 40, bias=False).double()
    lr = 0.05
    decay = 0.2
    batch = 2
    steps = 6
    start = model.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr, weight_decay=2 * decay)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(torch.randn(batch, 40, dtype=torch.float64)) ** 2).sum(1).mean().backward()
        optimizer.step()
    weight = model.weight.detach()
    update = weight - (1 - 2 * lr * decay) ** steps * start
    assert np.linalg.matrix_rank(update.numpy()) == batch * steps
    values = torch.linalg.svdvals(weight)
    norms = torch.linalg.matrix_norm(start, 2) / values[0]
    bound = lb.theory.distance_bound(lr, decay, steps, norms.item())
    assert (values[batch * steps] / values[0]).item() <= bound


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": nn.ReLU()}, "model = .* is not accepted: expected a torch.nn.Module with"),
        ({"model": "resnet"}, "model = 'resnet' is not accepted"),
        ({"every": 0}, "every = 0 is not accepted: expected an integer of at least 1"),
        ({"epsilon": -1e-3}, "epsilon = -0.001 is not accepted"),
        ({"norm": "nuclear"}, "norm = 'nuclear' is not accepted: expected spectral or frobenius"),
        ({"unit": "batch"}, "unit = 'batch' is not accepted: expected step or epoch"),
        ({"layers": "nothing*"}, "nothing"),
        ({"scalars": ("singular_values",)}, "scalars = .* is not accepted: expected names like loss, other than"),
        ({"scalars": "loss"}, "scalars = 'loss' is not accepted"),
        ({"scalars": ("a/b",)}, "scalars = .* is not accepted"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(work, arguments, message):
    arguments = {"model": nn.Linear(2, 2), "store": "run", **arguments}
    with pytest.raises(lb.InvalidInput, match=message) as raised:
        lb.nn.RankTracker(**arguments)
    assert "\n" not in str(raised.value)
    assert not list(work.iterdir())


def test_more_bad_input(tmp_path):
    tracker = lb.nn.RankTracker(nn.Linear(2, 2), store=tmp_path / "run")
    with pytest.raises(lb.InvalidInput, match="expected names among loss"):
        tracker.step(accuracy=1.0)
    with pytest.raises(lb.InvalidInput, match=r"expected a torch.optim.Optimizer"):
        tracker.watch("sgd")
    with pytest.raises(lb.InvalidInput, match="a path that does not exist yet"):
        lb.nn.RankTracker(nn.Linear(2, 2), store=tmp_path / "run")
    tracker.close()
    with pytest.raises(lb.InvalidInput, match="the tracker is closed"):
        tracker.step()
    with pytest.raises(lb.InvalidInput, match="that of a tracker goes on in its own loop"):
        lb.resume(tmp_path / "run")
    with pytest.raises(lb.InvalidInput, match="runs of deep linear networks"):
        lb.compare([tmp_path / "run", tmp_path / "run"])


def test_the_same_commands_and_figures_serve_a_tracked_model(work, capsys):
    model = network()
    with lb.nn.RankTracker(
        model, every=2, store="run", about={"lr": 0.1, "weight_decay": 5e-3, "batch": 64}
    ) as tracker:
        train(model, 12, tracker)
    code, shown, _ = call(capsys, "info run --check")
    assert code == 0
    assert "ModelRun: Sequential, 3 matrices, finished at step 12" in shown
    code, shown, _ = call(capsys, "plot run --format png")
    assert code == 0
    drawn = {path.stem for path in (work / "run/figures").iterdir()}
    assert drawn == {"overview", "layer_ranks", "singular_values", "norm_ratio"}
    code, _, _ = call(capsys, "report run -o page.html --quiet")
    assert code == 0
    assert "Average rank" in (work / "page.html").read_text()
    run = lb.open("run")
    for draw in (lb.plots.overview, lb.plots.layer_ranks, lb.plots.singular_values):
        assert draw(run).axes
    dataset = run.to_xarray()
    np.testing.assert_array_equal(dataset["singular_values"], run["singular_values"])
