"""The report: one page that needs nothing else, with working links and the numbers of the runs."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import lrbias as lb
from lrbias.cli import main
from lrbias.reports import _report as reporting
from runs import settings

pytestmark = pytest.mark.usefixtures("sweeps_here")
BASE = {
    "shape": [20, 18],
    "rank": 2,
    "spectral_norm": 3.0,
    "gamma": 1.0,
    "steps": 200,
    "every": 10,
    "checkpoint_every": 50,
}
VOID = ("meta", "link", "img", "br")


class Page(HTMLParser):
    """Ids, links, images, tables as lists of rows, and whether every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.ids = []
        self.links = []
        self.images = []
        self.tables = []
        self.text = ""
        self._open = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag == "a":
            self.links.append(attributes["href"])
        if tag == "img":
            assert attributes["alt"]
            self.images.append(attributes["src"])
        assert tag not in ("script", "iframe", "object")
        assert not any(name.startswith("on") for name in attributes)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "td" in self._open or "th" in self._open:
            self.tables[-1][-1][-1] += data


def _page(path):
    text = path.read_text()
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:|#)", text), "only what is in the page itself"
    assert "http" not in text
    page = Page(text)
    assert len(set(page.ids)) == len(page.ids)
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    for source in page.images:
        image = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"))))
        assert len(np.unique(np.asarray(image.convert("L")))) > 4, "something is drawn"
    return page


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    store = tmp_path_factory.mktemp("sweep") / "s<1>"
    return lb.sweep(BASE, {"depth": [2, 3], "lr": [0.01, 3.0]}, store, workers=2, progress=False)


def test_a_sweep_on_one_page(made, tmp_path):
    page = _page(lb.report(made.path, tmp_path / "r.html"))
    assert "4 runs over depth, lr: 2 finished, 2 diverged." in page.text
    table = next(rows for rows in page.tables if rows[0][0] == "run")
    assert table[0][:5] == ["run", "depth", "lr", "status", "step"]
    assert [row[0] for row in table[1:]] == made.names
    for row, cells in zip(made.table(), table[1:], strict=True):
        assert cells[3] == row["status"]
        assert cells[5] == f"{row['last_loss']:.4g}"
    assert len(page.images) == len(lb.sweep_plots.available(made)) + 4
    assert sum(link == "#part1" for link in page.links) == 4, "every run links back to the table"
    assert lb.__version__ in page.text
    assert ["gamma", "1"] in [row for rows in page.tables for row in rows]


@pytest.fixture
def stand_ins(monkeypatch):
    """Figures are made, and a small picture stands for each: drawing takes most of the time, and
    `test_a_sweep_on_one_page` does it."""

    def save_stand_in(figure, file, **options):
        Image.linear_gradient("L").resize((16, 16)).save(file, format="png")

    monkeypatch.setattr(Figure, "savefig", save_stand_in)


@pytest.mark.usefixtures("stand_ins")
def test_runs_of_one_target_are_compared(tmp_path):
    runs = []
    for name, method in (("a", lb.GD(lr=0.02)), ("b", lb.GD(lr=0.01)), ("c", lb.GradientFlow(dt=0.02))):
        arguments = settings(method=method, store=tmp_path / name, steps=100)
        runs.append(lb.train(**arguments).path)
    page = _page(lb.report(runs, tmp_path / "r.html"))
    assert "All runs have the same start." in page.text
    table = page.tables[0]
    assert [row[0] for row in table[1:]] == [
        "GD, lr = 0.02",
        "GD, lr = 0.01",
        "gradient flow (rk4), dt = 0.02 (reference)",
    ]
    assert table[3][5:] == ["—", "—"]
    other = lb.train(**settings(problem=lb.Factorization(np.eye(6, 5)), store=tmp_path / "d")).path
    page = _page(lb.report([runs[0], other], tmp_path / "r.html"))
    assert "expected runs that all have the same target" in page.text


