"""Training on a GPU: against the model on paper, the CPU's kernels, PyTorch and JAX, and bit for bit against the CPU.

    python benchmarks/gpu.py            print the table
    python benchmarks/gpu.py --write    and put it into benchmarks/gpu.md, with the model

Times are those of whole calls, copies to the device and back included. Sides take turns; a ratio is that of the two
in the same round, for a run and step. Without a GPU the columns say so, and the model stands alone.
"""

import argparse
import concurrent.futures
import functools
import importlib.util
import itertools
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import gpu_model
import numpy as np
import peers
import sgd
from gpu_model import Job
from table import head, machine, row, seconds
from threadpoolctl import threadpool_limits

from lrcore import cpu, layout, workspace
from lrcore.objective import Entries
from lrcore.status import OK
from lrcore.tableau import RK4

PAGE = Path(__file__).parent / "gpu.md"
NOT_MEASURED = "not measured"
ROUNDS = 5
CHECKED_RUNS, CHECKED_STEPS = 40, 10  # of a comparison bit by bit


class Case(NamedTuple):
    """A row. job.steps: of a call here; own: of a call on the CPU and by peers."""

    name: str
    job: Job
    own: int
    sgd: bool = False


def _batches():
    for n, runs, steps, own in ((8, 10_000, 1000, 50), (32, 4000, 200, 5), (100, 1000, 20, 2)):
        for dtype in (np.float64, np.float32):
            job = Job((n,) * 4, runs, dtype, 0, steps)
            yield Case(f"{runs} runs, n = {n}, GD, {np.dtype(dtype).name}", job, own)
        yield Case(f"{runs} runs, n = {n}, RK4", Job((n,) * 4, runs, np.float64, 4, steps // 4), max(1, own // 4))


CASES = (
    *_batches(),
    Case("one run, n = 100, GD", Job((100,) * 4, 1, np.float64, 0, 1000), 100),
    Case("one run, n = 1000, GD", Job((1000,) * 4, 1, np.float64, 0, 20), 1),
    Case("10000 runs, n = 10, SGD", Job((10,) * 4, 10_000, np.float64, 0, 1000), 100, sgd=True),
)


class Side(NamedTuple):
    """One way to make the steps: an action, how many steps it makes, and what it has written, to be compared."""

    action: Callable
    steps: int
    written: tuple = ()


# Batches.


def batch(spaces, case, steps, runs=None, threads=1):
    """The Side of a batch by `spaces` = (kernels, workspaces), its blocks shared among threads."""
    job = case.job._replace(runs=runs or case.job.runs)
    arrays, call, allocate = (_sgd_batch if case.sgd else _batch)(*spaces, job, steps)
    params, before = arrays[0], arrays[0].copy()
    ends = np.linspace(0, len(params), min(threads, len(params)) + 1).astype(int).tolist()
    calls = [functools.partial(call, slice(*part), allocate()) for part in itertools.pairwise(ends)]
    workers = concurrent.futures.ThreadPoolExecutor(len(calls))

    def run():
        params[:] = before
        if len(calls) == 1:
            return calls[0]()
        return [future.result() for future in [workers.submit(one) for one in calls]]

    return Side(run, steps, arrays)


def _starts(job, lanes):
    """(layers, target) in lanes, each run at a distance of its own from zero."""
    layers, target = peers.problem(job.widths[0], job.dtype, len(job.widths) - 1)
    sizes = np.linspace(0.5, 1.0, job.runs).astype(job.dtype)[:, None]
    starts = sizes * layout.flatten(layers, job.dtype)[0]
    return layout.to_lanes(starts, lanes), layout.to_lanes(np.tile(target.ravel(), (job.runs, 1)), lanes)


def _batch(kernels, spaces, job, steps):
    """(what is written, params first; a function of blocks and a workspace; one that makes the latter), GD or RK4."""
    lanes, widths = layout.lanes(job.dtype), layout.as_widths(job.widths)
    params, targets = _starts(job, lanes)
    rates = np.full((len(params), lanes), peers.LR, job.dtype)
    losses = np.empty((len(params), steps, lanes), job.dtype)
    statuses = np.empty(rates.shape, np.int64)
    tableau = (RK4.a.astype(job.dtype), RK4.b.astype(job.dtype)) if job.stages else ()
    kernel = kernels.batch_rk_steps if job.stages else kernels.batch_gd_steps

    def call(part, space):
        kernel(params[part], widths, targets[part], rates[part], *tableau, losses[part], statuses[part], space)

    allocate = functools.partial(spaces.allocate_batch, widths, job.dtype, job.stages)
    return (params, losses, statuses), call, allocate


def _sgd_batch(kernels, spaces, job, steps):
    """The same of SGD on single entries, as benchmarks/sgd.py has it."""
    given, lanes, widths = sgd.problem(sgd.CASES[0]), layout.lanes(job.dtype), layout.as_widths(job.widths)

    def everywhere(values, dtype=job.dtype):
        return layout.to_lanes(np.tile(np.asarray(values, dtype), (job.runs, 1)), lanes)

    params, rates = everywhere(layout.flatten(given.layers)[0]), everywhere(given.lr)[:, 0]
    ridges, factors = everywhere(given.ridge)[:, 0], np.ones((2, steps))
    rows, columns = everywhere(given.entries.rows, np.int32), everywhere(given.entries.columns, np.int32)
    values, seeds = everywhere(given.entries.values), layout.to_lanes(np.arange(job.runs, dtype=np.uint64), lanes)
    losses, statuses = np.empty(rates.shape), np.full(rates.shape, OK)

    def call(part, space):
        entries = Entries(rows[part], columns[part], values[part], given.entries.weight)
        sampling = sgd.sampling()._replace(seed=seeds[part])
        own = rates[part], ridges[part], factors, sampling, losses[part], statuses[part], space
        kernels.batch_sgd_steps(params[part], widths, entries, *own)

    allocate = functools.partial(spaces.allocate_batch_sgd, widths, given.entries.rows.size)
    return (params, losses, statuses), call, allocate


# One network.


def alone(spaces, case, steps):
    """The Side of one network by gradient descent."""
    kernels, spaces = spaces
    layers, target = peers.problem(case.job.widths[0], case.job.dtype)
    start, widths = layout.flatten(layers, case.job.dtype)
    params, losses, work = start.copy(), np.empty(steps, case.job.dtype), spaces.allocate(widths, case.job.dtype)

    def run():
        params[:] = start
        kernels.gd_steps(params, widths, target, case.job.dtype(peers.LR), losses, work)

    return Side(run, steps, (params, losses))


# What stands beside: the CPU, others on the same GPU, the peak.


def on_cpu(case):
    """All cores of this machine."""
    if case.job.runs > 1:
        return batch((cpu, workspace), case, case.own, threads=os.cpu_count())
    return Side(peers.ours(case.job.widths[0], case.own, threads=os.cpu_count()), case.own)


def with_torch():
    """{runs > 1: function of a Case} that make Sides on the GPU; None where PyTorch is not installed with CUDA."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    if not torch.cuda.is_available():
        return None

    def side(make, case):
        with torch.device("cuda"):
            action = make()

        def run():
            action()
            torch.cuda.synchronize()

        return Side(run, case.own)

    return {
        True: lambda case: side(lambda: peers.torch_batched(case.job.widths[0], case.own, case.job.runs), case),
        False: lambda case: side(lambda: peers.with_torch(case.job.widths[0], case.own), case),
    }


def with_jax():
    """The same of JAX."""
    if importlib.util.find_spec("jax") is None or peers._jax().default_backend() != "gpu":
        return None
    return {
        True: lambda case: Side(peers.jax_batched(case.job.widths[0], case.own, case.job.runs), case.own),
        False: lambda case: Side(peers.with_jax(case.job.widths[0], case.own), case.own),
    }


@functools.cache
def peak(dtype):
    """Multiply-adds a second that this GPU can make."""
    from gpu_peak import multiply_adds

    return multiply_adds(dtype)


# The table.


def same_bits(case):
    """Whether a few runs and steps leave on the GPU what they leave on the CPU, bit by bit."""
    from lrcore import cuda

    make = functools.partial(batch, runs=CHECKED_RUNS) if case.job.runs > 1 else alone
    sides = [make(spaces, case, CHECKED_STEPS) for spaces in ((cuda, cuda.workspace), (cpu, workspace))]
    for side in sides:
        side.action()
    return all(mine.tobytes() == its.tobytes() for mine, its in zip(*(side.written for side in sides), strict=True))


def measured(case, others):
    """{side: median seconds of a run and step}, {side: median ratio to lrbias in the same round}."""
    from lrcore import cuda

    make = batch if case.job.runs > 1 else alone
    sides = {"lrbias": make((cuda, cuda.workspace), case, case.job.steps), "CPU": on_cpu(case)}
    plain = case.job.stages == 0 and not case.sgd and case.job.dtype is np.float64  # what peers are written for
    sides |= {name: makes[case.job.runs > 1](case) for name, makes in others.items() if makes and plain}
    for side in sides.values():
        side.action()  # compiles
    found = [{name: seconds(side.action) / side.steps for name, side in sides.items()} for _ in range(ROUNDS)]
    each = {name: statistics.median(one[name] for one in found) / case.job.runs for name in sides}
    return each, {name: statistics.median(one[name] / one["lrbias"] for one in found) for name in sides}


OTHERS = ("torch.bmm or autograd", "JAX")


def heads():
    columns = "model, µs a run and step", "measured", "runs of 10 000 steps/s", "model, % of FMA peak", "measured, %"
    sides = ("CPU, all cores ÷ GPU", *(f"{name} ÷ GPU" for name in OTHERS), "bits of the CPU")
    yield from head("N = 3, losses of all steps, float64 where nothing is said", *columns, *sides)


def expected(case):
    """(µs a run and step, % of the peak) of the model, which has no SGD."""
    if case.sgd:
        return "–", "–"
    each = gpu_model.expected(case.job).seconds / case.job.runs
    return gpu_model.microseconds(each), f"{100 * gpu_model.share_of_peak(case.job, each * case.job.runs):.1f}"


def table(reason):
    """A row for each case; reason: why nothing can be measured, or None."""
    others = {} if reason else dict(zip(OTHERS, (with_torch(), with_jax()), strict=True))
    yield from heads()
    for case in CASES:
        own, share = expected(case)
        if reason:
            yield row(case.name, own, NOT_MEASURED, NOT_MEASURED, share, *[NOT_MEASURED] * 5)
            continue
        same = "the same" if same_bits(case) else "DIFFERENT"
        each, ratio = measured(case, others)
        rate = 0 if case.sgd else gpu_model.useful(case.job) / each["lrbias"] / peak(case.job.dtype)
        absent = {name: "–" if others[name] else "not installed" for name in OTHERS}
        beside = (f"{ratio[name]:.1f}" if name in ratio else absent[name] for name in OTHERS)
        yield row(
            case.name,
            own,
            gpu_model.microseconds(each["lrbias"]),
            f"{1e-4 / each['lrbias']:.3g}",
            share,
            f"{100 * rate:.1f}" if rate else "–",
            f"{ratio['CPU']:.1f}",
            *beside,
            same,
        )


def where(reason):
    """What was measured on, in a line."""
    if reason:
        return f"Not measured: {reason}. What stands below is the model."
    from lrcore import cuda

    rates = (2e-12 * peak(dtype) for dtype in (np.float64, np.float32))
    peaks = "FMA peak measured: {:.1f} TFLOP/s in float64, {:.1f} in float32".format(*rates)
    return f"{cuda.card().name}; {peaks}; {machine()}"


INTRODUCTION = """# Training on a GPU

Written by `python benchmarks/gpu.py --write`. A run is trained by one block of threads, one large network by launches
that spread over the device. Times are those of whole calls, copies included; a ratio above 1 says that the GPU is
faster. Bits are compared after a few steps of a few runs, as large as in the row."""

HOW = """## The model

`gpu_model.py` walks through the passes of a step as the kernels do and counts, for a block, what its warps issue, the
multiply-adds, the wavefronts of shared memory, the bytes from L2, and the longest chain of what waits for each other.
Blocks of one multiprocessor (as many as registers and shared memory let in) take as long as its busiest unit, or as
one of their chains. Instructions of loops are counted in the machine code (`gpu_code.py`), those around them are
read off it. One CPU core: [README.md](README.md).

The last column is what a library that launches an operation at a time, as torch.bmm, has to move: whole tensors in
and out of each, where a run here stays in shared memory or in L2. It is no forecast of one: launches and products
come on top, and at n = 8 its tensors nearly fit into L2. But where it lies below the expected time, such a library
may well be faster than these kernels; only the table above can tell."""

BOUNDS = """## What bounds it

Each column alone. Multiply-adds never do: for one of them, a warp issues many other instructions, most of
which make addresses, and a chain waits for what it has loaded. So the share of the peak is small, and is what there
is to gain. On chip, instructions come first; in memory and on the grid, the few warps that registers let in do not
cover each other's waiting."""

ONE = """One network of n = 100 has work for few multiprocessors, and Python's launches take longer than what they
launch: about what one core takes. n = 1000 fills the device."""

OTHERWISE = """## What it rests on

Above the line of instructions stand assumptions, then what kernels could do otherwise."""

REFUTE = """The ones that matter, and what would refute them, with Nsight Compute beside this table:

- *Instructions*, in batches on chip: `smsp__inst_executed.sum` for a run and step, beside `instructions` above times
  schedulers and clock. What was read off (`output`, `begin`) is the least certain. `smsp__issue_active` near 100 %
  says that issue is the bound; near 50 % it says that waiting is.
- *A warp alone*, in memory and on the grid: runs as many as multiprocessors, n = 32, against four times as many. If
  both take the same time, waiting is the bound and the chain is right; if the second takes longer, it is issue.
- *Blocks of a multiprocessor*: time against the number of runs is a staircase whose steps are that many times the
  multiprocessors. The driver has to give shared memory its share: `launch__occupancy_limit_*` says what limits.
- *Shared memory*: `l1tex__data_pipe_lsu_wavefronts_mem_shared.sum`, counted here from the addresses of each warp.
- *L2*: `lts__t_bytes.sum`. The model has no L1, which can only help, and n = 100 misses L2 as often as its runs do
  not fit; `dram__bytes.sum` says how often.
- *Launches*: one network of n = 100 by `nsys`, the gaps between kernels. They do not depend on n.
- *Copies*: `nsys` has them by direction. Losses are copied both ways, though nothing on the device reads them.

Counted for each turn of a loop:"""


def page(measured):
    """The text of gpu.md."""
    tables = ("\n".join(table()) for table in gpu_model.TABLES)
    steps, bounds, forms, otherwise, code = tables
    parts = INTRODUCTION, measured, HOW, steps, BOUNDS, bounds, ONE, forms, OTHERWISE, otherwise, REFUTE, code
    return "\n\n".join(parts) + "\n"


def missing():
    """Why nothing can be measured here, as the end of a sentence; None where it can."""
    try:
        from lrcore import cuda
    except ImportError as error:
        return str(error)
    return cuda.missing()


def simulated():
    return importlib.util.find_spec("numba_cuda") is not None and os.environ.get("NUMBA_ENABLE_CUDASIM", "0") == "1"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if simulated():
        print("The simulator measures nothing: NUMBA_ENABLE_CUDASIM must not be 1.", file=sys.stderr)
        sys.exit(2)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX would take three quarters of the memory
    reason, lines = missing(), []
    with threadpool_limits(1):
        for line in (where(reason), "", *table(reason)):
            lines.append(line)
            print(line, flush=True)
    if options.write:
        PAGE.write_text(page("\n".join(lines)))


if __name__ == "__main__":
    main()
