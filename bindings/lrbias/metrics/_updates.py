"""Metrics of how the weights move: singular values and ranks of updates, distance from the start. Only recorded where
named."""

from typing import Any

import numpy as np

from lrbias.metrics._matrices import matrices_of
from lrbias.metrics._registry import Described, metric
from lrbias.metrics._state import RANKS, NetworkState, RunContext
from lrcore import layout

UPDATE_RANKS = ("effective_rank", "stable_rank")


def _updates_of(context: RunContext) -> list[tuple[str, int]]:
    return [("update", key) for key in matrices_of(context)]


def _update_quantities(context: RunContext) -> list[Described]:
    found: list[tuple[str, tuple[int, ...], str]] = []
    for key in matrices_of(context):
        name = context.key_name(key)
        found.append((f"{name}/update_singular_values", (min(context.shapes[key]),), "float"))
        found += [(f"{name}/update_{rank}", (), "float") for rank in UPDATE_RANKS]
    return found


@metric(
    "updates",
    _update_quantities,
    needs=lambda context: dict.fromkeys(_updates_of(context), 0),
    opt_in=True,
    stateful=True,
)
def _updates(state: NetworkState) -> list[Any]:
    """Singular values and ranks of what the product and each layer have changed by since the record before.

    So the interval of this metric is the window of the update. At the first record all are 0.
    """
    state.memory.keep("layers", state.params.copy())
    columns = [RANKS.index(rank) for rank in UPDATE_RANKS]
    found = []
    for key in _updates_of(state.context):
        found += [state.values(key), *state.ranks(key)[columns]]
    return found


@metric(
    "distance_from_init",
    lambda context: [
        ("distance_from_init", (), "float"),
        *((f"layer/{i}/distance_from_init", (), "float") for i in context.layers),
    ],
    opt_in=True,
    needs_initial=True,
)
def _distance_from_init(state: NetworkState) -> list[Any]:
    """‖θ − θ_0‖ of all weights, and ‖W_i − W_i(0)‖_F of every layer, from step 0 on."""
    moved = layout.layers(state.params - state.context.start, state.context.widths)
    norms = [np.linalg.norm(layer) for layer in moved]
    return [np.linalg.norm(norms), *norms]
