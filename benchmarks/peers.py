"""The same training steps by others, each written as its users would, and the table of ratios.

    python benchmarks/peers.py            print the table
    python benchmarks/peers.py --write    and put it into benchmarks/README.md

All sides run in this process on one thread, one after the other, round after round; a row holds medians over the rounds
and the ratio peer / lrbias of the same round, so that a machine that slows down slows all of them.
"""

import argparse
import itertools
import os
import platform
import statistics
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from peak import gigaflops
from threadpoolctl import threadpool_limits

from lrcore import cpu, layout, tableau, workspace

ROUNDS, DEPTH, LR = 9, 3, 1e-5
HERE = Path(__file__).parent


def problem(n, dtype=np.float64):
    """Layers W_1 … W_N of norm about 1/2 and a target, n × n."""
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(n, n)) * 0.5 / np.sqrt(n)).astype(dtype) for _ in range(DEPTH)]
    return layers, rng.normal(size=(n, n)).astype(dtype)


def ours(n, steps, dtype=np.float64):
    """GD steps by the kernel."""
    layers, target = problem(n, dtype)
    params, widths = layout.flatten(layers, dtype)
    params, target = layout.aligned_copy(params, dtype), layout.aligned_copy(target, dtype)
    work, losses = workspace.allocate(widths, dtype), np.empty(steps, dtype)
    return lambda: cpu.gd_steps(params, widths, target, dtype(LR), losses, work)


def ours_rk4(n, steps):
    """RK4 steps by the kernel."""
    layers, target = problem(n)
    params, widths = layout.flatten(layers)
    work, losses = workspace.allocate(widths, stages=4), np.empty(steps)
    a, b = tableau.RK4.astype(np.float64)
    return lambda: cpu.rk_steps(params, widths, target, LR, a, b, losses, work)


def with_numpy(n, steps):
    """A loop in Python, gradients by hand."""
    layers, target = problem(n)

    def run():
        for _ in range(steps):
            prefixes = [layers[0]]
            for layer in layers[1:]:
                prefixes.append(layer @ prefixes[-1])
            back = prefixes[-1] - target
            np.sum(back**2)
            for i in range(DEPTH - 1, 0, -1):
                gradient = back @ prefixes[i - 1].T
                back = layers[i].T @ back
                layers[i] -= LR * gradient
            layers[0] -= LR * back

    return run


def with_torch(n, steps):
    """Eager PyTorch, autograd, SGD without momentum written out."""
    import torch

    torch.set_num_threads(1)
    layers, target = problem(n)
    layers = [torch.tensor(layer, requires_grad=True) for layer in layers]
    target = torch.tensor(target)

    def run():
        for _ in range(steps):
            product = layers[0]
            for layer in layers[1:]:
                product = layer @ product
            (0.5 * ((product - target) ** 2).sum()).backward()
            with torch.no_grad():
                for layer in layers:
                    layer -= LR * layer.grad
                    layer.grad = None

    return run


