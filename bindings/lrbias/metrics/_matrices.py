"""Metrics of the product, of the layers and of their gradients."""

from typing import Any

import numpy as np

from lrbias.metrics._registry import Described, Place, Places, Quantities, metric, sheet_metric
from lrbias.metrics._state import PRODUCT, RANKS, NetworkState, RunContext
from lrbias.problems import settle_clusters
from lrcore import cpu
from lrcore.sheet import OF_A_LAYER, SIDES


def matrices_of(context: RunContext) -> list[int]:
    """Keys of the product and of every layer."""
    return [PRODUCT, *context.layers]


def _per_matrix(name: str, vector: bool = False) -> Quantities:
    """A row for the product and one for every layer: a number, or as many as the matrix has singular values."""
    return lambda context: [
        (f"{context.key_name(key)}/{name}", (min(context.shapes[key]),) if vector else (), "float")
        for key in matrices_of(context)
    ]


def _per_layer(name: str) -> Quantities:
    return lambda context: [(f"layer/{i}/{name}", (), "float") for i in context.layers]


def _per_pair(name: str) -> Quantities:
    """A row for every layer that has one above it."""
    return lambda context: [(f"layer/{i}/{name}", (), "float") for i in context.layers[:-1]]


ALL = slice(None)

sheet_metric(
    "singular_values",
    _per_matrix("singular_values", vector=True),
    lambda context: [(("values", key), ALL) for key in matrices_of(context)],
)


def _register_rank(column: int, name: str) -> None:
    sheet_metric(
        name,
        _per_matrix(name),  # counts are floats, too: of what is not finite they are NaN
        lambda context: [(("ranks", key), column) for key in matrices_of(context)],
    )


for _column, _name in enumerate(RANKS):
    _register_rank(_column, _name)


def _alignment_quantities(context: RunContext) -> list[Described]:
    rows = (len(context.clusters),)
    return [(f"product/{what}_{side}", rows, "float") for what in ("alignment", "angles") for side in SIDES]


# |⟨u_i, û_i⟩| and |⟨v_i, v̂_i⟩| per direction, clusters of equal target values as a whole; principal angles
sheet_metric(
    "alignment",
    _alignment_quantities,
    lambda context: [((what, side), ALL) for what in ("cosines", "angles") for side in SIDES],
)


def _single_modes(context: RunContext) -> list[Place] | None:
    """Strengths of clusters are eigenvalues."""
    return [(("strengths",), ALL)] if (np.diff(context.mode_clusters) == 1).all() else None


@metric(
    "mode_strengths",
    lambda context: [("product/mode_strengths", (len(context.mode_clusters),), "float")],
    places=_single_modes,
)
def _mode_strengths(state: NetworkState) -> list[Any]:
    """û_iᵀ W v̂_i: how far the product has come along each of the target's directions (of a Regression, those of its
    modes). Not sorted, unlike σ_i, but within clusters of equal target values: see `lrbias.problems`."""
    context = state.context
    product = state.matrix(PRODUCT)
    out = np.empty((2, len(context.mode_clusters)))
    left, right = context.modes
    cpu.mode_strengths(product, left, right, out)
    settle_clusters(out[0], product, left, right, context.mode_clusters)
    return [out[0]]


def _basis_quantities(context: RunContext) -> list[Described]:
    if not context.has_basis:
        return []
    return [
        ("product/eigenvalues_in_basis", (context.problem.shape[0],), "float"),
        ("product/off_diagonal", (), "float"),
    ]


@metric("eigenvalues_in_basis", _basis_quantities)
def _eigenvalues_in_basis(state: NetworkState) -> list[Any]:
    """The diagonal of VᵀWV and the Frobenius norm of the rest, V the eigenvectors of the target's symmetric part."""
    if not state.context.has_basis:
        return []
    return list(cpu.entries_in_basis(state.matrix(PRODUCT), state.context.problem.eigen.vectors))


def _on_the_cpu(places: Places) -> Places:
    """Where an accelerator has the network, its own kernels measure this."""
    return lambda context: None if context.device.is_accelerator else places(context)


