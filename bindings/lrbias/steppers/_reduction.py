"""Exact reduction: where target and initialization have a structure that training keeps, fewer numbers are trained.

Diagonal. All layers and a symmetric target have the same eigenvectors V: W_i = V D_i Vᵀ. Every gradient then is
diagonal in V, too, and each mode is a chain of N numbers (Chou et al.).

Compressed. All layers are multiples of orthogonal matrices, W_i = c_i Q_i, and the target Û S V̂ᵀ has a low rank r.
Let B_0 be an orthonormal basis of the span of V̂ and (Q_N ⋯ Q_1)ᵀ Û, and B_i = Q_i B_{i−1}. Then B_iᵀ W_i B_{i−1}
trains like a network of its own on B_Nᵀ Ŵ B_0, at most 2r × 2r, and on what is perpendicular W_i stays a multiple of
Q_i: one more chain of N numbers, for a target value 0, which occurs n − 2r times (Yaras et al. 2023).

Both are equal to training the whole layers in exact arithmetic. In floating point whole layers leave the structure by
rounding errors, which shrink where the structure attracts, near a minimum, and grow exponentially where it does not,
near a saddle: an identical start against a negative eigenvalue is left after some time, and that eigenvalue then is
learnt. The reduction never leaves it. So the two agree up to rounding as long as no saddle lets rounding errors grow.
The bases come from LAPACK, so the bits of these runs are those of one machine.
"""

from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np

from lrbias.devices import CPU, Device
from lrbias.methods import Method
from lrbias.network import Network
from lrbias.problems import Factorization, Problem
from lrbias.steppers._stepper import Stepper
from lrbias.steppers._steps import chain_steps, steps_of
from lrbias.storage import Arrays
from lrcore import layout
from lrcore.status import DIVERGED, OK

TOLERANCE = 1e-13  # of the largest entry: how exactly the structure has to be there
RANK_TOLERANCE = 1e-10  # of directions that Û and V̂ share


def exact_reduction(method: Method, problem: Problem, network: Network, device: Device = CPU) -> Stepper | None:
    """The exact reduction of this training, a Stepper; None where there is none (or it would not be shorter)."""
    if not (method.is_plain_on(problem) and method.fixed):
        return None
    if len(set(network.widths)) > 1 or network.widths[0] == 1 or network.dtype != np.float64:
        return None
    parts = method, problem, network, device
    return DiagonalStepper.of(*parts) or CompressedStepper.of(*parts)


class ReducedStepper(Stepper):
    """`numbers` are trained in place of the layers of `network`."""

    machine = True

    def __init__(self, network: Network, numbers: np.ndarray) -> None:
        self.params = network.params
        self.widths = network.widths
        self.numbers = numbers

    def state(self) -> Arrays:
        return {"state": self.numbers}

    def restore(self, params: np.ndarray, state: Arrays) -> None:
        self.params[:] = params
        self.numbers[:] = state["state"]


class DiagonalStepper(ReducedStepper):
    """numbers (N, ≥ n): the layers in the basis `vectors` of the target, filled up with zeros to whole vectors."""

    reduced = "diagonal"

    def __init__(
        self, network: Network, vectors: np.ndarray, numbers: np.ndarray, chains: Callable[[np.ndarray], int]
    ) -> None:
        super().__init__(network, numbers)
        self.vectors = vectors
        self._chains = chains

    @classmethod
    def of(cls, method: Method, problem: Problem, network: Network, device: Device) -> Self | None:
        if not problem.symmetric:
            return None
        values, vectors = problem.eigen
        seen = [vectors.T @ layer @ vectors for layer in network.layers]
        numbers = np.stack([np.diag(layer) for layer in seen])
        beside = max(np.abs(layer - np.diag(row)).max() for layer, row in zip(seen, numbers, strict=True))
        if beside > TOLERANCE * max(np.abs(numbers).max(), np.finfo(float).tiny):
            return None
        numbers = _padded(numbers)
        return cls(network, vectors, numbers, _chains(method, numbers, values, np.ones(len(values)), device))

    def step(self, losses: np.ndarray, step: int) -> int:
        return self._chains(losses)

    def expand(self) -> None:
        for row, layer in zip(self.numbers, layout.layers(self.params, self.widths), strict=True):
            layer[:] = (self.vectors * row[: len(self.vectors)]) @ self.vectors.T


