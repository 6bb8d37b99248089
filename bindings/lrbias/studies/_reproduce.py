"""`lrbias reproduce`: the runs of a study, and for the protocol the evidence for its four claims."""

import json
from dataclasses import dataclass
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from lrbias.errors import require
from lrbias.settings import Count, check_formats, check_switches, validate
from lrbias.studies._tables import markdown
from lrbias.studies.chou import _study as chou
from lrbias.studies.protocol import CLAIMS, DEFINITIONS, count_verdicts, judge, overall
from lrbias.studies.protocol import _claims as claims
from lrbias.studies.protocol import _runs as protocol
from lrbias.sweeps import as_csv, forecast_sweep, open_sweep, sweep
from lrbias.system import as_path, goes_on_in, write_file

STUDIES = ("protocol", "chou", "wang-jacot", "glrl", "galanti", "regimes")
DEFAULTS = {  # steps and seeds; None where there is no such choice
    "protocol": (50_000, 3),
    "wang-jacot": (1_000_000, 20),
    "galanti": (None, 3),
    "regimes": (None, 3),
}
VERDICTS = (claims.HOLDS, claims.IN_PART, claims.FAILS, claims.NOT_JUDGED)


def reproduce(
    name: str = "protocol",
    store: str | PathLike[str] | None = None,
    steps: int | None = None,
    seeds: int | None = None,
    workers: int | None = None,
    progress: bool | None = None,
    scale: str | None = None,
    folder: str | PathLike[str] | None = None,
) -> Any:
    """Make the runs of a study, as far as they are not made yet, and return what they show.

    name     "protocol": 256 runs with its three starts, more than an hour on two cores; returns Evidence
             "chou": recovery of eigenvalues in deep matrix factorization, seconds; returns a chou.Recovery
             "wang-jacot": jumps of SGD to lower rank, about ten minutes; returns Findings. Needs the extra `convex`
             "glrl": greedy low-rank learning beside gradient flow, three minutes; returns Findings. Needs `convex`, too
             "galanti": ranks of real networks under SGD with weight decay, about an hour on two cores; returns
             Findings. Needs the extra `vision`
             "regimes": lazy and rich, edge of stability, saddles, updates, directions, spectral bias, some minutes;
             returns Findings
    store    a folder, by default reproduced/NAME; started again the study goes on
    steps, seeds   fewer give a quicker and weaker study. Of the protocol: iterations of every run (50 000) and number
             of starts (3); of wang-jacot: steps of every one-way trajectory (1 000 000) and seeds of each cell of the
             phase diagram (20), to which the other numbers are in proportion; of galanti: steps of ResNet-18, and seeds
             of each setting (3); of regimes: starts of each width and γ (3)
    scale, folder  of galanti: "small", or "paper" for the paper's sizes, with CIFAR-10 in `folder` (days on a cluster)
    """
    check_switches(progress=progress)
    steps, seeds = _check(name, steps, seeds, scale, folder)
    store = folder_of(name, store)
    with goes_on_in(store):
        return _study(name, store, steps, seeds, workers, progress, scale or "small", folder)


def folder_of(name, store=None):
    """Where a study is made."""
    return Path("reproduced") / name if store is None else as_path("store", store)


def _study(name, store, steps, seeds, workers, progress, scale, folder):
    if name == "chou":
        return chou.study(store, progress)
    if name == "wang-jacot":
        return wang_jacot_study(store, steps, seeds, workers, progress)
    if name == "glrl":
        return glrl_study(store, progress)
    if name == "galanti":
        return galanti_study(store, steps, seeds, workers, progress, scale, folder)
    if name == "regimes":
        return regimes_study(store, seeds, progress)
    for part, (base, over) in protocol.sweeps(steps, seeds).items():
        sweep(base, over, store / part, workers, progress=progress)
    return read_evidence(store)


