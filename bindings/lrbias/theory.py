"""Closed forms and bounds.

Sources: Saxe et al. 2014 and Arora et al. 2018 for the modes of a balanced, aligned start; Cohen et al. 2021 for the
limit of stability; Chou, Gieshoff, Maly and Rauhut for identical and perturbed initialisations. In their theorems
W_i = αI (identical), or W_1 = (α − β)I and the others αI (perturbed), and the target is symmetric with eigenvalues λ_i.
Galanti, Siegel, Gupte and Poggio for SGD with weight decay, whose loss is the mean of ℓ_i plus λ‖W‖_F².
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import scipy  # which imports its parts when they are used
from numpy.typing import ArrayLike
from pydantic import Field

from lrbias.errors import check
from lrbias.settings import Accepts, Count, Depth, Finite, NotNegative, Number, Positive, Share, as_real, validate
from lrcore import formulas

Amount = Annotated[Number, Field(ge=1e-150, le=1e150), Accepts("a number from 1e-150 to 1e150")]
Size = Annotated[Number, Field(ge=0, le=1e150), Accepts("a number from 0 to 1e150")]
BRANCHES = ("negative", "from above", "late", "early, fine", "early, coarse")


def sharpness(top_value: ArrayLike, depth: int) -> Any:
    """Largest Hessian eigenvalue at a balanced minimum: N σ_1^{2 − 2/N}, σ_1 the target's spectral norm."""
    top = as_real("top_value", top_value)[()]
    depth = validate(Depth, "depth", depth)
    check(not (top < 0).any(), "top_value", top_value, "a number of at least 0, or an array of them")
    with np.errstate(over="ignore"):
        return depth * top ** (2 - 2 / depth)


def shrunken(value: float, depth: int, ridge: float) -> float:
    """What a ridge λ Σ ‖W_i‖² leaves of a target value s at a balanced minimum: the largest u with
    (s − u) u^{1 − 2/N} = 2λ, and 0 where there is none."""
    if depth == 1:
        return value / (1 + 2 * ridge)
    power = 1 - 2 / depth
    turn = value * power / (1 + power)  # where the left side is largest
    if (value - turn) * turn**power <= 2 * ridge:
        return 0.0
    return scipy.optimize.brentq(lambda u: (value - u) * u**power - 2 * ridge, turn, value, xtol=1e-14 * value)


def learning_rate_limit(top_value: ArrayLike, depth: int) -> Any:
    """Gradient descent is stable at a balanced minimum for lr < 2 / (N σ_1^{2 − 2/N})."""
    with np.errstate(divide="ignore"):  # for a zero target there is no limit
        return 2 / sharpness(top_value, depth)


def saxe(t: Any, value: float, initial: float) -> Any:
    """A mode's singular value at time t, depth 2, balanced and aligned start: s e^{2st} / (e^{2st} − 1 + s/u_0)."""
    t, value = validate(NotNegative, "t", t), validate(Amount, "value", value)
    initial = validate(Amount, "initial", initial)
    growth = math.exp(-2 * value * t)
    return value / (1 - growth + value / initial * growth)


def mode(t: Any, value: float, initial: float, depth: int, variance: float = 1.0) -> np.ndarray:
    """A mode's singular value u at the times t (increasing, from 0), balanced and aligned start, any depth:
    du/dt = N u^{2 − 2/N} (s − d u), u(0) = initial > 0, s = value. Integrated to relative 1e-10.

    variance: d, of the inputs along the mode (`Regression.modes`); u tends to s/d. 1 where a matrix is fitted.
    """
    t = np.atleast_1d(as_real("t", t))
    increasing = t.ndim == 1 and t.size > 0 and np.isfinite(t).all() and t[0] >= 0 and (np.diff(t) > 0).all()
    check(increasing, "t", f"<an array of shape {t.shape}>", "times that increase, from 0 on")
    initial, variance = validate(Amount, "initial", initial), validate(Amount, "variance", variance)
    value, depth = validate(Size, "value", value), validate(Depth, "depth", depth)
    power = 2 - 2 / depth

    def slope(_: float, u: np.ndarray) -> np.ndarray:
        return depth * np.maximum(u, 0) ** power * (value - variance * u)

    end = max(t[-1], np.finfo(float).tiny)
    found = scipy.integrate.solve_ivp(slope, (0.0, end), [initial], t_eval=t, method="LSODA", rtol=1e-10, atol=1e-14)
    check(found.success, "value", value, "a mode that can be integrated to these times")
    return found.y[0]


def escape_time(value: float, initial: float, depth: int, fraction: float = 0.5, variance: float = 1.0) -> float:
    """The time at which a mode passes `fraction` of s/d, to which it tends: ∫ du / (N u^{2 − 2/N} (s − d u)) from
    `initial` on, with s = value, d = variance."""
    initial, variance = validate(Amount, "initial", initial), validate(Amount, "variance", variance)
    value, depth = validate(Amount, "value", value), validate(Depth, "depth", depth)
    goal = validate(Share, "fraction", fraction) * value / variance
    if initial >= goal:
        return 0.0
    power = 1 - 2 / depth  # in x = ln u, so that the integrand is tame where u is small

    def slowness(x: float) -> float:
        return math.exp(-power * x) / (depth * (value - variance * math.exp(x)))

    found, _ = scipy.integrate.quad(slowness, math.log(initial), math.log(goal))
    return found


