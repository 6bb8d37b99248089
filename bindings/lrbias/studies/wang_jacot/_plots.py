"""Figures of the study of Wang and Jacot."""

import functools

import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap

from lrbias.events import LOWER
from lrbias.plots import LINES, THEORY, caption, dark_to_light, new_figure, plain_ticks, positive, styled
from lrbias.studies.wang_jacot._outcomes import OUTCOMES, outcomes
from lrbias.studies.wang_jacot._parameters import DEPTH_LR, NOISE

THOUSAND = 1e-3
STEPS = "step, thousands"
SMALLEST = 1e-6  # that is drawn of a singular value


def available(findings):
    """(name, function without arguments, caption) of every figure."""
    figures = [
        ("same-start", same_start, findings.example),
        ("waiting", waiting, findings),
        ("phases", phases, findings),
        ("schedules", schedules, findings),
        ("errors-over-time", errors_over_time, findings),
    ]
    return [(name, functools.partial(draw, given), caption(draw)) for name, draw, given in figures]


@styled
def same_start(runs):
    """Singular values of the product from one start, a minimum of gradient descent, with the same λ for both methods.

    Dashed: 0.01 σ_1, below which a direction is gone.
    """
    figure, grid = new_figure(1, 2, height=2.9, sharey=True)
    for panel, run in zip(grid[0], runs, strict=True):
        values = run["product/singular_values"]
        steps = run.steps_of("product/singular_values") * THOUSAND
        for i, colour in enumerate(dark_to_light(4)):
            shown = positive(np.where(values[:, i] > SMALLEST, values[:, i], np.nan))
            if np.isfinite(shown).any():
                panel.plot(steps, shown, color=colour, linestyle=LINES[i], label=rf"$\sigma_{i + 1}$")
        panel.axhline(LOWER * values[0, 0], **THEORY)
        panel.set(yscale="log", xlabel=STEPS, title=run.label, ylim=(SMALLEST, 30))
    grid[0, 0].set_ylabel("singular values of $W$")
    grid[0, 0].legend(loc="center right")
    return figure


@styled
def waiting(findings):
    """The share of runs that have lost no direction yet: starts, depths, kinds of sampling."""
    figure, grid = new_figure(1, 3, height=3.1, sharey=True)
    parts = [
        ("starts", [(name, made) for name, _, made in findings.one_way]),
        (
            f"depths, $\\eta$ = {DEPTH_LR:g}, $\\lambda$ = 0.003",
            [(f"N = {d}, from rank {b.jumps().rank}", m) for d, ridge, b, m in findings.depths if ridge == 3e-3],
        ),
        (
            "sampling",
            [(f"batch {b}, {'with' if r else 'without'} repl.", m) for b, r, m in findings.sampling if b <= 2],
        ),
    ]
    for panel, (title, made) in zip(grid[0], parts, strict=True):
        for (name, each), colour, line in zip(made, dark_to_light(len(made)), LINES * 2, strict=False):
            left = 1 - (np.minimum.accumulate(each.ranks, axis=1) < each.ranks[:, :1]).mean(axis=0)
            panel.plot(each.steps * THOUSAND, left, color=colour, linestyle=line, label=name)
        panel.set(xlabel=STEPS, title=title, ylim=(-0.02, 1.02))
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), handlelength=2.6)
    grid[0, 0].set_ylabel("share of runs without a jump")
    return figure


