"""How a learning rate or a ridge changes with the steps: a factor for every step, 1 at its largest or first.

A schedule is data: it is saved with a run, and its factor at step k depends on k alone, so a resumed run goes on as it
would have. Factors are made of products only, apart from one root that is taken when a schedule is made.
"""

import itertools
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import BeforeValidator, model_validator

from lrbias.errors import InvalidInput, check
from lrbias.settings import Accepts, Count, Fraction, NonNegativeInt, Settings, Share, did_you_mean, validate


def _increasing(milestones: Any) -> tuple[int, ...]:
    some = isinstance(milestones, (list, tuple)) and len(milestones) > 0
    check(some, "milestones", milestones, "a list of at least one step")
    steps = tuple(validate(Count, "milestones", step) for step in milestones)
    check(all(a < b for a, b in itertools.pairwise(steps)), "milestones", milestones, "steps that increase")
    return steps


class PiecewiseConstant(Settings):
    """Multiplied by `factor` at each of the steps `milestones`."""

    kind: ClassVar[str] = "piecewise_constant"
    factor: Fraction
    milestones: Annotated[Any, BeforeValidator(_increasing), Accepts("a list of steps that increase")]

    def factors(self, first: int, count: int) -> np.ndarray:
        """The factors of the steps first … first + count − 1."""
        passed = np.searchsorted(np.array(self.milestones), np.arange(first, first + count), side="right")
        return _powers(self.factor, passed)


class _Decay(Settings):
    """1 up to step `start`, `factor` from step `stop` on."""

    factor: Fraction
    start: NonNegativeInt = 0
    stop: Annotated[Count, Accepts("an integer greater than start")]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        check(self.start < self.stop, "stop", self.stop, f"a step after start = {self.start}")
        return self

    def factors(self, first: int, count: int) -> np.ndarray:
        """As those of `PiecewiseConstant`."""
        length = self.stop - self.start
        passed = np.clip(np.arange(first, first + count) - self.start, 0, length)
        factors = self._between(passed, length)
        factors[passed == length] = self.factor
        return factors

    def _between(self, passed: np.ndarray, length: int) -> np.ndarray:
        """The factors after `passed` of the `length` steps from `start` to `stop`."""
        raise NotImplementedError


class ExponentialDecay(_Decay):
    """1 up to step `start`, `factor` from step `stop` on; between them in equal ratios."""

    kind: ClassVar[str] = "exponential_decay"

    def _between(self, passed: np.ndarray, length: int) -> np.ndarray:
        return _powers(self.factor ** (1 / length), passed)


class LinearDecay(_Decay):
    """1 up to step `start`, `factor` from step `stop` on; between them in equal differences."""

    kind: ClassVar[str] = "linear_decay"

    def _between(self, passed: np.ndarray, length: int) -> np.ndarray:
        return 1 - (1 - self.factor) * (passed / length)


class SquareWave(Settings):
    """1 for the first `share` of every `period` steps, `factor` for the rest of it."""

    kind: ClassVar[str] = "square_wave"
    factor: Fraction
    period: Count
    share: Share = 0.5

    def factors(self, first: int, count: int) -> np.ndarray:
        """As those of `PiecewiseConstant`."""
        phase = np.arange(first, first + count) % self.period
        return np.where(phase < self.share * self.period, 1.0, self.factor)


SCHEDULES = {schedule.kind: schedule for schedule in (PiecewiseConstant, ExponentialDecay, LinearDecay, SquareWave)}


def _powers(base: float, exponents: np.ndarray) -> np.ndarray:
    """base^k for integers k ≥ 0, by squaring: products round alike on every machine, powers may not."""
    result = np.ones(len(exponents))
    square = base
    left = np.array(exponents)
    while left.any():
        result = np.where(left & 1, result * square, result)
        square = square * square
        left = left >> 1
    return result


def as_schedule(argument: str, value: Any) -> Any:
    """A schedule from one, from a dictionary with its kind and settings, or from text.

    Text is like exponential_decay:factor=0.1,stop=500. None stays None: the number does not change.
    """
    if value is None or isinstance(value, tuple(SCHEDULES.values())):
        return value
    given = value
    if isinstance(value, str):
        value = _from_text(argument, value)
    known = f"a schedule of kind {', '.join(SCHEDULES)}, as in exponential_decay:factor=0.1,start=0,stop=1000"
    kind: Any = value.get("kind") if isinstance(value, dict) else None
    near = did_you_mean(kind, SCHEDULES) if isinstance(kind, str) else ""
    check(isinstance(kind, str) and kind in SCHEDULES, argument, given, known + near)
    settings = {key: setting for key, setting in value.items() if key != "kind"}
    try:
        return SCHEDULES[kind](**settings)
    except InvalidInput as error:
        raise InvalidInput(f"{argument}: {error}") from None


def as_settings(schedule: Any) -> dict[str, Any]:
    """The dictionary that `as_schedule` reads, as a file holds it."""
    settings = {"kind": schedule.kind, **schedule.model_dump()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}


def _from_text(argument: str, text: str) -> dict[str, Any]:
    """KIND:key=value,key=value; several milestones are joined by +."""
    kind, _, rest = text.partition(":")
    settings: dict[str, Any] = {"kind": kind}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        check(bool(equals) and key not in settings, argument, text, "KIND:key=value,key=value, each key once")
        settings[key] = _from_word(value) if key != "milestones" else [_from_word(word) for word in value.split("+")]
    return settings


def _from_word(word: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word
