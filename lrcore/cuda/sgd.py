"""Stochastic gradient descent on entries, a block for each run: the twin of `lrcore.cpu.sgd` and `batch_sgd`.

    memory   parameters │ f (B, inner) │ b (B, inner) │ residual (B,)          of a run: on chip where it fits
    order    the last permutation (m,), its name (2) │ the entries of a batch (B,)

All threads make the f and b of a whole batch, layer by layer; then every weight is updated by one thread, entry by
entry: fma(g b_q, f_p, decay · w) for the first, fma(g b_q, f_p, w) for the others.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from lrcore.cuda._target import cuda, device, empty, fetch, fma, kernel, on_gpu, put, times
from lrcore.cuda.batch import give, take
from lrcore.cuda.random import independent_draw, shuffle
from lrcore.cuda.workspace import CHIP_SIZES
from lrcore.objective import FLUSH_BELOW, FLUSH_EVERY
from lrcore.random import SAMPLE
from lrcore.status import DIVERGED, OK

CHIP_THREADS, MEMORY_THREADS = on_gpu(64, 3), on_gpu(256, 3)
DOMAIN = np.uint64(SAMPLE)


class _Job(NamedTuple):
    """What the runs of a launch have in common. each: whether the loss of every step is kept, or their mean."""

    widths: Any
    weight: Any
    entries: int
    batch: int
    replacement: int
    first: int
    steps: int
    lanes: int
    parameters: int
    inner: int
    each: int


@device
def _job(widths, weight, facts):
    """The _Job whose integers are `facts`."""
    return _Job(
        widths, weight, facts[0], facts[1], facts[2], facts[3], facts[4], facts[5], facts[6], facts[7], facts[8]
    )


@device
def _first_draw(step, job):
    """The number of a step's first draw. Without replacement an epoch is all entries, its last batch the rest."""
    if job.replacement:
        return step * job.batch
    per_epoch = (job.entries + job.batch - 1) // job.batch
    return step // per_epoch * job.entries + step % per_epoch * job.batch


@device
def _draw(step, size, seed, job, order):
    """The entries of a step, behind the permutation of its epoch."""
    number = _first_draw(step, job)
    chosen = job.entries + 2
    if job.replacement == 0:
        epoch = number // job.entries
        if cuda.threadIdx.x == 0 and order[job.entries] != epoch + 1:
            shuffle(seed, DOMAIN, epoch, order, 0, job.entries)
            order[job.entries] = epoch + 1
        cuda.syncthreads()
    s = cuda.threadIdx.x
    while s < size:
        if job.replacement:
            order[chosen + s] = independent_draw(seed, DOMAIN, number + s, job.entries)
        else:
            order[chosen + s] = order[(number + s) % job.entries]
        s += cuda.blockDim.x
    cuda.syncthreads()


@device
def _dot(memory, a, a_step, b, count):
    """Σ a_k b_k, a chain of FMAs from 0."""
    total = memory.dtype.type(0)
    for k in range(count):
        total = fma(memory[a + k * a_step], memory[b + k], total)
    return total


@device
def _ends(memory, size, rows, columns, run, job, order):
    """f_1 … f_{N−1} and b_{N−1} … b_1 of every entry of a batch."""
    widths = job.widths
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    chosen = job.entries + 2
    depth = widths.size - 1
    inputs = widths[0]
    f = job.parameters
    b = job.parameters + job.batch * job.inner
    layer = 0
    here = 0
    count = widths[1]
    place = thread
    while place < size * count:
        s = place // count
        q = place % count
        column = columns[_entry(order[chosen + s], run, job)]
        memory[f + s * job.inner + q] = memory[q * inputs + column]
        place += threads
    cuda.syncthreads()
    for i in range(2, depth):
        layer += widths[i - 1] * widths[i - 2]
        count = widths[i]
        below = widths[i - 1]
        place = thread
        while place < size * count:
            s = place // count
            q = place % count
            source = f + s * job.inner + here
            memory[source + below + q] = _dot(memory, layer + q * below, 1, source, below)
            place += threads
        here += below
        cuda.syncthreads()
    layer += widths[depth - 1] * widths[depth - 2]
    count = widths[depth - 1]
    place = thread
    while place < size * count:
        s = place // count
        q = place % count
        row = rows[_entry(order[chosen + s], run, job)]
        memory[b + s * job.inner + here + q] = memory[layer + row * count + q]
        place += threads
    cuda.syncthreads()
    for turn in range(depth - 2):
        i = depth - 1 - turn
        count = widths[i - 1]
        below = widths[i]
        place = thread
        layer -= below * count
        while place < size * count:
            s = place // count
            q = place % count
            source = b + s * job.inner + here
            memory[source - count + q] = _dot(memory, layer + q, count, source, below)
            place += threads
        here -= count
        cuda.syncthreads()


