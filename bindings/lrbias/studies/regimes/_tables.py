"""What the study of regimes found, as sentences and tables."""

from lrbias import theory
from lrbias.analysis import directional_convergence
from lrbias.studies.regimes._numbers import LEARNING, SHARE, RegimeNumbers
from lrbias.studies.regimes._parameters import (
    DEPTH,
    DIRECTIONS,
    EDGE_SIZE,
    EDGE_VALUES,
    FITTED,
    RISE,
    SCALED_GAMMA,
    UNBALANCED,
)

LAZY, RICH = 0.01, 0.5  # kernel distances
SETTLED = 0.1  # how near to 2/η a sharpness has settled there, relatively


class RegimeFindings(RegimeNumbers):
    """A finding for each figure, and the tables."""

    @property
    def info(self):
        return self.flow.info

    def figures(self):
        """The caption of each is what it shows, and what was found."""
        from lrbias.studies.regimes import _plots as regimes_plots

        found = self.findings()
        return [(name, draw, f"{shown} {found[name]}") for name, draw, shown in regimes_plots.available(self)]

    def findings(self):
        """{figure: a sentence or two}."""
        return {
            "lazy-and-rich": f"{self._transition_finding()} {self._scaled_finding()}",
            "phase-diagram": self._lazy_finding(),
            "edge-of-stability": self._edge_finding(),
            "sharpness": self._sharpness_finding(),
            "saddles": self._saddle_finding(),
            "updates": self._update_finding(),
            "directions": self._drift_finding(),
            "spectral-bias": self._bias_finding(),
        }

    def as_dict(self):
        return {
            "findings": self.findings(),
            "lazy": self.lazy_table(),
            "transition": self.transition(),
            "rise": {width: self.rise(width) for width in self.parameters.widths},
            "scaled": self.scaled_table(),
            "edge": self.edge_table(),
            "saddles": {depth: [saddle.as_dict() for saddle in found] for depth, found in self.saddles.items()},
            "updates": self.update_table(),
            "updates_of_low_rank": self.verdicts(),
            "drift": self.drift_table(),
            "bias": self.bias_table(),
        }

    def tables(self):
        yield self._lazy_text()
        yield self._scaled_text()
        yield self._edge_text()
        yield self._saddle_text()
        yield self._update_text()
        yield self._drift_text()
        yield self._bias_text()

    def _lazy_text(self):
        own = self.parameters
        rows = self.lazy_table()
        crossing = self.transition()
        heads = ["γ", *(f"w = {width}" for width in own.widths)]
        cells = []
        for gamma in own.gammas:
            mine = [row for row in rows if row["gamma"] == gamma]
            cells.append([f"{gamma:g}", *(f"{row['distance']:.2g} ({row['gap']:.2g})" for row in mine)])
        passed = [crossing[width] for width in own.widths]
        cells.append(["γ at distance 0.1", *("—" if gamma is None else f"{gamma:.2f}" for gamma in passed)])
        rises = [self.rise(width) for width in own.widths]
        cells.append([f"from γ = {RISE[0]:g} to {RISE[1]:g}", *(f"× {rise:.0f}" for rise in rises)])
        text = (
            f"Depth {DEPTH}, {own.side} outputs and inputs, hidden layers of width w, starts of deviation "
            f"w^−γ; medians over {len(self.study.seeds)} starts. 1 − cos(K, K_0) of the tangent kernel where the loss "
            f"is {FITTED:g} of ½‖Ŵ‖², and in brackets the largest ‖W(t) − W_lin(t)‖/‖W(0) − Ŵ‖ from the "
            f"linearised network under the same steps. {self._lazy_finding()} {self._transition_finding()}"
        )
        return "Lazy and rich", text, heads, cells

    def _lazy_finding(self):
        rows = self.lazy_table()
        least = min(rows, key=lambda row: row["distance"])
        most = max(rows, key=lambda row: row["distance"])
        return (
            f"Lazy (distance below {LAZY:g}): down to {least['distance']:.2g} at w = {least['width']}, "
            f"γ = {least['gamma']:g}, where the linearised network is followed to within {least['gap']:.2g}. "
            f"Rich (above {RICH:g}): up to {most['distance']:.2g} at w = {most['width']}, γ = {most['gamma']:g}, where "
            f"it is not ({most['gap']:.2g})."
        )

    def _transition_finding(self):
        own = self.parameters
        first, last = own.widths[0], own.widths[-1]
        return (
            f"The wider, the sharper the transition behind γ = ½: from {RISE[0]:g} to {RISE[1]:g} the distance grows "
            f"{self.rise(first):.0f} times at w = {first} and {self.rise(last):.0f} times at w = {last}."
        )

    def _scaled_text(self):
        own = self.parameters
        rows = self.scaled_table()
        cells = [[f"{r['alpha']:g}", f"{r['distance']:.2g}", f"{r['gap']:.2g}", f"{r['moved']:.2g}"] for r in rows]
        text = (
            f"Rich starts, γ = {SCALED_GAMMA:g}, of two networks of width {own.scaled_width} with "
            f"opposite signs, so that the output, α times the product, is 0 at the start. {self._scaled_finding()}"
        )
        return "A scaled output", text, ["α", "kernel distance", "from the linearised", "‖θ − θ_0‖/‖θ_0‖"], cells

    def _scaled_finding(self):
        first, *_, last = self.scaled_table()
        return (
            f"From α = {first['alpha']:g} to {last['alpha']:g} the kernel's distance falls from "
            f"{first['distance']:.2g} to {last['distance']:.2g}, and that from the linearised network from "
            f"{first['gap']:.2g} to {last['gap']:.2g}."
        )

    def _edge_text(self):
        heads = ["η / (2/λ_flow)", "2/η", "sharpness at the end", "of 2/η", "flow's end, of 2/η", "loss"]
        cells = [
            [
                f"{row['share']:g}",
                *(f"{row[key]:.3f}" for key in ("limit", "sharpness", "ratio", "flow_ratio")),
                f"{row['loss']:.1e}",
            ]
            for row in self.edge_table()
        ]
        flow = self.flow["hessian/largest"][:, 0]
        balanced = theory.sharpness(EDGE_VALUES[0], DEPTH)
        text = (
            f"Depth {DEPTH}, {EDGE_SIZE} neurons a layer, "
            f"a start whose first layer is {UNBALANCED:g} times as large. Along "
            f"the flow sharpness grows from {flow[0]:.2f} to {flow[-1]:.2f} = λ_flow; a balanced minimum has "
            f"{balanced:.2f}. At the end: the median of the last quarter of the records. {self._edge_finding()}"
        )
        return "Edge of stability", text, heads, cells

    def _edge_finding(self):
        rows = self.edge_table()
        above, below = ([row["ratio"] for row in rows if (row["share"] > 1) is side] for side in (True, False))
        settles = "settles" if all(abs(ratio - 1) <= SETTLED for ratio in above) else "does not always settle"
        return (
            f"With η above 2/λ_flow GD {settles} at {min(above):.3f} to {max(above):.3f} of 2/η (within {SETTLED:.0%} "
            f"is called settled: ours), in minima that are flatter than the flow's; with η below it ends near the "
            f"flow's end, at {min(below):.3f} to {max(below):.3f}."
        )

    def _sharpness_finding(self):
        ends = []
        for depth, run in self.paths.items():
            value = theory.sharpness(self.parameters.saddle_values[0], depth)
            ends.append(f"{run['hessian/largest'][-1, 0]:.4g} (theory {value:.4g}) at depth {depth}")
        return f"The largest eigenvalue ends at {' and '.join(ends)}."

    def _saddle_text(self):
        own = self.parameters
        heads = ["depth", "iteration", "rank", "loss", "‖∇L‖", "smallest eigenvalue", "index", "‖Δθ‖ since the last"]
        cells = []
        for depth, found in self.saddles.items():
            for s in found:
                numbers = [f"{s.loss:.4g}", f"{s.gradient_norm:.1e}", f"{s.curvature:.2e}", str(s.index)]
                cells.append([str(depth), str(s.step), str(s.rank), *numbers, f"{s.distance:.3g}"])
        text = (
            f"Gradient flow from small Gaussian starts, {own.saddle_size} × {own.saddle_size}, target values "
            f"{', '.join(f'{v:g}' for v in own.saddle_values)}. {self._saddle_finding()} At depth 3 and more "
            "saddles need not have a negative eigenvalue at all (Kawaguchi 2016): there it vanishes with the start."
        )
        return "From saddle to saddle", text, heads, cells

    def _saddle_finding(self):
        own = self.parameters
        ranks = "; ".join(f"{', '.join(str(s.rank) for s in f)} at depth {d}" for d, f in self.saddles.items())
        size = own.saddle_size
        rank = len(own.saddle_values)
        expected: dict[int | None, int] = {k: (rank - k) * (size - k) for k in range(rank + 1)}
        fits = all(s.index == expected.get(s.rank) for s in self.saddles.get(2, ()))
        return (
            f"Ranks of the points where the gradient was small: {ranks}. At depth 2 a saddle of rank k should have "
            f"(r − k)(h − k) directions down, h the hidden width: {'all of them do' if fits else 'not all of them do'}."
        )

    def _update_text(self):
        own = self.parameters
        below = f"{SHARE:.0%} below"
        heads = ["run", "matrix", "updates", "effective rank", below, "stable rank", below]
        cells = [
            [
                row["run"],
                row["matrix"].replace("/", " "),
                str(row["updates"]),
                *(f"{row[key]:.2f}" for key in ("effective_rank", "effective_rank_high", "stable_rank")),
                f"{row['stable_rank_high']:.2f}",
            ]
            for row in self.update_table()
        ]
        text = (
            f"What {own.window} steps of GD change in the product and in each layer, {own.update_size} × "
            f"{own.update_size}, while the loss is above {LEARNING:g} of its first value. {self._update_finding()}"
        )
        return "Updates of low rank", text, heads, cells

    def _update_finding(self):
        own = self.parameters
        held, failed = ([name for name, low in self.verdicts().items() if low is which] for which in (True, False))
        return (
            "The protocol's conjecture, updates are themselves of low rank, by our rule (the effective rank of "
            f"{SHARE:.0%} of the updates is at most {own.update_rank}, in the product and in every layer): it "
            f"holds in {'; '.join(held) or 'no run'}. It fails in {'; '.join(failed) or 'no run'}."
        )

    def _drift_text(self):
        own = self.parameters
        heads = ["method", *(f"h = {h:g}" for h in own.drift_rates), "order in h"]
        labels = {"gd": "gradient descent, η = h", "rk4": "gradient flow (RK4), dt = h"}
        cells = [
            [
                labels[row["method"]],
                *(f"{row['drift'][h]:.2e}" for h in own.drift_rates),
                f"{row['order']:.2f}",
            ]
            for row in self.drift_table()
        ]
        text = (
            f"Change of W_{{i+1}}ᵀW_{{i+1}} − W_iW_iᵀ (all layers, Frobenius) from t = 0 to {own.drift_time:g}, "
            f"which a flow conserves. {self._drift_finding()}"
        )
        return "Balancedness and directions", text, heads, cells

    def _drift_finding(self):
        orders = {row["method"]: row["order"] for row in self.drift_table()}
        _, gaps = directional_convergence(self.updates[DIRECTIONS])
        return (
            f"GD drifts with the power {orders['gd']:.2f} of η, RK4 with the power {orders['rk4']:.2f} of dt. "
            f"Directions converge: in the run N = 3 of the updates ‖W_i/‖W_i‖ − its end‖ is at most "
            f"{gaps[0].max():.2g} at the start and {gaps[len(gaps) // 2].max():.2g} at half of the steps."
        )

    def _bias_text(self):
        heads = ["inputs", "strength s", "variance d", "value s/d", "t at half of it", "theory"]
        cells = [
            [
                "whitened" if row["whitened"] else "as they are",
                *(f"{row[key]:.3g}" for key in ("strength", "variance", "value")),
                "—" if row["measured"] is None else f"{row['measured']:.3g}",
                f"{row['expected']:.3g}",
            ]
            for row in self.bias_table()
        ]
        text = (
            "Depth 2, a balanced and aligned start. Outputs see inputs of variance d with strength s (correlation); "
            f"the mode tends to s/d. {self._bias_finding()}"
        )
        return "Spectral bias", text, heads, cells

    def _bias_finding(self):
        rows = [row for row in self.bias_table() if row["measured"] is not None]
        plain, white = ([row for row in rows if row["whitened"] is which] for which in (False, True))
        orders = (
            ", ".join(f"{row['value']:.3g}" for row in sorted(part, key=lambda row: row["measured"]))
            for part in (plain, white)
        )
        return "Values in the order in which they are learnt: {} from the inputs as they are, {} whitened.".format(
            *orders
        )
