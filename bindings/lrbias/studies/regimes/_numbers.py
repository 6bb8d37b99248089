"""The numbers of the study of regimes, a list of dictionaries for each part."""

import itertools

import numpy as np

from lrbias import theory
from lrbias.analysis import saddles
from lrbias.studies import Findings
from lrbias.studies.regimes._parameters import BIAS_RATE, BIAS_START, RISE, STRENGTHS
from lrcore import layout

BETWEEN = 0.1  # a kernel distance between lazy and rich
LEARNING = 1e-4  # of the first loss: above it an update is one of learning
SHARE = 0.95  # of the updates that have to be of low rank


class RegimeNumbers(Findings):
    """All runs of the study, made where they are missing, and what is counted of them."""

    def __init__(self, study):
        super().__init__(study)
        own = self.parameters
        starts = [(width, gamma, seed) for width in own.widths for gamma in own.gammas for seed in study.seeds]
        self.lazy = {key: study.lazy(*key) for key in starts}
        self.scaled = {(alpha, seed): study.scaled(alpha, seed) for alpha in own.scales for seed in study.seeds}
        self.flow, self.edges = study.edge()
        self.paths = {depth: study.saddles(depth) for depth in own.saddle_starts}
        self.saddles = {depth: saddles(run) for depth, run in self.paths.items()}
        self.updates = {name: study.updates(name) for name in own.update_runs}
        self.drifts = dict(zip(("gd", "rk4"), study.drift(), strict=True))
        self.bias = {whiten: study.bias(whiten) for whiten in (False, True)}

    def lazy_table(self):
        """A dictionary for each width and γ: medians over the starts."""
        own = self.parameters
        return [
            {"width": width, "gamma": gamma, **_medians([self.lazy[width, gamma, seed] for seed in self.study.seeds])}
            for width in own.widths
            for gamma in own.gammas
        ]

    def transition(self):
        """{width: γ at which the kernel distance passes 0.1, between the measured ones on a logarithmic scale}."""
        own = self.parameters
        found = {}
        for width in own.widths:
            rows = [row for row in self.lazy_table() if row["width"] == width]
            distances = np.log([max(row["distance"], 1e-16) for row in rows])
            above = np.flatnonzero(distances > np.log(BETWEEN))
            first = int(above[0]) if above.size else None
            if not first:
                found[width] = None if first is None else own.gammas[0]
                continue
            part = (np.log(BETWEEN) - distances[first - 1]) / (distances[first] - distances[first - 1])
            found[width] = float(own.gammas[first - 1] + part * (own.gammas[first] - own.gammas[first - 1]))
        return found

    def rise(self, width):
        """How many times as large the distance becomes between the two γ of RISE: the transition's sharpness."""
        found = {row["gamma"]: row["distance"] for row in self.lazy_table() if row["width"] == width}
        return found[RISE[1]] / found[RISE[0]]

    def scaled_table(self):
        """A dictionary for each output scale."""
        return [
            {"alpha": alpha, **_medians([self.scaled[alpha, seed] for seed in self.study.seeds])}
            for alpha in self.parameters.scales
        ]

    def edge_table(self):
        """A dictionary for each learning rate: sharpness at the end against 2/η."""
        rows = []
        for share, run in self.edges.items():
            limit = 2 / run.method.lr
            values = run["hessian/largest"][:, 0]
            late = values[-len(values) // 4 :]
            rows.append(
                {
                    "share": share,
                    "lr": run.method.lr,
                    "limit": limit,
                    "sharpness": float(np.median(late)),
                    "ratio": float(np.median(late)) / limit,
                    "flow_ratio": float(self.flow["hessian/largest"][-1, 0]) / limit,
                    "largest_ratio": float(np.nanmax(values)) / limit,
                    "loss": float(run.losses[-1]),
                    "status": run.status,
                }
            )
        return rows

    @staticmethod
    def learning(run):
        """Steps of the records of a run, without the first, at which its loss is above LEARNING of the first one."""
        steps = run.steps_of("product/update_effective_rank")
        losses = run.losses[steps]
        return steps[losses > LEARNING * losses[0]][1:]

    def update_table(self):
        """A dictionary for each run and matrix: medians and upper ends of the ranks of its updates, and a verdict."""
        own = self.parameters
        rows = []
        for name, run in self.updates.items():
            learning = self.learning(run) // own.window
            for key in ("product", *(f"layer/{i}" for i in range(1, run.depth + 1))):
                row = {"run": name, "matrix": key, "updates": len(learning), "rank": run.target_rank}
                for rank in ("effective_rank", "stable_rank"):
                    found = run[f"{key}/update_{rank}"][learning]
                    row[rank], row[f"{rank}_high"] = float(np.median(found)), float(np.quantile(found, SHARE))
                row["low"] = bool(row["effective_rank_high"] <= own.update_rank)
                rows.append(row)
        return rows

    def verdicts(self):
        """{run: whether the updates of its product and of all its layers are of low rank}."""
        rows = self.update_table()
        return {name: all(row["low"] for row in rows if row["run"] == name) for name in self.parameters.update_runs}

    def drift_table(self):
        """A dictionary for each method: by step size how far W_{i+1}ᵀW_{i+1} − W_iW_iᵀ has come, and the order."""
        rows = []
        for name, runs in self.drifts.items():
            gaps = {h: _drift(run) for h, run in runs.items()}
            known = [h for h in self.parameters.drift_rates if gaps[h] > 0]
            slope = float(np.polyfit(np.log(known), np.log([gaps[h] for h in known]), 1)[0])
            rows.append({"method": name, "drift": gaps, "order": slope})
        return rows

    def bias_table(self):
        """A dictionary for each mode of each run: when it passes half its value, measured and by theory."""
        rows = []
        for whiten, run in self.bias.items():
            modes = run.problem.modes()
            strengths = run["product/mode_strengths"]
            steps = run.steps_of("product/mode_strengths")
            for a in range(len(STRENGTHS)):
                half = strengths[:, a] > 0.5 * modes.values[a]
                expected = theory.escape_time(modes.strengths[a], BIAS_START, 2, variance=modes.variances[a])
                row = {"whitened": whiten, "strength": float(modes.strengths[a]), "variance": float(modes.variances[a])}
                measured = float(steps[half.argmax()] * BIAS_RATE) if half.any() else None
                rows.append({**row, "value": float(modes.values[a]), "measured": measured, "expected": expected})
        return rows


def _medians(pairs):
    """Of (full run, linearised run): distances of kernels at the end, of products at most, from the start."""
    rows = [(_last(run["ntk/distance"]), _gap(run, linear), _moved(run), run.step) for run, linear in pairs]
    return dict(zip(("distance", "gap", "moved", "steps"), np.median(rows, axis=0).tolist(), strict=True))


def _last(values):
    return float(values[-1])


def _gap(run, linear):
    """The largest ‖W − W_lin‖ over the records that both have, of the way ‖W(0) − Ŵ‖ to go."""
    own = run["product/matrix"]
    other = linear["product/matrix"]
    count = min(len(own), len(other))
    norms = np.linalg.norm((own[:count] - other[:count]).reshape(count, -1), axis=1)
    return float(norms.max() / np.linalg.norm(own[0] - run.target))


def _moved(run):
    return _last(run["distance_from_init"]) / float(np.linalg.norm(run.checkpoint(0).params))


def _drift(run):
    """‖·‖ of the change of all W_{i+1}ᵀW_{i+1} − W_iW_iᵀ from the start to the end."""
    ends = [_imbalance(run.checkpoint(step), run.widths) for step in (0, run.step)]
    return float(np.linalg.norm([np.linalg.norm(b - a) for a, b in zip(*ends, strict=True)]))


def _imbalance(network, widths):
    layers = layout.layers(network.params, widths)
    return [above.T @ above - below @ below.T for below, above in itertools.pairwise(layers)]