@metric(
    "balancedness",
    _per_pair("balancedness"),
    places=_on_the_cpu(lambda context: [(("balancedness",), i) for i in range(context.depth - 1)]),
)
def _balancedness(state: NetworkState) -> np.ndarray:
    """‖W_{i+1}ᵀW_{i+1} − W_iW_iᵀ‖_F of layer i and the one above it."""
    return state.balancedness()


# |⟨u_1(W_i), v_1(W_{i+1})⟩| of layer i and the one above it
sheet_metric(
    "layer_alignment",
    _per_pair("layer_alignment"),
    lambda context: [(("neighbours",), i) for i in range(context.depth - 1)],
)


def _of_directions(context: RunContext, column: int) -> list[Place]:
    """Of every layer one of the three numbers that say how it moves."""
    return [(("directions",), OF_A_LAYER * i + column) for i in range(context.depth)]


@metric(
    "gradient_norm",
    lambda context: [("gradient_norm", (), "float"), *_per_layer("gradient_norm")(context)],
    places=_on_the_cpu(lambda context: [(("gradient_norm",), 0), *_of_directions(context, 0)]),
)
def _gradient_norm(state: NetworkState) -> list[Any]:
    return [state.gradient_norm, *state.directions()[:, 0]]


def _gradients(context: RunContext) -> list[tuple[str, int]]:
    return [("gradient", key) for key in matrices_of(context)]


sheet_metric(  # of ∂L/∂W at the product, and of every layer's gradient
    "gradient_singular_values",
    _per_matrix("gradient_singular_values", vector=True),
    lambda context: [(("values", key), ALL) for key in _gradients(context)],
)


@metric(
    "weight_gradient_alignment",
    _per_layer("weight_gradient_alignment"),
    places=_on_the_cpu(lambda context: _of_directions(context, 1)),
)
def _weight_gradient_alignment(state: NetworkState) -> np.ndarray:
    """⟨W_i, ∇_i⟩ / (‖W_i‖ ‖∇_i‖)."""
    return state.directions()[:, 1]


@metric(
    "direction_change", _per_layer("direction_change"), places=_on_the_cpu(lambda context: _of_directions(context, 2))
)
def _direction_change(state: NetworkState) -> np.ndarray:
    """How far the normalised weights W_i/‖W_i‖ move in one Euler step: exact for GD, first order for a flow."""
    return state.directions()[:, 2]


@metric("errors", lambda context: [(f"{name}_error", (), "float") for name in context.errors])
def _errors(state: NetworkState) -> list[Any]:
    """Root mean squares of W − Ŵ over the observed entries and over the hidden ones; nothing for a whole target."""
    if not state.context.errors:
        return []
    return list(state.context.problem.errors(state.matrix(PRODUCT)).values())


def _cost_quantities(context: RunContext) -> list[Described]:
    return [("product/representation_cost", (), "float"), ("squared_norm", (), "float")]


# N Σ σ_i^(2/N), the least Σ ‖W_i‖² of all networks with this product; and Σ ‖W_i‖² of this one
sheet_metric(
    "representation_cost",
    _cost_quantities,
    lambda context: [(("cost",), 0), (("squared_norm",), 0)],
)


@metric(
    "absorbing_rank",
    lambda context: [("absorbing_rank", (), "int")],
    needs=lambda context: dict.fromkeys(context.layers, 0),
    opt_in=True,
)
def _absorbing_rank(state: NetworkState) -> list[Any]:
    """The smallest r with the network in B_r (see `lrbias.metrics`), −1 for none."""
    context = state.context
    sets = context.record.absorbing_sets()
    return [sets.rank([state.values(i) for i in context.layers], state.balancedness())]


@metric("product", lambda context: [("product/matrix", context.shapes[PRODUCT], "float")], opt_in=True)
def _product(state: NetworkState) -> list[Any]:
    """The product itself, which is as large as the target at every record."""
    return [state.matrix(PRODUCT).copy()]  # rows wait to be written while the next step is observed
