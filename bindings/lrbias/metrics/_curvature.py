"""Metrics of the curvature of the loss: the ends of the Hessian's spectrum. Only recorded where named.

They are found in float64, whatever the type of the run, by a Lanczos iteration that starts from the vectors of the
record before, which are kept in `state.memory`.
"""

from typing import Any

import numpy as np

from lrbias.metrics._hessian import Hessian
from lrbias.metrics._registry import Described, Quantities, metric
from lrbias.metrics._state import NetworkState, RunContext
from lrcore import layout
from lrcore.cpu import workspace


def _hessian_quantities(end: str) -> Quantities:
    def quantities(context: RunContext) -> list[Described]:
        count = context.leading(layout.size(context.widths))
        return [(f"hessian/{end}", (count,), "float"), (f"hessian/{end}_products", (), "int")]

    return quantities


@metric("sharpness", _hessian_quantities("largest"), opt_in=True, stateful=True)
def _sharpness(state: NetworkState) -> list[Any]:
    """The largest eigenvalues of the Hessian of the loss (with its ridge), and how often it was multiplied for them."""
    return _hessian_end(state, "largest", 1)


@metric("hessian_min_eigenvalues", _hessian_quantities("smallest"), opt_in=True, stateful=True)
def _hessian_min_eigenvalues(state: NetworkState) -> list[Any]:
    """Likewise the smallest ones, the smallest first: below 0 where there is a way down."""
    return _hessian_end(state, "smallest", -1)


def _hessian_end(state: NetworkState, end: str, sign: int) -> list[Any]:
    hessian = state.once("hessian", lambda: _hessian(state))
    name = f"hessian/{end}"
    record = state.context.record
    known = state.memory.before(name)
    found = hessian.end(sign, state.context.leading(hessian.size), record.eigen_tolerance, known)
    state.memory.keep(name, found.vectors)
    return [found.values, found.products]


def _hessian(state: NetworkState) -> Hessian:
    context = state.context
    work = state.scratch("curvature", lambda: workspace.allocate_curvature(state.widths))
    goal = state.scratch("objective", lambda: context.problem.objective(np.dtype(np.float64)))
    ridge = context.method.ridges(state.step, 1)[0]
    return Hessian(state.params, state.widths, goal, ridge, work)
