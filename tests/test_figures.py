"""Figures show what was measured: lines carry the data, axes have labels, missing data is named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lrbias as lb
from lrbias.plots import _drawing as drawing
from lrbias.plots import _figures as plots
from runs import settings


@pytest.fixture(scope="module")
def run():
    return lb.train(**settings(2000, record=lb.Record(every=10)))


@pytest.fixture(scope="module")
def completion():
    """A run by SGD on some of the entries."""
    problem = lb.Completion(lb.from_singular_values((6, 6), [6.0], seed=1), entries=25, reduction="mean")
    network = lb.Network.gaussian((6, 6, 6), gamma=0.5, seed=1)
    record = lb.Record(every=10)
    return lb.train(problem, network, lb.SGD(lr=0.02, ridge=1e-3), 2005, record=record)


RECORD = lb.Record(metrics=("singular_values", "effective_rank", "relative_rank", "errors", "product"))
ADAPTIVE = lb.GradientFlow(dt=0.1, scheme="dopri5")


@pytest.fixture(scope="module")
def greedy():
    """Greedy low-rank learning with an adaptive flow on the target of `run`, to the end."""
    return lb.train(**settings(None, network=None, method=lb.GLRL(inner=ADAPTIVE), record=RECORD))


@pytest.fixture(scope="module")
def greedy_completion():
    """The same on some of the entries, of whose mean it is."""
    problem = lb.Completion(lb.from_singular_values((7, 5), [2.0, 1.0], seed=0), entries=30, seed=1, reduction="mean")
    method = lb.GLRL(epsilon=1e-4, inner=lb.GradientFlow(dt=3.0, scheme="dopri5"), check_every=20)
    return lb.train(problem, None, method, record=RECORD, forecast=False)


REGIMES = ("sharpness", "tangent_kernel", "updates")


@pytest.fixture(scope="module")
def regimes():
    """A run that has recorded what these figures are of."""
    metrics = ("sharpness", "hessian_min_eigenvalues", "ntk", "updates", "gradient_norm")
    return lb.train(**settings(1000, record=lb.Record(every=10, metrics=metrics)))


def test_figures_of_regimes_carry_what_was_recorded(regimes, run):
    """And the limits that theory has for it; without a record there is none of them."""
    drawn = {line.get_label(): line.get_ydata() for line in _lines(plots.sharpness(regimes))}
    assert np.allclose(drawn[r"$\lambda_1, \lambda_2, \ldots$ (dark to light)"], regimes["hessian/largest"][:, 0])
    assert np.allclose(drawn["smallest eigenvalue"], regimes["hessian/smallest"][:, 0])
    assert np.allclose(drawn[r"$2/\eta$ = 100"], 100)
    kernel = [line.get_ydata() for line in _lines(plots.tangent_kernel(regimes))]
    assert np.allclose(kernel[0][1:], regimes["ntk/distance"][1:])
    assert [line[0] for line in kernel[2:]] == [0.01, 0.5]
    updates = {line.get_label(): line.get_ydata() for line in _lines(plots.updates(regimes))}
    assert np.allclose(updates["layer 2"], regimes["layer/2/update_stable_rank"][1:])
    assert np.allclose(updates["product"], regimes["product/update_stable_rank"][1:])
    found = lb.saddles(regimes)
    marks = {line.get_label(): line.get_xdata() for line in _lines(plots.saddles(regimes, found))}
    assert list(marks["saddles, with their rank"]) == [saddle.step for saddle in found]
    assert set(REGIMES) <= {name for name, _, _ in plots.available(regimes)}
    assert not set(REGIMES) & {name for name, _, _ in plots.available(run)}


@pytest.mark.parametrize("name", plots.FIGURES)
def test_every_figure_has_labelled_axes_and_saves(run, completion, greedy, regimes, name, tmp_path):
    special = {"errors": completion, "adaptive_steps": greedy, **dict.fromkeys(REGIMES, regimes)}
    figure = plots.FIGURES[name](special.get(name, run))
    shown = [axes for axes in figure.axes if axes.get_visible() and axes.get_label() != "<colorbar>"]
    assert shown
    assert all(axes.get_xlabel() for axes in shown)
    assert any(axes.get_ylabel() for axes in shown)
    assert all(axes.has_data() for axes in shown)
    png, pdf = drawing.save_figure(figure, tmp_path, name, ("png", "pdf"))
    with Image.open(png) as image:
        drawn = np.asarray(image.convert("L"))
    expected = figure.get_size_inches() * 60  # the resolution of these tests
    assert drawn.shape[::-1] == pytest.approx(tuple(expected), abs=1)
    assert 0.01 < (drawn < 200).mean() < 0.9, "neither empty nor black"
    assert pdf.read_bytes()[:5] == b"%PDF-"


def test_figures_of_a_completion_show_errors_and_no_theory_about_whole_targets(completion):
    assert {"overview", "errors"} <= {name for name, _, _ in plots.available(completion)}
    drawn = {line.get_label(): line.get_ydata() for line in _lines(plots.overview(completion))}
    assert np.allclose(drawn["observed"], completion["train_error"])
    assert np.allclose(drawn["hidden"], completion["test_error"])
    assert not any("forecast" in label for label in drawn)
    (line,) = _lines(plots.loss(completion))
    assert np.allclose(line.get_ydata(), completion.losses[:2000].reshape(-1, 10).mean(axis=1))


def test_a_whole_target_has_no_figure_of_errors(run):
    with pytest.raises(lb.InvalidInput, match="train_error"):
        plots.errors(run)


def _lines(figure):
    return [line for axes in figure.axes for line in axes.get_lines()]


def _words(figure):
    """Of all legends of a figure."""
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    return [text.get_text() for legend in legends if legend for text in legend.get_texts()]


def _upright(axes):
    return [line.get_xdata()[0] for line in axes.get_lines() if list(line.get_ydata()) == [0, 1]]


@pytest.mark.parametrize("name", ["overview", "singular_values", "effective_rank", "loss", "errors", "layer_ranks"])
def test_ends_of_phases_are_marked_in_every_panel_and_named_once(name, run, greedy_completion):
    figure = plots.FIGURES[name](greedy_completion)
    ends = [phase.end for phase in greedy_completion.phases]
    assert len(ends) == 2
    for axes in figure.axes:
        assert _upright(axes) == ends
    assert _words(figure).count("a phase ends") == 1
    if name != "layer_ranks":
        assert figure.axes[0].get_xlabel() == "iteration (t = 3 · iteration, a time of its own)"
    if name != "errors":
        others = plots.FIGURES[name](run)
        assert "a phase ends" not in _words(others)
        assert not any(_upright(axes) for axes in others.axes)


def test_a_phase_that_goes_on_has_no_end(tmp_path):
    short = lb.train(**settings(20, network=None, method=lb.GLRL(inner=ADAPTIVE), record=RECORD))
    assert [phase.end for phase in short.phases] == [-1]
    assert "a phase ends" not in _words(plots.overview(short))
    assert len(plots.save(short, tmp_path, ("png",))) == 6


def test_the_loss_of_a_whole_target_is_called_what_it_is(run, greedy, greedy_completion):
    """Whoever makes the steps; and the best approximations have the losses of the critical points."""
    scheduled = lb.train(**settings(method=lb.GD(lr=0.02, lr_schedule="exponential_decay:factor=0.5,stop=100")))
    for shown in (run, greedy, scheduled):
        figure = plots.loss(shown)
        assert figure.axes[0].get_ylabel() == r"loss $\frac{1}{2}\|W - \hat W\|_F^2$"
        levels = [line.get_ydata()[0] for line in _lines(figure) if line.get_label().startswith("best of rank")]
        assert levels == pytest.approx([1.5**2 / 2])
    assert greedy.phases[0].loss == pytest.approx(1.5**2 / 2)
    part = plots.loss(greedy_completion)
    assert part.axes[0].get_ylabel() == "loss"
    assert not any(word.startswith("best of rank") for word in _words(part))
    decayed = lb.train(**settings(method=lb.GD(lr=0.02, ridge=1e-3)))
    assert "lambda" in plots.loss(decayed).axes[0].get_ylabel()


def test_values_of_greedy_learning_are_seen_from_where_they_start_and_below_the_legend(greedy, greedy_completion):
    for run, epsilon in ((greedy, 1e-6), (greedy_completion, 1e-4)):
        figure = plots.singular_values(run)
        (axes,) = figure.axes
        low, high = axes.get_ylim()
        assert low == pytest.approx(epsilon / 3)
        figure.draw_without_rendering()
        bottom = axes.transData.inverted().transform(axes.get_legend().get_window_extent().p0)[1]
        assert run["product/singular_values"].max() < bottom < high


def test_steps_that_a_tolerance_chose_beside_what_stability_allows(run, greedy, greedy_completion):
    assert not any(name == "adaptive_steps" for name, _, _ in plots.available(run))
    with pytest.raises(lb.InvalidInput, match="flow/step_size"):
        plots.adaptive_steps(run)
    for shown, share in ((greedy, 1), (greedy_completion, 30)):
        assert any(name == "adaptive_steps" for name, _, _ in plots.available(shown))
        sizes, counts = plots.adaptive_steps(shown).axes
        drawn = {line.get_label(): line.get_ydata() for line in sizes.get_lines()}
        chosen, (allowed,) = drawn["chosen"], (y for label, y in drawn.items() if "sigma" in label)
        assert np.array_equal(chosen[1:], shown["flow/step_size"][1:])
        assert np.isnan(chosen[0]), "before the first step there is none"
        with np.errstate(divide="ignore"):
            expected = 3 * share / (2 * shown["product/singular_values"][:, 0])
        assert np.allclose(allowed[1:], expected[1:], rtol=1e-12)
        settled = shown.steps_of("flow/step_size") > shown.phases[-1].start + 50
        ratio = chosen[settled] / allowed[settled]
        assert 0.8 < np.median(ratio) < 1.6
        assert np.array_equal(counts.get_lines()[0].get_ydata(), shown["flow/evaluations"])
        assert np.ptp(sizes.get_lines()[1].get_ydata()) == 0
        assert sizes.get_lines()[1].get_ydata()[0] == shown.step_size


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
    assert len(plots.save(run, tmp_path, ("png",))) == 7


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
    assert not plots.comparison(compared).axes[3].texts
    assert "reference" in str(compared)
    assert all(path.exists() for path in compared.save(tmp_path))
    other = lb.train(**settings(network=lb.Network.gaussian((5, 7, 6), gamma=1.0, seed=9), record=lb.Record(every=10)))
    assert not lb.compare([run, other]).same_start


def test_where_runs_agree_it_is_said(run):
    again = lb.train(**settings(1000, record=lb.Record(every=10)))
    assert [text.get_text() for text in plots.comparison(lb.compare([run, again])).axes[3].texts] == ["no difference"]


def test_a_kernel_that_stays_has_no_curve(regimes):
    still = lb.train(**settings(method=lb.GD(lr=1e-300), record=lb.Record(every=10, metrics=("ntk",))))
    assert [text.get_text() for text in plots.tangent_kernel(still).axes[0].texts] == ["no change was recorded"]
    changed = plots.tangent_kernel(regimes)
    assert not changed.axes[0].texts
    assert _words(changed)[2:] == ["lazy below 0.01 (ours)", "rich above 0.5 (ours)"]


def test_greedy_runs_are_left_out_of_curves_over_time(greedy, tmp_path):
    """Their time is their own; beside each other they are drawn, and it is said."""
    starts = [lb.Network.gaussian((5, 7, 6), gamma, seed=2) for gamma in (2.0, 3.0)]
    flows = [lb.train(**settings(400, network=start, method=ADAPTIVE, record=RECORD)) for start in starts]
    figure = plots.comparison(lb.compare([greedy, *flows]))
    names = ["gradient flow (dopri5), rtol = 1e-06, gamma = 2.0", "gradient flow (dopri5), rtol = 1e-06, gamma = 3.0"]
    assert _words(figure) == names
    assert "greedy runs, whose t is their own, are left out" in figure.legends[0].get_title().get_text()
    for line in _lines(figure):
        assert len(line.get_xdata()) <= 2 or line.get_xdata()[-1] == pytest.approx(40)
    assert sum(len(line.get_xdata()) > 2 for line in _lines(figure)) >= 2
    assert names[0] in figure.axes[3].get_title().replace("\n", " ")
    alone = plots.comparison(lb.compare([greedy, flows[0]]))
    assert _words(alone) == ["gradient flow (dopri5), rtol = 1e-06"]
    assert [axes.get_visible() for axes in alone.axes] == [True, True, True, False]
    assert alone.axes[1].get_xlabel() == "t = step size · iteration"
    others = plots.comparison(lb.compare([greedy, greedy]))
    assert others.axes[2].get_xlabel() == "t = step size · iteration, of each run its own"
    assert all(len(axes.get_lines()) >= 2 for axes in others.axes[:3])


def test_distance_from_the_path_of_any_of_the_runs(greedy):
    flow = lb.train(**settings(400, method=ADAPTIVE, record=RECORD))
    other = lb.train(**settings(400, method=lb.GD(lr=0.01), record=RECORD))
    compared = lb.compare([greedy, flow, other])
    assert compared.reference is flow
    own, gd = plots.trajectory_distance(compared).axes[0].get_lines()
    assert own.get_label() == f"{greedy.label} (over a time of its own)"
    assert gd.get_label() == "GD, lr = 0.01"
    figure = plots.trajectory_distance(compared, reference=greedy)
    assert greedy.label in figure.axes[0].get_title()
    assert _words(figure) == ["gradient flow (dopri5), rtol = 1e-06", "GD, lr = 0.01"]
    for line, run in zip(_lines(figure), (flow, other), strict=True):
        t, distances, _ = lb.trajectory_distance(run, greedy)
        assert np.array_equal(line.get_xdata(), t)
        assert np.allclose(line.get_ydata(), distances / np.linalg.norm(run.target), rtol=1e-12)
    bare = lb.train(**settings(record=lb.Record(metrics=("singular_values", "effective_rank"))))
    with pytest.raises(lb.InvalidInput, match=r"^reference = 'GD, lr = 0.02' is not accepted: .*are compared"):
        plots.trajectory_distance(compared, bare)
    with pytest.raises(lb.InvalidInput, match=r"^compared = 'GD, lr = 0.02' is not accepted: .*product/matrix"):
        plots.trajectory_distance(lb.compare([bare, flow, other]), bare)


def test_comparison_refuses_other_targets(run):
    other = lb.train(**settings(problem=lb.Factorization(lb.from_singular_values((6, 5), [3.0, 1.5], seed=4))))
    with pytest.raises(lb.InvalidInput, match="the same target"):
        lb.compare([run, other])
    with pytest.raises(lb.InvalidInput, match=r"^runs = \['a'\] is not accepted"):
        lb.compare([Path("a")])


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
