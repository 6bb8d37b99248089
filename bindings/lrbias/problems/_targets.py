"""Where a target comes from, as settings: a teacher, a file, or given singular values or eigenvalues."""

from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from pydantic import BeforeValidator, Field

from lrbias.errors import check
from lrbias.problems._factorization import as_shape, from_eigenvalues, from_singular_values, load_matrix, teacher
from lrbias.settings import Accepts, Count, Depth, Kind, Kinds, PathOf, Positive, Seed, Unset, Word, as_vector

NUMBERS = Accepts("a list of finite numbers")
SHAPE = "two integers (rows, columns)"
Shape = Annotated[tuple[int, int], BeforeValidator(as_shape), Accepts(SHAPE)]

Crop = Annotated[
    tuple[int, int] | None,
    BeforeValidator(lambda shape: None if shape is None else as_shape(shape, "crop")),
    Accepts(SHAPE),
    Unset("all of it"),
]


def _as_values(argument: str) -> BeforeValidator:
    """Reads a list of numbers, called so in a sentence."""
    return BeforeValidator(lambda values: tuple(as_vector(argument, values).tolist()))


class Made(NamedTuple):
    """A target and how it was made, as flat keys of an experiment file."""

    matrix: np.ndarray
    source: dict[str, Any]


class Target(Kind):
    """Where a target comes from."""

    def make(self, depth: int) -> Made:
        """The matrix. depth: that of the network which is to learn it. Raises InvalidInput."""
        raise NotImplementedError


TARGETS = Kinds("target", word="target_kind", default="teacher", base=Target, home="lrbias.problems")


@TARGETS.add
class Teacher(Target):
    """A random low-rank matrix: see `lb.teacher`."""

    name: ClassVar[str] = "teacher"
    shape: Shape = Field(default=(100, 100), description="rows and columns of the target")
    rank: Count = Field(default=10, description="rank of the teacher")
    depth: Annotated[Depth | None, Word("teacher_depth"), Unset("that of the network, at least 2")] = Field(
        default=None, description="depth of the teacher"
    )
    seed: Annotated[Seed, Word("teacher_seed")] = Field(default=0, description="seed of the target")
    spectral_norm: Positive = Field(default=10.0, description="spectral norm of the target")

    def make(self, depth: int) -> Made:
        depth = self.depth or max(depth, 2)
        matrix = teacher(self.shape, self.rank, depth, self.spectral_norm, self.seed)
        source = {"shape": list(self.shape), "rank": self.rank, "teacher_depth": depth}
        return Made(matrix, {**source, "teacher_seed": self.seed, "spectral_norm": self.spectral_norm})


@TARGETS.add
class TargetFile(Target):
    """A matrix or an image: see `lb.load_matrix`."""

    name: ClassVar[str] = "file"
    selected_by: ClassVar[tuple[str, ...]] = ("target",)
    path: Annotated[Any, PathOf("a matrix"), Word("target")] = Field(
        description="fit this matrix: .npy, .csv, .tsv, .txt or an image (read as grey)"
    )
    spectral_norm: Annotated[Positive | None, Unset("as it is in the file")] = Field(
        default=None, description="spectral norm of the target"
    )
    crop: Crop = Field(default=None, description="rows and columns to cut from the middle of the target file")

    def make(self, depth: int) -> Made:
        crop = self.crop and list(self.crop)
        source = {"target": self.path, "spectral_norm": self.spectral_norm, "crop": crop}
        matrix = load_matrix(self.path, self.spectral_norm, self.crop)
        return Made(matrix, {key: value for key, value in source.items() if value is not None})


@TARGETS.add
class SingularValues(Target):
    """A matrix with given singular values, between random directions: see `lb.from_singular_values`."""

    name: ClassVar[str] = "singular_values"
    selected_by: ClassVar[tuple[str, ...]] = ("values",)
    shape: Shape = Field(default=(100, 100), description="rows and columns of the target")
    values: Annotated[tuple[float, ...], _as_values("values"), NUMBERS] = Field(
        description="singular values of the target, instead of a teacher's"
    )
    seed: Annotated[Seed, Word("teacher_seed")] = Field(default=0, description="seed of the target")

    def make(self, depth: int) -> Made:
        source = {"shape": list(self.shape), "values": list(self.values), "teacher_seed": self.seed}
        return Made(from_singular_values(self.shape, self.values, self.seed), source)


@TARGETS.add
class Eigenvalues(Target):
    """A symmetric matrix with given eigenvalues, between random directions: see `lb.from_eigenvalues`."""

    name: ClassVar[str] = "eigenvalues"
    selected_by: ClassVar[tuple[str, ...]] = ("eigenvalues",)
    shape: Shape = Field(default=(100, 100), description="rows and columns of the target")
    eigenvalues: Annotated[tuple[float, ...], _as_values("eigenvalues"), NUMBERS] = Field(
        description="eigenvalues of a symmetric target, instead of a teacher's"
    )
    seed: Annotated[Seed, Word("teacher_seed")] = Field(default=0, description="seed of the target")

    def make(self, depth: int) -> Made:
        rows, columns = self.shape
        check(rows == columns, "shape", self.shape, "two equal integers, for a matrix with eigenvalues")
        source = {"shape": [rows, columns], "eigenvalues": list(self.eigenvalues), "teacher_seed": self.seed}
        return Made(from_eigenvalues(rows, self.eigenvalues, self.seed), source)
