"""Where the runs of a sweep are made: one thread each, in processes of their own or in any executor.

A worker that dies is replaced, and what it had begun is begun again, which resumes it: the run directories are the
queue.
"""

import contextlib
import ctypes
import functools
import multiprocessing
import os
import signal
import sys
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from lrbias.errors import InvalidInput, shorten

CONNECT_SECONDS = 5
PR_SET_PDEATHSIG = 1  # from linux/prctl.h
MOST_DEATHS = 5  # of workers in a row without a run being finished
ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def run_all(task, jobs, workers, executor=None, pinned=True):
    """Yield (job, result, exception) of task(job) for every job, in the order in which they end.

    workers: number of processes; pinned: whether each has a core of its own; executor: where else to run, an executor
    of `concurrent.futures` (what happens there when a worker dies is its own affair). Closing the generator early
    stops the runs that were begun: they save what they have.
    """
    if executor is not None:
        yield from _drain(executor, task, jobs)
        return
    waiting, deaths = list(jobs), 0
    while waiting:
        others = set(multiprocessing.active_children())
        with _one_thread_each(), _processes(min(workers, len(waiting)), pinned) as pool:
            try:
                for job, result, error in _drain(pool, functools.partial(_in_worker, task), waiting):
                    if isinstance(error, BrokenProcessPool):
                        continue  # it is still waiting, and so are all that were lost with it
                    waiting.remove(job)
                    deaths = 0
                    yield job, result, error
            except BaseException:
                for worker in set(multiprocessing.active_children()) - others:
                    worker.terminate()  # a run that gets SIGTERM saves itself
                raise
        deaths += 1
        if waiting and deaths > MOST_DEATHS:
            for job in waiting:
                yield job, None, RuntimeError(f"workers died {deaths} times in a row without ending a run")
            return


@contextlib.contextmanager
def dask_executor(address):
    """An executor on the Dask cluster whose scheduler is at `address`; Dask itself repeats what a lost worker had."""
    try:
        from distributed import Client
    except ImportError:
        raise InvalidInput("scheduler needs Dask: pip install 'lrbias[dask]'.") from None
    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InvalidInput(
            f"scheduler = {shorten(address)} is not accepted: expected the address of a running Dask scheduler, "
            f"tcp://HOST:PORT ({shorten(reason, 120)})."
        ) from None
    with client:
        yield client.get_executor(retries=MOST_DEATHS, pure=False)


def _drain(executor, task, jobs):
    futures = {executor.submit(task, job): job for job in jobs}
    try:
        while futures:
            done, _ = wait(futures, return_when=FIRST_COMPLETED)
            for future in done:
                error = future.exception()
                yield futures.pop(future), None if error else future.result(), error
    finally:
        for future in futures:
            future.cancel()


def _in_worker(task, job):
    """task(job); a worker that is told to end does so once its run has saved itself, instead of taking the next."""
    try:
        return task(job)
    except KeyboardInterrupt as error:
        os._exit(128 + getattr(error, "signal", signal.SIGINT))


def _processes(count, pinned):
    """Spawned, with one core each when `pinned`, so that a run measures in the thread that trains."""
    context = multiprocessing.get_context("spawn")
    numbers = context.Value("i", 0) if pinned else None
    return ProcessPoolExecutor(count, mp_context=context, initializer=_settle, initargs=(numbers,))


@contextlib.contextmanager
def _one_thread_each():
    """Processes that are spawned inside find these variables before they import NumPy."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def _settle(numbers):
    """Take a core of one's own, if cores are numbered, and end with the parent. A run that hears Ctrl-C saves itself;
    between runs it is the parent's affair."""
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if numbers is None:
        return
    with numbers.get_lock():
        mine, numbers.value = numbers.value, numbers.value + 1
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {allowed[mine % len(allowed)]})


def _end_with_parent():
    """Ask Linux to kill this process when its parent dies: else it would wait for work, and hold its run, for ever."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:  # it died before this was asked
            os._exit(1)
