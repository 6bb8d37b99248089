"""What the documents show works as written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import lrbias as lb
from conftest import ROOT
from lrbias import cli

BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def _blocks(name, language):
    return [text for kind, text in BLOCK.findall((ROOT / name).read_text()) if kind == language]


def _run(code, folder):
    return subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_the_readme_example_runs(tmp_path):
    code = _blocks("README.md", "python")[0]
    assert "steps=8_000" in code
    shown = _run(code.replace("steps=8_000", "steps=200"), tmp_path)
    assert (tmp_path / "overview.png").exists()
    assert 4 <= shown.count("\n") <= 6


def test_the_readme_example_of_many_trajectories_runs(tmp_path):
    code = _blocks("README.md", "python")[1]
    assert "steps=20_000" in code
    _run("import lrbias as lb\n" + code.replace("steps=20_000", "steps=200"), tmp_path)


def test_the_readme_example_of_greedy_learning_runs(tmp_path):
    code = _blocks("README.md", "python")[2]
    near = "assert len(greedy.phases) == 3 and 0 < distances[-1] < 0.01 < distances.max() < 0.1"
    _run("\n".join(["import lrbias as lb", code, near]), tmp_path)


def test_the_readme_example_of_a_tracked_model_runs(tmp_path):
    code = _blocks("README.md", "python")[3]
    _run("\n".join([code, "assert run.step == 100 and len(run['average/relative_rank']) == 11"]), tmp_path)
    assert (tmp_path / "figures/overview.png").exists()


def test_the_core_example_runs_as_it_is(tmp_path):
    (code,) = _blocks("lrcore/README.md", "python")
    _run(code, tmp_path)


def test_the_gallery_shows_every_numbered_example():
    """In order, each with its own figure, which is there, and a link to the script; and no figure of anything else."""
    stems = sorted(path.stem for path in (ROOT / "examples").glob("[0-9]*.py"))
    page = (ROOT / "docs/gallery.md").read_text()
    assert [stem[:3] for stem in stems] == [f"{number:02d}_" for number in range(1, len(stems) + 1)]
    assert re.findall(r"^## (\d\d) ", page, re.MULTILINE) == [stem[:2] for stem in stems]
    assert re.findall(r"^!\[.+\]\(gallery/(.+)\.png\)$", page, re.MULTILINE) == stems
    assert re.findall(r"\[(.+)\.py\]\(\.\./examples/\1\.py\)", page) == stems
    assert sorted(path.stem for path in (ROOT / "docs/gallery").iterdir()) == stems


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("[0-9]*.py")), ids=lambda path: path.stem)
def test_an_example_writes_the_figure_of_its_name(script):
    written = re.findall(r'savefig\("(.+?)"', script.read_text())
    assert written == [f"{script.stem}.png"]


def test_every_command_of_the_readme_is_understood():
    commands = [line.split("#")[0].split() for text in _blocks("README.md", "") for line in text.splitlines()]
    commands = [words[1:] for words in commands if words[:1] == ["lrbias"]]
    assert len(commands) >= 9
    for words in commands:
        cli.app.parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("name", lb.__all__)
def test_public_names_exist_and_are_documented(name):
    value = getattr(lb, name)
    assert value.__doc__, name
    assert name in dir(lb)


def test_no_module_hides_a_function():
    modules = {path.stem for path in Path(lb.__file__).parent.glob("*.py")}
    assert modules.isdisjoint(lb._HOME)


def test_the_protocol_file_is_what_the_command_does_without_one():
    """Except for the smaller start, so that plateaus are long."""
    from lrbias import experiment

    keys = experiment.read_toml(ROOT / "examples/protocol.toml")
    written, default = experiment.Experiment(**keys), experiment.Experiment()
    for key in ("rank", "depth", "seed", "steps", "every", "checkpoint_every", "metrics", "method"):
        assert getattr(written, key) == getattr(default, key), key
    assert tuple(written.shape) == default.shape
    assert written.parts()[0] == default.parts()[0]


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        lb.tarin  # noqa: B018
