"""Figures 5.1 to 5.4 of the report on Chou et al., with theory drawn over them, and two for contrast."""

import functools

import numpy as np

from lrbias import theory
from lrbias.plots import LINES, THEORY, caption, dark_to_light, new_figure, plain_ticks, styled
from lrbias.studies.chou._parameters import ALPHA, BETA, LR, SKEW, TRACED
from lrbias.studies.chou._theory import EIGENVALUES, bounds, traced

LONG = 20_000  # steps from which on the axis is logarithmic
EPSILON = 0.01  # at which the bounds are drawn
LAYER_VALUE = r"$\lceil T_N^{\mathrm{Id}}\rceil$"


def available(recovery):
    """(name, function without arguments, caption) of every figure."""
    made = recovery.runs
    figures = [
        ("figure-5.1a", recovered, (made["example-1-identical"],)),
        ("figure-5.1b", recovered, (made["example-1-perturbed"],)),
        ("figure-5.2a", recovered, (made["example-2-identical"],)),
        ("figure-5.2b", recovered, (made["example-2-perturbed"],)),
        ("figure-5.3a", by_depth, ([made[f"depth-{depth}"] for depth in (1, 2, 3, 4)],)),
        ("figure-5.3b", by_depth, ([made[f"depth-{depth}"] for depth in (1, 2, 3, 4, 5)],)),
        ("figure-5.4a", rank_and_eigenvalues, (made["example-1-perturbed"],)),
        ("figure-5.4b", rank_and_error, (made["example-1-perturbed"],)),
        ("not-symmetric-1", without_symmetry, (made["not-symmetric-1"],)),
        ("not-symmetric-2", without_symmetry, (made["not-symmetric-2"],)),
        ("random", recovered, (made["random"],)),
    ]
    return [(name, functools.partial(draw, *given), caption(draw)) for name, draw, given in figures]


def _curves(run, axes):
    """The diagonal of VᵀWV, a line for each eigenvalue."""
    values = run.problem.eigen.values
    steps = run.steps_of(EIGENVALUES)
    measured = run[EIGENVALUES]
    for i, colour in enumerate(dark_to_light(len(values))):
        label = rf"$\lambda_{i + 1} = {values[i]:.3g}$"
        axes.plot(steps, measured[:, i], color=colour, linestyle=LINES[i % len(LINES)], label=label)
    axes.set_xlabel(f"iteration ($\\eta$ = {run.step_size:g})")
    axes.set_xlim(0, run.step)
    if run.step > LONG:
        axes.set_xscale("log")
        axes.set_xlim(100, run.step)
        plain_ticks(axes.xaxis)


def _legend(run, axes):
    """Where the curves are not: before they rise, or long after. The lines of theory end behind it."""
    place = "center left" if run.step > LONG else "center right"
    axes.legend(loc=place, frameon=True, edgecolor="none", framealpha=1.0)


def _title(run):
    start = run.settings.get("init", "gaussian")
    shown = {"perturbed": f"perturbed, α = {ALPHA}, β = {BETA}", "identical": f"identical, α = {ALPHA}"}
    return f"N = {run.depth}, start {shown.get(start, 'random')}"


@styled
def recovered(run):
    """Diagonal of VᵀWV over the iterations; dashed: what theory says is recovered; triangles: bounds T_N^Id."""
    figure, grid = new_figure(height=3.2)
    axes = grid[0, 0]
    values = run.problem.eigen.values
    start = run.settings.get("init", "gaussian")
    _curves(run, axes)
    for value in theory.recovered(values, start != "identical"):
        axes.axhline(value, **THEORY)
    if start == "identical":
        _mark_bounds(run, axes)
    axes.set_ylabel(r"diagonal of $V^\top W V$")
    axes.set_title(_title(run))
    _legend(run, axes)
    return figure


