"""The only place that decorates. What each option is for:

cache            compiled once per machine and source file; a second process starts in milliseconds
nogil            metrics may run in another thread beside a training kernel
error_model      "numpy": x/0 is inf or nan and becomes a status, not an exception from a kernel
fastmath         never: it would remove the finiteness checks and reorder sums, and with them the bits

Compilation is lazy: importing a kernel costs nothing.
"""

import os

from numba import njit

# Code for another vector width than this CPU's must not end up where the next process finds it.
CACHE = "LRBIAS_VECTOR_BITS" not in os.environ


def kernel(function):
    """Compile `function` for the CPU."""
    return njit(function, cache=CACHE, nogil=True, error_model="numpy")


def formula(function):
    """Compile a formula of `lrcore.formulas` (its source stays undecorated, so other targets can compile it too).

    Not cached on its own: it is inlined into the kernels that call it, and they are.
    """
    return njit(function, nogil=True, error_model="numpy")
