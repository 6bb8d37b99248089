"""Multiples of the identity, the same for all layers or with a smaller first one (Chou et al.)."""

from typing import ClassVar

import numpy as np
from pydantic import Field, model_validator

from lrbias.errors import check
from lrbias.network._initialization import INITIALIZATIONS, Drawn
from lrbias.settings import Positive


class _Identities(Drawn):
    reducible: ClassVar[bool] = True
    alpha: Positive = Field(default=0.1, description="multiple α of the identity")

    def first(self) -> float:
        """The multiple of the first layer."""
        return self.alpha

    def layers(self, widths: tuple[int, ...]) -> list[np.ndarray]:
        accepted = f"one for layers that are not all square, as {widths}"
        check(len(set(widths)) == 1, "init", self.name, accepted)
        multiples = [self.first()] + [self.alpha] * (len(widths) - 2)
        return [multiple * np.eye(widths[0]) for multiple in multiples]


@INITIALIZATIONS.add
class ScaledIdentity(_Identities):
    """W_i = αI for every layer."""

    name: ClassVar[str] = "scaled_identity"


@INITIALIZATIONS.add
class Perturbed(_Identities):
    """W_1 = (α − β)I and the other layers αI, with which gradient descent recovers negative eigenvalues, too."""

    name: ClassVar[str] = "perturbed"
    beta: Positive = Field(default=0.05, description="β: W_1 = (alpha - beta) I, the other layers alpha I")

    @model_validator(mode="after")
    def _smaller(self) -> "Perturbed":
        check(self.beta < self.alpha, "beta", self.beta, f"less than alpha, {self.alpha:g}")
        return self

    def first(self) -> float:
        return self.alpha - self.beta
