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


def order_conditions(a, b):
    """Defects of Butcher's conditions for an autonomous system: {order: largest defect}."""
    c = a.sum(axis=1)
    conditions = {
        1: [b.sum() - 1],
        2: [b @ c - 1 / 2],
        3: [b @ c**2 - 1 / 3, b @ a @ c - 1 / 6],
        4: [b @ c**3 - 1 / 4, (b * c) @ a @ c - 1 / 8, b @ a @ c**2 - 1 / 12, b @ a @ a @ c - 1 / 24],
    }
    return {order: max(abs(defect) for defect in defects) for order, defects in conditions.items()}


def _explicit(name, rows, b, order):
    a, b = np.zeros((len(b), len(b))), np.array(b, dtype=float)
    for s, row in enumerate(rows, start=1):
        a[s, : len(row)] = row
    defects = order_conditions(a, b)
    assert all(defects[k] < 1e-14 for k in range(1, order + 1)), f"{name} is not of order {order}: {defects}"
    return Tableau(name, a, b, order)


EULER = _explicit("euler", [], [1], order=1)
HEUN = _explicit("heun", [[1]], [1 / 2, 1 / 2], order=2)
RK4 = _explicit("rk4", [[1 / 2], [0, 1 / 2], [0, 0, 1]], [1 / 6, 1 / 3, 1 / 3, 1 / 6], order=4)

TABLEAUS = {tableau.name: tableau for tableau in (EULER, HEUN, RK4)}
