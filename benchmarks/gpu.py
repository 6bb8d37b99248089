"""Training on a GPU: against the model on paper, the CPU's kernels, PyTorch and JAX, and bit for bit against the CPU.

    python benchmarks/gpu.py            print the table
    python benchmarks/gpu.py --write    and put it into benchmarks/gpu.md, with the tables of the model

Times are those of whole calls, copies to the device and back included. Sides take turns; a ratio is that of the two
in the same round, for a run and step. Without a GPU nothing is measured, and the page says so. Needs the extra
`cuda`.
"""

from harness import head, machine, parsed, row, seconds, sized  # isort: split

import concurrent.futures
import functools
import importlib.util
import itertools
import os
import re
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
from gpu_peak import multiply_adds
from threadpoolctl import threadpool_limits

from lrcore import cpu, cuda, layout
from lrcore.cpu import workspace
from lrcore.cuda._target import SIMULATED
from lrcore.objective import BatchRates, Entries
from lrcore.status import OK
from lrcore.tableau import RK4

PAGE = Path(__file__).parent / "gpu.md"
NOT_MEASURED = "not measured"
ROUNDS = sized(5, 1)
CHECKED_RUNS, CHECKED_STEPS = 40, 10  # of a comparison bit by bit
FEWER = {8: 20, 10: 10, 16: 50, 32: 200, 100: 100, 1000: 100}  # steps of the GPU for one of the others, by width


class Case(NamedTuple):
    """A row. job.steps: of a call on the GPU; own: of a call on the CPU and by peers."""

    name: str
    job: Job
    own: int
    sgd: bool = False


