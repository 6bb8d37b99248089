"""The model of the GPU on paper (benchmarks/gpu_model.py): its counts against the kernels, its rules against hand."""

import json
import operator
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lrcore import layout
from lrcore.tableau import HEUN, RK4

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
NETWORKS = [(3, 4), (3, 4, 5), (5, 2, 6, 3), (8, 8, 8, 8), (4, 7, 7, 7, 2)]


@pytest.fixture(scope="module", autouse=True)
def _benchmarks():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield


@pytest.fixture(scope="module")
def model():
    import gpu_model

    return gpu_model


def on_hardware(*words):
    """A process in which `lrcore.cuda` is what a GPU gets, not its simulator."""
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "0"}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, check=False)


# What is counted.


def recorded(model, job, tableau):
    """The passes of a step, from the programs of lrcore.cuda run by a machine that writes them down."""
    from lrcore.cuda.chain import walks
    from lrcore.cuda.machines import Machine
    from lrcore.cuda.places import places_of
    from lrcore.cuda.programs import programs

    made = []

    def same(function):
        return function

    def multiply(memory, state, form, mode, m, n, count, *where):
        made.append(model.Product(form, mode, int(m), int(n), int(count)))

    def combine(memory, state, kind, count, *where):
        made.append(model.Combine(int(count)))

    def square(memory, state, rows, columns, *where):
        made.append(model.Square(int(rows), int(columns)))

    def settle(memory, state, columns, *where):
        made.append(model.Settle(int(columns)))

    walk = walks(same, multiply, combine)
    others = [None] * 4  # passes of an Objective
    program = programs(Machine(same, operator.mul, lambda state: False, *walk, combine, square, *others, settle))
    memory, widths = np.zeros(1), layout.as_widths(job.widths)
    common = memory, None, widths, places_of(widths, job.stages), None
    if job.stages:
        program.rk(*common, 0.1, tableau.a.reshape(-1), tableau.b, None, 0, 1, 1)
    else:
        program.gd(*common, 0.1, None, 0, 1, 1)
    return made


@pytest.mark.parametrize("widths", NETWORKS)
@pytest.mark.parametrize("tableau", [None, HEUN, RK4], ids=["gd", "heun", "rk4"])
def test_passes_are_those_of_the_kernels(gpu, model, widths, tableau):
    job = model.Job(widths, stages=0 if tableau is None else len(tableau.b))
    passes = list(model.step(job, tableau.a)) if tableau else list(model.step(job))
    assert passes == recorded(model, job, tableau)


@pytest.mark.parametrize("widths", NETWORKS)
@pytest.mark.parametrize("stages", [0, 4])
def test_a_run_takes_the_memory_that_it_takes(gpu, model, widths, stages):
    from lrcore.cuda.places import places_of

    assert model.Job(widths, stages=stages).numbers == places_of(layout.as_widths(widths), stages).size


@pytest.mark.parametrize("widths", [(3, 4), (2, 3, 2), (3, 2, 3, 1)])
def test_multiply_adds_are_those_that_the_threads_make(gpu, model, monkeypatch, widths, rng):
    from lrcore.cuda import gemm, machines, passes

    calls = []
    for module in (gemm, passes):
        plain = module.fma
        monkeypatch.setattr(module, "fma", lambda a, b, c, plain=plain: calls.append(1) or plain(a, b, c))
    params, target = rng.normal(size=layout.size(widths)), rng.normal(size=(widths[-1], widths[0]))
    work = gpu.workspace.allocate(layout.as_widths(widths))
    assert work.chip, "direct products"
    gpu.gd_steps(params, layout.as_widths(widths), target, 0.01, np.empty(2), work)

    job, design = model.Job(widths), model.Design(chip_threads=machines.CHIP_THREADS)
    updates = sum(one.m * one.n for one in model.step(job) if getattr(one, "mode", None) == model.UPDATE)
    subtraction = layout.size(widths) if len(widths) == 2 else 0  # a single layer less the target
    assert len(calls) == 2 * (sum(model.made(one, design) for one in model.step(job)) + updates - subtraction)


def test_useful_multiply_adds_are_those_of_a_triple_loop(model):
    widths = (3, 4, 2, 5)
    layers = [np.ones(shape) for shape in layout.shapes(widths)]
    products = 0

    def multiply(a, b):
        nonlocal products
        products += sum(1 for _ in range(a.shape[0]) for _ in range(b.shape[1]) for _ in range(a.shape[1]))
        return a @ b

    prefixes = [layers[0]]
    for layer in layers[1:]:
        prefixes.append(multiply(layer, prefixes[-1]))
    back = prefixes[-1]
    for i in range(len(layers) - 1, 0, -1):
        multiply(back, prefixes[i - 1].T)
        back = multiply(layers[i].T, back)
    assert model.useful(model.Job(widths)) == products


