"""What is fitted: the target, where it comes from, and the loss."""

from __future__ import annotations

import copy
import functools
from os import PathLike
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from lrbias.errors import InvalidInput, check, shorten
from lrbias.problems._matrix_files import read_matrix
from lrbias.problems._modes import MOST, cluster_rows
from lrbias.settings import Count, Depth, Positive, Scale, Seed, as_matrix, as_vector, check_memory, validate
from lrcore import objective, random
from lrcore.layout import as_widths, shapes
from lrcore.objective import Entries, Objective

Source = dict[str, Any] | None  # how a target was made, as flat keys of an experiment
SYMMETRIC = 1e-13  # of the largest entry


def teacher(
    shape: tuple[int, int] = (100, 100), rank: int = 10, depth: int = 3, spectral_norm: float = 10.0, seed: int = 0
) -> np.ndarray:
    """The product of a deep linear teacher network: an array of `shape` = (outputs, inputs) with the given rank.

    The teacher has `depth` Gaussian layers; its first hidden layer has width `rank`, the other hidden layers are as
    wide as the larger side, so the nonzero singular values stay within a factor of a few of each other (one r × r
    Gaussian factor could make the smallest of them nearly zero). The product is scaled to `spectral_norm`.
    The bottleneck and its place are our choice; the protocol asks for a deep teacher of rank r only.

    Raises InvalidInput when rank exceeds the smaller side, or when depth is 1 and rank is below it.
    """
    outputs, inputs = as_shape(shape)
    rank = validate(Count, "rank", rank)
    depth = validate(Depth, "depth", depth)
    spectral_norm = validate(Positive, "spectral_norm", spectral_norm)
    seed = validate(Seed, "seed", seed)
    smaller = min(outputs, inputs)
    check(rank <= smaller, "rank", rank, f"at most {smaller}, the smaller side of shape {(outputs, inputs)}")
    check(depth > 1 or rank == smaller, "depth", depth, "at least 2 for a teacher whose rank is below full")
    check_memory("shape", (outputs, inputs), max(outputs, inputs) ** 2 if depth > 2 else outputs * inputs)
    hidden = [] if depth == 1 else [rank] + [max(outputs, inputs)] * (depth - 2)
    product: np.ndarray | None = None
    for i, (rows, columns) in enumerate(shapes(as_widths([inputs, *hidden, outputs])), start=1):
        layer = gaussian((rows, columns), seed, stream=i, domain=random.TEACHER) / np.sqrt(columns)
        product = layer if product is None else layer @ product
    assert product is not None  # a teacher has a layer
    return product * (spectral_norm / np.linalg.norm(product, 2))


def from_singular_values(shape: tuple[int, int], values: ArrayLike, seed: int = 0) -> np.ndarray:
    """A matrix of `shape` with the given singular `values` (the rest are 0) and random singular vectors."""
    outputs, inputs = as_shape(shape)
    seed = validate(Seed, "seed", seed)
    values = as_vector("values", values)
    check(len(values) <= min(outputs, inputs), "values", values, f"at most {min(outputs, inputs)} singular values")
    check((values >= 0).all(), "values", values, "singular values that are at least 0")
    left = orthonormal(outputs, len(values), seed, stream=1, domain=random.ROTATION)
    right = orthonormal(inputs, len(values), seed, stream=2, domain=random.ROTATION)
    return (left * values) @ right.T


def from_eigenvalues(size: int, eigenvalues: ArrayLike, seed: int = 0) -> np.ndarray:
    """A symmetric (size, size) matrix with the given `eigenvalues` (the rest are 0) and random eigenvectors.

    It equals its transpose bit for bit.
    """
    size, seed = validate(Count, "size", size), validate(Seed, "seed", seed)
    eigenvalues = as_vector("eigenvalues", eigenvalues)
    check_memory("size", size, size**2)
    check(len(eigenvalues) <= size, "eigenvalues", eigenvalues, f"at most {size} eigenvalues")
    vectors = orthonormal(size, len(eigenvalues), seed, stream=1, domain=random.ROTATION)
    matrix = (vectors * eigenvalues) @ vectors.T
    return (matrix + matrix.T) / 2


def gaussian(shape: tuple[int, ...], seed: int, stream: int, domain: int) -> np.ndarray:
    """Standard normal numbers of one counter-based stream, float64."""
    from lrcore import cpu

    out = np.empty(int(np.prod(shape)))
    cpu.normals(np.uint64(seed), np.uint64(stream), np.uint64(domain), out)
    return out.reshape(shape)


def orthonormal(rows: int, columns: int, seed: int, stream: int, domain: int) -> np.ndarray:
    """(rows, columns ≤ rows): random orthonormal columns, uniformly distributed."""
    q, r = np.linalg.qr(gaussian((rows, columns), seed, stream, domain))
    return q * np.sign(np.diag(r))  # makes the distribution uniform and the signs independent of LAPACK


