"""Metrics of the product, of the layers and of their gradients."""

import itertools
from typing import Any

import numpy as np

from lrbias import theory
from lrbias.metrics._registry import Described, Quantities, metric
from lrbias.metrics._state import PRODUCT, RANKS, Observation, Setup
from lrbias.problems import settle_clusters
from lrcore import cpu


def matrices_of(setup: Setup) -> list[int]:
    """Keys of the product and of every layer."""
    return [PRODUCT, *setup.layers]


def _values_of_all(setup: Setup) -> dict[Any, int]:
    return dict.fromkeys(matrices_of(setup), 0)


def _per_matrix(name: str, vector: bool = False) -> Quantities:
    """A row for the product and one for every layer: a number, or as many as the matrix has singular values."""
    return lambda setup: [
        (f"{setup.key_name(key)}/{name}", (min(setup.shapes[key]),) if vector else (), "float")
        for key in matrices_of(setup)
    ]


def _per_layer(name: str) -> Quantities:
    return lambda setup: [(f"layer/{i}/{name}", (), "float") for i in setup.layers]


def _per_pair(name: str) -> Quantities:
    """A row for every layer that has one above it."""
    return lambda setup: [(f"layer/{i}/{name}", (), "float") for i in setup.layers[:-1]]


@metric("singular_values", _per_matrix("singular_values", vector=True), needs=_values_of_all)
def _singular_values(observation: Observation) -> list[Any]:
    return [observation.values(key) for key in matrices_of(observation.setup)]


def _register_rank(column: int, name: str) -> None:
    @metric(name, _per_matrix(name), needs=_values_of_all)  # counts are floats, too: of what is not finite they are NaN
    def measure(observation: Observation) -> list[Any]:
        return [observation.ranks(key)[column] for key in matrices_of(observation.setup)]


for _column, _name in enumerate(RANKS):
    _register_rank(_column, _name)


def _alignment_quantities(setup: Setup) -> list[Described]:
    rows = (len(setup.clusters),)
    return [(f"product/{what}_{side}", rows, "float") for what in ("alignment", "angles") for side in ("left", "right")]


@metric("alignment", _alignment_quantities, needs=lambda setup: {PRODUCT: len(setup.clusters)})
def _alignment(observation: Observation) -> list[Any]:
    """|⟨u_i, û_i⟩| and |⟨v_i, v̂_i⟩| per direction, clusters of equal target values as a whole; principal angles."""
    setup = observation.setup
    clusters = observation.setup.clusters
    left, _, right = observation.triplets(PRODUCT)
    spectrum = setup.problem.spectrum
    count = len(clusters)
    sides = [(left, spectrum.left), (right, spectrum.right)]
    cosines = [np.empty(count), np.empty(count)]
    for (vectors, teacher), out in zip(sides, cosines, strict=True):
        cpu.vector_alignment(vectors, teacher, clusters, out)
    return [*cosines, *observation.angles([(vectors, teacher[:, :count]) for vectors, teacher in sides])]


@metric("mode_strengths", lambda setup: [("product/mode_strengths", (len(setup.mode_clusters),), "float")])
def _mode_strengths(observation: Observation) -> list[Any]:
    """û_iᵀ W v̂_i: how far the product has come along each of the target's directions (of a Regression, those of its
    modes). Not sorted, unlike σ_i, but within clusters of equal target values: see `lrbias.problems`."""
    setup = observation.setup
    product = observation.matrix(PRODUCT)
    out = np.empty((2, len(setup.mode_clusters)))
    left, right = setup.modes
    cpu.mode_strengths(product, left, right, out)
    settle_clusters(out[0], product, left, right, setup.mode_clusters)
    return [out[0]]


def _basis_quantities(setup: Setup) -> list[Described]:
    if not setup.has_basis:
        return []
    return [("product/eigenvalues_in_basis", (setup.problem.shape[0],), "float"), ("product/off_diagonal", (), "float")]


@metric("eigenvalues_in_basis", _basis_quantities)
def _eigenvalues_in_basis(observation: Observation) -> list[Any]:
    """The diagonal of VᵀWV and the Frobenius norm of the rest, V the eigenvectors of the target's symmetric part."""
    if not observation.setup.has_basis:
        return []
    return list(cpu.entries_in_basis(observation.matrix(PRODUCT), observation.setup.problem.eigen.vectors))


