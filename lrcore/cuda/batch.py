"""Many networks of the same widths, a block of threads for each, many steps a launch, as in `lrcore.cpu.batch`.

Arrays have the layout of `layout.to_lanes`, and every run the bits that it has alone, there and here. What a run needs
is copied to its memory once a call: to shared memory where it fits, to a part of the device's otherwise.
"""

from typing import NamedTuple

import numpy as np

from lrcore.cuda._target import Integer, Integers, Numbers, copy_to_host, cuda, device, empty, kernel, to_device
from lrcore.cuda.block import Block, Chip
from lrcore.cuda.chain import Network
from lrcore.cuda.executors import CHIP_THREADS, MEMORY_THREADS
from lrcore.cuda.gemm import NARROW_TILES
from lrcore.cuda.offsets import offsets_of
from lrcore.cuda.steps import CHIP_STEPS, MEMORY_STEPS
from lrcore.cuda.workspace import CHIP_SIZES
from lrcore.status import OK

device_offsets = device(offsets_of)


class Runs(NamedTuple):
    """What the runs of a launch read and write: `rates` are learning rates or time steps, `steps` how many are made."""

    params: Numbers
    targets: Numbers
    rates: Numbers
    losses: Numbers
    statuses: Integers
    lanes: Integer
    steps: Integer


@device
def copy_from_lanes(source, count, run, lanes, memory, at):
    """Copy the numbers of a run, which lie `lanes` apart, to memory[at …]."""
    start = run // lanes * count * lanes + run % lanes
    p = cuda.threadIdx.x
    while p < count:
        memory[at + p] = source[start + p * lanes]
        p += cuda.blockDim.x


@device
def copy_to_lanes(memory, count, run, lanes, out):
    """Copy them back."""
    start = run // lanes * count * lanes + run % lanes
    p = cuda.threadIdx.x
    while p < count:
        out[start + p * lanes] = memory[p]
        p += cuda.blockDim.x


@device
def _begin(net, runs):
    """Bring the parameters and the target of this block's run; returns where its first loss goes."""
    run = cuda.blockIdx.x
    lanes = runs.lanes
    offsets = net.offsets
    copy_from_lanes(runs.params, offsets.parameters, run, lanes, net.memory, 0)
    size = net.widths[net.widths.size - 1] * net.widths[0]
    copy_from_lanes(runs.targets, size, run, lanes, net.memory, offsets.target)
    if cuda.threadIdx.x == 0:
        net.state.status[0] = OK
    cuda.syncthreads()
    return run // lanes * runs.steps * lanes + run % lanes


@device
def _end(net, runs):
    """Take the parameters and the status away."""
    run = cuda.blockIdx.x
    cuda.syncthreads()
    copy_to_lanes(net.memory, net.offsets.parameters, run, runs.lanes, runs.params)
    if cuda.threadIdx.x == 0:
        runs.statuses[run] = net.state.status[0]


def _bodies(steps):
    """What a block does with the memory of its run, by gradient descent and by a Runge-Kutta method."""
    gd = steps.gd
    rk = steps.rk

    @device
    def descend(memory, state, widths, runs):
        net = Network(memory, state, widths, device_offsets(widths, 0))
        first = _begin(net, runs)
        gd(net, runs.rates[cuda.blockIdx.x], runs.losses, first, runs.lanes, runs.steps)
        _end(net, runs)

    @device
    def flow(memory, state, widths, runs, a, b):
        net = Network(memory, state, widths, device_offsets(widths, b.size))
        first = _begin(net, runs)
        rk(net, runs.rates[cuda.blockIdx.x], a, b, runs.losses, first, runs.lanes, runs.steps)
        _end(net, runs)

    return descend, flow


