"""Kernels made for one network: the widths are constants, and a step is straight-line code (`_unrolled`).

`gd_steps` and `rk_steps` here return kernels with the parameters and the bits of those of `lrcore.cpu`, for networks so
small that loops and switches take longer than their arithmetic. Each takes one to four seconds to compile, once for
its widths and dtype: it is kept like every other kernel.

Arrays are contiguous, in C order. Inside a call layers and target lie in `work.panel`, with their rows padded to whole
vectors.
"""

import functools

import numpy as np

from lrcore import layout
from lrcore.cpu._lanes import load_lanes, store_lanes
from lrcore.cpu._target import is_kept, named_kernel, part
from lrcore.cpu._unrolled import LINE, Chain, descend, gradient_intrinsic, stage
from lrcore.cpu._unrolled_runs import (
    PART_BYTES,
    PARTS,
    descend_intrinsic,
    forward_intrinsic,
    instructions,
    slopes_intrinsic,
)
from lrcore.cpu._vector import VECTOR_BITS, data_ptr, load, store
from lrcore.cpu.batch import batch_pointers, record_losses, runs_add_stages, runs_stage_point, scale_factors, start_runs
from lrcore.cpu.gemm import panel_size
from lrcore.layout import LANE_BYTES
from lrcore.status import DIVERGED, OK

__all__ = ["batch_gd_steps", "batch_rk_steps", "fits", "fits_batch", "gd_steps", "is_kept", "rk_steps"]

MOST_COLUMNS = 12  # beyond, the tiles of the general kernels are as fast
MOST_LAYERS = 8
MOST_INSTRUCTIONS = 2600  # fused multiply-adds of a step: more take too long to compile
MOST_INSTRUCTIONS_OF_RUNS = (
    1300 if VECTOR_BITS == 512 else 800
)  # likewise of batches: with 256 bits, to where it was measured to pay


def fits(widths, dtype):
    """Whether networks of these widths gain by kernels of their own."""
    shape = tuple(int(n) for n in widths)
    if not 2 <= len(shape) - 1 <= MOST_LAYERS or max(shape) > MOST_COLUMNS:
        return False
    chain = _chain(shape, dtype)
    room = 3 * chain.params_size + chain.target.size + LINE + chain.scratch_size
    return chain.instructions <= MOST_INSTRUCTIONS and room <= panel_size(np.dtype(dtype))


@functools.cache
def gd_steps(shape, dtype):
    """`cpu.gd_steps` for networks whose widths are `shape` (a tuple), one dtype and one thread."""
    chain = _chain(shape, dtype)
    gradient = gradient_intrinsic(shape, descend)
    places = tuple((rows.stride, rows.size) for rows in chain.layers)
    target_stride = chain.target.stride
    params_size = chain.params_size
    target_size = chain.target.size

    def steps(params, widths, target, lr, losses, work):
        one = params.dtype.type(1)
        size = params.itemsize
        point = data_ptr(work.panel)
        wanted = point + params_size * size
        scratch = wanted + target_size * size
        _clear(point, scratch, one, size)
        _move_layers(data_ptr(params), point, widths, places, True, one, size)
        _move(data_ptr(target), widths[0], wanted, target_stride, (widths[-1], widths[0]), one, size)
        loss = data_ptr(losses)
        status = OK
        for _ in range(losses.size):
            if gradient(point, wanted, scratch, loss, 0, (-lr,)) == 0:
                status = DIVERGED
                break
            loss += size
        _move_layers(data_ptr(params), point, widths, places, False, one, size)
        return status

    return named_kernel(steps, _name("gd_steps", shape, dtype))


@functools.cache
def rk_steps(shape, dtype):
    """`cpu.rk_steps` for networks of these widths, one dtype, one thread, and a tableau of which each stage starts from
    the slope of the one before it alone."""
    chain = _chain(shape, dtype)
    gradient = gradient_intrinsic(shape, stage)
    places = tuple((rows.stride, rows.size) for rows in chain.layers)
    target_stride = chain.target.stride
    params_size = chain.params_size
    target_size = chain.target.size

    def steps(params, widths, target, dt, tableau, losses, work):
        a, b = tableau
        one = params.dtype.type(1)  # a step size may be infinite, and its difference NaN
        size = params.itemsize
        start = data_ptr(work.panel)
        middle = start + params_size * size
        total = middle + params_size * size
        wanted = total + params_size * size
        ignored = wanted + target_size * size  # for losses of later stages
        scratch = ignored + LINE * size
        _clear(start, scratch, one, size)
        _move_layers(data_ptr(params), start, widths, places, True, one, size)
        _move(data_ptr(target), widths[0], wanted, target_stride, (widths[-1], widths[0]), one, size)
        first = data_ptr(losses)
        status = OK
        for k in range(losses.size):
            for s in range(b.size):
                last = s + 1 == b.size
                weight = one - one if last else dt * a[s + 1, s]
                source = start if s == 0 else total
                ending = (dt * b[s], weight, source, start if last else total, start, middle)
                loss = first + k * size if s == 0 else ignored
                if gradient(start if s == 0 else middle, wanted, scratch, loss, s, ending) == 0 and s == 0:
                    status = DIVERGED
                    break
            if status == DIVERGED:
                break
        _move_layers(data_ptr(params), start, widths, places, False, one, size)
        return status

    return named_kernel(steps, _name("rk_steps", shape, dtype))


