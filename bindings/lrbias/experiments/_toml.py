"""Experiment files: TOML with a table for each section, read as words and written from them."""

import tomllib
from pathlib import Path
from typing import Any

from lrbias.errors import InvalidInput, check, shorten
from lrbias.experiments._words import SECTIONS, all_settings, choices, known_words, path_words, sort
from lrbias.settings import RENAMED_SETTINGS, Kinds, Settings, did_you_mean, kinds_of, word_of, written_fields
from lrbias.storage import current_settings, is_earlier
from lrbias.system import as_path

SWEEP = "sweep"


def read_toml(path: Any) -> dict[str, Any]:
    """The words of an experiment file, and under "sweep" its axes; paths in it are relative to the file."""
    path = as_path("file", path)
    check(path.is_file(), "file", str(path), "the path of an experiment file (.toml) that exists")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise InvalidInput(f"file = {str(path)!r} is not accepted: its lists are nested too deeply.") from None
    except (OSError, ValueError) as error:  # not readable, not UTF-8, no TOML, an integer of thousands of digits
        reason = shorten(f"<{error}", 200)[1:]
        raise InvalidInput(f"file = {str(path)!r} is not accepted: expected a readable TOML file ({reason}).") from None
    earlier = path.name == "experiment.toml" and is_earlier(path.parent)
    words = current_settings(tables) if earlier else _words_of_tables(tables)
    over = words.get(SWEEP)
    if isinstance(over, dict):
        words[SWEEP] = {key: _beside_in_axis(path.parent, key, values) for key, values in over.items()}
    return {key: _beside(path.parent, value) if key in path_words() else value for key, value in words.items()}


def _words_of_tables(tables: dict[str, Any]) -> dict[str, Any]:
    """The words of an experiment from its sections."""
    words: dict[str, Any] = {}
    for section, table in tables.items():
        if section == SWEEP:
            words[SWEEP] = table
            continue
        _require_section(section, table)
        part = SECTIONS[section]
        words |= (
            _words_of_kinds(part, table, section) if isinstance(part, Kinds) else _words_of_model(part, table, section)
        )
    return words


def _require_section(section: str, table: Any) -> None:
    word = RENAMED_SETTINGS.get(section, section)
    if word in known_words() and not isinstance(table, dict):
        raise InvalidInput(
            f"{section} = {shorten(table)} is not accepted: it stands outside of a section; write {_line_of(word)}."
        )
    near = did_you_mean(section, [*SECTIONS, SWEEP])
    accepted = f"one of the sections {', '.join(SECTIONS)}, {SWEEP}{near}"
    check(section in SECTIONS, "section", f"<[{section}]>" if isinstance(table, dict) else section, accepted)
    check(isinstance(table, dict), section, table, f"a section [{section}] with a line for each of its settings")


def _line_of(word: str) -> str:
    """Where a word belongs in an experiment file."""
    if word in choices():
        return f"kind = … below [{'.'.join(choices()[word].table)}]"
    setting = next(setting for setting in all_settings() if setting.word == word)
    return f"{setting.name} = … below [{'.'.join(setting.table)}]"


def _words_of_kinds(kinds: Kinds, table: dict[str, Any], where: str) -> dict[str, Any]:
    """The words of a table whose kind is named in it, or told by its keys."""
    named = {kinds.word: table["kind"]} if "kind" in table else {}
    keys = {key: value for key, value in table.items() if key != "kind"}
    model = kinds.find(table["kind"]) if named else _told_by(kinds, keys)
    return named | _words_of_model(model, keys, where)


def _told_by(kinds: Kinds, keys: dict[str, Any]) -> type[Settings]:
    """The kind that has keys of its own among these."""
    for model in kinds:
        words = {word_of(name, field) for name, field in written_fields(model).items() if name in keys}
        if words & set(model.selected_by):
            return model
    return kinds.all[kinds.default]


def _words_of_model(model: type[Settings], table: dict[str, Any], where: str) -> dict[str, Any]:
    words: dict[str, Any] = {}
    for name, value in table.items():
        field = written_fields(model).get(name)
        if field is None:
            raise InvalidInput(_unknown(name, value, model, where))
        inner = kinds_of(field)
        if inner is None:
            words[word_of(name, field)] = value
            continue
        accepted = f"a section [{where}.{name}] with a line for each of its settings"
        check(isinstance(value, dict), f"{where}.{name}", value, accepted)
        words |= _words_of_kinds(inner, value, f"{where}.{name}")
    return words


def _unknown(name: str, value: Any, model: type[Settings], where: str) -> str:
    known = list(written_fields(model))
    near = did_you_mean(name, known)
    kind = getattr(model, "name", None)
    of = f"[{where}]" + (f" of kind {kind}" if kind else "")
    return f"{name} = {shorten(value)} is not accepted{near}: {of} has {', '.join(known)}."


def to_toml(words: dict[str, Any]) -> str:
    """An experiment file that repeats a run with these settings."""
    import tomli_w

    parts = sort(words)
    tables = {}
    for section, part in parts.items():
        kinds = SECTIONS[section]
        table = part.table(kinds if isinstance(kinds, Kinds) else None)
        if table:
            tables[section] = table
    first = "# Repeats this run: lrbias run experiment.toml (paths are relative to this file)\n"
    return first + tomli_w.dumps(tables)


def _beside(folder: Path, value: Any) -> Any:
    """A path of a file in `folder`, as it is from here."""
    return str(folder / as_path("path", value)) if isinstance(value, str) else value


def _beside_in_axis(folder: Path, names: str, values: Any) -> Any:
    """The values of an axis of a sweep, with the same done to its paths."""
    keys = [key.strip() for key in names.split(",")]
    if not isinstance(values, list) or not set(keys) & path_words():
        return values
    if len(keys) == 1:
        return [_beside(folder, value) for value in values]
    return [_beside_in_row(folder, keys, row) for row in values]


def _beside_in_row(folder: Path, keys: list[str], row: Any) -> Any:
    if not isinstance(row, list) or len(row) != len(keys):
        return row  # which is refused later, with its axis
    return [_beside(folder, value) if key in path_words() else value for key, value in zip(keys, row, strict=True)]
