"""Up to which step size training is stable, at the actual start and at a balanced minimum.

A scheme with the stability polynomial R is stable on the curvature λ for steps h with |R(−hλ)| ≤ 1: gradient descent
up to 2/λ, the classical Runge–Kutta scheme up to 2.785/λ. λ is the largest eigenvalue of the Hessian, ridge included.
The one at the start comes from Lanczos' iteration in plain NumPy, so that no kernel is compiled for it.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy  # which imports its parts when they are used

from lrbias import theory
from lrbias.methods import Method
from lrbias.network import Network
from lrbias.problems import Factorization, Problem
from lrcore.tableau import TABLEAUS, Tableau

SETTLED = 1e-4  # relative change of the largest eigenvalue in one product, with which the iteration ends
LEAST, MOST = 6, 40  # products with the Hessian
EFFORT = 3e10  # floating point operations that they may take together, beyond the least ones
LEADING = 3  # modes whose minimum tells the curvature under a ridge
SEED = 20260101  # of the vector that the iteration starts from


class Limits(NamedTuple):
    """Step sizes below which training is stable, inf where nothing curves upwards; None where that is not known, or the
    method chooses its steps.

    start: from the curvature at the given start. minimum: from that at a balanced minimum. factor: c of c/λ.
    """

    start: float | None
    minimum: float | None
    factor: float

    @property
    def smaller(self) -> float | None:
        """The smaller one of those that are known."""
        return min((limit for limit in (self.start, self.minimum) if limit is not None), default=None)


def limits(problem: Problem, network: Network | None, method: Method) -> Limits:
    """The Limits of `method` on `problem` from `network`, as `train` was handed both."""
    if not method.has_stability_limit:
        return Limits(None, None, np.nan)
    assert network is not None  # such a method starts from one
    problem = problem.scaled(network.output_scale)
    factor = stable_interval(getattr(method, "scheme", "euler"))
    start = largest_curvature(problem, network, method.ridge, method.linear)
    minimum = start if method.linear else curvature_at_minimum(problem, network.depth, method.ridge)
    return Limits(_limit(factor, start), _limit(factor, minimum), factor)


def _limit(factor: float, curvature: float | None) -> float | None:
    if curvature is None:
        return None
    return factor / curvature if curvature > 0 else np.inf


@functools.cache
def stable_interval(scheme: str) -> float:
    """The largest x up to which |R(−x)| ≤ 1, R(z) = 1 + Σ_k (bᵀ A^{k−1} 1) z^k the stability polynomial of a scheme."""
    tableau: Tableau = TABLEAUS[scheme]
    terms = [1.0]
    stage = np.ones(tableau.stages)
    for power in range(1, tableau.stages + 1):
        terms.append(float(tableau.b @ stage) * (-1) ** power)
        stage = tableau.a @ stage
    growth = np.polynomial.Polynomial(terms)
    ends = np.concatenate([(growth - 1).roots(), (growth + 1).roots()])
    ends = np.sort(ends.real[(np.abs(ends.imag) < 1e-9) & (ends.real > 1e-6)])
    return float(next(end for end in ends if abs(growth(end * (1 + 1e-6))) > 1))


def curvature_at_minimum(problem: Problem, depth: int, ridge: float = 0.0) -> float | None:
    """The largest eigenvalue of the Hessian at a balanced minimum; None where there is no formula for the loss."""
    if not isinstance(problem, Factorization) or problem.svd.rank == 0:
        return None
    square = problem.output_scale**2  # ½‖αW − Ŵ‖² + λΣ‖W_i‖² = α² (½‖W − Ŵ/α‖² + λ/α² Σ‖W_i‖²)
    values = problem.svd.values[:LEADING] / problem.output_scale
    ridge = ridge / square
    if ridge == 0:
        return float(square * theory.sharpness(values[0], depth))
    roots = [theory.shrunken(value, depth, ridge) ** (1 / depth) for value in values]
    found = largest_curvature(Factorization(np.diag(values)), Network.from_layers([np.diag(roots)] * depth), ridge)
    return found and square * found


def largest_curvature(problem: Problem, network: Network, ridge: float = 0.0, linear: bool = False) -> float | None:
    """The largest eigenvalue of the Hessian of the loss with λ Σ ‖W_i‖² at a network, 0 unless one is positive; None
    where it is not finite.

    linear: of the network linearised there (Gauss and Newton's part of the Hessian). To about a hundredth; of a large
    network from few products, so that the true one may be larger by some hundredths.
    """
    with np.errstate(all="ignore"):  # a start that is too large has no curvature in floating point
        apply = _hessian(problem, network, ridge, linear)
        size = network.params.size
        widest = max(network.widths)
        most = int(np.clip(EFFORT / (12.0 * size * widest), LEAST, MOST))
        found = _largest_eigenvalue(apply, size, most)
    return max(found, 0.0) if np.isfinite(found) else None


def _hessian(problem: Problem, network: Network, ridge: float, linear: bool) -> Callable[[np.ndarray], np.ndarray]:
    """A function of a flat direction that gives the Hessian times it: see "Curvature" in lrcore/README.md."""
    layers = [np.ascontiguousarray(layer, np.float64) for layer in network.layers]
    scale = problem.output_scale
    ends = np.cumsum([layer.size for layer in layers])[:-1]
    prefixes = [layers[0]]
    for layer in layers[1:]:
        prefixes.append(layer @ prefixes[-1])
    zero = problem.slope(np.zeros(problem.shape))
    back = [0.0 if linear else scale * problem.slope(scale * prefixes[-1])]
    for layer in reversed(layers[1:]):
        back.append(0.0 if linear else layer.T @ back[-1])
    back.reverse()  # back[i] is ∂L/∂P of the product up to layer i + 1

    def apply(vector: np.ndarray) -> np.ndarray:
        parts = np.split(vector, ends)
        moves = [part.reshape(layer.shape) for part, layer in zip(parts, layers, strict=True)]
        tangents = [moves[0]]
        for i in range(1, len(layers)):
            tangents.append(layers[i] @ tangents[-1] + moves[i] @ prefixes[i - 1])
        turned = scale * (problem.slope(scale * tangents[-1]) - zero)  # the slope is affine in the product
        rows = []
        for i in range(len(layers) - 1, 0, -1):
            rows.append(turned @ prefixes[i - 1].T + (0.0 if linear else back[i] @ tangents[i - 1].T))
            turned = layers[i].T @ turned + (0.0 if linear else moves[i].T @ back[i])
        rows.append(turned)
        return np.concatenate([row.ravel() for row in reversed(rows)]) + 2 * ridge * vector

    return apply


def _largest_eigenvalue(apply: Callable[[np.ndarray], np.ndarray], size: int, most: int) -> float:
    """Of a symmetric operator, by Lanczos' three terms from a random vector; NaN where a product is not finite."""
    vector = np.random.default_rng(SEED).standard_normal(size)
    before = np.zeros(size)
    vector /= np.linalg.norm(vector)
    diagonal = []
    beside: list[float] = []
    found = np.nan
    for count in range(1, min(most, size) + 1):
        product = apply(vector) - (beside[-1] * before if beside else 0.0)
        diagonal.append(float(vector @ product))
        product -= diagonal[-1] * vector
        norm = float(np.linalg.norm(product))
        if not np.isfinite([diagonal[-1], norm]).all():
            return np.nan
        last = (count - 1, count - 1)
        earlier = found
        found = float(scipy.linalg.eigvalsh_tridiagonal(diagonal, beside, select="i", select_range=last)[0])
        settled = count >= LEAST and abs(found - earlier) <= SETTLED * abs(found)
        if settled or norm <= 1e-13 * np.abs(diagonal).max():
            break
        beside.append(norm)
        before = vector
        vector = product / norm
    return found
