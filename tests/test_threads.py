"""What one process shares: the threads of BLAS among trainings that overlap, and files with forked children."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import lrbias as lb
from lrbias.system._threads import one_blas_thread
from runs import settings


def _blas():
    return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.mark.parametrize("first_out", ["first in", "last in"])
def test_blas_has_its_threads_again_when_the_last_one_is_out(first_out):
    with threadpool_limits(2, user_api="blas"):
        before = _blas()
        assert 2 in before.values()  # SCS brings a BLAS that has one thread whatever it is told
        first, second = one_blas_thread(), one_blas_thread()
        first.__enter__()
        second.__enter__()
        out = [first, second] if first_out == "first in" else [second, first]
        out[0].__exit__(None, None, None)
        assert set(_blas().values()) == {1}, "one is still inside"
        out[1].__exit__(None, None, None)
        assert _blas() == before


def test_trainings_that_overlap_in_threads_leave_blas_as_it_was():
    """The one that began first ends first, and one of them by an exception."""
    began, ended = threading.Event(), threading.Event()

    def long(network):
        began.set()
        assert ended.wait(60)
        raise ZeroDivisionError

    def short(network):
        return 0.0

    def train(metric):
        return lb.train(**settings(20, record=lb.Record(metrics={"mine": metric})))

    with threadpool_limits(2, user_api="blas"):
        before = _blas()
        with ThreadPoolExecutor(2) as pool:
            second = pool.submit(train, long)
            assert began.wait(60)
            assert pool.submit(train, short).result().step == 20
            ended.set()
            assert isinstance(second.exception(), ZeroDivisionError)
        assert _blas() == before


FORKED = """
import os, sys, warnings
import numpy as np, torch
import lrbias as lb

torch.manual_seed(0)
model = torch.nn.Linear(4, 3)
tracker = lb.nn.RankTracker(model, store="run")
def steps(count):
    for _ in range(count):
        with torch.no_grad():
            model.weight += 0.1
        tracker.step(loss=float(tracker.steps))
steps(3)
tracker.commit()
pid = os.fork()
if pid == 0:
    steps_before = tracker.steps
    try:
        tracker.step(loss=-1.0)
    except lb.InvalidInput as error:
        assert "forked from" in str(error)
    if sys.argv[1] == "close":
        tracker.close()
    if sys.argv[1] == "collected":
        del tracker
    sys.exit(7)  # atexit, finalizers and all
steps(9)
tracker.commit()
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
run = tracker.run
assert run.status == "running" and run.step == 12, run.step
values = run["singular_values"]
assert len(values) == 13 and np.isfinite(values).all()
assert run["loss"][1:].tolist() == list(map(float, range(12)))
assert lb.open("run").check() == []
tracker.close()
assert lb.open("run").status == "finished"
"""


SLOW = [pytest.param(how, marks=pytest.mark.evidence) for how in ("close", "collected")]


@pytest.mark.parametrize("how", ["ended", *SLOW])
def test_a_forked_child_leaves_a_tracked_run_to_its_parent(how, tmp_path):
    """It neither waits for the parent's thread nor commits what was recorded when it was forked."""
    words = [sys.executable, "-c", FORKED, how]
    answer = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert answer.returncode == 0, answer.stderr


def test_a_child_that_a_metric_forks_ends_without_a_trace(tmp_path):
    """Whether it exits or fails; the parent's run has the rows that it would have alone."""
    ways = {3: lambda: sys.exit(5), 6: lambda: 1 / 0}
    asked = []

    def fork(network):
        asked.append(network)
        if len(asked) in ways:
            pid = os.fork()
            if pid == 0:
                child.append(True)
                ways[len(asked)]()
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (5, 9)
        return float(len(asked))

    child = []
    record = lb.Record(every=10, metrics={"singular_values": 1, "mine": fork})
    try:
        run = lb.train(**settings(100, record=record), store=tmp_path / "run")
    except BaseException as error:
        if child:  # pytest goes on in no child
            os._exit(5 if isinstance(error, SystemExit) else 9)
        raise
    assert len(asked) > max(ways), "so that each of them forked"
    assert run.check() == []
    assert run.status == "finished"
    expected = lb.train(**settings(100, record=lb.Record(every=10, metrics={"singular_values": 1})))
    assert np.array_equal(run["product/singular_values"], expected["product/singular_values"])
