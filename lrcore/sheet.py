"""The numbers of a record: what is measured of a network at one step, in one array, and where each part of it lies.

Parts, by name. `key` says which matrix: 0 the product W, i the layer W_i, ("gradient", 0) the gradient of the loss with
respect to W, ("gradient", i) that with respect to W_i. `side` is "left" or "right".

    ("values", key)      singular values, largest first
    ("ranks", key)       the six of `rank_metrics`
    ("cosines", side)    of the product's singular vectors with the target's: `vector_alignment`
    ("angles", side)     the principal angles between the spans of both
    ("strengths",)       of the modes: `mode_strengths`
    ("balancedness",)    a number for every layer that has one above it: `balancedness`
    ("neighbours",)      likewise |⟨u_1(W_i), v_1(W_{i+1})⟩|
    ("directions",)      three numbers for every layer: `directions`
    ("gradient_norm",)   of all layers together
    ("squared_norm",)    Σ ‖W_i‖²
    ("cost",)            N Σ σ_i^(2/N) of the product
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lrcore import layout

Part = tuple[Any, ...]
PRODUCT = 0
SIDES = ("left", "right")
OF_A_LAYER = 3  # numbers of `directions`
OF_RANKS = 6


class Compared(NamedTuple):
    """What the product is compared with, and the thresholds of its ranks.

    left (n_N, ≥ k), right (n_0, ≥ k)            the target's singular vectors, as columns
    clusters (k, 2)                              as for `vector_alignment`
    modes_left (n_N, j), modes_right (n_0, j)    as for `mode_strengths`
    numerical, relative                          as for `rank_metrics`
    scale                                        the product is this times that of the layers

    Arrays are in C order, in float64 but for the clusters, which are int64.
    """

    left: np.ndarray
    right: np.ndarray
    clusters: np.ndarray
    modes_left: np.ndarray
    modes_right: np.ndarray
    numerical: float
    relative: float
    scale: float


class Point(NamedTuple):
    """A network at one step.

    params, gradient   flat vectors of the layers and of their gradients
    product, slope     (n_N, n_0): the product, and the gradient with respect to it
    target             likewise, of a sheet that forms these three itself; they are written to then
    step_size          of `directions`

    What no part of a sheet needs may be anything of the right type.
    """

    params: np.ndarray
    widths: np.ndarray
    target: np.ndarray
    product: np.ndarray
    gradient: np.ndarray
    slope: np.ndarray
    step_size: float


class Sheet:
    """Where the parts of a record lie, and how many singular vectors of each matrix they need.

    dtype   of the network
    places  {part: slice} of the numbers of a record, of which there are `size`
    forms   whether product, slope and gradient are those of ½‖W − target‖_F², and made when the sheet is filled
    counts  {key: vectors} of the matrices that are decomposed: the product, the layers in order, their gradients
    """

    def __init__(
        self, widths: Sequence[int], dtype: Any, parts: Iterable[Part], compared: Compared, forms: bool = False
    ) -> None:
        self.dtype = np.dtype(dtype)
        self.forms = forms
        self.widths = layout.as_widths(widths)
        self.compared = compared
        self.size = 0
        self.places: dict[Part, slice] = {}
        for part in dict.fromkeys(parts):
            first = self.size
            self.size += self._size(part)
            self.places[part] = slice(first, self.size)
        self.counts = self._counts()

    @functools.cached_property
    def needs_product(self) -> bool:
        """Whether a part needs the product."""
        return PRODUCT in self.counts or ("strengths",) in self.places or (self.forms and self.needs_slope)

    @functools.cached_property
    def needs_gradient(self) -> bool:
        """Whether a part needs the gradient of the layers."""
        of_layers = any(isinstance(key, tuple) and key[1] != PRODUCT for key in self.counts)
        return of_layers or ("directions",) in self.places or ("gradient_norm",) in self.places

    @functools.cached_property
    def needs_slope(self) -> bool:
        """Whether a part needs the gradient with respect to the product."""
        return ("gradient", PRODUCT) in self.counts

    def shape(self, key: Any) -> tuple[int, int]:
        """Of the matrix with this key."""
        i = key[1] if isinstance(key, tuple) else key
        if i == PRODUCT:
            return int(self.widths[-1]), int(self.widths[0])
        return int(self.widths[i]), int(self.widths[i - 1])

    def _size(self, part: Part) -> int:
        name = part[0]
        if name == "values":
            return min(self.shape(part[1]))
        depth = layout.depth(self.widths)
        directions = len(self.compared.clusters)
        sizes = {
            "ranks": OF_RANKS,
            "cosines": directions,
            "angles": directions,
            "strengths": self.compared.modes_left.shape[1],
            "balancedness": depth - 1,
            "neighbours": depth - 1,
            "directions": OF_A_LAYER * depth,
            "gradient_norm": 1,
            "squared_norm": 1,
            "cost": 1,
        }
        return sizes[name]

    def _counts(self) -> dict[Any, int]:
        counts: dict[Any, int] = {}
        for name, *keys in self.places:
            if name in ("values", "ranks"):
                counts.setdefault(keys[0], 0)
            elif name in ("cosines", "angles"):
                counts[PRODUCT] = len(self.compared.clusters)
            elif name == "cost":
                counts.setdefault(PRODUCT, 0)
            elif name == "neighbours":
                for i in range(1, len(self.widths)):
                    counts[i] = 1
        return {key: counts[key] for key in sorted(counts, key=_order)}


def _order(key: Any) -> tuple[bool, int]:
    """The product and the layers, then their gradients."""
    of_gradient = isinstance(key, tuple)
    return of_gradient, key[1] if of_gradient else key