def _mark_bounds(run, axes):
    """A triangle at ⌈T_N^Id⌉ for each eigenvalue: by then its d is within EPSILON of the limit."""
    values = run.problem.eigen.values
    for i, (value, bound) in enumerate(zip(values, bounds(run, EPSILON), strict=True)):
        if bound <= run.step:
            label = rf"{LAYER_VALUE}, $\epsilon$ = {EPSILON}" if i == 0 else None
            style = {"color": "white", "markeredgecolor": "black", "markersize": 5, "linestyle": "none", "zorder": 5}
            axes.plot([bound], [max(value, 0)], marker="v", label=label, **style)


@styled
def by_depth(runs):
    """Recovery of λ = 7 from a perturbed start, a line for each depth; dashed: λ."""
    figure, grid = new_figure(height=3.2)
    axes = grid[0, 0]
    for run, colour, line in zip(runs, dark_to_light(len(runs)), LINES * 2, strict=False):
        steps = run.steps_of(EIGENVALUES)
        values = run[EIGENVALUES][:, traced(run)]
        axes.plot(steps[1:], values[1:], color=colour, linestyle=line, label=f"N = {run.depth}")
    axes.axhline(TRACED, **THEORY)
    axes.set(xscale="log", xlabel=f"iteration ($\\eta$ = {LR:g})")
    axes.set_xlim(10, max(run.step for run in runs))
    axes.set_ylabel(r"entry of $V^\top W V$ for $\lambda = 7$")
    plain_ticks(axes.xaxis)
    axes.legend(loc="upper left")
    return figure


def _rank(run, axes):
    values = np.sort(np.abs(run.problem.eigen.values))[::-1]
    axes.plot(run.steps_of("product/effective_rank"), run["product/effective_rank"], color="black")
    for level in np.cumsum(values) / values[0]:
        axes.axhline(level, **THEORY)
    axes.set_ylabel("effective rank of $W$")


@styled
def rank_and_eigenvalues(run):
    """Effective rank above the recovery of eigenvalues; dashed: Σ_{i≤k} |λ_i| / |λ_1|, and λ_i."""
    figure, grid = new_figure(2, 1, height=2.3, sharex=True)
    _rank(run, grid[0, 0])
    _curves(run, grid[1, 0])
    for value in run.problem.eigen.values:
        grid[1, 0].axhline(value, **THEORY)
    grid[1, 0].set_ylabel(r"diagonal of $V^\top W V$")
    _legend(run, grid[1, 0])
    grid[0, 0].set_title(_title(run))
    return figure


@styled
def rank_and_error(run):
    """Effective rank above the error ‖W − Ŵ‖_F; dashed: Σ_{i≤k} |λ_i| / |λ_1|, and the errors of the best rank-k W."""
    figure, grid = new_figure(2, 1, height=2.3, sharex=True)
    _rank(run, grid[0, 0])
    axes = grid[1, 0]
    values = np.sort(np.abs(run.problem.eigen.values))[::-1]
    axes.plot(np.arange(len(run.losses)), np.sqrt(2 * run.losses), color="black")
    for k in range(len(values)):
        axes.axhline(np.sqrt((values[k:] ** 2).sum()), **THEORY)
    axes.set_xlabel(f"iteration ($\\eta$ = {run.step_size:g})")
    axes.set_xlim(0, run.step)
    axes.set_ylabel(r"$\|W - \hat W\|_F$")
    grid[0, 0].set_title(_title(run))
    return figure


@styled
def without_symmetry(run):
    """A target that is not symmetric, identical start: entries in the basis of its symmetric part, and its values."""
    figure, grid = new_figure(height=3.2)
    axes = grid[0, 0]
    _curves(run, axes)
    for value in run.problem.eigen.values:
        axes.axhline(value, **THEORY)
    axes.set_ylabel(r"diagonal of $V^\top W V$")
    axes.set_title(f"{_title(run)}, skew part of norm {SKEW:g}")
    _legend(run, axes)
    return figure
