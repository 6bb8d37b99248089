"""A sweep on a Dask cluster: a scheduler and two workers in processes of their own, one of which is killed."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import lrbias as lb
from lrbias.cli import main
from lrbias.sweeps import _workers as workers
from runs import fingerprint

BASE = {"shape": [20, 20], "rank": 2, "spectral_norm": 3.0, "steps": 2000, "every": 10, "checkpoint_every": 100}
OVER = {"lr": [0.01, 0.02], "seed": [1, 2]}
SMALL = {**BASE, "shape": [6, 6], "steps": 200}


def _until(condition):
    waiting = threading.Event()
    while not condition():
        waiting.wait(0.01)


@contextlib.contextmanager
def _cluster(folder):
    """(address of the scheduler, two worker processes)."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING": "False"}
    file = folder / "scheduler.json"
    started = []

    def start(*words):
        words = [sys.executable, "-m", "dask", *words, "--scheduler-file", str(file), "--no-dashboard"]
        started.append(subprocess.Popen(words, env=environment, **quiet))
        return started[-1]

    try:
        start("scheduler", "--host", "127.0.0.1", "--port", "0")
        workers = [start("worker", "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1") for _ in range(2)]
        import json

        _until(lambda: file.is_file() and file.read_text().endswith("}"))
        yield json.loads(file.read_text())["address"], workers
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.evidence
def test_a_cluster_that_loses_a_worker_gives_the_same_sweep(tmp_path):
    with ThreadPoolExecutor(1) as executor:
        expected = lb.sweep(BASE, OVER, tmp_path / "here", executor=executor, progress=False)
    with _cluster(tmp_path) as (address, started):
        runs = tmp_path / "there/runs"

        def kill():
            _until(lambda: any(runs.glob("*/checkpoints/step-00000100.npz")))
            os.kill(started[0].pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        made = lb.sweep(BASE, OVER, tmp_path / "there", scheduler=address, progress=False)
        killer.join()
        assert started[0].wait() == -signal.SIGKILL
        assert made.counts() == {"finished": 4}
        assert [fingerprint(made[name]) for name in made.names] == [fingerprint(expected[name]) for name in made.names]
        batched = lb.sweep(SMALL, {"seed": range(10)}, tmp_path / "small", scheduler=address, progress=False)
        assert batched.counts() == {"finished": 10}


def test_a_scheduler_that_is_not_there_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workers, "CONNECT_SECONDS", 1)
    (tmp_path / "small.toml").write_text("[run]\nsteps = 10\n[sweep]\nseed = [1, 2]\n")
    for address in ("tcp://127.0.0.1:9", "nonsense://a"):
        with pytest.raises(SystemExit) as ended:
            main(["sweep", "small.toml", "-o", "s", "--quiet", "--scheduler", address])
        assert ended.value.code == 2
        printed = capsys.readouterr().err.strip().splitlines()
        assert printed[-1].startswith(f"lrbias: scheduler = '{address}' is not accepted")
    assert not (tmp_path / "s").exists()
    with pytest.raises(lb.InvalidInput, match="either it or workers"):
        lb.sweep(SMALL, {"seed": [1]}, tmp_path / "s", scheduler="tcp://127.0.0.1:9", workers=2)
