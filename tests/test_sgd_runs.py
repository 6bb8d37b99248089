"""Runs of SGD: what their losses are, that they go on with the same bits, what is recorded, and the command line."""

import json
import os
import signal
import warnings
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import numpy as np
import pytest

import crash
import lrbias as lb
from lrbias.experiments import Experiment, read_toml
from lrbias.steppers import _chunks as chunks
from lrbias.theory import representation_cost
from lrcore import cpu, random
from runs import call, fingerprint, quiet_train, settings

TARGET = lb.from_singular_values((6, 5), [3.0, 1.5], seed=3)
COUNT = 20
PROBLEM = lb.Completion(TARGET, entries=COUNT, seed=4, reduction="mean")
PLAN = {
    "lr_schedule": "exponential_decay:factor=0.3,start=40,stop=150",
    "ridge_schedule": "square_wave:factor=0.1,period=30",
}
METHODS = {
    "single": lb.SGD(lr=0.2, sampling_seed=7),
    "epochs": lb.SGD(lr=0.2, replacement=False, sampling_seed=7),
    "batches": lb.SGD(lr=0.2, ridge=1e-3, batch=3),
    "batches of epochs": lb.SGD(lr=0.2, ridge=1e-3, batch=3, replacement=False),  # 7 steps an epoch, the last of 2
    "schedules": lb.SGD(lr=0.3, ridge=1e-2, batch=2, **PLAN),
}
each_method = pytest.mark.parametrize("kind", METHODS)


def arguments(steps=200, **changes):
    """Those of a run of SGD on 20 entries of a 6 × 5 matrix."""
    record = lb.Record(every=10, metrics={"singular_values": 5, "errors": 20, "gradient_norm": 50})
    own = {"problem": PROBLEM, "method": METHODS["schedules"], "record": record, **changes}
    return settings(steps, **own)


