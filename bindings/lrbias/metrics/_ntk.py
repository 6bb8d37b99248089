"""Metrics of the tangent kernel: how far it is from that of the start, and its spectrum. Only recorded where named.

It is found in float64, whatever the type of the run. Eigenvalues come from a Lanczos iteration that starts from the
vectors of the record before, which are kept in `state.memory`.
"""

from typing import Any

import numpy as np

from lrbias.metrics._registry import Described, metric
from lrbias.metrics._state import NetworkState, RunContext
from lrcore import cpu
from lrcore.cpu import workspace


@metric(
    "ntk",
    lambda context: [(f"ntk/{name}", (), "float") for name in ("norm", "distance", "change")],
    opt_in=True,
    needs_initial=True,
)
def _tangent_kernel(state: NetworkState) -> list[Any]:
    """‖K‖_F; 1 − ⟨K, K_0⟩ / (‖K‖ ‖K_0‖); ‖K − K_0‖ / ‖K_0‖, K_0 the tangent kernel at step 0."""
    now = _kernel(state)
    first = _first_kernel(state)
    square = cpu.ntk_inner(*now, *now)
    first_square = state.scratch("first kernel's square", lambda: cpu.ntk_inner(*first, *first))
    inner = cpu.ntk_inner(*now, *first)
    scale = state.context.problem.output_scale**2
    with np.errstate(invalid="ignore", divide="ignore"):  # a network of zeros has no kernel
        distance = max(1 - np.float64(inner) / np.sqrt(square * first_square), 0.0)
        change = np.sqrt(max(square - 2 * inner + first_square, 0.0) / np.float64(first_square))
    return [scale * np.sqrt(square), distance, change]


def _kernel(state: NetworkState) -> tuple[np.ndarray, np.ndarray]:
    """The factors of the tangent kernel at the observed network."""
    return state.once("kernel", lambda: _factors(state, state.params))


def _first_kernel(state: NetworkState) -> tuple[np.ndarray, np.ndarray]:
    return state.scratch("first kernel", lambda: _factors(state, state.context.start))


def _factors(state: NetworkState, params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    widths = state.widths
    depth = state.context.depth
    left, right = (np.empty((depth, n, n)) for n in (widths[-1], widths[0]))
    work = state.scratch("kernel", lambda: workspace.allocate_ntk(widths))
    cpu.ntk_factors(params.astype(np.float64), widths, left, right, work)
    return left, right


def _kernel_quantities(context: RunContext) -> list[Described]:
    count = context.leading(context.widths[-1] * context.widths[0])
    return [("ntk/eigenvalues", (count,), "float"), ("ntk/products", (), "int")]


@metric("ntk_eigenvalues", _kernel_quantities, opt_in=True, stateful=True)
def _kernel_eigenvalues(state: NetworkState) -> list[Any]:
    """The largest eigenvalues of the tangent kernel, and how often it was applied for them."""
    widths, (left, right) = state.widths, _kernel(state)
    shape = widths[-1], widths[0]
    work = state.scratch("kernel", lambda: workspace.allocate_ntk(widths))

    def apply(vector: np.ndarray, out: np.ndarray) -> None:
        cpu.ntk_apply(left, right, vector.reshape(shape), out.reshape(shape), work)

    size = int(shape[0] * shape[1])
    record = state.context.record
    known = state.memory.before("ntk")
    start = np.empty((0, size)) if known is None else known
    found = cpu.lanczos(apply, start, state.context.leading(size), record.eigen_tolerance)
    state.memory.keep("ntk", found.vectors)
    return [state.context.problem.output_scale**2 * found.values, found.products]
