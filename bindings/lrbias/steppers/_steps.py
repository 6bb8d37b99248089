"""The kernels of methods: what makes steps on given arrays.

A function `steps(params, losses, step=0) -> status` makes as many steps as `losses` is long, the first of which has the
number `step`, by the kernels of a `Device`. With a ridge λ every method minimises the loss + λ Σ ‖W_i‖². A method of
somebody else registers its own: `@steps_of.register` for its class.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lrbias.devices import CPU, Device
from lrbias.methods import GD, SGD, GradientFlow, Method
from lrbias.problems import Problem
from lrbias.steppers._specialized import batch_kernel, chain_kernel
from lrbias.system import together
from lrcore import layout
from lrcore.objective import BatchRates, Entries, Sampling
from lrcore.tableau import TABLEAUS

Steps = Callable[..., int]  # steps(params, losses, step=0) -> status


@functools.singledispatch
def steps_of(
    method: Method,
    problem: Problem,
    widths: Sequence[int],
    dtype: np.dtype[Any],
    threads: int = 1,
    device: Device = CPU,
) -> Steps:
    """steps(params, losses, step=0) -> status of a method on whole layers."""
    raise NotImplementedError(f"{type(method).__name__} makes no steps on whole layers")


@steps_of.register
def _(
    method: GD, problem: Problem, widths: Sequence[int], dtype: np.dtype[Any], threads: int = 1, device: Device = CPU
) -> Steps:
    kernels = device.kernels
    widths = layout.as_widths(widths)
    works = device.workspace.thread_workspaces(widths, dtype, 0, threads)
    if method.is_plain_on(problem):
        target = device.device_put(layout.aligned_copy(problem.target, dtype))
        lr = np.dtype(dtype).type(method.lr)
        plain = chain_kernel("gd_steps", device, widths, dtype, threads)
        return together(lambda params, losses, _, work: plain(params, widths, target, lr, losses, work), works)
    goal = device.device_put(problem.objective(dtype))

    def steps(params: np.ndarray, losses: np.ndarray, step: int, work: Any) -> int:
        rates, ridges = (f(step, losses.size).astype(dtype) for f in (method.rates, method.ridges))
        return kernels.objective_gd_steps(params, widths, goal, rates, ridges, losses, work)

    return together(steps, works)


@steps_of.register
def _(
    method: GradientFlow,
    problem: Problem,
    widths: Sequence[int],
    dtype: np.dtype[Any],
    threads: int = 1,
    device: Device = CPU,
) -> Steps:
    kernels = device.kernels
    tableau = TABLEAUS[method.scheme]
    widths = layout.as_widths(widths)
    dt, ridge = (np.dtype(dtype).type(number) for number in (method.dt, method.ridge))
    a_and_b = tableau.astype(dtype)
    works = device.workspace.thread_workspaces(widths, dtype, tableau.stages, threads)
    if method.is_plain_on(problem):
        made = chain_kernel("rk_steps", device, widths, dtype, threads)
        numbers: tuple[Any, ...] = (dt, a_and_b)
        goal = layout.aligned_copy(problem.target, dtype)
    else:
        made = kernels.objective_rk_steps
        numbers = (ridge, dt, a_and_b)
        goal = problem.objective(dtype)
    goal = device.device_put(goal)
    return together(lambda params, losses, _, work: made(params, widths, goal, *numbers, losses, work), works)


@steps_of.register
def _(
    method: SGD, problem: Problem, widths: Sequence[int], dtype: np.dtype[Any], threads: int = 1, device: Device = CPU
) -> Steps:
    """One thread makes all steps."""
    made = device.kernels.sgd_steps
    entries = problem.entries(dtype)
    widths = layout.as_widths(widths)
    method.check_batch(entries)
    work = device.workspace.allocate_sgd(widths, entries.rows.size, method.batch, dtype)
    entries = device.device_put(entries)
    seed = np.uint64(method.sampling_seed)

    def steps(params: np.ndarray, losses: np.ndarray, step: int = 0) -> int:
        rates, ridges = (f(step, losses.size).astype(dtype) for f in (method.rates, method.ridges))
        sampling = Sampling(seed, step, method.batch, method.replacement)
        return made(params, widths, entries, rates, ridges, sampling, losses, work)

    return steps


@functools.singledispatch
def chain_steps(
    method: Method, modes: np.ndarray, target: np.ndarray, weights: np.ndarray, device: Device = CPU
) -> Callable[[np.ndarray], int]:
    """steps(losses) -> status for independent chains of numbers, changing `modes` (see `lrcore.cpu.diagonal`)."""
    raise NotImplementedError(f"{type(method).__name__} makes no steps on chains of numbers")


@chain_steps.register
def _(
    method: GD, modes: np.ndarray, target: np.ndarray, weights: np.ndarray, device: Device = CPU
) -> Callable[[np.ndarray], int]:
    made = device.kernels.diagonal_gd_steps
    work = device.workspace.allocate_diagonal(*modes.shape)
    target, weights = device.device_put(target), device.device_put(weights)
    return lambda losses: made(modes, target, weights, method.lr, losses, work)


@chain_steps.register
def _(
    method: GradientFlow, modes: np.ndarray, target: np.ndarray, weights: np.ndarray, device: Device = CPU
) -> Callable[[np.ndarray], int]:
    made = device.kernels.diagonal_rk_steps
    tableau = TABLEAUS[method.scheme]
    work = device.workspace.allocate_diagonal(*modes.shape, stages=tableau.stages)
    a_and_b = tableau.astype(modes.dtype)
    target = device.device_put(target)
    weights = device.device_put(weights)
    return lambda losses: made(modes, target, weights, method.dt, a_and_b, losses, work)


def batch_steps(
    methods: Sequence[Any], targets: np.ndarray, widths: Sequence[int], dtype: np.dtype[Any], device: Device = CPU
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], None]:
    """steps(params, losses, statuses) for many runs, a method for each; arrays as `layout.to_lanes` makes them.

    All methods are GD, or GradientFlow with the same scheme.
    """
    made = _batch_of_flows if isinstance(methods[0], GradientFlow) else _batch_of_gd
    return made(methods, targets, widths, dtype, device)


def _batch_of_gd(
    methods: Sequence[Any], targets: np.ndarray, widths: Sequence[int], dtype: np.dtype[Any], device: Device
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], None]:
    made = batch_kernel("batch_gd_steps", device, widths, dtype)
    widths = layout.as_widths(widths)
    work = device.workspace.allocate_batch(widths, dtype)
    targets = device.device_put(targets)
    lr = _in_lanes([method.lr for method in methods], dtype)
    return lambda params, losses, statuses: made(params, widths, targets, lr, losses, statuses, work)


def _batch_of_flows(
    methods: Sequence[Any], targets: np.ndarray, widths: Sequence[int], dtype: np.dtype[Any], device: Device
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], None]:
    made = batch_kernel("batch_rk_steps", device, widths, dtype)
    tableau = TABLEAUS[methods[0].scheme]
    widths = layout.as_widths(widths)
    work = device.workspace.allocate_batch(widths, dtype, tableau.stages)
    targets = device.device_put(targets)
    dt = _in_lanes([method.dt for method in methods], dtype)
    a_and_b = tableau.astype(dtype)
    return lambda params, losses, statuses: made(params, widths, targets, dt, a_and_b, losses, statuses, work)


def many_steps(
    methods: Sequence[Any],
    problems: Sequence[Problem],
    widths: Sequence[int],
    dtype: np.dtype[Any],
    device: Device = CPU,
) -> Callable[[np.ndarray, int, np.ndarray, int], np.ndarray]:
    """steps(params, count, statuses, step) -> mean losses, for many runs of SGD with a method and a problem each.

    params (blocks, P, lanes), as `layout.to_lanes` makes it; statuses (blocks, lanes), read and written; losses
    likewise. Batch, sampling and schedules of all methods are those of the first, the numbers of entries are equal.
    """
    first = methods[0]
    lanes = layout.lanes(dtype)
    widths = layout.as_widths(widths)
    own = {id(problem): problem.entries(dtype) for problem in problems}
    every = [own[id(problem)] for problem in problems]
    first.check_batch(every[0])
    rows, columns, values = (
        layout.to_lanes(np.stack([getattr(entries, name) for entries in every]).astype(kind), lanes)
        for name, kind in (("rows", np.int32), ("columns", np.int32), ("values", dtype))
    )
    made = device.kernels.batch_sgd_steps
    entries = device.device_put(Entries(rows, columns, values, every[0].weight))
    lr, ridge = (_in_lanes([getattr(m, key) for m in methods], dtype) for key in ("lr", "ridge"))
    seeds = layout.to_lanes(np.array([m.sampling_seed for m in methods], np.uint64), lanes)
    work = device.workspace.allocate_batch_sgd(widths, every[0].rows.size, first.batch, dtype)

    def steps(params: np.ndarray, count: int, statuses: np.ndarray, step: int) -> np.ndarray:
        losses = np.empty(statuses.shape, dtype)
        rates = BatchRates(lr, ridge, first.factors(step, count, dtype))
        sampling = Sampling(seeds, step, first.batch, first.replacement)
        made(params, widths, entries, rates, sampling, losses, statuses, work)
        return losses

    return steps


def _in_lanes(numbers: Sequence[float], dtype: np.dtype[Any]) -> np.ndarray:
    return layout.to_lanes(np.array(numbers, dtype), layout.lanes(dtype))
