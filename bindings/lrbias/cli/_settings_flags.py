"""The flags of an experiment, made from its settings: type, help, default and group are those of the models."""

import inspect
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from cyclopts import Group, Parameter

from lrbias.cli._console import IntegerFlag, Numbers, Sizes, Words, as_integers, converter_of_paths
from lrbias.experiments import Setting, all_settings, choices
from lrbias.settings import default_of, names_a_file, plain_type

ESSENTIALS = ("method", "lr", "rank", "depth", "steps")
TITLES = {
    "problem": "What is fitted",
    "network": "How the network starts",
    "method": "How it is trained",
    "record": "What is recorded",
    "stop": "When a run ends early",
    "run": "How the run is made",
}
FIRST = Group("Essentials", sort_key=0)
GROUPS = {section: Group(title, sort_key=i) for i, (section, title) in enumerate(TITLES.items(), start=1)}


def with_settings(command: Any) -> Any:
    """Give a command, which takes its settings as **words, a flag for every word of an experiment."""
    own = inspect.signature(command)
    kept = [parameter for parameter in own.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    positional = [parameter for parameter in kept if parameter.kind is not parameter.KEYWORD_ONLY]
    named = [parameter for parameter in kept if parameter.kind is parameter.KEYWORD_ONLY]
    command.__signature__ = own.replace(parameters=[*positional, *_flags(), *named])
    command.__annotations__ |= {flag.name: flag.annotation for flag in _flags()}
    return command


def _flags() -> Iterator[inspect.Parameter]:
    grouped: dict[str, list[Setting]] = {}
    for setting in all_settings():
        grouped.setdefault(setting.word, []).append(setting)
    flags = {word: _flag(word, settings) for word, settings in grouped.items()}
    flags |= {word: _kind_flag(word) for word in choices()}
    yield from (flags[word] for word in sorted(flags, key=_order))


def _order(word: str) -> int:
    """The essentials first; the others in the order of the sections."""
    return ESSENTIALS.index(word) if word in ESSENTIALS else len(ESSENTIALS)


def _flag(word: str, settings: list[Setting]) -> inspect.Parameter:
    """A flag for what may be a setting of several kinds."""
    kind, parser = _type(settings[0])
    shown = Parameter(help=_help(settings), group=_group(word, settings[0].table[0]), show_default=False)
    return _parameter(word, kind, parser, shown)


def _kind_flag(word: str) -> inspect.Parameter:
    kinds, table = choices()[word]
    told = "; told by the other flags" if any(kind.selected_by for kind in kinds) else ""
    text = f"kind of {kinds.section}: {', '.join(kinds.names)} [default: {kinds.default}{told}]"
    return _parameter(word, str, None, Parameter(help=text, group=_group(word, table[0]), show_default=False))


def _parameter(word: str, kind: Any, parser: Any, shown: Parameter) -> inspect.Parameter:
    annotations = [shown] if parser is None else [parser, shown]
    annotation = Annotated[(kind | None, *annotations)]
    return inspect.Parameter(word, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _group(word: str, section: str) -> Group:
    return FIRST if word in ESSENTIALS else GROUPS[section]


def _help(settings: list[Setting]) -> str:
    """What a flag means, of every kind that means something else by it, and its default."""
    meaning = _told_apart({setting.kind or "": setting.field.description or "" for setting in settings})
    defaults = {setting.kind or "": default_of(setting.field) or "" for setting in settings}
    default = _told_apart({kind: text for kind, text in defaults.items() if text})
    return meaning + (f" [default: {default}]" if default else "")


def _told_apart(texts: dict[str, str]) -> str:
    """{kind: text} as one text: alone where all kinds have the same, else with the kinds that have it."""
    having: dict[str, list[str]] = {}
    for kind, text in texts.items():
        having.setdefault(text, []).append(kind)
    if len(having) <= 1:
        return next(iter(having), "")
    return "; ".join(f"of {', '.join(kinds)}: {text}" for text, kinds in having.items())


def _type(setting: Setting) -> tuple[Any, Parameter | None]:
    """(type, how it is parsed) of a flag, from the type of its field."""
    if names_a_file(setting.field):
        return Path, Parameter(converter=converter_of_paths(setting.word))
    kind = plain_type(setting.field.annotation)
    options = [
        part for part in (get_args(kind) if isinstance(kind, types.UnionType) else (kind,)) if part is not type(None)
    ]
    return SHAPES.get(options[0], _simple(options[0], setting.word))


def _simple(kind: Any, word: str) -> tuple[Any, Parameter | None]:
    if get_origin(kind) is Literal or kind is Any:
        return OWN.get(word, (str, None))
    return kind, None


def _parser(annotated: Any) -> Parameter:
    return annotated.__metadata__[0]


PAIR = Parameter(converter=as_integers, negative="")
SHAPES = {
    int: (int, _parser(IntegerFlag)),
    tuple[int, int]: (tuple[int, int], PAIR),
    tuple[int, ...]: (tuple[int, ...], _parser(Sizes)),
    tuple[float, ...]: (tuple[float, ...], _parser(Numbers)),
}
OWN = {"metrics": (tuple[str, ...], _parser(Words)), "entries": (int, _parser(IntegerFlag))}
