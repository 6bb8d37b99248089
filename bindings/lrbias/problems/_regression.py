"""A linear network that is fitted to data, whose inputs have a covariance, and the modes in which it learns them."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, NoReturn, Self

import numpy as np
from numpy.typing import ArrayLike

from lrbias.errors import InvalidInput, check
from lrbias.problems._factorization import SYMMETRIC, Problem
from lrbias.problems._matrix_files import read_matrix
from lrbias.settings import Count, NotNegative, as_matrix, validate
from lrcore import objective
from lrcore.objective import Objective

MOMENTS = ("covariance", "correlation", "floor", "samples")  # what a run keeps of the data


class Modes(NamedTuple):
    """The modes of a regression, strongest first: from a small start that is the order in which they are learnt.

    left       (n_N, k)  u_a, as columns; k = min(n_N, n_0)
    strengths  (k,)      s_a: correlation = Σ_a s_a u_a v_aᵀ, its singular value decomposition
    right      (n_0, k)  v_a
    variances  (k,)      d_a = v_aᵀ Σ v_a, that of the inputs along v_a
    values     (k,)      s_a/d_a, what mode a tends to; 0 where s_a is
    off                  ‖ΣV − V diag(d)‖_F / ‖Σ‖_F over the modes with s_a > 0: 0 where Σ and the correlation share
                         these v_a, and a mode learns as if it were alone (`theory.mode`)
    """

    left: np.ndarray
    strengths: np.ndarray
    right: np.ndarray
    variances: np.ndarray
    values: np.ndarray
    off: float


class Regression(Problem):
    """The loss 1/(2m) Σ ‖W x − y‖² over m samples (x, y): ½ tr((W − target) Σ (W − target)ᵀ) + floor.

    inputs   (m, n_0): a sample x per row, as in scikit-learn and PyTorch
    outputs  (m, n_N): its y
    whiten   whether inputs are replaced by Σ^(−1/2) x (ZCA, the whitening that changes them least), on which W then
             acts: Σ becomes the identity, or where the inputs do not span their space the projection onto their span
    center   whether the means of inputs and outputs are subtracted first, which leaves to W what no bias can fit

    target       (n_N, n_0): the least-squares solution, of least norm where Σ is singular
    covariance   (n_0, n_0): Σ = XᵀX/m
    correlation  (n_N, n_0): YᵀX/m = target Σ
    floor        the loss of the target
    samples      m
    whitening    (n_0, n_0): Σ^(−1/2) of the inputs as they were given (and centred); None unless they were whitened

    The data themselves are not kept. Raises InvalidInput when the numbers of rows differ, something is not a finite
    number, or the inputs do not vary.
    """

    errors_over = ("samples",)
    kept = MOMENTS

    @classmethod
    def restored(
        cls, target: np.ndarray, observed: dict[str, Any], reduction: str, source: dict[str, Any] | None
    ) -> Self:
        names = [name for name in (*MOMENTS, "whitening") if name in observed]
        return cls.from_moments(target, **{name: observed[name] for name in names})

    def __init__(self, inputs: ArrayLike, outputs: ArrayLike, whiten: bool = False, center: bool = False) -> None:
        inputs, outputs = as_matrix("inputs", inputs), as_matrix("outputs", outputs)
        for name, value in {"whiten": whiten, "center": center}.items():
            check(isinstance(value, (bool, np.bool_)), name, value, "True or False")
        samples, size = inputs.shape
        accepted = f"as many rows as inputs, {samples}, one for each sample"
        check(len(outputs) == samples, "outputs", f"<an array of shape {outputs.shape}>", accepted)
        x = inputs / np.sqrt(samples)
        y = outputs / np.sqrt(samples)
        level = max(x.shape) * np.finfo(np.float64).eps * np.linalg.norm(x)  # of rounding, also that of a mean
        if center:
            x = x - x.mean(axis=0)
            y = y - y.mean(axis=0)
        left, values, right = np.linalg.svd(x, full_matrices=False)  # Σ itself would square the condition
        rank = int((values > level).sum())
        accepted = "inputs that differ from each other" if center else "inputs that are not all 0"
        check(rank > 0, "inputs", f"<an array of shape {inputs.shape}>", accepted)
        left = left[:, :rank]
        values = values[:rank]
        right = right[:rank]
        seen = y.T @ left
        whitening = None
        covariance = x.T @ x
        if whiten:
            half = right / np.sqrt(values)[:, None]
            whitening = half.T @ half
            values = np.ones(rank)
            covariance = np.eye(size) if rank == size else right.T @ right
        floor = 0.5 * np.sum((y - left @ seen.T) ** 2)
        self._keep((seen / values) @ right, covariance, (seen * values) @ right, floor, samples, whitening)

    @classmethod
    def from_moments(
        cls,
        target: ArrayLike,
        covariance: ArrayLike,
        correlation: ArrayLike,
        floor: float,
        samples: int,
        whitening: ArrayLike | None = None,
    ) -> Self:
        """The Regression that has these attributes, as a run has kept them."""
        problem = cls.__new__(cls)
        problem._keep(target, covariance, correlation, floor, samples, whitening)
        return problem

    def _keep(
        self,
        target: ArrayLike,
        covariance: ArrayLike,
        correlation: ArrayLike,
        floor: float,
        samples: int,
        whitening: ArrayLike | None,
    ) -> None:
        super().__init__(target)
        size = self.shape[1]
        self.covariance = _checked("covariance", covariance, (size, size), symmetric=True)
        self.correlation = _checked("correlation", correlation, self.shape)
        self.whitening = None
        if whitening is not None:
            self.whitening = _checked("whitening", whitening, (size, size), symmetric=True)
        self.floor = validate(NotNegative, "floor", np.asarray(floor)[()])
        self.samples = validate(Count, "samples", np.asarray(samples)[()])

    def objective(self, dtype: np.dtype[Any]) -> Objective:
        scale = self.output_scale
        return objective.regression(self.target / scale, self.covariance * scale**2, self.floor, dtype)

    @functools.cached_property
    def symmetric_loss(self) -> bool:
        """Whether L(Wᵀ) = L(W) exactly, for every W: the target equals its transpose bit for bit, and Σ = c I."""
        white = np.array_equal(self.covariance, self.covariance[0, 0] * np.eye(self.shape[1]))
        return white and np.array_equal(self.target, self.target.T)

    def entries(self, dtype: np.dtype[Any]) -> NoReturn:
        """InvalidInput: a sample is no entry."""
        raise InvalidInput("problem = Regression is not accepted: expected a Completion or Factorization for SGD.")

    def slope(self, product: np.ndarray) -> np.ndarray:
        return (product - self.target) @ self.covariance

    def errors(self, product: np.ndarray) -> dict[str, np.ndarray]:
        """{"train": …}: the root mean square residual, per sample and output."""
        difference = product - self.target
        squares = ((difference @ self.covariance) * difference).sum(axis=(-2, -1)) + 2 * self.floor
        return {"train": np.sqrt(np.maximum(squares, 0) / self.shape[0])}  # rounding may make less than 0 of 0

    @functools.cached_property
    def _modes(self) -> Modes:
        left, strengths, rows = np.linalg.svd(self.correlation, full_matrices=False)
        right = rows.T
        varied = self.covariance @ rows.T
        variances = (right * varied).sum(axis=0)
        known = strengths > max(self.shape) * np.finfo(np.float64).eps * strengths[0]
        values = np.divide(strengths, variances, out=np.zeros_like(strengths), where=known)
        beside = (varied - right * variances)[:, known]
        off = float(np.linalg.norm(beside) / np.linalg.norm(self.covariance))
        return Modes(left, strengths, right, variances, values, off)

    def modes(self) -> Modes:
        """The Modes of this regression: directions, strengths, variances of the inputs, and how far they are apart."""
        return self._modes

    @property
    def mode_directions(self) -> tuple[np.ndarray, np.ndarray]:
        """Those of the correlation, which need not be singular vectors of the target."""
        return self._modes.left, self._modes.right

    @property
    def mode_order(self) -> np.ndarray:
        """The strengths s_a of the modes: from a small start they are learnt in this order."""
        return self._modes.strengths

    @property
    def mode_values(self) -> np.ndarray:
        """s_a/d_a of the modes with s_a > 0, in the order of their strengths."""
        values = self._modes.values
        return values[: np.count_nonzero(values)]

    @property
    def observed(self) -> dict[str, np.ndarray]:
        """The moments of the data, and the whitening where there was one."""
        kept = {name: np.asarray(getattr(self, name)) for name in MOMENTS}
        return kept if self.whitening is None else {**kept, "whitening": self.whitening}

    def settings(self) -> dict[str, Any]:
        return {"target": "target.npy", "observed": "observed.npz"}

    def facts(self) -> dict[str, Any]:
        """What `summary` says of the data."""
        return {"samples": self.samples, "floor": self.floor}

    def __repr__(self) -> str:
        outputs, inputs = self.shape
        white = "whitened inputs" if self.whitening is not None else "inputs"
        return f"Regression({self.samples} samples, {inputs} {white}, {outputs} outputs)"


def _checked(argument: str, value: ArrayLike, shape: tuple[int, int], symmetric: bool = False) -> np.ndarray:
    """A copy of a matrix that cannot be written to, InvalidInput unless it has this shape."""
    matrix = as_matrix(argument, value)
    accepted = f"{'a symmetric matrix of ' if symmetric else ''}shape {shape}"
    fits = matrix.shape == shape
    if fits and symmetric:
        fits = np.abs(matrix - matrix.T).max() <= SYMMETRIC * np.abs(matrix).max()
    check(fits, argument, f"<an array of shape {matrix.shape}>", accepted)
    matrix.flags.writeable = False
    return matrix


def load_regression(inputs: Any, outputs: Any, whiten: bool = False, center: bool = False) -> Regression:
    """The Regression of two files, each as `load_matrix` reads it."""
    matrices = {name: read_matrix(name, path) for name, path in {"inputs": inputs, "outputs": outputs}.items()}
    return Regression(**matrices, whiten=whiten, center=center)
