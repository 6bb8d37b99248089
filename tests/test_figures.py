"""Figures show what was measured: lines carry the data, axes have labels, missing data is named."""

import numpy as np
import pytest

import lrbias as lb
from lrbias.figures import drawing, plots
from runs import settings


@pytest.fixture(scope="module")
def run():
    return lb.train(**settings(2000, record=lb.Record(every=10)))


@pytest.fixture(scope="module")
def completion():
    """A run by SGD on some of the entries."""
    problem = lb.Completion(lb.spectrum((6, 6), [6.0], seed=1), entries=25, mean=True)
    network, record = lb.Network.gaussian((6, 6, 6), gamma=0.5, seed=1), lb.Record(every=10)
    return lb.train(problem, network, lb.SGD(lr=0.02, ridge=1e-3), 2005, record=record)


@pytest.mark.parametrize("name", plots.FIGURES)
def test_every_figure_has_labelled_axes_and_saves(run, completion, name, tmp_path):
    figure = plots.FIGURES[name](completion if name == "errors" else run)
    shown = [axes for axes in figure.axes if axes.get_visible() and axes.get_label() != "<colorbar>"]
    assert shown
    assert all(axes.get_xlabel() for axes in shown)
    assert any(axes.get_ylabel() for axes in shown)
    for path in plots.save_figure(figure, tmp_path, name, ("png", "pdf")):
        assert path.stat().st_size > 5000


def test_figures_of_a_completion_show_errors_and_no_theory_about_whole_targets(completion):
    assert {"overview", "errors"} <= {name for name, _, _ in plots.available(completion)}
    drawn = {line.get_label(): line.get_ydata() for line in _lines(plots.overview(completion))}
    assert np.allclose(drawn["observed"], completion["train_error"])
    assert np.allclose(drawn["hidden"], completion["hidden_error"])
    assert not any("forecast" in label for label in drawn)
    (line,) = _lines(plots.loss(completion))
    assert np.allclose(line.get_ydata(), completion.losses[:2000].reshape(-1, 10).mean(axis=1))


def test_a_whole_target_has_no_figure_of_errors(run):
    with pytest.raises(lb.InvalidInput, match="train_error"):
        plots.errors(run)


def _lines(figure):
    return [line for axes in figure.axes for line in axes.get_lines()]


def test_measured_curves_and_theory_are_in_the_figures(run):
    values = run["product/singular_values"]
    drawn = [line.get_ydata() for line in _lines(plots.singular_values(run))]
    for column in range(values.shape[1]):
        assert any(len(y) == len(values) and np.allclose(y, values[:, column], equal_nan=True) for y in drawn)
    for level in run.target_values[:2]:
        assert any(len(y) == 2 and np.allclose(y, level) for y in drawn)
    ranks = [line.get_ydata() for line in _lines(plots.effective_rank(run))]
    assert any(len(y) == len(run.steps) and np.allclose(y, run["product/effective_rank"]) for y in ranks)
    assert any(len(y) == 2 and np.allclose(y, 1.5) for y in ranks), "plateau of both values: (3 + 1.5) / 3"


def test_colours_keep_their_order_in_grey():
    luminance = drawing.dark_to_light(10)[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > 0).all()


def test_missing_data_is_named(run):
    bare = lb.train(**settings(record=lb.Record(metrics=())))
    with pytest.raises(lb.InvalidInput, match="product/singular_values"):
        plots.singular_values(bare)
    with pytest.raises(lb.InvalidInput, match="alignment_left"):
        plots.alignment(bare)


def test_save_writes_what_the_run_has(tmp_path):
    bare = lb.train(**settings(record=lb.Record(metrics=())))
    assert [path.name for path in plots.save(bare, tmp_path / "a", ("png",))] == ["loss.png"]


def test_a_diverged_run_can_be_drawn(tmp_path):
    run = lb.train(**settings(method=lb.GD(lr=0.6), record=lb.Record(every=1)))
    assert len(plots.save(run, tmp_path, ("png",))) == 6


def test_comparison_of_gd_and_flow(run, tmp_path):
    flow = lb.train(**settings(4000, method=lb.GradientFlow(dt=0.01), record=lb.Record(every=10)))
    fast = lb.train(**settings(1000, method=lb.GD(lr=0.04), record=lb.Record(every=10)))
    compared = lb.compare([run, flow, fast])
    assert compared.reference is flow
    assert compared.same_start
    times, slow_gap = compared.difference(run)
    assert times[-1] == pytest.approx(40.0)
    fast_gap = compared.difference(fast)[1]
    assert 1.5 < fast_gap.max() / slow_gap.max() < 2.5, "Euler's error is of first order"
    assert compared.difference(flow)[1].max() == 0
    assert "reference" in str(compared)
    assert all(path.exists() for path in compared.save(tmp_path))
    other = lb.train(**settings(network=lb.Network.gaussian((5, 7, 6), gamma=1.0, seed=9), record=lb.Record(every=10)))
    assert not lb.compare([run, other]).same_start


def test_comparison_refuses_other_targets(run):
    other = lb.train(**settings(problem=lb.Factorization(lb.spectrum((6, 5), [3.0, 1.5], seed=4))))
    with pytest.raises(lb.InvalidInput, match="the same target"):
        lb.compare([run, other])


def test_gd_tends_to_the_flow_with_the_first_power_of_its_step(tmp_path):
    """Same start, learning rates over a factor of 16, against RK4 with the smallest of them."""
    record = lb.Record(every=1, metrics=("singular_values", "effective_rank"))
    arguments = settings(record=record)
    runs = [lb.train(**{**arguments, "method": lb.GD(lr=0.016 / 2**k), "steps": 100 * 2**k}) for k in range(5)]
    flow = lb.train(**{**arguments, "method": lb.GradientFlow(dt=0.001), "steps": 1600, "checkpoint_every": 400})
    compared = lb.compare([*runs, flow])
    assert compared.reference is flow
    assert compared.order() == pytest.approx(1, abs=0.05)
    assert "lr^1.0" in str(compared)
    times, gaps = compared.distance(runs[1])
    assert times.tolist() == pytest.approx([0.4, 0.8, 1.2, 1.6])
    gap = np.linalg.norm(runs[1].checkpoint(50).product() - flow.checkpoint(400).product())
    assert gaps[0] == pytest.approx(gap / np.linalg.norm(flow.target))
    assert compared.order(compared.distance) == pytest.approx(1, abs=0.05)
    assert [path.name for path in compared.save(tmp_path, ("png",))] == ["comparison.png", "order.png"]
    assert lb.compare([runs[0], flow]).order() is None
