"""One self-contained HTML page about runs, sweeps and studies: figures, settings, tables with links, versions.

Nothing in the page is fetched from anywhere and nothing runs in it, so it can be mailed, archived and printed.
"""

from __future__ import annotations

import base64
import functools
import io
import os
from collections.abc import Sequence
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any

from lrbias import plots
from lrbias.comparison import compare
from lrbias.errors import FigureError, InvalidInput, check
from lrbias.plots import caption, our_style, sweep_plots
from lrbias.runs import ModelRun
from lrbias.runs import open as open_run
from lrbias.settings import check_switches
from lrbias.storage import find_batched
from lrbias.studies import study_in
from lrbias.sweeps import open_sweep
from lrbias.system import RunsDisplay, as_path, clock, usual_errors, write_file

COMPARED = {
    "t": "t",
    "last_loss": "loss",
    "effective_rank": "effective rank",
    "largest_difference": "max |Δσ|/σ̂₁",
    "largest_distance": "max ‖ΔW‖/‖Ŵ‖",
}
PHASES = {  # columns of the table of greedy learning
    "start": "start",
    "end": "end",
    "slope": "slope",
    "next_slope": "next slope",
    "rank": "rank",
    "loss": "loss",
    "gradient": "gradient",
}
MOST_RUNS = 60  # of a sweep that get a section of their own
MOST_ROWS = 1000  # of a table
WHOLE_PAGE_DPI, SMALL_DPI = 180, 130
COLOURS = 128  # of a figure's palette: lines and letters need no more, and files are a third of the size
COLUMNS = ("status", "step", "last_loss", "product/effective_rank", "escaped", "plateaus", "elapsed_s")
HEADS = {
    "product/effective_rank": "effective rank",
    "last_loss": "loss",
    "escaped": "modes learnt",
    "elapsed_s": "time",
}


@usual_errors
def report(paths: Sequence[str | PathLike[str]], output: str | PathLike[str], progress: bool | None = None) -> Path:
    """Write the page `output` about `paths` (runs, sweeps, folders of either, studies); returns its path.

    Runs that share a target are compared when no sweeps are among the paths. Raises InvalidInput when a path holds none
    of these or `output` cannot be written.
    """
    check_switches(progress=progress)
    check(isinstance(paths, (str, os.PathLike, list, tuple)), "paths", paths, "a path, or a list of them")
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    check(len(paths) > 0, "paths", paths, "at least one run, sweep or study")
    output = as_path("output", output)
    check(output.suffix in (".html", ".htm"), "output", str(output), "a file that ends in .html")
    check(output.absolute().parent.is_dir(), "output", str(output), "a file in a folder that exists")
    paths = [found for path in paths for found in _expanded(as_path("path", path))]
    parts = [_Part(path, f"part{number}") for number, path in enumerate(paths, start=1)]
    shown = RunsDisplay(progress, sum(part.figures for part in parts), 0)
    sections = [section for part in parts for section in part.sections(shown)]
    runs = [part for part in parts if part.run is not None and not isinstance(part.run, ModelRun)]
    if len(runs) == len(parts) > 1:
        sections.insert(0, _comparison(runs))
    shown.stop()
    write_file(output, _render(sections).encode())
    return output


def _expanded(path):
    """The path, or the sweeps in it when it is a folder of those."""
    alone = (path / "sweep.json").is_file() or study_in(path) is not None
    return [path] if alone else sorted(entry.parent for entry in path.glob("*/sweep.json")) or [path]


