"""The words of an experiment: every setting under one flat name, which is its flag and its key in a sweep or a run.

An experiment is a model of models: problem, network, method, record, stop, run. A field's word is its name, or where
that would be ambiguous what `Word` says. Everything here is read off the models; nothing is listed twice.
"""

import functools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo

from lrbias.errors import InvalidInput, check, shorten
from lrbias.experiments._options import RunOptions
from lrbias.experiments._stop import Stop
from lrbias.methods import METHODS, Method
from lrbias.metrics import Record
from lrbias.network import INITIALIZATIONS
from lrbias.problems import PROBLEMS
from lrbias.settings import (
    Kind,
    Kinds,
    Settings,
    did_you_mean,
    either,
    kinds_of,
    names_a_file,
    word_of,
    written_fields,
)

SECTIONS: dict[str, Kinds | type[Settings]] = {
    "problem": PROBLEMS,
    "network": INITIALIZATIONS,
    "method": METHODS,
    "record": Record,
    "stop": Stop,
    "run": RunOptions,
}


class Setting(NamedTuple):
    """One field of one model.

    table  where it stands in a TOML file: ("problem", "target")
    kind   the name of the kind that has it, None in a section without kinds
    """

    word: str
    table: tuple[str, ...]
    kind: str | None
    name: str
    field: FieldInfo


@functools.cache
def all_settings() -> tuple[Setting, ...]:
    """Every setting, in the order of the sections; a word that several kinds share comes once for each."""
    return tuple(setting for section, part in SECTIONS.items() for setting in _settings_of(part, (section,)))


def _settings_of(part: Kinds | type[Settings], table: tuple[str, ...]) -> Iterator[Setting]:
    models: Iterable[type[Settings]] = part if isinstance(part, Kinds) else (part,)
    for model in models:
        for name, field in written_fields(model).items():
            inner = kinds_of(field)
            if inner is not None:
                yield from _settings_of(inner, (*table, name))
                continue
            yield Setting(word_of(name, field), table, _kind_name(model), name, field)


def _kind_name(model: type[Settings]) -> str | None:
    """What names a kind; None for the model of a section without kinds."""
    return model.name if issubclass(model, Kind) else None


class Choice(NamedTuple):
    """A place in an experiment where one of some kinds is chosen: kind = … below [table]."""

    kinds: Kinds
    table: tuple[str, ...]


@functools.cache
def choices() -> dict[str, Choice]:
    """{word: Choice}: the words that name a kind."""
    return {choice.kinds.word: choice for choice in _choices()}


def _choices() -> Iterator[Choice]:
    for section, part in SECTIONS.items():
        if isinstance(part, Kinds):
            yield Choice(part, (section,))
            for model in part:
                yield from _inner_choices(model, (section,))


def _inner_choices(model: type[Settings], table: tuple[str, ...]) -> Iterator[Choice]:
    for name, field in written_fields(model).items():
        inner = kinds_of(field)
        if inner is not None:
            yield Choice(inner, (*table, name))


@functools.cache
def known_words() -> tuple[str, ...]:
    """Every word, each once."""
    return tuple(dict.fromkeys([*choices(), *(setting.word for setting in all_settings())]))


@functools.cache
def path_words() -> frozenset[str]:
    """The words whose values name files."""
    return frozenset(setting.word for setting in all_settings() if names_a_file(setting.field))


class Part(NamedTuple):
    """A model and what some words say of it: {field name: value, or the Part of a field that is one of some kinds}."""

    model: type[Settings]
    values: dict[str, Any]

    def build(self) -> Any:
        """The instance. InvalidInput, which calls every field by its word."""
        values = {name: value.build() if isinstance(value, Part) else value for name, value in self.values.items()}
        try:
            return self.model(**values)
        except InvalidInput as error:
            raise InvalidInput(self._by_words(str(error))) from None

    def _by_words(self, sentence: str) -> str:
        for name, field in written_fields(self.model).items():
            word = word_of(name, field)
            if word != name and sentence.startswith((f"{name} =", f"{name} is")):
                return word + sentence.removeprefix(name)
        return sentence

    def table(self, kinds: Kinds | None) -> dict[str, Any]:
        """The same as a TOML table."""
        named = {"kind": _kind_name(self.model)} if kinds is not None else {}
        inner = {name: kinds_of(self.model.model_fields[name]) for name in self.values}
        return named | {
            name: value.table(inner[name]) if isinstance(value, Part) else value for name, value in self.values.items()
        }


def sort(words: dict[str, Any]) -> dict[str, Part]:
    """{section: Part} of an experiment with these words, each of which belongs to one part.

    A method without a network to start from leaves that section out. Raises InvalidInput for unknown words, and those
    of another kind than the one that is chosen.
    """
    for word, value in words.items():
        check_known(word, value)
    left = {word: value for word, value in words.items() if value is not None}
    parts = {"method": _take(METHODS, left)}
    method = parts["method"].model
    starts_empty = issubclass(method, Method) and method.starts_empty
    for section, part in SECTIONS.items():
        if section not in parts and not (section == "network" and starts_empty):
            parts[section] = _take(part, left) if isinstance(part, Kinds) else _take_model(part, left)
    for word, value in left.items():
        raise InvalidInput(_misplaced(word, value, parts))
    return {section: parts[section] for section in SECTIONS if section in parts}


