"""Training of layers that are diagonal in one basis, as in `lrcore.cpu.diagonal`: one block for all modes.

    memory   modes (N, n) │ prefix (N, n) │ back (n,) │ weighted (n,) │ sums │ point (N, n) │ stages (s, N, n)

A mode belongs to one thread. Only the loss adds over them, in as many sums as a vector has lanes on the CPU.
"""

import math
from typing import NamedTuple

import numpy as np

from lrcore import layout
from lrcore.cuda._target import (
    Integer,
    Integers,
    Number,
    Numbers,
    copy_to_host,
    cuda,
    device,
    fma,
    kernel,
    mul_rn,
    on_gpu,
    to_device,
)
from lrcore.cuda.passes import fold_lanes
from lrcore.status import DIVERGED, OK

THREADS = on_gpu(256, 3)


class _Modes(NamedTuple):
    """n chains of `depth` numbers; lanes: of a vector of the CPU."""

    memory: Numbers
    target: Numbers
    weights: Numbers
    depth: Integer
    lanes: Integer


@device
def _forward(modes, point):
    """Prefix products and residuals of the modes at `point`, and weights · residual beside them."""
    memory = modes.memory
    depth = modes.depth
    size = modes.target.size
    prefix = depth * size
    back = 2 * depth * size
    j = cuda.threadIdx.x
    while j < size:
        product = memory[point + j]
        for i in range(1, depth):
            memory[prefix + (i - 1) * size + j] = product
            product = mul_rn(memory[point + i * size + j], product)
        residual = product - modes.target[j]
        memory[back + j] = residual
        memory[back + size + j] = mul_rn(modes.weights[j], residual)
        j += cuda.blockDim.x


@device
def _loss(modes, losses, k, status):
    """Half the sum of weights · residual²."""
    memory = modes.memory
    size = modes.target.size
    back = 2 * modes.depth * size
    sums = back + 2 * size
    lane = cuda.threadIdx.x
    cuda.syncthreads()
    while lane < modes.lanes:
        total = memory.dtype.type(0)
        j = lane
        while j < size:
            total = fma(memory[back + size + j], memory[back + j], total)
            j += modes.lanes
        memory[sums + lane] = total
        lane += cuda.blockDim.x
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        losses[k] = memory.dtype.type(0.5) * fold_lanes(memory, sums, modes.lanes)
        if not math.isfinite(losses[k]):
            status[0] = DIVERGED
    cuda.syncthreads()


@device
def _backward(modes, factor, point, out):
    """out += factor · gradient at `point`."""
    memory = modes.memory
    depth = modes.depth
    size = modes.target.size
    prefix = depth * size
    j = cuda.threadIdx.x
    while j < size:
        back = memory[2 * depth * size + j]
        for turn in range(1, depth):
            offset = (depth - turn) * size + j
            grad = mul_rn(back, memory[prefix + offset - size])
            back = mul_rn(back, memory[point + offset])
            memory[out + offset] = fma(factor, grad, memory[out + offset])
        memory[out + j] = fma(factor, back, memory[out + j])
        j += cuda.blockDim.x


@kernel()
def _diagonal_gd(modes: _Modes, lr: Number, losses: Numbers, status: Integers, steps: Integer):
    for k in range(steps):
        _forward(modes, 0)
        _loss(modes, losses, k, status)
        if status[0] != OK:
            break
        _backward(modes, -lr, 0, 0)


@device
def _add_scaled(modes, factor, x, base, out):
    """out = base + factor · x of the modes of this thread."""
    memory = modes.memory
    size = modes.target.size
    j = cuda.threadIdx.x
    while j < size:
        for offset in range(j, modes.depth * size, size):
            memory[out + offset] = fma(factor, memory[x + offset], memory[base + offset])
        j += cuda.blockDim.x


@device
def _assign(modes, copied, out):
    """The modes of this thread, or zeros, to `out`."""
    memory = modes.memory
    size = modes.target.size
    j = cuda.threadIdx.x
    while j < size:
        for offset in range(j, modes.depth * size, size):
            memory[out + offset] = memory[offset] if copied else memory.dtype.type(0)
        j += cuda.blockDim.x


@kernel()
def _diagonal_rk(modes: _Modes, dt: Number, a: Numbers, b: Numbers, losses: Numbers, status: Integers, steps: Integer):
    memory = modes.memory
    stages = b.size
    count = modes.depth * modes.target.size
    point = 2 * count + 2 * modes.target.size + modes.lanes
    first_stage = point + count
    for k in range(steps):
        for s in range(stages):
            _assign(modes, True, point)
            for j in range(s):
                if a[s * stages + j] != 0:
                    _add_scaled(modes, dt * a[s * stages + j], first_stage + j * count, point, point)
            _forward(modes, point)
            if s == 0:
                _loss(modes, losses, k, status)
                if status[0] != OK:
                    return
            _assign(modes, False, first_stage + s * count)
            _backward(modes, -memory.dtype.type(1), point, first_stage + s * count)
        for s in range(stages):
            _add_scaled(modes, dt * b[s], first_stage + s * count, 0, 0)


def diagonal_gd_steps(modes, target, weights, lr, losses, work):
    """Gradient descent on every mode: `gd_steps` in the common basis."""
    return _steps(_diagonal_gd, modes, target, weights, (modes.dtype.type(lr),), losses, work)


def diagonal_rk_steps(modes, target, weights, dt, tableau, losses, work):
    """A Runge-Kutta method, tableau = (a (s, s), b (s,)), on the flow of every mode: `rk_steps` in the common basis."""
    a, b = tableau
    numbers = modes.dtype.type(dt), to_device(a), to_device(b)
    return _steps(_diagonal_rk, modes, target, weights, numbers, losses, work)


def _steps(launched, modes, target, weights, numbers, losses, work):
    work.memory[: modes.size].copy_to_device(np.ascontiguousarray(modes).reshape(-1))
    there = to_device(losses)
    status = to_device(np.zeros(1, np.int64))
    chains = _Modes(work.memory, to_device(target), to_device(weights), len(modes), layout.lanes(modes.dtype))
    launched(1, THREADS, chains, *numbers, there, status, losses.size)
    copy_to_host(work.memory[: modes.size], modes)
    copy_to_host(there[: losses.size], losses)
    return int(status.copy_to_host()[0])
