"""Metrics of how a network is trained: curvature, tangent kernel, updates, movement. Only recorded where named.

Curvature and kernel are found in float64, whatever the type of the run. Eigenvalues come from a Lanczos iteration that
starts from the vectors of the record before, which are kept in `observation.memory`.
"""

from typing import Any

import numpy as np

from lrbias.metrics._hessian import Hessian
from lrbias.metrics._matrices import matrices_of
from lrbias.metrics._registry import Described, Quantities, metric
from lrbias.metrics._state import RANKS, Observation, Setup
from lrcore import cpu, layout
from lrcore.cpu import workspace

UPDATE_RANKS = ("effective_rank", "stable_rank")


def _count(setup: Setup, size: int) -> int:
    return min(setup.record.leading, size)


def _hessian_quantities(end: str) -> Quantities:
    def quantities(setup: Setup) -> list[Described]:
        count = _count(setup, layout.size(setup.widths))
        return [(f"hessian/{end}", (count,), "float"), (f"hessian/{end}_products", (), "int")]

    return quantities


@metric("sharpness", _hessian_quantities("largest"), on_request=True, remembers=True)
def _sharpness(observation: Observation) -> list[Any]:
    """The largest eigenvalues of the Hessian of the loss (with its ridge), and how often it was multiplied for them."""
    return _hessian_end(observation, "largest", 1)


@metric("negative_curvature", _hessian_quantities("smallest"), on_request=True, remembers=True)
def _negative_curvature(observation: Observation) -> list[Any]:
    """Likewise the smallest ones, the smallest first: below 0 where there is a way down."""
    return _hessian_end(observation, "smallest", -1)


def _hessian_end(observation: Observation, end: str, sign: int) -> list[Any]:
    hessian = observation.once("hessian", lambda: _hessian(observation))
    name = f"hessian/{end}"
    record = observation.setup.record
    known = observation.memory.before(name)
    found = hessian.end(sign, _count(observation.setup, hessian.size), record.eigen_tolerance, known)
    observation.memory.keep(name, found.vectors)
    return [found.values, found.products]


def _hessian(observation: Observation) -> Hessian:
    setup = observation.setup
    work = observation.scratch("curvature", lambda: workspace.allocate_curvature(observation.widths))
    goal = observation.scratch("objective", lambda: setup.problem.objective(np.dtype(np.float64)))
    ridge = setup.method.ridges(observation.step, 1)[0]
    return Hessian(observation.params, observation.widths, goal, ridge, work)


@metric(
    "ntk",
    lambda setup: [(f"ntk/{name}", (), "float") for name in ("norm", "distance", "change")],
    on_request=True,
    looks_back=True,
)
def _tangent_kernel(observation: Observation) -> list[Any]:
    """‖K‖_F; 1 − ⟨K, K_0⟩ / (‖K‖ ‖K_0‖); ‖K − K_0‖ / ‖K_0‖, K_0 the tangent kernel at step 0."""
    now = _kernel(observation)
    first = _first_kernel(observation)
    square = cpu.ntk_inner(*now, *now)
    first_square = observation.scratch("first kernel's square", lambda: cpu.ntk_inner(*first, *first))
    inner = cpu.ntk_inner(*now, *first)
    scale = observation.setup.problem.output_scale**2
    with np.errstate(invalid="ignore", divide="ignore"):  # a network of zeros has no kernel
        distance = max(1 - np.float64(inner) / np.sqrt(square * first_square), 0.0)
        change = np.sqrt(max(square - 2 * inner + first_square, 0.0) / np.float64(first_square))
    return [scale * np.sqrt(square), distance, change]


def _kernel(observation: Observation) -> tuple[np.ndarray, np.ndarray]:
    """The factors of the tangent kernel at the observed network."""
    return observation.once("kernel", lambda: _factors(observation, observation.params))


def _first_kernel(observation: Observation) -> tuple[np.ndarray, np.ndarray]:
    return observation.scratch("first kernel", lambda: _factors(observation, observation.setup.start))


def _factors(observation: Observation, params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    widths = observation.widths
    depth = observation.setup.depth
    left, right = (np.empty((depth, n, n)) for n in (widths[-1], widths[0]))
    work = observation.scratch("kernel", lambda: workspace.allocate_ntk(widths))
    cpu.ntk_factors(params.astype(np.float64), widths, left, right, work)
    return left, right


def _kernel_quantities(setup: Setup) -> list[Described]:
    count = _count(setup, setup.widths[-1] * setup.widths[0])
    return [("ntk/eigenvalues", (count,), "float"), ("ntk/products", (), "int")]


@metric("ntk_eigenvalues", _kernel_quantities, on_request=True, remembers=True)
def _kernel_eigenvalues(observation: Observation) -> list[Any]:
    """The largest eigenvalues of the tangent kernel, and how often it was applied for them."""
    widths, (left, right) = observation.widths, _kernel(observation)
    shape = widths[-1], widths[0]
    work = observation.scratch("kernel", lambda: workspace.allocate_ntk(widths))

    def apply(vector: np.ndarray, out: np.ndarray) -> None:
        cpu.ntk_apply(left, right, vector.reshape(shape), out.reshape(shape), work)

    size = int(shape[0] * shape[1])
    record = observation.setup.record
    known = observation.memory.before("ntk")
    start = np.empty((0, size)) if known is None else known
    found = cpu.lanczos(apply, start, _count(observation.setup, size), record.eigen_tolerance)
    observation.memory.keep("ntk", found.vectors)
    return [observation.setup.problem.output_scale**2 * found.values, found.products]


def _updates_of(setup: Setup) -> list[tuple[str, int]]:
    return [("update", key) for key in matrices_of(setup)]


def _update_quantities(setup: Setup) -> list[Described]:
    found: list[tuple[str, tuple[int, ...], str]] = []
    for key in matrices_of(setup):
        name = setup.key_name(key)
        found.append((f"{name}/update_singular_values", (min(setup.shapes[key]),), "float"))
        found += [(f"{name}/update_{rank}", (), "float") for rank in UPDATE_RANKS]
    return found


@metric(
    "updates",
    _update_quantities,
    needs=lambda setup: dict.fromkeys(_updates_of(setup), 0),
    on_request=True,
    remembers=True,
)
def _updates(observation: Observation) -> list[Any]:
    """Singular values and ranks of what the product and each layer have changed by since the record before.

    So the interval of this metric is the window of the update. At the first record all are 0.
    """
    observation.memory.keep("layers", observation.params.copy())
    columns = [RANKS.index(rank) for rank in UPDATE_RANKS]
    found = []
    for key in _updates_of(observation.setup):
        found += [observation.values(key), *observation.ranks(key)[columns]]
    return found


@metric(
    "movement",
    lambda setup: [("movement", (), "float"), *((f"layer/{i}/movement", (), "float") for i in setup.layers)],
    on_request=True,
    looks_back=True,
)
def _movement(observation: Observation) -> list[Any]:
    """‖θ − θ_0‖ of all weights, and ‖W_i − W_i(0)‖_F of every layer, from step 0 on."""
    moved = layout.layers(observation.params - observation.setup.start, observation.setup.widths)
    norms = [np.linalg.norm(layer) for layer in moved]
    return [np.linalg.norm(norms), *norms]
