"""One description of an experiment: flags, files, schema and documents all come from the settings."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib

import jsonschema
import numpy as np
import pytest

import lrbias as lb
from conftest import ROOT
from lrbias.experiments import Experiment, all_settings, choices, known_words, read_toml, schema, template, to_toml
from runs import call

PLUGIN = ROOT / "tests/plugin"
EXPERIMENTS = {
    "nothing": {},
    "flow": {"method": "flow", "dt": 0.01, "scheme": "dopri5", "rtol": 1e-5},
    "sgd": {
        "method": "sgd",
        "batch": 2,
        "entries": 9,
        "mean": True,
        "lr_schedule": {"kind": "steps", "factor": 0.5, "at": [3]},
    },
    "glrl": {"method": "glrl", "depth": 3, "inner": "flow", "dt": 0.1, "max_rank": 2},
    "values": {"values": [3.0, 1.0], "shape": [4, 5], "teacher_seed": 7, "widths": [5, 3, 4]},
    "file": {"target": "a.npy", "crop": [2, 3], "scale": 2.0, "init": "identical", "alpha": 0.3},
    "data": {"inputs": "x.npy", "outputs": "y.npy", "whiten": True, "stop_loss": 0.1},
    "checkpoint": {"network": "a.npz", "output_scale": 2.0, "metrics": {"sharpness": 100}, "leading": 2, "threads": 2},
}


@pytest.mark.parametrize("words", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_a_file_says_what_the_words_say(words, tmp_path):
    (tmp_path / "experiment.toml").write_text(to_toml(words))
    again = read_toml(tmp_path / "experiment.toml")
    paths = {word: str(tmp_path / words[word]) for word in ("target", "inputs", "outputs", "network") if word in words}
    assert Experiment.from_words(again) == Experiment.from_words({**words, **paths})


@pytest.mark.parametrize("words", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_the_schema_accepts_what_is_accepted(words):
    jsonschema.validate(tomllib.loads(to_toml(words)), schema())


@pytest.mark.parametrize(
    "text",
    [
        "lr = 0.1",
        "[method]\nlr = -1",
        "[method]\nkind = 'adam'",
        "[method]\ndt = 0.1",
        "[network]\ngama = 1",
        "[run]\nsteps = 1.5",
    ],
)
def test_the_schema_refuses_what_is_refused(text, tmp_path):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(lb.InvalidInput):
        Experiment.from_words(read_toml(tmp_path / "a.toml"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(text), schema())


def test_documents_are_what_the_settings_make():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for path, text in generate.written().items():
        assert path.read_text() == text, f"{path.name}: python docs/generate.py"


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.name)
def test_examples_name_their_schema(path):
    name = re.match(r"#:schema (\S+)\n", path.read_text())[1]
    jsonschema.validate(tomllib.loads(path.read_text()), json.loads((path.parent / name).read_text()))


def test_a_fresh_file_is_the_experiment_of_no_words(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "init") == (0, "experiment.toml: lrbias run experiment.toml\n", "")
    assert Experiment.from_words(read_toml("experiment.toml")) == Experiment.from_words({})


def test_the_lines_of_a_fresh_file_are_defaults(tmp_path):
    """With every default that is a value taken in."""
    lines = [re.sub(r"^# (\w+ = [^…]*)$", r"\1", line) for line in template().splitlines()]
    (tmp_path / "all.toml").write_text("\n".join(line for line in lines if "…" not in line and " has: " not in line))
    experiment = Experiment.from_words(read_toml(tmp_path / "all.toml"))
    assert experiment == Experiment.from_words({})
    assert len(experiment.record.model_fields_set) > 5, "the lines count"


@pytest.fixture(scope="module")
def help_page():
    command = [sys.executable, "-m", "lrbias", "run", "--help"]
    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def test_essentials_come_first(help_page):
    first = help_page.splitlines()[:24]
    for flag in ("--method", "--lr", "--rank", "--depth", "--steps"):
        assert any(flag in line for line in first), flag


def test_every_word_is_a_flag_with_its_default(help_page):
    flags = set(re.findall(r"--[a-z][\w-]*", help_page))
    assert not [flag for flag in flags if flag.startswith("--empty")]
    assert {f"--{word.replace('_', '-')}" for word in known_words()} <= flags
    optional = [setting for setting in all_settings() if not setting.field.is_required()]
    assert help_page.count("[default") >= len({setting.word for setting in optional} | set(choices()))


def test_words_of_other_packages(tmp_path):
    """A kind of initialization and of problem, and a metric, of a package that is installed."""
    environment = {**os.environ, "PYTHONPATH": str(PLUGIN)}

    def ask(*words):
        command = [sys.executable, "-m", "lrbias", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path).stdout

    shown = ask("run", "--help")
    assert "--height" in shown
    assert "number that is added to every entry" in shown
    assert '"shift"' in ask("schema")
    words = "--shape 4 3 --rank 2 --depth 2 --shift 1 --init flat --height 0.5 --metrics trace --steps 20 --lr 0.01"
    ask("run", *words.split(), "--quiet", "--no-figures", "-o", "run")
    run = lb.open(tmp_path / "run")
    assert run.settings["height"] == 0.5
    assert run["product/trace"][0] == pytest.approx(3 * 4 * 0.25)
    assert np.linalg.matrix_rank(run.target) == 3, "the shift adds a direction"
    ask("run", "run/experiment.toml", "--quiet", "--no-figures", "-o", "again")
    assert np.array_equal(lb.open(tmp_path / "again").losses, run.losses)
    ask("resume", "run", "--steps", "30", "--quiet", "--no-figures")
    assert lb.open(tmp_path / "run").step == 30


def test_a_package_that_does_not_load_is_named(tmp_path):
    broken = tmp_path / "toy-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_text("[lrbias.methods]\nmine = nowhere:Mine\n")
    command = [sys.executable, "-m", "lrbias", "run", "--dry-run"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert answer.returncode == 2
    assert "the entry point mine = nowhere:Mine of toy cannot be loaded" in answer.stderr
