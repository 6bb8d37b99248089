"""What the findings of every study have: a text, tables, files, figures."""

import json

from lrbias.settings import check_formats
from lrbias.studies._tables import markdown
from lrbias.system import write_file


class Findings:
    """What `study` has found. A subclass has the methods below that raise."""

    def __init__(self, study):
        self.study = study
        self.store = study.store
        self.parameters = study.parameters

    def tables(self):
        """(title, text, heads, rows of cells) of every table."""
        raise NotImplementedError

    def figures(self):
        """(name, function without arguments, caption) of every figure."""
        raise NotImplementedError

    def as_dict(self):
        """What `--json` prints."""
        raise NotImplementedError

    def more_files(self):
        """{name: bytes} beside STEM.md and STEM.json."""
        return {}

    @property
    def info(self):
        """Versions and machine of one of the runs; None where there is no run yet."""
        raise NotImplementedError

    def notes(self):
        """Paragraphs above the tables of the report."""
        return [self.study.about]

    def kinds(self, row):
        """How the report shows each cell of a row: "number", a verdict with hyphens, or None for text."""
        return [None] * len(row)

    def save(self, formats=("png", "pdf")):
        """Write STEM.md, the figures and, last of all, STEM.json into the store; returns the paths."""
        from lrbias.plots import save_each

        check_formats(formats)
        stem = self.study.stem()
        drawn = save_each(self.figures(), self.store / "figures", formats)
        written = {f"{stem}.md": str(self).encode() + b"\n", **self.more_files()}
        written[f"{stem}.json"] = json.dumps(self.as_dict(), indent=1).encode()
        for name, data in written.items():
            write_file(self.store / name, data)
        return [*(self.store / name for name in written), *drawn]

    def __str__(self):
        lines = [f"# {self.study.title}", "", self.study.about, ""]
        for title, text, heads, rows in self.tables():
            above = [part for part in (f"## {title}" if title else "", text) if part]
            for part in above:
                lines += [part, ""]
            lines += [*markdown(heads, rows), ""]
        return "\n".join(lines).rstrip()