def representation_cost(values: ArrayLike, depth: int) -> float:
    """min Σ‖W_i‖_F² over the factorizations of a matrix with these singular values: N Σ σ_i^{2/N}."""
    values = as_real("values", values)
    depth = validate(Depth, "depth", depth)
    check(not (values < 0).any(), "values", f"<an array of shape {values.shape}>", "numbers of at least 0")
    with np.errstate(over="ignore"):  # which is infinite
        return float(formulas.representation_cost(values.ravel(), depth))


def distance_bound(lr: float, weight_decay: float, steps: ArrayLike, norm_ratio: float = 1.0) -> Any:
    """The distance in norm of W_T/‖W_T‖ from the matrices of rank ≤ m_l B n, n = steps, is at most this (Lemma 3.2):
    (1 − 2μλ)^n ‖W_{T−n}‖/‖W_T‖. steps may be an array.

    norm_ratio: ‖W_{T−n}‖/‖W_T‖. Raises InvalidInput unless 2μλ < 1.
    """
    shrinking = 1 - _decay(lr, weight_decay)
    steps = as_real("steps", steps)
    check(bool((steps >= 0).all()), "steps", steps, "numbers of at least 0")
    return shrinking**steps * validate(Positive, "norm_ratio", norm_ratio)


def rank_bound(lr: float, weight_decay: float, batch: int, epsilon: float = 1e-3, patches: int = 1) -> float:
    """m_l B ln(2/ε)/(2μλ): in the end W_T/‖W_T‖ is within ε of a matrix of at most this rank (Theorem 3.3).

    patches: m_l, how many vectors of a sample the layer is applied to: 1 where it is fully connected, the positions of
    a convolution. The theorem asks for ‖W_{T−1}‖/‖W_T‖ → 1. Raises InvalidInput unless 2μλ < 1 and ε < 2.
    """
    decay = _decay(lr, weight_decay)
    epsilon = validate(Positive, "epsilon", epsilon)
    check(epsilon < 2, "epsilon", epsilon, "a number between 0 and 2")
    return validate(Count, "patches", patches) * validate(Count, "batch", batch) * math.log(2 / epsilon) / decay


def _decay(lr: float, weight_decay: float) -> float:
    """2μλ, the share of the weights that a step takes away."""
    decay = 2 * validate(Positive, "lr", lr) * validate(Positive, "weight_decay", weight_decay)
    check(decay > 0, "weight_decay", weight_decay, "a number that is not 0 when it is multiplied by lr")
    check(decay < 1, "weight_decay", weight_decay, f"less than {0.5 / lr:.6g}, so that a step leaves some weight")
    return decay


def perturbed_constant(depth: int) -> float:
    """The largest real solution c of 1 = (c − 1) c^{N−1}, between 1 and 2."""
    depth = validate(Depth, "depth", depth)
    return 2.0 if depth == 1 else scipy.optimize.brentq(lambda c: (c - 1) * c ** (depth - 1) - 1, 1.0, 2.0, xtol=1e-15)


def identical_limit(norm: float, depth: int, alpha: float) -> float:
    """Learning rates below it recover every λ ≥ 0 from W_i = αI (Theorem 2.2): 1 / ((3N − 2) M^{2N−2}).

    norm: ‖target‖₂; M = max(α, norm^{1/N}).
    """
    largest = _scale("norm", norm, depth, alpha)
    return 1 / ((3 * depth - 2) * _power(largest, 2 * depth - 2))


def eigenvalue_limit(eigenvalue: float, depth: int, alpha: float) -> float:
    """The same for one eigenvalue (Theorem 2.1): 1 / (2N M^{2N−2}) for λ ≥ 0, 1 / ((3N − 2) M^{2N−2}) for λ < 0."""
    largest = _scale("eigenvalue", abs(validate(Finite, "eigenvalue", eigenvalue)), depth, alpha)
    factor = 2 * depth if eigenvalue >= 0 else 3 * depth - 2
    return 1 / (factor * _power(largest, 2 * depth - 2))


def perturbed_limit(norm: float, depth: int, alpha: float) -> float:
    """Learning rates below it recover every λ from the perturbed start (Theorem 3.1): 1 / (9N (cM)^{2N−2})."""
    largest = perturbed_constant(depth) * _scale("norm", norm, depth, alpha)
    return 1 / (9 * depth * _power(largest, 2 * depth - 2))


def largest_perturbation(depth: int, alpha: float) -> float:
    """β has to be below it: β / (c − 1) < α."""
    return (perturbed_constant(depth) - 1) * validate(Positive, "alpha", alpha)


def recovered(eigenvalues: ArrayLike, perturbed: bool) -> np.ndarray:
    """What gradient descent recovers of them: every one from a perturbed start, max(λ, 0) from an identical one."""
    eigenvalues = as_real("eigenvalues", eigenvalues)
    check(isinstance(perturbed, (bool, np.bool_)), "perturbed", perturbed, "True or False")
    return eigenvalues.copy() if perturbed else np.maximum(eigenvalues, 0)


