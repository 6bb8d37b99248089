"""Training of layers that are diagonal in one basis: the twin of `lrcore.cpu.diagonal`, one block for all modes.

    memory   modes (N, n) │ prefix (N, n) │ behind (n,) │ weighted (n,) │ sums │ point (N, n) │ stages (s, N, n)

A mode belongs to one thread. Only the loss adds over them, in as many sums as a vector has lanes on the CPU.
"""

import math

import numpy as np

from lrcore import layout
from lrcore.cuda._target import cuda, device, fetch, fma, kernel, on_gpu, put, times
from lrcore.cuda.passes import fold_lanes
from lrcore.status import DIVERGED, OK

THREADS = on_gpu(256, 3)


@device
def _forward(memory, target, weights, depth, size, point):
    """Prefix products and residuals of the modes at `point`, and weights · residual beside them."""
    prefix = depth * size
    behind = 2 * depth * size
    j = cuda.threadIdx.x
    while j < size:
        product = memory[point + j]
        for i in range(1, depth):
            memory[prefix + (i - 1) * size + j] = product
            product = times(memory[point + i * size + j], product)
        residual = product - target[j]
        memory[behind + j] = residual
        memory[behind + size + j] = times(weights[j], residual)
        j += cuda.blockDim.x


@device
def _loss(memory, lanes, depth, size, losses, k, status):
    """Half the sum of weights · residual²."""
    behind = 2 * depth * size
    sums = behind + 2 * size
    lane = cuda.threadIdx.x
    cuda.syncthreads()
    while lane < lanes:
        total = memory.dtype.type(0)
        j = lane
        while j < size:
            total = fma(memory[behind + size + j], memory[behind + j], total)
            j += lanes
        memory[sums + lane] = total
        lane += cuda.blockDim.x
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        losses[k] = memory.dtype.type(0.5) * fold_lanes(memory, sums, lanes)
        if not math.isfinite(losses[k]):
            status[0] = DIVERGED
    cuda.syncthreads()


@device
def _backward(memory, factor, depth, size, point, out):
    """out += factor · gradient at `point`."""
    prefix = depth * size
    j = cuda.threadIdx.x
    while j < size:
        behind = memory[2 * depth * size + j]
        for turn in range(1, depth):
            place = (depth - turn) * size + j
            slope = times(behind, memory[prefix + place - size])
            behind = times(behind, memory[point + place])
            memory[out + place] = fma(factor, slope, memory[out + place])
        memory[out + j] = fma(factor, behind, memory[out + j])
        j += cuda.blockDim.x


@kernel("xxxsxinnn")
def _diagonal_gd(memory, target, weights, lr, losses, status, lanes, depth, steps):
    size = target.size
    for k in range(steps):
        _forward(memory, target, weights, depth, size, 0)
        _loss(memory, lanes, depth, size, losses, k, status)
        if status[0] != OK:
            break
        _backward(memory, -lr, depth, size, 0, 0)


@device
def _add_scaled(memory, factor, x, base, out, count, size):
    """out = base + factor · x of the modes of this thread."""
    j = cuda.threadIdx.x
    while j < size:
        for place in range(j, count, size):
            memory[out + place] = fma(factor, memory[x + place], memory[base + place])
        j += cuda.blockDim.x


@device
def _assign(memory, copied, out, count, size):
    """The modes of this thread, or zeros, to `out`."""
    j = cuda.threadIdx.x
    while j < size:
        for place in range(j, count, size):
            memory[out + place] = memory[place] if copied else memory.dtype.type(0)
        j += cuda.blockDim.x


@kernel("xxxsxxxinnn")
def _diagonal_rk(memory, target, weights, dt, a, b, losses, status, lanes, depth, steps):
    size = target.size
    stages = b.size
    count = depth * size
    point = 2 * count + 2 * size + lanes
    slopes = point + count
    for k in range(steps):
        for s in range(stages):
            _assign(memory, True, point, count, size)
            for j in range(s):
                if a[s * stages + j] != 0:
                    _add_scaled(memory, dt * a[s * stages + j], slopes + j * count, point, point, count, size)
            _forward(memory, target, weights, depth, size, point)
            if s == 0:
                _loss(memory, lanes, depth, size, losses, k, status)
                if status[0] != OK:
                    return
            _assign(memory, False, slopes + s * count, count, size)
            _backward(memory, -memory.dtype.type(1), depth, size, point, slopes + s * count)
        for s in range(stages):
            _add_scaled(memory, dt * b[s], slopes + s * count, 0, 0, count, size)


def diagonal_gd_steps(modes, target, weights, lr, losses, work):
    """Gradient descent on every mode: `gd_steps` in the common basis."""
    return _steps(_diagonal_gd, modes, target, weights, (lr,), losses, work)


def diagonal_rk_steps(modes, target, weights, dt, a, b, losses, work):
    """An explicit Runge-Kutta method (a (s, s), b (s,)) on the flow of every mode: `rk_steps` in the common basis."""
    return _steps(_diagonal_rk, modes, target, weights, (dt, put(a), put(b)), losses, work)


def _steps(made, modes, target, weights, numbers, losses, work):
    depth = len(modes)
    dtype = modes.dtype
    memory = work.memory
    memory[: modes.size].copy_to_device(np.ascontiguousarray(modes).reshape(-1))
    there, status = put(losses), put(np.zeros(1, np.int64))
    numbers = [dtype.type(number) if np.ndim(number) == 0 else number for number in numbers]
    lanes = layout.lanes(dtype)
    made(1, THREADS, memory, put(target), put(weights), *numbers, there, status, lanes, depth, losses.size)
    fetch(memory[: modes.size], modes)
    fetch(there[: losses.size], losses)
    return int(status.copy_to_host()[0])
