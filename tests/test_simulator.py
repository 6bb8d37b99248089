"""The simulated GPU: its threads wait for each other at barriers, and at no other place; what fails is told."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

THREADS = 5


@pytest.fixture
def target(gpu, monkeypatch):
    """`lrcore.cuda._target`, and `cuda` for the kernels of this file."""
    from lrcore.cuda import _target

    if not _target.SIMULATED:
        pytest.skip("a GPU is no simulator")
    monkeypatch.setitem(globals(), "cuda", _target.cuda)
    return _target


def _pass_on(shared, out, barriers, shift):
    """out[phase, thread] = what the thread `shift` to the left wrote in this phase."""
    thread = cuda.threadIdx.x  # noqa: F821
    for phase in range(4):
        shared[thread] = 10 * phase + thread
        if barriers:
            cuda.syncthreads()  # noqa: F821
        out[phase * THREADS + thread] = shared[(thread - shift) % THREADS]
        cuda.syncthreads()  # noqa: F821


def _leave_early(shared, out, barriers, shift):
    """Threads that have ended are waited for no longer."""
    thread = cuda.threadIdx.x  # noqa: F821
    for round_ in range(thread):
        cuda.syncthreads()  # noqa: F821
        out[round_] += 1


def _fail(shared, out, barriers, shift):
    """The last thread fails while the others wait."""
    thread = cuda.threadIdx.x  # noqa: F821
    if thread == THREADS - 1:
        raise ZeroDivisionError(f"thread {thread}")
    cuda.syncthreads()  # noqa: F821


def _made(target, function, barriers=True, shift=1):
    shared, out = np.zeros(THREADS), np.zeros(4 * THREADS)
    try:
        target.Kernel(function, "a kernel of a test")(1, THREADS, shared, out, barriers, shift)
    finally:
        target.KERNELS.pop()
    return out.reshape(4, THREADS)


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_barrier_that_is_missing_shows(target, shift):
    expected = 10 * np.arange(4)[:, None] + np.roll(np.arange(THREADS), shift)
    assert np.array_equal(_made(target, _pass_on, shift=shift), expected)
    without = _made(target, _pass_on, barriers=False, shift=shift)
    assert not np.array_equal(without[:2, 1:-1], expected[:2, 1:-1]), "whatever happens at the ends of the row"


def test_threads_that_have_ended_are_not_waited_for(target):
    assert _made(target, _leave_early)[0, :4].tolist() == [4, 3, 2, 1]


def test_a_thread_that_fails_ends_the_kernel(target):
    with pytest.raises(ZeroDivisionError, match="thread 4"):
        _made(target, _fail)
    assert _made(target, _leave_early)[0, 0] == 4, "and the next one runs"


@pytest.mark.parametrize("barriers", [0, 1, 5])
def test_a_kernel_that_failed_leaves_nothing_to_the_next_one(target, gpu, rng, monkeypatch, barriers):
    """Threads that wait within a function of another file must not keep the block that this file knew."""
    from lrcore.cuda import _simulator, gemm

    a = rng.normal(size=(14, 14))
    b = rng.normal(size=(14, 14))
    c = np.empty((14, 14))
    barrier = _simulator.FakeCUDAModule.syncthreads
    reached = itertools.count()

    def fail(module):
        if next(reached) == barriers:
            raise TimeoutError
        barrier(module)

    work = gpu.workspace.allocate((14, 14), np.float64)
    monkeypatch.setattr(_simulator.FakeCUDAModule, "syncthreads", fail)
    with pytest.raises(TimeoutError) as kept:
        gpu.matmul_nn(a, b, c, work)
    assert gemm.cuda is target.cuda, kept


def test_without_greenlets_the_sentence_says_how_to_install_them(work):
    code = "import sys; sys.modules['greenlet'] = None; from lrbias.cli import main; main(sys.argv[1:])"
    words = ["run", "--shape", "3", "3", "--rank", "1", "--steps", "2", "--device", "cuda", "-o", "runs/a"]
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    answer = subprocess.run(
        [sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 2
    assert "NUMBA_ENABLE_CUDASIM=1 needs greenlet: pip install greenlet ('cpu' makes the same bits)" in answer.stderr
    assert list(work.iterdir()) == []
