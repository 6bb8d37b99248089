"""What the findings of every study with tables have: a text, files, figures."""

import json

from lrbias.plots import save_each
from lrbias.settings import check_formats
from lrbias.studies._tables import markdown
from lrbias.system import write_file


class Findings:
    """A subclass has `store`, `name` (of its files), `title`, `about`, and the methods below that raise."""

    name: str
    title: str

    def tables(self):
        """(title, text, heads, rows of texts) of every table."""
        raise NotImplementedError

    def figures(self):
        """(name, function without arguments, caption) of every figure."""
        raise NotImplementedError

    def as_dict(self):
        """What `--json` prints."""
        raise NotImplementedError

    def more_files(self):
        """{name: bytes} beside NAME.md and NAME.json."""
        return {}

    @property
    def info(self):
        """Versions and machine of one of the runs."""
        raise NotImplementedError

    def save(self, formats=("png", "pdf")):
        """Write NAME.md, the figures and, last of all, NAME.json into the store; returns the paths."""
        check_formats(formats)
        drawn = save_each(self.figures(), self.store / "figures", formats)
        written = {f"{self.name}.md": str(self).encode() + b"\n", **self.more_files()}
        written[f"{self.name}.json"] = json.dumps(self.as_dict(), indent=1).encode()
        for name, data in written.items():
            write_file(self.store / name, data)
        return [*(self.store / name for name in written), *drawn]

    def __str__(self):
        lines = [f"# {self.title}", "", self.about, ""]
        for title, text, heads, rows in self.tables():
            lines += [f"## {title}", "", text, "", *markdown(heads, rows), ""]
        return "\n".join(lines).rstrip()
