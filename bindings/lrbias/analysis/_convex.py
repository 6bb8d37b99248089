"""Matrix completion as a convex problem, solved by SCS through cvxpy (extra `convex`): to hold low-rank bias against.

Sources: Fazel 2002 and Recht, Fazel and Parrilo 2010 for the nuclear norm in place of the rank; Candès and Recht 2009
for completion.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import numpy as np
from numpy.typing import ArrayLike

from lrbias.errors import InvalidInput, check
from lrbias.settings import Positive, as_array, as_matrix, validate
from lrbias.system import one_blas_thread

ITERATIONS = 100_000  # at most; small problems take some hundred


def nuclear_norm_completion(target: ArrayLike, mask: ArrayLike, tolerance: float = 1e-6) -> np.ndarray:
    """The matrix of least nuclear norm with the observed entries: min ‖X‖_* subject to X_ij = target_ij on the mask.

    target: a real (outputs, inputs) matrix, finite also where nothing is observed; only its observed entries are used.
    mask: a boolean matrix of the same shape, True where an entry is observed.
    tolerance: of SCS, absolute and relative, after the entries are scaled so that the largest is 1.

    Returns a float64 (outputs, inputs) array. The observed entries are met to the tolerance, not exactly. Where several
    matrices have the least norm, one of them is returned.

    Raises InvalidInput when cvxpy or SCS is missing, when an argument is not accepted and when SCS finds no optimum.
    """
    return _minimise("nuclear_norm_completion", target, mask, tolerance)


def least_squares_nuclear(target: ArrayLike, mask: ArrayLike, weight: float, tolerance: float = 1e-6) -> np.ndarray:
    """The matrix that fits observed entries at small nuclear norm: min ½ mean (X_ij − target_ij)² + weight ‖X‖_*.

    The mean is over the entries where the mask is True. For weight → 0 this becomes `nuclear_norm_completion`, and from
    weight = ‖observed entries, 0 elsewhere‖₂ / their number on it is 0.

    weight: above 0.
    target, mask, tolerance, what is returned and the errors: as for `nuclear_norm_completion`.
    """
    weight = validate(Positive, "weight", weight)
    return _minimise("least_squares_nuclear", target, mask, tolerance, weight)


def check_installed(name: str) -> None:
    """InvalidInput unless cvxpy and SCS, which it may be installed without, are there for `name`."""
    if any(find_spec(package) is None for package in ("cvxpy", "scs")):
        raise InvalidInput(f"{name} needs cvxpy and SCS: pip install 'lrbias[convex]'.")


def _minimise(
    name: str, target: ArrayLike, mask: ArrayLike, tolerance: float, weight: float | None = None
) -> np.ndarray:
    """weight None: the observed entries are constraints."""
    target = as_matrix("target", target)
    mask = as_array("mask", mask)
    shown = f"<an array of shape {mask.shape} and dtype {mask.dtype}>"
    check(mask.dtype == bool and mask.shape == target.shape, "mask", shown, f"booleans of shape {target.shape}")
    check(mask.any(), "mask", shown, "at least one True, an observed entry")
    tolerance = validate(Positive, "tolerance", tolerance)
    check_installed(name)
    import cvxpy

    price = int(mask.sum()) * (weight or 0)  # of the norm, beside ½ the sum of squares
    if np.linalg.norm(np.where(mask, target, 0), 2) <= price:
        return np.zeros_like(target)  # by the condition of optimality; SCS would only come near
    scale = np.abs(target[mask]).max()
    unknown = cvxpy.Variable(target.shape)
    values = target[mask] / scale
    objective = cvxpy.normNuc(unknown)
    fitted = unknown[mask]
    if price:
        # The residuals are written as price times their multipliers, which are at most 1: accurate for every weight.
        multipliers = cvxpy.Variable(values.shape)
        objective += price / scale / 2 * cvxpy.sum_squares(multipliers)
        fitted += price / scale * multipliers
    problem = cvxpy.Problem(cvxpy.Minimize(objective), [fitted == values])
    with warnings.catch_warnings(), one_blas_thread():
        # cvxpy warns of the status optimal_inaccurate, which is refused below.
        warnings.filterwarnings("ignore", "Solution may be inaccurate", UserWarning)
        try:
            problem.solve(solver=cvxpy.SCS, eps_abs=tolerance, eps_rel=tolerance, max_iters=ITERATIONS)
            status = problem.status
        except cvxpy.SolverError:
            status = "solver_error"
    if status != cvxpy.OPTIMAL:
        raise InvalidInput(
            f"{name} found no optimum: SCS ended with the status {status} (tolerance {tolerance:g}, "
            f"at most {ITERATIONS} iterations)."
        )
    return unknown.value * scale