class _Part:
    """What one path holds: a run, a sweep, a study, or a folder of runs."""

    def __init__(self, path, anchor):
        self.path = path
        self.anchor = anchor
        self.run: Any = None
        self.sweep: Any = None
        self.findings: Any = None  # of a study
        self.others = []  # runs in the folder
        if (self.path / "sweep.json").is_file():
            self.sweep = open_sweep(self.path)
        elif study := study_in(self.path):
            self.findings = study.read(self.path)
        elif not (self.path / "config.json").is_file() and any(self.path.glob("*/config.json")):
            self.others = sorted(entry.parent for entry in self.path.glob("*/config.json"))
        else:
            known = find_batched(self.path) or (self.path / "config.json").is_file()
            check(known, "path", str(path), "a run directory, a folder of them, a sweep or a study")
            self.run = open_run(path)

    @property
    def figures(self):
        """About how many will be drawn."""
        return len(self._detailed()) + 5 if self.sweep else 5 * max(len(self.others), 1)

    def sections(self, shown):
        if self.sweep:
            yield from self._of_sweep(shown)
        elif self.findings:
            yield _of_findings(self.path, self.findings, self.anchor)
        elif self.others:
            for number, path in enumerate(self.others, start=1):
                run = open_run(path)
                yield _of_run(run, _name(path), f"{self.anchor}-run{number}", plots.available(run), dpi=SMALL_DPI)
                shown.update(str(path), "finished")
        else:
            yield _of_run(self.run, _name(self.path), self.anchor, plots.available(self.run), dpi=WHOLE_PAGE_DPI)
        shown.update(str(self.path), "finished")

    def _detailed(self):
        return self.sweep.names if len(self.sweep) <= MOST_RUNS else []

    def _of_sweep(self, shown):
        made = self.sweep
        rows = self.sweep.table()
        name = _name(self.path)
        detailed = self._detailed()
        fixed = {key: value for key, value in made.base.items() if value is not None}
        notes = [f"{len(made)} runs over {', '.join(made.varied)}: {_counts(made.counts())}."]
        if not detailed:
            notes.append(f"Runs have no sections of their own in a sweep of more than {MOST_RUNS}.")
        if len(rows) > MOST_ROWS:
            notes.append(f"The table shows the first {MOST_ROWS} runs; `lrbias sweep --table` writes all of them.")
        heads = ["run", *made.varied, *(HEADS.get(column, column) for column in COLUMNS)]
        anchors = {row["run"]: f"{self.anchor}-run{number}" for number, row in enumerate(rows, start=1)}
        linked = anchors if detailed else {}
        table = {"heads": heads, "rows": [self._cells(row, linked) for row in rows[:MOST_ROWS]]}
        yield {
            "id": self.anchor,
            "title": f"Sweep {name}",
            "notes": notes,
            "figures": [_figure(draw, text, WHOLE_PAGE_DPI) for _, draw, text in sweep_plots.available(made)],
            "tables": [table],
            "details": [("Settings that all runs share", _facts(fixed)), ("Made with", _facts(made.info))],
        }
        for row in rows if detailed else []:
            if row["status"] not in ("missing", "failed"):
                run = made[row["run"]]
                section = _of_run(run, row["run"], anchors[row["run"]], plots.available(run)[:1], SMALL_DPI)
                yield {**section, "back": self.anchor, "level": 3}
            shown.update(row["run"], row["status"])

    def _cells(self, row, anchors):
        begun = row["status"] not in ("missing", "failed")
        link = anchors.get(row["run"]) if begun else None
        varied = [{"text": _text(row[key])} for key in self.sweep.varied]
        numbers = [{"text": _number(row[column], column), "kind": _kind(column, row)} for column in COLUMNS]
        return [{"text": row["run"], "link": link}, *varied, *numbers]


def _of_run(run, name, anchor, figures, dpi):
    notes, phases = _notes_of_model(run) if isinstance(run, ModelRun) else _notes_of_run(run)
    return {
        "id": anchor,
        "title": f"Run {name}",
        "notes": notes,
        "figures": [_figure(draw, text, dpi) for _, draw, text in figures],
        "tables": [_phases(phases)] if phases else [],
        "details": [("Settings", _facts(run.settings)), ("Made with", _facts(run.info))],
    }


def _notes_of_model(run):
    """(sentences, no phases of greedy learning)."""
    facts = run.summary()
    notes = [f"{run.label}, {facts['layers']} weight matrices: {run.status} at {run.unit} {run.step}; {run.detail}."]
    if facts["records"]:
        first, last = facts[f"average_{run.rank}"]
        notes.append(f"Average rank {first:.4g} → {last:.4g} in {clock(run.elapsed)}.")
        known = [name for name in run.scalars if isfinite(facts[name])]
        notes += [f"Last {name.replace('_', ' ')}: {facts[name]:.4g}." for name in known]
    return notes, []


def _notes_of_run(run):
    """(sentences, phases of greedy learning)."""
    facts = run.summary()
    notes = [f"{run.label}, widths {' → '.join(map(str, run.widths))}: {run.status} at step {run.step}; {run.detail}."]
    if facts["last_loss"] is not None:
        notes.append(f"Loss {facts['first_loss']:.4g} → {facts['last_loss']:.4g} in {clock(run.elapsed)} of training.")
    if "escape_steps" in facts:
        learnt = ", ".join("—" if step is None else str(step) for step in facts["escape_steps"])
        notes.append(f"Modes of the target pass half of their value at step {learnt}.")
    if facts.get("plateaus"):
        levels = ", ".join(f"{plateau['level']:.2f}" for plateau in facts["plateaus"])
        notes.append(f"The effective rank stays at {levels}.")
    return notes, facts.get("phases")


