"""Start-up as a person feels it: whole processes, from the shell."""

import os
import subprocess
import sys

import pytest
from harness import sized

PROTOCOL = ["--steps", "1", "--checkpoint-every", "1", "--no-figures"]


def _run(*words, **environment):
    subprocess.run(
        [sys.executable, "-m", "lrbias", *words], check=True, capture_output=True, env=os.environ | environment
    )


@pytest.mark.benchmark(group="help")
def test_help(benchmark):
    benchmark.pedantic(_run, ("--help",), rounds=sized(10, 1), warmup_rounds=sized(1, 0))


@pytest.mark.benchmark(group="import")
@pytest.mark.parametrize("module", ["lrcore", "lrcore.cpu", "lrbias"])
def test_import(benchmark, module):
    command = [sys.executable, "-c", f"import {module}"]
    benchmark.pedantic(lambda: subprocess.run(command, check=True), rounds=sized(5, 1), warmup_rounds=sized(1, 0))


@pytest.mark.benchmark(group="one step of the protocol, all metrics, forecast included: a whole process")
@pytest.mark.parametrize("cache", sized(["empty", "warm"], ["warm"]))
def test_first_and_second_run(benchmark, tmp_path, cache):
    """Compilation in all is the difference of the two."""
    folders = iter(range(100))

    def run(number=None):
        number = next(folders)
        cached = tmp_path / ("cache" if cache == "warm" else f"cache-{number}")
        _run("run", *PROTOCOL, "-o", str(tmp_path / f"run-{number}"), NUMBA_CACHE_DIR=str(cached))

    rounds = sized(5 if cache == "warm" else 2, 1)
    benchmark.pedantic(run, rounds=rounds, warmup_rounds=1 if cache == "warm" else 0)
