"""Plateaus of a curve: stretches of records in which it hardly changes. The definition is ours.

While gradient descent learns one singular direction after the other, the effective rank of the product first falls to
about 1 and then climbs in plateaus, at Σ_{i≤k} σ̂_i / σ̂_1 when k values are learnt (the protocol; Chou, Maly, Rauhut).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lrbias.errors import check
from lrbias.settings import NotNegative, as_numbers, as_real, validate

FLATNESS = 0.05  # largest minus smallest rank within a plateau: well below the step between two, which is σ̂_{k+1}/σ̂_1
LEARNT, SETTLED = 0.99, 1e-3  # of the first loss
CHECKED = 16  # records between two looks at whether a run is to stop
SHARE = 0.03  # of the steps made so far that a plateau must last at least


@dataclass(frozen=True)
class Plateau:
    """From step `start` to step `end` the curve stays near `level`, its mean there."""

    start: int
    end: int
    level: float


def plateaus(steps: ArrayLike, values: ArrayLike, flatness: float = FLATNESS, share: float = SHARE) -> list[Plateau]:
    """The plateaus of a curve after its first descent, in order.

    steps     (R,) increasing
    values    (R,) the effective rank, or another curve that falls and then climbs; NaN ends a plateau
    flatness  how much it may change within one
    share     how long one lasts at least, as a share of the step where it ends

    What comes before the curve first is within `flatness` of its smallest value is the start, not a plateau; so a curve
    that has not fallen yet has none. Raises InvalidInput when the lengths differ.
    """
    steps = as_numbers("steps", steps)
    values = as_real("values", values)
    check(steps.shape == values.shape and steps.ndim == 1, "values", values.shape, f"as many as steps, {steps.shape}")
    check(bool(np.isfinite(steps).all()), "steps", "<some are not finite>", "finite numbers")
    flatness, share = validate(NotNegative, "flatness", flatness), validate(NotNegative, "share", share)
    if not np.isfinite(values).any():
        return []
    first = int(np.argmax(values <= np.nanmin(values) + flatness))
    found = []
    while 0 < first < len(values):
        last = _reach(values, first, flatness)
        if steps[last] - steps[first] >= max(share * steps[last], 1):
            found.append(Plateau(int(steps[first]), int(steps[last]), float(values[first : last + 1].mean())))
            first = last + 1
        else:
            first += 1
    return _joined(found, flatness)


def _reach(values: np.ndarray, first: int, flatness: float) -> int:
    """The last index up to which the values from `first` on stay within `flatness` of each other."""
    length = 64
    while True:  # doubling, so that short stretches cost little
        rest = values[first : first + length]
        beyond = ~(np.maximum.accumulate(rest) - np.minimum.accumulate(rest) <= flatness)  # also where it is NaN
        if beyond.any():
            return first + max(int(np.argmax(beyond)) - 1, 0)
        if first + length >= len(values):
            return len(values) - 1
        length *= 2


def _joined(found: list[Plateau], flatness: float) -> list[Plateau]:
    """Neighbours whose levels differ by less than twice `flatness` are one that was cut by a slow drift."""
    joined: list[Plateau] = []
    for plateau in found:
        if joined and abs(joined[-1].level - plateau.level) < 2 * flatness:
            before = joined.pop()
            plateau = Plateau(before.start, plateau.end, (before.level + plateau.level) / 2)
        joined.append(plateau)
    return joined


class PlateauWatch:
    """Says when `wanted` plateaus have been reached while a run goes on. The same for every way to the same step.

    The effective rank is near 1 as soon as the first mode leads, long before that mode is learnt; and while nothing is
    learnt it hardly changes either. So the loss has its say here, by our choice: it is below LEARNT of the first one,
    and in the time that a plateau takes at least it has changed by at most SETTLED of the first one.
    """

    def __init__(self, wanted: int, interval: int) -> None:
        self.wanted = wanted
        self.interval = interval
        self.every = interval * CHECKED
        self._ranks: list[float] = []
        self._losses: list[float] = []

    def restore(self, ranks: np.ndarray, losses: np.ndarray) -> None:
        """Continue where the log has `ranks`, a record each, and `losses`, one for every step made."""
        self._ranks = []
        self._losses = []
        for row, rank in enumerate(ranks):
            self.note_rank(row, rank)
        self.note_losses(0, losses)

    def note_rank(self, row: int, value: float) -> None:
        """Rows come in order, and may repeat the last one."""
        self._ranks[row:] = [float(value)]

    def note_losses(self, step: int, losses: np.ndarray) -> None:
        """Losses of the steps from `step` on: those of recorded steps are kept."""
        self._losses += losses[-step % self.interval :: self.interval].tolist()

    def reached(self) -> bool:
        losses = self._losses
        rows = max(int(SHARE * len(self._losses)), 1)
        if len(losses) <= rows or losses[-1] > LEARNT * losses[0]:
            return False
        if abs(losses[-1] - losses[-1 - rows]) > SETTLED * losses[0]:
            return False
        found = plateaus(np.arange(len(self._ranks)) * self.interval, self._ranks)
        return len(found) >= self.wanted
