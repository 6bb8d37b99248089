"""The table of ratios.

    python benchmarks/table.py            print it
    python benchmarks/table.py --write    and put it into benchmarks/README.md

All sides run in this process on one core (two where the row says so), one after the other, round after round; a row
holds medians over the rounds and the ratio peer / lrbias of the same round, so that a machine that slows down slows all
of them.
"""

from harness import head, installed, machine, medians, one_core, parsed, row, sized  # isort: split

import argparse
import contextlib
import functools
import itertools
import shutil
from pathlib import Path

import jobs
import numpy as np
import peers
from peak import gigaflops
from threadpoolctl import threadpool_limits

import lrbias as lb
from lrbias.steppers import exact_reduction, steps_of

RUNS = sized(10_000, 32)
HERE = Path(__file__).parent
STEPS = {"NumPy": peers.with_numpy, "PyTorch": peers.with_torch, "JAX": peers.with_jax}
BATCHES = {"torch.bmm": peers.torch_batched, "JAX vmap": peers.jax_batched}
FLOWS = {
    "NumPy": peers.flow_numpy,
    "SciPy RK45": peers.flow_scipy,
    "torchdiffeq": peers.flow_torchdiffeq,
    "JAX": peers.flow_jax,
    "diffrax": peers.flow_diffrax,
}


def flops(n, depth=peers.DEPTH):
    """Of one step's products: 3(N−1) of 2n³."""
    return 3 * (depth - 1) * 2 * n**3


def steps_for(n, depth=peers.DEPTH):
    """Steps of one timed call: some milliseconds."""
    return max(1, min(sized(2000, 2), int(4e-3 / (flops(n, depth) / 5e10 + 1e-6))))


def share(n, seconds_per_step, depth=peers.DEPTH):
    """Per cent of the FMA peak, measured now."""
    return 100 * flops(n, depth) / seconds_per_step / 1e9 / max(gigaflops() for _ in range(20))


def versus(sides):
    return [f"{name} ÷ lrbias" for name in sides]


def gd_steps():
    sides = installed(STEPS)
    yield from head(f"GD step, N = {peers.DEPTH}, float64", "µs", "% of FMA peak", *versus(sides))
    for n in sized((4, 6, 8, 10, 12, 16, 20, 32, 33, 64, 65, 100, 128, 256, 1000), (4, 33)):
        steps = steps_for(n)
        actions = {"lrbias": peers.ours(n, steps), **{name: make(n, steps) for name, make in sides.items()}}
        middle, ratio = medians(actions)
        each = middle["lrbias"] / steps
        yield row(f"n = {n}", f"{each * 1e6:.2f}", f"{share(n, each):.0f}", *(f"{ratio[name]:.2f}" for name in sides))


def compiled_steps():
    """torch.compile takes half a minute for each size, so it has few rows of its own."""
    if "PyTorch" not in installed(STEPS) or not shutil.which("g++"):
        return
    yield from head("GD step, N = 3, float64", "torch.compile ÷ lrbias")
    for n in sized((10, 100), (4,)):
        steps = steps_for(n)
        _, ratio = medians({"lrbias": peers.ours(n, steps), "torch": peers.with_torch_compiled(n, steps)})
        yield row(f"n = {n}", f"{ratio['torch']:.2f}")


def within():
    yield from head("within lrbias", "ratio")
    for n in sized((8, 32, 100, 256), (8,)):
        steps = steps_for(n)
        _, ratio = medians({"gd": peers.ours(n, steps), "rk4": peers.ours_rk4(n, steps)})
        yield row(f"RK4 step ÷ GD step, n = {n}", f"{ratio['rk4']:.2f}")
    for n in sized((4, 6, 8, 10, 12), (4,)):
        steps = steps_for(n)
        _, ratio = medians({"own": peers.ours(n, steps), "general": peers.ours_general(n, steps)})
        yield row(f"kernel for all widths ÷ kernel for these widths, n = {n}", f"{ratio['general']:.2f}")
    _, ratio = medians({"float32": peers.ours(100, 20, dtype=np.float32), "float64": peers.ours(100, 20)})
    yield row("float64 ÷ float32, n = 100", f"{ratio['float64']:.2f}")


def threads():
    yield from head("within lrbias", "ratio")
    for n in sized((256, 1000), (64,)):
        steps = steps_for(n)
        _, ratio = medians({"two": peers.ours(n, steps, threads=2), "one": peers.ours(n, steps)})
        yield row(f"one thread ÷ two threads, n = {n}", f"{ratio['one']:.2f}")


def depths():
    yield from head("GD step, n = 100, float64", "µs", "% of FMA peak")
    for depth in sized((2, 3, 5, 10), (2,)):
        steps = steps_for(100, depth)
        middle, _ = medians({"lrbias": peers.ours(100, steps, depth=depth)})
        each = middle["lrbias"] / steps
        yield row(f"N = {depth}", f"{each * 1e6:.0f}", f"{share(100, each, depth):.0f}")


