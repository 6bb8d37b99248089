"""Peak resident memory of whole runs with a store: it must not grow with the number of steps."""

import subprocess
import sys

import pytest
from harness import sized

SHORT, LONG = sized((100_000, 300_000), (1000, 2000))  # steps
# The closing summary reads back 24 numbers of each record (20 singular values, 3 strengths, a rank) and every loss:
# 5 MB more for 200 000 steps, and as much again for what it computes from them
GROWTH = 10  # MB

RUN = "--shape 20 20 --rank 3 --depth 3 --gamma 1 --lr 1e-3 --every 10 --checkpoint-every 1000 --no-figures --quiet"


def peak_megabytes(steps, folder):
    """Peak resident memory of one run, in MB: VmHWM, since ru_maxrss remembers the process that started this one."""
    code = (
        "import re, sys; from lrbias.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('peak', re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    words = ["run", *RUN.split(), "--steps", str(steps), "-o", str(folder)]
    answer = subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True)
    return int(answer.stdout.split("peak")[-1]) / 1024


@pytest.mark.benchmark(group="peak memory of a run")
def test_memory_does_not_grow_with_steps(benchmark, tmp_path, capsys):
    peak_megabytes(20, tmp_path / "first")  # compiles where the cache is empty, which takes memory of its own
    # 8192 records fill a block of every quantity: from there on only what the closing summary reads back can grow
    # a peak also depends on how many rows happened to wait for the disk: the lower of two
    short = min(peak_megabytes(SHORT, tmp_path / f"short {number}") for number in range(2))
    first = benchmark.pedantic(peak_megabytes, (LONG, tmp_path / "long 1"), rounds=1)
    long = min(first, peak_megabytes(LONG, tmp_path / "long 2"))
    benchmark.extra_info.update({f"peak_{SHORT}_steps": short, f"peak_{LONG}_steps": long})
    with capsys.disabled():
        print(f"\npeak memory: {short:.1f} MB at {SHORT} steps, {long:.1f} MB at {LONG} steps")
    assert long < short + GROWTH
