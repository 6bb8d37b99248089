"""Stochastic gradient descent on entries, a block for each run, as in `lrcore.cpu.sgd` and `batch_sgd`.

    memory   parameters │ f (B, inner) │ b (B, inner) │ residual (B,)          of a run: on chip where it fits
    order    the last permutation (m,), its name (2) │ the entries of a batch (B,)

All threads make the f and b of a whole batch, layer by layer; then every weight is updated by one thread, entry by
entry: fma(g b_q, f_p, decay · w) for the first, fma(g b_q, f_p, w) for the others.
"""

import math
from typing import NamedTuple

import numpy as np

from lrcore.cuda._target import (
    Integer,
    Integers,
    Number,
    Numbers,
    copy_to_host,
    cuda,
    device,
    empty,
    fma,
    kernel,
    mul_rn,
    on_gpu,
    to_device,
)
from lrcore.cuda.batch import block_range, copy_from_lanes, copy_to_lanes
from lrcore.cuda.random import independent_draw, shuffle
from lrcore.cuda.workspace import CHIP_SIZES
from lrcore.objective import FLUSH_BELOW, FLUSH_EVERY, BatchRates
from lrcore.random import SAMPLE
from lrcore.status import DIVERGED, OK

CHIP_THREADS, MEMORY_THREADS = on_gpu(64, 3), on_gpu(256, 3)
DOMAIN = np.uint64(SAMPLE)


class _Runs(NamedTuple):
    """What the runs of a launch read and write: their rates, seeds and entries are their own."""

    params: Numbers
    lr: Numbers
    ridge: Numbers
    factors: Numbers
    seeds: Integers
    rows: Integers
    columns: Integers
    values: Numbers
    losses: Numbers
    statuses: Integers


