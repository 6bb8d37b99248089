"""`lrbias reproduce protocol`: the runs of the study, the evidence for its four claims, and figures of it."""

import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from lrbias.errors import require
from lrbias.settings import Count, check_formats, validate
from lrbias.store import write_file
from lrbias.studies import claims, protocol
from lrbias.studies.claims import CLAIMS, DEFINITIONS, count_verdicts, judge, overall
from lrbias.sweeps.making import forecast_sweep, sweep
from lrbias.sweeps.reading import as_csv, open_sweep

STUDIES = ("protocol",)
VERDICTS = (claims.HOLDS, claims.IN_PART, claims.FAILS, claims.NOT_JUDGED)


def reproduce(name="protocol", store="reproduced/protocol", steps=50_000, seeds=3, workers=None, progress=None):
    """Make the runs of a study, as far as they are not made yet, and return the Evidence.

    name     "protocol": 256 runs with its three starts, about 50 minutes on two cores
    store    a folder, which holds one sweep for each part of the study; started again it goes on
    steps, seeds   iterations of every run and number of starts: fewer give a quicker and weaker study
    """
    require(name in STUDIES, "name", name, " or ".join(STUDIES))
    steps, seeds = validate(Count, "steps", steps), validate(Count, "seeds", seeds)
    for part, (base, over) in protocol.sweeps(steps, seeds).items():
        sweep(base, over, Path(store) / part, workers, progress=progress)
    return read_evidence(store)


def forecast_study(name="protocol", steps=50_000, seeds=3, workers=None):
    """{runs, seconds, bytes} of `reproduce`."""
    require(name in STUDIES, "name", name, " or ".join(STUDIES))
    total = {"runs": 0, "seconds": 0.0, "bytes": 0}
    for base, over in protocol.sweeps(steps, seeds).values():
        part = forecast_sweep(base, over, workers)
        total = {key: total[key] + part[key] for key in total}
    return total


def read_evidence(store):
    """The Evidence of the runs in the sweeps under `store`, as far as they are made."""
    sweeps = {path.parent.name: open_sweep(path.parent) for path in sorted(Path(store).glob("*/sweep.json"))}
    require(len(sweeps) > 0, "store", str(store), "a folder that `lrbias reproduce` made")
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

    def as_dict(self):
        """What `--json` prints."""
        return {"runs": self.counts, "table": self.table(), "settings": [s.as_dict() for s in self.settings]}

    def save(self, formats=("png", "pdf")):
        """Write evidence.md, evidence.csv, evidence.json and the figures into the store; returns the paths."""
        from lrbias.studies import claim_plots

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
        rows = self.table()
        for claim, sentence in CLAIMS.items():
            depths = sorted({depth for row in rows if row["claim"] == claim for depth in row["by_depth"]})
            heads = ["statistic", "targets", *(f"N = {depth}" for depth in depths), "median", *VERDICTS, "verdict"]
            lines += [f"## {sentence}", "", DEFINITIONS[claim], "", _line(heads), _line(["---"] * len(heads))]
            for row in rows:
                if row["claim"] == claim:
                    numbers = [_shown(row["by_depth"].get(depth)) for depth in depths] + [_shown(row["median"])]
                    verdicts = [str(row[verdict]) for verdict in VERDICTS]
                    lines.append(_line([row["statistic"], row["part"], *numbers, *verdicts, f"**{row['verdict']}**"]))
            lines.append("")
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


def _line(cells):
    return "| " + " | ".join(cells) + " |"
