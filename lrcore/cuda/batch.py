"""Many networks of the same widths, a block of threads for each, many steps a launch: the twin of `lrcore.cpu.batch`.

Arrays have the layout of `layout.to_lanes`, and every run the bits that it has alone, there and here. What a run needs
is copied to its memory once a call: to shared memory where it fits, to a part of the device's otherwise.
"""

import numpy as np

from lrcore.cuda._target import cuda, device, empty, fetch, kernel, put
from lrcore.cuda.block import Block, Chip
from lrcore.cuda.gemm import NARROW_TILES
from lrcore.cuda.machines import CHIP_THREADS, MEMORY_THREADS
from lrcore.cuda.places import places_of
from lrcore.cuda.programs import in_memory, on_chip
from lrcore.cuda.workspace import CHIP_SIZES
from lrcore.status import OK


@device
def take(source, count, run, lanes, memory, at):
    """Copy the numbers of a run, which lie `lanes` apart, to memory[at …]."""
    start = run // lanes * count * lanes + run % lanes
    p = cuda.threadIdx.x
    while p < count:
        memory[at + p] = source[start + p * lanes]
        p += cuda.blockDim.x


@device
def give(memory, count, run, lanes, out):
    """Copy them back."""
    start = run // lanes * count * lanes + run % lanes
    p = cuda.threadIdx.x
    while p < count:
        out[start + p * lanes] = memory[p]
        p += cuda.blockDim.x


@device
def begin(memory, state, params, targets, widths, places, run, lanes):
    """Bring a run's parameters and target."""
    outputs, inputs = widths[widths.size - 1], widths[0]
    take(params, places.parameters, run, lanes, memory, 0)
    take(targets, outputs * inputs, run, lanes, memory, places.target)
    if cuda.threadIdx.x == 0:
        state.status[0] = OK
    cuda.syncthreads()


@device
def end(memory, state, params, places, run, lanes, statuses):
    """Take the parameters and the status away."""
    cuda.syncthreads()
    give(memory, places.parameters, run, lanes, params)
    if cuda.threadIdx.x == 0:
        statuses[run] = state.status[0]


def _bodies(program):
    """What a block does with the memory of its run, by gradient descent and by a Runge-Kutta method."""
    gd, rk = program.gd, program.rk

    @device
    def descend(memory, state, params, widths, targets, lr, losses, statuses, lanes, steps):
        run = cuda.blockIdx.x
        places = places_of_device(widths, 0)
        begin(memory, state, params, targets, widths, places, run, lanes)
        first = run // lanes * steps * lanes + run % lanes
        gd(memory, state, widths, places, lr[run], losses, first, lanes, steps)
        end(memory, state, params, places, run, lanes, statuses)

    @device
    def flow(memory, state, params, widths, targets, dt, a, b, losses, statuses, lanes, steps):
        run = cuda.blockIdx.x
        places = places_of_device(widths, b.size)
        begin(memory, state, params, targets, widths, places, run, lanes)
        first = run // lanes * steps * lanes + run % lanes
        rk(memory, state, widths, places, dt[run], a, b, losses, first, lanes, steps)
        end(memory, state, params, places, run, lanes, statuses)

    return descend, flow


places_of_device = device(places_of)


def _chip_kernels(size):
    """Kernels for runs of up to `size` numbers, which stay in shared memory."""
    descend, flow = _bodies(on_chip)

    @kernel("xixxxixnn", f"gd_on_chip_{size}", products=True, registers=72)
    def gd(params, widths, targets, lr, losses, statuses, arenas, lanes, steps):
        memory = cuda.shared.array(size, params.dtype)
        state = Chip(cuda.shared.array(1, np.int64))
        descend(memory, state, params, widths, targets, lr, losses, statuses, lanes, steps)

    @kernel("xixxxxxixnn", f"rk_on_chip_{size}", products=True)
    def rk(params, widths, targets, dt, a, b, losses, statuses, arenas, lanes, steps):
        memory = cuda.shared.array(size, params.dtype)
        state = Chip(cuda.shared.array(1, np.int64))
        flow(memory, state, params, widths, targets, dt, a, b, losses, statuses, lanes, steps)

    return gd, rk


