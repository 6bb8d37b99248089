"""The study of Galanti et al.: a small one from its runs to its page, its statistics, and that all runs can be made."""

import json
import os
import signal
import sys

import numpy as np
import pytest
import scipy.stats
import torch

import lrbias as lb
from lrbias.nn import Training
from lrbias.nn._stepper import TorchStepper
from lrbias.studies.galanti import Galanti
from lrbias.studies.galanti._parameters import KEYS
from lrbias.studies.galanti._scales import Map, Scale, axis, small
from lrbias.studies.galanti._statistics import correlation, last_rank, verdict
from lrbias.studies.galanti._study import run_name
from lrbias.studies.galanti._training import train_one
from runs import call

torch.set_num_threads(1)
DIGITS = {"data": "digits", "samples": 300, "test_samples": 100}


def tiny():
    """Digits, two networks, a few dozen steps, and a threshold that so short a training moves values across."""
    mlp = {**DIGITS, "network": "mlp-bn", "width": 12, "depth": 2, "steps": 60, "epsilon": 0.3}
    center = {"batch": 8, "lr": 0.1, "weight_decay": 2e-3}
    zero = {**center, "weight_decay": 0.0}
    axes = (
        axis("mlp", "weight_decay", (0.0, 2e-3, 1.0), center, "8"),
        axis("mlp", "lr", (0.05, 0.1), center, "2"),
        axis("mlp", "batch", (4, 8), center, "9"),
    )
    others = (axis("mixed", "weight_decay", (0.0, 1e-2), center, "16", 1),)
    maps = (Map("mlp", ("lr", "weight_decay"), ((0.05, 0.1), (2e-3, 1.0)), {"batch": 8}),)
    networks = {
        "mlp": mlp,
        "resnet": mlp,
        "mixed": {**DIGITS, "network": "mixed", "width": 4, "depth": 1, "steps": 4},
        "wide": {**mlp, "width": 40},
    }
    wide = {"batch": 2, "lr": 1.0, "weight_decay": 0.3}  # which forgets within a few steps
    return Scale(networks, axes, (axis("mlp", "lr", (0.05, 0.1), zero, "12"),), others, maps, wide)


def _values(run):
    """(records, values) of every matrix."""
    return [run[f"layer/{layer.name}/singular_values"] for layer in run.layers]


def test_a_small_study_from_its_runs_to_its_page(work, sweeps_here, capsys):
    found = lb.reproduce("galanti", "study", seeds=2, workers=1, preset=tiny())
    runs = found.study.runs()
    assert len(list((work / "study/runs").iterdir())) == len(runs)
    assert len({name.rsplit("seed", 1)[0] for name in runs if name.startswith("mlp")}) == 3 + 1 + 1 + 1 + 1
    by_decay = found.axis_rows()[0]
    ranks = [cell["ranks"] for cell in by_decay["values"]]
    learnt = [each for cell, each in zip(by_decay["values"], ranks, strict=True) if not cell["untrained"]]
    assert np.ptp(ranks) > 0
    assert by_decay["untrained"] == 2 * (3 - len(learnt)) == 2  # the largest weight decay leaves nothing to learn with
    assert by_decay["rank"]["correlation"] == correlation((0.0, 2e-3), learnt)[0]
    (control,) = found.control_rows()
    assert control["rank"]["spread"] == np.ptp([cell["mean"] for cell in control["values"]])
    assert control["rank"]["with_decay"] == np.ptp([cell["mean"] for cell in found.axis_rows()[1]["values"]])
    run = found.study.opened("mlp", {"batch": 8, "lr": 0.1, "weight_decay": 1.0}, seed=1)
    assert last_rank(run) == run["layers/relative_rank"][-1].mean() == ranks[2][1]
    assert min(len(rows) for rows in found.gradients.values()) >= 3
    for row in found.gradients["mixed"] + found.gradients["mlp"]:
        assert 0 < row["sample"] <= row["sample_bound"]
        assert row["batch"] <= row["batch_bound"]
    bounds = found.bound_rows()
    assert [row["bound"] for row in bounds] == sorted(row["bound"] for row in bounds)
    for row in bounds[:-1]:
        start = [values[0] > row["epsilon"] * values[0, 0] for values in _values(found.wide)]
        assert max(int(above.sum()) for above in start) > row["bound"] >= row["largest"], "training brings them below"
        assert row["below_width"]
    assert bounds[-1]["largest"] > bounds[-1]["bound"], "whose norms have not settled: so it is told"
    written = {path.name for path in found.save(("png",))}
    assert {
        "galanti.md",
        "galanti.json",
        "runs.csv",
        "final-ranks.png",
        "maps.png",
        "bound.png",
        "mixed.png",
    } <= written
    text = (work / "study/galanti.md").read_text()
    assert "## Without weight decay" in text
    assert "The bound is exceeded." in text
    assert json.loads((work / "study/galanti.json").read_text())["axes"][0]["rank"] == by_decay["rank"]
    before = {path: path.stat().st_mtime_ns for path in (work / "study/runs").rglob("*") if path.is_file()}
    code, _, _ = call(capsys, "report study -o page.html --quiet")  # reads, and makes nothing again
    assert code == 0
    assert (work / "page.html").read_text().count("<figure") == len(found.figures())
    assert before == {path: path.stat().st_mtime_ns for path in (work / "study/runs").rglob("*") if path.is_file()}
    with pytest.raises(lb.InvalidInput, match="a new folder, or this study with"):
        lb.reproduce("galanti", "study", seeds=3, preset=tiny())


