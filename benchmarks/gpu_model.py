"""What an H100 should do with the kernels of `lrcore.cuda`: a model on paper, made to be refuted by `gpu.py`.

    python benchmarks/gpu_model.py    print its tables

A step is a list of passes, those of lrcore/cuda/chain.py and programs.py. Each is counted for one block of threads:
instructions of its warps, fused multiply-adds, wavefronts of shared memory, bytes from the second-level cache, and
the cycles of its longest chain. Barriers stand between passes, so the counts of a step add up; the blocks of one
multiprocessor take as long as the busiest of its units, or as the chain of one of them.
"""

import math
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from table import head, row

from lrcore import layout
from lrcore.tableau import RK4

README = Path(__file__).parent / "README.md"
WARP, BANKS, SCHEDULERS = 32, 32, 4  # threads; words of 4 bytes that shared memory serves at once; per multiprocessor
AB, AT_B, A_BT = 0, 1, 2
STORE, UPDATE, RESIDUAL, NEGATE = 0, 1, 2, 3


class GPU(NamedTuple):
    """A device. Latencies are cycles, rates bytes a second.

    lanes    multiply-adds a cycle of one multiprocessor, by bytes of a number; fma_latency alike
    shared   bytes of shared memory of one multiprocessor; each block takes `reserved` beside its own
    alone    cycles that an instruction takes in a warp that no other one replaces
    launch   µs of a launch from Python: to begin with, for each array, for each number
    gap      µs that a kernel costs on the device when it waits for the one before it
    """

    name: str
    sms: int
    clock: float
    lanes: dict
    shared: int
    reserved: int
    registers: int
    threads: int
    blocks: int
    cache: int
    cache_rate: float
    memory_rate: float
    fma_latency: dict
    shared_latency: int
    cache_latency: int
    barrier: int
    alone: float
    copy_rate: float
    launch: tuple
    gap: float


# Sizes and the rate of HBM: NVIDIA's data sheet of the H100 SXM and its tuning guide for Hopper. The clock is what
# load leaves of 1.98 GHz, assumed: shares of the peak do not depend on it. Latencies of shared memory and of L2 have
# been measured on this GPU ("CUDA Performance Study, NVIDIA H100 SXM5": 28.6 and 259.9; markdewing/AI_kernels: 281 on
# a GH200). A launch and an array of it: NVIDIA/numba-cuda, pull request 288. The rest is assumed: the latencies of
# multiply-adds and barriers, `alone`, `gap`, a number of a launch, the rate of L2 (copies reach 3.6e12 in that study)
# and that of copies from pageable memory over PCIe 5 (50e9 would be that of pinned memory).
H100 = GPU(
    name="H100 SXM",
    sms=132,
    clock=1.755e9,
    lanes={8: 64, 4: 128},
    shared=228 << 10,
    reserved=1 << 10,
    registers=65536,
    threads=2048,
    blocks=32,
    cache=50_000_000,
    cache_rate=5.5e12,
    memory_rate=3.35e12,
    fma_latency={8: 8, 4: 4},
    shared_latency=29,
    cache_latency=260,
    barrier=25,
    alone=2,
    copy_rate=10e9,
    launch=(6.6, 3.8, 0.3),
    gap=1.5,
)

PLAIN_LAUNCH = 5.0  # µs of a launch that is prepared outside Python


class Design(NamedTuple):
    """The choices of lrcore/cuda that are counted on; tests hold them to it."""

    tile: int = 4
    narrow: int = 8
    wide: int = 16
    in_memory: int = 8  # the same for a network that one block trains in the device's memory
    depth: int = 16
    wide_from: int = 1024
    chip_sizes: tuple = (640, 1536, 3072, 6000)
    widest: int = 64
    chip_threads: int = 64
    pass_threads: int = 256
    most_blocks: int = 2048


DESIGN = Design()


