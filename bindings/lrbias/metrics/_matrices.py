"""Metrics of the product, of the layers and of their gradients."""

import itertools
from typing import Any

import numpy as np

from lrbias import theory
from lrbias.metrics._registry import Described, Quantities, metric
from lrbias.metrics._state import PRODUCT, RANKS, NetworkState, RunContext
from lrbias.problems import settle_clusters
from lrcore import cpu


def matrices_of(context: RunContext) -> list[int]:
    """Keys of the product and of every layer."""
    return [PRODUCT, *context.layers]


def _values_of_all(context: RunContext) -> dict[Any, int]:
    return dict.fromkeys(matrices_of(context), 0)


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


@metric("singular_values", _per_matrix("singular_values", vector=True), needs=_values_of_all)
def _singular_values(state: NetworkState) -> list[Any]:
    return [state.values(key) for key in matrices_of(state.context)]


def _register_rank(column: int, name: str) -> None:
    @metric(name, _per_matrix(name), needs=_values_of_all)  # counts are floats, too: of what is not finite they are NaN
    def measure(state: NetworkState) -> list[Any]:
        return [state.ranks(key)[column] for key in matrices_of(state.context)]


for _column, _name in enumerate(RANKS):
    _register_rank(_column, _name)


def _alignment_quantities(context: RunContext) -> list[Described]:
    rows = (len(context.clusters),)
    return [(f"product/{what}_{side}", rows, "float") for what in ("alignment", "angles") for side in ("left", "right")]


@metric("alignment", _alignment_quantities, needs=lambda context: {PRODUCT: len(context.clusters)})
def _alignment(state: NetworkState) -> list[Any]:
    """|⟨u_i, û_i⟩| and |⟨v_i, v̂_i⟩| per direction, clusters of equal target values as a whole; principal angles."""
    context = state.context
    clusters = state.context.clusters
    left, _, right = state.triplets(PRODUCT)
    spectrum = context.problem.svd
    count = len(clusters)
    sides = [(left, spectrum.left), (right, spectrum.right)]
    cosines = [np.empty(count), np.empty(count)]
    for (vectors, teacher), out in zip(sides, cosines, strict=True):
        cpu.vector_alignment(vectors, teacher, clusters, out)
    return [*cosines, *state.angles([(vectors, teacher[:, :count]) for vectors, teacher in sides])]


@metric("mode_strengths", lambda context: [("product/mode_strengths", (len(context.mode_clusters),), "float")])
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


@metric("balancedness", _per_pair("balancedness"))
def _balancedness(state: NetworkState) -> np.ndarray:
    """‖W_{i+1}ᵀW_{i+1} − W_iW_iᵀ‖_F of layer i and the one above it."""
    return state.balancedness()


@metric("layer_alignment", _per_pair("layer_alignment"), needs=lambda context: dict.fromkeys(context.layers, 1))
def _layer_alignment(state: NetworkState) -> list[Any]:
    """|⟨u_1(W_i), v_1(W_{i+1})⟩| of layer i and the one above it."""
    triplets = [state.triplets(i) for i in state.context.layers]
    return [abs(below[0][:, 0] @ above[2][:, 0]) for below, above in itertools.pairwise(triplets)]


@metric("gradient_norm", lambda context: [("gradient_norm", (), "float"), *_per_layer("gradient_norm")(context)])
def _gradient_norm(state: NetworkState) -> list[Any]:
    return [state.gradient_norm, *state.directions()[:, 0]]


def _gradients(context: RunContext) -> list[tuple[str, int]]:
    return [("gradient", key) for key in matrices_of(context)]


@metric(
    "gradient_singular_values",
    _per_matrix("gradient_singular_values", vector=True),
    needs=lambda context: dict.fromkeys(_gradients(context), 0),
)
def _gradient_singular_values(state: NetworkState) -> list[Any]:
    """Of ∂L/∂W at the product, and of every layer's gradient."""
    return [state.values(key) for key in _gradients(state.context)]


@metric("weight_gradient_alignment", _per_layer("weight_gradient_alignment"))
def _weight_gradient_alignment(state: NetworkState) -> np.ndarray:
    """⟨W_i, ∇_i⟩ / (‖W_i‖ ‖∇_i‖)."""
    return state.directions()[:, 1]


@metric("direction_change", _per_layer("direction_change"))
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


@metric("representation_cost", _cost_quantities, needs=lambda context: {PRODUCT: 0})
def _representation_cost(state: NetworkState) -> list[Any]:
    """N Σ σ_i^(2/N), the least Σ ‖W_i‖² of all networks with this product; and Σ ‖W_i‖² of this one."""
    values = state.values(PRODUCT) / state.context.problem.output_scale
    cost = theory.cost_of_values(values.astype(np.float64), state.context.depth)
    return [cost, np.sum(state.params**2)]


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
