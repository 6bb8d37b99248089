"""Figures whatever the run, the user's matplotlib and the disk are like: each is drawn or told of, none is halved."""

import errno
import os
import sys

import matplotlib
import numpy as np
import pytest

import lrbias as lb
from lrbias.plots import _drawing as drawing
from lrbias.plots import _figures as plots
from runs import call, settings

FACTORIZATION = lb.Factorization(lb.from_singular_values((4, 3), [2.0, 1.0]))
START = lb.Network.gaussian((3, 4, 4), gamma=1, seed=1)
ZERO = lb.Factorization(np.zeros((4, 3)))
NUMBER = lb.Factorization(np.zeros((1, 1)))
SOME = lb.Completion(np.zeros((4, 4)), entries=13, seed=1)
FLOW = lb.GradientFlow(dt=0.1, scheme="dopri5")
RUNS = {
    "a target of zeros": (ZERO, START, lb.GD(lr=0.1), 20),
    "zeros all over": (ZERO, lb.Network.from_layers([np.zeros((4, 3)), np.zeros((4, 4))]), lb.GD(lr=0.1), 20),
    "one record": (FACTORIZATION, START, lb.GD(lr=0.1), 3),
    "nothing finite": (FACTORIZATION, lb.Network.gaussian((3, 4, 4), std=1e160, seed=1), lb.GD(lr=0.1), 20),
    "diverged at step 1": (FACTORIZATION, lb.Network.gaussian((3, 4, 4), std=1e60, seed=1), lb.GD(lr=1e60), 20),
    "one layer, one number": (NUMBER, lb.Network.gaussian((1, 1), gamma=1, seed=1), lb.GD(lr=0.1), 20),
    "zeros observed": (SOME, lb.Network.gaussian((4, 4, 4), gamma=1, seed=1), lb.SGD(lr=0.1), 3),
    "a flow to zero": (ZERO, START, FLOW, 20),
}


def shown(figure):
    """Drawn to the end: some faults show only there."""
    with drawing.our_style():
        figure.savefig(os.devnull, format="png", dpi=30)


QUICK = ("zeros all over", "nothing finite", "one layer, one number", "zeros observed")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.evidence) for name in RUNS]
)
def test_every_figure_of_a_degenerate_run_is_drawn(name):
    problem, network, method, steps = RUNS[name]
    own = {} if name == "zeros observed" else {"updates": 10, "gradient_norm": 10}
    metrics = ("singular_values", "effective_rank", "stable_rank", "relative_rank", "alignment", "direction_change")
    record = lb.Record(every=10, metrics={**dict.fromkeys(metrics, 10), **own})
    run = lb.train(problem, network, method, steps, record=record, forecast=False)
    figures = {name for name, _, _ in plots.available(run)}
    assert {"overview", "loss"} <= figures or run.step <= 1
    for _, draw, _ in plots.available(run):
        shown(draw())
    if "gradient_norm" in run and run.depth > 1 and run.step > 1:
        shown(plots.saddles(run, []))


def test_a_target_of_zeros_has_no_directions():
    run = lb.train(ZERO, START, lb.GD(lr=0.1), 20, forecast=False)
    assert "alignment" not in {name for name, _, _ in plots.available(run)}
    with pytest.raises(lb.InvalidInput, match="a target that is not 0"):
        plots.alignment(run)


@pytest.fixture(scope="module")
def run():
    return lb.train(**settings(100, record=lb.Record(every=10, metrics=("singular_values", "effective_rank"))))


def test_figures_do_not_depend_on_the_users_settings(run, tmp_path):
    (expected,) = drawing.save_figure(plots.loss(run), tmp_path / "a", "loss", ["png"])
    own = {"text.usetex": True, "font.family": "No Such Font", "lines.linewidth": 9, "savefig.bbox": "tight"}
    with matplotlib.rc_context(own):
        before = dict(matplotlib.rcParams)
        (found,) = drawing.save_figure(plots.loss(run), tmp_path / "b", "loss", ["png"])
        assert dict(matplotlib.rcParams) == before
    assert found.read_bytes() == expected.read_bytes()


def test_names_of_the_users_are_no_formulas(run, monkeypatch):
    other = lb.train(**settings(100, record=lb.Record(every=10), method=lb.GD(lr=0.01)))
    monkeypatch.setattr(
        plots, "names_of", lambda runs: {each: rf"a$_\no{{$ {number}" for number, each in enumerate(runs)}
    )
    shown(plots.comparison(lb.compare([run, other])))


def test_a_disk_that_is_full_leaves_no_part_of_a_figure(run, tmp_path, monkeypatch):
    drawing.save_figure(plots.loss(run), tmp_path, "loss", ["png"])
    before = (tmp_path / "loss.png").read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(lb.StoreError, match="No space left"):
        plots.save(run, tmp_path, ["png"])
    assert (tmp_path / "loss.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]


WORDS = "run --shape 6 5 --rank 2 --depth 2 --lr 0.02 --gamma 1 --steps 50 --metrics singular_values effective_rank"
WORDS += " --quiet --format svg"


def broken(run):
    raise KeyError("a fault")


def test_a_figure_that_fails_costs_neither_the_facts_nor_the_others(work, capsys, monkeypatch):
    monkeypatch.setitem(plots.FIGURES, "effective_rank", broken)
    code, out, err = call(capsys, f"{WORDS} -o run")
    assert (code, err.count("\n")) == (0, 1)
    assert "finished at step 50" in out
    assert "warning: figure effective_rank cannot be drawn (KeyError: 'a fault')" in err
    drawn = {path.stem for path in (work / "run/figures").iterdir()}
    assert drawn == {"layer_ranks", "loss", "overview", "singular_values"}
    advice = err.strip().split("to draw its figures: lrbias ")[1]
    code, _, err = call(capsys, advice)
    assert (code, err) == (1, "lrbias: figure effective_rank cannot be drawn (KeyError: 'a fault')\n")
    monkeypatch.setitem(plots.FIGURES, "effective_rank", plots.effective_rank)
    assert call(capsys, f"{advice} --format svg -o {work}/again")[0] == 0
    assert (work / "again/effective_rank.svg").exists()


def test_a_matplotlib_that_does_not_load_costs_no_run(work, capsys, monkeypatch):
    """As with an MPLBACKEND that is none."""
    monkeypatch.setitem(sys.modules, "lrbias.plots._figures", None)
    for loaded in ("_figures", "save"):
        monkeypatch.delattr(f"lrbias.plots.{loaded}", raising=False)
    code, out, err = call(capsys, f"{WORDS} -o run")
    assert (code, "finished at step 50" in out) == (0, True)
    assert "lrbias plot run" in err


def test_without_docstrings_a_caption_is_empty():
    """python -OO leaves them out."""
    assert drawing.caption(broken) == ""
