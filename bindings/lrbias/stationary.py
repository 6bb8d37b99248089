"""Saddles that a run has passed: where the gradient was small for a while before the loss fell again.

What counts as one is our choice: a minimum of the recorded gradient norm between two larger ones, or at an end of the
run, that is at least `prominence` times smaller than what surrounds it (the lower of the two ridges around it, as in
the prominence of a mountain). Norms below 1e-10 times the largest are not told apart: there rounding makes minima.
The last of them usually is where the run has converged to.
"""

from dataclasses import asdict, dataclass

import numpy as np

from lrbias.errors import require
from lrbias.settings import Positive, validate
from lrcore import cpu, layout, workspace

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
    rank           how many singular values of the product are above half of the target's
    sharpness      the largest eigenvalue of the Hessian
    curvature      the smallest one: below 0 there is a way down
    index          how many eigenvalues are below −1e-3 times the largest; None for more than 2500 parameters
    distance       ‖θ − θ'‖ from the one before (of the first: from step 0)
    """

    step: int
    gradient_norm: float
    loss: float
    rank: int
    sharpness: float
    curvature: float
    index: int | None
    distance: float

    def as_dict(self):
        return asdict(self)


def saddles(run, prominence=3.0):
    """The Saddles that a run came by, in order: see `lrbias.stationary`.

    run: has recorded gradient_norm. prominence: a factor above 1. Networks between checkpoints are trained again from
    the one before, which gives the bits that the run had. Raises InvalidInput.
    """
    from scipy.signal import find_peaks

    require("gradient_norm" in run, "run", run.label, "a run that recorded gradient_norm")
    require(validate(Positive, "prominence", prominence) > 1, "prominence", prominence, "a number greater than 1")
    norms, steps = run["gradient_norm"].astype(np.float64), run.steps_of("gradient_norm")
    known = np.isfinite(norms)
    largest = max(norms[known].max(initial=0), np.finfo(float).tiny)
    depths = -np.log(np.maximum(norms[known], ROUNDING * largest))
    padded = np.concatenate([[-np.inf], depths, [-np.inf]])  # so that the ends may be minima
    padded[[0, -1]] = depths.min() - 2 * np.log(prominence)
    _, peaks = find_peaks(padded, prominence=np.log(prominence), plateau_size=1)
    found = peaks["left_edges"] - 1  # of what is equal, where it begins
    return _at(run, steps[known][found], norms[known][found])


def _at(run, steps, norms):
    made, before = [], run.checkpoint(0).params
    objective, widths = run.problem.objective(np.float64), layout.as_widths(run.widths)
    for step, norm in zip(steps.tolist(), norms.tolist(), strict=True):
        network = run.network_at(step)
        values = np.linalg.svd(network.product(), compute_uv=False)[: run.target_rank]
        rank = int((values > LEARNT * run.target_values[: run.target_rank]).sum())
        ridge = float(run.method.ridges(step, 1)[0])
        curvature = _curvature(network.params.astype(np.float64), widths, objective, ridge)
        moved = float(np.linalg.norm(network.params - before))
        made.append(Saddle(step, norm, float(run.losses[step]), rank, *curvature, moved))
        before = network.params
    return made


def _curvature(params, widths, objective, ridge):
    """(largest, smallest eigenvalue of the Hessian, index or None)."""
    work = workspace.allocate_curvature(widths)
    cpu.hessian_point(params, widths, objective, ridge, work)
    if params.size <= LARGEST:
        dense = np.empty((params.size, params.size))
        cpu.hessian(params, widths, objective, ridge, dense, work)
        values = np.linalg.eigvalsh((dense + dense.T) / 2)
        return float(values[-1]), float(values[0]), int((values < -FLAT * np.abs(values).max()).sum())
    ends = []
    for sign in (1, -1):

        def apply(vector, out, sign=sign):
            cpu.hessian_vector(params, widths, objective, ridge, vector, out, work)
            out *= sign

        found = cpu.lanczos(apply, np.empty((0, params.size)), 1, 1e-6)
        ends.append(sign * float(found.values[0]))
    return *ends, None


def directional_convergence(run):
    """(steps (K,), distances (K, N)): ‖W_i/‖W_i‖ − W̄_i‖ at the checkpoints, W̄_i the same at the last one."""
    steps = run.checkpoints
    directions = [[layer / np.linalg.norm(layer) for layer in run.checkpoint(step).layers] for step in steps]
    last = directions[-1]
    gaps = [[np.linalg.norm(a - b) for a, b in zip(now, last, strict=True)] for now in directions]
    return np.array(steps), np.array(gaps)
