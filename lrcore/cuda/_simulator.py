"""Kernels as Python: Numba's simulator, and what it lacks. `_target` reads this file with NUMBA_ENABLE_CUDASIM=1 alone.

The threads of a block are coroutines here, which cost less to start and to switch than threads of the system. They run
one at a time, each to its next barrier; after every barrier the order is the other way round, so that a barrier that
is missing shows.
"""

import contextlib
import ctypes
import ctypes.util
import sys
import threading
import warnings

import greenlet
import numpy as np
from numba import cuda
from numba.cuda.simulator import kernel
from numba.cuda.simulator.kernelapi import Dim3, FakeCUDAModule, FakeCUDAShared

_launching = threading.Lock()  # the simulator runs one kernel at a time
_allocating = threading.Lock()


class _Thread(greenlet.greenlet):
    """One of a block's threads."""

    def __init__(self, function, block, index):
        super().__init__(function)
        self.blockIdx = Dim3(*block)
        self.threadIdx = Dim3(*index)


class _Block(kernel.BlockManager):
    """A block of threads that take turns."""

    def run(self, grid_point, *arguments):
        def function():
            self._f(*arguments)

        threads = [_Thread(function, grid_point, index) for index in np.ndindex(*self._block_dim)]
        try:
            while threads:
                for thread in threads:
                    thread.switch()
                threads = [thread for thread in reversed(threads) if not thread.dead]
        finally:
            for thread in threads:  # after an error; one that is left at a barrier would keep its `cuda` in use
                thread.throw()


def _barrier(module):
    greenlet.getcurrent().parent.switch()


def _shared_array(self, shape, dtype):
    """One array for each line of source, as the simulator has it; its own lets two threads make two of them."""
    caller = sys._getframe(1)
    line = caller.f_code.co_filename, caller.f_lineno
    with _allocating:
        return self._allocations.setdefault(line, np.empty(shape, dtype))


kernel.BlockManager = _Block
FakeCUDAModule.threadIdx = property(lambda module: greenlet.getcurrent().threadIdx)
FakeCUDAModule.blockIdx = property(lambda module: greenlet.getcurrent().blockIdx)
FakeCUDAModule.syncthreads = _barrier
FakeCUDAShared.array = _shared_array


@contextlib.contextmanager
def simulation():
    """One kernel at a time."""
    # overflow is a result here, and warnings of other threads can only be silenced for all
    with _launching, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def device(function):
    """A function for kernels; only what asks CUDA for something has to be known to the simulator."""
    return cuda.jit(device=True)(function) if "cuda" in function.__code__.co_names else function


_c = ctypes.CDLL(ctypes.util.find_library("m"))
_c.fma.restype = ctypes.c_double
_c.fma.argtypes = [ctypes.c_double] * 3
_c.fmaf.restype = ctypes.c_float
_c.fmaf.argtypes = [ctypes.c_float] * 3


def fma(a, b, c):
    return np.float32(_c.fmaf(a, b, c)) if type(c) is np.float32 else np.float64(_c.fma(a, b, c))


def mul_rn(a, b):
    return a * b


def load(array, index):
    return array[index]


def store(value, array, index):
    array[index] = value