def flows():
    sides = installed(FLOWS)
    yield from head("RK4 step of the flow, N = 3, float64", "µs", *versus(sides))
    for n in sized((8, 32, 100), (4,)):
        steps = max(2, steps_for(n) // 4)
        actions = {"lrbias": peers.ours_rk4(n, steps), **{name: make(n, steps) for name, make in sides.items()}}
        middle, ratio = medians(actions)
        yield row(f"n = {n}", f"{middle['lrbias'] / steps * 1e6:.2f}", *(f"{ratio[name]:.2f}" for name in sides))


def batches():
    sides = installed(BATCHES)
    yield from head(f"{RUNS} runs side by side, N = 3, float64", "µs per run and step", *versus(sides))
    for n in sized((4, 8, 16, 32), (4,)):
        actions = {"lrbias": peers.ours_batched(n, 5, RUNS), **{name: make(n, 5, RUNS) for name, make in sides.items()}}
        middle, ratio = medians(actions, rounds=5)
        yield row(f"n = {n}", f"{middle['lrbias'] / 5 / RUNS * 1e6:.3f}", *(f"{ratio[name]:.1f}" for name in sides))


def svds():
    yield from head("SVDs of one record, N = 3", "µs", "LAPACK ÷ lrbias")
    for n in sized((4, 10, 32, 64, 100, 200, 400, 800), (4, 10)):
        middle, ratio = medians({"lrbias": jobs.record_svds(n), "LAPACK": jobs.record_svds_lapack(n)})
        yield row(f"n = {n}", f"{middle['lrbias'] * 1e6:.0f}", f"{ratio['LAPACK']:.1f}")


def short_forms():
    """What training costs where the structure of target and start is used, against whole layers."""
    n = 100
    depth = 3
    rank = 5
    steps = sized(20_000, 20)
    whole = sized(20, 2)
    symmetric = lb.from_singular_values((n, rank), [10.0, 8.0, 6.0, 4.0, 2.0], seed=1)
    cases = {
        "diagonal": (symmetric @ symmetric.T / 10, lb.Network.perturbed(n, depth, 0.1, 0.04)),
        f"compressed, rank {rank}": (
            lb.from_singular_values((n, n), [10.0, 8.0, 6.0, 4.0, 2.0], seed=1),
            lb.Network.orthogonal((n,) * (depth + 1), 0.1, seed=2),
        ),
    }
    yield from head(f"GD step, n = {n}, N = {depth}", "µs", "whole layers ÷ exact reduction")
    for name, (target, network) in cases.items():
        problem = lb.Factorization(target)
        method = lb.GD(lr=1e-4)
        short = exact_reduction(method, problem, network)
        several = np.empty(steps)
        dense = steps_of(method, problem, network.widths, np.float64)
        one = np.empty(whole)
        params = network.params.copy()
        sides = {
            "short": functools.partial(short.step, several, 0),
            "whole": lambda d=dense, p=params, o=one: d(p, o),
        }
        middle, ratio = medians(sides)
        yield row(name, f"{middle['short'] / steps * 1e6:.3f}", f"{ratio['whole'] * steps / whole:.0f}")


def protocol():
    """Whole jobs, with everything that belongs to them: metrics, store, Python."""
    steps = sized(3000, 20)
    none = lb.Record(metrics=())
    svd_free = ("balancedness", "gradient_norm", "direction_change")
    sides = {
        "none": jobs.ours(steps, none, stored=False),
        "no metrics, stored": jobs.ours(steps, none),
        "all without an SVD, every 10, stored": jobs.ours(steps, lb.Record(every=10, metrics=svd_free)),
        "all metrics, every 100, stored": jobs.ours(steps, lb.Record(every=100)),
        "all metrics, every 10, stored": jobs.ours(steps, lb.Record(every=10)),
        "all metrics, every 10, in memory": jobs.ours(steps, lb.Record(every=10), stored=False),
    }
    middle, ratio = medians(sides, rounds=5)
    yield from head(f"{steps} steps of the protocol, n = 100, two cores", "s", "÷ no metrics, in memory")
    yield from (row(name, f"{middle[name]:.2f}", f"{ratio[name]:.2f}") for name in list(sides)[1:])
    often = sized(300, 3)
    short = {"none": jobs.ours(often, none, stored=False), "all": jobs.ours(often, lb.Record(every=1), stored=False)}
    middle, ratio = medians(short, rounds=5)
    yield row(f"all metrics at every one of {often} steps, in memory", f"{middle['all']:.2f}", f"{ratio['all']:.2f}")
    yield ""
    steps = sized(500, 10)
    others = {"NumPy": jobs.with_numpy(steps, 10)}
    if "PyTorch" in installed(STEPS):
        others["PyTorch"] = jobs.with_torch(steps, 10)
    _, ratio = medians({"lrbias": jobs.ours(steps, lb.Record(every=10), stored=False), **others}, rounds=5)
    yield from head(f"the same job by others: {steps} steps, all metrics every 10, in memory", "÷ lrbias")
    yield from (row(name, f"{ratio[name]:.2f}") for name in others)


TABLES = (gd_steps, compiled_steps, within, threads, depths, flows, batches, svds, short_forms, protocol)
SEVERAL_CORES = (threads, protocol)  # the other tables have one core for each side


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=[table.__name__ for table in TABLES], help="one of the tables, printed")
    options = parsed(parser)
    chosen = [table for table in TABLES if options.only in (None, table.__name__)]
    lines = []
    with threadpool_limits(1):
        for table in (lambda: [machine()], *chosen):
            with contextlib.nullcontext() if table in SEVERAL_CORES else one_core():
                for line in itertools.chain(table(), [""]):
                    lines.append(line)
                    print(line, flush=True)
    if options.write and options.only is None:
        before = (HERE / "README.md").read_text().split("<!-- results -->")[0]
        (HERE / "README.md").write_text(before + "<!-- results -->\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
