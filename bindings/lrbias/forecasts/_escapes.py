"""When each mode of the target will escape, foretold from the actual start.

Early in training the modes of the target hardly notice each other. Alone with mode i = (s, u, v), a network trains like
the same network seen through its two directions: first layer W_1 v, last layer uᵀ W_N, scalar target s. That is a chain
with ends of width 1 whose gradient costs a few matrix-vector products, so its flow is integrated with SciPy until its
product passes s/2. This reduction is ours; the textbook estimate by the norm of the layers alone comes out 2 to 2.5
times too early, because a random start overlaps a mode less than its norm says.

Some modes never escape: a chain that rests at a fixed point, and a chain of numbers w_N ⋯ w_1 < 0 whose two smallest
numbers are equal. Gradient flow keeps w_i² − w_j², so these two could only vanish together, and the product never
passes 0. That is an identical start against a negative eigenvalue (Chou et al.). Rounding in whole layers may lead away
from there after a long time.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy  # which imports its parts when they are used

from lrbias.network import Network
from lrbias.problems import Problem, cluster_rows
from lrcore import layout

HORIZON = 50  # how many times `steps` to look ahead for an escape
MOST = 6_000  # gradients of one chain, after which its escape is not known
ROUNDING = 1e-12  # relative size of what cannot be told from rounding
TIED = 1e-9  # relative difference of numbers that count as equal
TOGETHER = 1e-3  # relative difference of target values that share a space, as `Record.degenerate` has it


class Escape(NamedTuple):
    """step: at which the mode passes half of its value; None unless the outcome is "expected".

    outcome: "expected"; "later" than HORIZON times the steps; "never" from this start; "unknown" where the flow cannot
    be followed, because it leaves floating point or takes too many gradients.
    """

    step: int | None
    outcome: Literal["expected", "later", "never", "unknown"]


class _Lost(Exception):
    """The flow of a chain could not be followed."""


def escapes(problem: Problem, network: Network, step_size: float, steps: int, modes: int) -> list[Escape]:
    """The Escape of each of the leading modes if it were alone. Always returns: the gradients are counted."""
    if not np.isfinite(network.params).all():
        return [Escape(None, "unknown")] * modes
    left, right = _directions(problem, network, modes)
    horizon = min(HORIZON * steps * step_size, 1e100)
    values = problem.svd.values
    found = [_escape(network, values[i], left[:, i], right[:, i], horizon) for i in range(modes)]
    return [outcome if isinstance(outcome, Escape) else _at(outcome, step_size) for outcome in found]


def _at(time: float, step_size: float) -> Escape:
    return Escape(int(np.ceil(time / step_size)), "expected")


def _directions(problem: Problem, network: Network, modes: int) -> tuple[np.ndarray, np.ndarray]:
    """û_i and v̂_i as columns. Of equal values their basis is free: that in which the start has no symmetric part
    between them, the largest strength first, as strengths are recorded (`lrbias.problems`)."""
    left, right = (vectors.copy() for vectors in problem.svd[::2])
    clusters = np.unique(cluster_rows(problem.svd.values, modes, TOGETHER), axis=0)
    if (clusters[:, 1] - clusters[:, 0] == 1).all():
        return left, right
    with np.errstate(all="ignore"):  # checked below
        product = network.product()
    for first, last in clusters if np.isfinite(product).all() else ():
        block = left[:, first:last].T @ product @ right[:, first:last]
        turn = np.linalg.eigh((block + block.T) / 2)[1][:, ::-1]
        left[:, first:last] = left[:, first:last] @ turn
        right[:, first:last] = right[:, first:last] @ turn
    return left, right


def _escape(network: Network, value: float, left: np.ndarray, right: np.ndarray, horizon: float) -> float | Escape:
    """The time at which a mode passes half its value, or the Escape of one that does not."""
    with np.errstate(all="ignore"):  # what overflows is told by its result
        numbers = _as_numbers(network.layers, left, right)
        if numbers is None:
            layers = _ends(network.layers, left, right)
            return _follow(layers, value, horizon, rtol=1e-3)
        if numbers.prod() <= 0 and _tied(numbers):
            return Escape(None, "never")
        return _follow(numbers.reshape(-1, 1, 1), value, horizon, rtol=1e-8)


def _as_numbers(layers: list[np.ndarray], left: np.ndarray, right: np.ndarray) -> np.ndarray | None:
    """(N,) numbers w_i with W_i x_{i−1} = w_i x_i and W_iᵀ x_i = w_i x_{i−1} for unit vectors from x_0 = v to x_N = ±u,
    where there are any: the mode then is a chain of numbers, with the sign of the last. None where not."""
    numbers = []
    vector = right
    for layer in layers:
        after = layer.astype(np.float64) @ vector
        size = np.linalg.norm(after)
        if not 0 < size < np.inf:
            return None
        after /= size
        if np.linalg.norm(layer.T @ after - size * vector) > ROUNDING * size:
            return None
        numbers.append(size)
        vector = after
    along = left @ vector
    if abs(abs(along) - 1) > ROUNDING:
        return None
    return np.array(numbers) * ([1.0] * (len(numbers) - 1) + [np.sign(along)])


def _tied(numbers: np.ndarray) -> bool:
    """Whether the two smallest numbers are equal, apart from their signs."""
    sizes = np.sort(np.abs(numbers))
    return len(sizes) > 1 and sizes[1] - sizes[0] <= TIED * sizes[1]


def _ends(layers: list[np.ndarray], left: np.ndarray, right: np.ndarray) -> list[np.ndarray]:
    """The layers with a first one W_1 v and a last one uᵀ W_N; an end that is nothing but rounding is 0."""
    layers = [layer.astype(np.float64) for layer in layers]
    for place in (0, -1):
        end = left[None, :] @ layers[place] if place else layers[place] @ right[:, None]
        small = np.abs(end).max() <= ROUNDING * np.abs(layers[place]).max()
        layers[place] = np.zeros_like(end) if small else end
    return layers


def _follow(layers: Any, value: float, horizon: float, rtol: float) -> float | Escape:
    """The flow of a chain of layers with ends of width 1, as `_escape`."""
    start, widths = layout.flatten(list(layers))
    chain = _Chain(widths, value)
    if chain.product(start) >= value / 2:
        return 0.0
    slope = chain.slope(0.0, start)
    if not np.isfinite(slope).all():
        return Escape(None, "unknown")
    if not slope.any():
        return Escape(None, "never")

    def half(_: float, params: np.ndarray) -> float:
        return chain.product(params) - value / 2

    event: Any = half  # a function with attributes, as SciPy has it
    event.terminal = True
    event.direction = 1
    size = max(np.abs(start).max(), value ** (1 / len(layers)) if not start.any() else 0.0)
    try:
        solution = scipy.integrate.solve_ivp(
            chain.slope, (0.0, horizon), start, events=event, rtol=rtol, atol=1e-9 * size
        )
    except _Lost:
        return Escape(None, "unknown")
    if solution.t_events[0].size:
        return float(solution.t_events[0][0])
    return Escape(None, "later" if solution.status == 0 else "unknown")


class _Chain:
    """A chain of layers whose ends have width 1, with the loss ½(product − value)²."""

    def __init__(self, widths: Sequence[int], value: float) -> None:
        self.widths = widths
        self.value = value
        self.gradients = 0

    def product(self, params: np.ndarray) -> float:
        vector = np.ones(1)
        for layer in layout.layers(params, self.widths):
            vector = layer @ vector
        return float(vector[0])

    def slope(self, _: float, params: np.ndarray) -> np.ndarray:
        """−∂L/∂params. Raises _Lost after MOST of them: whatever a step of the integrator is, it makes some."""
        layers = layout.layers(params, self.widths)
        below = [np.ones(1)]
        for layer in layers:
            below.append(layer @ below[-1])
        down = np.empty_like(params)
        back = self.value - below[-1]
        for layer, out, vector in zip(
            reversed(layers), reversed(layout.layers(down, self.widths)), reversed(below[:-1]), strict=True
        ):
            np.multiply.outer(back, vector, out=out)
            back = layer.T @ back
        self.gradients += 1
        if self.gradients > MOST:
            raise _Lost
        return down
