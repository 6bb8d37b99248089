"""Figures of the study of greedy low-rank learning."""

import functools

import numpy as np

from lrbias.plots import LINES, THEORY, caption, dark_to_light, new_figure, plain_ticks, positive, styled
from lrbias.studies.glrl._parameters import COMPLETIONS, DEPTHS, NUCLEAR
from lrbias.studies.glrl._paths import GAUSSIAN, IDENTITY, predicted_power

SHOWN = 1e-6  # α of the flow that is drawn beside greedy learning
MARKERS = ("o", "s", "^", "D", "v", "x")


def available(findings):
    """(name, function without arguments, caption) of every figure."""
    figures = [
        ("same-path", same_path, findings),
        ("distance-over-time", distance_over_time, findings),
        ("distance-over-start", distance_over_start, findings),
        ("counterexample", counterexample, findings),
        ("hidden-entries", hidden_entries, findings),
        ("graphs", graphs, findings),
    ]
    return [(name, functools.partial(draw, given), caption(draw)) for name, draw, given in figures]


@styled
def same_path(findings):
    """Singular values of the product under greedy learning and under the flow from a small start, depth 2.

    Each in its own time. Dashed: the singular values at the ends of the phases.
    """
    figure, grid = new_figure(1, 2, height=3.0, sharey=True)
    flow = min(findings.flows(2), key=lambda flow: abs(np.log(flow["alpha"] / SHOWN)))
    found = findings.paths[2]
    sides = [("greedy learning", found["greedy"]), (rf"flow, $\alpha$ = {flow['alpha']:g}", flow)]
    ends = _ends(findings)
    for panel, (title, curves) in zip(grid[0], sides, strict=True):
        times, values = np.array(curves["values_time"]), np.array(curves["values"])
        for i, colour in enumerate(dark_to_light(values.shape[1])):
            panel.plot(times, positive(values[:, i]), color=colour, linestyle=LINES[i], label=rf"$\sigma_{i + 1}$")
        for level in ends:
            panel.axhline(level, **THEORY)
        panel.set(yscale="log", xscale="log", xlabel="time $t$", title=title, xlim=(0.2, 210), ylim=(1e-4, 20))
        plain_ticks(panel.xaxis)
    grid[0, 0].set_ylabel("singular values of $W$")
    grid[0, 1].legend(loc="lower right")
    return figure


def _ends(findings):
    """Singular values where the phases of depth 2 end, above the axis."""
    found = findings.paths[2]
    times, values = np.array(found["greedy"]["values_time"]), np.array(found["greedy"]["values"])
    dt = times[-1] / found["phases"][-1]["end"]
    rows = [np.searchsorted(times, phase["end"] * dt) for phase in found["phases"]]
    return np.unique(
        np.round([value for row in rows for value in values[min(row, len(values) - 1)] if value > 1e-3], 2)
    )


@styled
def distance_over_time(findings):
    """Distance of the flow from the path of greedy learning over time, from starts αI of many sizes."""
    figure, grid = new_figure(1, 3, height=3.9, sharey=True)
    for panel, depth in zip(grid[0], DEPTHS, strict=True):
        flows = findings.flows(depth)
        for flow, colour in zip(flows, dark_to_light(len(flows)), strict=True):
            times = np.array(flow["time"])
            distances = positive(np.array(flow["distance"]))
            panel.plot(times, distances, color=colour, linewidth=0.9, label=rf"$\alpha$ = {flow['alpha']:g}")
        panel.set(yscale="log", xscale="log", xlabel="time $t$", title=f"N = {depth}", ylim=(1e-5, 3))
        panel.set_xlim(left=0.1)
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 2}
        panel.legend(**below, handlelength=1.5, columnspacing=0.8)
    grid[0, 0].set_ylabel(r"$\min_{t'} \|W(t) - W_{\mathrm{greedy}}(t')\|_F$")
    return figure


