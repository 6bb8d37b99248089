"""Whole sweeps: two workers against one, against a loop of PyTorch, and ten thousand small runs.

    python benchmarks/sweeps.py                  a part of the protocol's sweep, and the small runs; about five minutes
    python benchmarks/sweeps.py --whole          the protocol's sweep of 36 runs as well; about seven minutes more
    python benchmarks/sweeps.py --write          put the tables into benchmarks/sweeps.md

Run it alone on the machine.
"""

from harness import head, machine, parsed, row, seconds, sized  # isort: split

import argparse
import math
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

import jobs
from threadpoolctl import threadpool_limits

import lrbias as lb
from lrbias.experiments import read_toml

HERE = Path(__file__).parent
DEPTHS = sized([2, 3, 4, 5], [2])
STARTS = [1, 2]
STEPS, ROUNDS, TORCH_STEPS = sized(10_000, 20), sized(3, 1), sized(300, 10)
SMALL = {
    "shape": [8, 8],
    "rank": 3,
    "spectral_norm": 3.0,
    "gamma": 1.0,
    "steps": sized(5000, 100),
    "every": 100,
    "lr": 1e-2,
}
SMALL_RUNS = sized(10_000, 80)


def _sweep(base, over, workers):
    """Make a sweep in a folder of its own; returns what `look` says of it while it is still there."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        made = lb.sweep(base, over, Path(folder) / "sweep", workers=workers, progress=False)
        taken = time.perf_counter() - started
        assert set(made.counts()) == {"finished"}, made
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        return taken, len(files), sum(path.stat().st_size for path in files)


def workers():
    """Long runs of all depths, each with the metrics of the protocol every 10: two processes against one."""
    base = {"gamma": 1.1, "teacher_depth": 3, "steps": STEPS, "checkpoint_every": STEPS}
    over = {"depth": DEPTHS[::-1], "seed": STARTS}
    _sweep({**base, "steps": 10}, over, 2)  # compiles
    times = [[_sweep(base, over, count)[0] for count in (1, 2)] for _ in range(ROUNDS)]
    runs = len(DEPTHS) * len(STARTS)
    yield from head(
        f"{runs} runs, n = 100, N = 2 … 5, {STEPS} steps, all metrics every 10", "s", "runs/s", "÷ two workers"
    )
    for i, name in enumerate(("one worker", "two workers")):
        middle = statistics.median(pair[i] for pair in times)
        ratio = statistics.median(pair[i] / pair[1] for pair in times)
        yield row(name, f"{middle:.1f}", f"{runs / middle:.2f}", f"{ratio:.2f}")
    two = statistics.median(pair[1] for pair in times)
    for threads in (1, os.cpu_count()):
        loop = sum(seconds(jobs.with_torch(TORCH_STEPS, 10, depth, threads)) for depth in DEPTHS)
        whole = loop * STEPS / TORCH_STEPS * len(STARTS)
        name = f"PyTorch loop, {threads} thread{'s' * (threads > 1)}, from {TORCH_STEPS} steps of each depth"
        yield row(name, f"{whole:.1f}", f"{runs / whole:.2f}", f"{whole / two:.2f}")


class _Memory:
    """The largest resident memory of this process and its children together, looked at ten times a second."""

    def __enter__(self):
        self.samples = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._ended.set()
        self._thread.join()

    def _watch(self):
        import psutil

        me = psutil.Process()
        while not self._ended.wait(0.1):
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.samples.append(total / 1e6)


def small():
    """Many small runs, a tenth of them and all of them: time, memory at its largest, files."""
    heads = ("s", "runs/s", "largest memory, MB", "files", "MB on disk")
    yield from head(f"runs at n = 8, N = 3, {SMALL['steps']} steps, all metrics every {SMALL['every']}", *heads)
    for runs in (SMALL_RUNS // 10, SMALL_RUNS):
        with _Memory() as memory:
            taken, files, size = _sweep(SMALL, {"seed": range(runs)}, None)
        numbers = f"{taken:.0f}", f"{runs / taken:.0f}", f"{max(memory.samples):.0f}", f"{files}", f"{size / 1e6:.0f}"
        yield row(f"{runs} runs", *numbers)


def whole():
    """The protocol's sweep as examples/sweep.toml has it."""
    base = read_toml(HERE.parent / "examples/sweep.toml")
    over = base.pop("sweep")
    base = {**base, **sized({}, {"steps": 20})}
    over = sized(over, {key: values[:1] for key, values in over.items()})
    runs = math.prod(len(values) for values in over.values())
    steps = base["steps"]
    taken, files, size = _sweep(base, over, None)
    what = f"examples/sweep.toml: {runs} runs of {steps} steps, all metrics every {base['every']}"
    yield from head(what, "s", "runs/s", "files", "MB on disk")
    yield row(f"{os.cpu_count()} workers", f"{taken:.0f}", f"{runs / taken:.3f}", f"{files}", f"{size / 1e6:.0f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--whole", action="store_true")
    options = parsed(parser)
    lines = ["# Sweeps", "", "Written by `python benchmarks/sweeps.py --whole --write`.", ""]
    with threadpool_limits(1):
        lines.append(machine())
        print(lines[-1], flush=True)
        for table in (workers, small, *([whole] if options.whole else [])):
            for line in ("", *table()):
                lines.append(line)
                print(line, flush=True)
    if options.write:
        (HERE / "sweeps.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
