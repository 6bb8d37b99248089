"""What an H100 should do with the kernels of `lrcore.cuda`: a model on paper, made to be refuted by `gpu.py`.

    python benchmarks/gpu_model.py    print its tables

The steps of `lrcore.cuda` are made by an executor that only writes down the passes of a step. Of each pass is counted
what a block of threads asks of a multiprocessor, and the cycles of the longest chain in which one thing waits for
another. The blocks of a multiprocessor take as long as the unit that is asked most, or as one chain, whichever is
longer: everything else is taken to happen meanwhile, so a step takes this long at least.
"""

import math
import operator
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from harness import head, row

from lrcore import layout
from lrcore.cuda import executors, gemm, workspace
from lrcore.cuda._target import KERNELS, Integers, Numbers, leaves
from lrcore.cuda.chain import Network, chain
from lrcore.cuda.offsets import offsets_of
from lrcore.cuda.steps import make_steps
from lrcore.tableau import RK4

WARP, BANKS, SCHEDULERS = 32, 32, 4  # threads; words of 4 bytes that shared memory serves at once; per multiprocessor
ARGUMENTS = {kernel.name: [leaf for kind in kernel.kinds for leaf in leaves(kind)] for kernel in KERNELS}
REGISTERS = {  # of a thread, float64 and float32: `make cuda-check`
    "gd_on_chip": (72, 72),
    "rk_on_chip": (127, 128),
    "gd_in_memory": (168, 129),
    "rk_in_memory": (168, 168),
    "narrow_product": (96, 96),
    "wide_product": (80, 64),
}
PASSING = (32, 32)  # of kernels that only pass over vectors


class Model(NamedTuple):
    """What is known, assumed and counted. Latencies are cycles; rates are bytes a second."""

    # H100 SXM, NVIDIA's data sheet and tuning guide: of the device, then of each multiprocessor
    multiprocessors: int = 132
    cache: float = 50e6
    memory_rate: float = 3.35e12
    registers: int = 65536
    threads: int = 2048
    blocks: int = 32
    shared: int = 228 << 10
    reserved: int = 1 << 10  # of shared memory, for each block

    # measured by others on this GPU or on a GH200 (CUDA Performance Study; markdewing/AI_kernels: L2 260 and 281)
    shared_latency: float = 29
    cache_latency: float = 270
    launch: float = 6.6  # µs from Python: NVIDIA/numba-cuda, pull request 288
    launch_array: float = 3.8  # µs for each array that it is given

    # assumed
    clock: float = 1.755e9  # what load leaves of 1.98 GHz
    alone: float = 2  # cycles of an instruction in a warp that waits for its own results
    fma_latency: float = 8
    barrier: float = 25
    cache_rate: float = 5.5e12
    copy_rate: float = 10e9  # from and to arrays of NumPy, which are not pinned
    launch_number: float = 0.3  # µs for each number that a launch is given
    gap: float = 1.5  # µs between two kernels of which the second one waits

    # instructions of a warp in machine code for compute capability 9.0 (`gpu_code.py`); the first three are counted
    # along the path that a product of 8 × 8 on chip takes, and are similar elsewhere
    begin: float = 100  # a pass: where it lies
    tile: float = 150  # what a thread makes of a product: where that lies, by two divisions
    output: float = 27  # a sum brought to its place
    single: float = 6  # a step of k in a direct product: 1 FMA
    double: float = 13.5  # … 4 FMAs
    tiled: float = 27  # … in a tiled one: 16 FMAs
    staged: float = 19.5  # a number brought to shared memory
    element: float = 23  # of a pass over a vector
    unrolled: int = 4  # steps of k whose loads are under way together
    arrivals: int = 2  # times that the staging of DEPTH steps of k waits for L2; 1 to 4 in the code

    # the kernels' own
    chip_threads: int = executors.CHIP_THREADS
    pad: int = 0  # numbers at the end of each line on chip
    thread_registers: Mapping = MappingProxyType(REGISTERS)

    def registers_of(self, kernel, size):
        """Of a thread, for numbers of `size` bytes."""
        return self.thread_registers.get(kernel, PASSING)[size == 4]


H100 = Model()


