"""What the log has rows of."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Quantity:
    """One logged series: its name in the run, the shape of one row, its dtype and its interval in steps."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    interval: int = 1


def each_value(name: "str | Group", value: Any) -> Iterator[tuple[str, Any]]:
    """(name, value) of a row, one for each quantity of a Group's."""
    if isinstance(name, Group):
        yield from name.split(value)
    else:
        yield name, value


class Group:
    """Quantities of one interval whose rows are written together: their numbers one behind the other, in float64."""

    def __init__(self, quantities: Sequence[Quantity], interval: int) -> None:
        self.quantities = tuple(quantities)
        self.interval = interval
        self.places: dict[str, slice] = {}
        self.size = 0
        for quantity in quantities:
            first = self.size
            self.size += math.prod(quantity.shape)
            self.places[quantity.name] = slice(first, self.size)

    def split(self, numbers: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """(name, rows) of each quantity of rows (…, size)."""
        for quantity in self.quantities:
            shape = *numbers.shape[:-1], *quantity.shape
            yield quantity.name, numbers[..., self.places[quantity.name]].reshape(shape)
