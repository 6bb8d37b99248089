"""The evidence for the protocol's claims: tables, files, figures."""

import json
from itertools import groupby

import numpy as np

from lrbias.studies import Findings, markdown
from lrbias.studies.protocol import _claims as claims
from lrbias.studies.protocol._claims import CLAIMS, DEFINITIONS, count_verdicts, overall
from lrbias.studies.protocol._parameters import PARTS
from lrbias.sweeps import as_csv

VERDICTS = (claims.HOLDS, claims.IN_PART, claims.FAILS, claims.NOT_JUDGED)


class Evidence(Findings):
    """runs: (part, target, Run); counts: {status: runs}; settings: every row of evidence, a claims.Setting each."""

    def __init__(self, study, runs, counts):
        super().__init__(study)
        self.runs = runs
        self.counts = counts
        self.settings = claims.judge(runs)

    def table(self):
        """A dictionary for each statistic and part of the study: medians over the settings of each depth, verdicts."""
        rows = []
        for (claim, statistic, part), members in groupby(sorted(self.settings, key=_place), key=_named):
            own = list(members)
            depths = sorted({s.depth for s in own if s.depth})
            medians = {depth: _median(s for s in own if s.depth == depth) for depth in depths}
            counts = count_verdicts(own)
            median = _median(own)
            named = {"claim": claim, "statistic": statistic, "part": part}
            rows.append({**named, "median": median, "by_depth": medians, **counts, "verdict": overall(own)})
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

    def kinds(self, row):
        return [None, None, *["number"] * (len(row) - 3), row[-1].replace(" ", "-")]

    def notes(self):
        return [self.study.about, f"Runs: {self._counts()}."]

    @property
    def info(self):
        return self.runs[0][2].info if self.runs else None

    def figures(self):
        from lrbias.studies.protocol import _plots as claim_plots

        return claim_plots.available(self.runs, self.settings)

    def as_dict(self):
        return {"runs": self.counts, "table": self.table(), "settings": [s.as_dict() for s in self.settings]}

    def more_files(self):
        rows = [{**s.as_dict(), "detail": json.dumps(s.detail)} for s in self.settings]
        return {"evidence.csv": as_csv(rows)}

    def __str__(self):
        lines = [f"# {self.study.title}", "", self.study.about, ""]
        lines += [f"{sum(self.counts.values())} runs: {self._counts()}.", ""]
        for sentence, definition, heads, cells in self.tables():
            cells = [[*row[:-1], f"**{row[-1]}**"] for row in cells]
            lines += [f"## {sentence}", "", definition, "", *markdown(heads, cells), ""]
        lines += ["A column N gives the median over the settings of that depth; the columns after it count settings."]
        return "\n".join(lines)

    def _counts(self):
        return ", ".join(f"{number} {status}" for status, number in self.counts.items())


def _place(setting):
    return list(CLAIMS).index(setting.claim), setting.statistic, PARTS.index(setting.part)


def _named(setting):
    return setting.claim, setting.statistic, setting.part


def _median(settings):
    values = [setting.value for setting in settings if setting.values]
    return float(np.median(values)) if values else None


def _shown(value):
    return "—" if value is None else f"{value:.3g}"