def _check(name, steps, seeds, scale=None, folder=None):
    require(isinstance(name, str) and name in STUDIES, "name", name, " or ".join(STUDIES))
    for argument, value in (("scale", scale), ("folder", folder)):
        require(value is None or name == "galanti", argument, value, "nothing for this study")
    for argument, value in (("steps", steps), ("seeds", seeds)):
        fixed = name not in DEFAULTS or (name == "regimes" and argument == "steps")
        require(value is None or not fixed, argument, value, "nothing for a study whose runs are fixed")
    usual = DEFAULTS.get(name, (1, 1))
    steps, seeds = (own if own is not None else other for own, other in zip((steps, seeds), usual, strict=True))
    return None if steps is None else validate(Count, "steps", steps), validate(Count, "seeds", seeds)


def wang_jacot_study(store, steps, seeds, workers, progress):
    from lrbias.analysis import check_installed
    from lrbias.studies.wang_jacot import JumpFindings, Study

    check_installed("the study wang-jacot")  # of which only the last part needs them, minutes later
    return JumpFindings(Study(store, steps, seeds, workers, progress))


def glrl_study(store, progress):
    from lrbias.analysis import check_installed
    from lrbias.studies.glrl import GreedyFindings, Study

    check_installed("the study glrl")
    return GreedyFindings(Study(store, progress))


def galanti_study(store, steps, seeds, workers, progress, scale, folder):
    from lrbias.studies.galanti import RankFindings, Study

    return RankFindings(Study(store, seeds, steps, workers, progress, scale, folder))


def regimes_study(store, seeds, progress):
    from lrbias.studies.regimes import RegimeFindings, Study

    return RegimeFindings(Study(store, seeds, progress))


def is_findings(path):
    """Whether a folder holds a complete study with findings."""
    return _reader(Path(path)) is not None


def read_findings(path):
    """The Findings of a complete study."""
    return _reader(Path(path))(Path(path))


def _reader(path):
    """What reads the findings in a folder; None where there are none."""
    from lrbias.studies.galanti import _tables as galanti_tables
    from lrbias.studies.glrl import _tables as glrl_tables
    from lrbias.studies.regimes import _tables as regimes_tables
    from lrbias.studies.wang_jacot import _tables as wang_jacot_tables

    readers = (
        (glrl_tables.is_greedy, glrl_tables.read_greedy),
        (wang_jacot_tables.is_jumps, wang_jacot_tables.read_jumps),
        (galanti_tables.is_ranks, galanti_tables.read_ranks),
        (regimes_tables.is_regimes, regimes_tables.read_regimes),
    )
    return next((read for known, read in readers if known(path)), None)


def forecast_study(name="protocol", steps=None, seeds=None, workers=None, scale=None, folder=None):
    """{runs, seconds, bytes} of `reproduce`."""
    steps, seeds = _check(name, steps, seeds, scale, folder)
    total = {"runs": 0, "seconds": 0.0, "bytes": 0}
    if name == "chou":
        parts = [chou.expected()]
    elif name == "wang-jacot":
        from lrbias.studies.wang_jacot import _study as wang_jacot

        parts = [wang_jacot.expected(steps, seeds, workers)]
    elif name == "glrl":
        from lrbias.studies.glrl import _study as glrl

        parts = [glrl.expected()]
    elif name == "galanti":
        from lrbias.studies.galanti import _study as galanti

        parts = [galanti.expected(seeds, steps, workers, scale or "small")]
    elif name == "regimes":
        from lrbias.studies.regimes import _study as regimes

        parts = [regimes.expected(seeds)]
    else:
        parts = [forecast_sweep(base, over, workers) for base, over in protocol.sweeps(steps, seeds).values()]
    return {key: sum(part[key] for part in parts) for key in total}


def is_study(path):
    """Whether there is a sweep of the protocol's study in the folder."""
    return any((Path(path) / name / "sweep.json").is_file() for name in protocol.NAMES)


