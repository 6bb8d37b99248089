"""The model of the GPU on paper and its benchmark: counts against the kernels, rules against hand, the page.

Here the kernels are those of the simulator, with a handful of threads; what a GPU gets is asked of another process.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lrcore import layout

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"

pytestmark = pytest.mark.usefixtures("gpu")


@pytest.fixture(scope="module", autouse=True)
def _benchmarks():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield


@pytest.fixture(scope="module")
def model(gpu):
    import gpu_model

    return gpu_model


def on_hardware(*words, simulated="0"):
    """A process in the folder of the benchmarks; `lrcore.cuda` is what a GPU gets, unless it is to be simulated."""
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": simulated}
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=BENCHMARKS, check=False)


def answer(script):
    """What a script prints there as JSON."""
    found = on_hardware("-c", script)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


# What is counted.


@pytest.mark.parametrize("widths", [(3, 4, 5), (5, 2, 6, 3), (4, 7, 7, 7, 2)])
@pytest.mark.parametrize("stages", [0, 4])
def test_passes_of_a_step(model, widths, stages):
    """Products as many multiply-adds as by a triple loop, and a pass over W_1 at the end of each gradient."""
    layers = [np.ones(shape) for shape in layout.shapes(widths)]
    products = 0

    def multiply(a, b):
        nonlocal products
        products += a.shape[0] * a.shape[1] * b.shape[1]
        return a @ b

    prefixes = [layers[0]]
    for layer in layers[1:]:
        prefixes.append(multiply(layer, prefixes[-1]))
    back = prefixes[-1]
    for i in range(len(layers) - 1, 0, -1):
        multiply(back, prefixes[i - 1].T)
        back = multiply(layers[i].T, back)

    job = model.Job(widths, stages=stages)
    gradients = max(stages, 1)
    assert model.useful(job) == gradients * products
    found = model.passes(job)
    assert found.count(model.Vector("combine", widths[0] * widths[1], 1)) == gradients
    assert found.count(model.Vector("column_squares", widths[0], widths[-1])) == 1, "a loss is made once a step"
    assert found.count(model.Vector("target_loss", 1, widths[0])) == 1


@pytest.mark.parametrize("form", [0, 1, 2])
@pytest.mark.parametrize("shape", [(8, 8, 8), (5, 9, 7), (16, 16, 16), (3, 20, 11)])
@pytest.mark.parametrize("size", [4, 8])
def test_wavefronts_of_a_direct_product(model, form, shape, size):
    """Against the addresses of all threads at every k, as lrcore/cuda/gemm.py reads them."""
    m, n, count = shape
    product = model.Product(form, 0, m, n, count)
    side = 1 if m * n <= 64 else 2
    row, k_left, column, k_right = {0: (count, 1, 1, n), 1: (1, m, 1, n), 2: (count, 1, count, 1)}[form]
    across = -(-n // side)
    tiles = -(-m // side) * across
    read = 0
    for k in range(count):
        for first in range(0, tiles, 32):
            warp = range(first, min(first + 32, tiles))
            for p in range(side):
                left = [min(t // across * side + p, m - 1) * row + k * k_left for t in warp]
                right = [min(t % across * side + p, n - 1) * column + k * k_right for t in warp]
                read += model.wavefronts(left, size) + model.wavefronts(right, size)
    found = model.direct(product, size, model.H100._replace(chip_threads=64))
    assert found.shared == read + m * n / 32 * size / 4
    assert found.fmas == -(-tiles // 32) * side**2 * count


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
        (64, 72, 5128, 14),  # 72 · 32 registers a warp: 7 warps of each quarter
        (64, 168, 8456, 6),  # 168 · 32: 3 of them
        (64, 81, 128, 10),  # 88 · 32: 5 of them
        (256, 254, 16648, 1),
        (64, 32, 128, 32),  # no more blocks
        (1024, 16, 0, 2),  # no more threads
        (64, 32, 48008, 4),  # 48128 + 1024 bytes each
        (1024, 128, 0, 0),  # does not fit
    ],
)
def test_occupancy(model, threads, registers, shared, expected):
    assert model.occupancy(model.H100, threads, registers, shared) == expected


def test_peak_of_the_data_sheet(model):
    """34 and 67 TFLOP/s at the boost clock: a step that takes as long as its multiply-adds has all of the peak."""
    boosted = model.H100._replace(clock=1.98e9)
    for dtype, peak in ((np.float64, 34e12), (np.float32, 67e12)):
        job = model.Job((100,) * 4, dtype=dtype)
        assert model.share_of_peak(job, 2 * model.useful(job) / peak, boosted) == pytest.approx(1, rel=0.02)


# What is expected.


@pytest.fixture(scope="module")
def expected():
    """{name: [seconds, share of the peak, largest bound]} of the cases, and seconds where one thing varies."""
    return answer("""
