"""What the documents show works as written."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import pytest

import lrbias as lb
from conftest import ROOT
from lrbias.cli import _app as cli
from lrbias.cli import _reproduce as reproducing
from lrbias.studies import find_study
from lrbias.studies.protocol._parameters import ProtocolParameters

EVERYWHERE = {"path", "store", "run", "seed", "progress"}  # arguments that mean the same in every function
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def _blocks(name, language):
    return [text for kind, text in BLOCK.findall((ROOT / name).read_text()) if kind == language]


def _run(code, folder):
    return subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_the_readme_example_runs(tmp_path):
    code = _blocks("README.md", "python")[0]
    assert "steps=50_000" in code
    shown = _run(code.replace("steps=50_000", "steps=200"), tmp_path)
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
    code = _blocks("README.md", "python")[3].replace('"figures")', '"figures", ("png",))')
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
        if words[0] == "reproduce":  # which hands its words on
            reproducing._app([find_study(words[1])]).parse_args(words[1:])


@pytest.mark.parametrize("name", lb.__all__)
def test_public_names_are_documented(name):
    """By a text of their own, not one that is inherited, which names every argument of a function."""
    value = getattr(lb, name)
    assert name in dir(lb)
    text = vars(value).get("__doc__") if isinstance(value, type) else value.__doc__
    assert text, name
    assert text.strip().split("\n\n")[0].endswith((".", ":", ")")), "a sentence first"
    if isinstance(value, FunctionType):
        words = set(re.findall(r"\w+", text))
        unnamed = set(inspect.signature(value).parameters) - words - EVERYWHERE
        assert unnamed == set()


def test_no_module_hides_a_function():
    rooms = {path.stem for path in Path(lb.__file__).parent.iterdir()}
    modules = {name for name in lb.__all__ if isinstance(getattr(lb, name), ModuleType)}
    assert rooms & set(lb.__all__) == modules - {"sweep_plots"}


def test_the_protocol_file_is_what_the_command_does_without_one():
    from lrbias import experiments as experiment

    _assert_same(_written("protocol.toml"), experiment.Experiment.from_words({}).arguments())


def test_the_first_block_of_the_readme_trains_what_the_protocol_file_does(monkeypatch):
    """And so does `make demo`, which gives the figure above the block."""
    trained, (block, *_) = {}, _blocks("README.md", "python")

    def train(problem, network, method, **others):
        trained.update(problem=problem, network=network, method=method, **others)

    monkeypatch.setattr(lb, "train", train)
    exec(block.split("print(")[0], {})
    del trained["store"]
    _assert_same(trained, _written("protocol.toml"))
    assert "lrbias run examples/protocol.toml --store runs/demo\n" in (ROOT / "Makefile").read_text()


def test_the_other_start_differs_in_its_size_and_length_only():
    larger, protocol = _written("larger_start.toml"), _written("protocol.toml")
    assert larger["network"].settings()["gamma"] == ProtocolParameters().gamma
    _assert_same({**larger, "network": protocol["network"], "steps": protocol["steps"]}, protocol)


def _written(name):
    """Arguments of `train` from a file in examples/."""
    from lrbias import experiments as experiment

    return experiment.Experiment.from_words(experiment.read_toml(ROOT / "examples" / name)).arguments()


def _assert_same(some, others):
    """That two calls of `train` make the same run. What the first leaves out has its default."""
    for key, value in some.items():
        other = others[key]
        if key == "problem":
            np.testing.assert_array_equal(value.target, other.target)
        elif key == "network":
            assert value.widths == other.widths
            np.testing.assert_array_equal(value.params, other.params)
        else:
            assert value == other, key


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="attribute tarin"):
        lb.tarin  # noqa: B018
