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
        "reduction": "mean",
        "lr_schedule": {"kind": "piecewise_constant", "factor": 0.5, "milestones": [3]},
    },
    "glrl": {"method": "glrl", "depth": 3, "inner": "flow", "dt": 0.1, "max_rank": 2},
    "values": {"values": [3.0, 1.0], "shape": [4, 5], "teacher_seed": 7, "widths": [5, 3, 4]},
    "file": {"target": "a.npy", "crop": [2, 3], "spectral_norm": 2.0, "init": "scaled_identity", "alpha": 0.3},
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


@pytest.fixture
def ask(tmp_path):
    """The command line where the package of tests/plugin is installed."""
    environment = {**os.environ, "PYTHONPATH": str(PLUGIN)}

    def ask(words):
        command = [sys.executable, "-m", "lrbias", *words.split()]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path).stdout

    return ask


SMALL = "--shape 4 3 --rank 2 --depth 2 --metrics trace --quiet --no-figures"


def test_words_of_other_packages(ask, tmp_path):
    """A kind of initialization and of problem, and a metric: flag, file, run, document."""
    shown = ask("run --help")
    assert "--height" in shown
    assert "number that is added to every entry" in shown
    assert '"shift"' in ask("schema")
    ask(f"run {SMALL} --shift 1 --init flat --height 0.5 --steps 20 --lr 0.01 -o run")
    run = lb.open(tmp_path / "run")
    assert run.settings["height"] == 0.5
    assert run["product/trace"][0] == pytest.approx(3 * 4 * 0.25)
    assert np.linalg.matrix_rank(run.target) == 3, "the shift adds a direction"
    ask("run run/experiment.toml --quiet --no-figures -o again")
    assert np.array_equal(lb.open(tmp_path / "again").losses, run.losses)


def test_a_method_of_another_package(ask, tmp_path):
    """Its steps are its own, and so is what a checkpoint keeps of them."""
    words = f"run {SMALL} --method heavy_ball --momentum 0.5 --lr 0.01 --gamma 0.5"
    ask(f"{words} --steps 60 -o whole")
    ask(f"{words} --steps 35 --checkpoint-every 20 -o run")
    ask("resume run --steps 60 --quiet --no-figures")
    whole, run = (lb.open(tmp_path / name)._source for name in ("whole", "run"))
    assert np.array_equal(run.read("losses", 0, 61), whole.read("losses", 0, 61))
    assert whole.read("losses", 60, 61) < whole.read("losses", 0, 1)


def test_a_metric_is_read_by_its_name():
    problem = lb.Factorization(np.diag([2.0, 1.0, 0.5]))
    record = lb.Record(every=5, metrics={"sharpness": 10, "stable_rank": 5, "mine": lambda network: network.widths[0]})
    run = lb.train(problem, lb.Network.gaussian((3, 3, 3)), lb.GD(lr=0.01), 20, record, forecast=False)
    assert run.metrics["sharpness"] == ["hessian/largest", "hessian/largest_products"]
    assert np.array_equal(run["sharpness"], run["hessian/largest"])
    assert run.steps_of("sharpness").tolist() == [0, 10, 20]
    assert np.array_equal(run["stable_rank"], run["product/stable_rank"])
    assert np.array_equal(run.rows("stable_rank", 1, 3), run["product/stable_rank"][1:3])
    assert run["mine"].tolist() == [3] * 5
    with pytest.raises(lb.InvalidInput, match="'balancedness' was not recorded"):
        run["balancedness"]


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