class Job(NamedTuple):
    """Networks of `widths`, trained side by side; stages: 0 for gradient descent; steps: of one call."""

    widths: tuple
    runs: int = 1
    dtype: type = np.float64
    stages: int = 0
    steps: int = 1000

    @property
    def bytes(self):
        return np.dtype(self.dtype).itemsize

    @property
    def offsets(self):
        return offsets_of(layout.as_widths(self.widths), self.stages)


# What a step consists of.


class Product(NamedTuple):
    """c (m, n) with inner size `count`, in one of the three forms, ended in one of the four ways."""

    form: int
    mode: int
    m: int
    n: int
    count: int

    @property
    def moved(self):
        """Numbers that are read or written where the results go."""
        return self.m * self.n * (1 if self.mode in (gemm.STORE, gemm.NEGATE) else 2)


class Vector(NamedTuple):
    """A pass by a kernel's name: `across` elements by different threads, each of them `along` numbers."""

    kernel: str
    across: int
    along: int


def passes(job):
    """The passes of a step."""
    made = []

    def unchanged(function):
        return function

    def matmul(memory, state, product, epilogue):
        made.append(Product(product.form, epilogue.mode, int(product.m), int(product.n), int(product.count)))

    def combine(memory, state, kind, count, *where):
        made.append(Vector("combine", int(count), 1))

    def column_squares(memory, state, rows, columns, *where):
        made.append(Vector("column_squares", int(columns), int(rows)))

    def target_loss(memory, state, sums, *where):
        made.append(Vector("target_loss", 1, int(sums.size)))

    nothing = dict.fromkeys(executors.Executor._fields)
    own = {"jit": unchanged, "mul_rn": operator.mul, "stopped": lambda state: False, "combine": combine}
    own |= {"column_squares": column_squares, "target_loss": target_loss}
    steps = make_steps(executors.Executor(**nothing | own | chain(unchanged, matmul, combine)._asdict()))
    net = Network(np.zeros(1), None, layout.as_widths(job.widths), job.offsets)
    if job.stages:
        steps.rk(net, 0.1, RK4.a.reshape(-1), RK4.b, None, 0, 1, 1)
    else:
        steps.gd(net, 0.1, None, 0, 1, 1)
    return made


def useful(job):
    """Multiply-adds of the products of a step."""
    return sum(one.m * one.n * one.count for one in passes(job) if isinstance(one, Product))


# What a pass asks of a multiprocessor.


class Work(NamedTuple):
    """Of a block: instructions and multiply-adds of warps, wavefronts, bytes of L2; cycles of its chain."""

    instructions: float = 0
    fmas: float = 0
    shared: float = 0
    bytes: float = 0
    chain: float = 0

    def __add__(self, other):
        return Work(*(mine + its for mine, its in zip(self, other, strict=True)))

    def times(self, count):
        return Work(*(count * part for part in self))


