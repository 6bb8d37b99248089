"""Training steps of one network, many in one call, as in `lrcore.cpu.step`.

A small network is a batch of one; a larger one is spread over the device (`workspace.WIDEST`).
"""

import numpy as np

from lrcore.cuda._target import copy_to_host
from lrcore.cuda.batch import KERNELS, Runs
from lrcore.cuda.executors import CHIP_THREADS, MEMORY_THREADS
from lrcore.cuda.steps import GRID_STEPS


def gd_steps(params, widths, target, lr, losses, work):
    """Gradient descent: W_i ← W_i − lr ∇_i L, all layers from the old point. `params` and `losses` are written."""
    if work.spread:
        return _spread(GRID_STEPS.gd, params, target, (lr,), losses, work)
    return _block(params, target, lr, (), losses, work)


def rk_steps(params, widths, target, dt, tableau, losses, work):
    """Steps of an explicit Runge-Kutta method, tableau = (a (s, s), b (s,)), on the flow dW_i/dt = −∇_i L.

    `params` and `losses` are written. Needs a workspace with s stages.
    """
    if work.spread:
        a, b = tableau
        return _spread(GRID_STEPS.rk, params, target, (dt, a.reshape(-1), b), losses, work)
    return _block(params, target, dt, tableau, losses, work)


def _spread(steps, params, target, numbers, losses, work):
    work.load(0, params)
    work.load(work.offsets.target, target)
    work.reset()
    there = work.keep("losses", losses)
    steps(work.net, *numbers, there, 0, 1, losses.size)
    copy_to_host(there[: losses.size], losses)
    copy_to_host(work.memory[: params.size], params)
    return work.status()


def _block(params, target, rate, tableau, losses, work):
    gd, rk = KERNELS[work.chip]
    launched = rk if tableau else gd
    threads = CHIP_THREADS if work.chip else MEMORY_THREADS
    here = {"params": params, "target": target, "rate": np.array([rate], params.dtype), "losses": losses}
    runs = Runs(*(work.keep(name, array) for name, array in here.items()), work.state, 1, losses.size)
    tableau = [work.keep(f"tableau {i}", part) for i, part in enumerate(tableau)]
    launched(1, threads, runs, work.device_widths, *tableau, work.memory[: int(work.offsets.size)])
    copy_to_host(runs.params[: params.size], params)
    copy_to_host(runs.losses[: losses.size], losses)
    return work.status()
