"""Metrics that are functions of the user's: what they may return, and that they go on returning it."""

from typing import Any

import numpy as np

from lrbias.errors import InvalidInput, shorten
from lrbias.storage import Quantity

LARGEST = 8  # bytes of a number in the log


def user_value(name: str, value: Any, where: str) -> np.ndarray:
    """What the function `name` returned, as an array of numbers that the log can hold; else InvalidInput."""
    try:
        array = np.asarray(value)
    except ValueError:  # rows of several lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "fiub":
        raise InvalidInput(f"metrics.{name} returned {shorten(value)} {where}: expected a number or an array of them.")
    if array.dtype.kind == "b":
        return array.astype("i1")
    return array.astype("f8" if array.dtype.itemsize > LARGEST else array.dtype.newbyteorder("="))


def fitting(quantity: Quantity, value: Any, where: str) -> np.ndarray:
    """What a function returned, as a row of its Quantity; InvalidInput unless it has the shape of the first one.

    It has to be of the same kind, too: integers become floats where these were first, a fraction no integer.
    """
    array = user_value(quantity.name, value, where)
    if array.shape != quantity.shape:
        raise InvalidInput(
            f"metrics.{quantity.name} returned an array of shape {array.shape} {where}: expected {quantity.shape}, "
            "as at the first step."
        )
    with np.errstate(all="ignore"):
        row = array.astype(quantity.dtype)
    if row.dtype.kind != "f" and not np.array_equal(row, array):
        raise InvalidInput(
            f"metrics.{quantity.name} returned {shorten(value)} {where}: expected {row.dtype.name}, as at the first "
            "step; a function with fractions returns float(…) from there on."
        )
    return row
