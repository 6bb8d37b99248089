"""Figures of the study of regimes."""

import functools

import numpy as np

from lrbias import theory
from lrbias.analysis import directional_convergence
from lrbias.plots import (
    LINES,
    THEORY,
    caption,
    dark_to_light,
    draw_saddles,
    new_figure,
    plain_ticks,
    positive,
    shared_legend,
    styled,
    thin,
)
from lrbias.studies.regimes._parameters import BIAS_RATE, BIAS_START, DIRECTIONS, EDGE_VALUES, STRENGTHS

MARKERS = ("o", "s", "^", "D")
LAZY, RICH = 0.01, 0.5


def available(findings):
    """(name, function without arguments, caption) of every figure."""
    figures = [
        ("lazy-and-rich", lazy_and_rich),
        ("phase-diagram", phase_diagram),
        ("edge-of-stability", edge_of_stability),
        ("sharpness", sharpness),
        ("saddles", saddle_to_saddle),
        ("updates", updates),
        ("directions", directions),
        ("spectral-bias", spectral_bias),
    ]
    return [(name, functools.partial(draw, findings), caption(draw)) for name, draw in figures]


@styled
def lazy_and_rich(findings):
    """Distance of the tangent kernel from that of the start, over γ at four widths and over the output's scale."""
    own = findings.parameters
    figure, grid = new_figure(1, 2, height=3.2, sharey=True)
    left, right = grid[0]
    rows = findings.lazy_table()
    for width, colour, marker in zip(own.widths, dark_to_light(len(own.widths)), MARKERS, strict=False):
        mine = [row for row in rows if row["width"] == width]
        left.plot(own.gammas, [row["distance"] for row in mine], marker=marker, color=colour, label=f"w = {width}")
    scaled = findings.scaled_table()
    right.plot(own.scales, [row["distance"] for row in scaled], marker="o", color="black", label="kernel distance")
    right.plot(
        own.scales, [row["gap"] for row in scaled], marker="s", color="0.5", linestyle="--", label="from the linearised"
    )
    right.set_xscale("log")
    plain_ticks(right.xaxis)
    for axes in grid[0]:
        axes.set_yscale("log")
        for level in (LAZY, RICH):
            axes.axhline(level, **THEORY)
    left.axvline(0.5, **THEORY)
    left.set_xlabel(r"$\gamma$ (standard deviation $w^{-\gamma}$)")
    left.set_ylabel(r"$1 - \langle K, K_0\rangle\,/\,\|K\|\|K_0\|$")
    right.set_xlabel(r"output scale $\alpha$")
    left.legend(loc="lower right")
    right.legend(loc="lower left")
    return figure


@styled
def phase_diagram(findings):
    """From lazy to rich over γ and width: the kernel's distance, and how far the linearised network is left behind."""
    own = findings.parameters
    figure, grid = new_figure(1, 2, height=3.0, sharey=True)
    rows = findings.lazy_table()
    gap = r"$\max_t\,\|W - W_{\mathrm{lin}}\|\,/\,\|W_0 - \hat W\|$"
    for axes, (key, title) in zip(grid[0], {"distance": "kernel distance", "gap": gap}.items(), strict=True):
        values = np.array([[r[key] for r in rows if r["width"] == width] for width in own.widths])
        image = axes.imshow(np.log10(values), aspect="auto", cmap="cividis", vmin=-4, vmax=0.3, origin="lower")
        axes.set_xticks(range(len(own.gammas)), [f"{g:g}" for g in own.gammas], fontsize=6.5)
        axes.set_yticks(range(len(own.widths)), [str(width) for width in own.widths])
        axes.set_xlabel(r"$\gamma$")
        axes.set_title(title)
        axes.grid(visible=False)
        for i, j in np.ndindex(values.shape):
            dark = np.log10(values[i, j]) < -1.5
            shown = f"{values[i, j]:.2f}" if values[i, j] >= 0.00995 else f"{values[i, j]:.0e}".replace("e-0", "e-")
            axes.text(j, i, shown, ha="center", va="center", fontsize=5.5, color="white" if dark else "black")
    grid[0, 0].set_ylabel("hidden width $w$")
    figure.colorbar(image, ax=list(grid[0]), label=r"$\log_{10}$", shrink=0.9)
    return figure