class _Job(NamedTuple):
    """What the runs of a launch have in common. each: whether the loss of every step is kept, or their mean."""

    widths: Integers
    weight: Number
    entries: Integer
    batch: Integer
    replacement: Integer
    first: Integer
    steps: Integer
    lanes: Integer
    parameters: Integer
    inner: Integer
    each: Integer


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
def _entry(s, order, job):
    """Where the numbers of entry s of the batch lie in the arrays of all runs."""
    run = cuda.blockIdx.x
    return (run // job.lanes * job.entries + order[job.entries + 2 + s]) * job.lanes + run % job.lanes


@device
def _dot(memory, a, a_step, b, count):
    """Σ a_k b_k, a chain of FMAs from 0."""
    total = memory.dtype.type(0)
    for k in range(count):
        total = fma(memory[a + k * a_step], memory[b + k], total)
    return total


@device
def _gather(memory, size, runs, job, order):
    """f_1, a column of W_1, and b_{N−1}, a row of W_N, of every entry of a batch."""
    widths = job.widths
    depth = widths.size - 1
    f = job.parameters
    b = f + job.batch * job.inner
    count = widths[1]
    index = cuda.threadIdx.x
    while index < size * count:
        s = index // count
        q = index % count
        memory[f + s * job.inner + q] = memory[q * widths[0] + runs.columns[_entry(s, order, job)]]
        index += cuda.blockDim.x
    count = widths[depth - 1]
    last_layer = job.parameters - widths[depth] * count
    index = cuda.threadIdx.x
    while index < size * count:
        s = index // count
        q = index % count
        row = runs.rows[_entry(s, order, job)]
        memory[b + (s + 1) * job.inner - count + q] = memory[last_layer + row * count + q]
        index += cuda.blockDim.x
    cuda.syncthreads()


@device
def _multiply(memory, size, job):
    """f_2 … f_{N−1} and b_{N−2} … b_1 of every entry of a batch, after `_gather`."""
    widths = job.widths
    depth = widths.size - 1
    f = job.parameters
    b = f + job.batch * job.inner
    layer = 0
    here = 0
    for i in range(2, depth):
        layer += widths[i - 1] * widths[i - 2]
        count = widths[i]
        below = widths[i - 1]
        index = cuda.threadIdx.x
        while index < size * count:
            s = index // count
            q = index % count
            source = f + s * job.inner + here
            memory[source + below + q] = _dot(memory, layer + q * below, 1, source, below)
            index += cuda.blockDim.x
        here += below
        cuda.syncthreads()
    layer += widths[depth - 1] * widths[depth - 2]
    for turn in range(depth - 2):
        i = depth - 1 - turn
        count = widths[i - 1]
        below = widths[i]
        layer -= below * count
        index = cuda.threadIdx.x
        while index < size * count:
            s = index // count
            q = index % count
            source = b + s * job.inner + here
            memory[source - count + q] = _dot(memory, layer + q, count, source, below)
            index += cuda.blockDim.x
        here -= count
        cuda.syncthreads()


@device
def _residuals(memory, size, runs, job, order):
    """W_rc − Ŵ_rc of every entry of the batch."""
    widths = job.widths
    s = cuda.threadIdx.x
    depth = widths.size - 1
    residual = job.parameters + 2 * job.batch * job.inner
    last = widths[depth - 1]
    while s < size:
        entry = _entry(s, order, job)
        row = runs.rows[entry]
        product = memory.dtype.type(0)
        layer = job.parameters - widths[depth] * last
        if depth == 1:
            product = memory[row * last + runs.columns[entry]]
        else:
            here = job.parameters + s * job.inner + job.inner - last
            product = _dot(memory, layer + row * last, 1, here, last)
        memory[residual + s] = product - runs.values[entry]
        s += cuda.blockDim.x
    cuda.syncthreads()


@device
def _update(memory, size, rate, decay, runs, job, order):
    """Every weight once: decay, and what the entries of the batch add to it, in their order."""
    widths = job.widths
    depth = job.widths.size - 1
    p = cuda.threadIdx.x
    f = job.parameters
    b = job.parameters + job.batch * job.inner
    residual = b + job.batch * job.inner
    while p < job.parameters:
        i = 1  # its layer, where that begins, and where the f that enters it does
        start = 0
        before = 0
        while p >= start + widths[i] * widths[i - 1]:
            start += widths[i] * widths[i - 1]
            before += widths[i - 1] if i > 1 else 0
            i += 1
        row = (p - start) // widths[i - 1]
        column = (p - start) % widths[i - 1]
        weight = mul_rn(decay, memory[p])
        for s in range(size):
            entry = _entry(s, order, job)
            factor = mul_rn(rate, memory[residual + s])
            if i == 1 and runs.columns[entry] == column:
                if depth > 1:
                    weight = fma(factor, memory[b + s * job.inner + row], weight)
                elif runs.rows[entry] == row:
                    weight += factor
            elif i > 1 and i == depth and runs.rows[entry] == row:
                weight = fma(factor, memory[f + s * job.inner + before + column], weight)
            elif i > 1 and i < depth:
                left = mul_rn(factor, memory[b + s * job.inner + before + widths[i - 1] + row])
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
def _write_loss(memory, size, k, job, losses, status):
    """The loss of a step to its own element, or added to the sum over all."""
    if cuda.threadIdx.x == 0:
        residual = job.parameters + 2 * job.batch * job.inner
        total = memory.dtype.type(0)
        for s in range(size):
            total += mul_rn(memory[residual + s], memory[residual + s])
        half = memory.dtype.type(0.5)
        loss = mul_rn(half * job.weight, total) / memory.dtype.type(size)
        if job.each:
            losses[k] = loss
        elif math.isfinite(loss):
            losses[cuda.blockIdx.x] += loss
        if not math.isfinite(loss):
            status[0] = DIVERGED
    cuda.syncthreads()


@device
def _begin(memory, status, runs, job):
    """Bring the parameters of this block's run."""
    run = cuda.blockIdx.x
    copy_from_lanes(runs.params, job.parameters, run, job.lanes, memory, 0)
    if cuda.threadIdx.x == 0:
        status[0] = OK
        if not job.each:
            runs.losses[run] = 0
    cuda.syncthreads()


@device
def _steps(memory, status, runs, job, order):
    """The steps of one run; returns how many were made."""
    run = cuda.blockIdx.x
    one = memory.dtype.type(1)
    two = memory.dtype.type(2)
    seed = np.uint64(runs.seeds[run])
    for k in range(job.steps):
        step = job.first + k
        if step % FLUSH_EVERY == 0:
            _flush(memory, job)
        size = _first_draw(step + 1, job) - _first_draw(step, job)
        _draw(step, size, seed, job, order)
        if job.inner > 0:
            _gather(memory, size, runs, job, order)
            _multiply(memory, size, job)
        _residuals(memory, size, runs, job, order)
        _write_loss(memory, size, k, job, runs.losses, status)
        if status[0] != OK:
            return k
        rate = mul_rn(runs.lr[run], runs.factors[k])
        decay = one - mul_rn(two * rate, mul_rn(runs.ridge[run], runs.factors[job.steps + k]))
        rate = -(mul_rn(rate, job.weight) / memory.dtype.type(size))
        _update(memory, size, rate, decay, runs, job, order)
    return job.steps


@device
def _train(memory, status, runs, job, orders):
    """All of one run."""
    run = cuda.blockIdx.x
    if runs.statuses[run] == OK:
        first, last = block_range(orders)
        _begin(memory, status, runs, job)
        made = _steps(memory, status, runs, job, orders[first:last])
        copy_to_lanes(memory, job.parameters, run, job.lanes, runs.params)
        if cuda.threadIdx.x == 0:
            runs.statuses[run] = status[0]
            if not job.each:
                runs.losses[run] = runs.losses[run] / memory.dtype.type(max(made, 1))
    elif cuda.threadIdx.x == 0:
        runs.losses[run] = memory.dtype.type(0)


def _chip_kernel(size):
    """The kernel for runs of up to `size` numbers, which stay in shared memory."""

    @kernel(f"sgd_on_chip_{size}", registers=112)
    def sgd(runs: _Runs, job: _Job, arenas: Numbers, orders: Integers):
        memory = cuda.shared.array(size, runs.params.dtype)
        status = cuda.shared.array(1, np.int64)
        _train(memory, status, runs, job, orders)

    return sgd


@kernel()
def _sgd_in_memory(runs: _Runs, job: _Job, arenas: Numbers, orders: Integers):
    status = cuda.shared.array(1, np.int64)
    first, last = block_range(arenas)
    _train(arenas[first:last], status, runs, job, orders)


KERNELS = {size: _chip_kernel(size) for size in CHIP_SIZES}
KERNELS[0] = _sgd_in_memory


def sgd_steps(params, widths, entries, rates, ridges, sampling, losses, work):
    """W_i ← (1 − 2ηλ) W_i − η · weight · mean over the batch of (W_rc − Ŵ_rc) ∂W_rc/∂W_i, all from the old point.

    Parameters as for `lrcore.cpu.sgd_steps`. `params` and `losses` are written.
    """
    one = np.ones(1, params.dtype)
    status = np.zeros((1, 1), np.int64)
    seed = sampling._replace(seed=np.array([sampling.seed], np.uint64))
    _launch(params, entries, BatchRates(one, one, np.stack([rates, ridges])), seed, losses, status, work)
    return int(status[0, 0])


def batch_sgd_steps(params, widths, entries, rates, sampling, losses, statuses, work):
    """`sgd_steps` of every run: rates.factors.shape[1] steps, their learning rates and ridges from `BatchRates`.

    Parameters as for `lrcore.cpu.batch_sgd_steps`; losses: of every run the mean over the steps of this call.
    """
    blocks, lanes = statuses.shape
    own = entries.rows.nbytes + entries.columns.nbytes + entries.values.nbytes
    for first, last in work.waves(blocks, lanes, (params.nbytes + 4 * own) // statuses.size):
        wave = slice(first, last)
        ours = entries._replace(rows=entries.rows[wave], columns=entries.columns[wave], values=entries.values[wave])
        own_rates = BatchRates(rates.lr[wave], rates.ridge[wave], rates.factors)
        seeds = sampling._replace(seed=sampling.seed[wave])
        _launch(params[wave], ours, own_rates, seeds, losses[wave], statuses[wave], work)


def _launch(params, entries, rates, sampling, losses, statuses, work):
    """Of a single run `losses` has an element for each step, of several one for each run."""
    lanes = statuses.shape[1]
    count = statuses.size
    dtype = params.dtype
    runs = _Runs(
        to_device(params),
        to_device(rates.lr),
        to_device(rates.ridge),
        to_device(rates.factors),
        to_device(sampling.seed.view(np.int64)),
        to_device(entries.rows.astype(np.int64)),
        to_device(entries.columns.astype(np.int64)),
        to_device(entries.values),
        to_device(losses),
        to_device(statuses),
    )
    job = _Job(
        work.device_widths,
        dtype.type(entries.weight),
        entries=work.entries,
        batch=sampling.batch,
        replacement=int(sampling.replacement),
        first=sampling.first,
        steps=rates.factors.shape[1],
        lanes=lanes,
        parameters=params.size // count,
        inner=work.inner,
        each=int(losses.ndim == 1),
    )
    arenas = empty(count if work.chip else count * work.floats, dtype)
    orders = to_device(np.zeros(count * work.order, np.int64))
    threads = CHIP_THREADS if work.chip else MEMORY_THREADS
    KERNELS[work.chip](count, threads, runs, job, arenas, orders)
    copy_to_host(runs.params, params)
    copy_to_host(runs.losses, losses)
    copy_to_host(runs.statuses, statuses)
