"""Jumps of the rank: the rank of every record with hysteresis, so that a value near a threshold is not counted twice.

A direction counts from the record at which its singular value exceeds `upper` · σ_1, until the one at which it is below
`lower` · σ_1. Between the two thresholds it stays what it was. Values up to `floor` never count: of a product that has
collapsed to 0 only rounding is left, in no order. All three are settings, and ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lrbias.errors import check
from lrbias.settings import NotNegative, Positive, as_numbers, validate

LOWER, UPPER = 0.01, 0.02
FLOOR = 1e-4  # of the largest value: the target's, or the largest that was recorded


def jumps(
    steps: ArrayLike, values: ArrayLike, lower: float = LOWER, upper: float = UPPER, floor: float | None = None
) -> Jumps:
    """The Jumps of a rank over time.

    steps   (T,) of the records
    values  (T, k) singular values, largest first; what is not finite keeps the rank
    lower, upper  thresholds relative to σ_1, 0 < lower ≤ upper < 1
    floor   values up to it never count; None: 1e-4 of the largest value that was recorded

    The rank of the first record is the number of values above `lower`. Raises InvalidInput.
    """
    lower, upper = check_thresholds(lower, upper)
    steps, values = as_numbers("steps", steps), as_numbers("values", values)
    fits = values.ndim == 2 and steps.ndim == 1 and len(steps) == len(values) > 0 and values.shape[1] > 0
    check(fits, "values", f"<shape {values.shape}>", "a row for each step, with at least one value")
    check(bool(np.isfinite(steps).all()), "steps", "<some are not finite>", "finite numbers")
    finite = values[np.isfinite(values)]
    floor = FLOOR * finite.max(initial=0) if floor is None else validate(NotNegative, "floor", floor)
    ranks = [int(first_rank(values[0], lower, floor))]
    found = []
    least, most = (column.tolist() for column in _bounds(values, lower, upper, floor))
    for step, low, high in zip(steps[1:], least[1:], most[1:], strict=True):
        ranks.append(min(max(ranks[-1], low), high))
        if ranks[-1] != ranks[-2]:
            found.append(Jump(int(step), ranks[-2], ranks[-1]))
    return Jumps(steps, np.array(ranks), found)


@dataclass(frozen=True)
class Jump:
    """The rank changed between the record before `step` and the one at it."""

    step: int
    before: int
    after: int


@dataclass(frozen=True)
class Jumps:
    """steps and the rank at each; every change of it. `down`, `up`: how many directions were lost and gained."""

    steps: np.ndarray
    ranks: np.ndarray
    events: list[Jump]

    @property
    def down(self) -> int:
        return sum(max(jump.before - jump.after, 0) for jump in self.events)

    @property
    def up(self) -> int:
        return sum(max(jump.after - jump.before, 0) for jump in self.events)

    @property
    def rank(self) -> int:
        """At the last record."""
        return int(self.ranks[-1])


def check_thresholds(lower: float, upper: float) -> tuple[float, float]:
    """(lower, upper); InvalidInput unless 0 < lower ≤ upper < 1."""
    lower, upper = validate(Positive, "lower", lower), validate(Positive, "upper", upper)
    check(upper < 1, "upper", upper, "a number less than 1: σ_1 itself has to count")
    check(lower <= upper, "lower", lower, f"at most upper = {upper:g}")
    return lower, upper


def first_rank(values: np.ndarray, threshold: float, floor: Any) -> np.ndarray:
    """#{σ_i > threshold · σ_1 and > floor} of values (…, k)."""
    return np.sum(values > np.maximum(threshold * values[..., :1], floor), axis=-1)


def next_rank(rank: np.ndarray, values: np.ndarray, lower: float, upper: float, floor: Any) -> np.ndarray:
    """The rank after a record: (…) integers from (…) and values (…, k)."""
    return np.clip(rank, *_bounds(values, lower, upper, floor))


def _bounds(values: np.ndarray, lower: float, upper: float, floor: Any) -> tuple[np.ndarray, np.ndarray]:
    """Between which ranks the one after a record is: from the count above `upper` to that above `lower`."""
    finite = np.isfinite(values).all(axis=-1)
    with np.errstate(invalid="ignore"):
        least, most = (first_rank(values, threshold, floor) for threshold in (upper, lower))
    return np.where(finite, least, 0), np.where(finite, most, values.shape[-1])
