"""A whole target."""

from typing import Annotated, ClassVar

from pydantic import Field

from lrbias.problems._factorization import Factorization, Problem
from lrbias.problems._registry import PROBLEMS, Fitted
from lrbias.problems._targets import TARGETS, Target, Teacher
from lrbias.settings import OneOf


@PROBLEMS.add
class WholeTarget(Fitted):
    """The loss ½‖W − target‖² of a whole target: see `lb.Factorization`."""

    name: ClassVar[str] = "factorization"
    target: Annotated[Target, OneOf(TARGETS)] = Field(default=Teacher(), description="where the target comes from")

    @property
    def whole_shape(self) -> tuple[int, int] | None:
        return getattr(self.target, "shape", None)

    def make(self, depth: int) -> Problem:
        return Factorization(*self.target.make(depth))