def _memory_kernels():
    """Kernels for larger runs: `arenas` has a part for each."""
    descend, flow = _bodies(in_memory)

    @kernel("xixxxixnn", "gd_in_memory", products=True)
    def gd(params, widths, targets, lr, losses, statuses, arenas, lanes, steps):
        left = cuda.shared.array(NARROW_TILES, params.dtype)
        right = cuda.shared.array(NARROW_TILES, params.dtype)
        state = Block(cuda.shared.array(1, np.int64), left, right)
        size = arenas.size // cuda.gridDim.x
        memory = arenas[cuda.blockIdx.x * size : (cuda.blockIdx.x + 1) * size]
        descend(memory, state, params, widths, targets, lr, losses, statuses, lanes, steps)

    @kernel("xixxxxxixnn", "rk_in_memory", products=True)
    def rk(params, widths, targets, dt, a, b, losses, statuses, arenas, lanes, steps):
        left = cuda.shared.array(NARROW_TILES, params.dtype)
        right = cuda.shared.array(NARROW_TILES, params.dtype)
        state = Block(cuda.shared.array(1, np.int64), left, right)
        size = arenas.size // cuda.gridDim.x
        memory = arenas[cuda.blockIdx.x * size : (cuda.blockIdx.x + 1) * size]
        flow(memory, state, params, widths, targets, dt, a, b, losses, statuses, lanes, steps)

    return gd, rk


KERNELS = {size: _chip_kernels(size) for size in CHIP_SIZES}
KERNELS[0] = _memory_kernels()


def batch_gd_steps(params, widths, targets, lr, losses, statuses, work):
    """`gd_steps` of every run, with a learning rate each. `params`, `losses` and `statuses` are written."""
    _launch(0, params, targets, lr, (), losses, statuses, work)


def batch_rk_steps(params, widths, targets, dt, a, b, losses, statuses, work):
    """`rk_steps` of every run, with a time step each. Needs a workspace with as many stages as b has."""
    _launch(1, params, targets, dt, (a, b), losses, statuses, work)


def _launch(which, params, targets, rates, tableau, losses, statuses, work):
    """Wave after wave of runs, as many as the device has memory for."""
    made = KERNELS[work.chip][which]
    threads = CHIP_THREADS if work.chip else MEMORY_THREADS
    blocks, lanes = statuses.shape
    own = (params[0].nbytes + targets[0].nbytes + losses[0].nbytes + 2 * statuses[0].nbytes) // lanes
    tableau = [put(part) for part in tableau]
    for first, last in work.waves(blocks, lanes, own):
        runs = (last - first) * lanes
        there, goals, factors, codes = (put(array[first:last]) for array in (params, targets, rates, statuses))
        lost, arenas = empty(losses[first:last].size, params.dtype), empty(runs * work.arena, params.dtype)
        arguments = there, work.device_widths, goals, factors, *tableau, lost, codes, arenas, lanes, losses.shape[1]
        made(runs, threads, *arguments)
        for array, place in ((there, params), (codes, statuses)):
            fetch(array, place[first:last])
        _fetch_losses(lost, statuses[first:last], losses[first:last])


def _fetch_losses(there, statuses, losses):
    """The losses of all runs; what a run that has diverged did not write stays as it is here."""
    if (statuses == OK).all():
        fetch(there, losses)
        return
    found = np.empty_like(losses)
    fetch(there, found)
    for i, j in np.ndindex(statuses.shape):
        made = losses.shape[1] if statuses[i, j] == OK else 1 + int(np.argmin(np.isfinite(found[i, :, j])))
        losses[i, :made, j] = found[i, :made, j]