@device
def _entry(entry, run, job):
    """Where the numbers of an entry lie in the arrays of all runs."""
    return (run // job.lanes * job.entries + entry) * job.lanes + run % job.lanes


@device
def _residuals(memory, size, rows, columns, values, run, job, order):
    """W_rc − Ŵ_rc of every entry of the batch."""
    widths = job.widths
    s = cuda.threadIdx.x
    chosen = job.entries + 2
    depth = widths.size - 1
    residual = job.parameters + 2 * job.batch * job.inner
    last = widths[depth - 1]
    while s < size:
        entry = _entry(order[chosen + s], run, job)
        row = rows[entry]
        found = memory.dtype.type(0)
        layer = job.parameters - widths[depth] * last
        if depth == 1:
            found = memory[row * last + columns[entry]]
        else:
            here = job.parameters + s * job.inner + job.inner - last
            found = _dot(memory, layer + row * last, 1, here, last)
        memory[residual + s] = found - values[entry]
        s += cuda.blockDim.x
    cuda.syncthreads()


@device
def _update(memory, size, rate, decay, rows, columns, run, job, order):
    """Every weight once: decay, and what the entries of the batch add to it, in their order."""
    widths = job.widths
    depth = job.widths.size - 1
    p = cuda.threadIdx.x
    f = job.parameters
    b = job.parameters + job.batch * job.inner
    residual = b + job.batch * job.inner
    chosen = job.entries + 2
    while p < job.parameters:
        i, start, before = 1, 0, 0  # its layer, where that begins, and where the f that enters it does
        while p >= start + widths[i] * widths[i - 1]:
            start += widths[i] * widths[i - 1]
            before += widths[i - 1] if i > 1 else 0
            i += 1
        row = (p - start) // widths[i - 1]
        column = (p - start) % widths[i - 1]
        weight = times(decay, memory[p])
        for s in range(size):
            entry = _entry(order[chosen + s], run, job)
            factor = times(rate, memory[residual + s])
            if i == 1 and columns[entry] == column:
                if depth > 1:
                    weight = fma(factor, memory[b + s * job.inner + row], weight)
                elif rows[entry] == row:
                    weight += factor
            elif i > 1 and i == depth and rows[entry] == row:
                weight = fma(factor, memory[f + s * job.inner + before + column], weight)
            elif i > 1 and i < depth:
                left = times(factor, memory[b + s * job.inner + before + widths[i - 1] + row])
                weight = fma(left, memory[f + s * job.inner + before + column], weight)
        memory[p] = weight
        p += cuda.blockDim.x
    cuda.syncthreads()


@device
def _flush(memory, job):
    """What is too small to matter becomes 0."""
    p = cuda.threadIdx.x
    while p < job.parameters:
        if abs(memory[p]) < FLUSH_BELOW:
            memory[p] = memory.dtype.type(0)
        p += cuda.blockDim.x
    cuda.syncthreads()


@device
def _tell(memory, size, run, k, job, losses, status):
    """The loss of a step: its place, or its part of the sum over all."""
    if cuda.threadIdx.x == 0:
        residual = job.parameters + 2 * job.batch * job.inner
        total = memory.dtype.type(0)
        for s in range(size):
            total += times(memory[residual + s], memory[residual + s])
        half = memory.dtype.type(0.5)
        loss = times(half * job.weight, total) / memory.dtype.type(size)
        if job.each:
            losses[k] = loss
        elif math.isfinite(loss):
            losses[run] += loss
        if not math.isfinite(loss):
            status[0] = DIVERGED
    cuda.syncthreads()


@device
def _train(memory, status, params, lr, ridge, factors, seeds, rows, columns, values, losses, statuses, order, job):
    """All steps of one run."""
    run = cuda.blockIdx.x
    made = job.steps
    one = memory.dtype.type(1)
    if statuses[run] == OK:
        seed = np.uint64(seeds[run])
        take(params, job.parameters, run, job.lanes, memory, 0)
        if cuda.threadIdx.x == 0:
            status[0] = OK
            if not job.each:
                losses[run] = 0
        cuda.syncthreads()
        for k in range(job.steps):
            step = job.first + k
            if step % FLUSH_EVERY == 0:
                _flush(memory, job)
            size = _first_draw(step + 1, job) - _first_draw(step, job)
            _draw(step, size, seed, job, order)
            if job.inner > 0:
                _ends(memory, size, rows, columns, run, job, order)
            _residuals(memory, size, rows, columns, values, run, job, order)
            _tell(memory, size, run, k, job, losses, status)
            if status[0] != OK:
                made = k
                break
            rate = times(lr[run], factors[k])
            decay = one - times(memory.dtype.type(2) * rate, times(ridge[run], factors[job.steps + k]))
            rate = -(times(rate, job.weight) / memory.dtype.type(size))
            _update(memory, size, rate, decay, rows, columns, run, job, order)
        give(memory, job.parameters, run, job.lanes, params)
        if cuda.threadIdx.x == 0:
            statuses[run] = status[0]
            if not job.each:
                losses[run] = losses[run] / memory.dtype.type(max(made, 1))
    elif cuda.threadIdx.x == 0:
        losses[run] = memory.dtype.type(0)


TYPES = "xixxxiiixxixisi"


def _chip_kernel(size):
    """The kernel for runs of up to `size` numbers, which stay in shared memory."""

    @kernel(TYPES, f"sgd_on_chip_{size}", registers=112)
    def made(
        params, widths, lr, ridge, factors, seeds, rows, columns, values, losses, codes, arenas, orders, weight, facts
    ):
        memory = cuda.shared.array(size, params.dtype)
        status = cuda.shared.array(1, np.int64)
        length = orders.size // cuda.gridDim.x
        run = cuda.blockIdx.x
        order = orders[run * length : (run + 1) * length]
        job = _job(widths, weight, facts)
        own = params, lr, ridge, factors, seeds, rows, columns, values, losses, codes
        _train(memory, status, *own, order, job)

    return made


@kernel(TYPES)
def _sgd_in_memory(
    params, widths, lr, ridge, factors, seeds, rows, columns, values, losses, codes, arenas, orders, weight, facts
):
    status = cuda.shared.array(1, np.int64)
    length = orders.size // cuda.gridDim.x
    size = arenas.size // cuda.gridDim.x
    run = cuda.blockIdx.x
    order = orders[run * length : (run + 1) * length]
    memory = arenas[run * size : (run + 1) * size]
    job = _job(widths, weight, facts)
    own = params, lr, ridge, factors, seeds, rows, columns, values, losses, codes
    _train(memory, status, *own, order, job)


KERNELS = {size: _chip_kernel(size) for size in CHIP_SIZES}
KERNELS[0] = _sgd_in_memory


def sgd_steps(params, widths, entries, rates, ridges, sampling, losses, work):
    """W_i ← (1 − 2ηλ) W_i − η · weight · mean over the batch of (W_rc − Ŵ_rc) ∂W_rc/∂W_i, all from the old point.

    Parameters as for `lrcore.cpu.sgd_steps`. `params` and `losses` are written.
    """
    one = np.ones(1, params.dtype)
    status = np.zeros(1, np.int64)
    seeds = np.array([sampling.seed], np.uint64)
    factors = np.stack([rates, ridges])
    _launch(params, entries, (one, one, factors, seeds), sampling, losses, status, (1, 1), True, work)
    return int(status[0])


def batch_sgd_steps(params, widths, entries, lr, ridge, factors, sampling, losses, statuses, work):
    """`sgd_steps` of every run: factors.shape[1] steps, with rates lr · factors[0] and ridges ridge · factors[1].

    Parameters as for `lrcore.cpu.batch_sgd_steps`; losses: of every run the mean over the steps of this call.
    """
    blocks, lanes = statuses.shape
    own = entries.rows.nbytes + entries.columns.nbytes + entries.values.nbytes
    for first, last in work.waves(blocks, lanes, (params.nbytes + 4 * own) // statuses.size):
        part = slice(first, last)
        ours = entries._replace(rows=entries.rows[part], columns=entries.columns[part], values=entries.values[part])
        numbers = lr[part], ridge[part], factors, sampling.seed[part]
        shape = last - first, lanes
        _launch(params[part], ours, numbers, sampling, losses[part], statuses[part], shape, False, work)


def _launch(params, entries, numbers, sampling, losses, statuses, shape, each, work):
    lr, ridge, factors, seeds = numbers
    runs = shape[0] * shape[1]
    lanes = shape[1]
    made = KERNELS[work.chip]
    dtype = params.dtype
    there, lost, codes = put(params), put(losses), put(statuses)
    arrays = [put(lr), put(ridge), put(factors), put(seeds.view(np.int64))]
    arrays += [put(entries.rows.astype(np.int64)), put(entries.columns.astype(np.int64)), put(entries.values)]
    arenas = empty(runs if work.chip else runs * work.floats, dtype)
    orders = put(np.zeros(runs * work.order, np.int64))
    facts = work.entries, sampling.batch, sampling.replacement, sampling.first, factors.shape[1], lanes
    facts = put(np.array([*facts, params.size // runs, work.inner, each], np.int64))
    threads = CHIP_THREADS if work.chip else MEMORY_THREADS
    weight = dtype.type(entries.weight)
    made(runs, threads, there, work.device_widths, *arrays, lost, codes, arenas, orders, weight, facts)
    for array, place in ((there, params), (lost, losses), (codes, statuses)):
        fetch(array, place)