@styled
def edge_of_stability(findings):
    """Sharpness over 2/η of gradient descent, for learning rates below and above the limit of the flow's end point."""
    figure, grid = new_figure(1, 2, height=3.2, width_ratios=(1.6, 1))
    left, right = grid[0]
    flow = findings.flow["hessian/largest"][-1, 0]
    for (share, run), colour in zip(findings.edges.items(), dark_to_light(len(findings.edges)), strict=True):
        steps = run.steps_of("hessian/largest")
        values = run["hessian/largest"][:, 0]
        look = {"color": colour, "linestyle": "-" if share > 1 else "--", "linewidth": 1.0}
        left.plot(steps + 1, values * run.method.lr / 2, label=f"{share:g}", **look)
    left.axhline(1, **THEORY)
    left.set_xscale("log")
    left.set_ylim(0, 2.2)
    left.set_xlabel("iteration + 1")
    left.set_ylabel(r"$\lambda_{\max}\,/\,(2/\eta)$")
    left.legend(title=r"$\eta\,/\,(2/\lambda_{\mathrm{flow}})$", loc="upper right", ncols=2)
    rows = findings.edge_table()
    limits = np.array([row["limit"] for row in rows])
    right.plot(limits, [row["sharpness"] for row in rows], "o", color="black", label="GD, at the end")
    span = np.array([0.9 * limits.min(), 1.05 * limits.max()])
    right.plot(span, span, label=r"$2/\eta$", **THEORY)
    right.axhline(flow, color="0.6", linestyle=":", label="end of the flow")
    balanced = theory.sharpness(EDGE_VALUES[0], findings.flow.depth)
    right.axhline(balanced, color="0.6", linestyle="-.", label="balanced minimum")
    right.set_xlabel(r"$2/\eta$")
    right.set_ylabel(r"sharpness $\lambda_{\max}$")
    right.set_ylim(0.8 * balanced, 1.9 * flow)
    right.legend(loc="upper left")
    return figure


@styled
def sharpness(findings):
    """Both ends of the Hessian's spectrum along the flow from a small start; dashed: N σ_1^(2−2/N) of the product.

    The largest is that of a balanced minimum once the first mode is learnt; the smallest rises with each mode to come.
    """
    figure, grid = new_figure(1, len(findings.paths), height=2.9)
    for axes, (depth, run) in zip(grid[0], findings.paths.items(), strict=True):
        steps = run.steps_of("hessian/largest")
        values = run["hessian/largest"][:, 0]
        times = steps * run.step_size
        lowest = run["hessian/smallest"][:, 0]
        top = run["product/singular_values"][:, 0]
        axes.plot(times, values, color="black", label=r"$\lambda_{\max}$")
        axes.plot(times, lowest, color="0.55", linestyle="-.", label=r"$\lambda_{\min}$")
        axes.plot(times, theory.sharpness(top, depth), label=r"$N\,\sigma_1^{2-2/N}$", **THEORY)
        axes.set_title(f"depth {depth}")
        axes.set_xlabel("time $t$")
        axes.set_xscale("log")
        axes.set_xlim(times[1], times[-1])
    grid[0, 0].set_ylabel("curvature of the loss")
    grid[0, -1].legend(loc="center left")
    return figure


@styled
def saddle_to_saddle(findings):
    """Gradient norm and loss along the flow from a small start; circles: the saddles it came by, with their ranks."""
    figure, grid = new_figure(2, len(findings.paths), height=2.3, sharex="col", sharey="row")
    for column, (depth, run) in zip(grid.T, findings.paths.items(), strict=True):
        draw_saddles(run, findings.saddles[depth], column)
        column[0].set_title(f"depth {depth}")
        column[1].set_xlabel(f"iteration (t = {run.step_size:g} · iteration)")
        column[1].xaxis.get_major_locator().set_params(nbins=5)
    grid[0, 0].set_ylabel(r"$\|\nabla L\|$")
    grid[1, 0].set_ylabel("loss")
    return figure


