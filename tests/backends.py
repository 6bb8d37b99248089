"""The sides whose kernels are held to the same: the CPU, a GPU, and the reference. See `core` in conftest.py.

In Numba's simulator every thread of a GPU is one of Python's, so a side says what it has time for, and `cases` gives
each its own sizes. With NUMBA_ENABLE_CUDASIM=0 a GPU has those of the CPU.
"""

import os

import numpy as np
import pytest

from lrcore import cpu, layout, reference
from lrcore.cpu import workspace

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "1") != "0"
WIDEST = 9  # layer that the simulator is given


class Core:
    """The kernels of a side by name, and what a test has to know about it.

    name        "cpu", "cuda" or "reference"
    workspace   what has the names of `lrcore.cpu.workspace`
    slow        whether it is simulated
    """

    def __init__(self, name, kernels, workspace, slow=False):
        self.name = name
        self.kernels = kernels
        self.workspace = workspace
        self.slow = slow

    def __getattr__(self, name):
        return getattr(self.kernels, name)

    def pick(self, whole, tiny):
        """`whole`, or what the simulator is given in its place."""
        return tiny if self.slow else whole

    def steps(self, count):
        """As many steps as there is time for."""
        return self.pick(count, min(count, 10))

    def lanes(self, dtype):
        """How many runs of a batch lie side by side: a GPU takes any number, and few waste little on the last."""
        return self.pick(layout.lanes(dtype), 2)

    def spoil(self, work):
        """NaN in all scratch that is kept between calls: a kernel that reads what it has not written shows it."""
        if self.name != "cuda":
            for buffer in work:
                if isinstance(buffer, np.ndarray) and buffer.dtype.kind == "f":
                    buffer.fill(np.nan)
        elif hasattr(work, "memory"):  # that of a batch is allocated when it is launched
            work.memory.copy_to_device(np.full(work.memory.size, np.nan, work.memory.dtype))


CPU = Core("cpu", cpu, workspace)
REFERENCE = Core("reference", reference, workspace)


def of_gpu(gpu):
    """The Core of `lrcore.cuda`."""
    return Core("cuda", gpu, gpu.workspace, SIMULATED)


def cases(name, whole, tiny=None, sides=("cpu", "cuda")):
    """A test for every side and every value of `name`: of `whole`, in the simulator of `tiny`.

    tiny: by default those widths of `whole` whose layers are small enough.
    """
    if tiny is None:
        tiny = [widths for widths in whole if max(widths) <= WIDEST]
    values = [(side, value) for side in sides for value in (tiny if SIMULATED and side == "cuda" else whole)]
    return pytest.mark.parametrize(("core", name), values, ids=str, indirect=["core"])


# what is expected of the reference itself, too
ALL = ("cpu", "cuda", "reference")
everywhere = pytest.mark.parametrize("core", ALL, indirect=True)
# what the simulator has no time for
at_full_size = pytest.mark.parametrize("core", ["cpu"] if SIMULATED else ["cpu", "cuda"], indirect=True)
