"""Compilation: said once where it happens, apart from the time of training, and done ahead by `lrbias warmup`."""

import gc
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from numba.core.caching import NullCache

import lrbias as lb
from conftest import ROOT
from lrbias.cli import _app as cli
from lrbias.system import _compilation as compiling
from lrbias.system import _progress as progress
from lrcore.cpu import compilation
from lrcore.cpu._target import kernel


def _fresh_kernel():
    """A kernel that nobody has compiled, of the core by its name."""

    def add_one(x):
        return x + 1

    add_one.__module__ = "lrcore.tests"
    made = kernel(add_one)
    made._cache = NullCache()
    return made


@pytest.fixture
def announcement(monkeypatch):
    """An announcement that was not made yet."""
    made = compiling._Announcement()
    monkeypatch.setattr(compilation._WATCH, "callbacks", [made])
    monkeypatch.setattr(compiling, "_announcement", lambda: made)
    return made


def test_compilation_is_said_once_and_counted(announcement, capsys):
    compiling.announce_compilation(True)
    before = len(compilation.compiled())
    for _ in range(2):
        assert _fresh_kernel()(1) == 2
    assert capsys.readouterr().err == f"{compiling.SENTENCE}\n"
    names = [each.kernel for each in compilation.compiled()[before:]]
    assert names == ["add_one", "add_one"]


@pytest.mark.parametrize("wanted", [False, None])
def test_compilation_is_not_said_where_nothing_is_shown(announcement, capsys, wanted):
    compiling.announce_compilation(wanted)
    _fresh_kernel()(1)
    assert capsys.readouterr().err == ""


def test_the_time_of_compilation_is_no_training(small, monkeypatch):
    """A clock that only compilation moves."""
    spent = iter(range(10**9))
    monkeypatch.setattr("lrbias.training._clock.compile_seconds", lambda: 1000.0 * next(spent))
    run = lb.train(*small, steps=20, progress=False, forecast=False)
    assert run.elapsed < 0  # the thousands were taken off


def test_speed_is_that_of_training(monkeypatch):
    times, compiled = iter([0.0, 30.0]), iter([0.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(progress, "compile_seconds", lambda: next(compiled))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    shown = progress.Plain()
    shown.start(0, 300)
    shown.update(100, 1.0, None)
    assert "10 steps/s" in sys.stderr.getvalue()
    assert "20 s left" in sys.stderr.getvalue()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_warmup_leaves_nothing_to_compile(dtype, capsys):
    arguments = ["warmup", "--dtypes", dtype, "--json"]
    for _ in range(2):
        with pytest.raises(SystemExit, match="0"):
            cli.main(arguments)
    last = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(last) == {"kernels": [], "seconds": 0}
    before = len(compilation.compiled())
    network = lb.Network.gaussian((3, 4, 3), dtype=dtype)
    lb.train(lb.Factorization(np.diag([2.0, 1.0, 0.5])), network, lb.GD(lr=0.01), 3, forecast=False)
    assert [each.kernel for each in compilation.compiled()[before:]] == []


def test_warmup_refuses_what_it_does_not_know(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["warmup", "--methods", "adam"])
    assert "methods = 'adam' is not accepted: expected some of gd, flow, sgd, linearized" in capsys.readouterr().err


def _shell(code, *arguments, **environment):
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False, cwd=ROOT)


MAIN = "import sys, lrbias.cli._app; lrbias.cli._app.main(sys.argv[1:])"


def test_kernels_that_must_not_be_compiled_are_one_sentence():
    answer = _shell(MAIN, "run", "--dry-run", NUMBA_DISABLE_JIT="1")
    assert answer.returncode == 2
    assert answer.stderr.startswith("lrbias: NUMBA_DISABLE_JIT = 1 is not accepted")
    assert len(answer.stderr.splitlines()) == 1


def test_reading_a_run_needs_no_numba(small, tmp_path):
    lb.train(*small, steps=20, store=tmp_path / "run", forecast=False)
    blocked = "import sys; sys.modules['numba'] = sys.modules['llvmlite'] = None\n"
    answer = _shell(blocked + MAIN, "info", str(tmp_path / "run"), "--check")
    assert answer.returncode == 0, answer.stderr
    assert "everything that was committed is intact" in answer.stdout
    read = "import lrbias as lb; run = lb.open(sys.argv[1]); print(run.loss[-1], run['product/singular_values'].shape)"
    assert _shell(blocked + read, str(tmp_path / "run")).returncode == 0


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_rests_while_kernels_are_compiled(enabled, monkeypatch):
    seen = []
    monkeypatch.setattr(compilation._WATCH, "callbacks", [lambda: seen.append(gc.isenabled())])
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        _fresh_kernel()(1)
        assert (seen, gc.isenabled()) == ([False], enabled)
    finally:
        (gc.enable if before else gc.disable)()
