"""Figures of a run, as a paper would print them: labelled, readable in grey, theory drawn over the measured curves.

Every function returns a matplotlib Figure that belongs to no GUI; `save` writes them all.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrbias import theory
from lrbias.errors import InvalidInput, check
from lrbias.experiments import all_settings
from lrbias.forecasts import MODES, escapes
from lrbias.plots import _curvature as regime_plots
from lrbias.plots import _tracked as model_plots
from lrbias.plots._drawing import (
    LINES,
    PHASE,
    THEORY,
    Drawable,
    caption,
    dark_to_light,
    largest,
    literal,
    log_axes,
    new_figure,
    new_mosaic,
    plain_ticks,
    positive,
    save_each,
    say_if_empty,
    styled,
    thin,
)
from lrbias.runs import ModelRun, Run, RunReader
from lrbias.settings import check_formats
from lrbias.system import one_blas_thread, usual_errors
from lrcore.adaptive import STABLE

EARLY = 0.05  # of a run
FEWEST = 5  # singular values that are drawn where more than the target's may be learnt
DEEPEST = 1e-4  # of the largest one is the lower end of the axis then
LOWEST = 1e-18  # where the axis ends at the latest
NEAREST = 1e-8  # of the largest distance is the lower end of the axis at the latest: two starts near 0 are nearer
TIME = "t = step size · iteration"
TITLE = 48  # letters of a line above one of two panels
ENTRIES = {"train": "observed", "test": "hidden"}


def _series(run: Run, name: str) -> tuple[np.ndarray, np.ndarray]:
    return thin(run.steps_of(name), run[name])


def _needs(run: Run, *names: str) -> None:
    for name in names:
        if name not in run:
            raise InvalidInput(
                f"this figure needs {name}, which the run did not record; it has {', '.join(run.names)}."
            )


def _step_axis(run: Run, axes: Axes) -> None:
    """Iterations; where everything is learnt early in the run, logarithmic after that."""
    own = ", a time of its own" if run.method.phases else ""
    axes.set_xlabel(f"iteration (t = {run.step_size:g} · iteration{own})")
    last = max((step for step in _measured_escapes(run) if step is not None), default=run.step)
    if last < EARLY * run.step:
        axes.set_xscale("symlog", linthresh=max(2 * last, 1), linscale=2)
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(0, max(run.step, 1))


def _measured_escapes(run: Run) -> list[int | None]:
    return run.escape_steps() if run.tells_modes else []


def _mark_phases(run: Run, axes: Axes) -> None:
    """A line where a phase of greedy learning ends, one entry for all of them in the legend of the first panel."""
    ends = [phase.end for phase in run.phases if phase.end >= 0]
    first = axes is axes.figure.axes[0]
    for number, end in enumerate(ends):
        axes.axvline(end, label="a phase ends" if first and number == 0 else None, **PHASE)
    if ends:
        axes.grid(visible=False, axis="x")  # which the lines could be taken for


def _frame(run: Run) -> dict[str, Any]:
    """Of a legend: white where lines of phases would cross its words."""
    return {"frameon": True, "facecolor": "white", "edgecolor": "none", "framealpha": 1} if run.phases else {}


def _of_model(run: Any) -> bool:
    return isinstance(run, ModelRun)


def _or_of_model(other: Callable[..., Figure]) -> Callable[[Callable[[Run], Figure]], Callable[..., Figure]]:
    """The decorated function, for a ModelRun `other`, which draws the same of a model's weight matrices."""

    def decorate(draw: Callable[[Run], Figure]) -> Callable[..., Figure]:
        @functools.wraps(draw)
        def either(run: Any, *arguments: Any) -> Figure:
            return other(run, *arguments) if _of_model(run) else draw(run, *arguments)

        return either

    return decorate


@styled
def loss(run: Run) -> Figure:
    """Loss of every step, logarithmic; dashed: ½ Σ_{i>k} σ̂_i², the loss of the best rank-k approximation.

    Of single entries the means between two records.
    """
    figure, grid = new_figure(height=3.2)
    _draw_loss(run, grid[0, 0])
    return figure


