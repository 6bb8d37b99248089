"""What all studies share: they are found by name, keep a folder of their own, and those of other packages join them."""

import inspect
import json
from pathlib import Path

import pytest

import lrbias as lb
from lrbias.storage import read_json, write_json
from lrbias.studies import all_studies, find_study, study_names
from runs import call

OURS = ["chou", "galanti", "glrl", "protocol", "regimes", "wang-jacot"]
TOY = '''
"""Counts runs that learn one value."""

from pydantic import Field

import lrbias as lb
from lrbias.settings import Count
from lrbias.studies import Findings, Parameters, Study, made


class CountingParameters(Parameters):
    runs: Count = Field(3, description="how many runs")
    steps: Count = Field(20, description="of each")


class Counted(Findings):
    def __init__(self, study, runs):
        super().__init__(study)
        self.runs = runs

    def tables(self):
        rows = [(start, run.status) for start, run in enumerate(self.runs)]
        yield "Runs", "Each from its own start.", ("start", "status"), rows

    def figures(self):
        return [("loss", lambda: lb.plots.loss(self.runs[0]), "Loss of the first run.")]

    def as_dict(self):
        return {"statuses": [run.status for run in self.runs]}

    @property
    def info(self):
        return self.runs[0].info


class Counting(Study):
    name = "counting"
    summary = "Runs that are counted."
    title = "How many runs there are"
    about = "Nothing is matched."
    Parameters = CountingParameters

    def forecast(self):
        return {"runs": self.parameters.runs, "seconds": 1.0, "bytes": 1000}

    def make(self):
        problem = lb.Factorization(lb.from_singular_values((4, 3), [2.0]))
        runs = []
        for seed in range(self.parameters.runs):
            network = lb.Network.gaussian((3, 4, 4), gamma=1, seed=seed)
            arguments = {"network": network, "method": lb.GD(lr=0.1), "steps": self.parameters.steps}
            runs.append(made(self.store / f"seed={seed}", self.progress, problem=problem, **arguments))
        return Counted(self, runs)
'''
BROKEN = "import a_package_that_is_not_there"


def _install(folder, module, text, entry):
    """A package with an entry point, as pip would leave it in a folder of the path."""
    about = folder / f"{module}-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / f"{module}.py").write_text(text)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[lrbias.studies]\n{entry}\n")


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A study of somebody else's package, and one that cannot be loaded."""
    _install(tmp_path / "site", "counting_study", TOY, "counting = counting_study:Counting")
    _install(tmp_path / "site", "broken_study", BROKEN, "broken = broken_study:Broken")
    monkeypatch.syspath_prepend(tmp_path / "site")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def test_ours_are_registered():
    assert study_names() == OURS
    assert [study.name for study in all_studies()] == OURS


@pytest.mark.parametrize("name", OURS)
def test_a_study_says_what_it_is(name):
    study = find_study(name)
    for text in (study.summary, study.title, study.about):
        assert len(text.split()) >= 3
    assert study().store == Path("reproduced") / name
    for field in study.Parameters.model_fields.values():
        assert field.description, "what --help shows"
        assert not field.is_required()
    again = study.Parameters(**json.loads(study().parameters.model_dump_json()))
    assert again == study().parameters, "what study.json keeps is what was given"


@pytest.mark.parametrize("name", OURS)
def test_the_help_of_a_study_lists_its_parameters(capsys, name):
    code, out, _ = call(capsys, f"reproduce {name} --help")
    assert code == 0
    for field in ("records", "steps", "seeds"):
        assert (f"--{field} " in out) == (field in find_study(name).Parameters.model_fields)
    for flag in ("--store", "--workers", "--dry-run"):
        assert flag in out


def test_the_help_lists_the_studies(capsys, toy):
    code, out, _ = call(capsys, "reproduce --help")
    assert code == 0
    for name in (*OURS, "counting"):
        assert f" {name} " in out
    assert " broken " not in out
    code, out, _ = call(capsys, "--help")
    assert code == 0
    assert "Make the runs of a study" in out


def test_a_study_of_another_package_is_like_ours(capsys, toy):
    code, out, err = call(capsys, "reproduce counting --runs 2 --format png --json -o study")
    assert code == 0
    assert "2 runs, about" in err
    facts = json.loads(out)
    assert facts["statuses"] == ["finished"] * 2
    assert {Path(path).name for path in facts["written"]} == {"counting.md", "counting.json", "loss.png"}
    assert read_json(Path("study/study.json")) == {"study": "counting", "runs": 2, "steps": 20}
    before = Path("study/seed=0/progress.json").stat().st_mtime_ns
    found = lb.reproduce("counting", "study", progress=False, runs=2)
    assert Path("study/seed=0/progress.json").stat().st_mtime_ns == before, "made once"
    assert str(lb.read_evidence("study")) == str(found)
    page = lb.report("study", "page.html", progress=False).read_text()
    assert "Nothing is matched." in page
    assert page.count("<figure") == 1


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"runs": 3}, "store = 'study' is not accepted: expected a new folder, or this study with runs = 2."),
        ({"runs": 0}, "runs = 0 is not accepted: expected an integer of at least 1."),
        ({"seeds": 1}, "seeds = 1 cannot be set: counting has a fixed set of runs"),
        ({"colour": "red"}, "colour = 'red' cannot be set: counting has no such parameter; its parameters are"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_refused(toy, given, sentence):
    lb.reproduce("counting", "study", progress=False, runs=2)
    with pytest.raises(lb.InvalidInput) as refused:
        lb.reproduce("counting", "study", progress=False, **given)
    assert str(refused.value).startswith(sentence)


def test_a_folder_of_another_study_is_refused(toy):
    lb.reproduce("counting", "study", progress=False, runs=1)
    sentence = "store = 'study' is not accepted: expected a new folder, or one of this study"
    with pytest.raises(lb.InvalidInput, match=sentence):
        lb.reproduce("chou", "study", progress=False)
    write_json(Path("study/study.json"), {"study": "counting", "runs": "many"})
    with pytest.raises(lb.InvalidInput, match=rf"{sentence} \(study.json: runs = 'many' is not accepted"):
        lb.reproduce("counting", "study", progress=False)


def test_a_study_that_cannot_be_loaded_is_told(capsys, toy):
    code, _, err = call(capsys, "reproduce broken")
    assert (code, err.count("\n")) == (2, 1)
    assert "the study broken cannot be loaded (broken_study:Broken: No module named 'a_package" in err
    code, _, err = call(capsys, "reproduce other")
    assert (code, err.count("\n")) == (2, 1)
    assert "name = 'other' is not accepted: expected broken or chou or counting or" in err


def test_the_documents_name_every_study():
    root = Path(__file__).resolve().parents[1]
    readme, makefile = ((root / name).read_text() for name in ("README.md", "Makefile"))
    for name in OURS:
        assert f"lrbias reproduce {name}" in readme
        assert f"lrbias reproduce {name}\n" in makefile
        assert f'"{name}"' in inspect.getdoc(lb.reproduce)
