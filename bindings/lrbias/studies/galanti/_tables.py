"""What the study of Galanti et al. found, as tables."""

import numpy as np

from lrbias import theory
from lrbias.runs import VALUES
from lrbias.studies import Findings
from lrbias.studies.galanti._parameters import KEYS, PROBED
from lrbias.studies.galanti._statistics import (
    CHANCE,
    EXPECTED,
    METRICS,
    NO_EFFECT,
    RESAMPLES,
    compared,
    judged,
    last_rank,
    learnt,
    spread,
)
from lrbias.sweeps import as_csv

WORDS = {"batch": "B", "lr": "μ", "weight_decay": "λ"}
EPSILONS = (0.5, 0.3, 0.1, 1e-2, 1e-3)


class RankFindings(Findings):
    """All parts of the study, made where they are missing, and their tables."""

    def __init__(self, study):
        super().__init__(study)
        self.preset = study.preset
        self.axes, self.controls, self.others = (
            [(axis, study.table(axis)) for axis in axes]
            for axes in (self.preset.axes, self.preset.controls, self.preset.others)
        )
        self.maps = [(each, [study.opened(each.network, cell) for cell in each.cells()]) for each in self.preset.maps]
        self.wide = study.opened("wide", self.preset.wide)
        self.gradients = study.gradients()

    def axis_rows(self):
        """A dictionary for each axis: what was varied, ranks and accuracies of its values, correlation, verdict."""
        return [self._row(axis, table) for axis, table in self.axes]

    def _row(self, axis, table):
        trained = [(value, [run for run in runs if learnt(run)]) for value, runs in table]
        known = [(value, runs) for value, runs in trained if runs]
        row = {"network": axis.network, "varied": axis.varied, "figures": axis.figures, **axis.fixed}
        row["values"] = [_cell(value, runs) for value, runs in table]
        row["untrained"] = sum(not learnt(run) for _, runs in table for run in runs)
        for name, metric in METRICS.items():
            row[name] = judged(axis.varied, [(v, [last_rank(run, metric) for run in runs]) for v, runs in known])
        return row

    def control_rows(self):
        """A dictionary for each axis without weight decay: the spread of ranks, beside that with weight decay."""
        rows = []
        for axis, table in self.controls:
            same = [own for each, own in self.axes if (each.network, each.varied) == (axis.network, axis.varied)]
            decayed = [(value, runs) for value, runs in same[0] if value in axis.values] if same else None
            row = {"network": axis.network, "varied": axis.varied, "values": [_cell(*each) for each in table]}
            for name, metric in METRICS.items():
                row[name] = compared(spread(table, metric), None if decayed is None else spread(decayed, metric))
            rows.append(row)
        return rows

    def other_rows(self):
        """A dictionary for each axis of the other networks, with few seeds: no statistics."""
        rows = []
        for axis, table in self.others:
            row = {"network": axis.network, "varied": axis.varied, "figures": axis.figures, **axis.fixed}
            rows.append({**row, "values": [_cell(value, runs) for value, runs in table]})
        return rows

    def one_of_each(self):
        """{network: the run in the middle of its first axis}."""
        parts = reversed((*self.axes, *self.others))
        return {axis.network: table[len(table) // 2][1][0] for axis, table in parts}

    def norm_rows(self):
        """A dictionary for each network: how far ‖W_{T−1}‖/‖W_T‖ of the last two records is from 1."""
        rows = []
        for network, run in self.one_of_each().items():
            ratios = np.abs(run["layers/norm_ratio"] - 1)
            about = {key: run.settings[key] for key in KEYS}
            numbers = {
                "first": float(ratios[1].max()),
                "last": float(ratios[-1].max()),
                "mean": float(ratios[-1].mean()),
            }
            rows.append({"network": network, **about, "every": int(run.steps_of(VALUES)[1]), **numbers})
        return rows

    def bound_rows(self):
        """A dictionary for each ε: bound, and how many σ_i/‖W‖₂ of the wide network's matrices exceed it."""
        settings = self.wide.settings
        rows = []
        given = settings["lr"], settings["weight_decay"], settings["batch"]
        shapes = {layer.name: layer.size for layer in self.wide.layers}
        for epsilon in EPSILONS:
            counts = {name: _exceeding(self.wide, name, epsilon) for name in shapes}
            bound = theory.rank_bound(*given, epsilon)
            largest = max(shapes.values())
            row = {"epsilon": epsilon, "bound": bound, "width": largest, "below_width": bound < largest}
            rows.append({**row, "ranks": counts, "largest": max(counts.values())})
        return rows

    def kind_rows(self):
        """A dictionary for each λ of the mixed network: ranks of its convolutions and linear layers (Figure 16)."""
        rows = []
        for axis, table in self.others:
            if axis.network != "mixed":
                continue
            for value, runs in table:
                ranks = {kind: float(runs[0].average(layers=f"{kind}*")[-1]) for kind in ("convolutions", "linears")}
                rows.append({"lr": runs[0].settings["lr"], axis.varied: value, **ranks, **_accuracies(runs)})
        return rows

    def as_dict(self):
        return {
            "axes": self.axis_rows(),
            "without_decay": self.control_rows(),
            "others": self.other_rows(),
            "norms": self.norm_rows(),
            "bound": self.bound_rows(),
            "kinds": self.kind_rows(),
            "gradients": self.gradients,
        }

    def run_rows(self):
        """A dictionary for each run: settings, ranks at the end, accuracies."""
        rows = []
        for name, settings in self.study.runs().items():
            run = self.study.opened(name.split(",")[0], settings, settings["seed"])
            facts = run.summary()
            ends = {
                key: facts[key][-1] for key in (f"average_{run.rank}", "average_stable_rank", "average_effective_rank")
            }
            own = {key: settings[key] for key in (*KEYS, "seed")}
            noted = {key: facts[key] for key in run.scalars}
            rows.append({"run": name, **own, "steps": run.step, "status": run.status, **ends, **noted})
        return rows

    def more_files(self):
        return {"runs.csv": as_csv(self.run_rows())}

    def figures(self):
        from lrbias.studies.galanti import _plots as galanti_plots

        return galanti_plots.available(self)

    @property
    def info(self):
        return self.wide.info

    def tables(self):
        yield self._axis_text()
        yield self._control_text()
        yield self._other_text()
        yield self._kind_text()
        yield self._bound_text()
        yield self._norm_text()
        yield self._gradient_text()

    def _axis_text(self):
        ends = "average rank at the end: value → mean ± deviation (stable rank; training accuracy)"
        ranked = ("network", "varied", "the others", ends, "Spearman's ρ [95 %]", "expected", "verdict")
        heads = (*ranked, "ρ of the stable rank", "verdict")
        rows = []
        for row in self.axis_rows():
            rho, said, *stable = [cell for name in METRICS for cell in _correlation_cells(row, name)]
            sign = "> 0" if EXPECTED[row["varied"]] > 0 else "< 0"
            about = [row["network"], WORDS[row["varied"]], _others(row), _values(row, stable=True)]
            rows.append([*about, rho, sign, said, *stable])
        sizes = ", ".join(
            f"{network} {_length(self.preset.networks[network])}"
            for network in dict.fromkeys(axis.network for axis, _ in self.axes)
        )
        text = (
            f"{self.parameters.seeds} seeds for each value; {sizes}. The rank is the number of σ_i > 1e-3 ‖W‖₂, "
            "averaged over the weight matrices. Spearman's ρ between the setting and the rank over all runs; the "
            f"interval is a bootstrap of the seeds within each value, {RESAMPLES} times. In brackets the mean stable "
            "rank (without a threshold, judged alike) and the training accuracy. †: runs among them that did not "
            f"learn ({100 * CHANCE:.0f} % of the training images or less put right), which are left out of ρ."
        )
        return "Smaller batches, larger learning rates, more weight decay: lower ranks", text, heads, rows

    def _control_text(self):
        compared = ("spread", "with λ > 0", "verdict", "spread of the stable rank", "with λ > 0", "verdict")
        heads = ("network", "varied", "average rank at the end (stable rank; training accuracy)", *compared)
        rows = []
        for row in self.control_rows():
            cells = [cell for name in METRICS for cell in _compared_cells(row[name])]
            rows.append([row["network"], WORDS[row["varied"]], _values(row, stable=True), *cells])
        text = (
            "The same without weight decay. Spread: largest minus smallest of the means over the seeds, beside that of "
            f"the same values with weight decay. Up to {NO_EFFECT:g} of that is called no effect (ours)."
        )
        return "Without weight decay", text, heads, rows

    def _other_text(self):
        heads = ("network", "varied", "the others", "average rank at the end (training accuracy)", "the paper's figure")
        rows = [[r["network"], WORDS[r["varied"]], _others(r), _values(r), r["figures"]] for r in self.other_rows()]
        text = "One seed each, so nothing is tested. momentum: MLP-BN with momentum 0.9; vgg: VGG-16 with batch norm."
        return "Other networks, and momentum", text, heads, rows

    def _kind_text(self):
        heads = ("μ", "λ", "convolutions", "linear layers", "training accuracy", "test accuracy")
        ranks = ("convolutions", "linears")
        accuracies = ("train_accuracy", "test_accuracy")
        rows = [
            [
                *(f"{r[key]:g}" for key in ("lr", "weight_decay")),
                *(f"{r[kind]:.1f}" for kind in ranks),
                *(f"{r[name]:.2f}" for name in accuracies),
            ]
            for r in self.kind_rows()
        ]
        width = self.preset.networks["mixed"].get("width", 256)
        text = (
            f"The mixed residual network (Figure 16): average ranks within its blocks, all of them at most {width}, "
            "the shorter side. The bound for a convolution is m_l times larger."
        )
        return "Convolutions and linear layers", text, heads, rows

    def _bound_text(self):
        settings = self.wide.settings
        heads = ("ε", "bound B ln(2/ε)/(2μλ)", "below the width?", "most σ_i > ε ‖W‖₂ of a matrix")
        rows = [
            [f"{r['epsilon']:g}", f"{r['bound']:.0f}", "yes" if r["below_width"] else "no", r["largest"]]
            for r in self.bound_rows()
        ]
        shown = {WORDS[key]: settings[key] for key in KEYS}
        kept = all(row["largest"] <= row["bound"] for row in self.bound_rows())
        text = (
            f"MLP-BN-{settings['depth']}-{settings['width'] or 100} with {_shown(shown)} (Figure 6), training accuracy "
            f"{self.wide['train_accuracy'][-1]:.2f}. The bound {'holds' if kept else 'is exceeded'}."
        )
        return "The bound and the ranks of a wide network", text, heads, rows

    def _norm_text(self):
        heads = ("network", "B", "μ", "λ", "records every", "first largest", "last largest", "last mean")
        rows = [
            [*(r[key] for key in ("network", *KEYS, "every")), *(f"{r[key]:.2g}" for key in ("first", "last", "mean"))]
            for r in self.norm_rows()
        ]
        text = (
            "|‖W_{T−1}‖/‖W_T‖ − 1| between records (so many steps apart) of one run of each network: the largest over "
            "its matrices at the first and at the last record, and the mean at the last one. The theorem asks for 0 "
            "(Figure 5)."
        )
        return "Do the norms settle?", text, heads, rows

    def _gradient_text(self):
        heads = (
            "network",
            "matrices",
            "one sample: rank ≤ m_l",
            "largest share",
            "batch: rank ≤ m_l B",
            "largest share",
            "below the shorter side (sample, batch)",
        )
        rows = []
        for network, found in self.gradients.items():
            cells = [network, len(found)]
            for key in ("sample", "batch"):
                kept = sum(row[key] <= row[f"{key}_bound"] for row in found)
                cells += [f"{kept} of {len(found)}", f"{max(row[key] / row[f'{key}_bound'] for row in found):.2f}"]
            low = [sum(row[f"{key}_bound"] < row["size"] for row in found) for key in ("sample", "batch")]
            rows.append([*cells, f"{low[0]}, {low[1]}"])
        text = (
            f"Lemma 3.1 at the end of a run of each network, for {PROBED} training images: how many matrices "
            "keep the bound (with the shorter side as another one), the largest ratio of rank and bound, and for how "
            "many matrices the bound says more than the shorter side does."
        )
        return "Ranks of gradients", text, heads, rows


def _correlation_cells(row, name):
    """The correlation with its interval, and the verdict."""
    found = row[name]
    known = found["correlation"] is not None
    shown = f"{found['correlation']:.2f} [{found['low']:.2f}, {found['high']:.2f}]" if known else "—"
    return shown, found["verdict"]


def _cell(value, runs):
    """What is known of the runs with one value."""
    ranks = [last_rank(run) for run in runs]
    cell = {"value": value, "ranks": ranks, "mean": float(np.mean(ranks)), "deviation": float(np.std(ranks))}
    cell["stable_rank"] = float(np.mean([last_rank(run, "stable_rank") for run in runs]))
    return {**cell, **_accuracies(runs), "untrained": sum(not learnt(run) for run in runs)}


def _accuracies(runs):
    return {name: float(np.mean([run[name][-1] for run in runs])) for name in ("train_accuracy", "test_accuracy")}


def _compared_cells(found):
    decayed = "—" if found["with_decay"] is None else f"{found['with_decay']:.2f}"
    return f"{found['spread']:.2f}", decayed, found["verdict"]


def _exceeding(run, name, epsilon):
    values = run[f"layer/{name}/{VALUES}"][-1]
    return int((values > epsilon * values[0]).sum())


def _others(row):
    return _shown({WORDS[key]: row[key] for key in KEYS if key in row})


def _shown(settings):
    return ", ".join(f"{name} = {value:g}" for name, value in settings.items())


def _length(settings):
    """How long the runs of a network are."""
    return f"{settings['steps']} steps" if "steps" in settings else f"{settings['epochs']} epochs"


def _values(row, stable=False):
    shown = []
    for cell in row["values"]:
        around = f" ± {cell['deviation']:.1f}" if len(cell["ranks"]) > 1 else ""
        mark = "†" if cell["untrained"] else ""
        beside = f"{cell['stable_rank']:.1f}; " if stable else ""
        shown.append(f"{cell['value']:g} → {cell['mean']:.1f}{around} ({beside}{cell['train_accuracy']:.2f}{mark})")
    return "; ".join(shown)
