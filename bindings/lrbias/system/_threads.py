"""How many threads a run uses."""

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

_share: int | None = None  # of the cores, where other processes have the rest


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:  # macOS and Windows; Python 3.13 knows more
        allowed = getattr(os, "process_cpu_count", os.cpu_count)() or 1
    return allowed if _share is None else min(_share, allowed)


def use_cores(count: int) -> None:
    """Leave the other cores to other processes from now on."""
    global _share
    _share = count


class Owner:
    """The process in which it was made. A forked child has copies of everything but the threads, and must neither wait
    for those nor write what its parent writes."""

    def __init__(self) -> None:
        self._process = os.getpid()

    @property
    def here(self) -> bool:
        """Whether this is that process, and no forked child of it."""
        return os.getpid() == self._process


class _OneBlasThread:
    """Counts who is inside: the first one in limits BLAS, the last one out gives it back its threads.

    Everyone who comes in limits again: a library that was loaded meanwhile is not limited yet.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limits: list[Any] = []
        if hasattr(os, "register_at_fork"):  # another thread may have held it in the parent
            os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def enter(self) -> None:
        with self._lock:
            self._limits.append(_libraries(len(sys.modules)).limit(limits=1, user_api="blas"))
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            while self._limits and not self._inside:  # the last one first: what it found was limited by those before
                self._limits.pop().restore_original_limits()


@functools.lru_cache(maxsize=1)
def _libraries(modules: int) -> Any:
    """The libraries of this process. To look for them takes milliseconds; there are others when modules were added."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


_one_blas_thread = _OneBlasThread()


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """A context in which BLAS has one thread: SVDs of this size are slower with more, and their bits may differ.

    BLAS has one setting for the whole process, so it stays limited while any thread is inside.
    """
    _one_blas_thread.enter()
    try:
        yield
    finally:
        _one_blas_thread.leave()


def together(kernel: Callable[..., int], works: Sequence[Any]) -> Callable[..., int]:
    """kernel(params, losses, step, work) in as many threads as there are workspaces: steps(params, losses, step).

    The kernels release the interpreter and wait for each other inside, so the threads really run side by side.
    """
    if len(works) == 1:
        return lambda params, losses, step=0: kernel(params, losses, step, works[0])
    pool = ThreadPoolExecutor(len(works) - 1, thread_name_prefix="lrbias")
    # Compiling is not safe to do in several threads at once where the interpreter is free to switch between them.
    state = {"compiled": False}

    def steps(params: np.ndarray, losses: np.ndarray, step: int = 0) -> int:
        if not state["compiled"]:
            single = works[0]._replace(num_threads=1)
            kernel(params.copy(), losses[:0], step, single)
            state["compiled"] = True
        others = [pool.submit(kernel, params, losses, step, work) for work in works[1:]]
        status = kernel(params, losses, step, works[0])
        for other in others:
            other.result()
        return status

    return steps