@metric("balancedness", _per_pair("balancedness"))
def _balancedness(observation: Observation) -> np.ndarray:
    """‖W_{i+1}ᵀW_{i+1} − W_iW_iᵀ‖_F of layer i and the one above it."""
    return observation.balancedness()


@metric("layer_alignment", _per_pair("layer_alignment"), needs=lambda setup: dict.fromkeys(setup.layers, 1))
def _layer_alignment(observation: Observation) -> list[Any]:
    """|⟨u_1(W_i), v_1(W_{i+1})⟩| of layer i and the one above it."""
    triplets = [observation.triplets(i) for i in observation.setup.layers]
    return [abs(below[0][:, 0] @ above[2][:, 0]) for below, above in itertools.pairwise(triplets)]


@metric("gradient_norm", lambda setup: [("gradient_norm", (), "float"), *_per_layer("gradient_norm")(setup)])
def _gradient_norm(observation: Observation) -> list[Any]:
    return [observation.gradient_norm, *observation.directions()[:, 0]]


def _gradients(setup: Setup) -> list[tuple[str, int]]:
    return [("gradient", key) for key in matrices_of(setup)]


@metric(
    "gradient_singular_values",
    _per_matrix("gradient_singular_values", vector=True),
    needs=lambda setup: dict.fromkeys(_gradients(setup), 0),
)
def _gradient_singular_values(observation: Observation) -> list[Any]:
    """Of ∂L/∂W at the product, and of every layer's gradient."""
    return [observation.values(key) for key in _gradients(observation.setup)]


@metric("weight_gradient_alignment", _per_layer("weight_gradient_alignment"))
def _weight_gradient_alignment(observation: Observation) -> np.ndarray:
    """⟨W_i, ∇_i⟩ / (‖W_i‖ ‖∇_i‖)."""
    return observation.directions()[:, 1]


@metric("direction_change", _per_layer("direction_change"))
def _direction_change(observation: Observation) -> np.ndarray:
    """How far the normalised weights W_i/‖W_i‖ move in one Euler step: exact for GD, first order for a flow."""
    return observation.directions()[:, 2]


@metric("errors", lambda setup: [(f"{name}_error", (), "float") for name in setup.errors])
def _errors(observation: Observation) -> list[Any]:
    """Root mean squares of W − Ŵ over the observed entries and over the hidden ones; nothing for a whole target."""
    if not observation.setup.errors:
        return []
    return list(observation.setup.problem.errors(observation.matrix(PRODUCT)).values())


def _cost_quantities(setup: Setup) -> list[Described]:
    return [("product/representation_cost", (), "float"), ("squared_norm", (), "float")]


@metric("representation_cost", _cost_quantities, needs=lambda setup: {PRODUCT: 0})
def _representation_cost(observation: Observation) -> list[Any]:
    """N Σ σ_i^(2/N), the least Σ ‖W_i‖² of all networks with this product; and Σ ‖W_i‖² of this one."""
    scale = observation.setup.problem.output_scale
    cost = theory.representation_cost(observation.values(PRODUCT) / scale, observation.setup.depth)
    return [cost, np.sum(observation.params**2)]


@metric(
    "absorbing_rank",
    lambda setup: [("absorbing_rank", (), "int")],
    needs=lambda setup: dict.fromkeys(setup.layers, 0),
    on_request=True,
)
def _absorbing_rank(observation: Observation) -> list[Any]:
    """The smallest r with the network in B_r (see `lrbias.metrics`), −1 for none."""
    setup = observation.setup
    sets = setup.record.absorbing_sets()
    return [sets.rank([observation.values(i) for i in setup.layers], observation.balancedness())]


@metric("product", lambda setup: [("product/matrix", setup.shapes[PRODUCT], "float")], on_request=True)
def _product(observation: Observation) -> list[Any]:
    """The product itself, which is as large as the target at every record."""
    return [observation.matrix(PRODUCT).copy()]  # rows wait to be written while the next step is observed
