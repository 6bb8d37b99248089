"""Paths wherever they are given: `~`, names in any letters, files beside a TOML file, and those nobody can use."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest

import lrbias as lb
from lrbias import experiments as experiment
from lrbias.cli import _app as cli
from lrbias.sweeps._table import as_csv
from runs import call, settings

pytestmark = pytest.mark.usefixtures("sweeps_here")
BASE = {"shape": [4, 3], "rank": 1, "steps": 2, "every": 1, "metrics": "singular_values"}
TARGET = np.arange(1.0, 13.0).reshape(4, 3)


@pytest.fixture
def home(work, monkeypatch):
    """A folder that is both the current one and above the home folder, which has a target and a run in it."""
    monkeypatch.setenv("HOME", str(work / "home"))
    (work / "home").mkdir()
    np.save(work / "home/target.npy", TARGET)
    return work


def _files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_home_in_python(home):
    np.testing.assert_array_equal(lb.load_matrix("~/target.npy"), TARGET)
    lb.train(**settings(), store="~/deep/run")
    assert lb.open("~/deep/run").step == lb.resume("~/deep/run").step == 200
    made = lb.sweep(BASE, {"seed": [1, 2]}, "~/sweep", workers=1, progress=False)
    assert len(lb.open_sweep("~/sweep")) == 2
    made.write("~/table.csv")
    assert sorted(path.name for path in (home / "home").iterdir()) == ["deep", "sweep", "table.csv", "target.npy"]
    assert [path.name for path in home.iterdir()] == ["home"]


def test_home_in_files_and_commands(home, capsys):
    (home / "a.toml").write_text('[problem.target]\npath = "~/target.npy"\n[network]\ngamma = 0.5\n[run]\nsteps = 2\n')
    words = ["run", "a.toml", "--store=~/run", "--quiet", "--no-figures"]
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert not ended.value.code
    np.testing.assert_array_equal(lb.open(home / "home/run").target, TARGET)
    assert call(capsys, "info ~/run")[0] == 0
    assert call(capsys, "info ~nobody-of-this-name/run")[0] == 2
    assert sorted(path.name for path in home.iterdir()) == ["a.toml", "home"]


def test_paths_of_axes_are_relative_to_their_file(work, capsys):
    (work / "data").mkdir()
    for name in ("a", "b"):
        np.save(work / f"data/{name}.npy", TARGET)
    text = '[run]\nsteps = 2\n[record]\nmetrics = "singular_values"\n[sweep]\ntarget = ["a.npy", "b.npy"]\n'
    (work / "data/s.toml").write_text(text)
    keys = experiment.read_toml("data/s.toml")
    assert keys["sweep"]["target"] == [str(work.joinpath("data", f"{name}.npy").relative_to(work)) for name in "ab"]
    assert call(capsys, "sweep data/s.toml -o out --workers 1 --quiet")[0] == 0
    assert lb.open_sweep("out").counts() == {"finished": 2}
    assert lb.open_sweep("out").names == ["target=a.npy", "target=b.npy"]


def test_a_row_of_an_axis_has_its_paths_relative_to_the_file_too(work):
    (work / "data").mkdir()
    (work / "data/s.toml").write_text('[sweep]\n"seed,target" = [[1, "a.npy"], [2, "~/b.npy"]]\n')
    rows = experiment.read_toml("data/s.toml")["sweep"]["seed,target"]
    assert rows == [[1, os.path.join("data", "a.npy")], [2, os.path.expanduser("~/b.npy")]]


def test_a_sweep_is_the_same_from_every_folder(work, monkeypatch):
    """And another one where the same words mean another file."""
    for folder in ("here", "there"):
        (work / folder).mkdir()
        np.save(work / folder / "a.npy", TARGET)
    base = {"steps": 2, "metrics": "singular_values", "target": "a.npy"}
    over = {"seed": [1]}
    store = work / "s"
    monkeypatch.chdir(work / "here")
    lb.sweep(base, over, store, workers=1, progress=False)
    monkeypatch.chdir(work)
    again = lb.sweep({**base, "target": "here/a.npy"}, over, store, workers=1, progress=False)
    assert again.counts() == {"finished": 1}
    monkeypatch.chdir(work / "there")
    with pytest.raises(lb.InvalidInput, match=r"another sweep, in which base\.target"):
        lb.sweep(base, over, store, workers=1, progress=False)


def test_files_of_one_name_keep_runs_apart(work):
    for folder in ("here", "there"):
        (work / folder).mkdir()
        np.save(work / folder / "a.npy", TARGET)
    over = {"target": ["here/a.npy", "there/a.npy"]}
    made = lb.sweep({"steps": 2, "metrics": "singular_values"}, over, "s", workers=1, progress=False)
    assert made.counts() == {"finished": 2}


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_letters_beyond_ascii_under_an_ascii_locale(work):
    (work / "für.csv").write_text("\ufeff1,2\n3,4 # größer\n", encoding="utf-8")
    (work / "a.toml").write_text('\ufeff[problem.target]\npath = "für.csv" # für\n[run]\nsteps = 2\n', encoding="utf-8")
    command = [sys.executable, "-m", "lrbias", "run", "a.toml", "-o", "run", "--quiet", "--no-figures", "--json"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, **ASCII}, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    np.testing.assert_array_equal(lb.open("run").target, [[1, 2], [3, 4]])


LONG = "x" * 300


REFUSED = {
    "a long target": (f"run --target {LONG}.npy", "target = 'xxx", "File name too long"),
    "a long network": (f"run --network {LONG}.npz", "network = 'xxx", "File name too long"),
    "a long observed": (f"run --observed {LONG}.npz", "observed = 'xxx", "File name too long"),
    "a long inputs": (f"run --inputs {LONG}.npz --outputs a.npy", "inputs = 'xxx", "File name too long"),
    "a long file": (f"run {LONG}.toml", "file = 'xxx", "File name too long"),
    "a long run": (f"info {LONG}", "path = 'xxx", "File name too long"),
    "a long table": (f"sweep a.toml --table {LONG}.csv", "table = 'xxx", "File name too long"),
    "a network that is an array": ("run --network a.npy", "network = 'a.npy'", "a checkpoint (.npz)"),
    "a network of other widths": ("run --network wrong.npz", "params = <5 numbers>", "16, for widths (2, 4, 2)"),
    "a deep file": ("run deep.toml", "file = 'deep.toml'", "nested too deeply"),
    "a long integer": ("run long.toml", "file = 'long.toml'", "readable TOML"),
    "a file in Latin 1": ("run latin.toml", "file = 'latin.toml'", "utf-8"),
    "a deep teacher": (f"run --teacher-depth {2**31}", f"teacher_depth = {2**31}", "at most 1000"),
    "a deep network": (f"run --depth {2**31}", f"depth = {2**31}", "at most 1000"),
    "a deep greedy network": (f"run --method glrl --depth {2**31}", f"depth = {2**31}", "at most 1000"),
    "a large teacher": (f"run --shape {2**31} {2**31}", f"shape = ({2**31}, {2**31})", "fit into memory"),
    "a wide network": (f"run --shape 4 3 --rank 1 --widths 3 {2**50} 4", "widths = ", "fit into memory"),
    "a large output scale": ("run --output-scale 1e300", "output_scale = 1e+300", "1e-100 to 1e100"),
    "a small output scale": ("run --output-scale 1e-320", "output_scale = ", "1e-100 to 1e100"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_machine_can_take_is_one_sentence(work, capsys, case):
    np.save("a.npy", TARGET)
    np.savez("wrong.npz", params=np.ones(5), widths=np.array([2, 4, 2]))
    (work / "a.toml").write_text("[sweep]\nseed = [1]\n")
    (work / "deep.toml").write_text("values = " + "[" * 900 + "1" + "]" * 900 + "\n")
    (work / "long.toml").write_text("[run]\nsteps = " + "9" * 5000 + "\n")
    (work / "latin.toml").write_bytes("# für\n".encode("latin-1"))
    before, (words, *needles) = _files(work), REFUSED[case]
    code, out, err = call(capsys, words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    for needle in needles:
        assert needle in err
    assert _files(work) == before


def test_cells_that_look_like_formulas_are_escaped_in_tables():
    """Numbers stay numbers, alone and in lists."""
    row = {"a": "=1+1", "b": "+x", "c": "-x", "d": "@x", "e": -1.5, "f": [-2, None], "g": "-3", "h": "x=1", "i": "\t=1"}
    (read,) = csv.DictReader(as_csv([row]).decode().splitlines())
    assert [read[key] for key in "abcd"] == ["'=1+1", "'+x", "'-x", "'@x"]
    assert [read[key] for key in "efgh"] == ["-1.5", "-2 ", "-3", "x=1"]
    assert read["i"] == "'\t=1"