class Code(NamedTuple):
    """Instructions of a warp for one turn of a loop, float64 and float32 alike, and registers by (kernel, bytes).

    Counted by `gpu_code.py`, which says again what to write here after a kernel has changed.
    """

    single: float  # a step of k in a direct product, a thread making 1 × 1
    double: float  # 2 × 2
    tiled: float  # 4 × 4
    staged: float  # a number brought to shared memory
    output: float  # a finished sum brought to its place (read off, not counted)
    begin: float  # where a tile of a direct product lies: two divisions (read off)
    element: float  # of a vector
    row: float  # of a column of squares
    column: float  # of the loss
    unrolled: dict  # steps of k that load together: {1: …, 2: …, 4: …}
    registers: dict


CODE = Code(
    single=32,
    double=53.5,
    tiled=57,
    staged=53,
    output=50,
    begin=100,
    element=25,
    row=23,
    column=22,
    unrolled={1: 4, 2: 2, 4: 1},
    registers={
        ("gd_on_chip", 8): 125,
        ("gd_on_chip", 4): 128,
        ("rk_on_chip", 8): 149,
        ("rk_on_chip", 4): 144,
        ("gd_in_memory", 8): 246,
        ("gd_in_memory", 4): 229,
        ("rk_in_memory", 8): 254,
        ("rk_in_memory", 4): 241,
        ("narrow_product", 8): 166,
        ("narrow_product", 4): 128,
        ("wide_product", 8): 164,
        ("wide_product", 4): 128,
    },
)


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
    def numbers(self):
        """What a run has in memory: `lrcore.cuda.places`."""
        inputs, inner, outputs = self.widths[0], self.widths[1:-1], self.widths[-1]
        parameters = layout.size(self.widths)
        scratch = inputs * (2 * outputs + sum(inner[1:]) + 2 * max(inner, default=0)) + max(inputs, *inner, 0)
        return parameters + scratch + (self.stages + 1) * parameters * (self.stages > 0)


# What a step consists of.


class Product(NamedTuple):
    """c (m, n) with inner size `count`, in one of the three forms, ended in one of the four ways."""

    form: int
    mode: int
    m: int
    n: int
    count: int


class Combine(NamedTuple):
    """A pass over a vector."""

    count: int


class Square(NamedTuple):
    """Sums of squares of columns."""

    rows: int
    columns: int


class Settle(NamedTuple):
    """The loss from these, by one thread."""

    columns: int


def gradient(widths, ending, with_loss):
    """The passes of a gradient: the walk of lrcore/cuda/chain.py."""
    depth, inputs = len(widths) - 1, widths[0]
    if depth == 1:
        yield Combine(layout.size(widths))
    for i in range(2, depth + 1):
        yield Product(AB, RESIDUAL if i == depth else STORE, widths[i], inputs, widths[i - 1])
    if with_loss:
        yield Square(widths[-1], inputs)
        yield Settle(inputs)
    for i in range(depth, 1, -1):
        yield Product(AT_B, STORE, widths[i - 1], inputs, widths[i])
        yield Product(A_BT, ending, widths[i], widths[i - 1], inputs)
    yield Combine(widths[1] * inputs)


def step(job, a=RK4.a):
    """The passes of a step. a: the tableau, where the job has stages."""
    if job.stages == 0:
        yield from gradient(job.widths, UPDATE, True)
        return
    vector = Combine(layout.size(job.widths))
    for s in range(job.stages):
        if s > 0:
            yield from [vector] * max(1, np.count_nonzero(a[s, :s]))
        yield from gradient(job.widths, NEGATE, s == 0)
    yield from [vector] * job.stages


def useful(job):
    """Multiply-adds of the products of a step, in which nothing is wasted."""
    return sum(p.m * p.n * p.count for p in step(job) if isinstance(p, Product))


