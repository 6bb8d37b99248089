"""Explicit Runge-Kutta methods as data. A tableau checks its own order conditions when it is made."""

from typing import NamedTuple

import numpy as np


class Tableau(NamedTuple):
    """y_{k+1} = y_k + dt Σ b_s k_s,  k_s = f(y_k + dt Σ_{j<s} a_sj k_j).

    a (s, s) strictly lower triangular, b (s,), order: the order of the method.
    """

    name: str
    a: np.ndarray
    b: np.ndarray
    order: int

    @property
    def stages(self):
        return len(self.b)

    def astype(self, dtype):
        """(a, b) in `dtype`, as the kernels take them."""
        return self.a.astype(dtype), self.b.astype(dtype)


class Pair(NamedTuple):
    """A scheme of order 5 whose last slope is the first of the next step, with an error estimate and dense output.

    y_{n+1} = y_n + h Σ b_i k_i, its error about h Σ error_i k_i, and for 0 ≤ θ ≤ 1
    y(t_n + θh) = y_n + h Σ_i k_i Σ_j dense_ij θ^{j+1}, to order 4 (its local error is O(h⁵)).

    a (s, s) as in a Tableau, its last row is b; b (s,); error (s,) = b − b̂, b̂ of order 4; dense (s, 4).
    None of the last three reads the second slope. The last two stages lie at the same time.
    """

    name: str
    a: np.ndarray
    b: np.ndarray
    error: np.ndarray
    dense: np.ndarray

    @property
    def stages(self):
        return len(self.b)

    def astype(self, dtype):
        """(a, b, probes, dense), as the kernels take them; `dense` stays as it is, its sums are rounded later."""
        return *(part.astype(dtype) for part in (self.a, self.b, self.probes)), self.dense

    @property
    def probes(self):
        """(3, s): weights of the slopes whose sums say how far the points of the last two stages are apart (times h),
        by how much their slopes differ, and the error (times h)."""
        units = np.eye(self.stages)
        return np.stack([self.a[-1] - self.a[-2], units[-1] - units[-2], self.error])


def order_conditions(a, b):
    """Defects of Butcher's conditions for an autonomous system, to order 5: {order: largest defect}."""
    return {
        order: max(abs(b @ weights - 1 / density) for weights, density in trees) for order, trees in _trees(a).items()
    }


def _trees(a):
    """{order: (weights (s,), density) of every rooted tree}; the condition is Σ b_i weights_i = 1 / density."""
    c = a.sum(axis=1)
    return {
        1: [(np.ones_like(c), 1)],
        2: [(c, 2)],
        3: [(c**2, 3), (a @ c, 6)],
        4: [(c**3, 4), (c * (a @ c), 8), (a @ c**2, 12), (a @ a @ c, 24)],
        5: [
            (c**4, 5),
            (c**2 * (a @ c), 10),
            (c * (a @ c**2), 15),
            (c * (a @ a @ c), 30),
            ((a @ c) ** 2, 20),
            (a @ c**3, 20),
            (a @ (c * (a @ c)), 40),
            (a @ a @ c**2, 60),
            (a @ a @ a @ c, 120),
        ],
    }


def _explicit(name, rows, b, order):
    a = _lower(rows, len(b))
    b = np.array(b, dtype=float)
    defects = order_conditions(a, b)
    assert all(defects[k] < 1e-14 for k in range(1, order + 1)), f"{name} is not of order {order}: {defects}"
    return Tableau(name, a, b, order)


def _embedded(name, rows, b_hat, dense):
    """The Pair with b in the last of `rows`, b̂ and, per slope, the coefficients of θ, θ², θ³, θ⁴."""
    a = _lower(rows, len(b_hat))
    dense = np.array(dense, dtype=float)
    b = a[-1].copy()
    pair = Pair(name, a, b, b - np.array(b_hat, dtype=float), dense)
    defects = _pair_defects(pair)
    assert all(defect < 1e-14 for defect in defects.values()), f"{name} is not a pair of orders 5 and 4: {defects}"
    return pair


def _pair_defects(pair):
    """What has to be 0: {what: largest defect}."""
    highest = order_conditions(pair.a, pair.b)
    lower = order_conditions(pair.a, pair.b - pair.error)
    powers = np.arange(1, 5)
    first = np.eye(pair.stages)[0]
    last = np.eye(pair.stages)[-1]
    # the weights of the dense output are polynomials in θ, and Σ_i weights_i(θ) tree_i = θ^order / density
    between = [
        np.abs(pair.dense.T @ weights - (powers == order) / density).max()
        for order, trees in _trees(pair.a).items()
        if order < 5
        for weights, density in trees
    ]
    return {
        "order 5": max(highest.values()),
        "order 4": max(lower[order] for order in range(1, 5)),
        "dense output": max(between),
        "value at θ = 1": np.abs(pair.dense.sum(axis=1) - pair.b).max(),
        "slope at θ = 0": np.abs(pair.dense[:, 0] - first).max(),
        "slope at θ = 1": np.abs(pair.dense @ powers - last).max(),
        "second slope": np.abs([pair.b[1], pair.error[1], *pair.dense[1]]).max(),
        "last two times": np.ptp(pair.a[-2:].sum(axis=1)),
    }


def _lower(rows, stages):
    """The matrix of a tableau from its rows below the first."""
    a = np.zeros((stages, stages))
    for s, row in enumerate(rows, start=1):
        a[s, : len(row)] = row
    return a


EULER = _explicit("euler", [], [1], order=1)
HEUN = _explicit("heun", [[1]], [1 / 2, 1 / 2], order=2)
RK4 = _explicit("rk4", [[1 / 2], [0, 1 / 2], [0, 0, 1]], [1 / 6, 1 / 3, 1 / 3, 1 / 6], order=4)

TABLEAUS = {tableau.name: tableau for tableau in (EULER, HEUN, RK4)}

# Dormand and Prince (1980); the dense output is the one of Hairer, Nørsett and Wanner, II.6, in powers of θ
DOPRI5 = _embedded(
    "dopri5",
    [
        [1 / 5],
        [3 / 40, 9 / 40],
        [44 / 45, -56 / 15, 32 / 9],
        [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
        [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
        [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
    ],
    [5179 / 57600, 0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40],
    [
        [1, -8048581381 / 2820520608, 8663915743 / 2820520608, -12715105075 / 11282082432],
        [0, 0, 0, 0],
        [0, 131558114200 / 32700410799, -68118460800 / 10900136933, 87487479700 / 32700410799],
        [0, -1754552775 / 470086768, 14199869525 / 1410260304, -10690763975 / 1880347072],
        [0, 127303824393 / 49829197408, -318862633887 / 49829197408, 701980252875 / 199316789632],
        [0, -282668133 / 205662961, 2019193451 / 616988883, -1453857185 / 822651844],
        [0, 40617522 / 29380423, -110615467 / 29380423, 69997945 / 29380423],
    ],
)

PAIRS = {pair.name: pair for pair in (DOPRI5,)}
