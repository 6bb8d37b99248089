"""What kernels need on the device, planned before anything is launched; counterpart of `lrcore.cpu.workspace`.

A network whose memory fits into CHIP_SIZES stays in the shared memory of one block, one with layers of up to WIDEST in
the second-level cache, also with one block; larger ones are spread over the whole device, where a batch of them is
trained too, a block for each.
"""

import itertools

import numpy as np

from lrcore import layout
from lrcore.cpu.workspace import (
    allocate_curvature,
    allocate_lanes,
    allocate_ntk,
    allocate_sheet,
    allocate_spectra,
    allocate_weight_values,
)
from lrcore.cuda._target import empty, free_memory, on_gpu, to_device
from lrcore.cuda.chain import Network
from lrcore.cuda.grid import ON_GRID
from lrcore.cuda.offsets import offsets_of
from lrcore.cuda.passes import FILL

__all__ = [
    "DeviceMemoryError",
    "allocate",
    "allocate_batch",
    "allocate_batch_sgd",
    "allocate_curvature",
    "allocate_diagonal",
    "allocate_lanes",
    "allocate_ntk",
    "allocate_sgd",
    "allocate_sheet",
    "allocate_spectra",
    "allocate_weight_values",
    "thread_workspaces",
]

CHIP_SIZES = on_gpu((640, 1536, 3072, 6000), (60, 160, 400))  # numbers: 48 KB of shared memory at most for one block
WIDEST = on_gpu(64, 6)  # of a network that one block trains alone
USABLE = 0.9  # of the memory that is free
GIBIBYTE = 1 << 30


class DeviceMemoryError(MemoryError):
    """The device has too little memory. The sentence says how much is needed and how much is free."""


def require_memory(needed, what):
    """Raise DeviceMemoryError unless `needed` bytes are free."""
    free = USABLE * free_memory()
    if needed > free:
        raise DeviceMemoryError(
            f"{what} needs {needed / GIBIBYTE:.2g} GiB of memory on the device, "
            f"where {free / GIBIBYTE:.2g} GiB are free"
        )