@pytest.mark.usefixtures("stand_ins")
def test_phases_and_distances_of_paths_are_on_the_page(tmp_path):
    """A greedy run lists its phases, and beside others it has a distance from the path of the reference alone."""
    record = lb.Record(metrics=("singular_values", "effective_rank", "product"))
    flow = lb.GradientFlow(dt=0.05)
    greedy = lb.train(**settings(None, network=None, method=lb.GLRL(inner=flow), record=record, store=tmp_path / "a"))
    runs = [greedy]
    for name, method in (("b", flow), ("c", lb.GD(lr=0.05))):
        runs.append(lb.train(**settings(method=method, record=record, store=tmp_path / name)))
    page = _page(lb.report([run.path for run in runs], tmp_path / "r.html"))
    assert "Greedy runs have none, and a time of their own" in page.text
    assert len(page.images) == 2 + sum(len(lb.plots.available(run)) for run in runs)
    heads, first, second, third = page.tables[0]
    assert heads[5:] == ["max |Δσ|/σ̂₁", "max ‖ΔW‖/‖Ŵ‖", "max dist/‖Ŵ‖"]
    assert first[5:7] == ["—", "—"]
    assert second[5:] == ["—", "—", "—"]
    for row, run in ((first, greedy), (third, runs[2])):
        largest = lb.trajectory_distance(run, runs[1])[1].max() / np.linalg.norm(run.target)
        assert row[7] == f"{largest:.4g}"
    (phases,) = (rows for rows in page.tables if rows[0][0] == "phase")
    assert phases[0] == ["phase", "start", "end", "slope", "next slope", "rank", "loss", "gradient"]
    assert [row[:4] for row in phases[1:]] == [
        [f"{number}", f"{phase.start}", f"{phase.end}", f"{phase.slope:.4g}"]
        for number, phase in enumerate(greedy.phases, start=1)
    ]
    assert [row[5] for row in phases[1:]] == ["1", "2"]
    short = lb.train(**settings(20, network=None, method=lb.GLRL(inner=flow), record=record, store=tmp_path / "d"))
    page = _page(lb.report(short.path, tmp_path / "r.html"))
    (phases,) = (rows for rows in page.tables if rows[0][0] == "phase")
    assert phases[1][2] == "—"
    assert phases[1][5:] == ["—", "—", "—"]


@pytest.mark.usefixtures("stand_ins")
def test_a_study_on_one_page(tmp_path):
    sizes = {"parts": ("square",), "shape": (20, 18), "ranks": (2,), "depths": (2, 3, 4), "step_sizes": (0.02,)}
    numbers = {"steps": 200, "seeds": 1, "gamma": 1.0, "spectral_norm": 3.0}
    evidence = lb.reproduce("protocol", tmp_path / "study", workers=1, progress=False, **sizes, **numbers)
    page = _page(lb.report(tmp_path / "study", tmp_path / "r.html"))
    assert len(page.images) == 4
    rows = [row for rows in page.tables for row in rows if row[0] == "τ_b of value and time"]
    assert rows == [["τ_b of value and time", "square", *rows[0][2:-1], evidence.table()[1]["verdict"]]]


@pytest.mark.usefixtures("stand_ins")
def test_a_folder_of_runs_on_one_page(tmp_path):
    for name in ("b", "a"):
        lb.train(**settings(store=tmp_path / "runs" / name, steps=60))
    page = _page(lb.report(tmp_path / "runs", tmp_path / "r.html"))
    assert page.links == ["#part1-run1", "#part1-run2"]
    assert len(page.images) == 2 * len(lb.plots.available(lb.open(tmp_path / "runs/a")))


@pytest.mark.usefixtures("stand_ins")
def test_a_folder_of_sweeps_and_equal_names_on_one_page(made, tmp_path):
    """Two sweeps, and two runs that are called alike: every link leads to its own place."""
    for name in ("a", "b"):
        lb.sweep({**BASE, "steps": 20}, {"seed": [1, 2]}, tmp_path / "sweeps" / name, workers=1, progress=False)
        lb.train(**settings(store=tmp_path / name / "same", steps=60))
    page = _page(lb.report([tmp_path / "sweeps", tmp_path / "a/same", tmp_path / "b/same"], tmp_path / "r.html"))
    assert page.links[:4] == ["#part1", "#part2", "#part3", "#part4"]
    assert page.ids.index("part1-run2") < page.ids.index("part2")


def test_many_runs_have_a_table_only(tmp_path, monkeypatch):
    monkeypatch.setattr(reporting, "MOST_ROWS", 50)
    small = {**BASE, "shape": [5, 5], "steps": 4}
    made = lb.sweep(small, {"seed": range(reporting.MOST_RUNS + 1)}, tmp_path / "s", workers=1, progress=False)
    page = _page(lb.report(made.path, tmp_path / "r.html"))
    assert "first 50 runs" in page.text
    assert len(next(rows for rows in page.tables if rows[0][0] == "run")) == 51
    assert (tmp_path / "r.html").stat().st_size < 5e6


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "path = 'nowhere' is not accepted: expected a run directory, a folder"),
        ([".", "-o", "r.html"], "path = '.' is not accepted"),
        (["SWEEP", "-o", "no/r.html"], "output = 'no/r.html' is not accepted"),
        (["SWEEP", "-o", "r.pdf"], "output = 'r.pdf' is not accepted"),
    ],
    ids=["nowhere", "empty folder", "no folder", "pdf"],
)
def test_bad_words_are_refused(words, sentence, made, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["report", *(str(made.path) if word == "SWEEP" else word for word in words)])
    assert ended.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"lrbias: {sentence}")
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
