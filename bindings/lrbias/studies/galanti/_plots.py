"""Figures of the study of Galanti et al."""

import functools

import numpy as np

from lrbias import theory
from lrbias.plots import (
    LINES,
    THEORY,
    caption,
    dark_to_light,
    new_figure,
    positive,
    rank_label,
    shared_legend,
    shorter,
    styled,
)
from lrbias.runs import VALUES
from lrbias.studies.galanti._statistics import last_rank, learnt

SYMBOLS = {"batch": "$B$", "lr": r"$\mu$", "weight_decay": r"$\lambda$"}
WORDS = {"batch": "batch size $B$", "lr": r"learning rate $\mu$", "weight_decay": r"weight decay $\lambda$"}
NAMES = {
    "resnet": "ResNet-18",
    "mlp": "MLP-BN",
    "momentum": "MLP-BN, momentum 0.9",
    "vgg": "VGG-16",
    "vit": "ViT",
    "mixed": "mixed",
}
DEEPEST = 1e-5  # of the largest singular value is the lower end of the axis
SHOWN = 6  # matrices whose spectra are drawn
STEPS = "step, thousands"


def available(findings):
    """(name, function without arguments, caption) of every figure."""
    networks = list(dict.fromkeys(axis.network for axis, _ in findings.axes))
    figures = [("final-ranks", final_ranks, findings)]
    figures += [(f"training-{network}", training, _of(findings.axes, network)) for network in networks]
    figures += [(f"without-decay-{network}", without_decay, _of(findings.controls, network)) for network in networks]
    others = dict.fromkeys(axis.network for axis, _ in findings.others)
    figures += [(f"training-{network}", training_of_other, _of(findings.others, network)) for network in others]
    figures.append(("maps", maps, findings.maps))
    figures.append(("norms", norms, findings))
    figures.append(("bound", bound, findings.wide))
    figures += [(f"spectra-{axis.network}", spectra, (axis, table)) for axis, table in _by_batch(findings)]
    if "mixed" in others:
        figures.append(("mixed", mixed, _of(findings.others, "mixed")))
    return [(name, functools.partial(draw, given), caption(draw)) for name, draw, given in figures]


def _of(axes, network):
    return [(axis, table) for axis, table in axes if axis.network == network]


def _by_batch(findings):
    wanted = [(axis, table) for axis, table in (*findings.axes, *findings.others) if axis.varied == "batch"]
    return [(axis, table) for axis, table in wanted if axis.network in ("resnet", "vgg")]


def _labelled(axis, value):
    return f"{SYMBOLS[axis.varied]} = {value:g}"


def _told(axis):
    return ", ".join(f"{SYMBOLS[key]} = {value:g}" for key, value in axis.fixed.items())


def _mean(runs, name):
    """(thousands of steps, means over the runs) of a quantity, without the records at which it is not known."""
    steps = runs[0].steps_of(name) / 1000
    values = np.mean([run[name] for run in runs], axis=0)
    known = np.isfinite(values)
    return steps[known], values[known]


@styled
def final_ranks(findings):
    """Average rank over the weight matrices at the end of training, every seed a point, their means joined.

    Open squares: the same without weight decay. Crosses: runs that did not learn.
    """
    networks = list(dict.fromkeys(axis.network for axis, _ in findings.axes))
    keys = list(dict.fromkeys(axis.varied for axis, _ in findings.axes))
    figure, grid = new_figure(len(networks), len(keys), height=2.4, sharey="row")
    for axes in grid.flat:
        axes.set_visible(False)
    for parts, control in ((findings.axes, False), (findings.controls, True)):
        for axis, table in parts:
            if axis.network in networks and axis.varied in keys:
                panel = grid[networks.index(axis.network), keys.index(axis.varied)]
                panel.set_visible(True)
                _draw_ends(panel, axis, table, control)
    for network, row in zip(networks, grid, strict=True):
        row[0].set_ylabel(f"{NAMES.get(network, network)}\naverage rank")
        row[0].set_ylim(bottom=0)
    shared_legend(figure, grid)
    return figure


def _draw_ends(panel, axis, table, control):
    values = np.array([value for value, _ in table])
    places = np.where(values > 0, values, values[values > 0].min() / 4)  # λ = 0 stands left of the others
    look = {"marker": "s", "mfc": "white", "color": "0.5"} if control else {"marker": "o", "color": "black"}
    name = r"a run with $\lambda = 0$" if control else "a run"
    joined = [np.mean([last_rank(run) for run in runs]) for _, runs in table]
    panel.plot(places, joined, color=look["color"], linewidth=0.9, linestyle="--" if control else "-")
    for place, (_, runs) in zip(places, table, strict=True):
        for run in runs:
            own = {"marker": "x", "color": "black"} if not learnt(run) else look
            label = "did not learn" if not learnt(run) else name
            panel.plot([place], [last_rank(run)], linestyle="", markersize=4, label=label, **own)
    if not control:
        decay = axis.varied == "weight_decay"
        panel.set(xscale="log", xlabel=WORDS[axis.varied] + r" $\cdot\ 10^3$" * decay, title=_told(axis))
        panel.set_xticks(places, [f"{1000 * value if decay else value:.3g}" for value in values])
        panel.minorticks_off()


