"""Writes what documents and editors read of the settings: docs/settings.md and examples/lrbias.schema.json.

    python docs/generate.py

A test holds both to what this makes.
"""

import json
from pathlib import Path

import numpy as np

import lrbias as lb
from lrbias.experiments import SECTIONS, Setting, all_settings, choices, schema
from lrbias.metrics import METRICS, RunContext
from lrbias.settings import accepted_by, default_of

ROOT = Path(__file__).parent.parent
DEPTH = 3
PAGE = """# Settings

Every setting of an experiment, with its key in an experiment file (`lrbias init` writes one) and its flag. In sweeps
and in `run.settings` a setting has the name of its flag, with `_` for `-`. This page is made by `docs/generate.py`.
"""
METRICS_HEAD = """## Metrics

What each metric records, in a network of any depth: `layer/i` is layer i, `gradient/i` its gradient. `run["METRIC"]` is
the first of these keys, `run["KEY"]` any of them. Those on request are recorded only where they are named.

| metric | keys | on request |
| --- | --- | --- |
"""


def settings_page() -> str:
    """The text of docs/settings.md."""
    parts = [PAGE]
    tables = dict.fromkeys([*(choice.table for choice in choices().values()), *((section,) for section in SECTIONS)])
    for table in sorted(tables, key=lambda table: (list(SECTIONS).index(table[0]), table)):
        parts.append(_section(table))
    return "\n".join([*parts, METRICS_HEAD + "\n".join(_metric_rows()), ""])


def _section(table: tuple[str, ...]) -> str:
    rows = ["| key | kind | flag | accepts | default | meaning |", "| --- | --- | --- | --- | --- | --- |"]
    for word, (kinds, where) in choices().items():
        if where == table:
            rows.append(f"| `kind` | | `--{_flag(word)}` | {_cell(', '.join(kinds.names))} | {kinds.default} | |")
    own: dict[tuple[str, str, str, str], list[Setting]] = {}
    for setting in all_settings():
        if setting.table == table:
            own.setdefault((setting.name, *_cells(setting)), []).append(setting)
    for (name, accepts, default, meaning), settings in own.items():
        kinds = ", ".join(dict.fromkeys(setting.kind for setting in settings if setting.kind))
        rows.append(f"| `{name}` | {kinds} | `--{_flag(settings[0].word)}` | {accepts} | {default} | {meaning} |")
    return f"## [{'.'.join(table)}]\n\n" + "\n".join(rows) + "\n"


def _cells(setting: Setting) -> tuple[str, str, str]:
    field = setting.field
    return tuple(map(_cell, (accepted_by(field), default_of(field) or "", field.description or "")))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _flag(word: str) -> str:
    return word.replace("_", "-")


def _metric_rows():
    for name, metric in METRICS.items():
        keys = dict.fromkeys(_general(key) for key, *_ in metric.quantities(_context()))
        yield f"| `{name}` | {', '.join(f'`{key}`' for key in keys)} | {'yes' if metric.opt_in else ''} |"


def _general(key: str) -> str:
    """A key with i for the number of a layer."""
    return "/".join("i" if part.isdecimal() else part for part in key.split("/"))


def _context() -> RunContext:
    """Of a run in which every metric records something: a target in whose basis all layers are diagonal."""
    problem = lb.Completion(np.diag([3.0, 2.0, 1.0]), entries=6)
    return RunContext(problem, (3,) * (DEPTH + 1), np.float64, lb.Record(), lb.GD(), start=lambda: np.zeros(9 * DEPTH))


def written() -> dict[Path, str]:
    """{file: text} of all that is made."""
    schema_text = json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
    return {ROOT / "docs/settings.md": settings_page(), ROOT / "examples/lrbias.schema.json": schema_text}


if __name__ == "__main__":
    for path, text in written().items():
        path.write_text(text)
        print(path.relative_to(ROOT))
