"""How a network starts: what all initializations have, and their registry."""

from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import BeforeValidator, Field

from lrbias.errors import check
from lrbias.network._widths import ACCEPTED, as_widths
from lrbias.problems import orthonormal
from lrbias.settings import Accepts, Depth, Kind, Kinds, Scale, Unset
from lrcore import layout, random

GAUSSIAN = "gaussian"


class Start(NamedTuple):
    """A network before its first step: the arguments of `Network`."""

    params: np.ndarray
    widths: tuple[int, ...]
    settings: dict[str, Any] | None = None
    output_scale: float = 1.0


class Initialization(Kind):
    """How a network starts."""

    output_scale: Scale = Field(
        default=1.0,
        description="the output is so many times the product of the layers; the larger, the lazier the training",
    )

    def start(self, shape: tuple[int, int]) -> Start:
        """The start for a target of `shape` = (outputs, inputs). Raises InvalidInput."""
        raise NotImplementedError


INITIALIZATIONS = Kinds(
    "network",
    word="init",
    default=GAUSSIAN,
    base=Initialization,
    home="lrbias.network",
    group="lrbias.initializations",
)


Widths = Annotated[
    tuple[int, ...] | None,
    BeforeValidator(lambda widths: None if widths is None else as_widths(widths)),
    Unset("hidden layers as wide as the larger side"),
    Accepts(ACCEPTED),
]


class Drawn(Initialization):
    """An initialization that makes its layers; a subclass says how, by `layers`."""

    reducible: ClassVar[bool] = False  # whether there can be an exact reduction from such a start
    exclusive: ClassVar[tuple[tuple[str, ...], ...]] = (("widths", "depth"),)
    widths: Widths = Field(default=None, description="layer widths n_0 … n_N; n_0 columns and n_N rows of the target")
    depth: Depth = Field(default=3, description="number of layers, all as wide as the target's larger side")
    dtype: Literal["float64", "float32"] = Field(default="float64", description="float64 or float32")

    def layers(self, widths: tuple[int, ...]) -> list[np.ndarray]:
        """The layers in float64, W_1 first."""
        raise NotImplementedError

    def numbers(self) -> dict[str, Any]:
        """The settings that the layers depend on, as keys of an experiment file."""
        common = set(Drawn.model_fields)
        return {key: value for key, value in self.model_dump(exclude_none=True).items() if key not in common}

    def output_scale_of(self, widths: tuple[int, ...]) -> float:
        """What the product of the layers is multiplied by, beside `output_scale`."""
        return 1.0

    def start(self, shape: tuple[int, int]) -> Start:
        return self.start_with(self.layer_widths(shape))

    def start_with(self, widths: Any) -> Start:
        """The start of a network of these widths."""
        widths = as_widths(widths)
        with np.errstate(over="ignore"):  # checked below
            params, _ = layout.flatten(self.layers(widths), np.dtype(self.dtype))
        accepted = f"a number for which all weights are finite in {self.dtype}"
        check(np.isfinite(params).all(), *next(iter(self.numbers().items())), accepted)
        named = {} if self.name == GAUSSIAN else {"init": self.name}
        settings = {**named, "widths": list(widths), **self.numbers(), "dtype": self.dtype}
        return Start(params, widths, settings, self.output_scale_of(widths))

    def layer_widths(self, shape: tuple[int, int]) -> tuple[int, ...]:
        """Widths for a target of `shape`: as given, or hidden layers as wide as the larger side."""
        if self.widths is not None:
            return self.widths
        return (shape[1], *[max(shape)] * (self.depth - 1), shape[0])


def orthogonal_layer(shape: tuple[int, int], seed: int, stream: int) -> np.ndarray:
    """A random matrix with orthonormal columns, or rows when there are fewer of them."""
    rows, columns = shape
    tall = orthonormal(max(shape), min(shape), seed, stream, random.NETWORK)
    return tall if rows >= columns else tall.T
