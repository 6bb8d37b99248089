"""Frozen, validated settings, and how a refused value is reported."""

import functools
import os
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lrbias.errors import InvalidInput, require, shorten

COPIES = 3  # at least: layers, gradients and products beside each other


def _plain(value):
    """NumPy scalars as Python numbers; strings and booleans are not numbers here."""
    if isinstance(value, (str, bool, np.bool_)):
        raise ValueError("not a number")
    if isinstance(value, np.longdouble):  # which Python has no number for
        return float(value)
    return value.item() if isinstance(value, np.generic) else value


Number = Annotated[float, BeforeValidator(_plain), Field(allow_inf_nan=False)]
Integer = Annotated[int, BeforeValidator(_plain), Field(strict=True)]

Positive = Annotated[Number, Field(gt=0, description="a finite number greater than 0")]
Finite = Annotated[Number, Field(description="a finite number")]
Count = Annotated[Integer, Field(ge=1, lt=2**63, description="an integer of at least 1")]
Depth = Annotated[Integer, Field(ge=1, le=1000, description="an integer of at least 1, at most 1000")]
Scale = Annotated[Number, Field(ge=1e-100, le=1e100, description="a number from 1e-100 to 1e100, greater than 0")]
Whole = Annotated[Integer, Field(ge=0, lt=2**63, description="an integer of at least 0")]
NotNegative = Annotated[Number, Field(ge=0, description="a finite number of at least 0")]
Fraction = Annotated[Number, Field(gt=0, le=1, description="a number greater than 0 and at most 1")]
Share = Annotated[Number, Field(gt=0, lt=1, description="a number between 0 and 1")]
Threads = Annotated[Integer, Field(ge=1, le=256, description="an integer from 1 to 256")]
Compress = Annotated[Literal["auto", "off"], Field(description="auto or off")]
Seed = Annotated[Integer, Field(ge=0, lt=2**64, description="an integer from 0 to 2^64 - 1")]
File = Annotated[Path, Field(description="the path of a file")]


class Settings(BaseModel):
    """Base of everything that is configured: immutable, no unknown keys, one sentence for a refused value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, *args, **values):
        if args:
            raise InvalidInput(f"{type(self).__name__} takes its settings by name: {_names(type(self))}.")
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InvalidInput(_sentence(type(self), error.errors()[0])) from None


def validate(annotation, argument, value):
    """`value` as the annotated type, or InvalidInput naming `argument`."""
    try:
        return _adapter(annotation).validate_python(value)
    except ValidationError:
        raise InvalidInput(
            f"{argument} = {shorten(value)} is not accepted: expected {_accepted(annotation)}."
        ) from None


@functools.cache
def _adapter(annotation):
    """Its making takes milliseconds, a check microseconds."""
    from pydantic import TypeAdapter

    return TypeAdapter(annotation)


def check_memory(argument, value, numbers):
    """InvalidInput when so many float64 numbers are more than this machine can hold with as many beside them."""
    needed = COPIES * 8 * numbers
    there = _memory()
    accepted = f"sizes that fit into memory ({needed / 1e9:.3g} GB are needed, {there / 1e9:.3g} GB are there)"
    require(needed <= there, argument, value, accepted)


def _memory():
    """Bytes of this machine's memory; where it does not say, more than any has."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return 2**46
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_switches(**switches):
    """InvalidInput unless each of them is True, False or None."""
    for argument, value in switches.items():
        require(value is None or isinstance(value, (bool, np.bool_)), argument, value, "True, False or None")


def check_formats(formats):
    """InvalidInput unless every figure format is one of png, pdf, svg. Here, so that checking imports no matplotlib."""
    for name in formats:
        require(name in ("png", "pdf", "svg"), "format", name, "png, pdf or svg")
    return formats


def _accepted(annotation):
    descriptions = [data.description for data in annotation.__metadata__ if getattr(data, "description", None)]
    return descriptions[-1]


def _names(model):
    return ", ".join(model.model_fields)


def _sentence(model, error):
    """One sentence for the first thing that pydantic found wrong."""
    name = str(error["loc"][0]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        return f"{name} = {shorten(error['input'])} is not accepted: {model.__name__} knows only {_names(model)}."
    description = model.model_fields[name].description if name in model.model_fields else None
    if error["type"] == "missing":
        return f"{name} is missing: {model.__name__} expects {description}."
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, InvalidInput):
        return str(cause)
    return f"{name} = {shorten(error['input'])} is not accepted: expected {description or error['msg']}."
