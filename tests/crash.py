"""Kill a training process at its store writes and at random times; resume; compare with an undisturbed run.

    python tests/crash.py --run greedy --stride 1 --random 50        (or descent, regimes, network)

Every mutation of the file system (open for writing, rename, mkdir, remove, link, truncate) raises one of Python's audit
events. The child counts those below the run's folder and sends itself SIGKILL *before* the k-th, so every state
between two writes is visited. Prints one JSON object: how many kills there were, after how many of them the resumed
run was identical, which steps the killed ones had committed and how often, and the steps at which phases end.
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
from collections import Counter
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import lrbias as lb
from runs import fingerprint, quiet_train, settings

MUTATIONS = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink", "shutil.rmtree"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def descent():
    """Arguments of lb.train for a run by gradient descent."""
    record = lb.Record(every=10, metrics={"singular_values": 10, "stable_rank": 5, "gradient_norm": 60})
    return settings(180, record=record, checkpoint_every=60)


def regimes():
    """Of one whose metrics remember: eigenvalues start from vectors of the record before, updates from its layers."""
    metrics = {"sharpness": 20, "ntk_eigenvalues": 12, "updates": 9, "ntk": 30, "distance_from_init": 5}
    return settings(180, record=lb.Record(every=10, metrics=metrics), checkpoint_every=60)


def greedy():
    """Of one by greedy low-rank learning with an adaptive flow: commits within its two phases and at their ends."""
    flow = lb.GradientFlow(dt=0.1, scheme="dopri5")
    method = lb.GLRL(epsilon=1e-4, inner=flow, tolerance=1e-6, check_every=10)
    record = lb.Record(every=10, metrics={"singular_values": 10, "stable_rank": 5})
    return settings(None, network=None, method=method, record=record, checkpoint_every=45)


def network():
    """Settings of lb.nn.fit for a network with batch norm, under momentum, crops and flips: commits within epochs."""
    from lrbias.nn import Training

    digits = {"data": "digits", "samples": 200, "test_samples": 50, "network": "mlp-bn", "width": 8, "depth": 2}
    return {"training": Training(**digits, batch=16, momentum=0.9, augment=True, epochs=3, every=7)}


RUNS = {run.__name__: run for run in (descent, regimes, greedy, network)}


def make(arguments, store=None):
    """The run of these arguments, whole."""
    if "training" not in arguments:
        return quiet_train(**arguments, store=store)
    import torch

    torch.set_num_threads(1)
    return lb.nn.fit(**arguments, store=store, checkpoint_every=5)


def start(path, arguments):
    """A new run, or the rest of one that was killed."""
    return lb.resume(path) if (path / "config.json").exists() else make(arguments, path)


def count_mutations(folder, limit):
    """Install the hook; returns a function that tells how many mutations there were. 0: count only."""
    seen = 0
    prefix = str(folder)

    def hook(event, details):
        nonlocal seen
        if event == "open":
            path = details[0]
            mutates = bool((details[2] or 0) & WRITING)
        else:
            path = details[0] if details else None
            mutates = event in MUTATIONS
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


def killed_at_write(folder, limit, arguments):
    """True when the child was killed at its `limit`-th write, False when it ended before."""

    def train():
        count_mutations(folder, limit)
        start(folder / "run", arguments)

    status = wait(in_child(train))
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, status
    return status != 0


def killed_after(folder, seconds, arguments):
    """Start a child and kill it after `seconds`. False when it had ended before."""
    pid = in_child(lambda: start(folder / "run", arguments) and None)
    descriptor = os.pidfd_open(pid)
    select.select([descriptor], [], [], seconds)
    os.close(descriptor)
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(wait(pid))


def committed(folder):
    """The step that the killed run had committed, "none" before there was a run."""
    return str(lb.open(folder / "run").step) if (folder / "run").exists() else "none"


def resumed_fingerprint(folder, arguments):
    """Of the run after a new process has finished it."""
    assert wait(in_child(lambda: start(folder / "run", arguments) and None)) == 0
    run = lb.open(folder / "run")
    assert run.status in ("finished", "stopped"), run.detail
    assert run.check() == []
    assert [entry.name for entry in folder.iterdir()] == ["run"], list(folder.iterdir())
    assert not list(folder.rglob("*.partial"))
    return fingerprint(run)


def kill_at_writes(base, stride, arguments, expected):
    """Kill before every `stride`-th write, each time a new run; returns what to report."""
    report = {"writes": 0, "killed_at_a_write": 0, "identical": 0}
    steps = Counter()
    limit = 1
    while True:
        folder = base / f"write-{limit}"
        folder.mkdir()
        if not killed_at_write(folder, limit, arguments):
            return {**report, "committed": dict(steps)}
        report["writes"] = limit
        report["killed_at_a_write"] += 1
        steps[committed(folder)] += 1
        report["identical"] += resumed_fingerprint(folder, arguments) == expected
        shutil.rmtree(folder)
        limit += stride


def kill_at_random(base, count, arguments, expected):
    """How many of `count` runs that are killed at random times, some again while they resume, end identical."""
    (base / "whole").mkdir()
    started = time.monotonic()
    resumed_fingerprint(base / "whole", arguments)
    duration = time.monotonic() - started  # of a run that nobody kills
    chance = random.Random(1)
    killed = 0
    identical = 0
    while killed < count:
        folder = base / "random"
        folder.mkdir()
        kills = [killed_after(folder, chance.uniform(0, duration), arguments) for _ in range(1 + killed % 3)]
        same = resumed_fingerprint(folder, arguments) == expected
        if any(kills):  # a child that ended before its time does not count
            killed += 1
            identical += same
        shutil.rmtree(folder)
    return identical


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", choices=RUNS, default="descent")
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--random", type=int, default=0)
    options = parser.parse_args()
    arguments = RUNS[options.run]()
    undisturbed = make(arguments)  # compiles everything, too
    expected = fingerprint(undisturbed)
    base = Path(tempfile.mkdtemp(prefix="lrbias-crash-"))
    report = kill_at_writes(base, options.stride, arguments, expected)
    report["identical"] += kill_at_random(base, options.random, arguments, expected)
    phases = getattr(undisturbed, "phases", [])
    report |= {"killed_at_random": options.random, "phase_ends": [phase.end for phase in phases]}
    shutil.rmtree(base)
    print(json.dumps(report))
    sys.exit(report["killed_at_a_write"] + options.random != report["identical"])


if __name__ == "__main__":
    main()
