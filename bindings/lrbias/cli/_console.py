"""What the commands share: types of flags, exit codes, and how facts are printed."""

import json
import sys
from math import isfinite
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

EXIT_STORE, EXIT_INPUT, EXIT_DIVERGED = 1, 2, 3


def as_integers(kind, tokens):
    """Integers only: the parser's own conversion would round 1.5."""
    from lrbias.errors import InvalidInput

    try:
        numbers = tuple(int(token.value) for token in tokens)
    except ValueError:
        value = " ".join(token.value for token in tokens)
        raise InvalidInput(f"{tokens[0].keyword} = {value} is not accepted: expected integers.") from None
    return numbers[0] if len(numbers) == 1 and kind is int else numbers


def converter_of_paths(argument):
    """Expands `~`, which the shell leaves in --flag=~/folder. argument: its name in a sentence; None: the flag's."""

    def convert(kind, tokens):
        from lrbias.system import as_path

        named = [(argument or (token.keyword or "path").lstrip("-"), token.value) for token in tokens]
        paths = [as_path(name, value) for name, value in named]
        return paths[0] if len(paths) == 1 else tuple(paths)

    return convert


IntegerFlag = Annotated[int | None, Parameter(converter=as_integers)]

Words = Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True, negative="")]
Sizes = Annotated[tuple[int, ...] | None, Parameter(consume_multiple=True, negative="", converter=as_integers)]
Numbers = Annotated[tuple[float, ...] | None, Parameter(consume_multiple=True, negative="")]
Flag = Annotated[bool, Parameter(negative="")]
Place = Annotated[Path, Parameter(converter=converter_of_paths(None))]
File = Annotated[Path, Parameter(converter=converter_of_paths("file"))]
Store = Annotated[Path | None, Parameter(alias="-o", converter=converter_of_paths("store"))]
Output = Annotated[Path | None, Parameter(alias="-o", converter=converter_of_paths("output"))]


def show(facts, text, as_json):
    if as_json:
        print(json.dumps(_plain(facts), allow_nan=False))
    elif text:
        print(text)


def _plain(value):
    """JSON has no NaN or infinity: they become strings."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, float) and not isfinite(value) else value


def show_forecast(expected, as_json, only):
    """What a sweep or a study will take. only: nothing else is asked for, so the facts go to stdout."""
    from lrbias.system import clock

    size = expected["bytes"] / 1e6
    taken = clock(expected["seconds"])
    print(f"{expected['runs']} runs, about {taken} and {size:.0f} MB in all", file=sys.stderr)
    if only:
        show(expected, "", as_json)


def complain(sentence):
    print(f"lrbias: {sentence}", file=sys.stderr)
