"""Where a sweep's runs are made: from scripts of every kind, in anyone's executor, and when something ends early."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import lrbias as lb
from lrbias.cli import main
from lrbias.sweeps import _workers as workers

BASE = {"shape": [6, 5], "rank": 2, "spectral_norm": 3.0, "gamma": 1.0, "steps": 60, "checkpoint_every": 20}
OVER = {"seed": [0, 1, 2]}
README = Path(__file__).resolve().parents[1] / "README.md"


def _readme_block(smaller):
    """README's block about sweeps, as it stands there, with smaller numbers."""
    blocks = re.findall(r"```(?:python)?\n(.*?)```", README.read_text(), re.S)
    (block,) = [text for text in blocks if "lb.sweep(" in text]
    for number, small in smaller.items():
        assert number in block
        block = block.replace(number, small)
    return "import lrbias as lb\n" + block


SLOW = pytest.mark.evidence  # what differs is how the script is told


@pytest.mark.parametrize("kind", ["file", pytest.param("stdin", marks=SLOW), pytest.param("command", marks=SLOW)])
def test_a_script_without_a_main_guard_makes_a_sweep(kind, tmp_path):
    script = f"import lrbias as lb\nprint(lb.sweep({BASE}, {OVER}, 's', workers=2).counts())\n"
    if kind == "file":
        script = _readme_block({"20_000": "20", "range(3)": "[0]", '"figures")': '"figures", ("png",))'})
        script += "print(made.counts())\n"
        (tmp_path / "script.py").write_text(script)
    words, given = {"file": (["script.py"], None), "stdin": (["-"], script), "command": (["-c", script], None)}[kind]
    answer = subprocess.run(
        [sys.executable, *words], input=given, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.strip().splitlines()[-1] == f"{{'finished': {6 if kind == 'file' else 3}}}"


def test_few_files_hold_many_runs(tmp_path):
    made = lb.sweep({**BASE, "steps": 5}, {"seed": range(130)}, tmp_path / "s", workers=2, progress=False)
    files = [path for path in (tmp_path / "s").rglob("*") if path.is_file() and not path.name.endswith("lock")]
    assert len(files) == 1 + -(-130 // 24)
    assert made.counts() == {"finished": 130}
    before = [path.stat().st_mtime_ns for path in files]
    again = lb.sweep({**BASE, "steps": 5}, {"seed": range(130)}, tmp_path / "s", workers=2, progress=False)
    assert [path.stat().st_mtime_ns for path in files] == before
    assert again.table() == made.table()


def test_a_sweep_of_which_every_run_fails_raises_its_first_reason(tmp_path, capsys, monkeypatch):
    base = {"steps": 10, "target": str(tmp_path / "none.npy")}
    with ThreadPoolExecutor(1) as executor, pytest.raises(lb.RunsFailed, match=r"2 in all.*expected") as failed:
        lb.sweep(base, {"seed": [1, 2]}, tmp_path / "s", executor=executor)
    assert [row["status"] for row in failed.value.sweep.table()] == ["failed"] * 2
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text('[run]\nsteps = 10\n[problem.target]\npath = "none.npy"\n[sweep]\nseed = [1]\n')
    monkeypatch.setattr(workers, "_in_processes", lambda task, jobs, *others: workers._here(task, jobs))
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "a.toml", "-o", "t", "--quiet", "--table", "table.csv"])
    assert ended.value.code == 1
    assert "expected the path" in (tmp_path / "table.csv").read_text()
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_some_that_fail_are_rows(tmp_path):
    np.save(tmp_path / "there.npy", np.diag([2.0, 1.0]))
    over = {"target": [str(tmp_path / f"{name}.npy") for name in ("none", "there")]}
    with ThreadPoolExecutor(1) as executor:
        made = lb.sweep({"steps": 10}, over, tmp_path / "s", executor=executor)
    assert made.counts() == {"failed": 1, "finished": 1}


class _Client:
    """What a sweep asks of a Dask Client."""

    def __init__(self, executor):
        self._executor = executor
        self.asked = []

    def get_executor(self, **settings):
        self.asked.append(settings)
        return self._executor


@pytest.mark.parametrize("argument", ["executor", "scheduler"])
def test_a_client_of_dask_is_an_executor(argument, tmp_path):
    with ThreadPoolExecutor(1) as executor:
        client = _Client(executor)
        made = lb.sweep(BASE, OVER, tmp_path / "s", progress=False, **{argument: client})
        assert executor.submit(int).result() == 0, "it is the user's to close"
    assert made.counts() == {"finished": 3}
    assert client.asked == [{"retries": workers.MOST_DEATHS, "pure": False}]