@styled
def distance_over_start(findings):
    """Left: the largest distance from the path of greedy learning over the size of the start; dashed: what we expect.

    Right: how near the flow comes to the first critical point of greedy learning.
    """
    figure, grid = new_figure(1, 2, height=3.2)
    series = [(2, IDENTITY), (2, GAUSSIAN), (3, IDENTITY), (4, IDENTITY)]
    for (depth, start), marker, shade in zip(series, MARKERS, ("black", "0.5", "0.3", "0.6"), strict=False):
        flows = findings.flows(depth, start)
        alphas = np.array([flow["alpha"] for flow in flows])
        name = f"N = {depth}" + (f", {start}" if depth == 2 else "")
        style = {"color": shade, "marker": marker, "markersize": 4, "label": name.replace("α", r"$\alpha$")}
        grid[0, 0].loglog(alphas, [flow["largest"] for flow in flows], **style)
        grid[0, 1].loglog(alphas, [flow["critical"][0] for flow in flows], **style)
    flows = findings.flows(2)
    power = predicted_power(findings.paths[2])
    alphas = np.array([flow["alpha"] for flow in flows])
    middle = flows[len(flows) // 2]
    expected = middle["largest"] * (alphas / middle["alpha"]) ** power
    grid[0, 0].loglog(alphas, 0.6 * expected, label=rf"$\alpha^{{{power:.3f}}}$, expected at N = 2", **THEORY)
    grid[0, 0].set_ylabel(r"$\sup_t$ dist$(t)$")
    grid[0, 1].set_ylabel(r"$\min_t \|W(t) - W_1\|_F$")
    for panel in grid[0]:
        panel.set_xlabel(r"size $\alpha$ of the layers at the start")
    grid[0, 0].legend(loc="lower right", fontsize=6.5)
    return figure


@styled
def counterexample(findings):
    """Nuclear norm where the flow ends over the size of its start; dashed: 2R² + 2, where greedy learning ends.

    Dotted: the least nuclear norm, 4R.
    """
    figure, grid = new_figure(1, 3, height=2.6)
    for panel, row in zip(grid[0], findings.counterexample_table(), strict=True):
        panel.semilogx(list(row["flows"]), list(row["flows"].values()), "o-", color="black", markersize=4, label="flow")
        panel.axhline(row["greedy"], label="greedy: $2R^2 + 2$", **THEORY)
        panel.axhline(row["least"], color="0.35", linestyle=":", linewidth=1.2, label="least: $4R$")
        panel.set(
            title=f"R = {row['R']}",
            xlabel=r"size $\alpha$ of the start",
            ylim=(0.9 * row["least"], 1.05 * row["greedy"]),
        )
        panel.set_xticks([1e-1, 1e-16, 1e-32, 1e-48, 1e-64])
        panel.invert_xaxis()
    grid[0, 0].set_ylabel("nuclear norm of $W$")
    grid[0, 0].legend(loc="center right")
    return figure


@styled
def hidden_entries(findings):
    """Root mean square errors over hidden entries: every instance, and medians as lines."""
    names = [*(name for name, _, _ in COMPLETIONS), NUCLEAR]
    figure, grid = new_figure(height=3.6)
    panel = grid[0, 0]
    fractions = np.array(list(findings.completions))
    for k, (name, colour) in enumerate(zip(names, dark_to_light(len(names)), strict=True)):
        errors = np.array([row[name] for row in findings.completions.values()])
        places = 100 * fractions + 0.8 * (k - (len(names) - 1) / 2)
        panel.semilogy(places, errors, MARKERS[k], color=colour, markersize=2.5, alpha=0.6)
        panel.semilogy(
            places, np.median(errors, axis=1), color=colour, marker=MARKERS[k], linestyle=LINES[k % 4], label=name
        )
    panel.set(xlabel="entries observed, %", ylabel="error over hidden entries")
    panel.legend(loc="lower left")
    return figure


@styled
def graphs(findings):
    """What is observed, and the errors of greedy learning and flow on a logarithmic scale of grey."""
    figure, grid = new_figure(3, 3, height=2.2)
    for row, (name, runs) in enumerate(findings.graphs.items()):
        mask = runs[0].problem.mask
        grid[row, 0].imshow(mask, cmap="Greys", vmin=0, vmax=1.6)
        grid[row, 0].set_ylabel(name)
        for panel, run, label in zip(grid[row, 1:], runs, ("greedy learning", "flow"), strict=True):
            errors = np.log10(np.maximum(np.abs(run.network.product() - run.target), 1e-12))
            image = panel.imshow(errors, cmap="cividis", vmin=-8, vmax=0)
            panel.set_title(f"{label}: rank {_rank(run)}")
        for panel in grid[row]:
            panel.set(xticks=[], yticks=[])
            panel.grid(visible=False)
    grid[0, 0].set_title("observed")
    figure.colorbar(image, ax=list(grid[:, 1:].flat), shrink=0.6, label=r"$\log_{10} |W - \hat W|$")
    return figure


def _rank(run):
    values = run["product/singular_values"][-1]
    return int((values > 1e-2 * values[0]).sum())
