"""The paths of flows beside that of greedy learning: how far apart, how near critical points, how low-rank there.

The products of a run are many numbers, so runs are made in memory, and what is seen of them is kept.
"""

import numpy as np

from lrbias.analysis import trajectory_distance
from lrbias.methods import GLRL, GradientFlow
from lrbias.metrics import Record
from lrbias.network import Network
from lrbias.problems import Completion, from_eigenvalues
from lrbias.studies.glrl._parameters import RTOL, SEED, SIZE
from lrbias.training import train

EIGENVALUES = (10.0, 3.0, 1.0)
SHARE = 0.7
IDENTITY, GAUSSIAN = "αI", "Gaussian"
LAST_SLOPE = 0.6  # about −∇f at the second critical point, which says how long the third mode waits
DRAWN = 1000  # points of a curve that are kept
SETTLING = (1e-6, 1e-3)  # distances to a critical point between which its rate of approach is measured
PATH = Record(every=1, metrics=("product",))


def problem():
    """A symmetric matrix of which 70 % of the pairs (i, j), (j, i) are seen."""
    return Completion(from_eigenvalues(SIZE, EIGENVALUES, SEED), fraction=SHARE, seed=SEED, symmetric_mask=True)


def compare_paths(parameters, depth, note):
    """What is kept of one depth, for JSON: greedy learning, and flows from starts of all sizes.

    note(name, status) is called after each run.
    """
    greedy = _greedy(parameters, depth)
    note(greedy.label, greedy.status)
    points = [greedy.checkpoint(phase.end).product() for phase in greedy.phases]
    flows = []
    for start, alpha, network in _starts(parameters, depth):
        run = _flow(parameters, network, alpha)
        note(f"flow, N = {depth}, α = {alpha:g}", run.status)
        flows.append({"start": start, "alpha": alpha, **_beside(greedy, points, run)})
    return {
        "depth": depth,
        "phases": [phase.as_dict() for phase in greedy.phases],
        "rates": [_rate(greedy, phase, point) for phase, point in zip(greedy.phases, points, strict=True)],
        "greedy": _curves(greedy),
        "flows": flows,
    }


def _starts(parameters, depth):
    """(kind, α, network) of every flow."""
    for alpha in parameters.scales[depth]:
        yield IDENTITY, alpha, Network.scaled_identity(SIZE, depth, alpha)
    for alpha in parameters.random_scales if depth == 2 else ():
        yield GAUSSIAN, alpha, Network.tied((SIZE, SIZE, SIZE), alpha, seed=SEED)


def _greedy(parameters, depth):
    others = {"tied": depth == 2, "tolerance": 1e-8, "cutoff": 1e-5, "check_every": 200}
    inner = GradientFlow(dt=parameters.greedy_dt[depth], scheme="dopri5", rtol=RTOL)
    method = GLRL(epsilon=parameters.epsilons[depth], depth=depth, inner=inner, **others)
    return train(problem(), None, method, record=PATH, progress=False, forecast=False, checkpoint_every=1_000_000)


def _flow(parameters, network, alpha):
    depth = network.depth
    dt = parameters.flow_dt[depth]
    plateau = 2 / ((depth - 2) * LAST_SLOPE * alpha ** (depth - 2)) if depth > 2 else 0
    steps = round((parameters.settled + plateau) / dt)
    method = GradientFlow(dt=dt, scheme="dopri5", rtol=RTOL)
    others = {"compress": "off", "forecast": False, "progress": False, "checkpoint_every": steps}
    return train(problem(), network, method, steps, PATH, **others)


def _beside(greedy, points, run):
    """What is kept of a flow: how far it is from greedy learning, how near it comes to its critical points."""
    times, distances, _ = trajectory_distance(run, greedy)
    products = run["product/matrix"]
    nearest = [_nearest(products, point) for point in points]
    kept = _kept(len(times), int(np.argmax(distances)))
    return {
        "largest": float(distances.max()),
        "at": float(times[np.argmax(distances)]),
        "critical": [distance for distance, _ in nearest],
        "tails": [_tail(products[row], k) for k, (_, row) in enumerate(nearest, start=1)],
        "evaluations": int(run["flow/evaluations"][-1]),
        "time": times[kept].tolist(),
        "distance": distances[kept].tolist(),
        **_curves(run),
    }


def _curves(run):
    """Singular values at some of the records."""
    products = run["product/matrix"]
    times = run.steps_of("product/matrix") * run.step_size
    kept = _kept(len(products))
    values = np.linalg.svd(products[kept], compute_uv=False)
    return {"values_time": times[kept].tolist(), "values": values[:, : len(EIGENVALUES) + 1].tolist()}


def _kept(count, *others):
    """Rows of a curve: evenly spaced on a logarithmic axis, since what happens first happens fast, and some others."""
    rows = np.unique(np.geomspace(1, count, DRAWN).astype(int)) - 1
    return np.union1d(rows, [*others, count - 1])


def _nearest(products, point):
    """(smallest distance to a critical point, row)."""
    distances = np.linalg.norm(products - point, axis=(1, 2))
    return float(distances.min()), int(distances.argmin())


def _tail(product, rank):
    """σ_{rank+1} / σ_1."""
    values = np.linalg.svd(product, compute_uv=False)
    return float(values[rank] / values[0])


def _rate(greedy, phase, point):
    """The rate γ with which greedy learning approaches the end of a phase, ‖W(t) − W_k‖ ~ e^{−γt}."""
    distances = np.linalg.norm(greedy["product/matrix"][phase.start : phase.end] - point, axis=(1, 2))
    low, high = SETTLING
    near = np.flatnonzero((distances > low) & (distances < high))
    return float(-np.polyfit(near * greedy.step_size, np.log(distances[near]), 1)[0])


def predicted_power(found):
    """The power of α with which the distance falls at depth 2 (ours, heuristic).

    When the first mode has grown from α² to 1, the second, which grows at a rate smaller by slope_2 / slope_1, is at
    α^{2E}, E = 1 − slope_2 / slope_1. Near the critical point the flow still approaches it as e^{−γt} while that mode
    leaves as α^{2E} e^{2st}, s the slope of the next phase: it cuts the corner at a distance α^{2E γ / (γ + 2s)}.
    """
    first, second = found["phases"][:2]
    share = 1 - first["next_slope"] / first["slope"]
    return 2 * share * found["rates"][0] / (found["rates"][0] + 2 * second["slope"])


def measured_power(flows):
    """(slope, its largest residual): of ln(largest distance) over ln α, least squares."""
    alphas, largest = (np.log([flow[key] for flow in flows]) for key in ("alpha", "largest"))
    slope, offset = np.polyfit(alphas, largest, 1)
    return float(slope), float(np.abs(largest - slope * alphas - offset).max())