def load_matrix(
    path: str | PathLike[str], spectral_norm: float | None = None, crop: tuple[int, int] | None = None
) -> np.ndarray:
    """A matrix from a file: `.npy`, a table (`.csv`, `.tsv`, `.txt`) or an image (read as grey).

    Grey values of 8 and of 16 bits go from 0 (black) to 1 (white); floating-point ones stay as they are. An image is
    turned as its EXIF orientation says. Refused: several images in one file, transparency, colours of more than 8 bits,
    and tables with empty cells or rows of different lengths.

    spectral_norm: what the matrix is scaled to; None leaves it as it is.
    crop: (rows, columns) to cut from the middle; None keeps all.
    """
    matrix = read_matrix("target", path)
    if crop is not None:
        matrix = _crop(matrix, as_shape(crop, "crop"))
    if spectral_norm is not None:
        norm = np.linalg.norm(matrix, 2)
        check(norm > 0, "target", str(path), "a matrix that is not all zero when it is to be scaled")
        matrix = matrix * (validate(Positive, "spectral_norm", spectral_norm) / norm)
    return matrix


def _crop(matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    fits = shape[0] <= matrix.shape[0] and shape[1] <= matrix.shape[1]
    check(fits, "crop", shape, f"at most the shape of the matrix, {matrix.shape}")
    top, left = ((have - want) // 2 for have, want in zip(matrix.shape, shape, strict=True))
    return matrix[top : top + shape[0], left : left + shape[1]]


def as_shape(shape: Any, argument: str = "shape") -> tuple[int, int]:
    try:
        rows, columns = shape
    except (TypeError, ValueError):
        raise InvalidInput(
            f"{argument} = {shorten(shape)} is not accepted: expected two integers (rows, columns)."
        ) from None
    shape = validate(Count, argument, rows), validate(Count, argument, columns)
    check_memory(argument, shape, shape[0] * shape[1])
    return shape


class SVD(NamedTuple):
    """Singular value decomposition of a target: left (m, k), values (k,), right (n, k); `rank` by rounding level."""

    left: np.ndarray
    values: np.ndarray
    right: np.ndarray
    rank: int

    def clusters(self, count: int, tolerance: float) -> np.ndarray:
        """`lrbias.problems.cluster_rows` of these values: singular vectors of equal ones are fixed up to a rotation."""
        return cluster_rows(self.values, count, tolerance)


class Eigen(NamedTuple):
    """Eigenvalues (n,), largest absolute value first and λ before −λ, and their vectors (n, n) as columns."""

    values: np.ndarray
    vectors: np.ndarray


class Problem:
    """What every loss has: a target matrix (copied, read-only), its spectrum, and how a run writes both down.

    A subclass says how the product is compared with the target: `weights` of the entries, or measurements of its own.
    """

    plain: bool = False  # whether the loss is that of a whole target, which has kernels of its own
    kept: ClassVar[tuple[str, ...]] = ()  # names of `observed` by which a run knows that its loss is of this class
    classes: ClassVar[list[type[Problem]]] = []  # classes whose losses a run can have again
    output_scale: float = 1.0  # what the product of the layers is multiplied by: see `scaled`
    errors_over: ClassVar[tuple[str, ...]] = (
        "observed entries",
        "hidden ones",
    )  # what the errors "train" and "test" are over

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Problem.classes.append(cls)

    @classmethod
    def restored(
        cls, target: np.ndarray, observed: dict[str, Any], reduction: str, source: dict[str, Any] | None
    ) -> Self:
        """The loss that a run has kept: its target, `observed`, and what else its settings say."""
        raise NotImplementedError

    def __init__(self, target: ArrayLike, source: dict[str, Any] | None = None) -> None:
        self.target = as_matrix("target", target)
        self.target.flags.writeable = False
        self.source = dict(source) if source is not None else None

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.target.shape
        return rows, columns

    def scaled(self, output_scale: float) -> Self:
        """This loss for a network whose output is `output_scale` times the product of its layers: see `Network`."""
        if output_scale == self.output_scale:
            return self
        other = copy.copy(self)
        other.output_scale = validate(Scale, "output_scale", output_scale)
        other.plain = False
        return other

    @functools.cached_property
    def svd(self) -> SVD:
        left, values, vt = np.linalg.svd(self.target, full_matrices=False)
        rank = int((values > max(self.shape) * np.finfo(np.float64).eps * values[0]).sum())
        return SVD(left, values, vt.T, rank)

    @functools.cached_property
    def symmetric(self) -> bool:
        """Whether the target is, up to rounding."""
        if len(set(self.shape)) > 1:
            return False
        largest = np.abs(self.target).max()
        return bool(np.abs(self.target - self.target.T).max() <= SYMMETRIC * largest)

    @functools.cached_property
    def symmetric_loss(self) -> bool:
        """Whether L(Wᵀ) = L(W) exactly, for every W: weights, and the target where they are not 0, equal their
        transposes bit for bit. A start with W_2 = W_1ᵀ then keeps that, and `Network.tied` is accepted."""
        weights = self.weights
        seen = np.where(weights > 0, self.target, 0)
        return np.array_equal(weights, weights.T) and np.array_equal(seen, seen.T)

    @functools.cached_property
    def eigen(self) -> Eigen:
        """Eigen of the symmetric part (Ŵ + Ŵᵀ)/2 of a square target."""
        check(len(set(self.shape)) == 1, "target", f"<an array of shape {self.shape}>", "a square matrix")
        values, vectors = np.linalg.eigh((self.target + self.target.T) / 2)
        sizes = np.round(np.abs(values) / max(np.abs(values).max(), np.finfo(float).tiny), 12)  # those of ±λ are equal
        order = np.lexsort((-values, -sizes))
        return Eigen(values[order], vectors[:, order])

    @property
    def mode_directions(self) -> tuple[np.ndarray, np.ndarray]:
        """(left, right): directions, as columns, in which the target is learnt: its singular vectors."""
        return self.svd.left, self.svd.right

    @property
    def mode_order(self) -> np.ndarray:
        """What the modes are ordered by, largest first, and equal in for modes that are learnt together."""
        return self.svd.values

    @property
    def mode_values(self) -> np.ndarray:
        """The strengths to which the modes with a value above rounding level tend."""
        return self.svd.values[: self.svd.rank]

    @property
    def target_known(self) -> bool:
        """Whether the target is what is to be learnt, not one of many matrices that fit what is known of it."""
        return True

    def mode_clusters(self, directions: int | None, tolerance: float) -> np.ndarray:
        """(k, 2): of each followed mode, the first and behind the last of those that share its value.

        directions, tolerance: `Record.directions` and `Record.degenerate`.
        """
        count = directions or min(self.svd.rank, MOST)
        return cluster_rows(self.mode_order, min(count, len(self.mode_order)), tolerance)

    @property
    def weights(self) -> np.ndarray:
        """Of every entry in the loss, shape of the target, where that is one of entries."""
        raise NotImplementedError

    @property
    def observed(self) -> dict[str, np.ndarray]:
        """What a run keeps beside the target to have the loss again: {name: array}."""
        return {}

    def objective(self, dtype: np.dtype[Any]) -> Objective:
        """The loss as the kernels take it, a function of the product of the layers: an `lrcore.objective.Objective`.

        ½ w (s x − y)² = ½ w s² (x − y/s)²: a scaled output is a target and weights that are scaled.
        """
        scale = self.output_scale
        return objective.weighted(self.target / scale, self.weights * scale**2, dtype)

    def entries(self, dtype: np.dtype[Any]) -> Entries:
        """What stochastic steps draw from. InvalidInput where the loss is not one of entries."""
        raise NotImplementedError

    def slope(self, product: np.ndarray) -> np.ndarray:
        """∂L/∂W at an output W."""
        return self.weights * (product - self.target)

    def errors(self, product: np.ndarray) -> dict[str, np.ndarray]:
        """{"train": …, "test": …}: root mean squares of W − Ŵ over what is observed, and what is not but known."""
        return {}

    def settings(self) -> dict[str, Any]:
        """How to have the target again, as keys of an experiment file in the run directory: a teacher is made again,
        anything else is read from the copy that the run keeps."""
        return self.source if self.source and "shape" in self.source else {"target": "target.npy"}

    def facts(self) -> dict[str, Any]:
        """What the summary of a run says of the data: {name: number}."""
        return {}

    def check(self, network: Any) -> None:
        """InvalidInput unless the product of `network` has the shape of the target, and its loss keeps a tied one."""
        ends = (network.widths[-1], network.widths[0])
        accepted = f"widths that start with {self.shape[1]} and end with {self.shape[0]}, the shape of the target"
        check(ends == self.shape, "widths", network.widths, accepted)
        accepted = (
            "a symmetric loss for it: target, mask and measurements that equal their transposes bit for bit, as "
            "(target + target.T) / 2 does"
        )
        check(not network.is_tied or self.symmetric_loss, "init", "tied", accepted)


class Factorization(Problem):
    """The loss L = ½‖W_N ⋯ W_1 − target‖_F².

    target: a real (outputs, inputs) matrix; it is copied and made read-only.
    source: how the target was made, as keys of an experiment file; kept with a run. None: only the matrix is kept.

    Raises InvalidInput when the target is not a finite matrix.
    """

    plain = True

    @classmethod
    def restored(
        cls, target: np.ndarray, observed: dict[str, Any], reduction: str, source: dict[str, Any] | None
    ) -> Self:
        return cls(target, source)

    @property
    def weights(self) -> np.ndarray:
        """Of every entry: 1."""
        return np.ones(self.shape)

    def entries(self, dtype: np.dtype[Any]) -> Entries:
        """All entries, for stochastic steps; the expected step is that of the loss."""
        rows, columns = np.indices(self.shape).reshape(2, -1)
        values = (self.target.ravel() / self.output_scale).astype(dtype)
        return Entries(rows, columns, values, np.dtype(dtype).type(values.size * self.output_scale**2))

    def __repr__(self) -> str:
        return f"Factorization(target of shape {self.shape}, rank {self.svd.rank})"
