"""Layers that are balanced, W_{i+1}ᵀW_{i+1} = W_iW_iᵀ (Arora et al. 2018)."""

import itertools
from typing import ClassVar

import numpy as np
from pydantic import Field

from lrbias.network._initialization import INITIALIZATIONS, Drawn, orthogonal_layer
from lrbias.problems import gaussian
from lrbias.settings import Positive, Seed
from lrcore import random


@INITIALIZATIONS.add
class Balanced(Drawn):
    """A random product of spectral norm α^N, shared evenly: W_{i+1}ᵀW_{i+1} = W_iW_iᵀ (Arora et al. 2018).

    The product is a Gaussian matrix of the rank that the narrowest layer allows; every layer has the N-th roots of
    its singular values, between orthonormal directions that fit those of its neighbours.
    """

    name: ClassVar[str] = "balanced"
    alpha: Positive = Field(default=0.1, description="spectral norm α of every layer")
    seed: Seed = Field(default=1, description="seed of the layers")

    def layers(self, widths: tuple[int, ...]) -> list[np.ndarray]:
        depth = len(widths) - 1
        rank = min(widths)
        ends = gaussian((widths[-1], widths[0]), self.seed, 0, random.NETWORK)
        left, values, right = np.linalg.svd(ends, full_matrices=False)
        roots = self.alpha * (values[:rank] / values[0]) ** (1 / depth)
        hidden = enumerate(widths[1:-1], start=1)
        sides = [right[:rank].T, *(orthogonal_layer((n, rank), self.seed, i) for i, n in hidden), left[:, :rank]]
        return [(above * roots) @ below.T for below, above in itertools.pairwise(sides)]