def _draw_loss(run: Run, axes: Axes) -> None:
    steps = np.arange(len(run.losses))
    losses = run.losses
    if run.method.stochastic:
        block = run.settings["every"]
        whole = len(losses) // block * block
        steps = steps[:whole:block] + block / 2
        losses = losses[:whole].reshape(-1, block).mean(axis=1)
    steps, losses = thin(steps, losses)
    axes.semilogy(steps, positive(losses), color="black", label="measured")
    levels = [0.5 * float((run.target_values[k:] ** 2).sum()) for k in range(1, min(run.target_rank, MODES))]
    for k, level in enumerate(levels if run.fits_whole else []):
        axes.axhline(level, label=r"best of rank $k$" if k == 0 else None, **THEORY)
    _mark_phases(run, axes)
    axes.set_ylabel(_loss_label(run))
    axes.legend(loc="best", **_frame(run))
    _step_axis(run, axes)


def _loss_label(run: Run) -> str:
    if run.fits_whole:
        return r"loss $\frac{1}{2}\|W - \hat W\|_F^2$"
    if run.method.stochastic:
        return "loss of the drawn entries"
    return r"loss $+ \lambda \sum_i \|W_i\|_F^2$" if run.method.ridge else "loss"


@styled
def errors(run: Run) -> Figure:
    """Root mean square errors over the observed entries, and over the hidden ones where they are known."""
    figure, grid = new_figure(height=3.2)
    _draw_errors(run, grid[0, 0])
    return figure


def _draw_errors(run: Run, axes: Axes) -> None:
    _needs(run, "train_error")
    for name, colour, line in (("train", "black", "-"), ("test", "0.5", "--")):
        if f"{name}_error" in run:
            steps, values = _series(run, f"{name}_error")
            axes.semilogy(steps, positive(values), color=colour, linestyle=line, label=ENTRIES[name])
    _mark_phases(run, axes)
    axes.set_ylabel("root mean square error")
    axes.legend(loc="best", **_frame(run))
    _step_axis(run, axes)


@styled
def effective_rank(run: Run) -> Figure:
    """Effective rank of the product; dashed: Σ_{i≤k} σ̂_i / σ̂_1, its plateaus when k values are learnt."""
    figure, grid = new_figure(height=3.2)
    _draw_effective_rank(run, grid[0, 0])
    return figure


def _draw_effective_rank(run: Run, axes: Axes) -> None:
    _needs(run, "product/effective_rank")
    axes.plot(*_series(run, "product/effective_rank"), color="black", label=r"effective rank $\|W\|_*/\|W\|_2$")
    if "product/stable_rank" in run:
        axes.plot(*_series(run, "product/stable_rank"), color="0.55", label=r"stable rank $\|W\|_F^2/\|W\|_2^2$")
    known = run.target_values[: min(run.target_rank, MODES)]
    levels = np.cumsum(known) / known[:1]
    for k, level in enumerate(levels):
        axes.axhline(level, label=r"target's $k$ leading values" if k == 0 else None, **THEORY)
    _mark_phases(run, axes)
    axes.set_ylabel("rank of the product")
    last = run["product/effective_rank"][-1]
    axes.set_ylim(0, 1.55 * largest([*levels[-1:], last, 2]))  # room for the legend above the curves
    axes.legend(loc="upper right", **_frame(run))
    _step_axis(run, axes)


@_or_of_model(model_plots.singular_values)
@styled
def singular_values(run: Run) -> Figure:
    """All σ_i of the product, logarithmic; dashed: the target's values; triangles: the forecast of each escape."""
    figure, grid = new_figure(height=4.2)
    _draw_singular_values(run, grid[0, 0])
    return figure


def _draw_singular_values(run: Run, axes: Axes) -> None:
    _needs(run, "product/singular_values")
    steps, values = _series(run, "product/singular_values")
    shown = min(run.target_rank if run.fits_whole else max(run.target_rank, FEWEST), MODES, values.shape[1])
    floor = positive(values)
    lowest, highest = _value_limits(run, floor[:, :shown])
    if (floor[:, shown:] > lowest).any():
        axes.semilogy(steps, floor[:, shown:], color="0.8", linewidth=0.4, zorder=0, rasterized=True)
        axes.plot([], [], color="0.7", label="all others")  # a line that can be seen in the legend
    for i, colour in enumerate(dark_to_light(shown)):
        axes.semilogy(
            steps, floor[:, i], color=colour, label=r"$\sigma_1, \sigma_2, \ldots$ (dark to light)" if i == 0 else None
        )
        if i < run.target_rank:
            axes.axhline(run.target_values[i], label="target's values" if i == 0 else None, **THEORY)
    forecast = _escapes(run, shown) if run.plain else []
    late = [
        (step, value / 2)
        for step, value in zip(forecast, run.target_values, strict=False)
        if step is not None and step <= run.step
    ]
    if late:
        axes.plot(
            *zip(*late, strict=True),
            "v",
            color="white",
            markeredgecolor="black",
            markersize=4.5,
            label=r"forecast of $\hat\sigma_i/2$",
            zorder=5,
        )
    _mark_phases(run, axes)
    axes.set_ylabel("singular values of $W$")
    axes.set_ylim(lowest, highest)
    if _legend_on_top(run):
        axes.legend(loc="upper center", ncols=4, **_frame(run))
    else:
        axes.legend(loc="lower right")
    _step_axis(run, axes)