def _drawn(method, steps):
    """The numbers of the entries that each of the first steps draws."""
    every = []
    epoch = -(-COUNT // method.batch)
    for step in range(steps):
        first = step * method.batch
        length = method.batch
        if not method.replacement:
            place = step % epoch * method.batch
            first = step // epoch * COUNT + place
            length = min(method.batch, COUNT - place)
        every.append(np.empty(length, np.int64))
        seed, domain = np.uint64(method.sampling_seed), np.uint64(random.SAMPLE)
        cpu.draws(seed, domain, first, method.replacement, np.zeros(COUNT + 2, np.int64), every[-1])
    return every


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@each_method
def test_losses_and_steps_are_those_of_the_drawn_entries(kind, reduction):
    """By hand: residuals of the drawn entries, their gradient, the decay by the ridge. The last loss makes no step."""
    problem = lb.Completion(TARGET, PROBLEM.mask, reduction=reduction)
    method = METHODS[kind]
    if reduction == "sum":  # the sum has 20 times the gradient
        method = method.model_copy(update={"lr": method.lr / COUNT, "ridge": method.ridge * COUNT})
    steps = 60
    weight = 1 if reduction == "mean" else COUNT
    run = lb.train(**arguments(steps, problem=problem, method=method))
    positions, (first, second) = np.argwhere(problem.mask), settings()["network"].copy().layers
    for step, drawn in enumerate(_drawn(method, steps + 1)):
        residual = np.zeros(TARGET.shape)
        for row, column in positions[drawn]:
            residual[row, column] += (second[row] @ first[:, column] - TARGET[row, column]) / len(drawn)
        squares = [(second[r] @ first[:, c] - TARGET[r, c]) ** 2 for r, c in positions[drawn]]
        assert run.losses[step] == pytest.approx(0.5 * weight * np.mean(squares), rel=1e-10, abs=1e-16)
        if step < steps:
            rate = method.rates(step, 1)[0]
            ridge = method.ridges(step, 1)[0]
            slopes = second.T @ residual, residual @ first.T
            first, second = (
                (1 - 2 * rate * ridge) * layer - rate * weight * slope
                for layer, slope in zip((first, second), slopes, strict=True)
            )
    assert len(run.losses) == steps + 1
    for layer, expected in zip(run.network.layers, (first, second), strict=True):
        assert np.allclose(layer, expected, rtol=1e-10, atol=1e-13)


@each_method
def test_a_resumed_run_has_the_same_bits(kind, tmp_path):
    """Memory and disk, in one piece and in four; steps 50, 101 and 150 lie within an epoch."""
    expected = fingerprint(lb.train(**arguments(method=METHODS[kind])))
    lb.train(**arguments(50, method=METHODS[kind]), store=tmp_path / "run")
    for steps in (101, 150):
        assert lb.resume(tmp_path / "run", steps=steps).step == steps
    assert fingerprint(lb.resume(tmp_path / "run", steps=200)) == expected
    assert fingerprint(lb.open(tmp_path / "run")) == expected
    assert fingerprint(lb.resume(tmp_path / "run", from_checkpoint=100)) == expected


@each_method
def test_the_length_of_kernel_calls_does_not_change_bits(kind, monkeypatch):
    expected = fingerprint(lb.train(**arguments(method=METHODS[kind])))
    monkeypatch.setattr(chunks, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(chunks, "FIRST_CHUNK", 1)
    assert fingerprint(lb.train(**arguments(method=METHODS[kind]))) == expected


def test_a_signal_in_the_middle_of_an_epoch_loses_nothing(tmp_path):
    def interrupt(network):
        interrupt.calls += 1
        if interrupt.calls == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return 0

    interrupt.calls = 0
    own = {"method": METHODS["batches of epochs"], "record": lb.Record(every=13, metrics={"interrupt": interrupt})}
    with pytest.raises(lb.Interrupted) as caught:
        lb.train(**arguments(**own), store=tmp_path / "run")
    assert 0 < caught.value.run.step < 200
    assert caught.value.run.step % 7
    resumed = lb.resume(tmp_path / "run", metrics={"interrupt": interrupt})
    assert resumed.status == "finished"
    assert fingerprint(resumed) == fingerprint(lb.train(**arguments(**own)))


def test_a_killed_run_goes_on_with_the_same_bits(tmp_path):
    """SIGKILL before one of the writes to the disk, in a process of its own, before and after the first commit."""
    own = arguments(120, method=METHODS["batches of epochs"], checkpoint_every=50)
    expected = fingerprint(quiet_train(**own))
    committed = []
    for limit in (60, 70, 90):
        folder = tmp_path / str(limit)
        folder.mkdir()
        assert crash.killed_at_write(folder, limit, own)
        committed.append(lb.open(folder / "run").step if (folder / "run").exists() else 0)
        assert crash.resumed_fingerprint(folder, own) == expected
    assert any(step % 7 for step in committed)  # in the middle of an epoch


@each_method
def test_the_experiment_file_repeats_a_run(kind, tmp_path):
    run = lb.train(**arguments(method=METHODS[kind]), store=tmp_path / "run")
    again = Experiment.from_words(read_toml(tmp_path / "run/experiment.toml")).arguments()
    assert again["method"] == METHODS[kind]
    assert fingerprint(lb.train(**again, forecast=False)) == fingerprint(run)


def test_an_opened_run_has_the_problem_that_was_fitted(tmp_path):
    lb.train(**arguments(5), store=tmp_path / "run")
    run = lb.open(tmp_path / "run")
    assert isinstance(run.problem, lb.Completion)
    assert np.array_equal(run.problem.mask, PROBLEM.mask)
    assert np.array_equal(run.target, TARGET)
    assert run.problem.reduction == "mean"
    assert run.label == METHODS["schedules"].caption == "SGD, lr = 0.3, batch 2, ridge = 0.01"


def test_the_number_of_threads_is_not_used():
    expected = fingerprint(lb.train(**arguments()))
    assert fingerprint(lb.train(**arguments(threads=3))) == expected


def test_seeds_and_batches_change_what_is_drawn():
    changes = {}, {"sampling_seed": 1}, {"batch": 2}, {"replacement": False}
    runs = [lb.train(**arguments(5, method=lb.SGD(lr=0.2, **change))) for change in changes]
    assert len({fingerprint(run) for run in runs}) == 4


def test_a_whole_target_is_completion_of_all_entries():
    method = lb.SGD(lr=0.01, batch=2)
    whole = lb.train(**arguments(problem=lb.Factorization(TARGET), method=method, record=lb.Record(metrics=())))
    entries = lb.train(**arguments(problem=lb.Completion(TARGET), method=method, record=lb.Record(metrics=())))
    assert np.array_equal(whole.losses, entries.losses)
    assert np.array_equal(whole.network.params, entries.network.params)


def test_all_entries_of_every_step_are_gd():
    """A batch of all entries without replacement, where only the order of the sum differs."""
    sgd = lb.SGD(lr=0.2, ridge=1e-3, batch=COUNT, replacement=False)
    runs = [lb.train(**arguments(method=method)) for method in (sgd, lb.GD(lr=0.2, ridge=1e-3))]
    assert np.allclose(runs[0].network.params, runs[1].network.params, rtol=1e-9, atol=1e-12)
    assert np.allclose(runs[0]["gradient_norm"], runs[1]["gradient_norm"], rtol=1e-8)


def test_divergence_is_a_status(tmp_path):
    """Spectral norm 10 is too much for this learning rate."""
    problem = lb.Completion(lb.from_singular_values((10, 10), [10.0, 5.0], seed=1), fraction=0.5, reduction="mean")
    network = lb.Network.gaussian((10, 10, 10, 10), gamma=0.5, seed=1)
    own = {"problem": problem, "network": network, "method": lb.SGD(lr=0.5, ridge=1e-3), "checkpoint_every": 10}
    run = lb.train(**settings(2000, **own, record=lb.Record(every=1)), store=tmp_path / "run")
    assert run.status == "diverged"
    assert f"step {run.step}" in run.detail
    assert not np.isfinite(run.losses[-1])
    assert np.isfinite(run.losses[:-1]).all()
    for opened in (run, lb.open(tmp_path / "run")):
        assert len(opened.losses) == opened.step + 1
        assert len(opened["product/singular_values"]) == len(opened["train_error"]) == opened.step
        assert np.isfinite(opened["train_error"][0])
        assert opened.check() == []
        assert opened.summary()["status"] == "diverged"
        assert opened.jumps().ranks.shape == (opened.step,)


def test_float32_stays_float32(tmp_path):
    network = lb.Network.gaussian((5, 7, 6), gamma=1.0, seed=2, dtype="float32")
    lb.train(**arguments(100, network=network), store=tmp_path / "run")
    run = lb.resume(tmp_path / "run", steps=200)
    double = lb.train(**arguments())
    assert run.network.dtype == run.losses.dtype == run["product/singular_values"].dtype == np.float32
    assert run["train_error"].dtype == np.float32
    assert fingerprint(run) == fingerprint(lb.train(**arguments(network=network)))
    assert np.allclose(run.losses, double.losses, rtol=1e-2, atol=1e-4)
    assert not np.array_equal(run.losses, double.losses)


def test_recorded_metrics_equal_their_definitions():
    """From the network of every checkpoint, with plain NumPy. It starts out of balance and loses its rank."""
    sets = {"absorbing_balance": 3.0, "absorbing_slack": 0.3, "absorbing_alpha": 0.8, "absorbing_bound": 30.0}
    metrics = ("errors", "representation_cost", "absorbing_rank", "singular_values", "gradient_norm")
    method = lb.SGD(lr=0.5, ridge=0.05, batch=2, **PLAN)
    network = lb.Network.gaussian((5, 7, 6), 0.3, 2)
    record = lb.Record(every=50, metrics=metrics, **sets)
    run = lb.train(**arguments(method=method, network=network, record=record))
    hidden = ~PROBLEM.mask
    for row, step in enumerate(run.checkpoints):
        network = run.checkpoint(step)
        (first, second), residual = network.layers, network.product() - TARGET
        assert run["train_error"][row] == pytest.approx(np.sqrt(np.mean(residual[PROBLEM.mask] ** 2)), rel=1e-12)
        assert run["test_error"][row] == pytest.approx(np.sqrt(np.mean(residual[hidden] ** 2)), rel=1e-12)
        cost = representation_cost(np.linalg.svd(network.product())[1], 2)
        assert run["product/representation_cost"][row] == pytest.approx(cost, rel=1e-10)
        assert run["squared_norm"][row] == pytest.approx(np.sum(network.params**2), rel=1e-12)
        slope = residual * PROBLEM.mask / COUNT
        ridge = method.ridges(step, 1)[0]
        slopes = second.T @ slope + 2 * ridge * first, slope @ first.T + 2 * ridge * second
        norm = np.sqrt(sum(np.sum(each**2) for each in slopes))
        assert run["gradient_norm"][row] == pytest.approx(norm, rel=1e-10)
    networks = [run.checkpoint(step).layers for step in run.checkpoints]
    own = [_absorbing_rank(layers, balance=3.0, slack=0.3, alpha=0.8, bound=30.0) for layers in networks]
    default = [_absorbing_rank(layers, balance=0.1, slack=0.5, alpha=0.5, bound=100.0) for layers in networks]
    assert run["absorbing_rank"].tolist() == own
    assert own != default
    assert len(set(own)) == 3
    assert "absorbing_rank" not in lb.train(**arguments(1, record=lb.Record()))


def _absorbing_rank(layers, balance, slack, alpha, bound):
    """The smallest r that satisfies the three inequalities, −1 when none does."""
    first, second = layers
    if np.sum((second.T @ second - first @ first.T) ** 2) > balance:
        return -1
    if max(np.sum(layer**2) for layer in layers) > bound:
        return -1
    counts = [np.minimum(1, np.linalg.svd(layer)[1] / alpha).sum() for layer in layers]
    return next(r for r in range(10) if max(counts) <= r + slack)


def test_a_ridge_that_is_too_large_takes_the_rank_down():
    """Jumps of a run are those of its singular values, and there are some."""
    method = lb.SGD(lr=0.5, ridge=0.15, sampling_seed=1)
    record = lb.Record(every=5, metrics=("singular_values",))
    run = lb.train(**arguments(600, method=method, network=lb.Network.gaussian((5, 7, 6), 0.3, 2), record=record))
    found = run.jumps()
    expected = lb.jumps(run.steps, run["product/singular_values"])
    assert np.array_equal(found.ranks, expected.ranks)
    assert found.events == expected.events
    assert found.ranks[0] == 5
    assert found.down >= 4
    assert run.jumps(lower=0.4, upper=0.5).ranks[0] < 5
    assert run.summary()["rank_jumps"] == {"down": found.down, "up": found.up, "rank": found.rank}


def test_a_loss_to_stop_at_is_refused(tmp_path):
    """What SGD sees are losses of single entries."""
    with pytest.raises(lb.InvalidInput, match=r"stop_loss = 0\.1 cannot be set: the losses of"):
        lb.train(**arguments(stop=lb.Stop(loss=0.1)), store=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(lb.InvalidInput, match="stop_loss"):
        Experiment.from_words({"method": "sgd", "entries": 5, "stop_loss": 0.1})


def test_a_gradient_norm_to_stop_at_is_that_of_all_entries():
    own = {"method": METHODS["single"], "record": lb.Record(every=20, metrics=("gradient_norm",))}
    norms = lb.train(**arguments(**own))["gradient_norm"]
    limit = np.sort(norms)[2] * 1.0001
    run = lb.train(**arguments(**own, stop=lb.Stop(gradient=limit)))
    assert (run.status, run.step) == ("stopped", 20 * np.flatnonzero(norms <= limit)[0])
    assert run["gradient_norm"][-1] <= limit


BASE = {"shape": [6, 5], "rank": 2, "depth": 2, "gamma": 1.0, "spectral_norm": 3.0, "method": "sgd", "steps": 100}
BASE |= {"entries": 20, "reduction": "mean", "lr": 0.2, "batch": 2, "every": 10, "checkpoint_every": 50}


def test_a_sweep_over_the_draws(tmp_path):
    with ThreadPoolExecutor(1) as executor:
        made = lb.sweep(BASE, {"sampling_seed": range(3)}, tmp_path / "s", executor=executor, progress=False)
    assert made.counts()["finished"] == 3
    found = [fingerprint(made[f"sampling_seed={seed}"]) for seed in range(3)]
    alone = [Experiment.from_words({**BASE, "sampling_seed": seed}).arguments() for seed in range(3)]
    assert found == [fingerprint(lb.train(**each, forecast=False)) for each in alone]
    assert len(set(found)) == 3
    rows = made.table()
    assert [row["sampling_seed"] for row in rows] == [0, 1, 2]
    assert len({row["last_loss"] for row in rows}) == 3


def test_sgd_is_compared_with_gd():
    record = lb.Record(every=10, metrics=("singular_values", "effective_rank"))
    method = lb.SGD(lr=0.1, batch=5)
    runs = [lb.train(**arguments(method=each, record=record)) for each in (method, lb.GD(lr=0.1))]
    compared = lb.compare(runs[::-1])
    assert compared.same_start
    reference, other = compared.table()
    assert (reference["method"], other["method"]) == ("GD, lr = 0.1", "SGD, lr = 0.1, batch 5")
    assert 0 < other["largest_difference"] < 1
    assert other["last_loss"] == runs[0].losses[-1]
    assert "SGD, lr = 0.1, batch 5" in str(compared)


def test_figures_of_sgd_are_drawn(tmp_path):
    run = lb.train(**arguments(record=lb.Record(every=10)))
    paths = lb.plots.save(run, tmp_path, ("svg",))
    names = {path.stem for path in paths}
    assert {"overview", "loss", "singular_values"} <= names
    for path in paths:
        assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    for name, draw, _ in lb.plots.available(run):
        assert all(axes.has_data() for axes in draw().axes if axes.get_visible()), name


def test_a_forecast_of_sgd_says_its_cost_and_no_modes():
    own = {key: arguments()[key] for key in ("problem", "network", "method", "steps", "record")}
    expected = lb.forecast(**own)
    assert expected.seconds > 0
    assert expected.bytes > 0
    assert (expected.step_size, expected.step_size_limit, expected.escape_steps) == (0.3, None, [])
    assert "escapes at step" not in str(expected)


SMALL = "--shape 6 5 --rank 2 --depth 2 --gamma 1 --spectral-norm 3 --steps 100 --every 10 --checkpoint-every 50"
SMALL = f"{SMALL} --no-figures"


def test_sgd_on_the_command_line(work, capsys):
    words = f"run {SMALL} --method sgd --entries 20 --mask-seed 3 --reduction mean --lr 0.3 --batch 2 --no-replacement "
    words += "--ridge 0.001 --sampling-seed 5 --lr-schedule exponential_decay:factor=0.1,start=10,stop=90 "
    words += "--ridge-schedule piecewise_constant:factor=0.5,milestones=30+60"
    code, out, err = call(capsys, f"{words} -o run --json")
    facts = json.loads(out)
    assert code == 0
    assert "expected time" in err
    assert (facts["observed_entries"], facts["components"], facts["status"]) == (20, 1, "finished")
    run = lb.open("run")
    assert facts["train_error"] == run["train_error"][-1]
    assert facts["test_error"] == run["test_error"][-1]
    assert facts["rank_jumps"]["rank"] == run.jumps().rank
    anneal = lb.ExponentialDecay(factor=0.1, start=10, stop=90)
    own = {
        "lr_schedule": anneal,
        "ridge_schedule": lb.PiecewiseConstant(factor=0.5, milestones=[30, 60]),
        "ridge": 0.001,
    }
    method = lb.SGD(lr=0.3, batch=2, replacement=False, sampling_seed=5, **own)
    whole = Experiment.from_words({"shape": [6, 5], "rank": 2, "depth": 2, "gamma": 1.0, "spectral_norm": 3.0})
    problem = lb.Completion(whole.make_problem().target, entries=20, seed=3, reduction="mean")
    assert np.array_equal(run.problem.mask, problem.mask)
    record = lb.Record(every=10)
    same = lb.train(problem, whole.make_network(problem), method, 100, record, checkpoint_every=50, forecast=False)
    assert fingerprint(run) == fingerprint(same)

    code, out, _ = call(capsys, "info run --check")
    assert "SGD, lr = 0.3, batch 2, without replacement, ridge = 0.001" in out
    assert "over the observed entries" in out
    assert call(capsys, "run run/experiment.toml -o again --quiet --no-figures")[0] == 0
    assert fingerprint(lb.open("again")) == fingerprint(run)
    code, out, _ = call(capsys, "resume run --steps 150 --json --quiet --no-figures")
    assert json.loads(out)["step"] == 150


def test_another_method_keeps_the_numbers_that_it_has_too(work, capsys):
    """From GD to SGD the learning rate of the file stays; to a flow it goes."""
    (work / "gd.toml").write_text(
        "[problem]\nentries = 20\n[method]\nlr = 0.05\nridge = 0.01\n"
        "[method.lr_schedule]\nkind = 'square_wave'\nfactor = 0.5\nperiod = 4\n"
    )
    assert call(capsys, f"run gd.toml {SMALL} --method sgd -o sgd --quiet")[0] == 0
    found = lb.open("sgd").settings
    assert (found["lr"], found["ridge"], found["lr_schedule"]["kind"]) == (0.05, 0.01, "square_wave")
    assert call(capsys, f"run gd.toml {SMALL} --method flow --dt 0.01 -o flow --quiet")[0] == 0
    assert "lr" not in lb.open("flow").settings


def test_a_mask_and_measurements_from_files(work, capsys):
    mask = np.ones((6, 5), int)
    mask[2:4, 1:] = 0
    np.savetxt("mask.csv", mask, delimiter=",", fmt="%d")
    code, out, _ = call(capsys, f"run {SMALL} --observed mask.csv --lr 0.02 -o masked --json --quiet")
    assert (code, json.loads(out)["observed_entries"]) == (0, 22)
    assert np.array_equal(lb.open("masked").problem.mask, mask)
    matrices = np.random.default_rng(1).normal(size=(7, 6, 5))
    np.savez("measured.npz", matrices=matrices, values=np.ones(7))
    code, out, _ = call(capsys, f"run {SMALL} --observed measured.npz --lr 0.001 -o measured --json --quiet")
    assert (code, json.loads(out)["measurements"]) == (0, 7)
    assert isinstance(lb.open("measured").problem, lb.Sensing)


def test_an_empty_row_is_a_warning_of_the_command_line(work, capsys):
    mask = np.ones((6, 5), int)
    mask[4] = 0
    np.savetxt("mask.csv", mask, delimiter=",", fmt="%d")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, _, err = call(capsys, f"run {SMALL} --observed mask.csv -o run --quiet")
    assert code == 0
    assert err == "warning: 1 row (4) has no observed entry: nothing determines it\n"


def test_divergence_has_its_exit_code(work, capsys):
    words = f"run {SMALL} --method sgd --entries 20 --reduction mean --lr 50 -o run --quiet"
    code, out, err = call(capsys, words)
    assert code == 3
    assert "diverged at step" in out
    assert err.startswith("lrbias: diverged: the loss at step")


def test_runs_that_see_different_entries_are_not_compared():
    target = lb.from_singular_values((6, 6), [2.0], seed=1)
    network = lb.Network.gaussian((6, 6, 6), gamma=0.7, seed=2)
    runs = []
    for seed in (0, 1):
        problem = lb.Completion(target, entries=25, seed=seed, reduction="mean")
        runs.append(lb.train(problem, network, lb.GD(lr=0.01), 20, forecast=False))
    with pytest.raises(lb.InvalidInput, match="runs that all see the same part of the target"):
        lb.compare(runs)


def test_the_losses_of_a_summary_are_means_over_a_record_interval():
    problem = lb.Completion(lb.from_singular_values((6, 6), [2.0], seed=1), entries=25, reduction="mean")
    network = lb.Network.gaussian((6, 6, 6), gamma=0.7, seed=2)
    run = lb.train(problem, network, lb.SGD(lr=0.01), 95, lb.Record(every=10), forecast=False)
    facts = run.summary()
    assert facts["first_loss"] == pytest.approx(run.losses[:10].mean())
    assert facts["last_loss"] == pytest.approx(run.losses[-10:].mean())
