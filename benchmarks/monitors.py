"""What each metric costs at a record, as a multiple of a step of gradient descent.

    python benchmarks/monitors.py            print the tables; about two minutes
    python benchmarks/monitors.py --write    and put them into benchmarks/monitors.md

The run is that of the protocol (and a small one): between two records it makes ten steps, which are not counted, so
what starts from the record before (eigenvalues, by Lanczos) starts from as far away as in a run. One thread, one core.
"""

from harness import head, machine, one_core, parsed, row, seconds, sized  # isort: split

import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

import lrbias as lb
from lrbias.metrics import METRICS, MetricSchedule, NetworkState, RunContext
from lrbias.storage import each_value
from lrcore import cpu, layout
from lrcore.cpu import workspace

HERE = Path(__file__).parent
RUNS = {  # size, learning rate, steps
    f"n = {n}, N = 3": (n, 1e-3, steps) for n, steps in sized(((100, 6_000), (10, 30_000)), ((4, 40), (5, 40)))
}
EVERY = 10
RECORDS = sized(40, 2)
LONG = sized(2.0, 0.01)  # seconds of a run without metrics, so that its beginning (some hundredths) does not count
TITLE = "# What a metric costs"
NOTE = """Written by `python benchmarks/monitors.py --write`: medians over records along the whole run, one thread and
one core; a step of gradient descent is timed in the same run. In lb.train metrics are measured beside the training
where there is another core. products: how often a Hessian or a tangent kernel was multiplied for a record."""
BARE = """A run that asks for no metric, `lb.train(…, record=lb.Record(metrics=()))`, against the same steps in one call
of the kernel: what is not asked for costs nothing."""


def start(size):
    target = lb.teacher((size, size), rank=min(10, size // 2), depth=3, spectral_norm=10.0, seed=0)
    return lb.Factorization(target), lb.Network.gaussian((size,) * 4, gamma=1.1, seed=1)


def stepping(problem, network, lr):
    """(params, steps(count)) of gradient descent by the kernel itself."""
    params = layout.aligned_copy(network.params, np.float64)
    widths = layout.as_widths(network.widths)
    work = workspace.allocate(widths)
    target = layout.aligned_copy(problem.target, np.float64)
    return params, lambda count: cpu.gd_steps(params, widths, target, lr, np.empty(count), work)


def costs(size, lr, steps):
    """(seconds of a step, {metric: (seconds of a record, products of a record or None)})."""
    problem, network = start(size)
    params, advance = stepping(problem, network, lr)
    measured = {}
    for name in METRICS:
        context = RunContext(
            problem,
            network.widths,
            network.dtype,
            lb.Record(every=EVERY, metrics=(name,)),
            lb.GD(lr=lr),
            start=network.params.copy,
        )
        measured[name] = NetworkState(context), MetricSchedule(context)
    found = {name: [] for name in METRICS}
    made = []
    stride = steps // RECORDS
    for step in range(0, steps, stride):
        for state, schedule in measured.values():
            schedule.measure(state, params, step, lambda *row: None)  # the record before
        made.append(seconds(lambda: advance(EVERY)) / EVERY)
        for name, (state, schedule) in measured.items():
            rows = {}
            begun = time.perf_counter()
            schedule.measure(
                state, params, step + EVERY, lambda label, _, value, rows=rows: rows.update(each_value(label, value))
            )
            elapsed = time.perf_counter() - begun
            products = [value for label, value in rows.items() if label.endswith("products")]
            found[name].append((elapsed, products[0] if products else np.nan))
        advance(stride - EVERY)
    return float(np.median(made)), {name: np.median(rows, axis=0) for name, rows in found.items()}


def bare(size, lr):
    """Seconds of a run without metrics over those of as many steps in one call of the kernel; the best of five each."""
    problem, network = start(size)
    _, advance = stepping(problem, network, lr)
    advance(EVERY)
    count = int(LONG / (seconds(lambda: advance(1000)) / 1000))
    record = lb.Record(every=1_000_000, metrics=())
    others = {"forecast": False, "checkpoint_every": 10_000_000}
    ours = []
    kernel = []
    for _ in range(5):
        begun = time.perf_counter()
        lb.train(problem, network, lb.GD(lr=lr), count, record, **others)
        ours.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        advance(count)
        kernel.append(time.perf_counter() - begun)
    return min(ours) / min(kernel)


def tables():
    lines = [TITLE, "", NOTE, "", machine(), ""]
    names = list(RUNS)
    measured = {name: costs(*RUNS[name]) for name in names}
    heads = ["metric"]
    for name in names:
        heads += [f"{name}: ms", "÷ a step", "products"]
    lines += head(*heads)
    for metric in ["a step of GD", *METRICS]:
        cells = [metric]
        for name in names:
            step, found = measured[name]
            elapsed, products = found.get(metric, (step, np.nan))
            cells += [f"{1e3 * elapsed:.3f}", f"{elapsed / step:.1f}", "" if np.isnan(products) else f"{products:.0f}"]
        lines.append(row(*cells))
    lines += ["", BARE, "", *head("run", "÷ the kernel alone")]
    lines += [row(name, f"{bare(*RUNS[name][:2]):.3f}") for name in names]
    return "\n".join(lines) + "\n"


def main():
    options = parsed()
    with threadpool_limits(1), one_core():
        text = tables()
    print(text)
    if options.write:
        (HERE / "monitors.md").write_text(text)


if __name__ == "__main__":
    main()
