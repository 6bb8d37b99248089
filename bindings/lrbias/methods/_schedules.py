"""How a learning rate or a ridge changes with the steps: a factor for every step, 1 at its largest or first.

A schedule is data: it is saved with a run, and its factor at step k depends on k alone, so a resumed run goes on as it
would have. Factors are made of products only, apart from one root that is taken when a schedule is made.
"""

import itertools
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BeforeValidator, model_validator

from lrbias.errors import InvalidInput, require
from lrbias.settings import Accepts, Count, Fraction, Settings, Share, Whole, validate


def _increasing(at: Any) -> tuple[int, ...]:
    require(isinstance(at, (list, tuple)) and len(at) > 0, "at", at, "a list of at least one step")
    steps = tuple(validate(Count, "at", step) for step in at)
    require(all(a < b for a, b in itertools.pairwise(steps)), "at", at, "steps that increase")
    return steps


class Steps(Settings):
    """Multiplied by `factor` at each of the steps `at`."""

    kind: ClassVar[str] = "steps"
    factor: Fraction
    at: Annotated[Any, BeforeValidator(_increasing), Accepts("a list of steps that increase")]

    def factors(self, first: int, count: int) -> np.ndarray:
        """The factors of the steps first … first + count − 1."""
        passed = np.searchsorted(np.array(self.at), np.arange(first, first + count), side="right")
        return _powers(self.factor, passed)


class Anneal(Settings):
    """1 up to step `start`, `factor` from step `stop` on; between them in equal ratios, or in equal differences."""

    kind: ClassVar[str] = "anneal"
    factor: Fraction
    start: Whole = 0
    stop: Annotated[Count, Accepts("an integer greater than start")]
    shape: Literal["geometric", "linear"] = "geometric"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        require(self.start < self.stop, "stop", self.stop, f"a step after start = {self.start}")
        return self

    def factors(self, first: int, count: int) -> np.ndarray:
        """As those of `Steps`."""
        length = self.stop - self.start
        done = np.clip(np.arange(first, first + count) - self.start, 0, length)
        if self.shape == "linear":
            factors = 1 - (1 - self.factor) * (done / length)
        else:
            factors = _powers(self.factor ** (1 / length), done)
        factors[done == length] = self.factor
        return factors


class Periodic(Settings):
    """1 for the first `share` of every `period` steps, `factor` for the rest of it."""

    kind: ClassVar[str] = "periodic"
    factor: Fraction
    period: Count
    share: Share = 0.5

    def factors(self, first: int, count: int) -> np.ndarray:
        """As those of `Steps`."""
        place = np.arange(first, first + count) % self.period
        return np.where(place < self.share * self.period, 1.0, self.factor)


SCHEDULES = {schedule.kind: schedule for schedule in (Steps, Anneal, Periodic)}


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
    """A schedule from one, from a dictionary with its kind and settings, or from text like anneal:factor=0.1,stop=500.

    None stays None: the number does not change.
    """
    if value is None or isinstance(value, tuple(SCHEDULES.values())):
        return value
    if isinstance(value, str):
        value = _from_text(argument, value)
    known = f"a schedule of kind {', '.join(SCHEDULES)}, as in anneal:factor=0.1,start=0,stop=1000"
    kind: Any = value.get("kind") if isinstance(value, dict) else None
    require(isinstance(kind, str) and kind in SCHEDULES, argument, value, known)
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
    """KIND:key=value,key=value; several steps are joined by +."""
    kind, _, rest = text.partition(":")
    settings: dict[str, Any] = {"kind": kind}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        require(bool(equals), argument, text, "KIND:key=value,key=value")
        settings[key] = _from_word(value) if key != "at" else [_from_word(word) for word in value.split("+")]
    return settings


def _from_word(word: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word