import json, gpu_model as model
H100, Job = model.H100, model.Job
seconds = lambda job, gpu=H100: model.expected(job, gpu).seconds
small = Job((8,) * 4, 10_000)
print(json.dumps({
    "cases": {name: [found.seconds, model.share_of_peak(job, found.seconds),
                     max(value for what, value in found.bounds.items() if what != "launches")]
              for name, job in model.CASES.items() for found in [model.expected(job)]},
    "forms": [model.expected(Job((n,) * 4)).form for n in (8, 32, 64, 65, 1000)]
             + [model.expected(Job((1000,) * 4, 2)).form],
    "runs": [seconds(small._replace(runs=count, steps=10**6)) for count in (2, 100, 1848, 1849, 10_000, 100_000)],
    "depths": [seconds(Job((8,) * depth, 1000)) for depth in range(3, 8)],
    "on chip": [seconds(Job((n,) * 4, 10_000)) for n in (4, 8, 12, 16, 20)],
    "in memory": [seconds(Job((n,) * 4, 10_000)) for n in (28, 32, 64, 100, 200)],
    "calls": [seconds(small._replace(steps=steps)) for steps in (1000, 100, 10)],
    "better": [[seconds(job, gpu) / seconds(job) for job in model.CASES.values()] for gpu in (
        H100._replace(multiprocessors=264), H100._replace(clock=4e9), H100._replace(registers=2 * 65536),
        H100._replace(cache_latency=1), H100._replace(tile=1, begin=1), H100._replace(copy_rate=1e12))],
}))""")


def test_more_work_takes_longer(expected):
    for what in ("runs", "depths", "on chip", "in memory", "calls"):
        assert expected[what] == sorted(set(expected[what])), what
    _, _, full, one_more, *_ = expected["runs"]
    assert one_more > 1.1 * full, "one run more than the device holds at once"


def test_a_better_device_is_not_slower(expected):
    assert all(ratio <= 1 + 1e-12 for ratios in expected["better"] for ratio in ratios)
    assert all(min(ratios) < 0.999 for ratios in expected["better"])


def test_nothing_beats_a_bound(expected):
    for seconds, share, largest in expected["cases"].values():
        assert 0 < share < 1
        assert seconds >= 0.999 * largest


def test_forms(expected):
    """Which networks are where: one block up to layers of 64, then the grid; batches in blocks."""
    assert expected["forms"] == ["on chip", "in memory", "in memory", "on the grid", "on the grid", "in memory"]


# The page, and benchmarks/gpu.py.


def test_page_has_what_the_model_says():
    made = answer("""
import json, gpu, gpu_model
page = before = gpu.PAGE.read_text()
for table in gpu_model.TABLES:
    page = gpu.put(page, table.__name__, table())
rows = [row for row in gpu.table("no GPU") if gpu.NOT_MEASURED in before]
print(json.dumps([page == before, [row for row in rows if row not in before], len(page)]))""")
    assert made[:2] == [True, []], "python benchmarks/gpu.py --write"
    assert made[2] > 3000


def test_put_replaces_what_is_between_the_marks(model):
    import gpu as benchmark

    page = "a\n<!-- one -->\n\nold\n\n<!-- end -->\nb\n<!-- two -->\n\nkept\n\n<!-- end -->\n"
    assert benchmark.put(page, "one", ["new", r"\1"]) == page.replace("old", "new\n\\1")


def test_benchmark_without_a_gpu():
    reason = on_hardware("-c", "from lrcore import cuda; print(cuda.missing() or '')").stdout.strip()
    if not reason:
        pytest.skip("there is a GPU here")
    found = on_hardware("gpu.py")
    assert found.returncode == 0, found.stderr
    assert reason in found.stdout.splitlines()[0]
    rows = [line for line in found.stdout.splitlines() if "runs, n = 8" in line]
    assert len(rows) == 3
    assert all("not measured" in row and "0.0" in row for row in rows)


def test_benchmark_refuses_the_simulator():
    found = on_hardware("gpu.py", simulated="1")
    assert found.returncode == 2
    assert "simulator" in found.stderr


@pytest.fixture
def gpu_benchmark(model, monkeypatch):
    import gpu as benchmark

    for name, value in (("CHECKED_RUNS", 2), ("CHECKED_STEPS", 2), ("ROUNDS", 1)):
        monkeypatch.setattr(benchmark, name, value)
    return benchmark


def tiny(benchmark, kind):
    """A row that the simulator can make."""
    if kind == "sgd":
        return benchmark.Case(kind, benchmark.Job((10,) * 4, 2, steps=1), 1, sgd=True)
    runs, dtype, stages = {"gd": (2, np.float64, 0), "rk4": (2, np.float64, 4), "one": (1, np.float32, 0)}[kind]
    return benchmark.Case(kind, benchmark.Job((2,) * 3, runs, dtype, stages, 1), 1)


@pytest.mark.parametrize("kind", ["gd", "rk4", "one", "sgd"])
def test_rows_are_measured_and_compared(gpu_benchmark, kind):
    case = tiny(gpu_benchmark, kind)
    assert gpu_benchmark.same_bits(case)
    each, ratio = gpu_benchmark.measured(case)
    assert set(each) == set(ratio) == {"lrbias", "CPU"}
    assert ratio["lrbias"] == 1


def test_other_bits_are_noticed(gpu, gpu_benchmark, monkeypatch):
    made = gpu.batch_gd_steps

    def off(params, *arguments):
        made(params, *arguments)
        params[0, 0, 0] = np.nextafter(params[0, 0, 0], 1)

    monkeypatch.setattr(gpu, "batch_gd_steps", off)
    assert not gpu_benchmark.same_bits(tiny(gpu_benchmark, "gd"))


def test_peak_counts_its_multiply_adds(gpu, monkeypatch):
    import gpu_peak

    calls = []
    plain = gpu_peak.fma
    monkeypatch.setattr(gpu_peak, "fma", lambda a, b, c: calls.append(1) or plain(a, b, c))
    monkeypatch.setattr(gpu_peak, "seconds", lambda action: action() or 0.5)
    monkeypatch.setattr(gpu_peak, "ROUNDS", 1)
    found = gpu_peak.multiply_adds(np.float32)
    assert len(calls) == found * 0.5 * 2, "the one before it compiles"