@styled
def updates(findings):
    """Effective rank of what 100 steps of gradient descent change in each layer; dashed: the rank of most targets.

    Grey: the loss is below 1e-4 of its first value, and there is little left to learn.
    """
    own = findings.parameters
    figure, grid = new_figure(2, 3, height=2.3, sharey=True)
    names = list(findings.updates)
    deepest = max(run.depth for run in findings.updates.values())
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(grid.flat, names, strict=False):
        run = findings.updates[name]
        axes.axvspan(findings.learning(run)[-1], run.step, color="0.94", zorder=0)
        for i, colour in zip(range(run.depth), dark_to_light(deepest), strict=False):
            key = f"layer/{i + 1}/update_effective_rank"
            steps, ranks = thin(run.steps_of(key)[1:], run[key][1:])
            axes.plot(steps, ranks, color=colour, linestyle=LINES[i], linewidth=0.9, label=f"layer {i + 1}")
        axes.axhline(own.update_rank, **THEORY)
        axes.set_title(name)
        axes.set_yscale("log")
        axes.set_xlabel("iteration")
        axes.set_xlim(0, run.step)
        axes.xaxis.get_major_locator().set_params(nbins=4)
        plain_ticks(axes.yaxis)
    for axes in grid[:, 0]:
        axes.set_ylabel(f"rank of {own.window} steps")
    shared_legend(figure, grid)
    return figure


@styled
def directions(findings):
    """How far balancedness drifts under GD and RK4 (dashed: slopes 1 and 4), and how directions of layers converge."""
    own = findings.parameters
    figure, grid = new_figure(1, 2, height=3.0)
    left, right = grid[0]
    looks = {"gd": ("o", "black", "GD"), "rk4": ("s", "0.5", "RK4")}
    for row in findings.drift_table():
        marker, colour, label = looks[row["method"]]
        values = np.array([row["drift"][h] for h in own.drift_rates])
        left.loglog(
            own.drift_rates, positive(values), marker=marker, color=colour, label=f"{label}, order {row['order']:.2f}"
        )
        power = 1 if row["method"] == "gd" else 4
        left.loglog(own.drift_rates, values[0] * (np.array(own.drift_rates) / own.drift_rates[0]) ** power, **THEORY)
    left.set_xlabel(r"step size ($\eta$ or dt)")
    left.set_ylabel(r"drift of $W_{i+1}^\top W_{i+1} - W_i W_i^\top$")
    plain_ticks(left.xaxis)
    left.legend()
    run = findings.updates[DIRECTIONS]
    steps, gaps = directional_convergence(run)
    for i, colour in enumerate(dark_to_light(run.depth)):
        right.semilogy(steps, positive(gaps[:, i]), color=colour, linestyle=LINES[i], label=f"layer {i + 1}")
    right.set_xlabel("iteration")
    right.set_ylabel(r"$\|W_i/\|W_i\| - \mathrm{its\ end}\|$")
    right.xaxis.get_major_locator().set_params(nbins=5)
    right.legend()
    return figure


@styled
def spectral_bias(findings):
    """Modes of a regression, learnt in the order of their strength s, not of the value s/d; dashed: theory."""
    figure, grid = new_figure(1, 2, height=3.0, sharey=True)
    for axes, (whiten, run) in zip(grid[0], findings.bias.items(), strict=True):
        modes = run.problem.modes()
        steps = run.steps_of("product/mode_strengths")
        for a, colour in enumerate(dark_to_light(len(STRENGTHS))):
            label = f"s = {modes.strengths[a]:.2g}, d = {modes.variances[a]:.2g}"
            values = run["product/mode_strengths"][:, a]
            axes.plot(steps * BIAS_RATE, values, color=colour, linestyle=LINES[a], label=label, linewidth=1.6)
            curve = theory.mode(steps * BIAS_RATE, modes.strengths[a], BIAS_START, 2, variance=modes.variances[a])
            axes.plot(steps * BIAS_RATE, curve, **{**THEORY, "color": "black", "zorder": 3})
        axes.set_title("whitened inputs" if whiten else "inputs as they are")
        axes.set_xlabel(r"time $t = \eta \cdot$ iteration")
        axes.set_xlim(0, 20)
        axes.legend(loc="best")
    grid[0, 0].set_ylabel("strength of the mode in $W$")
    return figure