def _phases(phases):
    text = (
        "Of greedy low-rank learning. Start, end: iterations. Slope: how fast the loss falls along the direction "
        "that is added at the start; next slope: along the second steepest one. Rank and loss of the product at the "
        "end, where the gradient of all layers has nearly vanished, and the norm of that gradient."
    )
    rows = [[_cell(_number(phase[name]), "number") for name in PHASES] for phase in phases]
    rows = [[_cell(str(number), "number"), *row] for number, row in enumerate(rows, start=1)]
    return {"title": "Phases", "text": text, "heads": ["phase", *PHASES.values()], "rows": rows}


def _of_findings(path, findings, anchor):
    tables = [
        {"title": title, "text": text, "heads": heads, "rows": [_cells_of(findings, row) for row in rows]}
        for title, text, heads, rows in findings.tables()
    ]
    return {
        "id": anchor,
        "title": f"Study {_name(path)}",
        "notes": findings.notes(),
        "figures": [_figure(draw, text, WHOLE_PAGE_DPI) for _, draw, text in findings.figures()],
        "tables": tables,
        "details": [("Made with", _facts(findings.info))] if findings.info else [],
    }


def _cells_of(findings, row):
    return [_cell(str(value), kind) for value, kind in zip(row, findings.kinds(row), strict=True)]


def _comparison(parts):
    """A section with the runs of `parts` side by side, or with the reason why they cannot be."""
    section = {"id": "comparison", "title": "Comparison", "figures": [], "tables": [], "details": []}
    try:
        compared = compare([part.run for part in parts])
    except InvalidInput as error:
        return {**section, "notes": [str(error)]}
    drawers = [plots.comparison] if compared.order() is None else [plots.comparison, plots.order_of_gd]
    columns = COMPARED
    if compared.followed:
        drawers.append(plots.trajectory_distance)
        columns = {**COMPARED, "largest_trajectory_distance": "max dist/‖Ŵ‖"}
    heads = ["run", "status", *columns.values()]
    names = plots.names_of(compared.runs)
    rows = []
    for part, row in zip(parts, compared.table(), strict=True):
        numbers = [row[column] for column in columns]
        cells = [{"text": _number(number), "kind": "number"} for number in numbers]
        name = names[part.run] + (" (reference)" if row["reference"] else "")
        rows.append([{"text": name, "link": part.anchor}, {"text": row["status"]}, *cells])
    same = "All runs have the same start." if compared.same_start else "The runs do not have the same start."
    if any(part.run.method.phases for part in parts):
        same += " Greedy runs have none, and a time of their own: they are compared as paths alone."
    drawn = [_figure(functools.partial(draw, compared), caption(draw), WHOLE_PAGE_DPI) for draw in drawers]
    return {**section, "notes": [same], "figures": drawn, "tables": [{"heads": heads, "rows": rows}]}


def _figure(draw, text, dpi):
    """What draw() makes, as a data URL, with its caption."""
    from PIL import Image

    data, small = io.BytesIO(), io.BytesIO()
    try:
        with our_style():
            draw().savefig(data, format="png", dpi=dpi)
    except Exception as error:  # a page without one of its figures would not say that it is missing
        raise FigureError(f"a figure of the page cannot be drawn ({type(error).__name__}: {error}): {text}") from error
    image = Image.open(data).convert("RGB").quantize(COLOURS)
    image.save(small, format="png", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(small.getvalue()).decode()
    return {"source": source, "caption": text, "width": image.width, "height": image.height}


def _render(sections):
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("lrbias.reports", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    tops = [section for section in sections if section.get("level") != 3]
    return environment.get_template("report.html.j2").render(sections=sections, tops=tops)


def _name(path):
    return Path(path).resolve().name


def _cell(text, kind=None):
    return {"text": text, "kind": kind}


def _facts(settings):
    return [(key, _text(value)) for key, value in settings.items()]


def _counts(counts):
    return ", ".join(f"{number} {status}" for status, number in counts.items())


def _text(value):
    if isinstance(value, (list, tuple)):
        return " × ".join(map(str, value)) if len(value) < 12 else f"{len(value)} values"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(value, column=None):
    if value is None:
        return "—"
    if column == "elapsed_s":
        return clock(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _kind(column, row):
    return row["status"] if column == "status" else "number"
