"""Independent normal entries."""

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from lrbias.errors import check
from lrbias.network._initialization import GAUSSIAN, INITIALIZATIONS, Drawn
from lrbias.problems import gaussian
from lrbias.settings import Finite, Positive, Seed, Unset
from lrcore import layout, random

GAMMA, NTK_GAMMA = 1.5, 0.5  # of the protocol, and of the tangent parametrization


@INITIALIZATIONS.add
class Gaussian(Drawn):
    """Layers with independent normal entries of standard deviation w^−gamma, w the width n_{i−1} of the input.

    Layer i is stream i of `seed`: it does not change when layers are added after it. See `Network.gaussian`.
    """

    name: ClassVar[str] = GAUSSIAN
    gamma: Annotated[Finite | None, Unset(f"{GAMMA}, of ntk {NTK_GAMMA}")] = Field(
        default=None, description="standard deviation w^-gamma, w the width of a layer"
    )
    std: Positive | None = Field(default=None, description="the standard deviation itself, instead of gamma")
    parametrization: Literal["standard", "ntk"] = Field(
        default="standard", description="standard, or ntk (layers are w/√n)"
    )
    seed: Seed = Field(default=1, description="seed of the layers")

    @model_validator(mode="after")
    def _one_deviation(self) -> "Gaussian":
        check(self.std is None or self.gamma is None, "std", self.std, "either std or gamma")
        return self

    @property
    def _tangent(self) -> bool:
        return self.parametrization == "ntk"

    @property
    def _gamma(self) -> float:
        default = NTK_GAMMA if self._tangent else GAMMA
        return default if self.gamma is None else self.gamma

    def layers(self, widths: tuple[int, ...]) -> list[np.ndarray]:
        return [
            gaussian(shape, self.seed, stream=i, domain=random.NETWORK) * self._deviation(shape[1])
            for i, shape in enumerate(layout.shapes(widths), start=1)
        ]

    def _deviation(self, inputs: int) -> float:
        if self.std is not None:
            return self.std
        return np.float64(inputs) ** (self._tangent / 2 - self._gamma)

    def output_scale_of(self, widths: tuple[int, ...]) -> float:
        return float(np.prod([np.float64(n) ** -0.5 for n in widths[:-1]])) if self._tangent else 1.0

    def numbers(self) -> dict[str, Any]:
        deviation = {"gamma": self._gamma} if self.std is None else {"std": self.std}
        tangent = {"parametrization": "ntk"} if self._tangent else {}
        return {**deviation, **tangent, "seed": self.seed}
