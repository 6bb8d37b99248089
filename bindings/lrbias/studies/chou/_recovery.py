"""What was recovered of the eigenvalues, and what theory says of it."""

import numpy as np

from lrbias import theory
from lrbias.studies import Findings
from lrbias.studies.chou._theory import EIGENVALUES, half_steps, limit, traced

HEADS = ("run", "N", "trained", "recovered", "expected", "largest error", "half of |λ| at step", "lr limit")


class Recovery(Findings):
    """The runs of the study by name, and the table of those with a theory."""

    def __init__(self, study, runs):
        super().__init__(study)
        self.runs = runs

    def table(self):
        """A dictionary for every run with a theory: recovered and expected eigenvalues, their distance, the order.

        Of the runs for Figure 5.3 only λ = 7, which is all that it shows.
        """
        return [_row(name, run) for name, run in self.runs.items() if not name.startswith(("not-symmetric", "random"))]

    def as_dict(self):
        return {"runs": {name: run.status for name, run in self.runs.items()}, "table": self.table()}

    def tables(self):
        rows = [
            (
                row["run"],
                row["depth"],
                row["trained"],
                ", ".join(f"{value:.6g}" for value in np.round(row["recovered"], 9) + 0.0),
                ", ".join(f"{value:g}" for value in row["expected"]),
                f"{row['largest_error']:.1e}",
                ", ".join("—" if step is None else str(step) for step in row["half_recovered_at"]),
                f"{row['lr_limit']:.2e}",
            )
            for row in self.table()
        ]
        yield "", "", HEADS, rows

    def figures(self):
        from lrbias.studies.chou import _plots as chou_plots

        return chou_plots.available(self)

    @property
    def info(self):
        return next(iter(self.runs.values())).info


def _row(name, run):
    perturbed = run.settings["init"] == "perturbed"
    chosen = traced(run) if name.startswith("depth") else slice(None)
    final = run[EIGENVALUES][-1, chosen]
    expected = theory.recovered(run.problem.eigen.values[chosen], perturbed)
    return {
        "run": name,
        "depth": run.depth,
        "trained": run.reduced or "whole layers",
        "recovered": [float(value) for value in final],
        "expected": [float(value) for value in expected],
        "largest_error": float(np.abs(final - expected).max()),
        "half_recovered_at": half_steps(run)[chosen],
        "lr_limit": limit(run),
    }
