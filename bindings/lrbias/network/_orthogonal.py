"""Multiples of random orthogonal matrices."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from lrbias.network._initialization import INITIALIZATIONS, Drawn, orthogonal_layer
from lrbias.settings import Positive, Seed
from lrcore import layout


@INITIALIZATIONS.add
class Orthogonal(Drawn):
    """Layers α times a random orthogonal matrix (orthonormal columns or rows where a layer is not square).

    Layer i is stream i of `seed`.
    """

    name: ClassVar[str] = "orthogonal"
    reducible: ClassVar[bool] = True
    alpha: Positive = Field(default=0.1, description="singular value α of every layer")
    seed: Seed = Field(default=1, description="seed of the layers")

    def layers(self, widths: tuple[int, ...]) -> list[np.ndarray]:
        shapes = enumerate(layout.shapes(widths), start=1)
        return [self.alpha * orthogonal_layer(shape, self.seed, i) for i, shape in shapes]
