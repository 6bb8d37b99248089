"""Figures of how a network is trained: curvature and the limit of stability, tangent kernel, updates, directions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrbias.analysis import Saddle
from lrbias.errors import check
from lrbias.plots._drawing import (
    LINES,
    THEORY,
    dark_to_light,
    largest,
    log_axes,
    new_figure,
    plain_ticks,
    positive,
    say_if_empty,
    shared_legend,
    styled,
    thin,
)
from lrbias.runs import Run

SMALLEST = 1e-8  # of the largest value is the lower end of an axis of updates
MOST = 1.5  # times 2/η: where an axis of curvature ends at the latest
LEVELS = {0.01: "lazy below 0.01 (ours)", 0.5: "rich above 0.5 (ours)"}  # changes of the tangent kernel
GREYS = ("black", "0.4", "0.6", "0.75")


def _series(run: Run, name: str) -> tuple[np.ndarray, np.ndarray]:
    return thin(run.steps_of(name), run[name])


def _iterations(run: Run, axes: Axes) -> None:
    axes.set_xlabel(f"iteration (t = {run.step_size:g} · iteration)")
    axes.set_xlim(0, max(run.step, 1))
    locator: Any = axes.xaxis.get_major_locator()
    locator.set_params(nbins=6)


def _layers(run: Run) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, look) of every layer."""
    for i, colour in enumerate(dark_to_light(run.depth), start=1):
        yield i, {"color": colour, "linestyle": LINES[(i - 1) % len(LINES)]}


@styled
def sharpness(run: Run) -> Figure:
    """Largest eigenvalues of the Hessian, and the loss; dashed: 2/η, up to which gradient descent is stable."""
    figure, grid = new_figure(1, 2, height=3.0)
    above, below = grid[0]
    steps, values = _series(run, "hessian/largest")
    for i, colour in enumerate(dark_to_light(values.shape[1])):
        label = r"$\lambda_1, \lambda_2, \ldots$ (dark to light)" if i == 0 else None
        above.plot(steps, values[:, i], color=colour, label=label)
    if run.method.euler:
        limits = 2 / run.method.rates(0, run.step + 1)[steps]
        above.plot(steps, limits, label=rf"$2/\eta$ = {limits[0]:.4g}", **{**THEORY, "linewidth": 1.2, "zorder": 3})
        above.set_ylim(0, 1.5 * max(limits[0], min(largest(values, 0.0), MOST * limits[0])))
    if "hessian/smallest" in run:
        steps, values = _series(run, "hessian/smallest")
        above.plot(steps, values[:, 0], color="0.6", linestyle=":", label="smallest eigenvalue")
        above.set_ylim(bottom=min(0, -1.2 * largest(-values, 0.0)))
    above.set_ylabel("eigenvalues of the Hessian")
    above.legend(loc="upper right")
    below.plot(*thin(np.arange(len(run.losses)), positive(run.losses)), color="black")
    log_axes(grid[:, 1:], y=True)
    below.set_ylabel("loss")
    for axes in (above, below):
        _iterations(run, axes)
    return figure


@styled
def tangent_kernel(run: Run) -> Figure:
    """How far the tangent kernel is from that of the start: its direction, and all of it, beside LEVELS."""
    figure, grid = new_figure(height=3.0)
    axes = grid[0, 0]
    for (name, label), line, colour in zip(
        (
            ("ntk/distance", r"$1 - \langle K, K_0\rangle\,/\,\|K\|\|K_0\|$"),
            ("ntk/change", r"$\|K - K_0\|\,/\,\|K_0\|$"),
        ),
        LINES,
        GREYS,
        strict=False,
    ):
        steps, values = _series(run, name)
        axes.plot(steps, positive(values), linestyle=line, color=colour, label=label)
    log_axes(grid, y=True)
    say_if_empty(axes, "no change was recorded")
    for level, name in LEVELS.items():
        axes.axhline(level, label=name, **THEORY)
    axes.set_ylabel("change of the tangent kernel")
    figure.legend(loc="outside upper center", ncols=2)
    _iterations(run, axes)
    return figure


