"""Reading a sweep, as far as it is: its runs, its table, and the table as an array or a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np

from lrbias.errors import InvalidInput, StoreError, check, shorten
from lrbias.problems import restore
from lrbias.runs import Run
from lrbias.runs import open as open_run
from lrbias.storage import batch_path, current_axes, current_settings, member_at, owner_in, read_json
from lrbias.sweeps._axes import varied_keys
from lrbias.system import as_path, write_file

FORMAT = 2  # 1: with the words of an earlier version
FINAL = (  # last rows in the table
    "product/effective_rank",
    "product/stable_rank",
    "product/numerical_rank",
    "train_error",
    "test_error",
)
NUMBERS = ("step", "t", "elapsed_s", "first_loss", "last_loss", *FINAL, "escaped", "plateaus")
LISTS = ("escape_steps", "plateau_levels", "plateau_lengths")
ENDED = ("finished", "stopped", "diverged")
TABLES = (".csv", ".parquet")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what the cells begin with that a spreadsheet evaluates


def open_sweep(path: str | PathLike[str]) -> Sweep:
    """The Sweep at `path`, as far as it is."""
    path = as_path("path", path)
    check((path / "sweep.json").is_file(), "path", str(path), "a sweep directory, as lrbias sweep writes it")
    return Sweep(path, read_sweep_json(path))


def read_sweep_json(path: Path) -> dict[str, Any]:
    """What sweep.json in the folder `path` says, in the words of today; StoreError unless it describes a sweep.

    The batches of an earlier format say whose they are in the words that it had: "owners" are those, {number: owner}.
    """
    document = read_json(path / "sweep.json")
    if document.get("format") not in (1, FORMAT):
        raise StoreError(
            f"{path}/sweep.json has format {shorten(document.get('format'))}; this version reads 1 and {FORMAT}."
        )
    batches = document.get("batches", {})
    runs: Any = document.get("runs")
    whole = all(isinstance(part, dict) for part in (runs, batches, document.get("base"), document.get("over")))
    whole = whole and all(isinstance(settings, dict) for settings in runs.values())
    whole = whole and all(isinstance(names, list) and set(names) <= set(runs) for names in batches.values())
    if not whole or not isinstance(document.get("made_with"), dict):
        raise StoreError(f"{path}/sweep.json is not what lrbias writes; restore it from a copy.")
    return document if document["format"] == FORMAT else _current(document)


def _current(document: dict[str, Any]) -> dict[str, Any]:
    return {
        **document,
        "base": current_settings(document["base"]),
        "over": current_axes(document["over"]),
        "runs": {name: current_settings(settings) for name, settings in document["runs"].items()},
        "owners": {number: owner_in(document, number) for number in document.get("batches", {})},
    }


class Sweep:
    """The runs of a sweep.

    sweep.names      of all runs, in order; sweep[name] is the Run, sweep.settings(name) its settings
    sweep.varied     the keys that differ between them
    sweep.table()    a dictionary for every run: what is varied, status, losses, ranks, escape steps, plateaus
    sweep.write(…)   the same as a CSV or Parquet file, sweep.to_xarray() as an array with an axis for each that varies
    """

    def __init__(self, path: Path, document: dict[str, Any], failures: dict[str, str] | None = None) -> None:
        self.path = path
        self._document = document
        self._failures = failures or {}
        self._owners: dict[str, str] = {}  # of batches, by their numbers
        self._ended: dict[str, dict[str, Any]] = {}  # rows of runs that have ended, and stay as they are
        self._batch_of = {name: number for number, names in document.get("batches", {}).items() for name in names}

    @property
    def names(self) -> list[str]:
        return list(self._document["runs"])

    @property
    def varied(self) -> list[str]:
        return varied_keys(self._document["over"])

    @property
    def base(self) -> dict[str, Any]:
        """The keys that all runs share, as they were given."""
        return self._document["base"]

    @property
    def info(self) -> dict[str, Any]:
        """Versions and machine that the sweep was begun with."""
        return self._document["made_with"]

    def settings(self, name: str) -> dict[str, Any]:
        known = isinstance(name, str) and name in self._document["runs"]
        check(known, "name", name, f"a run of this sweep ({shorten(self.names)})")
        return self._document["runs"][name]

    def __getitem__(self, name: str) -> Run:
        self.settings(name)
        return self._known(name) or self._opened(name)

    def _known(self, name: str) -> Run | None:
        """The Run, from its directory or its batch; None when there is nothing of it yet."""
        if (self.path / "runs" / name / "config.json").is_file():
            return self._opened(name)
        number = self._batch_of.get(name)
        if number is None or not batch_path(self.path, number).is_file():
            return None
        member = member_at(self.path, number, name, self._owner(number))
        return None if member is None else Run(member, member.config(), restore(*member.data()))

    def _opened(self, name: str) -> Run:
        return cast(Run, open_run(self.path / "runs" / name))

    def _owner(self, number: str) -> str:
        if number not in self._owners:
            self._owners[number] = owner_in(self._document, number)
        return self._owners[number]

    def __len__(self) -> int:
        return len(self.names)

    def _of_all(self, describe: Callable[[str], Any]) -> dict[str, Any]:
        """{name: describe(name)} in order; runs of a batch are read together, since one batch is kept in memory."""
        together = sorted(self.names, key=lambda name: self._batch_of.get(name, ""))
        known = {name: describe(name) for name in together}
        return {name: known[name] for name in self.names}

    def statuses(self) -> dict[str, str]:
        """{name: status}; "missing" for a run that is not begun, "failed" for one that could not be made just now."""
        return self._of_all(self._status)

    def _status(self, name: str) -> str:
        if name in self._failures:
            return "failed"
        run = self._known(name)
        return "missing" if run is None else run.status

    def table(self) -> list[dict[str, Any]]:
        """One dictionary a run. What a run has not got (yet) is None."""
        return list(self._of_all(self._row).values())

    def _row(self, name: str) -> dict[str, Any]:
        if name not in self._ended:
            row = self._describe(name)
            if row["status"] not in ENDED:
                return row
            self._ended[name] = row
        return dict(self._ended[name])

    def _describe(self, name: str) -> dict[str, Any]:
        row = {"run": name, **{key: self.settings(name)[key] for key in self.varied}}
        empty = dict.fromkeys((*NUMBERS, *LISTS))
        run = None if name in self._failures else self._known(name)
        if run is None:
            failure = self._failures.get(name)
            status = ("missing", "not made yet") if failure is None else ("failed", failure)
            return {**row, "status": status[0], "detail": status[1], **empty}
        facts = run.summary()
        escapes, plateaus = facts.get("escape_steps"), facts.get("plateaus")
        return {
            **row,
            "status": run.status,
            "detail": run.detail,
            "step": run.step,
            "t": run.step * run.step_size,
            "elapsed_s": run.elapsed,
            "first_loss": facts["first_loss"],
            "last_loss": facts["last_loss"],
            **{name: _last(run, name) for name in FINAL},
            "escaped": None if escapes is None else sum(step is not None for step in escapes),
            "plateaus": None if plateaus is None else len(plateaus),
            "escape_steps": escapes,
            "plateau_levels": plateaus and [plateau["level"] for plateau in plateaus],
            "plateau_lengths": plateaus and [plateau["end"] - plateau["start"] for plateau in plateaus],
        }

    def counts(self) -> dict[str, int]:
        """{status: number of runs}."""
        counts: dict[str, int] = {}
        for status in self.statuses().values():
            counts[status] = counts.get(status, 0) + 1
        return counts

    def to_xarray(self) -> Any:
        """The table as an xarray.Dataset (extra `xarray`), a dimension for every axis of the sweep.

        An axis of several settings has its rows as dimension, numbered, and each of its settings as a coordinate.
        Escape steps have a dimension `mode` more; NaN where a value did not escape.
        """
        try:
            import xarray
        except ImportError:
            raise InvalidInput("to_xarray needs xarray: pip install 'lrbias[xarray]'.") from None
        rows = self.table()
        over = self._document["over"]
        dimensions = [key.replace(",", "_") for key in over]
        shape = [len(values) for values in over.values()]
        coordinates = {}
        for (key, values), dimension in zip(over.items(), dimensions, strict=True):
            names = varied_keys([key])
            columns = [values] if len(names) == 1 else zip(*values, strict=True)
            for name, column in zip(names, columns, strict=True):
                coordinates[name] = (dimension, [_cell(value) for value in column])
        modes = max((len(row["escape_steps"] or []) for row in rows), default=0)
        escapes = np.full((len(rows), modes), np.nan)
        for i, row in enumerate(rows):
            found = [np.nan if step is None else step for step in row["escape_steps"] or []]
            escapes[i, : len(found)] = found
        variables = {"escape_steps": ((*dimensions, "mode"), escapes.reshape(*shape, modes))}
        for name in ("run", "status", *NUMBERS):
            kind = object if name in ("run", "status") else float
            column = np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=kind)
            variables[name.replace("/", "_")] = (tuple(dimensions), column.reshape(shape))
        return xarray.Dataset(variables, coordinates)

    def write(self, path: str | PathLike[str], rows: list[dict[str, Any]] | None = None) -> None:
        """Write the table to a .csv file (lists joined by spaces, what is missing empty) or, as it is, to a .parquet
        file (extra `parquet`). rows: the table, when it is at hand."""
        file = check_table(path)
        rows = self.table() if rows is None else rows
        write_file(file, as_csv(rows) if file.suffix == ".csv" else _as_parquet(rows))

    def __repr__(self) -> str:
        counts = ", ".join(f"{number} {status}" for status, number in self.counts().items())
        return f"Sweep over {', '.join(self.varied)}: {len(self)} runs ({counts}), store: {self.path}"


def check_table(path):
    """A path that `Sweep.write` can write; InvalidInput otherwise."""
    path = as_path("table", path)
    check(path.suffix in TABLES, "table", str(path), "a file that ends in .csv or .parquet")
    check(path.absolute().parent.is_dir(), "table", str(path), "a file in a folder that exists")
    if path.suffix == ".parquet":
        _arrow()
    return path


def _arrow():
    try:
        import pyarrow.parquet
    except ImportError:
        raise InvalidInput("Parquet needs pyarrow: pip install 'lrbias[parquet]'.") from None
    return pyarrow


def as_csv(rows):
    """Dictionaries with the same keys as a CSV file: lists joined by spaces, what is missing empty.

    Text that a spreadsheet would take for a formula has an apostrophe before it; numbers stay numbers.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _harmless(_cell(value)) for key, value in row.items()})
    return text.getvalue().encode("utf-8")


def _as_parquet(rows):
    arrow = _arrow()
    data = io.BytesIO()
    arrow.parquet.write_table(arrow.Table.from_pylist(rows), data)
    return data.getvalue()


def _last(run, name):
    return run[name][-1].item() if name in run and len(run.steps_of(name)) else None


def _harmless(cell):
    """A cell that no spreadsheet evaluates: text that begins like a formula gets an apostrophe."""
    formula = isinstance(cell, str) and cell.startswith(FORMULA) and not all(map(_is_number, cell.split()))
    return f"'{cell}" if formula else cell


def _is_number(word):
    try:
        float(word)
    except ValueError:
        return False
    return True


def _cell(value):
    if isinstance(value, (list, tuple)):
        return " ".join("" if entry is None else str(entry) for entry in value)
    return value