def fits_batch(widths):
    """Whether batches of networks of these widths gain by kernels of their own."""
    shape = tuple(int(n) for n in widths)
    return 2 <= len(shape) - 1 <= MOST_LAYERS and instructions(shape) <= MOST_INSTRUCTIONS_OF_RUNS


@functools.cache
def batch_gd_steps(shape, dtype):
    """`cpu.batch_gd_steps` for networks whose widths are `shape`, and one dtype."""
    forward = forward_intrinsic(shape)
    descend = descend_intrinsic(shape)
    everyone = (1 << layout.lanes(dtype)) - 1  # a bit for each run of a block
    runs = layout.lanes(dtype) // PARTS

    def steps(params, widths, targets, lr, losses, statuses, work):
        number = params.dtype
        ptrs = batch_pointers(work, params.shape[1])
        own = (ptrs.prefix, ptrs.residual, ptrs.back, ptrs.back_size)
        factor = work.factors[0]
        for block in range(params.shape[0]):
            params_ptr = data_ptr(params[block])
            target_ptr = data_ptr(targets[block])
            status = statuses[block]
            active = start_runs(status)
            for lane in range(factor.size):
                factor[lane] = -lr[block, lane]
            for k in range(losses.shape[1]):
                finite = 0
                for which in range(PARTS):
                    at = which * PART_BYTES
                    found = forward(number, params_ptr + at, target_ptr + at, _part(own, at), ptrs.loss + at)
                    finite |= found << which * runs
                if finite & active == everyone:
                    _note(number, ptrs.loss, losses, block, k)
                else:
                    active = record_losses(work.loss, losses[block, k], status, active)
                    if active == 0:
                        break
                for which in range(PARTS):
                    at = which * PART_BYTES
                    descend(number, params_ptr + at, _part(own, at), ptrs.factors + at, active >> which * runs)

    return named_kernel(steps, _name("batch_gd_steps", shape, dtype))


@functools.cache
def batch_rk_steps(shape, dtype):
    """`cpu.batch_rk_steps` for networks whose widths are `shape`, and one dtype."""
    forward = forward_intrinsic(shape)
    slopes = slopes_intrinsic(shape)
    everyone = (1 << layout.lanes(dtype)) - 1  # a bit for each run of a block
    runs = layout.lanes(dtype) // PARTS

    def steps(params, widths, targets, dt, tableau, losses, statuses, work):
        a, b = tableau
        number = params.dtype
        ptrs = batch_pointers(work, params.shape[1])
        own = (ptrs.prefix, ptrs.residual, ptrs.back, ptrs.back_size)
        for block in range(params.shape[0]):
            params_ptr = data_ptr(params[block])
            target_ptr = data_ptr(targets[block])
            status = statuses[block]
            active = start_runs(status)
            scale_factors(dt[block], a, b, work.factors)
            for k in range(losses.shape[1]):
                for s in range(b.size):
                    point = params_ptr
                    if s > 0:
                        point = runs_stage_point(number, params_ptr, s, a, active, ptrs)
                    finite = 0
                    for which in range(PARTS):
                        at = which * PART_BYTES
                        found = forward(number, point + at, target_ptr + at, _part(own, at), ptrs.loss + at)
                        finite |= found << which * runs
                    if s == 0:
                        if finite & active == everyone:
                            _note(number, ptrs.loss, losses, block, k)
                        else:
                            active = record_losses(work.loss, losses[block, k], status, active)
                            if active == 0:
                                break
                    for which in range(PARTS):
                        at = which * PART_BYTES
                        slopes(number, point + at, _part(own, at), ptrs.stages + s * ptrs.params_size + at)
                if active == 0:
                    break
                runs_add_stages(number, params_ptr, b.size, active, ptrs)

    return named_kernel(steps, _name("batch_rk_steps", shape, dtype))


@part
def _note(number, found, losses, block, k):
    """The losses of one step of a block, all of whose runs go on."""
    at = (block * losses.shape[1] + k) * LANE_BYTES
    store_lanes(load_lanes(number, found), data_ptr(losses) + at)


@part
def _part(ptrs, at):
    """The buffers of one part of a block."""
    prefix, residual, back, turn = ptrs
    return prefix + at, residual + at, back + at, turn


def _chain(shape, dtype):
    return Chain(shape, 8 * np.dtype(dtype).itemsize)


def _name(kernel, shape, dtype):
    return "_".join([kernel, np.dtype(dtype).name, *map(str, shape)])


@part
def _clear(start, end, one, size):
    """Zeros from one address to another: what the padding has to hold."""
    for at in range(start, end, size):
        store(one - one, at)


@part
def _move(source, source_row, out, out_row, shape, one, size):
    """Rows of a matrix from one address to another; rows are so many numbers apart on either side."""
    rows, columns = shape
    for i in range(rows):
        for j in range(columns):
            store(load(source + (i * source_row + j) * size, one), out + (i * out_row + j) * size)


@part
def _move_layers(params, padded, widths, places, inwards, one, size):
    """All layers from contiguous rows to padded ones, or back.

    The widths are read from their array: the optimiser would turn loops over constants into more code than a step has.
    """
    for i in range(widths.size - 1):
        shape = (widths[i + 1], widths[i])
        stride, room = places[i]
        if inwards:
            _move(params, shape[1], padded, stride, shape, one, size)
        else:
            _move(padded, stride, params, shape[1], shape, one, size)
        params += shape[0] * shape[1] * size
        padded += room * size