@styled
def training(parts):
    """Average rank (above), training and test accuracy (dashed, below) over the steps, means over the seeds.

    A column for each setting that is varied.
    """
    figure, grid = new_figure(2, len(parts), height=2.3, sharex="col", sharey="row")
    for (axis, table), (ranks, accuracy) in zip(parts, grid.T, strict=True):
        for (value, runs), colour, line in zip(table, dark_to_light(len(table)), LINES * 3, strict=False):
            run = runs[0]
            label = _labelled(axis, value)
            ranks.plot(*_mean(runs, f"average/{run.rank}"), color=colour, linestyle=line, label=label)
            accuracy.plot(*_mean(runs, "train_accuracy"), color=colour)
            accuracy.plot(*_mean(runs, "test_accuracy"), color=colour, linestyle=(0, (3, 2)), linewidth=0.9)
        ranks.set_title(_told(axis))
        ranks.legend(loc="best", handlelength=2.4)
        accuracy.set_xlabel(STEPS)
        accuracy.set_ylim(0, 1)
    network = parts[0][0].network
    grid[0, 0].set_ylabel(f"{NAMES.get(network, network)}\naverage of {rank_label(run)}")
    grid[0, 0].set_ylim(0, 1.05 * max(layer_average(run) for _, table in parts for _, (run, *_) in table))
    grid[1, 0].set_ylabel("accuracy")
    return figure


def layer_average(run):
    """The mean of the shorter sides: what the average rank is at most."""
    return np.mean([layer.size for layer in run.layers])


@styled
def without_decay(parts):
    """The same without weight decay: ranks stay whatever the batch size or the learning rate."""
    return training(parts)


@styled
def training_of_other(parts):
    """Average rank (above), training and test accuracy (dashed, below) over the steps, one seed."""
    return training(parts)


@styled
def maps(made):
    """Average rank over the weight matrices at the end of training, over two settings; crossed out: did not learn."""
    figure, grid = new_figure(1, len(made), height=2.6)
    everything = [last_rank(run) for _, runs in made for run in runs]
    for (each, runs), axes in zip(made, grid[0], strict=True):
        shape = [len(values) for values in each.values]
        ranks = np.array([last_rank(run) for run in runs]).reshape(shape)
        image = axes.imshow(
            ranks, origin="lower", cmap="cividis", vmin=min(everything), vmax=max(everything), aspect="auto"
        )
        for place, run in enumerate(runs):
            i, j = np.unravel_index(place, shape)
            dark = ranks[i, j] < np.mean([min(everything), max(everything)])
            text = f"{ranks[i, j]:.1f}" + ("" if learnt(run) else "\n×")
            axes.text(j, i, text, ha="center", va="center", fontsize=7.5, color="white" if dark else "black")
        first, second = each.varied
        axes.set(xlabel=WORDS[second], ylabel=WORDS[first])
        axes.set_xticks(range(shape[1]), [f"{value:g}" for value in each.values[1]])
        axes.set_yticks(range(shape[0]), [f"{value:g}" for value in each.values[0]])
        axes.set_title(", ".join(f"{SYMBOLS[key]} = {value:g}" for key, value in each.fixed.items()))
        axes.grid(visible=False)
    figure.colorbar(image, ax=list(grid[0]), label="average rank")
    return figure


