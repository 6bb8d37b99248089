"""Runs side by side: over t = step size · iteration, and as paths that their products take."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from lrbias.analysis import has_products, trajectory_distance
from lrbias.errors import InvalidInput, check
from lrbias.runs import Run, RunReader
from lrbias.runs import open as open_run
from lrbias.settings import check_formats
from lrbias.system import usual_errors


@usual_errors
def compare(runs: Sequence[Run | str | PathLike[str]]) -> Comparison:
    """A Comparison of at least two runs (Run objects or paths) of the same target.

    The reference is the gradient flow with the smallest step, or the run with the smallest step when there is no flow.
    Raises InvalidInput when targets, or what is seen of them, differ or a run lacks product/singular_values and
    product/effective_rank.
    """
    check(
        isinstance(runs, (list, tuple)) and len(runs) >= 2, "runs", runs, "a list of at least two runs or their paths"
    )
    opened: list[Any] = [run if isinstance(run, RunReader) else open_run(run) for run in runs]
    for run in opened:
        shown = str(run.path or run.label)
        check(isinstance(run, Run), "runs", shown, "runs of deep linear networks")
        same = run.target.shape == opened[0].target.shape and np.array_equal(run.target, opened[0].target)
        check(same, "runs", shown, "runs that all have the same target")
        alike = _seen(run) == _seen(opened[0])
        check(alike, "runs", shown, "runs that all see the same part of the target")
        for name in ("product/singular_values", "product/effective_rank"):
            check(name in run and len(run.steps_of(name)) > 0, "runs", shown, f"runs that recorded {name}")
    return Comparison(opened)


def _seen(run: Run) -> dict[str, bytes]:
    """What of the target a run sees, as bytes."""
    return {name: array.tobytes() for name, array in run.problem.observed.items()}


def _has_own_time(run: Run) -> bool:
    """Whether t of this run is not that of others: a greedy method trains for as long as each of its phases takes."""
    return run.method.phases


class Comparison:
    """runs, the reference run, whether all have the same start, and differences over time.

    Runs with a time of their own (greedy low-rank learning) have no difference at equal times: nothing is returned
    for them, and they are left out of starts, horizon and order. `trajectory_distance` compares them too.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self._timed = [run for run in runs if not _has_own_time(run)]
        flows = [run for run in runs if run.settings["method"] == "flow"]
        self.reference = min(flows or self._timed or runs, key=lambda run: run.step_size)
        starts = [run.start for run in self._timed]
        self.same_start = all(
            start.widths == starts[0].widths and np.array_equal(start.params, starts[0].params) for start in starts
        )

    def _at_equal_times(self, run: Run) -> bool:
        return not (_has_own_time(run) or _has_own_time(self.reference))

    def trajectory_distance(self, run: Run, reference: Run | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`lrbias.trajectory_distance` of `run` from `reference`, None: that of the comparison."""
        return trajectory_distance(run, self.reference if reference is None else reference)

    @property
    def followed(self) -> list[Run]:
        """The runs whose distance from the reference's trajectory can be told: it and they recorded product/matrix."""
        if not has_products(self.reference):
            return []
        return [run for run in self.runs if run is not self.reference and has_products(run)]

    def difference(self, run: Run) -> tuple[np.ndarray, np.ndarray]:
        """(t, max_i |σ_i(t) − σ_i^ref(t)| / σ̂_1) at the records of `run` that lie within the reference's time.

        Where the reference has no record at a time, its neighbours are interpolated linearly.
        """
        if not self._at_equal_times(run):
            return np.empty(0), np.empty(0)
        times, values = _values_over_time(run)
        known_times, known = _values_over_time(self.reference)
        inside = times <= known_times[-1] * (1 + 1e-12)
        times = times[inside]
        values = values[inside]
        expected = np.stack([np.interp(times, known_times, column) for column in known.T], axis=1)
        with np.errstate(all="ignore"):  # relative to a target of 0 nothing is finite
            return times, np.abs(values - expected).max(axis=1) / run.target_values[0]

    def distance(self, run: Run) -> tuple[np.ndarray, np.ndarray]:
        """(t, ‖W(t) − W_ref(t)‖_F / ‖Ŵ‖_F) at the times at which both runs have a checkpoint, the start left out."""
        if not self._at_equal_times(run):
            return np.empty(0), np.empty(0)
        steps = [step for step in run.checkpoints if step > 0]
        known = {round(step * self.reference.step_size, 9): step for step in self.reference.checkpoints}
        common = [step for step in steps if round(step * run.step_size, 9) in known]
        times = np.array([step * run.step_size for step in common])
        norm = np.linalg.norm(run.target)
        gaps = [
            run.checkpoint(step).product() - self.reference.checkpoint(known[round(t, 9)]).product()
            for step, t in zip(common, times, strict=True)
        ]
        with np.errstate(all="ignore"):
            return times, np.array([np.linalg.norm(gap) for gap in gaps]) / norm

    @property
    def horizon(self) -> float:
        """The time that all runs have reached."""
        return min((run.step * run.step_size for run in self._timed), default=0.0)

    def gaps(self, measure: Callable[[Run], tuple[np.ndarray, np.ndarray]]) -> dict[float, float]:
        """{learning rate: the largest of `measure` up to the horizon} for the runs of gradient descent, smallest first.

        measure: self.difference or self.distance. A rate is left out when nothing can be compared up to then.
        """
        found = {}
        runs = [run for run in self._timed if run is not self.reference and run.method.euler]
        ridge = self.reference.method.ridge
        runs = [run for run in runs if getattr(run.method, "lr_schedule", None) is None and run.method.ridge == ridge]
        for run in sorted(runs, key=lambda run: run.step_size):
            times, values = measure(run)
            values = values[times <= self.horizon * (1 + 1e-9)]
            if values.size and np.isfinite(values).any() and np.nanmax(values) > 0:
                found[run.step_size] = float(np.nanmax(values))
        return found

    def order(self, measure: Callable[[Run], tuple[np.ndarray, np.ndarray]] | None = None) -> float | None:
        """The slope of ln(gap) over ln(learning rate) of the GD runs, by least squares; None with fewer than two.

        Gradient descent is Euler's method on the gradient flow, so up to a fixed time it differs by O(lr): a slope of
        1. measure: self.difference (records, the default) or self.distance (common checkpoints, which are fewer).
        """
        known = self.gaps(measure or self.difference)
        if len(known) < 2:
            return None
        return float(np.polyfit(np.log(list(known)), np.log(list(known.values())), 1)[0])

    def table(self) -> list[dict[str, Any]]:
        """One dictionary a run: what it is, where it ended, and how far it was from the reference.

        largest_distance and largest_trajectory_distance are relative to ‖Ŵ‖_F; None where they are not known.
        """
        rows = []
        followed = self.followed
        for run in self.runs:
            reference = run is self.reference
            row = {
                "run": str(run.path or run.label),
                "method": run.label,
                "status": run.status,
                "t": run.step * run.step_size,
                "last_loss": float(run.losses[-1]),
                "effective_rank": float(run["product/effective_rank"][-1]),
                "largest_difference": None if reference else _largest(self.difference(run)[1]),
                "largest_distance": None if reference else _largest(self.distance(run)[1]),
                "largest_trajectory_distance": self._largest_from_path(run) if run in followed else None,
                "reference": reference,
            }
            rows.append(row)
        return rows

    def _largest_from_path(self, run: Run) -> float | None:
        with np.errstate(all="ignore"):
            return _largest(self.trajectory_distance(run)[1] / np.linalg.norm(run.target))

    def save(self, folder: str | PathLike[str], formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
        """Write the figures and return their paths: the runs side by side; with two learning rates, their order; with
        recorded products, the distance from the reference's trajectory.
        """

        from lrbias import plots  # which import matplotlib

        check_formats(formats)
        drawn = {"comparison": plots.comparison}
        if self.order() is not None:
            drawn["order"] = plots.order_of_gd
        if self.followed:
            drawn["trajectory-distance"] = plots.trajectory_distance
        figures: list[Any] = [(name, functools.partial(draw, self), "") for name, draw in drawn.items()]
        return plots.save_each(figures, folder, formats)

    def __str__(self) -> str:
        heads = f"{'method':<42} {'status':<10} {'t':>8} {'last loss':>11} {'eff. rank':>10}"
        table = self.table()
        gaps = ["largest_difference", "largest_distance"]
        lines = [f"{heads}  max |Δσ|/σ̂₁   max ‖ΔW‖/‖Ŵ‖"]
        if any(row["largest_trajectory_distance"] is not None for row in table):
            gaps.append("largest_trajectory_distance")
            lines[0] += "   max dist/‖Ŵ‖"
        for row in table:
            known = [f"{'—' if row[name] is None else format(row[name], '.3e'):<15}" for name in gaps]
            gap = "reference" if row["reference"] else "".join(known).rstrip()
            numbers = f"{row['t']:>8.3g} {row['last_loss']:>11.4g} {row['effective_rank']:>10.3f}  {gap}"
            lines.append(f"{row['method']:<42} {row['status']:<10} {numbers}")
        order = self.order()
        if order is not None:
            lines.append(f"GD differs from the reference by lr^{order:.2f} up to t = {self.horizon:g} (Euler: 1)")
        aside = "" if len(self._timed) == len(self.runs) else ", greedy ones aside"
        same = "all runs have the same start" if self.same_start else "the runs do NOT have the same start"
        lines.append(same + aside)
        return "\n".join(lines)


def _values_over_time(run: Run) -> tuple[np.ndarray, np.ndarray]:
    name = "product/singular_values"
    values = run[name]
    if not len(values):
        raise InvalidInput(f"runs = {run.label} is not accepted: expected runs with at least one record.")
    return run.steps_of(name) * run.step_size, values


def _largest(values: np.ndarray) -> float | None:
    return float(np.nanmax(values)) if values.size else None
