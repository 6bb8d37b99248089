"""Layer widths n_0 … n_N."""

import itertools
from typing import Any

from lrbias.errors import InvalidInput, check, shorten
from lrbias.settings import Count, check_memory, validate

MOST_LAYERS = 1000  # of which each has metrics and files of its own
ACCEPTED = "at least two integers (n_0, …, n_N), each at least 1"


def as_widths(widths: Any) -> tuple[int, ...]:
    """`widths` as a tuple of integers, or InvalidInput."""
    try:
        widths = tuple(widths)
    except TypeError:
        raise InvalidInput(f"widths = {shorten(widths)} is not accepted: expected {ACCEPTED}.") from None
    check(len(widths) >= 2, "widths", widths, ACCEPTED)
    check(len(widths) - 1 <= MOST_LAYERS, "widths", widths, f"at most {MOST_LAYERS} layers")
    widths = tuple(validate(Count, "widths", width) for width in widths)
    check_memory("widths", widths, sum(rows * columns for rows, columns in itertools.pairwise(widths)))
    return widths