def wavefronts(places, size):
    """Passes through shared memory for one access of a warp: `places` in numbers of `size` bytes, thread by thread.

    A wavefront reads each bank once. So 32 numbers of 8 bytes take two, a half of the warp each, unless neighbours
    (or next neighbours) read the same: forums.developer.nvidia.com, t/77228.
    """
    words = size // 4
    pairs = any(
        all(places[t] == places[t ^ other] for t in range(len(places)) if t ^ other < len(places)) for other in (1, 2)
    )
    parts = [places] if words == 1 or pairs else [places[: WARP // 2], places[WARP // 2 :]]
    found = 0
    for part in filter(None, parts):
        wanted = {place * words + word for place in part for word in range(words)}
        found += max(Counter(word % BANKS for word in wanted).values())
    return found


def direct(one, size, model):
    """The Work of a product straight from shared memory; which banks are read is the same for every k."""
    threads = model.chip_threads
    side = 1 if one.m * one.n <= model.chip_threads else 2
    across = math.ceil(one.n / side)
    tiles = math.ceil(one.m / side) * across
    warps = math.ceil(tiles / WARP)
    loads = 0
    left = 1 if one.form == gemm.TN else one.count + model.pad
    right = one.count + model.pad if one.form == gemm.NT else 1
    for first in range(0, tiles, WARP):
        corners = [divmod(tile, across) for tile in range(first, min(first + WARP, tiles))]
        for p in range(side):
            loads += wavefronts([min(i * side + p, one.m - 1) * left for i, _ in corners], size)
            loads += wavefronts([min(j * side + p, one.n - 1) * right for _, j in corners], size)
    turn = model.single if side == 1 else model.double
    ends = model.tile + side**2 * model.output
    waited = model.fma_latency + model.shared_latency / model.unrolled
    rounds = math.ceil(tiles / threads)
    return Work(
        threads // WARP * model.begin + warps * (ends + one.count * turn),
        warps * one.count * side**2,
        one.count * loads + one.moved / WARP * size / 4,
        0,
        rounds * (ends * model.alone + one.count * (turn * model.alone + waited)),
    ) + _between(model)


def tiles_of(one, q):
    """Tiles of a product for blocks of q × q threads."""
    side = gemm.TILE * q
    return math.ceil(one.m / side) * math.ceil(one.n / side)


def tiled(one, size, model, q):
    """The Work of one tile of a product by q × q threads; bytes: its share of what all tiles read and write."""
    side = gemm.TILE * q
    warps = q * q // WARP
    outputs = gemm.TILE**2
    chunks = math.ceil(one.count / gemm.DEPTH)
    each = 2 * gemm.DEPTH * gemm.TILE // q
    loads = sum(wavefronts([t // q + i * q for t in range(WARP)], size) for i in range(gemm.TILE))
    loads += sum(wavefronts([t % q + i * q for t in range(WARP)], size) for i in range(gemm.TILE))
    along = (one.form != gemm.TN) + (one.form == gemm.NT)  # factors that are turned on their way
    stores = along * wavefronts([t % gemm.DEPTH * (side + 1) + t // gemm.DEPTH for t in range(WARP)], size)
    stores += (2 - along) * wavefronts(list(range(WARP)), size)
    staging = each * model.staged * model.alone + model.arrivals * model.cache_latency + 2 * model.barrier
    turn = model.fma_latency + model.tiled * model.alone + model.shared_latency / model.unrolled
    ends = model.tile + outputs * model.output
    read = (math.ceil(one.n / side) * one.m + math.ceil(one.m / side) * one.n) * one.count
    return Work(
        warps * (ends + chunks * each * model.staged + one.count * model.tiled),
        warps * one.count * outputs,
        warps * (chunks * each / 2 * stores + one.count * loads),
        (read + one.moved) * size / tiles_of(one, q),
        ends * model.alone + chunks * staging + one.count * turn,
    )


def vector(one, size, model, threads, on_chip):
    """The Work of a pass over a vector by one block."""
    numbers = 3 if one.kernel == "combine" else 1
    warps = math.ceil(one.across / WARP)
    latency = (model.shared_latency if on_chip else model.cache_latency) / min(one.along, model.unrolled)
    return Work(
        threads // WARP * model.begin + warps * one.along * model.element,
        warps * one.along,
        warps * one.along * numbers * size / 4 * on_chip,
        one.across * one.along * numbers * size * (not on_chip),
        math.ceil(one.across / threads) * one.along * (model.fma_latency + model.element * model.alone + latency),
    ) + _between(model)


def _between(model):
    """What every pass waits for."""
    return Work(chain=model.begin * model.alone + model.barrier)


def occupancy(model, threads, registers, shared):
    """Blocks that a multiprocessor holds. registers: of a thread; shared: bytes of a block."""
    warps = threads // WARP
    by_registers = model.registers // SCHEDULERS // (math.ceil(registers / 8) * 8 * WARP) * SCHEDULERS // warps
    by_shared = model.shared // (math.ceil(shared / 128) * 128 + model.reserved)
    return min(model.blocks, model.threads // threads, by_registers, by_shared)


def bounds(model, work, blocks, size, missing=0.0):
    """{what: seconds} of so many blocks on one multiprocessor; missing: the share that L2 does not hold."""
    cycles = {
        "instructions": blocks * work.instructions / SCHEDULERS,
        "FMA units": blocks * work.fmas * WARP * size / 512,  # 64 of them for float64, 128 for float32
        "shared memory": blocks * work.shared,
        "waiting": work.chain,
    }
    moved = blocks * work.bytes * model.multiprocessors
    found = {what: count / model.clock for what, count in cycles.items()}
    return found | {"L2": moved / model.cache_rate, "HBM": moved * missing / model.memory_rate}


# What is expected.


class Expectation(NamedTuple):
    """What a step of all runs takes.

    form      where a run lies
    resident  blocks of a multiprocessor
    seconds   of the step
    bounds    {what: seconds, if it alone counted}
    """

    form: str
    resident: int
    seconds: float
    bounds: dict

    @property
    def bound(self):
        return max(self.bounds, key=self.bounds.get)


def in_blocks(job, model=H100):
    """The Expectation where each run has a block: of batches, and of one network that is not spread."""
    size = job.bytes
    chip = workspace.chip_size(job.offsets)
    threads = model.chip_threads if chip else gemm.NARROW**2
    lines = 2 * gemm.DEPTH * (gemm.TILE * gemm.NARROW + 1)
    kernel = f"{'rk' if job.stages else 'gd'}_{'on_chip' if chip else 'in_memory'}"
    resident = occupancy(model, threads, model.registers_of(kernel, size), 8 + (chip or lines) * size)
    work = sum((_by_block(one, size, model, threads, chip) for one in passes(job)), Work())
    there = 0 if chip else min(job.runs, model.multiprocessors * resident) * job.offsets.size * size
    missing = max(0.0, 1 - model.cache / there) if there else 0.0
    full, rest = divmod(job.runs, model.multiprocessors * resident)
    found = Counter()
    slowest = 0.0
    for blocks, times in ((resident, full), (math.ceil(rest / model.multiprocessors), bool(rest))):
        parts = bounds(model, work, blocks, size, missing)
        slowest += times * max(parts.values())
        found.update({what: times * seconds for what, seconds in parts.items()})
    found["copies"] = copied(job) / model.copy_rate / job.steps
    return Expectation("on chip" if chip else "in memory", resident, slowest + found["copies"], dict(found))


def _by_block(one, size, model, threads, chip):
    if isinstance(one, Vector):
        return vector(one, size, model, threads, chip > 0)
    if chip:
        return direct(one, size, model)
    whole = tiled(one, size, model, gemm.NARROW).times(tiles_of(one, gemm.NARROW))
    return whole + Work(threads // WARP * model.begin) + _between(model)


def copied(job):
    """Bytes that a call copies: parameters both ways, targets there, losses back."""
    targets = job.widths[0] * job.widths[-1]
    return job.runs * job.bytes * (2 * layout.size(job.widths) + targets + job.steps)


def spread(job, model=H100):
    """The Expectation of one network, a launch for each pass; the host launches while the device works."""
    size = job.bytes
    found = Counter()
    device = 0.0
    host = 0.0
    for one in passes(job):
        kernel, blocks, threads, work = _launch(one, size, model)
        lines = 2 * gemm.DEPTH * (gemm.TILE * math.isqrt(threads) + 1) * size * isinstance(one, Product)
        most = occupancy(model, threads, model.registers_of(kernel, size), lines)
        here = math.ceil(blocks / model.multiprocessors)
        parts = bounds(model, work, here, size)
        parts["waiting"] *= math.ceil(here / most)
        device += max(parts.values()) + model.gap * 1e-6
        found.update(parts)
        arrays = sum(kind in (Numbers, Integers) for kind in ARGUMENTS[kernel])
        numbers = len(ARGUMENTS[kernel]) - arrays
        host += 1e-6 * (model.launch + model.launch_array * arrays + model.launch_number * numbers)
    found.update({"launches": host, "copies": copied(job) / model.copy_rate / job.steps})
    return Expectation("on the grid", 0, max(device, host) + found["copies"], dict(found))


def _launch(one, size, model):
    """(kernel, blocks, threads, Work of each block) of a pass."""
    if isinstance(one, Product):
        kernel, q = ("wide", gemm.WIDE) if min(one.m, one.n) >= gemm.WIDE_FROM else ("narrow", gemm.NARROW)
        work = tiled(one, size, model, q) + Work(q * q // WARP * model.begin) + _between(model)
        return f"{kernel}_product", tiles_of(one, q), q * q, work
    threads = executors.PASS_THREADS
    blocks = min(executors.MOST_BLOCKS, math.ceil(one.across / threads))
    share = one._replace(across=math.ceil(one.across / blocks))
    return one.kernel, blocks, threads, vector(share, size, model, threads, False)


def expected(job, model=H100):
    """The Expectation of a job, in the form that lrcore.cuda gives it."""
    alone = job.runs == 1 and not workspace.chip_size(job.offsets) and max(job.widths) > workspace.WIDEST
    return (spread if alone else in_blocks)(job, model)


def share_of_peak(job, seconds, model=H100):
    """The multiply-adds of the products over what the device could have made."""
    return job.runs * useful(job) / (seconds * model.multiprocessors * 512 / job.bytes * model.clock)


# Tables.

EIGHT, SIXTEEN, MIDDLE, HUNDRED, THOUSAND = ((n,) * 4 for n in (8, 16, 32, 100, 1000))
CASES = {
    "one run, n = 100": Job(HUNDRED),
    "10 000 runs, n = 8": Job(EIGHT, 10_000),
    "10 000 runs, n = 8, float32": Job(EIGHT, 10_000, np.float32),
    "10 000 runs, n = 8, RK4": Job(EIGHT, 10_000, stages=4, steps=250),
    "10 000 runs, n = 16": Job(SIXTEEN, 10_000),
    "4000 runs, n = 32": Job(MIDDLE, 4000),
    "4000 runs, n = 32, float32": Job(MIDDLE, 4000, np.float32),
    "1000 runs, n = 100": Job(HUNDRED, 1000, steps=200),
    "1000 runs, n = 100, float32": Job(HUNDRED, 1000, np.float32, steps=200),
    "one run, n = 1000": Job(THOUSAND, steps=100),
}


def microseconds(seconds):
    """Three figures."""
    return f"{seconds * 1e6:.3g}" if seconds < 1e-3 else f"{seconds * 1e6:.0f}"


def bounds_table(model=H100):
    """What each case would take if one unit alone counted."""
    names = ("instructions", "FMA units", "shared memory", "L2", "HBM", "waiting", "copies", "launches")
    yield from head("µs a step of all runs", "form", "blocks at once", "expected", *names)
    for name, job in CASES.items():
        found = expected(job, model)
        cells = (microseconds(found.bounds[what]) if found.bounds.get(what) else "–" for what in names)
        yield row(name, found.form, str(found.resident or "–"), microseconds(found.seconds), *cells)


def otherwise(model=H100):
    """{what is otherwise: (Model, changes of the Job)}: assumptions first, then calls, then what kernels could do."""
    around = "begin", "tile", "output"
    eight = {"gd_in_memory": (128, 128), "rk_in_memory": (128, 128)}
    models = {
        "1 cycle an instruction of a warp alone": {"alone": 1},
        "4 cycles": {"alone": 4},
        "latencies twice as long": {"fma_latency": 16, "shared_latency": 58, "cache_latency": 540},
        "L2 at 3.6 TB/s": {"cache_rate": 3.6e12},
        "instructions around loops: twice": {name: 2 * getattr(model, name) for name in around},
        "calls of 10 steps": {},
        "half the instructions around loops": {name: getattr(model, name) / 2 for name in around},
        "32 threads a run on chip": {"chip_threads": 32},
        "lines on chip one number longer": {"pad": 1},
        "128 registers in memory": {"thread_registers": model.thread_registers | eight},
        "one launch a call, 2 µs between passes": {"launch": 0, "launch_array": 0, "launch_number": 0, "gap": 2},
        "copies at 50 GB/s, pinned": {"copy_rate": 50e9},
    }
    shorter = {"calls of 10 steps": {"steps": 10}}
    return {what: (model._replace(**changes), shorter.get(what, {})) for what, changes in models.items()}


def otherwise_table(model=H100):
    """How much longer a step takes when one thing is otherwise."""
    shown = [name for name, job in CASES.items() if job.dtype is np.float64 and not job.stages]
    yield from head("time of a step ÷ expected", *shown)
    before = {name: expected(CASES[name], model).seconds for name in shown}
    for what, (changed, call) in otherwise(model).items():
        after = {name: expected(CASES[name]._replace(**call), changed).seconds for name in shown}
        yield row(what, *(f"{after[name] / before[name]:.2f}" for name in shown))


TABLES = bounds_table, otherwise_table


def main():
    print("\n\n".join("\n".join(table()) for table in TABLES))


if __name__ == "__main__":
    main()