class _Basis(NamedTuple):
    """bases: B_0 … B_N; rotations: Q_1 … Q_N."""

    bases: list[np.ndarray]
    rotations: list[np.ndarray]


class CompressedStepper(ReducedStepper):
    """numbers: a small network's flat parameters, then (N, a vector) the multiples of the orthogonal matrices."""

    reduced = "compressed"

    def __init__(
        self, method: Method, network: Network, basis: _Basis, target: np.ndarray, numbers: np.ndarray, device: Device
    ) -> None:
        super().__init__(network, numbers)
        self.bases = basis.bases
        self._rotations = basis.rotations
        size, inner = self.bases[0].shape
        depth = len(self.bases) - 1
        small = (inner,) * (depth + 1)
        self._small_widths = layout.as_widths(small)
        self._small = numbers[: layout.size(self._small_widths)]
        self._outside = numbers[layout.size(self._small_widths) :].reshape(depth, -1)
        self._inside = steps_of(method, Factorization(target), small, np.dtype(np.float64), device=device)
        weights = np.array([float(size - inner)])
        self._around = _chains(method, self._outside, np.zeros(1), weights, device)
        self._losses = np.empty(0)

    @classmethod
    def of(cls, method: Method, problem: Problem, network: Network, device: Device) -> Self | None:
        layers = network.layers
        size = network.widths[0]
        scales = [np.linalg.norm(layer) / np.sqrt(size) for layer in layers]
        columns = [np.linalg.norm(layer, axis=0) for layer in layers]  # most networks can be told apart by these
        if any(s == 0 or np.abs(c - s).max() > 1e-9 * s for s, c in zip(scales, columns, strict=True)):
            return None
        rotations = [layer / scale for layer, scale in zip(layers, scales, strict=True)]
        identity = np.eye(size)
        if any(np.abs(q.T @ q - identity).max() > TOLERANCE * len(identity) for q in rotations):
            return None
        whole = identity
        spectrum = problem.svd
        for q in rotations:
            whole = q @ whole
        directions = np.hstack([spectrum.right[:, : spectrum.rank], whole.T @ spectrum.left[:, : spectrum.rank]])
        left, values, _ = np.linalg.svd(directions, full_matrices=False)
        inner = int((values > RANK_TOLERANCE * values[0]).sum())
        if inner == 0 or 2 * inner > len(identity):
            return None
        bases = [left[:, :inner]]
        for q in rotations:
            bases.append(q @ bases[-1])
        params = np.concatenate([(scale * np.eye(inner)).ravel() for scale in scales])
        target = bases[-1].T @ problem.target @ bases[0]
        around = _padded(np.array(scales)[:, None])
        numbers = np.concatenate([params, around.ravel()])
        return cls(method, network, _Basis(bases, rotations), target, numbers, device)

    def step(self, losses: np.ndarray, step: int) -> int:
        """Both parts, and the sum of their losses; the losses before the one that is not finite count."""
        if self._losses.size < losses.size:
            self._losses = np.empty(losses.size)
        around = self._losses[: losses.size]
        codes = self._inside(self._small, losses), self._around(around)
        losses += around
        return OK if codes == (OK, OK) else DIVERGED

    def expand(self) -> None:
        """W_i = B_i w_i B_{i−1}ᵀ + ρ_i (Q_i − B_i B_{i−1}ᵀ)."""
        small = layout.layers(self._small, self._small_widths)
        whole = layout.layers(self.params, self.widths)
        for i, layer in enumerate(whole):
            above = self.bases[i + 1]
            below = self.bases[i]
            scale = self._outside[i, 0]
            layer[:] = above @ (small[i] - scale * np.eye(len(small[i]))) @ below.T + scale * self._rotations[i]


def _padded(array: np.ndarray) -> np.ndarray:
    """A copy in which the last axis is filled up with zeros to whole vectors."""
    lanes = layout.lanes(np.float64)
    copy = layout.aligned((*array.shape[:-1], -(-array.shape[-1] // lanes) * lanes), np.float64)
    copy[...] = 0
    copy[..., : array.shape[-1]] = array
    return copy


def _chains(
    method: Method, modes: np.ndarray, target: np.ndarray, weights: np.ndarray, device: Device
) -> Callable[[np.ndarray], int]:
    """steps(losses) -> status for independent chains, changing `modes` (N, n: whole vectors) in place."""
    return chain_steps(method, modes, _padded(target), _padded(weights), device)