def _chip_kernels(size):
    """Kernels for runs of up to `size` numbers, which stay in shared memory."""
    descend, flow = _bodies(CHIP_STEPS)

    @kernel(f"gd_on_chip_{size}", products=True, registers=72)
    def gd(runs: Runs, widths: Integers, arenas: Numbers):
        memory = cuda.shared.array(size, runs.params.dtype)
        descend(memory, Chip(cuda.shared.array(1, np.int64)), widths, runs)

    @kernel(f"rk_on_chip_{size}", products=True)
    def rk(runs: Runs, widths: Integers, a: Numbers, b: Numbers, arenas: Numbers):
        memory = cuda.shared.array(size, runs.params.dtype)
        flow(memory, Chip(cuda.shared.array(1, np.int64)), widths, runs, a, b)

    return gd, rk


@device
def block_range(array):
    """What of an array belongs to this block: (first, last + 1)."""
    size = array.size // cuda.gridDim.x
    return cuda.blockIdx.x * size, (cuda.blockIdx.x + 1) * size


def _memory_kernels():
    """Kernels for larger runs: `arenas` has a part for each."""
    descend, flow = _bodies(MEMORY_STEPS)

    @kernel("gd_in_memory", products=True)
    def gd(runs: Runs, widths: Integers, arenas: Numbers):
        left = cuda.shared.array(NARROW_TILES, runs.params.dtype)
        right = cuda.shared.array(NARROW_TILES, runs.params.dtype)
        state = Block(cuda.shared.array(1, np.int64), left, right)
        first, last = block_range(arenas)
        descend(arenas[first:last], state, widths, runs)

    @kernel("rk_in_memory", products=True)
    def rk(runs: Runs, widths: Integers, a: Numbers, b: Numbers, arenas: Numbers):
        left = cuda.shared.array(NARROW_TILES, runs.params.dtype)
        right = cuda.shared.array(NARROW_TILES, runs.params.dtype)
        state = Block(cuda.shared.array(1, np.int64), left, right)
        first, last = block_range(arenas)
        flow(arenas[first:last], state, widths, runs, a, b)

    return gd, rk


KERNELS = {size: _chip_kernels(size) for size in CHIP_SIZES}
KERNELS[0] = _memory_kernels()


def batch_gd_steps(params, widths, targets, lr, losses, statuses, work):
    """`gd_steps` of every run, with a learning rate each. `params`, `losses` and `statuses` are written."""
    _launch(params, targets, lr, (), losses, statuses, work)


def batch_rk_steps(params, widths, targets, dt, tableau, losses, statuses, work):
    """`rk_steps` of every run, with a time step each. Needs a workspace with as many stages as b has."""
    _launch(params, targets, dt, tableau, losses, statuses, work)


def _launch(params, targets, rates, tableau, losses, statuses, work):
    """Wave after wave of runs, as many as the device has memory for."""
    gd, rk = KERNELS[work.chip]
    launched = rk if tableau else gd
    threads = CHIP_THREADS if work.chip else MEMORY_THREADS
    blocks, lanes = statuses.shape
    own = (params[0].nbytes + targets[0].nbytes + losses[0].nbytes + 2 * statuses[0].nbytes) // lanes
    tableau = [to_device(part) for part in tableau]
    for first, last in work.waves(blocks, lanes, own):
        count = (last - first) * lanes
        here = [array[first:last] for array in (params, targets, rates, losses, statuses)]
        there = [to_device(array) for array in here[:3]]
        runs = Runs(*there, empty(here[3].size, params.dtype), to_device(here[4]), lanes, losses.shape[1])
        launched(count, threads, runs, work.device_widths, *tableau, empty(count * work.arena, params.dtype))
        copy_to_host(runs.params, here[0])
        copy_to_host(runs.statuses, here[4])
        _fetch_losses(runs.losses, here[4], here[3])


def _fetch_losses(there, statuses, losses):
    """The losses of all runs; what a run that has diverged did not write stays as it is here."""
    if (statuses == OK).all():
        copy_to_host(there, losses)
        return
    fetched = np.empty_like(losses)
    copy_to_host(there, fetched)
    for i, j in np.ndindex(statuses.shape):
        made = losses.shape[1] if statuses[i, j] == OK else 1 + int(np.argmin(np.isfinite(fetched[i, :, j])))
        losses[i, :made, j] = fetched[i, :made, j]
