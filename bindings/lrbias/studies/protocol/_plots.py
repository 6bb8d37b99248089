"""Figures of the evidence for the protocol's claims: what was measured, with theory and targets drawn over it."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from lrbias.plots import (
    LINES,
    THEORY,
    caption,
    dark_to_light,
    new_figure,
    plain_ticks,
    shared_legend,
    styled,
)
from lrbias.studies.protocol._claims import LOSS_LEVELS, RANKS, escape_steps
from lrbias.theory import learning_rate_limit

MARKERS = ("o", "s", "^", "D", "v", "P")
WHOLE_PARTS = ("square", "separated")  # those in which depths have the same target
STYLES = {
    "gd": ("GD", {"color": "0.0", "linewidth": 0.9, "zorder": 3}),
    "flow": ("flow (RK4)", {"color": "0.7", "linewidth": 3.0, "zorder": 2}),
}


def available(runs, settings):
    """(name, function without arguments, caption) of every figure.

    runs: (part, target, Run); settings: what `claims.judge` made of them.
    """
    made = [run for run in runs if run[2].status != "diverged"]
    figures: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (plateaus, (made,)),
        (order, (made,)),
        (smoothness, (made, settings)),
        (depth, (settings,)),
    ]
    return [(draw.__name__, functools.partial(draw, *given), caption(draw)) for draw, given in figures]


def _finest(runs):
    """Runs of WHOLE_PARTS, for each target, depth, method and start the one with the finest records: with the smallest
    step size of those at which as much is learnt as at any."""
    best: dict[Any, Any] = {}
    for part, target, run in runs:
        if part in WHOLE_PARTS:
            key = target, run.depth, run.settings["method"], run.settings["seed"]
            score = np.isfinite(escape_steps(run)).sum(), -run.step_size
            if key not in best or score > best[key][0]:
                best[key] = score, run
    return [(target, run) for (target, *_), (_, run) in best.items()]


def _in_order(values):
    return list(dict.fromkeys(values))


@styled
def plateaus(runs):
    """Effective rank over t for the first start, a row for each target and a column for each depth, GD over flow."""
    chosen = _finest(runs)
    first = min(run.settings["seed"] for _, run in chosen)
    chosen = [(target, run) for target, run in chosen if run.settings["seed"] == first]
    targets = _in_order(target for target, _ in chosen)
    depths = sorted({run.depth for _, run in chosen})
    figure, grid = new_figure(len(targets), len(depths), height=1.7, sharey="row")
    for target, run in chosen:
        panel = grid[targets.index(target), depths.index(run.depth)]
        steps = run.steps_of("product/effective_rank")
        ranks = run["product/effective_rank"]
        label, style = STYLES[run.settings["method"]]
        panel.plot(steps[1:] * run.step_size, ranks[1:], label=label, **style)
        panel.set(xscale="log", title=f"N = {run.depth}, {target}")
        if run.settings["method"] == "gd":
            learnt = escape_steps(run)
            levels = np.cumsum(run.target_values[: run.target_rank]) / run.target_values[0]
            for level in levels:
                panel.axhline(level, **THEORY)
            panel.set_ylim(0, 1.6 * levels[-1])
            if np.isfinite(learnt).any():
                panel.set_xlim(learnt.min() * run.step_size / 3, run.step * run.step_size)
    for panel in grid.flat:
        plain_ticks(panel.xaxis)
    for panel in grid[-1]:
        panel.set_xlabel(r"$t = \eta\,\cdot$ iteration")
    figure.supylabel(r"effective rank; dashed: $\sum_{i\leq k}\hat\sigma_i/\hat\sigma_1$", fontsize=9)
    shared_legend(figure, grid)
    return figure


@styled
def order(runs):
    """When a mode is learnt against its value, a panel for each depth, all starts of GD; dashed: ∝ 1/σ̂_i."""
    chosen = [(target, run) for target, run in _finest(runs) if run.settings["method"] == "gd"]
    targets = _in_order(target for target, _ in chosen)
    depths = sorted({run.depth for _, run in chosen})
    figure, grid = new_figure(1, len(depths), height=2.4)
    shades = dark_to_light(len(targets))
    known: dict[int, list[Any]] = {depth: [] for depth in depths}
    for target, run in chosen:
        panel = grid[0, depths.index(run.depth)]
        k = targets.index(target)
        times = escape_steps(run) * run.step_size
        values = run.target_values[: len(times)]
        learnt = np.isfinite(times) & (times > 0)
        style = {"color": shades[k], "marker": MARKERS[k % len(MARKERS)], "markersize": 3, "linestyle": "none"}
        panel.plot(values[learnt], times[learnt], label=target, **style)
        known[run.depth] += zip(values[learnt], times[learnt], strict=True)
    for depth, panel in zip(depths, grid[0], strict=True):
        panel.set(title=f"N = {depth}", xlabel=r"$\hat\sigma_i$")
        if not known[depth]:  # an empty axis has no logarithmic scale
            panel.text(0.5, 0.5, "none learnt", ha="center", transform=panel.transAxes)
            continue
        values, times = np.array(known[depth]).T
        ends = np.array([values.min(), values.max()])
        middle = np.exp(np.median(np.log(times * values)))
        panel.plot(ends, middle / ends, label=r"$\propto 1/\hat\sigma_i$", **THEORY)
        panel.set(xscale="log", yscale="log")
        plain_ticks(panel.xaxis, panel.yaxis)
    grid[0, 0].set_ylabel(r"$t$ at which $\hat u_i^\top W\hat v_i > \hat\sigma_i/2$")
    shared_legend(figure, grid)
    return figure


@styled
def smoothness(runs, settings):
    """Curvature of GD relative to flow against the step size, as a share of its stability limit."""
    tops = {(part, target): run.target_values[0] for part, target, run in runs}
    rows = [s for s in settings if s.claim == "smoothness" and s.values]
    statistics = _in_order(s.statistic for s in rows)
    depths = sorted({s.depth for s in rows})
    figure, grid = new_figure(1, max(len(statistics), 1), height=2.8, sharex=True)
    shades = dark_to_light(len(depths))
    for s in rows:
        panel = grid[0, statistics.index(s.statistic)]
        k = depths.index(s.depth)
        share = s.step_size / learning_rate_limit(tops[s.part, s.target], s.depth)
        style = {"color": shades[k], "marker": MARKERS[k % len(MARKERS)], "markersize": 3.5, "linestyle": "none"}
        panel.plot(np.full(len(s.values), share), s.values, label=f"N = {s.depth}", **style)
    for panel, statistic in zip(grid[0], statistics, strict=False):
        panel.axhline(1, **THEORY)
        panel.set(
            xscale="log", title=statistic, xlabel=r"$\eta\,/\,\eta_{\max}$, with $\eta_{\max} = 2/(N\sigma_1^{2-2/N})$"
        )
    grid[0, 0].set_ylabel("above 1: the flow is smoother")
    shared_legend(figure, grid)
    return figure


@styled
def depth(settings):
    """Rank at the same loss against depth: a row for each rank, a column for each loss, GD at its largest step size."""
    rows = [s for s in settings if s.claim == "depth" and s.method == "gd" and s.detail["loss_level"] is not None]
    largest = {part: max(s.step_size for s in rows if s.part == part) for part in {s.part for s in rows}}
    rows = [s for s in rows if s.step_size == largest[s.part]]
    targets = _in_order(s.target for s in rows)
    names = list(RANKS)
    figure, grid = new_figure(len(names), len(LOSS_LEVELS), height=2.1, sharex=True, sharey="row")
    shades = dark_to_light(len(targets))
    for s in rows:
        i = next(i for i, name in enumerate(names) if name in s.statistic)
        panel = grid[i, LOSS_LEVELS.index(s.detail["loss_level"])]
        k = targets.index(s.target)
        depths = [int(depth) for depth in s.detail["ranks"]]
        style = {"color": shades[k], "marker": MARKERS[k % len(MARKERS)], "markersize": 3.5, "linestyle": LINES[k % 4]}
        panel.plot(depths, list(s.detail["ranks"].values()), label=s.target, **style)
        panel.set_title(f"loss = {s.detail['loss_level']:g} of the first")
        panel.set_xticks(sorted({int(depth) for row in rows for depth in row.detail["ranks"]}))
    for panel, name in zip(grid[:, 0], names, strict=True):
        panel.set_ylabel(name.replace("σ_i > 0.01 σ_1", r"$\sigma_i > 0.01\,\sigma_1$"))
    for panel in grid[-1]:
        panel.set_xlabel("depth N")
    shared_legend(figure, grid)
    return figure