@styled
def updates(run: Run) -> Figure:
    """What changes between two records: singular values of the product's update, and ranks of the layers' updates."""
    figure, grid = new_figure(1, 2, height=3.1)
    values_axes, rank_axes = grid[0]
    steps, values = (each[1:] for each in _series(run, "product/update_singular_values"))
    for i, colour in enumerate(dark_to_light(values.shape[1])):
        values_axes.plot(steps, positive(values[:, i]), color=colour, linewidth=0.8)
    log_axes(grid[:, :1], y=True)
    if np.nanmax(values, initial=0) > 0:
        values_axes.set_ylim(bottom=max(values_axes.get_ylim()[0], SMALLEST * np.nanmax(values)))
    interval = run.steps_of("product/update_singular_values")[1] if len(steps) else 0
    values_axes.set_ylabel(rf"$\sigma_i\,(W(k) - W(k - {interval}))$")
    for i, look in _layers(run):
        steps, ranks = (each[1:] for each in _series(run, f"layer/{i}/update_stable_rank"))
        rank_axes.plot(steps, ranks, label=f"layer {i}", **look)
    steps, ranks = (each[1:] for each in _series(run, "product/update_stable_rank"))
    rank_axes.plot(steps, ranks, color="0.5", linewidth=2.2, alpha=0.6, label="product", zorder=1.8)
    rank_axes.axhline(run.target_rank, label="rank of the target", **THEORY)
    rank_axes.set_ylabel(r"stable rank of the update")
    log_axes(grid[:, 1:], y=True)
    plain_ticks(rank_axes.yaxis)
    for axes in grid[0]:
        axes.set_xlabel("iteration")
        axes.set_xlim(0, max(run.step, 1))
        axes.xaxis.get_major_locator().set_params(nbins=5)
    shared_legend(figure, grid)
    return figure


DIRECTIONS = (
    ("weight_gradient_alignment", r"$\langle W_i, \nabla_i\rangle\,/\,\|W_i\|\|\nabla_i\|$"),
    ("layer_alignment", r"$|\langle u_1(W_i), v_1(W_{i+1})\rangle|$"),
    ("direction_change", r"change of $W_i/\|W_i\|$ in a step"),
    ("balancedness", r"$\|W_{i+1}^\top W_{i+1} - W_i W_i^\top\|_F$"),
)


@styled
def directions(run: Run) -> Figure:
    """Layers against their gradients, against the layers above, in a step, and how balanced they are."""
    shown = [(name, label) for name, label in DIRECTIONS if f"layer/1/{name}" in run]
    check(bool(shown), "run", run.label, "a run that recorded a metric of directions")
    columns = min(len(shown), 2)
    figure, grid = new_figure(-(-len(shown) // columns), columns, height=2.5)
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    for axes, (name, label) in zip(grid.flat, shown, strict=False):
        for i, look in _layers(run):
            if f"layer/{i}/{name}" in run:
                axes.plot(*_series(run, f"layer/{i}/{name}"), label=f"layer {i}", **look)
        if name == "direction_change":
            log_axes(np.array([[axes]]), y=True)
        axes.set_ylabel(label)
        axes.set_xlabel("iteration")
        axes.set_xlim(0, max(run.step, 1))
        axes.xaxis.get_major_locator().set_params(nbins=5)
    shared_legend(figure, grid)
    return figure


@styled
def saddles(run: Run, found: list[Saddle] | None = None) -> Figure:
    """Gradient norm and loss; circles: the saddles that the run came by, with the rank of the product there.

    found: what `lb.saddles` gave; None: it is asked.
    """
    from lrbias.analysis import saddles as find

    figure, grid = new_figure(2, 1, height=2.4, sharex=True)
    draw_saddles(run, find(run) if found is None else found, grid[:, 0])
    grid[0, 0].set_ylabel("gradient norm")
    grid[0, 0].legend(loc="upper right", ncols=2)
    grid[1, 0].set_ylabel("loss")
    grid[1, 0].set_xlabel(f"iteration (t = {run.step_size:g} · iteration)")
    return figure


def draw_saddles(run: Run, found: list[Saddle], panels: Any) -> None:
    """Gradient norm and loss in two panels, and where `found` is."""
    above, below = panels
    steps, norms = _series(run, "gradient_norm")
    above.plot(steps, positive(norms), color="black", label=r"$\|\nabla L\|$")
    below.plot(*thin(np.arange(len(run.losses)), positive(run.losses)), color="black")
    for axes in panels:
        log_axes(np.array([[axes]]), y=True)
    marks = {"marker": "o", "markersize": 5.5, "markerfacecolor": "white", "markeredgecolor": "black", "linestyle": ""}
    above.plot([s.step for s in found], [s.gradient_norm for s in found], **marks, label="saddles, with their rank")
    below.plot([s.step for s in found], [s.loss for s in found], **marks)
    for saddle in found:
        where = {"xytext": (0, -12), "textcoords": "offset points", "ha": "center", "fontsize": 8}
        above.annotate("?" if saddle.rank is None else str(saddle.rank), (saddle.step, saddle.gradient_norm), **where)
    low, high = above.get_ylim()
    above.set_ylim(low / 10, high * 5)
    below.set_xlim(-0.02 * run.step, 1.02 * max(run.step, 1))


FIGURES = {"sharpness": sharpness, "tangent_kernel": tangent_kernel, "updates": updates, "directions": directions}
NEEDED = {
    "sharpness": ("hessian/largest",),
    "tangent_kernel": ("ntk/distance", "ntk/change"),
    "updates": ("product/update_singular_values",),
    "directions": ("layer/1/weight_gradient_alignment",),
}
