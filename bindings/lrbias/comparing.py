"""Runs side by side over t = step size · iteration."""

import numpy as np

from lrbias.errors import InvalidInput, require
from lrbias.run import Run
from lrbias.run import open as open_run
from lrbias.settings import check_formats


def compare(runs):
    """A Comparison of at least two runs (Run objects or paths) of the same target.

    The reference is the gradient flow with the smallest step, or the run with the smallest step when there is no flow.
    Raises InvalidInput when targets, or what is seen of them, differ or a run lacks product/singular_values and
    product/effective_rank.
    """
    require(
        isinstance(runs, (list, tuple)) and len(runs) >= 2, "runs", runs, "a list of at least two runs or their paths"
    )
    opened = [run if isinstance(run, Run) else open_run(run) for run in runs]
    for run in opened:
        shown = str(run.path or run.label)
        same = run.target.shape == opened[0].target.shape and np.array_equal(run.target, opened[0].target)
        require(same, "runs", shown, "runs that all have the same target")
        alike = _seen(run) == _seen(opened[0])
        require(alike, "runs", shown, "runs that all see the same part of the target")
        for name in ("product/singular_values", "product/effective_rank"):
            require(name in run and len(run.steps_of(name)) > 0, "runs", shown, f"runs that recorded {name}")
    return Comparison(opened)


def _seen(run):
    """What of the target a run sees, as bytes."""
    return {name: array.tobytes() for name, array in run.problem.observed.items()}


class Comparison:
    """runs, the reference run, whether all have the same start, and differences over time."""

    def __init__(self, runs):
        self.runs = runs
        flows = [run for run in runs if run.settings["method"] == "flow"]
        self.reference = min(flows or runs, key=lambda run: run.step_size)
        first = runs[0].checkpoint(0)
        starts = [run.checkpoint(0) for run in runs]
        self.same_start = all(s.widths == first.widths and np.array_equal(s.params, first.params) for s in starts)

    def difference(self, run):
        """(t, max_i |σ_i(t) − σ_i^ref(t)| / σ̂_1) at the records of `run` that lie within the reference's time.

        Where the reference has no record at a time, its neighbours are interpolated linearly.
        """
        times, values = _values_over_time(run)
        known_times, known = _values_over_time(self.reference)
        inside = times <= known_times[-1] * (1 + 1e-12)
        times, values = times[inside], values[inside]
        expected = np.stack([np.interp(times, known_times, column) for column in known.T], axis=1)
        return times, np.abs(values - expected).max(axis=1) / run.target_values[0]

    def distance(self, run):
        """(t, ‖W(t) − W_ref(t)‖_F / ‖Ŵ‖_F) at the times at which both runs have a checkpoint, the start left out."""
        steps = [step for step in run.checkpoints if step > 0]
        known = {round(step * self.reference.step_size, 9): step for step in self.reference.checkpoints}
        common = [step for step in steps if round(step * run.step_size, 9) in known]
        times = np.array([step * run.step_size for step in common])
        norm = np.linalg.norm(run.target)
        gaps = [
            run.checkpoint(step).product() - self.reference.checkpoint(known[round(t, 9)]).product()
            for step, t in zip(common, times, strict=True)
        ]
        return times, np.array([np.linalg.norm(gap) / norm for gap in gaps])

    @property
    def horizon(self):
        """The time that all runs have reached."""
        return min(run.step * run.step_size for run in self.runs)

    def gaps(self, measure):
        """{learning rate: the largest of `measure` up to the horizon} for the runs of gradient descent, smallest first.

        measure: self.difference or self.distance. A rate is left out when nothing can be compared up to then.
        """
        found = {}
        runs = [run for run in self.runs if run is not self.reference and run.method.name == "gd"]
        runs = [
            run for run in runs if run.method.lr_schedule is None and run.method.ridge == self.reference.method.ridge
        ]
        for run in sorted(runs, key=lambda run: run.step_size):
            times, values = measure(run)
            values = values[times <= self.horizon * (1 + 1e-9)]
            if values.size and np.isfinite(values).any() and np.nanmax(values) > 0:
                found[run.step_size] = float(np.nanmax(values))
        return found

    def order(self, measure=None):
        """The slope of ln(gap) over ln(learning rate) of the GD runs, by least squares; None with fewer than two.

        Gradient descent is Euler's method on the gradient flow, so up to a fixed time it differs by O(lr): a slope of
        1. measure: self.difference (records, the default) or self.distance (common checkpoints, which are fewer).
        """
        known = self.gaps(measure or self.difference)
        if len(known) < 2:
            return None
        return float(np.polyfit(np.log(list(known)), np.log(list(known.values())), 1)[0])

    def table(self):
        """One dictionary a run: what it is, where it ended, and how far it was from the reference."""
        rows = []
        for run in self.runs:
            reference = run is self.reference
            row = {
                "run": str(run.path or run.label),
                "method": run.label,
                "status": run.status,
                "t": run.step * run.step_size,
                "last_loss": float(run.losses[-1]),
                "effective_rank": float(run["product/effective_rank"][-1]),
                "largest_difference": None if reference else float(np.nanmax(self.difference(run)[1])),
                "largest_distance": None if reference else _largest(self.distance(run)[1]),
                "reference": reference,
            }
            rows.append(row)
        return rows

    def save(self, folder, formats=("png", "pdf")):
        """Write the figures: the runs side by side and, with two learning rates, their order; returns the paths."""
        from lrbias.figures import plots

        check_formats(formats)
        paths = plots.save_figure(plots.comparison(self), folder, "comparison", formats)
        if self.order() is not None:
            paths += plots.save_figure(plots.order_of_gd(self), folder, "order", formats)
        return paths

    def __str__(self):
        heads = f"{'method':<42} {'status':<10} {'t':>8} {'last loss':>11} {'eff. rank':>10}"
        lines = [f"{heads}  max |Δσ|/σ̂₁   max ‖ΔW‖/‖Ŵ‖"]
        for row in self.table():
            distance = "—" if row["largest_distance"] is None else f"{row['largest_distance']:.3e}"
            gap = "reference" if row["reference"] else f"{row['largest_difference']:.3e}      {distance}"
            numbers = f"{row['t']:>8.3g} {row['last_loss']:>11.4g} {row['effective_rank']:>10.3f}  {gap}"
            lines.append(f"{row['method']:<42} {row['status']:<10} {numbers}")
        order = self.order()
        if order is not None:
            lines.append(f"GD differs from the reference by lr^{order:.2f} up to t = {self.horizon:g} (Euler: 1)")
        lines.append("all runs have the same start" if self.same_start else "the runs do NOT have the same start")
        return "\n".join(lines)


def _values_over_time(run):
    name = "product/singular_values"
    values = run[name]
    if not len(values):
        raise InvalidInput(f"runs = {run.label} is not accepted: expected runs with at least one record.")
    return run.steps_of(name) * run.step_size, values


def _largest(values):
    return float(np.nanmax(values)) if values.size else None
