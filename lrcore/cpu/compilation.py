"""When kernels are compiled, and how long that takes. What is loaded from the cache is not compiled.

Meanwhile Python's collector of cycles rests: it would go through everything that the compiler has made so far, again
and again, which took a sixth of the time.
"""

import collections
import gc
import threading
import time
from typing import NamedTuple

from numba.core import event


class Compiled(NamedTuple):
    """A kernel that this process has compiled, with everything that it calls."""

    kernel: str
    seconds: float
    thread: int


class _Watch(event.Listener):
    """Notes the kernels of this package. Numba compiles one function at a time, so this needs no lock of its own."""

    def __init__(self):
        self.compiled = []
        self.seconds = collections.Counter()  # of each thread
        self.callbacks = []
        self._depth = 0
        self._began = 0.0
        self._collects = False

    def on_start(self, happening):
        self._depth += 1
        if self._depth == 1:
            self._began = time.perf_counter()
            self._collects = gc.isenabled()
            gc.disable()
            if _is_ours(happening):
                for callback in self.callbacks:
                    callback()

    def on_end(self, happening):
        self._depth -= 1
        if self._depth == 0 and self._collects:
            gc.enable()
        if self._depth == 0 and _is_ours(happening):
            name = happening.data["dispatcher"].__name__
            thread = threading.get_ident()
            self.compiled.append(Compiled(name, time.perf_counter() - self._began, thread))
            self.seconds[thread] += self.compiled[-1].seconds


def _is_ours(happening):
    return happening.data["dispatcher"].py_func.__module__.startswith("lrcore.")


_WATCH = _Watch()
event.register("numba:compile", _WATCH)


def compiled():
    """What this process has compiled so far: a list of Compiled."""
    return list(_WATCH.compiled)


def seconds():
    """How long the thread that asks has spent compiling so far."""
    return _WATCH.seconds[threading.get_ident()]


def call_before(callback):
    """Call `callback()` whenever a kernel begins to be compiled."""
    _WATCH.callbacks.append(callback)
