"""Figures of a model whose weight matrices were tracked."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrbias.errors import check
from lrbias.plots._drawing import (
    LINES,
    THEORY,
    dark_to_light,
    literal,
    log_axes,
    new_figure,
    plain_ticks,
    positive,
    shared_legend,
    styled,
    thin,
)
from lrbias.runs import VALUES, ModelRun

MOST_LAYERS = 12  # that get a panel of their own
BELOW = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 2}
DEEPEST = 1e-6  # of the largest singular value is the lower end of the axis
RANKS = (
    ("relative_rank", r"rank, $\sigma_i/\|W\|_2 > \varepsilon$"),
    ("relative_rank_frobenius", r"rank, $\sigma_i/\|W\|_F > \varepsilon$"),
    ("effective_rank", r"effective rank $\|W\|_*/\|W\|_2$"),
    ("stable_rank", r"stable rank $\|W\|_F^2/\|W\|_2^2$"),
)


def time_axis(run: ModelRun, axes: Axes) -> None:
    """Steps or epochs; of a run that knows how many steps an epoch has, epochs."""
    per_epoch = run.settings.get("steps_per_epoch", 1)
    axes.set_xlabel("epoch" if per_epoch > 1 or run.unit == "epoch" else "step of the optimizer")
    axes.set_xlim(0, max(run.step / per_epoch, 1 / per_epoch))
    locator: Any = axes.xaxis.get_major_locator()
    locator.set_params(nbins=5)


def series(run: ModelRun, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(times, values) of a quantity, thinned; times in the unit of `time_axis`."""
    steps, values = thin(run.steps_of(name), run[name])
    return steps / run.settings.get("steps_per_epoch", 1), values


def rank_label(run: ModelRun) -> str:
    """The rank that the run is about, for an axis."""
    norm = "2" if run.settings["norm"] == "spectral" else "F"
    return rf"$\#\{{\sigma_i > {run.settings['epsilon']:g}\,\|W\|_{norm}\}}$"


@styled
def overview(run: ModelRun) -> Figure:
    """Ranks, averaged over the weight matrices, and what was noted beside them."""
    scalars = [name for name in run.scalars if np.isfinite(run[name]).any()]
    figure, grid = new_figure(1, 1 + bool(scalars), height=3.1)
    ranks = grid[0, 0]
    for (name, label), line, colour in zip(RANKS, LINES, ("black", "0.45", "0.3", "0.6"), strict=True):
        ranks.semilogy(*series(run, f"average/{name}"), linestyle=line, color=colour, label=label)
    ranks.set_ylabel(f"average over {len(run.layers)} matrices")
    plain_ticks(ranks.yaxis)
    ranks.legend(**BELOW)
    for axes in grid[0]:
        time_axis(run, axes)
    ranks.set_title(f"{literal(run.label)}: {run.status} at {run.unit} {run.step}")
    for name, line, colour in zip(scalars, LINES * len(scalars), dark_to_light(len(scalars)), strict=False):
        times, values = series(run, name)
        known = np.isfinite(values)
        label = literal(name.replace("_", " "))
        grid[0, 1].plot(times[known], values[known], linestyle=line, color=colour, label=label)
    if scalars:
        grid[0, 1].set_ylim(bottom=0)
        grid[0, 1].legend(**BELOW)
    return figure


