"""Saddles that a run has passed: where the gradient was small for a while before the loss fell again.

What counts as one is our choice: a minimum of the recorded gradient norm between two larger ones, or at an end of the
run, that is at least `prominence` times smaller than what surrounds it (the lower of the two ridges around it, as in
the prominence of a mountain). Norms below 1e-10 times the largest are not told apart: there rounding makes minima.
The last of them usually is where the run has converged to.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lrbias.errors import check
from lrbias.metrics import Hessian
from lrbias.runs import Run
from lrbias.settings import Positive, validate
from lrbias.system import usual_errors

LARGEST = 2500  # parameters of a network whose Hessian is written down
ROUNDING = 1e-10
FLAT = 1e-3  # times the largest curvature: less counts as none
LEARNT = 0.5  # times the target's value


@dataclass(frozen=True)
class Saddle:
    """One point of low gradient.

    step           where the gradient norm was smallest
    gradient_norm  there
    loss           there
    rank           how many modes of the target have a strength above half of their value (`Run.mode_strengths`);
                   None where the target is not known
    sharpness      the largest eigenvalue of the Hessian
    curvature      the smallest one: below 0 there is a way down
    index          how many eigenvalues are below −1e-3 times the largest; None for more than 2500 parameters
    distance       ‖θ − θ'‖ from the one before (of the first: from step 0)
    """

    step: int
    gradient_norm: float
    loss: float
    rank: int | None
    sharpness: float
    curvature: float
    index: int | None
    distance: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@usual_errors
def saddles(run: Run, prominence: float = 3.0) -> list[Saddle]:
    """The Saddles that a run came by, in order: see `lrbias.analysis`.

    run: has recorded gradient_norm. prominence: a factor above 1. Networks between checkpoints are trained again from
    the one before, which gives the bits that the run had. Raises InvalidInput.
    """
    from scipy.signal import find_peaks

    _require_run(run)
    check("gradient_norm" in run, "run", run.label, "a run that recorded gradient_norm")
    check(validate(Positive, "prominence", prominence) > 1, "prominence", prominence, "a number greater than 1")
    norms = run["gradient_norm"].astype(np.float64)
    steps = run.steps_of("gradient_norm")
    known = np.isfinite(norms)
    if not known.any():
        return []
    largest = max(norms[known].max(), np.finfo(float).tiny)
    depths = -np.log(np.maximum(norms[known], ROUNDING * largest))
    padded = np.concatenate([[-np.inf], depths, [-np.inf]])  # so that the ends may be minima
    padded[[0, -1]] = depths.min() - 2 * np.log(prominence)
    _, peaks = find_peaks(padded, prominence=np.log(prominence), plateau_size=1)
    found = peaks["left_edges"] - 1  # of what is equal, where it begins
    return _at(run, steps[known][found], norms[known][found])


def _at(run: Run, steps: np.ndarray, norms: np.ndarray) -> list[Saddle]:
    made = []
    before = run.checkpoint(0).params
    objective = run.problem.objective(np.dtype(np.float64))
    for step, norm in zip(steps.tolist(), norms.tolist(), strict=True):
        network = run.network_at(step)
        rank = _rank(run, network.product())
        ridge = float(run.method.ridges(step, 1)[0])
        largest, smallest, index = _curvature(Hessian(network.params, run.widths, objective, ridge))
        moved = float(np.linalg.norm(network.params - before))
        made.append(Saddle(step, norm, float(run.losses[step]), rank, largest, smallest, index, moved))
        before = network.params
    return made


def _rank(run: Run, product: np.ndarray) -> int | None:
    """How many modes are learnt; None where the target is not known."""
    if not run.problem.target_known:
        return None
    goals = run.problem.mode_values
    return int((run.strengths_of(product, len(goals)) > LEARNT * goals).sum())


def _curvature(hessian: Hessian) -> tuple[float, float, int | None]:
    """(largest, smallest eigenvalue, index or None)."""
    if hessian.size > LARGEST:
        return float(hessian.end(1).values[0]), float(hessian.end(-1).values[0]), None
    values = hessian.eigenvalues()
    return float(values[-1]), float(values[0]), int((values < -FLAT * np.abs(values).max()).sum())


@usual_errors
def directional_convergence(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """(steps (K,), distances (K, N)): ‖W_i/‖W_i‖ − W̄_i‖ at the checkpoints, W̄_i the same at the last one.

    NaN where a layer is 0. Raises InvalidInput.
    """
    _require_run(run)
    steps = run.checkpoints
    with np.errstate(invalid="ignore"):  # a layer of zeros has no direction
        directions = [[layer / np.linalg.norm(layer) for layer in run.checkpoint(step).layers] for step in steps]
    last = directions[-1]
    gaps = [[np.linalg.norm(a - b) for a, b in zip(now, last, strict=True)] for now in directions]
    return np.array(steps), np.array(gaps)


def _require_run(run: Any) -> None:
    check(isinstance(run, Run), "run", run, "a Run of a deep linear network")