def test_executors_that_take_no_jobs_are_refused(tmp_path):
    class Odd:
        def submit(self, task, job):
            return 5

        def shutdown(self):
            """Nothing."""

    shut = ThreadPoolExecutor(1)
    shut.shutdown()
    for executor, said in ((3, "executor = 3"), (shut, "takes no jobs"), (Odd(), "expected one of concurrent")):
        with pytest.raises(lb.InvalidInput, match=said):
            lb.sweep(BASE, OVER, tmp_path / "s", executor=executor)


def _in_daemon(folder):
    return lb.sweep(BASE, OVER, folder, workers=2, progress=False).counts()


def test_a_daemonic_process_makes_the_runs_itself(tmp_path):
    """The pools of multiprocessing have daemons, which may have no children."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_in_daemon, (tmp_path / "s",)) == {"finished": 3}


def test_workers_keep_the_affinity_of_their_parent(tmp_path):
    """Two sweeps on one machine: nobody sits on the first core of what is allowed."""
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system has no affinity")
    found = [result for _, result, _ in workers.run_all(_affinity, range(2), 2)]
    assert found == [(sorted(os.sched_getaffinity(0)), 1, "1")] * 2


def _affinity(job):
    from lrbias.system._threads import cores

    return sorted(os.sched_getaffinity(0)), cores(), os.environ["OPENBLAS_NUM_THREADS"]


def _die(job):
    if job == "bad":
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def test_a_run_that_always_kills_its_worker_takes_no_other_with_it(monkeypatch):
    """As the system does with a process that has taken all memory."""
    monkeypatch.setattr(workers, "MOST_DEATHS", 1)
    found = {job: (result, error) for job, result, error in workers.run_all(_die, ["bad", "a", "b"], 2)}
    assert found["a"] == ("a", None)
    assert found["b"] == ("b", None)
    assert found["bad"][0] is None
    assert "no memory" in str(found["bad"][1])


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.evidence)]
)
def test_a_sweep_that_is_told_to_end_keeps_every_run_that_was_begun(number, code, tmp_path):
    """The signal reaches the parent alone; each worker saves its run at the step that it has reached."""
    lines = [
        "[problem.target]",
        "shape = [20, 20]",
        "rank = 2",
        "[run]",
        "steps = 100000000",
        "checkpoint_every = 1000",
    ]
    lines += ["[record]", "every = 1000", "[sweep]", "seed = [1, 2, 3, 4]"]
    (tmp_path / "a.toml").write_text("\n".join(lines))
    words = [sys.executable, "-m", "lrbias", "sweep", "a.toml", "-o", "s", "--quiet", "--workers", "2"]
    child = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    waiting = threading.Event()
    while len(list(tmp_path.glob("s/runs/*/checkpoints/step-00001000.npz"))) < 2 and child.poll() is None:
        waiting.wait(0.01)
    child.send_signal(number)
    said = child.communicate()[1]
    assert child.returncode == code, said
    assert "the same sweep goes on with it" in said
    made = lb.open_sweep(tmp_path / "s")
    assert made.counts() == {"interrupted": 2, "missing": 2}


def test_any_executor_of_processes(tmp_path):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        made = lb.sweep(BASE, OVER, tmp_path / "s", executor=executor, progress=False)
    assert made.counts() == {"finished": 3}


def test_a_sweep_that_was_removed_is_not_made_again_in_part(tmp_path, monkeypatch):
    """The folder goes while the second run is made: every run left says so, and nothing comes back."""
    from shutil import rmtree

    from lrbias.sweeps import _sweep as making

    def removing(job):
        if job[1].endswith("seed=1"):
            rmtree(tmp_path / "s")
        return making.make_run(job_of(job))

    job_of = lambda job: (job[1], next(iter(job[2].values())))  # noqa: E731
    monkeypatch.setattr(making, "make_job", lambda job: {next(iter(job[2])): removing(job)})
    with ThreadPoolExecutor(1) as executor:
        made = lb.sweep(BASE, OVER, tmp_path / "s", executor=executor, progress=False)
    assert list(tmp_path.iterdir()) == []
    assert "removed in the meantime" in made._failures["seed=2"]


def test_drafts_of_a_sweep_that_was_killed_are_removed(tmp_path):
    """Only those that nobody makes any more."""
    from lrbias.system import _files as files

    for name in (".s.aa.new", ".s.bb.new", ".t.cc.new"):
        (tmp_path / name / "runs").mkdir(parents=True)
    held = files.lock(tmp_path / ".s.bb.new/lock", tmp_path)
    with ThreadPoolExecutor(1) as executor:
        lb.sweep(BASE, OVER, tmp_path / "s", executor=executor, progress=False)
    held.release()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".s.bb.new", ".t.cc.new", "s"]