def _case(name, job, **kind):
    return Case(name, job, max(1, job.steps // FEWER[job.widths[0]]), **kind)


CASES = [_case(*case) for case in gpu_model.CASES.items()]
CASES.append(_case("10 000 runs, n = 10, SGD", Job((10,) * 4, 10_000), sgd=True))


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
    params = arrays[0]
    before = arrays[0].copy()
    ends = np.linspace(0, len(params), min(threads, len(params)) + 1).astype(int).tolist()
    calls = [functools.partial(call, slice(*part), allocate()) for part in itertools.pairwise(ends)]
    workers = concurrent.futures.ThreadPoolExecutor(len(calls))

    def run():
        params[:] = before
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
    lanes = layout.lanes(job.dtype)
    widths = layout.as_widths(job.widths)
    params, targets = _starts(job, lanes)
    rates = np.full((len(params), lanes), peers.LR, job.dtype)
    losses = np.empty((len(params), steps, lanes), job.dtype)
    statuses = np.empty(rates.shape, np.int64)
    tableau = (RK4.astype(job.dtype),) if job.stages else ()
    kernel = kernels.batch_rk_steps if job.stages else kernels.batch_gd_steps

    def call(part, space):
        kernel(params[part], widths, targets[part], rates[part], *tableau, losses[part], statuses[part], space)

    allocate = functools.partial(spaces.allocate_batch, widths, job.dtype, job.stages)
    return (params, losses, statuses), call, allocate


def _sgd_batch(kernels, spaces, job, steps):
    """The same of SGD on single entries, as benchmarks/sgd.py has it."""
    given = sgd.problem(sgd.CASES[0])
    lanes = layout.lanes(job.dtype)
    widths = layout.as_widths(job.widths)

    def everywhere(values, dtype=job.dtype):
        return layout.to_lanes(np.tile(np.asarray(values, dtype), (job.runs, 1)), lanes)

    params = everywhere(layout.flatten(given.layers)[0])
    rates = everywhere(given.lr)[:, 0]
    ridges = everywhere(given.ridge)[:, 0]
    factors = np.ones((2, steps))
    rows, columns = everywhere(given.entries.rows, np.int32), everywhere(given.entries.columns, np.int32)
    values = everywhere(given.entries.values)
    seeds = layout.to_lanes(np.arange(job.runs, dtype=np.uint64), lanes)
    losses = np.empty(rates.shape)
    statuses = np.full(rates.shape, OK)

    def call(part, space):
        entries = Entries(rows[part], columns[part], values[part], given.entries.weight)
        sampling = sgd.sampling()._replace(seed=seeds[part])
        own = BatchRates(rates[part], ridges[part], factors)
        kernels.batch_sgd_steps(params[part], widths, entries, own, sampling, losses[part], statuses[part], space)

    allocate = functools.partial(spaces.allocate_batch_sgd, widths, given.entries.rows.size)
    return (params, losses, statuses), call, allocate


# One network.


def alone(spaces, case, steps):
    """The Side of one network by gradient descent."""
    kernels, spaces = spaces
    layers, target = peers.problem(case.job.widths[0], case.job.dtype)
    start, widths = layout.flatten(layers, case.job.dtype)
    params = start.copy()
    losses = np.empty(steps, case.job.dtype)
    work = spaces.allocate(widths, case.job.dtype)

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


def with_torch(case):
    """PyTorch on the GPU."""
    import torch

    n = case.job.widths[0]
    steps = case.own
    runs = case.job.runs
    with torch.device("cuda"):
        action = peers.torch_batched(n, steps, runs) if runs > 1 else peers.with_torch(n, steps)

    def run():
        action()
        torch.cuda.synchronize()

    return Side(run, steps)


def with_jax(case):
    """JAX on the GPU."""
    n = case.job.widths[0]
    steps = case.own
    runs = case.job.runs
    return Side(peers.jax_batched(n, steps, runs) if runs > 1 else peers.with_jax(n, steps), steps)


OTHERS = {"torch.bmm or autograd": with_torch, "JAX": with_jax}


def installed():
    """Those of OTHERS that are here and see the GPU."""
    found = {}
    if importlib.util.find_spec("torch") is not None:
        found["torch.bmm or autograd"] = peers._torch().cuda.is_available()
    if importlib.util.find_spec("jax") is not None:
        found["JAX"] = peers._jax().default_backend() == "gpu"
    return [name for name, usable in found.items() if usable]


# The table.


def same_bits(case):
    """Whether a few runs and steps leave on the GPU what they leave on the CPU, bit by bit."""
    make = functools.partial(batch, runs=CHECKED_RUNS) if case.job.runs > 1 else alone
    sides = [make(spaces, case, CHECKED_STEPS) for spaces in ((cuda, cuda.workspace), (cpu, workspace))]
    for side in sides:
        side.action()
    return all(mine.tobytes() == its.tobytes() for mine, its in zip(*(side.written for side in sides), strict=True))


def measured(case, others=()):
    """{side: median seconds of a run and step}, {side: median ratio to lrbias in the same round}."""
    make = batch if case.job.runs > 1 else alone
    sides = {"lrbias": make((cuda, cuda.workspace), case, case.job.steps), "CPU": on_cpu(case)}
    if case.job.stages == 0 and not case.sgd and case.job.dtype is np.float64:  # what peers are written for
        sides |= {name: OTHERS[name](case) for name in others}
    for side in sides.values():
        side.action()  # compiles
    found = [{name: seconds(side.action) / side.steps for name, side in sides.items()} for _ in range(ROUNDS)]
    each = {name: statistics.median(one[name] for one in found) / case.job.runs for name in sides}
    return each, {name: statistics.median(one[name] / one["lrbias"] for one in found) for name in sides}


peak = functools.cache(multiply_adds)


def table(reason):
    """A row for each case; reason: why nothing can be measured, or None."""
    times = "µs a run and step: measured", "expected", "bound by", "% of FMA peak: measured", "expected"
    beside = "runs of 10 000 steps a second", "CPU, all cores ÷ GPU", *(f"{name} ÷ GPU" for name in OTHERS)
    yield from head("N = 3, GD and float64 where nothing is said", *times, *beside, "bits of the CPU")
    others = [] if reason else installed()
    for case in CASES:
        each, bound, share = _expected(case)
        if reason:
            yield row(case.name, NOT_MEASURED, each, bound, NOT_MEASURED, share, *[NOT_MEASURED] * 5)
            continue
        same = "the same" if same_bits(case) else "DIFFERENT"
        times, ratios = measured(case, others)
        rate = "–" if case.sgd else gpu_model.useful(case.job) / times["lrbias"] / peak(case.job.dtype)
        yield row(
            case.name,
            gpu_model.microseconds(times["lrbias"]),
            each,
            bound,
            rate if case.sgd else f"{100 * rate:.1f}",
            share,
            f"{1e-4 / times['lrbias']:.3g}",
            f"{ratios['CPU']:.1f}",
            *(f"{ratios[name]:.1f}" if name in ratios else "–" for name in OTHERS),
            same,
        )


def _expected(case):
    """(µs a run and step, what bounds it, % of the peak) of the model, which has no SGD."""
    if case.sgd:
        return "–", "–", "–"
    found = gpu_model.expected(case.job)
    share = gpu_model.share_of_peak(case.job, found.seconds)
    return gpu_model.microseconds(found.seconds / case.job.runs), found.bound, f"{100 * share:.1f}"


def where(reason):
    """What was measured on, in a line."""
    if reason:
        return f"Not measured: {reason}."
    rates = (2e-12 * peak(dtype) for dtype in (np.float64, np.float32))
    peaks = "FMA peak measured: {:.1f} TFLOP/s in float64, {:.1f} in float32".format(*rates)
    return f"{cuda.device_properties().name}; {peaks}; {machine()}"


def put(page, name, lines):
    """The page with these lines between its mark of that name and the next mark."""
    between = rf"(<!-- {name} -->\n).*?(\n<!-- end -->)"
    return re.sub(between, lambda mark: "\n".join([mark[1], *lines, mark[2]]), page, flags=re.S)


def main():
    options = parsed()
    if SIMULATED:
        print("The simulator measures nothing: NUMBA_ENABLE_CUDASIM must not be 1.", file=sys.stderr)
        sys.exit(2)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX would take three quarters of the memory
    reason = cuda.missing()
    lines = []
    with threadpool_limits(1):
        for line in (where(reason), "", *table(reason)):
            lines.append(line)
            print(line, flush=True)
    if options.write:
        page = put(PAGE.read_text(), "measured", lines)
        for made in gpu_model.TABLES:
            page = put(page, made.__name__, made())
        PAGE.write_text(page)


if __name__ == "__main__":
    main()
