"""Frozen, validated settings, and how a refused value is reported."""

import difflib
import functools
import inspect
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from lrbias.errors import InvalidInput, check, shorten
from lrbias.settings._fields import Accepts, PathOf, accepted, accepted_by, default_of, plain_type
from lrbias.settings._renamed import RENAMED

COPIES = 3  # at least: layers, gradients and products beside each other


def _plain(value: Any) -> Any:
    """NumPy scalars as Python numbers; strings and booleans are not numbers here."""
    if isinstance(value, (str, bool, np.bool_)):
        raise ValueError("not a number")
    if isinstance(value, np.longdouble):  # which Python has no number for
        return float(value)
    return value.item() if isinstance(value, np.generic) else value


Number = Annotated[float, BeforeValidator(_plain), Field(allow_inf_nan=False), Accepts("a finite number")]
Integer = Annotated[int, BeforeValidator(_plain), Field(strict=True), Accepts("an integer")]

Positive = Annotated[Number, Field(gt=0), Accepts("a finite number greater than 0")]
Finite = Number
Count = Annotated[Integer, Field(ge=1, lt=2**63), Accepts("an integer of at least 1")]
Depth = Annotated[Integer, Field(ge=1, le=1000), Accepts("an integer of at least 1, at most 1000")]
Scale = Annotated[Number, Field(ge=1e-100, le=1e100), Accepts("a number from 1e-100 to 1e100, greater than 0")]
NonNegativeInt = Annotated[Integer, Field(ge=0, lt=2**63), Accepts("an integer of at least 0")]
NotNegative = Annotated[Number, Field(ge=0), Accepts("a finite number of at least 0")]
Fraction = Annotated[Number, Field(gt=0, le=1), Accepts("a number greater than 0 and at most 1")]
Share = Annotated[Number, Field(gt=0, lt=1), Accepts("a number between 0 and 1")]
Threads = Annotated[Integer, Field(ge=1, le=256), Accepts("an integer from 1 to 256")]
Compress = Literal["auto", "off"]
Seed = Annotated[Integer, Field(ge=0, lt=2**64), Accepts("an integer from 0 to 2^64 - 1")]
Switch = Annotated[bool, Field(strict=True), Accepts("True or False")]
File = Annotated[Path, PathOf("a file")]


class Settings(BaseModel):
    """Base of everything that is configured: immutable, no unknown keys, one sentence for a refused value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """The docstring and the signature name every field, as they are written in its `Field`."""
        described = [_described(name, field) for name, field in cls.model_fields.items() if field.description]
        if described:
            cls.__doc__ = "\n\n".join([inspect.cleandoc(cls.__doc__ or ""), "\n".join(described)])
        cls.__signature__ = inspect.Signature([_parameter(name, field) for name, field in cls.model_fields.items()])

    def __init__(self, *args: Any, **values: Any) -> None:
        """Raises InvalidInput, in one sentence, for a value that is not accepted and for a setting there is not."""
        if args:
            raise InvalidInput(f"{type(self).__name__} takes its settings by name: {_names(type(self))}.")
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InvalidInput(_sentence(type(self), error.errors()[0])) from None


def written_fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model that a file can hold; a function of the user's is none of them."""
    return {name: field for name, field in model.model_fields.items() if not field.exclude}


def _described(name: str, field: FieldInfo) -> str:
    default = default_of(field)
    return f"{name}: {field.description}" + ("" if default is None else f" (default: {default})")


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.is_required() else field.default
    annotation = plain_type(field.annotation)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def did_you_mean(word: str, known: Collection[str]) -> str:
    """The part of a sentence that names the known word which is spelled most like an unknown one; "" for none."""
    now = RENAMED.get(word)
    if now is not None and now in known:
        return f" (it is called {now} now)"
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def validate(annotation: Any, argument: str, value: Any) -> Any:
    """`value` as the annotated type, or InvalidInput naming `argument`."""
    try:
        return _adapter(annotation).validate_python(value)
    except ValidationError:
        raise InvalidInput(f"{argument} = {shorten(value)} is not accepted: expected {accepted(annotation)}.") from None


@functools.cache
def _adapter(annotation: Any) -> Any:
    """Its making takes milliseconds, a check microseconds."""
    from pydantic import TypeAdapter

    return TypeAdapter(annotation)


def check_memory(argument: str, value: Any, numbers: int) -> None:
    """InvalidInput when so many float64 numbers are more than this machine can hold with as many beside them."""
    needed = COPIES * 8 * numbers
    there = _memory()
    accepted = f"sizes that fit into memory ({needed / 1e9:.3g} GB are needed, {there / 1e9:.3g} GB are there)"
    check(needed <= there, argument, value, accepted)


def _memory() -> int:
    """Bytes of this machine's memory; where it does not say, more than any has."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return 2**46
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_switches(**switches: Any) -> None:
    """InvalidInput unless each of them is True, False or None."""
    for argument, value in switches.items():
        check(value is None or isinstance(value, (bool, np.bool_)), argument, value, "True, False or None")


def check_formats(formats: Sequence[str]) -> Sequence[str]:
    """InvalidInput unless every figure format is one of png, pdf, svg. Here, so that checking imports no matplotlib."""
    for name in formats:
        check(name in ("png", "pdf", "svg"), "format", name, "png, pdf or svg")
    return formats


def _names(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields)


def _sentence(model: type[BaseModel], error: Any) -> str:
    """One sentence for the first thing that pydantic found wrong."""
    name = str(error["loc"][0]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        near = did_you_mean(name, model.model_fields)
        return f"{name} = {shorten(error['input'])} is not accepted{near}: {model.__name__} knows only {_names(model)}."
    wanted = accepted_by(model.model_fields[name]) if name in model.model_fields else None
    if error["type"] == "missing":
        return f"{name} is missing: {model.__name__} expects {wanted}."
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, InvalidInput):
        return str(cause)
    return f"{name} = {shorten(error['input'])} is not accepted: expected {wanted or error['msg']}."
