"""What is fitted, as settings: the base of all kinds, and their registry."""

from lrbias.problems._factorization import Problem
from lrbias.settings import Kind, Kinds


class Fitted(Kind):
    """What is fitted."""

    @property
    def whole_shape(self) -> tuple[int, int] | None:
        """The shape of the target when all of it is fitted and no file has to be read, else None."""
        return None

    def make(self, depth: int) -> Problem:
        """The Problem. depth: that of the network which is to solve it. Raises InvalidInput."""
        raise NotImplementedError


PROBLEMS = Kinds(
    "problem", word="problem", default="factorization", base=Fitted, home="lrbias.problems", group="lrbias.problems"
)
