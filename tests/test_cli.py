"""The command line as a person uses it: exit codes, JSON, figures, resume, compare, divergence, signals."""

import json
import os
import select
import signal
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

import lrbias as lb
from runs import call

SMALL = "--shape 8 6 --rank 2 --depth 2 --gamma 1 --lr 0.02 --steps 300 --every 10 --checkpoint-every 100"


def test_run_info_plot_resume_compare(work, capsys):
    code, out, err = call(capsys, f"run {SMALL} -o runs/gd")
    assert code == 0
    assert "finished at step 300 of 300" in out
    assert "forecast" in out
    assert "stable below" in err
    figures = sorted(path.name for path in (work / "runs/gd/figures").iterdir())
    names = ("alignment", "directions", "effective_rank", "layer_ranks", "loss", "overview", "singular_values")
    assert figures == sorted(f"{name}.{suffix}" for name in names for suffix in ("pdf", "png"))

    code, out, _ = call(capsys, "info runs/gd --json --check")
    facts = json.loads(out)
    assert (code, facts["step"], facts["status"], facts["damaged"]) == (0, 300, "finished", [])
    assert facts["settings"]["lr"] == 0.02

    code, out, _ = call(capsys, "plot runs/gd -o pictures --format svg")
    assert code == 0
    drawn = ElementTree.parse(work / "pictures/overview.svg").getroot()
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg"

    code, out, _ = call(capsys, "resume runs/gd --steps 500 --no-figures --json --quiet")
    assert json.loads(out)["step"] == 500

    assert call(capsys, f"run {SMALL.replace('--lr', '--method flow --dt')} -o runs/flow --no-figures --quiet")[0] == 0
    code, out, _ = call(capsys, "compare runs/gd runs/flow -o pictures --json")
    answer = json.loads(out)
    assert answer["same_start"] is True
    assert [row["reference"] for row in answer["runs"]] == [False, True]
    assert 0 < answer["runs"][0]["largest_difference"] < 0.2
    assert (work / "pictures/comparison.png").exists()


def test_dry_run_creates_nothing(work, capsys):
    code, out, err = call(capsys, f"run {SMALL} --dry-run --json")
    answer = json.loads(out)
    assert code == 0
    assert answer["bytes"] > 0
    assert answer["seconds"] > 0
    assert len(answer["escape_steps"]) == 2
    assert "escapes at step" in err
    assert list(work.iterdir()) == []


def test_flags_win_over_the_file(work, capsys):
    (work / "experiment.toml").write_text(
        "[problem.target]\nshape = [8, 6]\nrank = 2\n[network]\ndepth = 2\ngamma = 1.0\n[method]\nlr = 0.5\n"
        "[run]\nsteps = 300\n[record.metrics]\nstable_rank = 7\n"
    )
    assert call(capsys, "run experiment.toml --lr 0.01 --steps 70 --widths 6 3 8 -o run --quiet --no-figures")[0] == 0
    run = lb.open("run")
    assert (run.settings["lr"], run.step, run.widths) == (0.01, 70, (6, 3, 8))
    assert run.steps_of("layer/1/stable_rank").tolist() == list(range(0, 71, 7))
    words = "run experiment.toml --method flow --dt 0.01 --steps 5 -o flow --quiet --no-figures --metrics none"
    assert call(capsys, words)[0] == 0
    assert lb.open("flow").names == ["losses"]


def test_divergence_has_its_exit_code(work, capsys):
    """In a process of its own, warnings as they are: nothing but the forecast and one sentence on stderr."""
    command = [
        sys.executable,
        "-m",
        "lrbias",
        "run",
        *SMALL.replace("--lr 0.02", "--lr 10").split(),
        "-o",
        "run",
        "--quiet",
        "--no-figures",
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 3
    assert answer.stderr.count("\n") == 1
    run = lb.open("run")
    assert f"step {run.step} " in answer.stderr
    assert run.status == "diverged"
    assert np.isfinite(run.network.params).all()
    assert len(run.losses) == run.step + 1
    assert len(run["product/singular_values"]) >= 1
    assert run.check() == []
    assert call(capsys, "resume run")[0] == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_name_the_command_that_resumes(work, capsys, number, code):
    words = SMALL.replace("--steps 300", "--steps 100000000").split()
    command = [sys.executable, "-m", "lrbias", "run", *words, "-o", "run", "--no-figures"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        deadline = 600
        while not (work / "run/checkpoints/step-00000100.npz").exists() and deadline:
            select.select([], [], [], 0.05)  # the first commit shows that training is under way
            deadline -= 1
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "lrbias resume run" in err
    assert "Traceback" not in err
    run = lb.open("run")
    assert run.status == "interrupted"
    assert run.checkpoints[-1] == run.step
    assert call(capsys, f"resume run --steps {run.step + 10} --quiet --no-figures")[0] == 0


def test_damaged_runs_have_their_exit_code(work, capsys):
    call(capsys, f"run {SMALL} -o run --quiet --no-figures")
    chunk = next(path for path in (work / "run/log.zarr/losses/c").rglob("*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1])
    code, out, _ = call(capsys, "info run --check")
    assert code == 1
    assert "losses" in out
    os.remove(work / "run/progress.json")
    code, _, err = call(capsys, "info run")
    assert code == 1
    assert "progress.json is missing" in err


@pytest.mark.parametrize("name", ["target.npy", "target.csv", "target.tsv", "target.png"])
def test_own_matrices(work, capsys, name, rng):
    matrix = np.round(rng.random((9, 7)) * 255) / 255
    if name.endswith("npy"):
        np.save(name, matrix)
    elif name.endswith("png"):
        from PIL import Image

        Image.fromarray((matrix * 255).astype(np.uint8)).save(name)
    else:
        np.savetxt(name, matrix, delimiter="," if name.endswith("csv") else "\t", fmt="%.17g")
    assert call(capsys, f"run --target {name} --depth 2 --steps 20 -o run --quiet --no-figures")[0] == 0
    assert np.allclose(lb.open("run").target, matrix, atol=1e-15)
    words = f"run --target {name} --crop 5 4 --spectral-norm 3 --depth 2 --steps 20 -o cropped --quiet --no-figures"
    assert call(capsys, words)[0] == 0
    cropped = lb.open("cropped").target
    assert np.linalg.norm(cropped, 2) == pytest.approx(3)
    assert np.allclose(cropped / cropped[0, 0], matrix[2:7, 1:5] / matrix[2, 1])
    assert call(capsys, "run cropped/experiment.toml -o again --quiet --no-figures")[0] == 0
    assert np.array_equal(lb.open("again").losses, lb.open("cropped").losses)


def test_help_names_every_command(capsys):
    code, out, _ = call(capsys, "--help")
    assert code == 0
    for command in ("run", "resume", "plot", "info", "compare"):
        assert command in out
    assert "--stop-gradient" in call(capsys, "run --help")[1]
    assert call(capsys, "--version")[1].strip() == lb.__version__


def test_a_reader_that_has_enough_is_no_error(work, capsys):
    call(capsys, f"run {SMALL} --no-figures -o runs/gd")
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "lrbias", "info", "runs/gd"]
    answer = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (answer.returncode, answer.stderr) == (0, "")