def test_runs_that_were_begun_are_continued(work, monkeypatch):
    study = Galanti(work / "study", seeds=1, preset=tiny(), workers=1)
    study.begin()
    name, settings = next(iter(study.runs().items()))
    whole = lb.nn.fit(Training(**settings))
    make = TorchStepper.step

    def interrupted(stepper, losses, step):
        if step == 20:
            os.kill(os.getpid(), signal.SIGINT)
        return make(stepper, losses, step)

    monkeypatch.setattr(TorchStepper, "step", interrupted)
    with pytest.raises(lb.Interrupted):
        train_one((study.path(name), settings))
    monkeypatch.undo()
    assert lb.open(study.path(name)).step == 21
    assert train_one((study.path(name), settings)) == "finished"
    np.testing.assert_array_equal(lb.open(study.path(name))["singular_values"], whole["singular_values"])


@pytest.mark.parametrize("size", [{}, {"preset": "paper", "folder": "cifar"}], ids=["small", "paper"])
def test_every_run_can_be_made(size):
    """Settings are accepted, and no two cells share a folder unless they are the same run."""
    study = Galanti(**size)
    runs = study.runs()
    for name, settings in runs.items():
        Training(**settings)
        cell = {key: settings[key] for key in KEYS}
        assert name == run_name(name.split(",")[0], cell, settings["seed"])
    for each in (*study.preset.axes, *study.preset.controls, *study.preset.others):
        for cell in each.cells():
            assert run_name(each.network, cell, 0) in runs
    assert sum(settings.get("steps") is None for settings in runs.values()) == (len(runs) if size else 0)


def test_steps_stretch_all_runs_alike():
    stretched = Galanti(steps=400).preset
    own = small().networks
    for network, settings in stretched.networks.items():
        assert settings["steps"] == round(own[network]["steps"] * 400 / own["resnet"]["steps"])
    expected = Galanti(workers=2).forecast()
    assert expected["runs"] == 132
    assert Galanti(workers=1).forecast()["seconds"] == 2 * expected["seconds"]
    assert Galanti(preset="paper").forecast()["seconds"] == float("inf")
    with pytest.raises(lb.InvalidInput, match="runs of this preset go by epochs"):
        Galanti(preset="paper", steps=400)


def test_a_package_that_is_missing_is_told_before_anything_is_made(work, monkeypatch):
    monkeypatch.setitem(sys.modules, "einops", None)
    with pytest.raises(lb.InvalidInput, match=r"needs einops: pip install 'lrbias\[vision\]'"):
        lb.reproduce("galanti", "study")
    assert not list(work.iterdir())


def test_correlations_and_verdicts():
    values = (1, 2, 3, 4)
    falling = [[9, 9.5], [7, 7.5], [5, 5.5], [2, 2.5]]
    rho, low, high = correlation(values, falling)
    assert rho == pytest.approx(-0.98, abs=0.01)
    assert -1 <= low <= rho <= high < -0.9
    assert verdict("lr", low, high) == "holds"
    assert verdict("batch", low, high) == "fails"
    rho, low, high = correlation(values, [[1, 3, 2], [3, 1, 2], [2, 3, 1], [1, 2, 3]])
    assert low < 0 < high
    assert verdict("lr", low, high) == "not shown"
    assert correlation(values, [[5, 5]] * 4) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("counts", [(1, 1), (2, 3, 3), (5, 1, 4, 2)])
def test_the_correlation_is_that_of_scipy(counts, rng):
    """Of few different numbers, so that many are tied."""
    values = np.arange(len(counts))
    ranks = [rng.integers(0, 4, count) + 0.5 for count in counts]
    ranks[0][0] = 9
    expected = scipy.stats.spearmanr(np.repeat(values, counts), np.concatenate(ranks)).statistic
    assert correlation(values, ranks)[0] == pytest.approx(expected, abs=1e-12)


def test_a_rank_that_is_not_a_number_is_no_correlation_of_zero():
    assert np.isnan(correlation((1, 2), [[1.0, np.nan], [2.0, 3.0]])).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "huge"}, "preset = 'huge' is not accepted: expected small or paper"),
        ({"folder": "cifar"}, "folder = 'cifar' cannot be set: only preset = 'paper' reads one"),
        ({"seeds": 0}, "seeds = 0 is not accepted"),
        ({"preset": "paper"}, "folder = None is not accepted"),
        ({"preset": "paper", "folder": "nowhere"}, "folder = 'nowhere' is not accepted"),
        ({"steps": 0}, "steps = 0 is not accepted"),
    ],
)
def test_bad_input_is_one_sentence(work, arguments, message):
    with pytest.raises(lb.InvalidInput, match=message):
        lb.reproduce("galanti", "study", **arguments)
    assert not list(work.iterdir())
    with pytest.raises(lb.InvalidInput, match="preset = 'small' cannot be set: chou has no such parameter"):
        lb.reproduce("chou", "study", preset="small")
