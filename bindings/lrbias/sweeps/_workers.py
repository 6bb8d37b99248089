"""Where the runs of a sweep are made: one thread each, in processes of their own or in any executor.

The processes are loky's: they do not import the user's script, which therefore needs no main guard and may be a
notebook. A worker that dies is replaced, and what it had begun is begun again, which resumes it: the run directories
are the queue.
"""

import contextlib
import ctypes
import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from lrbias.errors import Interrupted, InvalidInput, shorten
from lrbias.system import use_cores

CONNECT_SECONDS = 5
PARENT_SECONDS = 5  # between two looks whether the parent lives, where the system does not tell
PR_SET_PDEATHSIG = 1  # from linux/prctl.h
MOST_DEATHS = 5  # of workers in a row without a run being finished
SETTINGS = {
    **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
    "LOKY_MAX_MEMORY_LEAK_SIZE": "1e18",  # a run that needs memory is no leak
}
TOLD = "told to end"  # what a worker answers instead of a result

Outcome = tuple[Any, Any, BaseException | None]


def run_all(
    task: Callable, jobs: Iterable, workers: int, executor: Executor | None = None, one_core: bool = True
) -> Generator[Outcome, None, None]:
    """Yield (job, result, exception) of task(job) for every job, in the order in which they end.

    workers: number of processes; one_core: whether each leaves the other cores to the others; executor: where else to
    run, an executor of `concurrent.futures` (what happens there when a worker dies is its own affair). Closing the
    generator early stops the runs that were begun: they save what they have. In a process that may have no children
    the jobs are made one after the other.
    """
    if executor is not None:
        yield from _drain(executor, task, jobs)
    elif multiprocessing.current_process().daemon:
        yield from _here(task, jobs)
    else:
        yield from _in_processes(task, list(jobs), workers, one_core)


def _in_processes(task, waiting, workers, one_core):
    deaths = 0
    while waiting and deaths <= MOST_DEATHS:
        for job, result, error in _until_a_death(task, list(waiting), min(workers, len(waiting)), one_core):
            waiting.remove(job)
            deaths = 0
            yield job, result, error
        deaths += 1
    for job in waiting:  # alone, so that a run which takes its worker with it takes no other
        found = list(_until_a_death(task, [job], 1, one_core))
        reason = f"its worker died {deaths} times (killed by the system, which may have had no memory left)"
        yield found[0] if found else (job, None, RuntimeError(reason))


def _until_a_death(task, jobs, workers, one_core):
    """Yield (job, result, exception) of those that end before a worker dies, or is told to end."""
    others = set(multiprocessing.active_children())
    with _processes(workers, one_core) as pool:
        try:
            for job, result, error in _drain(pool, functools.partial(_in_worker, task), jobs):
                if not isinstance(error, BrokenProcessPool) and result != TOLD:
                    yield job, result, error
        except BrokenProcessPool:  # before all jobs were handed over
            return
        except BaseException:
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()  # a run that gets SIGTERM saves itself
            raise


def _here(task, jobs):
    for job in jobs:
        try:
            yield job, task(job), None
        except Exception as error:  # as in a future
            yield job, None, error


def is_executor(value) -> bool:
    """Whether it hands jobs out as those of concurrent.futures do."""
    return hasattr(value, "submit")


def is_client(value) -> bool:
    """Whether it is a Client of Dask, from which an executor can be had."""
    return hasattr(value, "get_executor")


@contextlib.contextmanager
def dask_executor(scheduler) -> Iterator[Executor]:
    """An executor on a Dask cluster; Dask itself repeats what a lost worker had.

    scheduler: its address, or a Client that is connected to it, which stays open.
    """
    if is_client(scheduler):
        yield scheduler.get_executor(retries=MOST_DEATHS, pure=False)
        return
    try:
        from distributed import Client
    except ImportError:
        raise InvalidInput("scheduler needs Dask: pip install 'lrbias[dask]'.") from None
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InvalidInput(
            f"scheduler = {shorten(scheduler)} is not accepted: expected the address of a running Dask scheduler, "
            f"tcp://HOST:PORT ({shorten(reason, 120)})."
        ) from None
    with client:
        yield client.get_executor(retries=MOST_DEATHS, pure=False)


def _drain(executor, task, jobs):
    futures = {}
    try:
        for job in jobs:
            futures[_submitted(executor, task, job)] = job
        while futures:
            done, _ = wait(futures, return_when=FIRST_COMPLETED)
            for future in done:
                error = future.exception()
                yield futures.pop(future), None if error else future.result(), error
    finally:
        for future in futures:
            future.cancel()


def _submitted(executor, task, job):
    try:
        future = executor.submit(task, job)
    except BrokenProcessPool:
        raise
    except RuntimeError as error:  # it was shut down, for one
        raise InvalidInput(f"executor = {shorten(executor)} is not accepted: it takes no jobs ({error}).") from None
    if not isinstance(future, Future):
        raise InvalidInput(f"executor = {shorten(executor)} is not accepted: expected one of concurrent.futures.")
    return future


class _Worker:
    """What this process knows about its own end, when it is a worker."""

    def __init__(self):
        self.busy, self.told = False, False

    def end(self, number, frame):
        """SIGTERM: the run that is being made ends here, and no other is begun."""
        self.told = True
        if self.busy:
            raise Interrupted("the worker was told to end", None, number)


_worker = _Worker()


def _in_worker(task, job):
    """task(job). A worker that is told to end answers TOLD once its run has saved itself, and from then on.

    It does not exit by itself: loky takes that for a crash, and kills the others while they save theirs.
    """
    if _worker.told:
        return TOLD
    try:
        _worker.busy = True
        return task(job)
    except KeyboardInterrupt:
        _worker.told = True
        return TOLD
    finally:
        _worker.busy = False


def _processes(count, one_core):
    """Workers with one thread each; with `one_core` a run measures in the thread that trains."""
    from loky import ProcessPoolExecutor

    return ProcessPoolExecutor(count, initializer=_settle, initargs=(one_core,), env=SETTINGS)


def _settle(one_core):
    """Make this process a worker, which ends with its parent. A run that hears Ctrl-C saves itself; between runs it is
    the parent's affair."""
    _end_with_parent()
    if hasattr(os, "setpgid"):  # Ctrl-C is for the parent, which tells its workers once
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _worker.end)
    if one_core:
        use_cores(1)


def _end_with_parent():
    """End when the parent dies: else this process would wait for work, and hold its run, for ever."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if parent == 1:  # it died before this was asked
        os._exit(1)


def _watch(parent):
    never = threading.Event()
    while os.getppid() == parent:
        never.wait(PARENT_SECONDS)
    os._exit(1)