def read_evidence(store: str | PathLike[str]) -> "Evidence":
    """The Evidence of the runs in the sweeps under `store`, as far as they are made."""
    store = as_path("store", store)
    require(is_study(store), "store", str(store), "a folder that `lrbias reproduce protocol` made")
    paths = [store / name for name in sorted(protocol.NAMES)]
    sweeps = {path.name: open_sweep(path) for path in paths if (path / "sweep.json").is_file()}
    runs = []
    for name, made in sweeps.items():
        ended = [run for run, status in made.statuses().items() if status in ("finished", "diverged")]
        runs += [(name.rsplit("-", 1)[0], protocol.target_label(made.settings(run)), made[run]) for run in ended]
    counts = {}
    for made in sweeps.values():
        for status, number in made.counts().items():
            counts[status] = counts.get(status, 0) + number
    return Evidence(Path(store), runs, counts, judge(runs))


@dataclass
class Evidence:
    """runs: (part, target, Run); counts: {status: runs}; settings: every row of evidence, a claims.Setting each."""

    store: Path
    runs: list
    counts: dict
    settings: list

    @property
    def about(self):
        """What was matched and what is our own choice."""
        return protocol.__doc__.split("\n\n", 1)[1].strip()

    def table(self):
        """A dictionary for each statistic and part of the study: medians over the settings of each depth, verdicts."""
        rows = []
        for (claim, statistic, part), members in groupby(sorted(self.settings, key=_place), key=_named):
            members = list(members)
            depths = sorted({s.depth for s in members if s.depth})
            medians = {depth: _median(s for s in members if s.depth == depth) for depth in depths}
            counts = count_verdicts(members)
            median = _median(members)
            named = {"claim": claim, "statistic": statistic, "part": part}
            rows.append({**named, "median": median, "by_depth": medians, **counts, "verdict": overall(members)})
        return rows

    def tables(self):
        """(claim, its definition, heads, rows of texts) for each claim; the last cell of a row is its verdict."""
        rows = self.table()
        for claim, sentence in CLAIMS.items():
            mine = [row for row in rows if row["claim"] == claim]
            depths = sorted({depth for row in mine for depth in row["by_depth"]})
            heads = ["statistic", "targets", *(f"N = {depth}" for depth in depths), "median", *VERDICTS, "verdict"]
            cells = []
            for row in mine:
                numbers = [_shown(row["by_depth"].get(depth)) for depth in depths] + [_shown(row["median"])]
                counts = [str(row[verdict]) for verdict in VERDICTS]
                cells.append([row["statistic"], row["part"], *numbers, *counts, row["verdict"]])
            yield sentence, DEFINITIONS[claim], heads, cells

    def as_dict(self):
        """What `--json` prints."""
        return {"runs": self.counts, "table": self.table(), "settings": [s.as_dict() for s in self.settings]}

    def save(self, formats=("png", "pdf")):
        """Write evidence.md, evidence.csv, evidence.json and the figures into the store; returns the paths."""
        from lrbias.studies.protocol import _plots as claim_plots

        check_formats(formats)
        rows = [{**s.as_dict(), "detail": json.dumps(s.detail)} for s in self.settings]
        written = {
            "evidence.md": str(self).encode() + b"\n",
            "evidence.csv": as_csv(rows),
            "evidence.json": json.dumps(self.as_dict(), indent=1).encode(),
        }
        for name, data in written.items():
            write_file(self.store / name, data)
        figures = claim_plots.save(self.runs, self.settings, self.store / "figures", formats)
        return [*(self.store / name for name in written), *figures]

    def __str__(self):
        lines = ["# The protocol's four claims", "", self.about, ""]
        counts = ", ".join(f"{number} {status}" for status, number in self.counts.items())
        lines += [f"{sum(self.counts.values())} runs: {counts}.", ""]
        for sentence, definition, heads, cells in self.tables():
            cells = [[*row[:-1], f"**{row[-1]}**"] for row in cells]
            lines += [f"## {sentence}", "", definition, "", *markdown(heads, cells), ""]
        lines += ["A column N gives the median over the settings of that depth; the columns after it count settings."]
        return "\n".join(lines)


def _place(setting):
    return list(CLAIMS).index(setting.claim), setting.statistic, protocol.PARTS.index(setting.part)


def _named(setting):
    return setting.claim, setting.statistic, setting.part


def _median(settings):
    values = [setting.value for setting in settings if setting.values]
    return float(np.median(values)) if values else None


def _shown(value):
    return "—" if value is None else f"{value:.3g}"
