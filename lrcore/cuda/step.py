"""Training steps of one network, many in one call: the twin of `lrcore.cpu.step`.

A small network is a batch of one; a larger one is spread over the device (`workspace.WIDEST`).
"""

import numpy as np

from lrcore.cuda._target import fetch
from lrcore.cuda.batch import KERNELS
from lrcore.cuda.machines import CHIP_THREADS, MEMORY_THREADS
from lrcore.cuda.programs import on_grid


def gd_steps(params, widths, target, lr, losses, work):
    """Gradient descent: W_i ← W_i − lr ∇_i L, all layers from the old point. `params` and `losses` are written."""
    if work.spread:
        return _spread(on_grid.gd, params, target, (lr,), losses, work)
    return _block(0, params, target, lr, (), losses, work)


def rk_steps(params, widths, target, dt, a, b, losses, work):
    """Steps of an explicit Runge-Kutta method (a (s, s), b (s,): a tableau) on the flow dW_i/dt = −∇_i L.

    `params` and `losses` are written. Needs a workspace with s stages.
    """
    if work.spread:
        return _spread(on_grid.rk, params, target, (dt, a.reshape(-1), b), losses, work)
    return _block(1, params, target, dt, (a, b), losses, work)


def _spread(program, params, target, numbers, losses, work):
    work.load(0, params)
    work.load(work.places.target, target)
    work.reset()
    there = work.keep("losses", losses)
    program(work.memory, work.state, work.widths, work.places, *numbers, there, 0, 1, losses.size)
    fetch(there[: losses.size], losses)
    fetch(work.memory[: params.size], params)
    return work.status()


def _block(which, params, target, rate, tableau, losses, work):
    made = KERNELS[work.chip][which]
    threads = CHIP_THREADS if work.chip else MEMORY_THREADS
    there, lost = work.keep("params", params), work.keep("losses", losses)
    rates = work.keep("rate", np.array([rate], params.dtype))
    tableau = [work.keep(f"tableau {i}", part) for i, part in enumerate(tableau)]
    arguments = there, work.device_widths, work.keep("target", target), rates, *tableau, lost, work.state
    made(1, threads, *arguments, work.memory[: int(work.places.size)], 1, losses.size)
    fetch(there[: params.size], params)
    fetch(lost[: losses.size], losses)
    return work.status()
