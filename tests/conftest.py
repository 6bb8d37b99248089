"""Shared fixtures."""

import importlib.util
import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:  # as below nohup; what the tests start would ignore it, too
        signal.signal(number, usual)

if importlib.util.find_spec("numba_cuda"):  # the simulator, unless a GPU is asked for
    os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")


@pytest.fixture(autouse=True, scope="session")
def coarse_figures():
    """Pictures take most of the time of what draws many, and nobody looks at these."""
    from lrbias.plots import _drawing as drawing
    from lrbias.reports import _report as reporting

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(drawing.STYLE, "savefig.dpi", 60)
        patch.setitem(drawing.STYLE, "pdf.fonttype", 3)
        patch.setattr(drawing, "LAYOUT", "none")
        for name in ("WHOLE_PAGE_DPI", "SMALL_DPI"):
            patch.setattr(reporting, name, 60)
        yield


@pytest.fixture(scope="module")
def sweeps_here():
    """Sweeps of these tests make their runs in this process: others take seconds to start (test_sweep_processes.py)."""
    from lrbias.sweeps import _workers as workers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "_in_processes", lambda task, jobs, *others: workers._here(task, jobs))
        yield


@pytest.fixture(scope="session")
def gpu():
    """`lrcore.cuda`: in the simulator, or with NUMBA_ENABLE_CUDASIM=0 on the GPU."""
    if not importlib.util.find_spec("numba_cuda"):
        pytest.skip("the extra `cuda` is not installed: pip install 'lrbias[cuda]'")
    from lrcore import cuda

    if cuda.missing():
        pytest.skip(cuda.missing())
    return cuda


@pytest.fixture(params=["cpu", "cuda"])
def core(request):
    """The kernels of one side, and what its tests have time for: a `backends.Core`."""
    import backends

    if request.param == "cuda":
        return backends.of_gpu(request.getfixturevalue("gpu"))
    return {"cpu": backends.CPU, "reference": backends.REFERENCE}[request.param]


@pytest.fixture
def rng():
    import numpy as np

    return np.random.default_rng(20260101)


@pytest.fixture
def small():
    """(problem, network, method) of a run that learns two values in a few hundred steps."""
    import lrbias as lb

    problem = lb.Factorization(lb.from_singular_values((6, 5), [3.0, 1.5], seed=3))
    return problem, lb.Network.gaussian((5, 7, 6), gamma=1.0, seed=2), lb.GD(lr=0.02)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
