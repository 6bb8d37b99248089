"""Tied layers W_2 = W_1ᵀ = U, of a product U Uᵀ."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from lrbias.errors import check
from lrbias.network._initialization import INITIALIZATIONS, Drawn
from lrbias.problems import gaussian
from lrbias.settings import Depth, Positive, Seed
from lrcore import random


@INITIALIZATIONS.add
class Tied(Drawn):
    """W_2 = U and W_1 = Uᵀ: a network of depth 2 whose layers stay tied while it trains. See `Network.tied`."""

    name: ClassVar[str] = "tied"
    depth: Depth = Field(default=2, description=Drawn.model_fields["depth"].description)
    alpha: Positive = Field(default=0.1, description="the entries of U have the standard deviation alpha/√n")
    seed: Seed = Field(default=1, description="seed of U")

    def layers(self, widths: tuple[int, ...]) -> list[np.ndarray]:
        fits = len(widths) == 3 and widths[0] == widths[-1]
        check(fits, "widths", widths, "(n, d, n) for a tied start UUᵀ, which has depth 2")
        half = gaussian(widths[:2], self.seed, stream=1, domain=random.NETWORK) * (self.alpha / np.sqrt(widths[0]))
        return [half.T, half]
