"""What all benchmarks share: a clean environment, one core, rounds in which the sides take turns, and tables.

Import it before NumPy: OpenBLAS reads the environment when it is loaded.
"""

import argparse
import contextlib
import importlib.util
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import TypeVar

Value = TypeVar("Value")

CHOICES_OF_KERNELS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # set on some machines, where they slow OpenBLAS down
MODULES = {"PyTorch": "torch", "torch.bmm": "torch", "JAX vmap": "jax", "SciPy RK45": "scipy"}  # else the side's name
SMALLEST = "--smallest" in sys.argv

TOO_LATE = "numpy" in sys.modules and any(variable in os.environ for variable in CHOICES_OF_KERNELS)
for variable in CHOICES_OF_KERNELS:
    os.environ.pop(variable, None)
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")


def sized(usual: Value, smallest: Value) -> Value:
    """`usual`, or with the flag --smallest the size that shows only that a benchmark still runs."""
    return smallest if SMALLEST else usual


ROUNDS = sized(9, 1)
PEAK_ROUNDS = sized(50, 1)


def parsed(parser: argparse.ArgumentParser | None = None) -> argparse.Namespace:
    """The arguments of a script: those of `parser`, --write and --smallest."""
    if TOO_LATE:
        raise SystemExit("NumPy was loaded before benchmarks/harness.py, with " + " or ".join(CHOICES_OF_KERNELS))
    parser = parser or argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help="put the tables into the pages of this folder")
    parser.add_argument("--smallest", action="store_true", help="the smallest sizes: does everything still run?")
    options = parser.parse_args()
    if options.write and options.smallest:
        parser.error("--write keeps numbers, and those of --smallest mean nothing")
    return options


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """All threads of this process on one core, also those that begin within; afterwards as before.

    JAX has a flag for one thread, but at n ≥ 1000 it uses all cores that it may.
    """
    if not hasattr(os, "sched_setaffinity"):  # macOS, Windows
        yield
        return
    before = os.sched_getaffinity(0)
    _pin({max(before)})
    try:
        yield
    finally:
        _pin(before)


def _pin(cores: set[int]) -> None:
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # it has ended since it was listed
            os.sched_setaffinity(int(thread), cores)


def installed(sides: Mapping[str, Value]) -> dict[str, Value]:
    """Those of `sides` whose package can be imported."""
    return {
        name: make
        for name, make in sides.items()
        if importlib.util.find_spec(MODULES.get(name, name.lower())) is not None
    }


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def medians(
    sides: Mapping[str, Callable[[], object]], rounds: int = ROUNDS
) -> tuple[dict[str, float], dict[str, float]]:
    """({name: median seconds}, {name: median ratio to the first side}) over rounds in which the sides take turns."""
    first = next(iter(sides))
    for action in sides.values():
        action()  # compiles
    times = [{name: seconds(action) for name, action in sides.items()} for _ in range(min(rounds, ROUNDS))]
    middle = {name: statistics.median(row[name] for row in times) for name in sides}
    return middle, {name: statistics.median(row[name] / row[first] for row in times) for name in sides}


def row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def head(*cells: str) -> Iterator[str]:
    yield row(*cells)
    yield row("---", *["---:"] * (len(cells) - 1))


def machine() -> str:
    """One line about where and with what this was measured."""
    import llvmlite.binding
    from peak import gigaflops

    peak = max(gigaflops() for _ in range(PEAK_ROUNDS))
    packages = ("numba", "numpy", "scipy", "torch", "jax", "diffrax", "torchdiffeq")
    versions = ", ".join(f"{name} {version(name)}" for name in packages if importlib.util.find_spec(name))
    where = f"{llvmlite.binding.get_host_cpu_name()}, {os.cpu_count()} cores, CPython {platform.python_version()}"
    return f"{where}, {versions}; {_blas()}; FMA peak of one core, measured: {peak:.0f} GFLOP/s."


def _blas() -> str:
    """The BLAS that NumPy calls, and the kernels that it has chosen for this CPU."""
    from pathlib import Path

    import numpy as np
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))
    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    numpys = [library for library in found if "numpy" in Path(library["filepath"]).parent.name] or found
    library = numpys[0]
    return f"{library['internal_api']} {library['version']} with its kernels for {library.get('architecture', '?')}"
