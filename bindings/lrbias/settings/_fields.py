"""What a setting says of itself beside its type: what it accepts, its word where that is not its name, its kinds.

A field of a `Settings` model is written once:

    lr: Positive = Field(default=1e-3, description="learning rate")

Its default, check, sentence, docstring, flag, help, TOML key and JSON schema come from there.
"""

import functools
import operator
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Accepts:
    """What a type accepts, as the end of the sentence that refuses something else."""

    text: str


@dataclass(frozen=True)
class Word:
    """The flag and flat key of a field whose own name is short for its section alone: `Stop.loss` is stop_loss."""

    text: str


@dataclass(frozen=True)
class Unset:
    """What holds where a field is not set, as its help says it."""

    text: str


@dataclass(frozen=True)
class PathOf:
    """The field names a file, of which `what` says what it holds."""

    what: str


def word_of(name: str, field: FieldInfo) -> str:
    """The flag and flat key of a field."""
    own = [data.text for data in field.metadata if isinstance(data, Word)]
    return own[0] if own else name


def default_of(field: FieldInfo) -> str | None:
    """What a field is where it is not set, in words; None where it has to be."""
    own = [data.text for data in field.metadata if isinstance(data, Unset)]
    if own:
        return own[0]
    return None if field.is_required() else _shown(field.default)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(map(_shown, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def names_a_file(field: FieldInfo) -> bool:
    """Whether the value of a field is a path."""
    return any(isinstance(data, PathOf) for data in _metadata(field.annotation, field.metadata))


def accepted_by(field: FieldInfo) -> str:
    """What a field accepts."""
    return accepted(field.annotation, field.metadata)


def accepted(annotation: Any, metadata: Any = ()) -> str:
    """What an annotated type accepts."""
    own = [data.text for data in metadata if isinstance(data, Accepts)]
    if own:
        return own[-1]
    files = [data.what for data in metadata if isinstance(data, PathOf)]
    if files:
        return f"the path of {files[-1]}"
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is Annotated:
        return accepted(arguments[0], arguments[1:])
    if origin in (Union, types.UnionType):
        inner = [part for part in arguments if part is not type(None)]
        nothing = ", or nothing" if len(inner) < len(arguments) else ""
        return " or ".join(map(accepted, inner)) + nothing
    if origin is Literal:
        return either(arguments)
    return "True or False" if annotation is bool else getattr(annotation, "__name__", str(annotation))


def either(words: Sequence[str]) -> str:
    """a, b or c."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + f" or {words[-1]}"


def plain_type(annotation: Any) -> Any:
    """A type without what is annotated to it: int | None."""
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is Annotated:
        return plain_type(arguments[0])
    if origin in (Union, types.UnionType):
        return functools.reduce(operator.or_, map(plain_type, arguments))
    if origin is tuple:
        return types.GenericAlias(tuple, tuple(part if part is ... else plain_type(part) for part in arguments))
    return annotation


def _metadata(annotation: Any, metadata: Any = ()) -> list[Any]:
    """All that is annotated to a type, also inside of a union."""
    found = list(metadata)
    if get_origin(annotation) is Annotated:
        found += annotation.__metadata__
        found += _metadata(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            found += _metadata(part)
    return found