@styled
def norms(findings):
    """‖W_{T−1}‖/‖W_T‖ between records for every matrix (grey) and their mean, of one run of each network."""
    chosen = findings.one_of_each()
    columns = 3
    figure, grid = new_figure(-(-len(chosen) // columns), columns, height=2.1)
    for axes in grid.flat[len(chosen) :]:
        axes.set_visible(False)
    for (network, run), axes in zip(chosen.items(), grid.flat, strict=False):
        steps = run.steps_of("layers/norm_ratio")[1:] / 1000
        ratios = run["layers/norm_ratio"][1:]
        axes.plot(steps, ratios, color="0.7", linewidth=0.7)
        axes.plot(steps, ratios.mean(axis=1), color="black")
        axes.axhline(1, **THEORY)
        axes.set_title(NAMES.get(network, network))
        axes.set_xlabel(STEPS)
    for row in grid:
        row[0].set_ylabel(r"$\|W_{T-1}\|\,/\,\|W_T\|$")
    return figure


@styled
def bound(run):
    """Left: how many σ_i/‖W‖₂ exceed ε in the matrices of a wide network; dashed: the bound B ln(2/ε)/(2μλ), dotted:
    its width. Right: the distance of W/‖W‖₂ from rank k, σ_{k+1}/σ_1; dashed: Lemma 3.2, (1 − 2μλ)^n with k = m_l B n.
    """
    settings = run.settings
    given = settings["lr"], settings["weight_decay"]
    figure, grid = new_figure(1, 2, height=2.9)
    counts, distances = grid[0]
    epsilons = np.geomspace(1e-4, 1, 80)
    width = max(layer.size for layer in run.layers)
    for layer, line, colour in zip(run.layers, LINES, dark_to_light(len(run.layers)), strict=False):
        values = run[f"layer/{layer.name}/{VALUES}"][-1]
        shares = values / values[0]
        label = f"{layer.rows} × {layer.columns}"
        look = {"linestyle": line, "color": colour, "label": label}
        counts.loglog(epsilons, positive((shares > epsilons[:, None]).sum(axis=1).astype(float)), **look)
        distances.semilogy(np.arange(1, layer.size), positive(shares[1:]), **look)
    counts.plot(epsilons, [theory.rank_bound(*given, settings["batch"], e) for e in epsilons], **THEORY)
    counts.axhline(width, color="0.35", linestyle=":", linewidth=0.8)
    steps = np.arange(0, width // settings["batch"] + 1)
    distances.plot(steps * settings["batch"], theory.distance_bound(*given, steps), label="Lemma 3.2", **THEORY)
    counts.set(xlabel=r"threshold $\varepsilon$", ylabel=r"$\#\{\sigma_i > \varepsilon\,\|W\|_2\}$")
    distances.set(xlabel="rank $k$", ylabel=r"$\sigma_{k+1}/\sigma_1$", ylim=(DEEPEST, 2))
    distances.legend(loc="best")
    counts.legend(loc="best")
    return figure


@styled
def spectra(part):
    """σ_i/σ_1 of matrices spread over the network at the end of training, a line for each batch size (first seed)."""
    axis, table = part
    layers = table[0][1][0].layers
    layers = [layers[place] for place in np.linspace(0, len(layers) - 1, min(SHOWN, len(layers))).round().astype(int)]
    figure, grid = new_figure(-(-len(layers) // 3), 3, height=2.1, sharey=True)
    for axes in grid.flat[len(layers) :]:
        axes.set_visible(False)
    for layer, axes in zip(layers, grid.flat, strict=False):
        for (value, runs), colour, line in zip(table, dark_to_light(len(table)), LINES * 2, strict=False):
            values = runs[0][f"layer/{layer.name}/{VALUES}"][-1]
            label = _labelled(axis, value)
            shown = positive(values / values[0])
            axes.plot(np.arange(1, len(values) + 1), shown, color=colour, linestyle=line, label=label)
        axes.axhline(runs[0].settings["epsilon"], **THEORY)
        axes.set(title=f"{shorter(layer.name)} ({layer.rows} × {layer.columns})", yscale="log", ylim=(DEEPEST, 2))
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=4)
    for axes in grid[-1]:
        axes.set_xlabel("index $i$")
    for row in grid:
        row[0].set_ylabel(r"$\sigma_i/\sigma_1$")
    shared_legend(figure, grid)
    return figure


@styled
def mixed(parts):
    """The mixed residual network: ranks of convolutions and linear layers in its blocks over λ, each one thin, their
    means thick.
    """
    figure, grid = new_figure(1, 2, height=2.8, sharey=True)
    for axes, kind, title in zip(grid[0], ("convolutions", "linears"), ("convolutions", "linear layers"), strict=True):
        for (_, table), colour, line in zip(parts, ("black", "0.5"), LINES, strict=False):
            names = table[0][1][0].chosen(f"{kind}*")
            each = np.array([[runs[0][f"layer/{name}/{runs[0].rank}"][-1] for name in names] for _, runs in table])
            axes.plot(each, color=colour, linestyle=line, linewidth=0.5)
            label = f"{SYMBOLS['lr']} = {table[0][1][0].settings['lr']:g}"
            look = {"color": colour, "linestyle": line, "marker": "o", "markersize": 4}
            axes.plot(each.mean(axis=1), linewidth=2, label=label, **look)
        axes.set(title=f"{title} in {len(names)} places", xlabel=WORDS[parts[0][0].varied])
        axes.set_xticks(range(len(table)), [f"{value:g}" for value, _ in table])
    grid[0, 0].set_ylabel("rank")
    grid[0, 0].set_ylim(bottom=0)
    grid[0, 0].legend(loc="lower left")
    return figure
