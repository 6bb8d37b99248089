"""What the study of greedy low-rank learning found, as tables."""

import numpy as np

from lrbias.analysis import nuclear_norm_completion
from lrbias.studies import Findings
from lrbias.studies.glrl._parameters import COMPLETIONS, DEPTHS, GRAPHS, HIDDEN_VALUES, LARGE, NUCLEAR
from lrbias.studies.glrl._paths import EIGENVALUES, GAUSSIAN, IDENTITY, measured_power, predicted_power

RECOVERED = 1e-2  # error over hidden entries, whose own root mean square is about 1.1
RANK_LEVEL = 1e-2
SMALL = 0.2  # starts that are not larger count in a power


class GreedyFindings(Findings):
    """All parts of the study, made where they are missing, and their tables."""

    def __init__(self, study, factorizations):
        """factorizations: (depth, tied) of each."""
        super().__init__(study)
        self.factorizations = {each: study.factorization(*each) for each in factorizations}
        self.counterexamples = {large: study.counterexample(large) for large in LARGE}
        self.paths = {depth: study.paths(depth) for depth in DEPTHS}
        self.graphs = {name: study.on_graph(name) for name in GRAPHS}
        self.completions = study.completions()

    @property
    def info(self):
        return self.counterexamples[LARGE[0]][0].info

    def figures(self):
        from lrbias.studies.glrl import _plots as glrl_plots

        return glrl_plots.available(self)

    def as_dict(self):
        return {
            "factorization": self.factorization_table(),
            "counterexample": self.counterexample_table(),
            "distances": self.distance_table(),
            "powers": self.power_table(),
            "levels": self.level_table(),
            "graphs": self.graph_table(),
            "completion": self.completion_table(),
        }

    def tables(self):
        yield self._factorization_text()
        yield self._counterexample_text()
        yield self._distance_text()
        yield self._power_text()
        yield self._level_text()
        yield self._completion_text()
        yield self._graph_text()

    def factorization_table(self):
        """A dictionary for each form: ranks of its phases, largest distance of their ends from best approximations."""
        rows = []
        for (depth, tied), run in self.factorizations.items():
            ends = [run.checkpoint(phase.end).product() for phase in run.phases]
            gaps = [np.abs(end - best(run.target, k)).max() for k, end in enumerate(ends, start=1)]
            ranks = [phase.rank for phase in run.phases]
            worst = float(max(gaps))
            rows.append({"depth": depth, "tied": tied, "ranks": ranks, "largest_error": worst, "steps": run.step})
        return rows

    def counterexample_table(self):
        """A dictionary for each R: where greedy learning, flows from starts α, and the nuclear norm end."""
        rows = []
        for large, (greedy, flows) in self.counterexamples.items():
            least = nuclear_norm_completion(greedy.target, greedy.problem.mask)
            rows.append(
                {
                    "R": large,
                    "phases": len(greedy.phases),
                    "rank": greedy.phases[-1].rank,
                    "greedy": _nuclear(greedy),
                    "expected": 2 * large**2 + 2,
                    "flows": {alpha: _nuclear(run) for alpha, run in flows.items()},
                    "least": float(np.linalg.norm(least, "nuc")),
                    "expected_least": 4 * large,
                }
            )
        return rows

    def flows(self, depth, start=IDENTITY):
        """What is known of the flows of a depth, from the largest start to the smallest."""
        return [flow for flow in self.paths[depth]["flows"] if flow["start"] == start]

    def distance_table(self):
        """A dictionary for each flow: its start, sup dist, distances from critical points, how low-rank it is there."""
        kept = ("start", "alpha", "largest", "at", "critical", "tails", "evaluations")
        return [
            {"depth": depth, "product": flow["alpha"] ** depth, **{key: flow[key] for key in kept}}
            for depth, found in self.paths.items()
            for flow in found["flows"]
        ]

    def power_table(self):
        """A dictionary for each depth and start: the power of α with which sup dist falls, and what was expected."""
        rows = []
        for depth, start in ((2, IDENTITY), (2, GAUSSIAN), (3, IDENTITY), (4, IDENTITY)):
            small = [flow for flow in self.flows(depth, start) if flow["alpha"] <= SMALL * (1 + 1e-9)]
            power, off = measured_power(small)
            decades = np.log10(small[0]["alpha"] / small[-1]["alpha"])
            row = {"depth": depth, "start": start, "power": power, "largest_residual": off, "decades": float(decades)}
            rows.append({**row, "predicted": predicted_power(self.paths[2]) if depth == 2 else None})
        return rows

    def level_table(self):
        """A dictionary for each distance: the largest start αI from which it is reached, per depth (interpolated)."""
        rows = []
        for level in self.parameters.levels:
            found = {depth: start_for(level, self.flows(depth)) for depth in DEPTHS}
            rows.append({"distance": level, "alpha": found})
        return rows

    def completion_table(self):
        """A dictionary for each fraction and way: median error over hidden entries, number of instances recovered."""
        return [
            {"fraction": fraction, "method": name, "median": float(np.median(errors)), "recovered": _recovered(errors)}
            for fraction, row in self.completions.items()
            for name, errors in row.items()
        ]

    def graph_table(self):
        """A dictionary for each graph of observed pairs: parts, ranks and errors of greedy learning and flow."""
        rows = []
        for name, (greedy, flow) in self.graphs.items():
            facts = {"graph": name, "parts": greedy.problem.components, "entries": greedy.problem.count}
            for label, run in (("greedy", greedy), ("flow", flow)):
                product = run.network.product()
                values = np.linalg.svd(product, compute_uv=False)
                facts[f"{label}_rank"] = int((values > RANK_LEVEL * values[0]).sum())
                facts[f"{label}_error"] = float(run.problem.errors(product)["test"])
            rows.append(facts)
        return rows

    def _factorization_text(self):
        rows = [
            [
                row["depth"],
                "U Uᵀ" if row["tied"] else "all layers free",
                ", ".join(map(str, row["ranks"])),
                f"{row['largest_error']:.1e}",
                row["steps"],
            ]
            for row in self.factorization_table()
        ]
        text = (
            f"A symmetric 10 × 10 matrix with eigenvalues {_listed(self.parameters.spectrum)}, wholly "
            "seen: largest difference of an entry between the end of phase k and the best approximation of rank k."
        )
        return (
            "Phases end at best approximations",
            text,
            ("N", "layers", "ranks", "largest error", "steps of 0.1"),
            rows,
        )

    def _counterexample_text(self):
        heads = (
            "R",
            "phases",
            "rank",
            "greedy",
            "2R² + 2",
            *(f"flow, α = {a:.0e}" for a in self.parameters.large_scales),
        )
        rows = []
        for row in self.counterexample_table():
            flows = [f"{norm:.4f}" for norm in row["flows"].values()]
            known = [row["R"], row["phases"], row["rank"], f"{row['greedy']:.7f}", row["expected"]]
            rows.append([*known, *flows, f"{row['least']:.4f}", row["expected_least"]])
        text = (
            "Nuclear norms of where the symmetric 4 × 4 completion (1, 3) = 1, (1, 4) = (2, 3) = R ends. The two "
            "largest eigenvalues of −∇f(0) are (√(1 + 4R²) ± 1)/2, nearly equal for a large R: then only a tiny start "
            "takes the flow where greedy learning goes, but it takes it there, away from the least nuclear norm."
        )
        return "Counter-example to the nuclear norm", text, (*heads, "least (cvxpy)", "4R"), rows

    def _distance_text(self):
        heads = ["N", "start", "α", "‖W(0)‖₂ about", "sup dist", "at t"]
        heads += [f"‖W − W_{k}‖" for k in (1, 2, 3)] + [f"σ_{k + 1}/σ_1 there" for k in (1, 2, 3)] + ["gradients"]
        rows = []
        for row in self.distance_table():
            first = [row["depth"], row["start"], f"{row['alpha']:g}", f"{row['product']:.0e}"]
            others = [f"{value:.1e}" for value in (*row["critical"], *row["tails"])]
            rows.append([*first, f"{row['largest']:.2e}", f"{row['at']:.3g}", *others, row["evaluations"]])
        text = (
            "dist(t) = min_t' ‖W_flow(t) − W_greedy(t')‖_F, the largest over all t, and when. Then, for the critical "
            "points W_1, W_2, W_3 at which phases end: how near the flow comes to each, and how low-rank it is there. "
            f"The eigenvalues of the target are {_listed(EIGENVALUES)}."
        )
        return "Distances of flows from greedy learning", text, heads, rows

    def _power_text(self):
        rows = [
            [
                row["depth"],
                row["start"],
                f"α^{row['power']:.3f}",
                "—" if row["predicted"] is None else f"α^{row['predicted']:.3f}",
                f"{row['decades']:.3g}",
                f"{row['largest_residual']:.3f}",
            ]
            for row in self.power_table()
        ]
        text = (
            "By least squares in logarithms, from α = 0.2 down. Expected at depth 2 (ours): α^{2Eγ/(γ + 2s)}, "
            "E = 1 − σ_2/σ_1 of −∇f(0), γ the rate at which greedy learning approaches W_1, s the slope there: the "
            "second mode is α^{2E} when the flow comes near W_1, and grows while the flow still approaches, so that a "
            "corner is cut. For depth ≥ 3 a mode that waits hardly grows; there the largest distance is reached while "
            "the second mode is learnt, and its power is only measured."
        )
        heads = ("N", "start", "sup dist falls as", "expected", "decades of α", "largest residual")
        return "How fast the distance falls", text, heads, rows

    def _level_text(self):
        heads = ["sup dist", *(f"α, N = {depth}" for depth in DEPTHS), *(f"‖W(0)‖₂, N = {depth}" for depth in DEPTHS)]
        rows = []
        for row in self.level_table():
            products = {depth: alpha and alpha**depth for depth, alpha in row["alpha"].items()}
            cells = [*row["alpha"].values(), *products.values()]
            rows.append([f"{row['distance']:g}", *("—" if value is None else f"{value:.1e}" for value in cells)])
        text = "The start from which a distance is reached, interpolated in logarithms; —: outside of what was run."
        return "Which start a distance takes", text, heads, rows

    def _completion_text(self):
        own = self.parameters
        names = [*(name for name, _, _ in COMPLETIONS), NUCLEAR]
        rows = []
        for fraction, row in self.completions.items():
            cells = [f"{np.median(row[name]):.1e} ({_recovered(row[name])})" for name in names]
            rows.append([f"{100 * fraction:.0f} %", *cells])
        text = (
            f"Random 10 × 10 matrices with singular values {HIDDEN_VALUES[0]:g} and {HIDDEN_VALUES[1]:g}, "
            f"{own.instances} of each fraction: medians of root mean square errors over the hidden "
            f"entries (their own is about 1.1), and how many are below {RECOVERED:g}. A matrix of rank 2 has 36 "
            "degrees of freedom: with 40 entries greedy learning, too, finds others, or none. Flows end when the loss "
            f"is 1e-9, or at t = {own.completion_steps}."
        )
        return "Hidden entries", text, ["observed", *names], rows

    def _graph_text(self):
        rows = [
            [
                row["graph"],
                row["parts"],
                row["entries"],
                row["greedy_rank"],
                f"{row['greedy_error']:.1e}",
                row["flow_rank"],
                f"{row['flow_error']:.1e}",
            ]
            for row in self.graph_table()
        ]
        text = (
            "A symmetric 10 × 10 matrix of rank 1. Nothing ties the two blocks of the first graph to each other: each "
            "gets a direction of its own, and what lies between them stays hidden. One pair more and both are one. "
            f"Rank: #{{σ_i > {RANK_LEVEL:g} σ_1}}; flow from a Gaussian start, α = 1e-4."
        )
        heads = ("observed", "parts", "entries", "rank, greedy", "hidden error", "rank, flow", "hidden error")
        return "Connected and disconnected observations", text, heads, rows


def best(matrix, rank):
    """The best approximation of a rank."""
    left, values, right = np.linalg.svd(matrix)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


def start_for(level, flows):
    """The α from which sup dist is `level`, between two that were run, else None."""
    alphas, largest = (np.array([flow[key] for flow in flows]) for key in ("alpha", "largest"))
    if not largest.min() <= level <= largest.max():
        return None
    order = np.argsort(largest)
    return float(np.exp(np.interp(np.log(level), np.log(largest[order]), np.log(alphas[order]))))


def _listed(values):
    return ", ".join(f"{value:g}" for value in values)


def _nuclear(run):
    return float(run["product/singular_values"][-1].sum())


def _recovered(errors):
    return int((errors < RECOVERED).sum())
