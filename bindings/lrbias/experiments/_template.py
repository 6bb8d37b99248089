"""A commented experiment file to begin from: every setting with what it means and its default."""

import json
import textwrap
from collections.abc import Iterator
from typing import Any

from lrbias.experiments._words import SECTIONS
from lrbias.settings import Kinds, Settings, accepted_by, default_of, kinds_of, written_fields

WIDTH = 100
FIRST = """\
An experiment of lrbias: lrbias run experiment.toml
Lines that begin with # have their defaults. Every setting is a flag, too (lrbias run --help)."""


def template(schema: str | None = None) -> str:
    """The text of the file. schema: the name of a file with the JSON schema beside it, for editors."""
    lines = [f"#:schema {schema}"] if schema else []
    lines += [f"# {line}" for line in FIRST.splitlines()]
    for section, part in SECTIONS.items():
        lines += ["", *_section(part, section)]
    return "\n".join(lines) + "\n"


def _section(part: Kinds | type[Settings], name: str) -> Iterator[str]:
    """A table of the default kind; the settings of others are named below it."""
    yield f"[{name}]"
    model = part.all[part.default] if isinstance(part, Kinds) else part
    if isinstance(part, Kinds):
        yield from _comment(f"{' | '.join(part.names)}")
        yield f'kind = "{part.default}"'
    inner = {}
    for key, field in written_fields(model).items():
        kinds = kinds_of(field)
        if kinds is not None:
            inner[key] = kinds
            continue
        default = "" if field.default is not None else f" (default: {default_of(field)})"
        yield from _comment(f"{field.description} [{accepted_by(field)}]{default}")
        yield f"# {key} = {_value(field.default)}"
    if isinstance(part, Kinds):
        for other in part:
            if other is not model:
                keys = [key for key, field in written_fields(other).items() if kinds_of(field) is None]
                yield from _comment(f'kind = "{other.name}" has: {", ".join(keys)}')
    for key, kinds in inner.items():
        yield ""
        yield from _section(kinds, f"{name}.{key}")


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="#   ")


def _value(default: Any) -> str:
    """A default as TOML has it; what is not set is shown as an ellipsis."""
    if default is None:
        return "…"
    if isinstance(default, tuple):
        return json.dumps(list(default))
    return json.dumps(default) if isinstance(default, (str, bool)) else str(default)