@styled
def phases(findings):
    """Outcomes over learning rate and ridge, each from the minimum of gradient descent at that ridge; jumps there.

    Numbers above the first panel: the rank of that minimum.
    """
    lrs = np.array(findings.parameters.phase_lrs)
    ridges = np.array(findings.parameters.phase_ridges)
    descents, made = findings.phases
    figure, grid = new_figure(1, 3, height=3.0, sharey=True)
    fields = _fields(made, (len(lrs), len(ridges)))
    edges = _around(ridges), _around(lrs)
    colours = ["black", "#3b528b", "#fde725", "#5ec962"]
    norm = BoundaryNorm(np.arange(-0.5, len(OUTCOMES)), len(OUTCOMES))
    grid[0, 0].grid(False)
    shown = grid[0, 0].pcolormesh(*edges, fields["outcome"], cmap=ListedColormap(colours), norm=norm)
    bar = figure.colorbar(shown, ax=grid[0, 0], location="bottom", ticks=range(len(OUTCOMES)), aspect=30)
    bar.ax.set_xticklabels([name.replace(" ", "\n", 1) for name in OUTCOMES], fontsize=6.5)
    for panel, name in zip(grid[0, 1:], ("down", "up"), strict=True):
        panel.grid(False)
        mesh = panel.pcolormesh(*edges, np.log10(positive(fields[name])), cmap="viridis_r", vmin=-1, vmax=2)
        panel.set_title(f"directions {'lost' if name == 'down' else 'gained'}")
        bar = figure.colorbar(mesh, ax=panel, location="bottom", aspect=30)
        bar.set_label("a run and million steps")
        bar.set_ticks([-1, 0, 1, 2], labels=["0.1", "1", "10", "100"])
    for panel in grid[0]:
        panel.set(xscale="log", yscale="log", xlabel=r"ridge $\lambda$")
        plain_ticks(panel.yaxis)
    grid[0, 0].set_ylabel(r"learning rate $\eta$")
    place = {"va": "bottom", "fontsize": 6.5}
    grid[0, 0].annotate("GD: ", (0, 1.01), xycoords="axes fraction", ha="right", **place)
    for ridge, run in list(descents.items())[::2]:
        grid[0, 0].annotate(
            f"{run.jumps().rank}", (ridge, 1.01), xycoords=("data", "axes fraction"), ha="center", **place
        )
    return figure


def _around(centres):
    """Boundaries of cells whose centres are evenly spaced on a logarithmic axis."""
    half = np.sqrt(centres[1] / centres[0])
    return np.append(centres / half, centres[-1] * half)


def _fields(made, shape):
    """(learning rates, ridges) each: the most frequent outcome, and jumps a run and million steps."""
    found = outcomes(made).reshape(*shape, -1)
    counts = np.stack([(found == k).sum(axis=-1) for k in range(len(OUTCOMES))])
    millions = np.where(made.diverged, 0, made.ended).reshape(*shape, -1).sum(axis=-1) / 1e6
    totals = {name: getattr(made, name).reshape(*shape, -1).sum(axis=-1) for name in ("down", "up")}
    jumps = {name: total / np.where(millions > 0, millions, 1) for name, total in totals.items()}
    return {"outcome": counts.argmax(axis=0), **jumps}


@styled
def schedules(findings):
    """Errors over the hidden entries: a dot for each instance, a bar at the median."""
    figure, grid = new_figure(1, 2, height=2.9, sharey=True)
    for panel, noise in zip(grid[0], findings.schedules, strict=True):
        hidden = findings.test_errors(noise)
        for place, (name, errors) in enumerate(reversed(hidden.items())):
            own = name.startswith("SGD")
            panel.plot(errors, np.full(len(errors), place), "o", color="black" if own else "0.55", markersize=3)
            panel.plot(np.median(errors), place, "|", color="black", markersize=16, markeredgewidth=2)
        panel.set_yticks(range(len(hidden)), list(hidden)[::-1])
        panel.set(xscale="log", xlabel="root mean square over hidden entries", title=f"noise {noise:g}")
        if panel.get_xlim()[1] < 100 * panel.get_xlim()[0]:
            plain_ticks(panel.xaxis)
    return figure


@styled
def errors_over_time(findings):
    """Medians over instances and seeds of the rank and of the hidden error, with noise; dashed: gradient descent."""
    figure, grid = new_figure(1, 2, height=2.6)
    noise = NOISE
    made = findings.schedules[noise]
    for (name, each), colour, line in zip(made.items(), dark_to_light(len(made)), LINES, strict=False):
        steps = each.steps * THOUSAND
        grid[0, 0].plot(steps, each.ranks.mean(axis=0), color=colour, linestyle=line, label=name)
        grid[0, 1].plot(steps, np.nanmedian(each.test_error, axis=0), color=colour, linestyle=line, label=name)
    grid[0, 1].axhline(np.median(findings.baselines[noise]["GD, best ridge"]), **THEORY)
    grid[0, 0].set(ylabel="mean rank", xlabel=STEPS, ylim=(0, None))
    grid[0, 1].set(ylabel="median hidden error", xlabel=STEPS, yscale="log")
    plain_ticks(grid[0, 1].yaxis)
    grid[0, 0].legend()
    return figure
