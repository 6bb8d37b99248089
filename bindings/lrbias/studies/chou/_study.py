"""Deep matrix factorization (Chou, Gieshoff, Maly, Rauhut): their examples, theory drawn over the measured curves.

The two examples and Figures 5.1 to 5.4 are those of a report on that paper. Matched: Λ, V, N, η = 0.001, α = 0.1 and
β = 0.05. The matrix printed as (5.1) has a misprint, its entry (4, 4) is 22/3 and not −5; here it is built from V and
Λ. The report gives no numbers of iterations: ours are as many as it takes. Its η and β are above the limits of the
theorem about perturbed starts (last column; β < 0.0466 at N = 3); recovery works all the same.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lrbias import theory
from lrbias.forecasts import cost
from lrbias.methods import GD
from lrbias.metrics import Record
from lrbias.network import Network
from lrbias.problems import Factorization
from lrbias.settings import check_formats
from lrbias.studies import made, markdown
from lrbias.system import write_file

VECTORS = np.array([[0, 1, 1, 1], [1, 0, 1, -1], [1, -1, 0, 1], [1, 1, -1, 0]]) / np.sqrt(3)
EXAMPLES = {1: (10.0, 7.0, 5.0, -5.0), 2: (5.0, 3.0, -1.0, -5.0)}
DEPTH = 3
LR = 1e-3
ALPHA = 0.1
BETA = 0.05
# λ < 0 from an identical start: d ≈ 1/(|λ|ηk), so that d³ is below 1e-6 only after so many steps
STEPS = {(1, "identical"): 40_000, (1, "perturbed"): 20_000, (2, "identical"): 200_000, (2, "perturbed"): 50_000}
DEPTH_STEPS = {1: 10_000, 2: 10_000, 3: 10_000, 4: 30_000, 5: 200_000}
TRACED = 7.0  # the eigenvalue of Figure 5.3
RECORDS = 5000  # of the longer runs
SKEW = 0.1  # size of the skew part that is added for a target that is not symmetric
METRICS = ("eigenvalues_in_basis", "effective_rank", "singular_values")


def target(example, skew=0.0):
    """Ŵ of an example; skew: the Frobenius norm of a skew-symmetric matrix that is added."""
    matrix = VECTORS @ np.diag(EXAMPLES[example]) @ VECTORS.T
    turn = np.triu(np.ones((4, 4)), 1)
    turn = turn - turn.T
    return (matrix + matrix.T) / 2 + skew * turn / np.linalg.norm(turn)


def runs():
    """{name: arguments of train}: all runs of the study."""
    made = {}
    for (example, start), steps in STEPS.items():
        made[f"example-{example}-{start}"] = _arguments(target(example), _start(start, DEPTH), steps)
    for depth, steps in DEPTH_STEPS.items():
        made[f"depth-{depth}"] = _arguments(target(1), _start("perturbed", depth), steps)
    for example in EXAMPLES:
        matrix = target(example, SKEW)
        made[f"not-symmetric-{example}"] = _arguments(matrix, _start("identical", DEPTH), 200_000)
    made["random"] = _arguments(target(1), Network.gaussian((4,) * (DEPTH + 1), gamma=1.7, seed=1), 20_000)
    return made


def _start(kind, depth):
    if kind == "identical":
        return Network.identical(4, depth, ALPHA)
    return Network.perturbed(4, depth, ALPHA, BETA)


def _arguments(matrix, network, steps):
    return {
        "problem": Factorization(matrix),
        "network": network,
        "method": GD(lr=LR),
        "steps": steps,
        "record": Record(every=max(10, steps // RECORDS), metrics=METRICS),
        "checkpoint_every": steps,
    }


def expected():
    """{runs, seconds, bytes}, as lrbias.forecasts._forecast says it of every run."""
    found = {"runs": 0, "seconds": 0.0, "bytes": 0}
    for arguments in runs().values():
        seconds, size = cost(**arguments)
        found = {"runs": found["runs"] + 1, "seconds": found["seconds"] + seconds, "bytes": found["bytes"] + size}
    return found


def study(store, progress=None):
    """Make the runs that are not made yet under `store`, and return the Recovery."""
    store = Path(store)
    found = {}
    for name, arguments in runs().items():
        found[name] = made(store / name, progress, **arguments)
    return Recovery(store, found)


@dataclass
class Recovery:
    """The runs of the study by name, what they recovered, and what the theory says of it."""

    store: Path
    runs: dict

    def table(self):
        """A dictionary for every run with a theory: recovered and expected eigenvalues, their distance, the order.

        Of the runs for Figure 5.3 only λ = 7, which is all that it shows.
        """
        rows = []
        for name, run in self.runs.items():
            if name.startswith(("not-symmetric", "random")):
                continue
            perturbed = run.settings["init"] == "perturbed"
            depth = run.depth
            chosen = traced(run) if name.startswith("depth") else slice(None)
            values = run.problem.eigen.values[chosen]
            halves = half_steps(run)[chosen]
            final = run["product/eigenvalues_in_basis"][-1, chosen]
            expected = theory.recovered(values, perturbed)
            rows.append(
                {
                    "run": name,
                    "depth": depth,
                    "trained": run.reduced or "whole layers",
                    "recovered": [float(value) for value in final],
                    "expected": [float(value) for value in expected],
                    "largest_error": float(np.abs(final - expected).max()),
                    "half_recovered_at": halves,
                    "lr_limit": limit(run),
                }
            )
        return rows

    def as_dict(self):
        return {"runs": {name: run.status for name, run in self.runs.items()}, "table": self.table()}

    def save(self, formats=("png", "pdf")):
        """Write recovery.md and the figures; returns the paths."""
        from lrbias.studies.chou import _plots as chou_plots

        check_formats(formats)
        write_file(self.store / "recovery.md", str(self).encode() + b"\n")
        return [self.store / "recovery.md", *chou_plots.save(self, self.store / "figures", formats)]

    def __str__(self):
        heads = ("run", "N", "trained", "recovered", "expected", "largest error", "half of |λ| at step", "lr limit")
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
        about = __doc__.split("\n\n", 1)[1].strip()
        return "\n".join(["# Recovery of eigenvalues", "", about, "", *markdown(heads, rows)])


def half_steps(run):
    """For each eigenvalue the first recorded step at which its entry has half of it, or None."""
    entries = run["product/eigenvalues_in_basis"]
    steps = run.steps_of("product/eigenvalues_in_basis")
    passed = entries * np.sign(run.problem.eigen.values) > np.abs(run.problem.eigen.values) / 2
    return [int(steps[column.argmax()]) if column.any() else None for column in passed.T]


def traced(run):
    """The place of the eigenvalue of Figure 5.3, as a slice."""
    i = int(np.argmin(np.abs(run.problem.eigen.values - TRACED)))
    return slice(i, i + 1)


def limit(run):
    """The learning rate up to which recovery is proven for the run's start."""
    norm = run.problem.spectrum.values[0]
    perturbed = run.settings["init"] == "perturbed"
    return (theory.perturbed_limit if perturbed else theory.identical_limit)(norm, run.depth, ALPHA)


def bounds(run, epsilon):
    """⌈T_N^Id⌉ for every eigenvalue of an identical start: by then |d − max(λ, 0)^{1/N}| ≤ epsilon."""
    return [
        int(np.ceil(theory.recovery_bound(float(value), run.depth, ALPHA, LR, epsilon)))
        for value in run.problem.eigen.values
    ]