def _value_limits(run: Run, values: np.ndarray) -> tuple[float, float]:
    """From where the learnt values start, not from rounding level, up to a little above the target."""
    if not np.isfinite(values).any():
        return DEEPEST, 1
    highest = largest([np.nanmax(values), run.target_values[0]])
    least = DEEPEST * np.nanmax(values) if not run.fits_whole else 0
    own = getattr(run.method, "epsilon", None) if run.method.phases else None
    start = own if own is not None else max(np.nanmin(values), 3 * least)
    lowest = max(start / 3, LOWEST)
    highest = max(highest, 10 * lowest)
    return lowest, highest * ((highest / lowest) ** 0.15 if _legend_on_top(run) else 3)


def _legend_on_top(run: Run) -> bool:
    """Whether values are learnt at all times or ones that the target has not, so that no other place is free."""
    return run.method.phases or not run.fits_whole


def _escapes(run: Run, modes: int) -> list[int | None]:
    """The forecast from the run's own start; nothing when the first checkpoint is not at hand, or the run diverged."""
    if run.step == 0 or 0 not in run.checkpoints or run.status == "diverged":
        return []
    with one_blas_thread():
        return [escape.step for escape in escapes(run.problem, run.checkpoint(0), run.step_size, run.step, modes)]


@_or_of_model(model_plots.layer_ranks)
@styled
def layer_ranks(run: Run) -> Figure:
    """Ranks of every layer in its own panel."""
    known = {
        "effective_rank": "effective",
        "stable_rank": "stable",
        "relative_rank": r"relative ($\sigma_i/\sigma_1$ > threshold)",
    }
    measures = [(name, label) for name, label in known.items() if f"layer/1/{name}" in run]
    check(bool(measures), "run", run.label, "a run that recorded a rank of its layers")
    columns = min(run.depth, 3)
    rows = -(-run.depth // columns)
    figure, grid = new_figure(rows, columns, height=2.6, sharey=True)
    for i, axes in enumerate(grid.flat, start=1):
        if i > run.depth:
            axes.set_visible(False)
            continue
        for (name, label), style, colour in zip(measures, LINES, ("black", "0.35", "0.6"), strict=False):
            steps, values = _series(run, f"layer/{i}/{name}")
            axes.semilogy(steps, np.maximum(values, 0.5), linestyle=style, color=colour, label=label)
        axes.axhline(run.target_rank, label="rank of the target" if i == 1 else None, **THEORY)
        _mark_phases(run, axes)
        axes.set_title(f"layer {i}  ({run.widths[i]} × {run.widths[i - 1]})")
        axes.set_xlabel("iteration")
        axes.set_xlim(0, max(run.step, 1))
        axes.xaxis.get_major_locator().set_params(nbins=4)
    grid[0, 0].set_ylabel("rank")
    plain_ticks(grid[0, 0].yaxis)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


@styled
def alignment(run: Run) -> Figure:
    """|⟨uᵢ, ûᵢ⟩| and |⟨vᵢ, v̂ᵢ⟩| over time as heat maps, and the principal angles of the leading subspaces."""
    _needs(run, "product/alignment_left", "product/angles_left")
    check(run["product/alignment_left"].shape[1] > 0, "run", run.label, "a run on a target that is not 0")
    figure, grid = new_figure(1, 3, height=3.0)
    panels = (
        ("product/alignment_left", r"left: $|\langle u_i, \hat u_i\rangle|$"),
        ("product/alignment_right", r"right: $|\langle v_i, \hat v_i\rangle|$"),
    )
    for axes, (name, title) in zip(grid[0], panels, strict=False):
        steps, values = _series(run, name)
        extent = (0, max(int(steps[-1]), 1), values.shape[1] + 0.5, 0.5)
        image = axes.imshow(
            values.T, aspect="auto", extent=extent, vmin=0, vmax=1, cmap="cividis", interpolation="nearest"
        )
        axes.set_title(title)
        axes.set_xlabel("iteration")
        axes.set_ylabel("direction i")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.grid(visible=False)
    figure.colorbar(image, ax=list(grid[0, :2]), location="bottom", shrink=0.6, label="1: aligned with the target")
    axes = grid[0, 2]
    for side, style in (("left", "-"), ("right", "--")):
        steps, angles = _series(run, f"product/angles_{side}")
        lines = axes.semilogy(steps, np.maximum(angles, 1e-17), linestyle=style, linewidth=0.9)
        for line, colour in zip(lines, dark_to_light(angles.shape[1]), strict=True):
            line.set_color(colour)
        lines[0].set_label(side)
    axes.set_title("principal angles (radians)")
    axes.set_xlabel("iteration")
    axes.xaxis.get_major_locator().set_params(nbins=4)
    axes.set_xlim(0, max(run.step, 1))
    axes.legend(loc="best")
    return figure


@styled
def adaptive_steps(run: Run) -> Figure:
    """Steps that a tolerance chose, and the gradients made for them; dashed: 3/λ, up to which steps are kept stable,
    with the curvature λ = N σ_1^(2−2/N) of a balanced minimum (it is less where only entries are seen).
    """
    _needs(run, "flow/step_size", "flow/evaluations")
    figure, grid = new_figure(1, 2, height=2.8)
    sizes, counts = grid[0]
    steps, chosen = _series(run, "flow/step_size")
    chosen = positive(chosen)
    sizes.semilogy(steps, chosen, color="black", label="chosen")
    shown = [run.step_size, *chosen[np.isfinite(chosen)]]
    sizes.set_ylim(min(shown) / 3, 100 * max(shown))  # room for the legend above the curves
    sizes.axhline(run.step_size, label=f"one iteration, {run.step_size:g}", color="0.6", linewidth=0.8)
    _draw_stable_steps(run, sizes)
    counts.plot(*_series(run, "flow/evaluations"), color="black")
    counts.set_ylim(bottom=0)
    for axes, label in zip(grid[0], ("steps of the integrator (in $t$)", "gradients made so far"), strict=True):
        _mark_phases(run, axes)
        axes.set_ylabel(label)
        axes.set_xlabel("iteration")
        axes.set_xlim(0, max(run.step, 1))
        axes.xaxis.get_major_locator().set_params(nbins=5)
    sizes.legend(loc="upper right", **_frame(run))
    return figure


def _draw_stable_steps(run: Run, axes: Axes) -> None:
    weights = getattr(run.problem, "weights", None)
    name = "product/singular_values"
    if weights is None or run.method.ridge or name not in run:
        return
    steps, values = _series(run, name)
    allowed = STABLE / positive(weights.max() * theory.sharpness(values[:, 0], run.depth))
    count = "" if weights.max() == 1 else r"|\Omega|"
    axes.semilogy(steps, allowed, label=rf"${STABLE:g}{count}\,/\,(N \sigma_1^{{2-2/N}})$", **THEORY)


@_or_of_model(model_plots.overview)
@styled
def overview(run: Run) -> Figure:
    """Singular values, effective rank and loss (or errors) of one run on one page."""
    _needs(run, "product/singular_values", "product/effective_rank")
    figure, axes = new_mosaic([["values", "values"], ["rank", "loss"]], 5.6, height_ratios=[1.35, 1])
    _draw_singular_values(run, axes["values"])
    _draw_effective_rank(run, axes["rank"])
    if "train_error" in run:
        _draw_errors(run, axes["loss"])
    else:
        _draw_loss(run, axes["loss"])
    axes["values"].set_title(f"{run.label}, widths {' → '.join(map(str, run.widths))}: {run.status} at step {run.step}")
    for panel in (axes["rank"], axes["loss"]):
        panel.set_xlabel("iteration")
    return figure


@styled
def comparison(compared: Any) -> Figure:
    """Runs over t = step size · iteration: loss, effective rank, leading singular values, and their differences."""
    figure, grid = new_figure(2, 2, height=2.9, sharex=True)
    runs = _with_one_time(compared.runs)
    names = _literal_names(compared.runs)
    values = runs[0].target_values[: min(runs[0].target_rank, 5)]
    differences = []
    for run, look in zip(runs, _looks(len(runs)), strict=True):
        _draw_over_time(run, grid, len(values), {"label": names[run], **look})
        if run is not compared.reference:
            times, difference = thin(*compared.difference(run))
            grid[1, 1].semilogy(times, positive(difference), **look)
            differences.append(difference)
    for value in values:
        grid[1, 0].axhline(value, **THEORY)
    losses = {_loss_label(run) for run in runs}
    grid[0, 0].set_ylabel(losses.pop() if len(losses) == 1 else "loss")
    grid[0, 1].set_ylabel("effective rank of $W$")
    grid[1, 0].set_ylabel("leading singular values")
    grid[1, 1].set_ylabel(r"$\max_i |\Delta\sigma_i| / \hat\sigma_1$")
    grid[1, 1].set_title(textwrap.fill(f"against {names[compared.reference]}", TITLE))
    if not any(map(np.any, differences)):
        say_if_empty(grid[1, 1], "no difference")
    _label_time(grid, TIME + (", of each run its own" if runs[0].method.phases else ""))
    start = "same start" if compared.same_start else "DIFFERENT starts"
    aside = "" if len(runs) == len(compared.runs) else "; greedy runs, whose t is their own, are left out"
    lines = grid[0, 0].get_legend_handles_labels()
    columns = _columns(names.values())
    figure.legend(*lines, loc="outside upper center", ncols=columns, title=start + aside)
    return figure


def _draw_over_time(run: Run, grid: Any, count: int, look: dict[str, Any]) -> None:
    """Loss, effective rank and the `count` leading singular values of one run, in three of the panels of `grid`."""
    (loss_axes, rank_axes), (value_axes, _) = grid
    steps, losses = thin(np.arange(len(run.losses)), run.losses)
    loss_axes.semilogy(steps * run.step_size, positive(losses), **look)
    steps, ranks = _series(run, "product/effective_rank")
    rank_axes.plot(steps * run.step_size, ranks, **look)
    steps, values = _series(run, "product/singular_values")
    value_axes.plot(steps * run.step_size, values[:, :count], **{**look, "label": None})


def _label_time(grid: Any, label: str) -> None:
    """The time below both columns; where nothing is known at equal times, the panel of differences is left out."""
    left, right = grid[1]
    if not any(line.get_xdata().size for line in right.get_lines()):
        right.set_visible(False)
        right = grid[0, 1]
        right.tick_params(labelbottom=True)
    for axes in (left, right):
        axes.set_xlabel(label)


def _with_one_time(runs: Sequence[Run]) -> Sequence[Run]:
    """The runs without greedy ones, whose t is their own; these when there are no others."""
    return [run for run in runs if not run.method.phases] or runs


def _looks(count: int) -> Iterator[dict[str, Any]]:
    """How the lines of so many runs are told from each other, also where they lie on each other."""
    for number, colour in enumerate(dark_to_light(count)):
        yield {"color": colour, "linestyle": LINES[number % len(LINES)], "linewidth": 1.8 - 0.3 * (number % 4)}


def names_of(runs: Sequence[RunReader]) -> dict[RunReader, str]:
    """{run: name in a legend}: its label, and where others have the same one what is different in its start."""
    found = {}
    for number, run in enumerate(runs, start=1):
        alike = [other.settings for other in runs if other.label == run.label and other is not run]
        initial = dict.fromkeys(setting.word for setting in all_settings() if setting.table == ("network",))
        own = [key for key in ("init", *initial) if any(other.get(key) != run.settings.get(key) for other in alike)]
        told = ", ".join(f"{key} = {run.settings[key]}" for key in own if key in run.settings)
        found[run] = run.label + (f", {told or f'run {number}'}" if alike else "")
    return found


def _literal_names(runs: Sequence[RunReader]) -> dict[RunReader, str]:
    return {run: literal(name) for run, name in names_of(runs).items()}


def _columns(names: Iterable[str]) -> int:
    """How many of these there is room for side by side in a legend."""
    longest = max(map(len, names))
    return 3 if longest < 30 else 2 if longest < 55 else 1


@styled
def order_of_gd(compared: Any) -> Figure:
    """Distance of gradient descent from the reference over the learning rate; dashed: slope 1, Euler's method."""
    figure, grid = new_figure(height=3.2)
    axes = grid[0, 0]
    kinds = (
        (r"$\max_t \|W - W_{\mathrm{ref}}\|_F / \|\hat W\|_F$ at checkpoints", compared.distance, "s", "0.0"),
        (r"$\max_{t,i} |\Delta\sigma_i| / \hat\sigma_1$ at records", compared.difference, "o", "0.5"),
    )
    for label, measure, marker, colour in kinds:
        known = compared.gaps(measure)
        if known:
            rates, gaps = np.array(list(known)), np.array(list(known.values()))
            slope = compared.order(measure)
            label += "" if slope is None else f", slope {slope:.2f}"
            axes.loglog(rates, gaps, marker=marker, color=colour, label=label)
            axes.loglog(rates, gaps[-1] * rates / rates[-1], **THEORY)
    axes.set_xlabel("learning rate $\\eta$")
    axes.set_ylabel("distance from the reference")
    axes.set_title(f"up to t = {compared.horizon:g}; dashed: slope 1")
    plain_ticks(axes.xaxis)
    axes.legend()
    return figure


@styled
def trajectory_distance(compared: Any, reference: Run | None = None) -> Figure:
    """Distance of the other runs from the path of the reference's products, whatever time it takes to go along it.

    reference: one of `compared.runs`; None: that of the comparison.
    """
    reference = compared.reference if reference is None else reference
    shown = getattr(reference, "label", reference)
    check(reference in compared.runs, "reference", shown, "one of the runs that are compared")
    known = [run for run in compared.runs if run is compared.reference or run in compared.followed]
    runs = [run for run in known if run is not reference]
    told = compared.followed and reference in known
    check(bool(told), "compared", reference.label, "runs that recorded product/matrix, the reference too")
    figure, grid = new_figure(height=3.2)
    axes = grid[0, 0]
    names = _literal_names(compared.runs)
    farthest = 0.0
    for run, look in zip(runs, _looks(len(runs)), strict=True):
        times, distances = thin(*compared.trajectory_distance(run, reference)[:2])
        with np.errstate(all="ignore"):  # a target of 0
            distances = positive(distances / np.linalg.norm(run.target))
        farthest = np.fmax(farthest, np.fmax.reduce(distances, initial=0))
        own = " (over a time of its own)" if run.method.phases else ""
        axes.plot(times, distances, label=names[run] + own, **{**look, "linewidth": 1.3})
    log_axes(grid, y=True)
    if farthest > 0:
        axes.set_ylim(bottom=max(axes.get_ylim()[0], NEAREST * farthest))
    axes.set_xlim(left=0)
    axes.set_xlabel(TIME)
    axes.set_ylabel(r"$\min_{t'}\,\|W(t) - W_{\mathrm{ref}}(t')\|_F\,/\,\|\hat W\|_F$")
    axes.set_title(f"distance from the trajectory of {names[reference]}")
    figure.legend(loc="outside lower center", ncols=_columns(names.values()))
    return figure


FIGURES = {
    "overview": overview,
    "singular_values": singular_values,
    "effective_rank": effective_rank,
    "layer_ranks": layer_ranks,
    "loss": loss,
    "errors": errors,
    "alignment": alignment,
    "adaptive_steps": adaptive_steps,
    **regime_plots.FIGURES,
}
sharpness, tangent_kernel = regime_plots.sharpness, regime_plots.tangent_kernel
updates, directions, saddles = regime_plots.updates, regime_plots.directions, regime_plots.saddles


@usual_errors
def save(run: Run | ModelRun, folder: str | PathLike[str], formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """Write every figure for which the run has the data; returns the paths. The folder is made when missing.

    run: a Run, or the ModelRun of a model, which has figures of its own (`lrbias.plots`).
    """
    check_formats(formats)
    return save_each(available(run), folder, formats)


def available(run: Run | ModelRun) -> Drawable:
    """(name, function without arguments, caption) of every figure for which the run has the data."""
    figures: dict[str, Callable[..., Figure]] = model_plots.FIGURES if _of_model(run) else FIGURES
    recorded: Callable[[Any, str], bool] = model_plots.has_data if _of_model(run) else _recorded
    chosen = [(name, draw) for name, draw in figures.items() if recorded(run, name)]
    return [(name, functools.partial(draw, run), caption(draw)) for name, draw in chosen]


def _recorded(run: Run, figure: str) -> bool:
    needed = {
        "overview": ("product/singular_values", "product/effective_rank"),
        "singular_values": ("product/singular_values",),
        "effective_rank": ("product/effective_rank",),
        "layer_ranks": ("layer/1/effective_rank",),
        "alignment": ("product/alignment_left",),
        "loss": (),
        "errors": ("train_error",),
        "adaptive_steps": ("flow/step_size", "flow/evaluations"),
        **regime_plots.NEEDED,
    }
    return all(name in run and len(run.steps_of(name)) and run[name].size for name in needed[figure])