def panels(run: ModelRun, layers: Any = None) -> tuple[Figure, np.ndarray, list[str]]:
    """(grid of panels, names of the matrices) for at most MOST_LAYERS of them, spread over the model."""
    names = run.chosen(layers)
    if len(names) > MOST_LAYERS:
        names = [names[place] for place in np.linspace(0, len(names) - 1, MOST_LAYERS).round().astype(int)]
    columns = min(len(names), 4)
    figure, grid = new_figure(-(-len(names) // columns), columns, height=1.7 if len(names) > columns else 2.4)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    shapes = {layer.name: f"{layer.rows} × {layer.columns}" for layer in run.layers}
    for axes, name in zip(grid.flat, names, strict=False):
        axes.set_title(f"{literal(shorter(name))} ({shapes[name]})", fontsize=7)
    return figure, grid, names


def shorter(name: str, most: int = 18) -> str:
    """The end of a long name, which tells more than its beginning."""
    return name if len(name) <= most else "…" + name[1 - most :]


@styled
def layer_ranks(run: ModelRun, layers: Any = None) -> Figure:
    """Ranks of every matrix, or of those that match, in a panel each."""
    figure, grid, names = panels(run, layers)
    for axes, name in zip(grid.flat, names, strict=False):
        for (metric, label), line, colour in zip(RANKS, LINES, ("black", "0.45", "0.3", "0.6"), strict=True):
            times, values = series(run, f"layer/{name}/{metric}")
            axes.semilogy(times, np.maximum(values, 0.5), linestyle=line, color=colour, label=label)
        plain_ticks(axes.yaxis)
        time_axis(run, axes)
    grid[0, 0].set_ylabel("rank")
    shared_legend(figure, grid)
    return figure


@styled
def singular_values(run: ModelRun, layers: Any = None) -> Figure:
    """σ_i/σ_1 of every matrix over i, at the first record (grey) and the last one (black); dashed: the threshold ε."""
    figure, grid, names = panels(run, layers)
    for axes, name in zip(grid.flat, names, strict=False):
        rows = run[f"layer/{name}/{VALUES}"][[0, -1]]
        for values, colour, label in zip(rows, ("0.6", "black"), ("at the start", "at the end"), strict=True):
            with np.errstate(all="ignore"):  # a matrix of zeros
                shares = positive(values / values[0])
            axes.plot(np.arange(1, len(values) + 1), shares, color=colour, label=label)
        if run.settings["norm"] == "spectral":
            axes.axhline(run.settings["epsilon"], label=r"$\varepsilon$", **THEORY)
        axes.set_xlabel("index i")
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=4)
    log_axes(grid, y=True)
    for axes in grid.flat[: len(names)]:
        axes.set_ylim(DEEPEST, 2)
    grid[0, 0].set_ylabel(r"$\sigma_i/\sigma_1$")
    shared_legend(figure, grid)
    return figure


@styled
def norm_ratio(run: ModelRun) -> Figure:
    """‖W‖_F at a record divided by that at the next one, for every matrix: it has to go to 1 for the bound to hold."""
    check(len(run.steps_of("layers/norm_ratio")) > 1, "run", run.label, "a run with at least two records")
    figure, grid = new_figure(height=2.8)
    axes = grid[0, 0]
    times, ratios = series(run, "layers/norm_ratio")
    axes.plot(times[1:], ratios[1:], color="0.7", linewidth=0.7)
    axes.plot([], [], color="0.7", label="each matrix")
    axes.plot(times[1:], ratios[1:].mean(axis=1), color="black", label="their mean")
    axes.axhline(1, **THEORY)
    axes.set_ylabel(r"$\|W_{T-1}\|_F\,/\,\|W_T\|_F$ of records")
    axes.legend(loc="best")
    time_axis(run, axes)
    return figure


@styled
def bound(run: ModelRun) -> Figure:
    """How many σ_i/‖W‖₂ exceed ε, over ε: measured at the end, every matrix; dashed: m_l B ln(2/ε)/(2μλ)."""
    check(bool(run.bounds()), "run", run.label, "a run with weight decay whose batch, lr and patches are known")
    figure, grid = new_figure(height=3.0)
    axes = grid[0, 0]
    epsilons = np.geomspace(1e-4, 1, 60)
    bounds = np.array([list(run.bounds(epsilon).values()) for epsilon in epsilons])
    for place, name in enumerate(run.bounds()):
        values = run[f"layer/{name}/{VALUES}"][-1]
        counts = (values > epsilons[:, None] * values[0]).sum(axis=1)
        axes.plot(epsilons, counts, color="black", linewidth=0.8, label="measured, each matrix" if not place else None)
    for place, each in enumerate(np.unique(bounds, axis=1).T):
        axes.plot(epsilons, each, label="bound, for each $m_l$" if not place else None, **{**THEORY, "zorder": 3})
    axes.set_xlabel(r"threshold $\varepsilon$")
    axes.set_ylabel(r"$\#\{\sigma_i > \varepsilon\,\|W\|_2\}$")
    log_axes(grid, x=True, y=True)
    axes.set_ylim(bottom=0.8)
    axes.legend(loc="best")
    return figure


FIGURES = {
    "overview": overview,
    "layer_ranks": layer_ranks,
    "singular_values": singular_values,
    "norm_ratio": norm_ratio,
    "bound": bound,
}


def has_data(run: ModelRun, figure: str) -> bool:
    """Whether the run has what a figure of FIGURES shows."""
    records = len(run.steps_of(VALUES))
    return records > 0 and (figure != "norm_ratio" or records > 1) and (figure != "bound" or bool(run.bounds()))