def made(one, design):
    """Multiply-adds that the threads of a direct product, or a pass, make: those beyond the edges, too."""
    if isinstance(one, Product):
        size = direct_size(one, design)
        return math.ceil(one.m / size) * math.ceil(one.n / size) * size**2 * one.count
    return {Combine: lambda: one.count, Square: lambda: one.rows * one.columns, Settle: lambda: 0}[type(one)]()


# What a pass costs.


class Work(NamedTuple):
    """Of a block: instructions and multiply-adds of warps, wavefronts, bytes from the cache; cycles of its chain."""

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

    A wavefront returns 128 bytes and reads each bank once. So 32 numbers of 8 bytes take two, a half of the warp
    each, unless neighbours (or next neighbours) read the same: forums.developer.nvidia.com, t/77228.
    """
    words = size // 4
    pairs = any(
        all(places[t] == places[t ^ other] for t in range(len(places)) if t ^ other < len(places)) for other in (1, 2)
    )
    parts = [places] if words == 1 or pairs else [places[: WARP // 2], places[WARP // 2 :]]
    return sum(_fullest_bank(part, words) for part in parts if part)


def _fullest_bank(places, words):
    """How many different words the fullest bank has to give."""
    wanted = {place * words + word for place in places for word in range(words)}
    return max(Counter(word % BANKS for word in wanted).values())


def steps_between(product):
    """How far apart, in memory, are rows and k of the left factor, columns and k of the right one."""
    row, k, column, k_right = product.count, 1, 1, product.n
    if product.form == AT_B:
        row, k = 1, product.m
    elif product.form == A_BT:
        column, k_right = product.count, 1
    return row, k, column, k_right


def direct_size(product, design):
    """Rows and columns that a thread of a direct product makes."""
    return 1 if product.m * product.n <= design.chip_threads else 2


def direct(product, gpu, code, design, size):
    """The Work of a product straight from shared memory."""
    side, threads = direct_size(product, design), design.chip_threads
    across = math.ceil(product.n / side)
    tiles, count = math.ceil(product.m / side) * across, product.count
    row_step, _, column_step, _ = steps_between(product)
    warps, loads = math.ceil(tiles / WARP), 0
    for first in range(0, tiles, WARP):
        mine = [divmod(tile, across) for tile in range(first, min(first + WARP, tiles))]
        for p in range(side):
            loads += wavefronts([min(i * side + p, product.m - 1) * row_step for i, _ in mine], size)
            loads += wavefronts([min(j * side + p, product.n - 1) * column_step for _, j in mine], size)
    turn, ends = code.single if side == 1 else code.double, code.begin + side**2 * code.output
    outputs = warps * side**2 * size // 4 * (1 if product.mode in (STORE, NEGATE) else 2)
    waited = gpu.fma_latency[size] + gpu.shared_latency / code.unrolled[side]
    chain = count * (turn * gpu.alone + waited) + ends * gpu.alone
    return Work(
        warps * (count * turn + ends),
        warps * count * side**2,
        count * loads + outputs,
        0,
        math.ceil(tiles / threads) * chain + gpu.barrier,
    )


def tiles_of(product, side):
    """Tiles of side × side that cover a product."""
    return math.ceil(product.m / side) * math.ceil(product.n / side)


def tiled(product, gpu, code, design, size, q):
    """The Work of one tile of a product, made by q × q threads; bytes: its share of what all tiles read and write."""
    side, warps, tile = design.tile * q, q * q // WARP, design.tile
    chunks, each = math.ceil(product.count / design.depth), design.depth * side // (q * q)
    _, k_step, _, k_right = steps_between(product)
    stores = [wavefronts(_staged_places(step == 1, side, design.depth), size) for step in (k_step, k_right)]
    warp = range(WARP)
    loads = sum(wavefronts([t // q + i * q for t in warp], size) for i in range(tile))
    loads += sum(wavefronts([t % q + i * q for t in warp], size) for i in range(tile))
    staging = 2 * (each / 4) * (gpu.cache_latency + 4 * code.staged * gpu.alone) + 2 * gpu.barrier
    turn = gpu.fma_latency[size] + code.tiled * gpu.alone + gpu.shared_latency / code.unrolled[tile]
    across, down = math.ceil(product.n / side), math.ceil(product.m / side)
    moved = (across * product.m + down * product.n) * product.count
    moved += product.m * product.n * (1 if product.mode in (STORE, NEGATE) else 2)
    return Work(
        warps * (chunks * 2 * each * code.staged + product.count * code.tiled + tile**2 * code.output),
        warps * product.count * tile**2,
        warps * (chunks * each * sum(stores) + product.count * loads),
        moved * size / (across * down),
        chunks * staging + product.count * turn + tile**2 * code.output * gpu.alone,
    )


def _staged_places(along_k, side, depth):
    """Where a warp puts what it brings to shared memory."""
    line = side + 1
    return [t % depth * line + t // depth if along_k else t // side * line + t % side for t in range(WARP)]


def vector_pass(one, gpu, code, size, threads, on_chip):
    """The Work of a pass over a vector, over columns, or of the loss."""
    latency = gpu.shared_latency if on_chip else gpu.cache_latency
    count, depth, turn, numbers = {
        Combine: lambda: (one.count, 1, code.element, 3),
        Square: lambda: (one.columns, one.rows, code.row, 1),
        Settle: lambda: (1, one.columns, code.column, 1),
    }[type(one)]()
    warps, unrolled = math.ceil(count / WARP), min(depth, 4)
    chain = depth * (gpu.fma_latency[size] + turn * gpu.alone + latency / unrolled)
    return Work(
        warps * depth * turn,
        warps * depth,
        warps * depth * numbers * size / 4 * on_chip,
        count * depth * numbers * size * (not on_chip),
        math.ceil(count / threads) * chain + gpu.barrier,
    )


def in_block(one, gpu, code, design, size, on_chip):
    """The Work of a pass in a block that makes whole steps."""
    q = design.in_memory
    if not isinstance(one, Product):
        return vector_pass(one, gpu, code, size, design.chip_threads if on_chip else q * q, on_chip)
    if on_chip:
        return direct(one, gpu, code, design, size)
    return tiled(one, gpu, code, design, size, q).times(tiles_of(one, design.tile * q)) + Work(chain=gpu.barrier)


def occupancy(gpu, threads, registers, shared):
    """Blocks that one multiprocessor holds. registers: of a thread; shared: bytes of a block."""
    warps = threads // WARP
    by_registers = gpu.registers // SCHEDULERS // (math.ceil(registers / 8) * 8 * WARP) * SCHEDULERS // warps
    by_shared = gpu.shared // (math.ceil(shared / 128) * 128 + gpu.reserved)
    return min(gpu.blocks, gpu.threads // threads, by_registers, by_shared)


def bounds(gpu, work, blocks, size, missing=0.0):
    """{what: cycles} of so many blocks on one multiprocessor; missing: the share that the cache does not hold."""
    share = gpu.sms * gpu.clock
    return {
        "instructions": blocks * work.instructions / SCHEDULERS,
        "FMA units": blocks * work.fmas * WARP / gpu.lanes[size],
        "shared memory": blocks * work.shared,
        "L2": blocks * work.bytes * share / gpu.cache_rate,
        "HBM": blocks * work.bytes * missing * share / gpu.memory_rate,
        "latency": work.chain,
    }


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


def chip_size(job, design):
    """Numbers of the shared memory that holds a run, 0 for none."""
    return next((size for size in design.chip_sizes if size >= job.numbers), 0)


def in_blocks(job, gpu=H100, code=CODE, design=DESIGN):
    """The Expectation where each run has a block: of batches, and of one network that is not spread."""
    size, chip = job.bytes, chip_size(job, design)
    threads = design.chip_threads if chip else design.in_memory**2
    lines = 2 * design.depth * (design.tile * design.in_memory + 1)
    kernel = f"{'rk' if job.stages else 'gd'}_{'on_chip' if chip else 'in_memory'}"
    resident = occupancy(gpu, threads, code.registers[kernel, size], 8 + (chip or lines) * size)
    work = sum((in_block(one, gpu, code, design, size, chip > 0) for one in step(job)), Work())
    there = 0 if chip else min(job.runs, gpu.sms * resident) * job.numbers * size
    missing = max(0.0, 1 - gpu.cache / there) if there else 0.0
    full, rest = divmod(job.runs, gpu.sms * resident)
    found = Counter()
    slowest = 0.0
    for blocks, times in ((resident, full), (math.ceil(rest / gpu.sms), bool(rest))):
        parts = bounds(gpu, work, blocks, size, missing)
        slowest += times * max(parts.values()) / gpu.clock
        found.update({what: times * cycles / gpu.clock for what, cycles in parts.items()})
    found["copies"] = copied(job) / gpu.copy_rate / job.steps if job.runs > 1 else 0.0
    return Expectation("on chip" if chip else "in memory", resident, slowest + found["copies"], dict(found))


def copied(job):
    """Bytes that a call for a batch copies to the device and back: parameters, losses and statuses go both ways."""
    both = layout.size(job.widths) * job.bytes + job.steps * job.bytes + 8
    return job.runs * (2 * both + job.widths[0] * job.widths[-1] * job.bytes)


ARGUMENTS = {Product: (2, 10), Combine: (2, 6), Square: (2, 4), Settle: (8, 9)}  # arrays and numbers of a launch


class Launch(NamedTuple):
    """What is launched, and the arrays and numbers that are handed over; kernel: its name, where registers count."""

    blocks: int
    threads: int
    kernel: str
    work: Work
    arrays: int
    numbers: int


def launches(job, gpu, code, design):
    """What a step of one network that is spread over the device launches."""
    size, at_once = job.bytes, design.pass_threads
    for one in step(job):
        if isinstance(one, Product):
            name, q = ("wide", design.wide) if min(one.m, one.n) >= design.wide_from else ("narrow", design.narrow)
            blocks = tiles_of(one, design.tile * q)
            work = tiled(one, gpu, code, design, size, q)
            yield Launch(blocks, q * q, f"{name}_product", work, *ARGUMENTS[Product])
        else:
            count = {Combine: lambda o: o.count, Square: lambda o: o.columns, Settle: lambda o: 1}[type(one)](one)
            blocks = min(design.most_blocks, math.ceil(count / at_once))
            work = vector_pass(one, gpu, code, size, at_once * blocks, False)
            shares = Work(*(part / blocks for part in work[:-1]), work.chain)
            yield Launch(blocks, at_once, "", shares, *ARGUMENTS[type(one)])


def spread(job, gpu=H100, code=CODE, design=DESIGN):
    """The Expectation of one network, a launch for each pass; the host launches while the device works."""
    size, found, device, host = job.bytes, Counter(), 0.0, 0.0
    begin, array, number = gpu.launch
    for one in launches(job, gpu, code, design):
        lines = 2 * design.depth * (design.tile * math.isqrt(one.threads) + 1) * size if one.kernel else 0
        most = occupancy(gpu, one.threads, code.registers.get((one.kernel, size), 32), lines)
        here = math.ceil(one.blocks / gpu.sms)
        parts = bounds(gpu, one.work, here, size)
        parts["latency"] *= math.ceil(here / most)
        device += max(parts.values()) / gpu.clock + gpu.gap * 1e-6
        found.update({what: cycles / gpu.clock for what, cycles in parts.items()})
        host += 1e-6 * (begin + array * one.arrays + number * one.numbers)
    found["launches"] = host
    return Expectation("on the grid", 0, max(device, host), dict(found))


def expected(job, gpu=H100, code=CODE, design=DESIGN):
    """The Expectation of a job, in the form that lrcore.cuda gives it."""
    alone = job.runs == 1 and chip_size(job, design) == 0 and max(job.widths) > design.widest
    return (spread if alone else in_blocks)(job, gpu, code, design)


def share_of_peak(job, seconds, gpu=H100):
    """The multiply-adds of the products over what the device could have made."""
    return job.runs * useful(job) / (seconds * gpu.sms * gpu.lanes[job.bytes] * gpu.clock)


# What others must do, and what has been measured.


def by_operations(job):
    """(bytes, launches) of a step of gradient descent with torch.bmm as `peers.torch_batched` has it: each operation
    reads and writes whole tensors. For a square network."""
    products = len(job.widths) - 2
    tensors = 3 * products + 3 + 3 + (3 + 4) * products + 3  # forward, residual, squares, backward with updates, W_1
    return tensors * job.runs * job.widths[0] ** 2 * job.bytes, 3 * products + 4


def on_cpu(job):
    """µs of a run and step on one core, as benchmarks/README.md has it, None where it has not."""
    n, sets = job.widths[0], {1: "| GD step, N = 3, float64", 0: "| 10000 runs side by side"}
    if job.dtype != np.float64:
        return None
    found = _cell(sets[job.runs == 1], n) or _cell(sets[1], n)
    return found * (_cell("| within lrbias", f"RK4 step ÷ GD step, n = {n}") or math.nan) if job.stages else found


def _cell(table, name):
    """The first number of a row of a table in the README."""
    rows = README.read_text().partition(table)[2].partition("\n\n")[0]
    label = f"n = {name}" if isinstance(name, int) else name
    found = re.search(rf"^\| {re.escape(label)} \| ([\d.]+)", rows, re.M)
    return float(found[1]) if found else None


# Tables.

EIGHT, MIDDLE, HUNDRED, THOUSAND = ((n,) * 4 for n in (8, 32, 100, 1000))
CASES = {
    "one run, n = 100": Job(HUNDRED),
    "one run, n = 1000": Job(THOUSAND),
    "10 000 runs, n = 8": Job(EIGHT, 10_000),
    "10 000 runs, n = 8, float32": Job(EIGHT, 10_000, np.float32),
    "10 000 runs, n = 8, RK4": Job(EIGHT, 10_000, stages=4),
    "10 000 runs, n = 32": Job(MIDDLE, 10_000),
    "10 000 runs, n = 32, float32": Job(MIDDLE, 10_000, np.float32),
    "10 000 runs, n = 100": Job(HUNDRED, 10_000),
    "10 000 runs, n = 100, float32": Job(HUNDRED, 10_000, np.float32),
}


def microseconds(seconds):
    """Three figures."""
    return f"{seconds * 1e6:.3g}" if seconds < 1e-3 else f"{seconds * 1e6:.0f}"


def steps_table(gpu=H100):
    """What is expected of each case, beside one core of a CPU and the bytes of a library."""
    heads = ("form", "µs a step", "µs a run and step", "% of FMA peak", "bound by", "one CPU core ÷ it")
    yield from head(f"{gpu.name}, N = 3, float64", *heads, "by operations, µs through HBM")
    for name, job in CASES.items():
        found, core = expected(job, gpu), on_cpu(job)
        each, moved = found.seconds / job.runs, by_operations(job)[0] / gpu.memory_rate
        yield row(
            name,
            found.form,
            microseconds(found.seconds),
            microseconds(each),
            f"{100 * share_of_peak(job, found.seconds, gpu):.1f}",
            found.bound,
            f"{core / (each * 1e6):.3g}" if core else "–",
            "–" if job.stages or job.runs == 1 else microseconds(moved),
        )


def bounds_table(gpu=H100):
    """What each case would take if one unit alone counted."""
    names = ("instructions", "FMA units", "shared memory", "L2", "HBM", "latency", "copies", "launches")
    yield from head("µs a step, if it alone counted", "blocks of a multiprocessor", *names)
    for name, job in CASES.items():
        found = expected(job, gpu)
        cells = (microseconds(found.bounds[what]) if found.bounds.get(what) else "–" for what in names)
        yield row(name, str(found.resident or "–"), *cells)


def forms_table(gpu=H100):
    """One network on the grid, with launches of either kind, and in one block."""
    heads = "on the grid", f"with launches of {PLAIN_LAUNCH:g} µs", "one block"
    yield from head("one run, N = 3, float64: µs a step", *heads)
    for widths in (HUNDRED, THOUSAND):
        job = Job(widths)
        found = spread(job, gpu), spread(job, gpu._replace(launch=(PLAIN_LAUNCH, 0, 0))), in_blocks(job, gpu)
        yield row(f"n = {widths[0]}", *(microseconds(one.seconds) for one in found))


def otherwise(gpu=H100, code=CODE, design=DESIGN):
    """{what is otherwise: (GPU, Code, Design)}: first what is assumed, then what the kernels could do."""
    counts = ("single", "double", "tiled", "staged", "output", "begin", "element", "row", "column")
    halved = {name: getattr(code, name) / 2 for name in counts}
    fewer = {kernel: count / 2 for kernel, count in code.registers.items()}
    return {
        "a warp alone: 1 cycle an instruction": (gpu._replace(alone=1), code, design),
        "a warp alone: 4 cycles": (gpu._replace(alone=4), code, design),
        "latency of an FMA: twice": (gpu._replace(fma_latency={8: 16, 4: 8}), code, design),
        "latency of shared memory: twice": (gpu._replace(shared_latency=2 * gpu.shared_latency), code, design),
        "latency of L2: twice": (gpu._replace(cache_latency=2 * gpu.cache_latency), code, design),
        "rate of L2: 3.6 TB/s": (gpu._replace(cache_rate=3.6e12), code, design),
        f"a launch: {PLAIN_LAUNCH:g} µs": (gpu._replace(launch=(PLAIN_LAUNCH, 0, 0)), code, design),
        "copies from pinned memory": (gpu._replace(copy_rate=50e9), code, design),
        "half the instructions": (gpu, code._replace(**halved), design),
        "half the registers": (gpu, code._replace(registers=fewer), design),
        "32 threads for a run on chip": (gpu, code, design._replace(chip_threads=32)),
        "tiles of 64 × 64 for a run in memory": (gpu, code, design._replace(in_memory=16)),
        "tiles of 64 × 64 on the grid from 512": (gpu, code, design._replace(wide_from=512)),
    }


def otherwise_table(gpu=H100):
    """How much longer a step takes when one thing is otherwise."""
    shown = ("10 000 runs, n = 8", "10 000 runs, n = 32", "10 000 runs, n = 100")
    shown += ("one run, n = 100", "one run, n = 1000")
    yield from head("time of a step ÷ that above", *shown)
    before = {name: expected(CASES[name], gpu).seconds for name in shown}
    for what, changed in otherwise(gpu).items():
        yield row(what, *(f"{expected(CASES[name], *changed).seconds / before[name]:.2f}" for name in shown))


def code_table():
    """What CODE says."""
    yield from head("instructions of a warp, compute capability 9.0", "for each", "counted")
    meanings = {
        "single": "step of k of a direct product, 1 FMA",
        "double": "step of k of a direct product, 4 FMAs",
        "tiled": "step of k of a tiled product, 16 FMAs",
        "staged": "number brought to shared memory",
        "output": "sum brought to its place (read off)",
        "begin": "tile of a direct product (read off)",
        "element": "element of a vector",
        "row": "square",
        "column": "column of the loss",
    }
    yield from (row(f"`{name}`", meaning, f"{getattr(CODE, name):g}") for name, meaning in meanings.items())


TABLES = (steps_table, bounds_table, forms_table, otherwise_table, code_table)


def main():
    print("\n\n".join("\n".join(table()) for table in TABLES))


if __name__ == "__main__":
    main()
