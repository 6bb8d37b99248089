"""The Hessian of a loss at one network, known by its products with vectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lrcore import cpu, layout
from lrcore.cpu import workspace


class Hessian:
    """That of an Objective with λ Σ ‖W_i‖² at `params`, in float64.

    work: a CurvatureWorkspace for `widths`, which it uses as long as it is asked something; None: one of its own.
    """

    def __init__(
        self, params: np.ndarray, widths: Sequence[int], objective: Any, ridge: float = 0.0, work: Any = None
    ) -> None:
        widths = layout.as_widths(widths)
        self._work = workspace.allocate_curvature(widths) if work is None else work
        self._numbers = params.astype(np.float64), widths, objective, float(ridge)
        self.size = params.size
        cpu.hessian_point(*self._numbers, self._work)

    def end(self, sign: int, count: int = 1, tolerance: float = 1e-6, start: np.ndarray | None = None) -> Any:
        """The `count` largest eigenvalues (sign = 1) or smallest ones (−1), outermost first, as `lrcore.eigenpairs` has
        them. start: vectors (k, P) of an earlier, nearby one to start from."""

        def apply(vector: np.ndarray, out: np.ndarray) -> None:
            cpu.hessian_vector(*self._numbers, vector, out, self._work)
            out *= sign

        start = np.empty((0, self.size)) if start is None else start
        found = cpu.lanczos(apply, start, count, tolerance)
        return found._replace(values=sign * found.values)

    def eigenvalues(self) -> np.ndarray:
        """All of them, smallest first, from the dense matrix: for small networks."""
        dense = np.empty((self.size, self.size))
        cpu.hessian(*self._numbers, dense, self._work)
        return np.linalg.eigvalsh((dense + dense.T) / 2)