def waves(blocks, needed, what):
    """[(first, last + 1)]: `blocks` blocks of runs that need so many bytes each, as even as memory allows."""
    require_memory(needed, what)
    fitting = blocks if free_memory() == np.inf else int(USABLE * free_memory() // needed)
    count = -(-blocks // max(fitting, 1))
    ends = np.linspace(0, blocks, count + 1).round().astype(int).tolist()
    return list(itertools.pairwise(ends))


def chip_size(offsets):
    """The smallest of CHIP_SIZES that holds a run, 0 when none does."""
    return next((size for size in CHIP_SIZES if size >= offsets.size), 0)


class Workspace:
    """The memory of one network of `widths` on the device.

    offsets  where its parts lie (`lrcore.cuda.offsets`); after them come `out` and `base`, of as many numbers as there
             are parameters, and `square`, of the largest Gram matrix of a hidden layer
    memory   all numbers, flat
    state    one int64: 0, or 1 once a loss was not finite
    spread   whether launches for each pass are used, over the whole device
    chip     the size of the shared memory that holds the run, 0 for none
    net      all of it as a `chain.Network`, for launches
    """

    def __init__(self, widths, dtype, stages):
        self.widths = layout.as_widths(widths)
        self.dtype = np.dtype(dtype)
        self.offsets = offsets_of(self.widths, stages)
        self.out = self.offsets.size
        self.base = self.offsets.size + self.offsets.parameters
        self.square = self.base + self.offsets.parameters
        size = self.square + max((n * n for n in self.widths[1:-1]), default=0)
        require_memory(int(size) * self.dtype.itemsize, f"a network of widths {tuple(int(n) for n in self.widths)}")
        self.chip = chip_size(self.offsets)
        self.spread = self.chip == 0 and max(self.widths) > WIDEST
        self.memory = empty(size, dtype)
        self.state = to_device(np.zeros(1, np.int64))
        self.device_widths = to_device(self.widths)
        self.net = Network(self.memory, self.state, self.widths, self.offsets)
        self._kept = {}

    def load(self, at, array):
        """Copy an array of this side into the memory, from `at` on."""
        self.memory[at : at + array.size].copy_to_device(np.ascontiguousarray(array, self.dtype).reshape(-1))

    def keep(self, name, array):
        """The array on the device; what has the same name, size and dtype replaces what was there."""
        known = self._kept.get(name)
        if known is None or known.size != max(array.size, 1) or known.dtype != array.dtype:
            self._kept[name] = to_device(array)
        elif array.size:
            known.copy_to_device(np.ascontiguousarray(array).reshape(-1))
        return self._kept[name]

    def fill(self, at, count):
        """Zeros from `at` on."""
        ON_GRID.combine(self.memory, self.state, FILL, count, self.dtype.type(0), 0, 0, at)

    def reset(self):
        """No loss was not finite yet."""
        self.state.copy_to_device(np.zeros(1, np.int64))

    def status(self):
        return int(self.state.copy_to_host()[0])


def allocate(widths, dtype=np.float64, stages=0):
    """A Workspace for `widths`; `stages` as for `lrcore.cpu.workspace.allocate`. Raises DeviceMemoryError."""
    return Workspace(widths, dtype, stages)


def thread_workspaces(widths, dtype=np.float64, stages=0, threads=1):
    """The one Workspace of a run: the threads that share it are those of the device."""
    return [allocate(widths, dtype, stages)]


class BatchWorkspace:
    """What the runs of a batch have in common; their memory is planned when it is known how many they are."""

    def __init__(self, widths, dtype, stages):
        widths = layout.as_widths(widths)
        self.dtype = np.dtype(dtype)
        self.widths = widths
        self.offsets = offsets_of(widths, stages)
        self.device_widths = to_device(widths)
        self.chip = chip_size(self.offsets)

    @property
    def arena(self):
        """Numbers of a run that are not on chip."""
        return 0 if self.chip else int(self.offsets.size)

    def waves(self, blocks, lanes, own):
        """[(first, last + 1)] of the blocks of runs that are on the device together.

        own: bytes that each run brings with it and takes away.
        """
        what = f"a batch of {lanes} runs of widths {tuple(int(n) for n in self.widths)}"
        return waves(blocks, lanes * (own + self.arena * self.dtype.itemsize), what)


def allocate_batch(widths, dtype=np.float64, stages=0):
    """A BatchWorkspace; it does not depend on the number of runs."""
    return BatchWorkspace(widths, dtype, stages)


class DiagonalWorkspace:
    """The memory of `lrcore.cuda.diagonal` on the device, flat."""

    def __init__(self, depth, size, dtype, stages):
        numbers = 2 * depth * size + 2 * size + layout.lanes(dtype)
        if stages:
            numbers += (1 + stages) * depth * size
        require_memory(numbers * np.dtype(dtype).itemsize, f"{size} modes of {depth} layers")
        self.memory = empty(numbers, dtype)


def allocate_diagonal(depth, size, dtype=np.float64, stages=0):
    """A DiagonalWorkspace; `stages` as for `allocate`."""
    return DiagonalWorkspace(depth, size, dtype, stages)


class SGDWorkspace:
    """What steps of SGD need on the device for each of the runs of a wave.

    inner    numbers of f, and of b, of one entry of a batch
    floats   numbers of a run: parameters, f and b of a batch, residuals
    order    int64 of a run: the last permutation with its name, then the entries of a batch
    """

    def __init__(self, widths, entries, batch, dtype):
        self.widths = layout.as_widths(widths)
        self.dtype = np.dtype(dtype)
        self.batch = batch
        self.entries = entries
        self.device_widths = to_device(self.widths)
        self.inner = sum(int(n) for n in widths[1:-1])
        self.floats = layout.size(widths) + batch * (2 * self.inner + 1)
        self.chip = next((size for size in CHIP_SIZES if size >= self.floats), 0)
        self.order = entries + 2 + batch

    def waves(self, blocks, lanes, own):
        """As those of a BatchWorkspace."""
        arena = 0 if self.chip else self.floats * self.dtype.itemsize
        what = f"{lanes} runs of SGD with widths {tuple(int(n) for n in self.widths)}"
        return waves(blocks, lanes * (own + arena + 8 * self.order), what)


def allocate_sgd(widths, entries, batch=1, dtype=np.float64):
    """An SGDWorkspace for networks of `widths`; entries: their number m."""
    return SGDWorkspace(widths, entries, batch, dtype)


allocate_batch_sgd = allocate_sgd  # many runs need no more in common than one does
