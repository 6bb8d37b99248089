"""Kill a training process at its store writes and at random times; resume; compare with an undisturbed run.

    python tests/crash.py --stride 1 --random 50

Every mutation of the file system (open for writing, rename, mkdir, remove, link, truncate) raises one of Python's audit
events. The child counts those below the run's folder and sends itself SIGKILL *before* the k-th, so every state
between two writes is visited. Prints one JSON object.
"""

import argparse
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import lrbias as lb
from runs import fingerprint, quiet_train, settings

MUTATIONS = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink", "shutil.rmtree"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def arguments():
    record = lb.Record(every=10, metrics={"singular_values": 10, "stable_rank": 5, "gradient_norm": 60})
    return settings(180, record=record, checkpoint_every=60)


def start(path):
    """A new run, or the rest of one that was killed."""
    if (path / "config.json").exists():
        return lb.resume(path)
    return quiet_train(**arguments(), store=path)


def count_mutations(folder, limit):
    """Install the hook; returns a function that tells how many mutations there were. 0: count only."""
    seen = 0
    prefix = str(folder)

    def hook(event, details):
        nonlocal seen
        if event == "open":
            path, mutates = details[0], bool((details[2] or 0) & WRITING)
        else:
            path, mutates = details[0] if details else None, event in MUTATIONS
        if mutates and isinstance(path, (str, os.PathLike)) and str(path).startswith(prefix):
            seen += 1
            if seen == limit:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return lambda: seen


def in_child(action):
    """Run `action` in a forked child; returns its pid."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = action() or 0
        finally:
            os._exit(code)
    return pid


def wait(pid):
    return os.waitpid(pid, 0)[1]


def killed_at_write(folder, limit):
    """True when the child was killed at its `limit`-th write, False when it ended before."""

    def train():
        count_mutations(folder, limit)
        start(folder / "run")

    status = wait(in_child(train))
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, status
    return status != 0


def killed_after(folder, seconds):
    """Start a child and kill it after `seconds`. False when it had ended before."""
    pid = in_child(lambda: start(folder / "run") and None)
    descriptor = os.pidfd_open(pid)
    select.select([descriptor], [], [], seconds)
    os.close(descriptor)
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(wait(pid))


def resumed_fingerprint(folder):
    """Of the run after a new process has finished it."""
    assert wait(in_child(lambda: start(folder / "run") and None)) == 0
    run = lb.open(folder / "run")
    assert run.status == "finished", run.detail
    assert run.check() == []
    assert [entry.name for entry in folder.iterdir()] == ["run"], list(folder.iterdir())
    assert not list(folder.rglob("*.partial"))
    return fingerprint(run)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--random", type=int, default=0)
    options = parser.parse_args()
    expected = fingerprint(quiet_train(**arguments()))  # compiles everything, too
    base = Path(tempfile.mkdtemp(prefix="lrbias-crash-"))
    report = {"writes": 0, "killed_at_a_write": 0, "killed_at_random": 0, "identical": 0}
    limit = 1
    while True:
        folder = base / f"write-{limit}"
        folder.mkdir()
        if not killed_at_write(folder, limit):
            break
        report["writes"] = limit
        report["killed_at_a_write"] += 1
        report["identical"] += resumed_fingerprint(folder) == expected
        shutil.rmtree(folder)
        limit += options.stride
    started = time.monotonic()
    (base / "whole").mkdir()
    resumed_fingerprint(base / "whole")
    duration = time.monotonic() - started  # of a run that nobody kills
    chance = random.Random(1)
    while report["killed_at_random"] < options.random:
        folder = base / "random"
        folder.mkdir()
        # some are killed again while they resume; a child that ended before its time does not count
        kills = [killed_after(folder, chance.uniform(0, duration)) for _ in range(1 + report["killed_at_random"] % 3)]
        identical = resumed_fingerprint(folder) == expected
        if any(kills):
            report["killed_at_random"] += 1
            report["identical"] += identical
        shutil.rmtree(folder)
    shutil.rmtree(base)
    print(json.dumps(report))
    wrong = report["killed_at_a_write"] + report["killed_at_random"] - report["identical"]
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