def with_jax(n, steps):
    """JAX in float64: value and gradient, a jitted `lax.scan` over the steps."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    layers, target = problem(n)

    def loss(layers):
        product = layers[0]
        for layer in layers[1:]:
            product = layer @ product
        return 0.5 * jnp.sum((product - target) ** 2)

    def step(layers, _):
        value, slopes = jax.value_and_grad(loss)(layers)
        return [layer - LR * slope for layer, slope in zip(layers, slopes, strict=True)], value

    run = jax.jit(lambda layers: jax.lax.scan(step, layers, None, length=steps))
    start = [jnp.asarray(layer) for layer in layers]
    return lambda: jax.block_until_ready(run(start))


def ours_batched(n, steps, runs=4096):
    """Many runs side by side; seconds are per run."""
    layers, target = problem(n)
    params, widths = layout.flatten(layers)
    lanes = layout.lanes(np.float64)
    batch = layout.to_lanes(np.tile(params, (runs, 1)), lanes)
    targets = layout.to_lanes(np.tile(target.ravel(), (runs, 1)), lanes)
    lr, losses = np.full((runs // lanes, lanes), LR), np.empty((runs // lanes, steps, lanes))
    statuses, work = np.empty((runs // lanes, lanes), np.int64), workspace.allocate_batch(widths)
    return lambda: cpu.batch_gd_steps(batch, widths, targets, lr, losses, statuses, work)


def torch_batched(n, steps, runs=4096):
    """torch.bmm, gradients by hand."""
    import torch

    torch.set_num_threads(1)
    layers, target = problem(n)
    layers = [torch.tensor(layer).repeat(runs, 1, 1) for layer in layers]
    target = torch.tensor(target).repeat(runs, 1, 1)

    def run():
        for _ in range(steps):
            prefixes = [layers[0]]
            for layer in layers[1:]:
                prefixes.append(torch.bmm(layer, prefixes[-1]))
            back = prefixes[-1] - target
            (back**2).sum(dim=(1, 2))
            for i in range(DEPTH - 1, 0, -1):
                gradient = torch.bmm(back, prefixes[i - 1].transpose(1, 2))
                back = torch.bmm(layers[i].transpose(1, 2), back)
                layers[i] -= LR * gradient
            layers[0] -= LR * back

    return run


PEERS = {"NumPy": with_numpy, "PyTorch": with_torch, "JAX": with_jax}


def seconds(action):
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def medians(sides):
    """({name: median seconds}, {name: median ratio to the first side}) over alternating rounds."""
    first = next(iter(sides))
    for action in sides.values():
        action()  # compiles
    times = [{name: seconds(action) for name, action in sides.items()} for _ in range(ROUNDS)]
    middle = {name: statistics.median(row[name] for row in times) for name in sides}
    return middle, {name: statistics.median(row[name] / row[first] for row in times) for name in sides}


def installed():
    """{peer: version} of those that can be imported."""
    found = {}
    for name, package in (("NumPy", "numpy"), ("PyTorch", "torch"), ("JAX", "jax")):
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            print(f"{name} is not installed and left out")
    return found


def flops(n):
    """Of one step's products: 3(N−1) of 2n³."""
    return 3 * (DEPTH - 1) * 2 * n**3


def steps_for(n):
    """Steps of one timed call: some milliseconds."""
    return max(1, min(2000, int(4e-3 / (flops(n) / 5e10 + 1e-6))))


def table(peers):
    """The lines of the table, as Markdown."""
    yield f"| GD step, N = {DEPTH}, float64 | µs | % of FMA peak | " + " | ".join(f"{p} ÷ lrbias" for p in peers) + " |"
    yield "| --- | ---: | ---: |" + " ---: |" * len(peers)
    for n in (4, 8, 10, 16, 32, 64, 100, 128, 256, 1000):
        steps = steps_for(n)
        middle, ratio = medians({"lrbias": ours(n, steps), **{name: PEERS[name](n, steps) for name in peers}})
        share = flops(n) * steps / middle["lrbias"] / 1e9 / max(gigaflops() for _ in range(20))
        shown = " | ".join(f"{ratio[name]:.2f}" for name in peers)
        yield f"| n = {n} | {middle['lrbias'] / steps * 1e6:.2f} | {100 * share:.0f} | {shown} |"
    yield from ("", "| within lrbias | ratio |", "| --- | ---: |")
    for n in (8, 100, 256):
        _, ratio = medians({"gd": ours(n, 20), "rk4": ours_rk4(n, 20)})
        yield f"| RK4 step ÷ GD step, n = {n} | {ratio['rk4']:.2f} |"
    _, ratio = medians({"float32": ours(100, 20, np.float32), "float64": ours(100, 20)})
    yield f"| float64 ÷ float32, n = 100 | {ratio['float64']:.2f} |"
    if "PyTorch" in peers:
        yield from ("", "| 4096 batched runs, N = 3, float64 | µs per run and step | torch.bmm ÷ lrbias |")
        yield "| --- | ---: | ---: |"
        for n in (4, 8, 16, 32):
            middle, ratio = medians({"lrbias": ours_batched(n, 5), "torch": torch_batched(n, 5)})
            yield f"| n = {n} | {middle['lrbias'] / 5 / 4096 * 1e6:.3f} | {ratio['torch']:.1f} |"


def machine(peers):
    """One line about where and with what this was measured."""
    import llvmlite.binding

    peak = max(gigaflops() for _ in range(50))
    versions = ", ".join(f"{name} {number}" for name, number in {"numba": version("numba"), **peers}.items())
    where = f"{llvmlite.binding.get_host_cpu_name()}, {os.cpu_count()} cores, CPython {platform.python_version()}"
    return f"{where}, {versions}; FMA peak of one core, measured: {peak:.0f} GFLOP/s."


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    lines = []
    with threadpool_limits(1):
        peers = installed()
        for line in itertools.chain([machine(peers), ""], table(peers)):
            lines.append(line)
            print(line, flush=True)
    if write:
        head = (HERE / "README.md").read_text().split("<!-- results -->")[0]
        (HERE / "README.md").write_text(head + "<!-- results -->\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