@pytest.mark.parametrize("form", [0, 1, 2])
@pytest.mark.parametrize("shape", [(8, 8, 8), (5, 9, 7), (16, 16, 16), (3, 20, 11)])
@pytest.mark.parametrize("size", [4, 8])
def test_wavefronts_of_a_direct_product(model, form, shape, size):
    """Against the addresses of all threads at every k, as lrcore/cuda/gemm.py reads them."""
    (m, n, count), design = shape, model.DESIGN
    product = model.Product(form, model.STORE, m, n, count)
    side = 1 if m * n <= design.chip_threads else 2
    row, k_left, column, k_right = {0: (count, 1, 1, n), 1: (1, m, 1, n), 2: (count, 1, count, 1)}[form]
    across = -(-n // side)
    tiles, read = -(-m // side) * across, 0
    for k in range(count):
        for first in range(0, tiles, 32):
            warp = range(first, min(first + 32, tiles))
            for p in range(side):
                left = [min(t // across * side + p, m - 1) * row + k * k_left for t in warp]
                right = [min(t % across * side + p, n - 1) * column + k * k_right for t in warp]
                read += model.wavefronts(left, size) + model.wavefronts(right, size)
    found = model.direct(product, model.H100, model.CODE, design, size)
    warps = -(-tiles // 32)
    assert found.shared == read + warps * side**2 * size // 4
    assert found.fmas == warps * side**2 * count


# Rules of the device, by hand.


@pytest.mark.parametrize(
    ("places", "size", "expected"),
    [
        (range(32), 4, 1),
        (range(32), 8, 2),
        ([7] * 32, 8, 1),
        ([t // 2 for t in range(32)], 8, 1),
        ([t % 2 + t // 4 * 2 for t in range(32)], 8, 1),
        ([t % 16 for t in range(32)], 8, 2),
        ([32 * t for t in range(32)], 4, 32),
        ([33 * t for t in range(32)], 4, 1),
        ([16 * t for t in range(32)], 8, 32),
        ([8 * (t // 8) for t in range(32)], 8, 2),
        ([0], 8, 1),
    ],
)
def test_wavefronts(model, places, size, expected):
    assert model.wavefronts(list(places), size) == expected


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "expected"),
    [
        (64, 125, 5128, 8),  # 128 · 32 registers a warp: 4 warps of each quarter
        (64, 166, 8448, 6),  # 168 · 32: 3 of them
        (64, 246, 8456, 4),
        (64, 81, 128, 10),  # 88 · 32: 5 of them
        (256, 254, 16648, 1),
        (64, 32, 128, 32),  # no more blocks
        (1024, 32, 0, 2),  # no more threads
        (64, 32, 48008, 4),  # 48128 + 1024 bytes each
        (1024, 128, 0, 0),  # does not fit
    ],
)
def test_occupancy(model, threads, registers, shared, expected):
    assert model.occupancy(model.H100, threads, registers, shared) == expected


def test_peak_of_the_data_sheet(model):
    """34 and 67 TFLOP/s at the boost clock."""
    rates = [2 * model.H100.sms * model.H100.lanes[size] * 1.98e9 for size in (8, 4)]
    np.testing.assert_allclose(rates, [34e12, 67e12], rtol=0.02)


# What is expected.


def test_more_work_takes_longer(model):
    runs = [model.expected(model.Job((8,) * 4, count)).seconds for count in (2, 100, 1056, 1057, 10_000, 100_000)]
    assert runs == sorted(runs)
    assert runs[3] > 1.05 * runs[2], "one run more than the device holds at once"
    depths = [model.expected(model.Job((8,) * depth, 1000)).seconds for depth in range(3, 8)]
    assert depths == sorted(set(depths))
    for sizes in ((4, 8, 12, 16, 20), (28, 32, 64, 100, 200)):
        times = [model.expected(model.Job((n,) * 4, 10_000)).seconds for n in sizes]
        assert times == sorted(set(times))
    assert model.expected(model.Job((8,) * 4, 1000, stages=4)).seconds > 3 * runs[1]


@pytest.mark.parametrize("name", ["10 000 runs, n = 8", "10 000 runs, n = 100", "one run, n = 1000"])
def test_a_better_device_is_not_slower(model, name):
    job, gpu = model.CASES[name], model.H100
    before = model.expected(job).seconds
    better = (
        gpu._replace(sms=2 * gpu.sms),
        gpu._replace(clock=2 * gpu.clock),
        gpu._replace(registers=2 * gpu.registers, shared=2 * gpu.shared),
        gpu._replace(shared_latency=1, cache_latency=1),
    )
    assert all(model.expected(job, one).seconds <= before for one in better)
    assert model.expected(job, better[0]).seconds < before


def test_nothing_beats_the_peak(model):
    for job in model.CASES.values():
        found = model.expected(job)
        assert 0 < model.share_of_peak(job, found.seconds) < 1
        assert found.seconds >= 0.999 * max(seconds for what, seconds in found.bounds.items() if what != "launches")


def test_forms(model):
    """Which networks are where: one block up to layers of 64, then the grid."""
    forms = [model.expected(model.Job((n,) * 4)).form for n in (8, 32, 64, 65, 1000)]
    assert forms == ["on chip", "in memory", "in memory", "on the grid", "on the grid"]
    assert model.expected(model.Job((1000,) * 4, 2)).form == "in memory"


def test_operations_of_a_library(model):
    """N = 3: 29 tensors pass through memory in 10 operations, as counted in `peers.torch_batched` by hand."""
    assert model.by_operations(model.Job((8,) * 4, 10)) == (29 * 10 * 64 * 8, 10)


# The model and the kernels, the page and the model.


def test_design_is_that_of_the_kernels(gpu, model):
    asked = (
        "import json; from lrcore.cuda import gemm, machines, workspace; from lrcore.cuda._target import KERNELS\n"
        "print(json.dumps([gemm.TILE, gemm.NARROW, gemm.WIDE, machines.MEMORY_THREADS, gemm.DEPTH, gemm.WIDE_FROM,"
        " workspace.CHIP_SIZES, workspace.WIDEST, machines.CHIP_THREADS, machines.PASS_THREADS,"
        " machines.MOST_BLOCKS]))\n"
        "print(json.dumps({one.name: one.types for one in KERNELS}))"
    )
    answer = on_hardware("-c", asked)
    assert answer.returncode == 0, answer.stderr
    design, types = map(json.loads, answer.stdout.splitlines())
    own = model.DESIGN._replace(in_memory=model.DESIGN.in_memory**2, chip_sizes=list(model.DESIGN.chip_sizes))
    assert design == list(own)
    kinds = model.Product, model.Combine, model.Square, model.Settle
    for kind, name in zip(kinds, ("narrow_product", "combine", "square", "settle"), strict=True):
        arrays = sum(letter in "xi" for letter in types[name])
        assert model.ARGUMENTS[kind] == (arrays, len(types[name]) - arrays)


def test_page_has_the_tables_of_the_model(model):
    page = (BENCHMARKS / "gpu.md").read_text()
    own = (model.bounds_table, model.forms_table, model.otherwise_table, model.code_table)
    assert [table.__name__ for table in own if "\n".join(table()) not in page] == []


def test_cpu_figures_are_found_in_the_readme(model):
    found = [model.on_cpu(model.CASES[name]) for name in ("one run, n = 100", "10 000 runs, n = 8")]
    assert all(0.01 < one < 1e4 for one in found)
    assert model.on_cpu(model.CASES["10 000 runs, n = 8, float32"]) is None


# benchmarks/gpu.py.


def test_benchmark_without_a_gpu(gpu):
    answer = on_hardware("-c", "from lrcore import cuda; print(cuda.missing() or '')")
    if not answer.stdout.strip():
        pytest.skip("there is a GPU here")
    found = on_hardware(BENCHMARKS / "gpu.py")
    assert found.returncode == 0, found.stderr
    assert answer.stdout.strip() in found.stdout.splitlines()[0]
    rows = [line for line in found.stdout.splitlines() if "runs, n = 8" in line]
    assert len(rows) == 3
    assert all("not measured" in row and "0.0" in row for row in rows)


def test_benchmark_refuses_the_simulator(gpu):
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    command = [sys.executable, BENCHMARKS / "gpu.py"]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert found.returncode == 2
    assert "simulator" in found.stderr


def tiny(benchmark, model, kind):
    """A row that the simulator can make."""
    runs, dtype, stages = {"gd": (2, np.float64, 0), "rk4": (2, np.float64, 4), "one": (1, np.float32, 0)}[kind]
    return benchmark.Case(kind, model.Job((2,) * 3, runs, dtype, stages, 1), 1)


@pytest.mark.parametrize("kind", ["gd", "rk4", "one"])
def test_rows_are_measured_and_compared(gpu, model, monkeypatch, kind):
    import gpu as benchmark

    for name, value in (("CHECKED_RUNS", 2), ("CHECKED_STEPS", 2), ("ROUNDS", 1)):
        monkeypatch.setattr(benchmark, name, value)
    case = tiny(benchmark, model, kind)
    assert benchmark.same_bits(case)
    each, ratio = benchmark.measured(case, {})
    assert set(each) == set(ratio) == {"lrbias", "CPU"}
    assert ratio["lrbias"] == 1


def test_other_bits_are_noticed(gpu, model, monkeypatch):
    import gpu as benchmark

    monkeypatch.setattr(benchmark, "CHECKED_RUNS", 2)
    monkeypatch.setattr(benchmark, "CHECKED_STEPS", 2)
    made = gpu.batch_gd_steps

    def off(params, *arguments):
        made(params, *arguments)
        params[0, 0, 0] = np.nextafter(params[0, 0, 0], 1)

    monkeypatch.setattr(gpu, "batch_gd_steps", off)
    assert not benchmark.same_bits(tiny(benchmark, model, "gd"))


def test_peak_counts_its_multiply_adds(gpu, monkeypatch):
    import gpu_peak

    calls = []
    plain = gpu_peak.fma
    monkeypatch.setattr(gpu_peak, "fma", lambda a, b, c: calls.append(1) or plain(a, b, c))
    monkeypatch.setattr(gpu_peak, "seconds", lambda action: action() or 0.5)
    monkeypatch.setattr(gpu_peak, "ROUNDS", 1)
    found = gpu_peak.multiply_adds(np.float32)
    assert len(calls) == found * 0.5 * 2, "the one before it compiles"