def check_known(word: str, value: Any) -> None:
    """InvalidInput unless there is such a word."""
    known = known_words()
    if word not in known:
        near = did_you_mean(word, known) if isinstance(word, str) else ""
        raise InvalidInput(f"{word} = {shorten(value)} is not accepted{near}: expected one of {', '.join(known)}.")


def _take(kinds: Kinds, left: dict[str, Any]) -> Part:
    """The Part that is one of `kinds`; its words are taken out of `left`."""
    return _take_model(chosen(kinds, left), left, kinds)


def chosen(kinds: Kinds, words: dict[str, Any]) -> type[Settings]:
    """The kind that some words name or are about."""
    name = words.get(kinds.word)
    return kinds.choose(words) if name is None else kinds.find(name)


def _take_model(model: type[Settings], left: dict[str, Any], kinds: Kinds | None = None) -> Part:
    if kinds is not None:
        left.pop(kinds.word, None)
    for group in getattr(model, "exclusive", ()):
        given = [word for word in group if left.get(word) is not None]
        if len(given) > 1:
            accepted = f"only one of {', '.join(group)}"
            check(False, given[1], left[given[1]], f"{accepted} ({given[0]} is given)")
    values = {}
    for name, field in written_fields(model).items():
        inner = kinds_of(field)
        word = word_of(name, field)
        if inner is None and word in left:
            values[name] = left.pop(word)
    for name, field in written_fields(model).items():
        inner = kinds_of(field)
        if inner is not None:
            values[name] = _take(inner, left)
    return Part(model, values)


def _misplaced(word: str, value: Any, parts: dict[str, Part]) -> str:
    """Why a word that exists is not accepted here: it belongs to other kinds than those that are chosen."""
    refused = f"{word} = {shorten(value)} is not accepted"
    tables = _owners(word)
    section = next(iter(tables))[0]
    if section not in parts:
        return f"{refused}: {_kind_name(parts['method'].model)} makes its {section} itself."
    chosen_parts = [*_chosen_parts(tables, parts[section])] or [(next(iter(tables)), parts[section])]
    table, part = max(chosen_parts, key=lambda found: len(found[0]))
    owners = tables[table]
    known = ", ".join(own_words(part.model))
    having = f", which has {known}" if known else ""
    return f"{refused}: it is a setting of {table[-1]} {either(owners)}, not of {_kind_name(part.model)}{having}."


def _chosen_parts(tables: Iterable[tuple[str, ...]], part: Part) -> Iterator[tuple[tuple[str, ...], Part]]:
    """(table, Part) of those of these tables that the chosen kinds have, below the Part of their section."""
    for table in tables:
        found: Any = part
        for name in table[1:]:
            found = found.values.get(name) if isinstance(found, Part) else None
        if isinstance(found, Part):
            yield table, found


def _owners(word: str) -> dict[tuple[str, ...], list[str]]:
    """{table: names of kinds} of those models that have a setting, or the choice of a kind, of this word."""
    if word in choices():
        kinds, table = choices()[word]
        part = SECTIONS[table[0]]
        models = part if isinstance(part, Kinds) else ()
        having = [kind.name for kind in models if kinds in map(kinds_of, written_fields(kind).values())]
        return {table[:-1] or table: having}
    found: dict[tuple[str, ...], list[str]] = {}
    for setting in all_settings():
        if setting.word == word:
            found.setdefault(setting.table, []).extend([setting.kind] if setting.kind else [])
    return {table: list(dict.fromkeys(names)) for table, names in found.items()}


def own_words(model: type[Settings]) -> list[str]:
    """The words of a model, without those of the kinds in it."""
    return [word_of(name, field) for name, field in written_fields(model).items() if kinds_of(field) is None]


def words_of(model: type[Settings]) -> set[str]:
    """The words of a model and of all kinds that its fields can be."""
    words = set(own_words(model))
    for field in written_fields(model).values():
        inner = kinds_of(field)
        if inner is not None:
            words |= {inner.word}.union(*(words_of(kind) for kind in inner))
    return words


def replaced_by(word: str, words: dict[str, Any]) -> set[str]:
    """Which of `words` have no meaning any more when `word` is given beside them: those of kinds that it excludes.

    A flag wins over a file in this way.
    """
    dropped = set()
    for kinds, _ in choices().values():
        new = chosen(kinds, {word: words[word]}) if word == kinds.word else None
        for kind in kinds:
            if word in kind.selected_by:
                new = kind
            dropped |= set(kind.excludes.get(word, ()))
            for group in kind.exclusive:
                if word in group:
                    dropped |= set(group)
        if new is not None:
            dropped |= {kinds.word}.union(*(words_of(kind) for kind in kinds)) - words_of(new)
    return (dropped & set(words)) - {word}
