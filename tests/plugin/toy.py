"""A package of somebody else: an initialization, a problem and a metric of its own."""

import itertools
from typing import Annotated

import numpy as np
from pydantic import Field

from lrbias.metrics import metric
from lrbias.network import Drawn
from lrbias.problems import TARGETS, Factorization, Fitted, Target
from lrbias.settings import Finite, OneOf, Positive


class Flat(Drawn):
    """Layers whose entries are all the same number."""

    name = "flat"
    height: Positive = Field(default=0.25, description="entry of every layer")

    def layers(self, widths):
        return [np.full((rows, columns), self.height) for columns, rows in itertools.pairwise(widths)]


class Shifted(Fitted):
    """A target with a number added to each of its entries."""

    name = "shifted"
    selected_by = ("shift",)
    target: Annotated[Target, OneOf(TARGETS)] = Field(TARGETS.read({}), description="where the target comes from")
    shift: Finite = Field(default=0.0, description="number that is added to every entry")

    def make(self, depth):
        return Factorization(self.target.make(depth).matrix + self.shift)


@metric("trace", lambda setup: [("product/trace", (), "float")])
def trace(observation):
    """The sum of the diagonal of the product."""
    return [np.trace(observation.matrix(0))]