def _scale(argument: str, norm: float, depth: int, alpha: float) -> float:
    """M = max(α, ‖target‖^{1/N}), from arguments that are checked here."""
    norm, depth = validate(Size, argument, norm), validate(Depth, "depth", depth)
    return max(validate(Amount, "alpha", alpha), norm ** (1 / depth))


def _power(base: float, exponent: float) -> float:
    """base^exponent, infinite where it is too large for a number: a limit then is 0."""
    with np.errstate(over="ignore", under="ignore"):
        return max(float(np.float64(base) ** exponent), np.finfo(float).tiny)


def recovery_bound(eigenvalue: float, depth: int, alpha: float, lr: float, epsilon: float) -> float:
    """T_N^Id: an upper bound of the first step k with |d_k − max(λ, 0)^{1/N}| ≤ ε, from W_i = αI (Theorem 2.1).

    The steps are at most ⌈T_N^Id⌉. The theorem's text leaves T^+ and T^− undefined; they are taken to be the travel
    times of the gradient flow, T^+ = ∫ dx / (x^{N−1} (λ − x^N)), and T^− = ln(α/ε) for N = 2 and
    (ε^{2−N} − α^{2−N})/(N − 2) above: our reading, which the tests hold against measured steps in all branches.

    Raises InvalidInput unless N ≥ 2, α > 0, 0 < ε < |α − max(λ, 0)^{1/N}| and lr is below `eigenvalue_limit`.
    """
    eigenvalue, depth = validate(Finite, "eigenvalue", eigenvalue), validate(Depth, "depth", depth)
    alpha, lr, epsilon = (validate(Amount, name, v) for name, v in (("alpha", alpha), ("lr", lr), ("epsilon", epsilon)))
    check(depth >= 2, "depth", depth, "an integer of at least 2")
    limit = eigenvalue_limit(eigenvalue, depth, alpha)
    distance = abs(alpha - max(eigenvalue, 0) ** (1 / depth))
    check(lr < limit, "lr", lr, f"less than {limit:.6g}, the limit of the theorem")
    check(epsilon < distance, "epsilon", epsilon, f"less than {distance:.6g}, the distance from the start")
    try:
        return _bound(eigenvalue, depth, alpha, lr, epsilon)
    except (OverflowError, ZeroDivisionError):  # a bound that is larger than any number
        return math.inf


def _bound(eigenvalue: float, depth: int, alpha: float, lr: float, epsilon: float) -> float:
    branch = recovery_branch(eigenvalue, depth, alpha, epsilon)
    root = max(eigenvalue, 0.0) ** (1 / depth)
    share = (depth - 1) / (2 * depth - 1)
    if branch == "negative":
        return _time_down(epsilon, alpha, depth) / (lr * -eigenvalue)
    if branch == "from above":
        return _time_up(eigenvalue, root + epsilon, alpha, depth) / lr
    rate = abs(math.log(1 - lr * depth * (share * eigenvalue) ** (2 - 2 / depth)))
    if branch == "late":
        return math.log((root - alpha) / epsilon) / rate
    lost = math.ceil(share ** (1 - 1 / depth) * (root / alpha) ** (depth - 1))
    if branch == "early, coarse":
        return _time_up(eigenvalue, root - epsilon, alpha, depth) / lr + lost
    turn = abs(math.log(1 - share ** (1 / depth)))
    first = _time_up(eigenvalue, (share * eigenvalue) ** (1 / depth), alpha, depth)
    return first / lr + lost + (math.log(root / epsilon) - turn) / rate


def recovery_branch(eigenvalue: float, depth: int, alpha: float, epsilon: float) -> str:
    """Which of the five cases of the bound applies: one of BRANCHES."""
    eigenvalue, depth = validate(Finite, "eigenvalue", eigenvalue), validate(Depth, "depth", depth)
    alpha, epsilon = validate(Amount, "alpha", alpha), validate(Amount, "epsilon", epsilon)
    share = (depth - 1) / (2 * depth - 1)
    start = _power(alpha, depth)
    if eigenvalue < 0:
        return "negative"
    if eigenvalue < start:
        return "from above"
    if share * eigenvalue < start:
        return "late"
    return "early, fine" if epsilon < (1 - share ** (1 / depth)) * eigenvalue ** (1 / depth) else "early, coarse"


def _time_up(eigenvalue: float, end: float, start: float, depth: int) -> float:
    """T^+: how long the flow takes from `start` to `end`, both on the same side of λ^{1/N}."""
    found, _ = scipy.integrate.quad(
        lambda x: 1 / (x ** (depth - 1) * (eigenvalue - x**depth)), start, end, epsrel=1e-10, limit=200
    )
    return found


def _time_down(end: float, start: float, depth: int) -> float:
    """T^−: how long |λ| times the flow takes from `start` down to `end` for λ < 0, its own decay left out."""
    if depth == 2:
        return math.log(start / end)
    return (end ** (2 - depth) - start ** (2 - depth)) / (depth - 2)
