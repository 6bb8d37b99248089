"""Products with the Hessian against gradients and JAX; its eigenvalues along runs, by `cpu.lanczos` and by ARPACK.

    python benchmarks/curvature.py            print the tables; about two minutes
    python benchmarks/curvature.py --write    and put them into benchmarks/curvature.md

One thread. Times are medians over rounds in which the sides take turns; what has no unit is a count or an error, and
belongs to no clock.
"""

from harness import head, installed, machine, medians, one_core, parsed, row, sized  # isort: split

import importlib
import time
from pathlib import Path
from unittest import mock

import numpy as np
import peers
from scipy.sparse.linalg import LinearOperator, eigsh
from threadpoolctl import threadpool_limits

import lrbias as lb
from lrcore import cpu, layout, objective
from lrcore.cpu import workspace

HERE = Path(__file__).parent
LANCZOS = importlib.import_module("lrcore.cpu.krylov")
TOLERANCE = 1e-6
EVERY = 10
RECORDS = sized(10, 2)
TITLE = "# Curvature"
NOTE = """Written by `python benchmarks/curvature.py --write`: one thread, float64, N = 3. A gradient is one call of
`objective_loss_and_gradient`; point + product is `hessian_point` and one `hessian_vector`, which counts alone where
there are many at one point. JAX: the jitted `jax.jvp` of `jax.grad`, which makes the forward pass anew each time."""
ALONG = """Eigenvalues along runs of gradient descent (η = 1e-3, γ = 1.1, teacher of spectral norm 10), at ten records
ten steps apart from the step in the first column on; tolerance 1e-6. Products of a record: cold, at the first one,
and the mean of the others, which start from the vectors before; eigsh with v0 their sum, which guards against nothing
that comes up unseen. Errors are the largest ones, relative to the largest eigenvalue. At the lower end eigsh is left
out: its tolerance is relative to a value of 1e-4 there, for which it makes thousands of products."""
DOUBLES = """Eigenvalues that are double: the five largest of the Hessian at an identical start (n = 10, α = ½) with a
symmetric target, from nothing; errors relative to the largest."""
UNSEEN = """What is missed where the largest eigenvalue becomes another one, and nothing couples the two: diagonal
operators of 30 000 numbers, the growing one 0.01 larger at each of 122 records. late: those at which the value found
was wrong by more than ten times the tolerance. share, steps: SHARE and LEAST of `cpu/krylov.py`."""


class Point:
    """The kernels and JAX at one network."""

    def __init__(self, n):
        self.layers, target = peers.problem(n)
        self.params, self.widths = layout.flatten(self.layers)
        self.params = layout.aligned_copy(self.params, np.float64)
        self.goal = objective.weighted(target, np.ones_like(target))
        self.direction = np.random.default_rng(1).normal(size=self.params.size)
        self.out = np.empty_like(self.params)
        self.plain = workspace.allocate(self.widths)
        self.work = workspace.allocate_curvature(self.widths)

    def gradient(self):
        cpu.objective_loss_and_gradient(self.params, self.widths, self.goal, 0.0, self.out, self.plain)

    def point(self):
        cpu.hessian_point(self.params, self.widths, self.goal, 0.0, self.work)

    def product(self):
        cpu.hessian_vector(self.params, self.widths, self.goal, 0.0, self.direction, self.out, self.work)

    def both(self):
        self.point()
        self.product()

    def with_jax(self):
        """(an action, what it gives as a flat vector)."""
        jax = peers._jax()
        slope = jax.grad(lambda layers: peers._jax_loss(layers, self.goal.target))
        times = jax.jit(lambda layers, moves: jax.jvp(slope, (layers,), (moves,))[1])
        at = [jax.numpy.asarray(layer) for layer in self.layers]
        along = [jax.numpy.asarray(move) for move in layout.layers(self.direction, self.widths)]
        action = lambda: jax.block_until_ready(times(at, along))  # noqa: E731
        return action, np.concatenate([np.asarray(part).ravel() for part in action()])


def repeated(action, times):
    def run():
        for _ in range(times):
            action()

    return run


def products():
    beside = installed({"JAX": None})
    headings = "point + product", "product", *(f"{name} ÷ point + product" for name in beside)
    yield from head("float64", "gradient, µs", *headings, *(f"relative difference to {name}" for name in beside))
    for n in sized((10, 32, 100, 256), (4,)):
        here = Point(n)
        here.both()
        found = here.out.copy()
        sides = {"both": here.both, "product": here.product, "gradient": here.gradient}
        differences = []
        if beside:
            sides["JAX"], expected = here.with_jax()
            differences = [f"{np.abs(found - expected).max() / np.abs(expected).max():.0e}"]
        times = max(1, sized(2000, 8) // n)
        middle, ratio = medians({name: repeated(action, times) for name, action in sides.items()})
        gradient = middle["gradient"]
        cells = [f"{middle['both'] / gradient:.2f}", f"{middle['product'] / gradient:.2f}"]
        cells += [f"{ratio['JAX']:.2f}"] if beside else []
        yield row(f"n = {n}", f"{gradient / times * 1e6:.1f}", *cells, *differences)


class Run:
    """Gradient descent, and the Hessian wherever it has come to."""

    def __init__(self, n, rank):
        target = lb.teacher((n, n), rank=rank, spectral_norm=10.0)
        network = lb.Network.gaussian((n,) * 4, gamma=1.1, seed=1)
        self.params = network.params.copy()
        self.widths = layout.as_widths(network.widths)
        self.target = target
        self.step = 0
        self.goal = objective.weighted(target, np.ones_like(target))
        self.work = workspace.allocate_curvature(self.widths)
        self.plain = workspace.allocate(self.widths)

    def advance(self, step):
        cpu.gd_steps(self.params, self.widths, self.target, 1e-3, np.empty(step - self.step), self.plain)
        self.step = step

    def operator(self, sign):
        point = self.params.copy(), self.widths, self.goal, 0.0
        cpu.hessian_point(*point, self.work)

        def apply(vector, out):
            cpu.hessian_vector(*point, vector, out, self.work)
            out *= sign

        return apply


def by_arpack(apply, start, count):
    """(values, vectors as rows, products) of eigsh."""
    size = start.shape[1]
    made = [0]

    def times(vector):
        made[0] += 1
        out = np.empty(size)
        apply(np.ascontiguousarray(vector), out)
        return out

    first = start.sum(axis=0) if len(start) else np.random.default_rng(0).normal(size=size)
    operator = LinearOperator((size, size), matvec=times, dtype=float)
    values, vectors = eigsh(operator, k=count, which="LA", tol=TOLERANCE, v0=first)
    return values[::-1], np.ascontiguousarray(vectors.T[::-1]), made[0]


def by_ours(apply, start, count):
    found = cpu.lanczos(apply, start, count, TOLERANCE)
    return found.values, found.vectors, found.products


SIDES = {"lanczos": by_ours, "eigsh": by_arpack}


def record(apply, starts, count, sides):
    """{side: (values, products, seconds)} at one record; `starts` are replaced by the vectors."""
    found = {}
    for side in sides:
        started = time.perf_counter()
        values, starts[side], products = SIDES[side](apply, starts[side], count)
        found[side] = values, products, time.perf_counter() - started
    return found


def stretch(run, sign, count, sides):
    """{side: (cold products, mean warm products, median warm seconds, largest error or None)}, while the run goes on.

    Errors are relative to the largest eigenvalue, at the upper end.
    """
    nothing = np.empty((0, run.params.size))
    starts = dict.fromkeys(sides, nothing)
    made = {side: [] for side in sides}
    worst = dict.fromkeys(sides, 0.0)
    for _ in range(RECORDS):
        apply = run.operator(sign)
        exact = cpu.lanczos(apply, nothing, count + 2, 1e-9).values if sign > 0 else None
        for side, (values, products, spent) in record(apply, starts, count, sides).items():
            made[side].append((products, spent))
            if sign > 0:
                worst[side] = max(worst[side], np.abs(values - exact[:count]).max() / exact[0])
        run.advance(run.step + EVERY)
    warm = {side: np.array(rows[1:]).T for side, rows in made.items()}
    return {side: (made[side][0][0], warm[side][0].mean(), np.median(warm[side][1]), worst[side]) for side in sides}


CASES = sized(
    {
        (100, 10): {0: "at the start", 1500: "before σ_1", 2500: "amid", 4000: "late", 7000: "all learnt"},
        (10, 5): {0: "at the start", 500: "amid", 20_000: "all learnt"},
    },
    {(5, 2): {0: "at the start"}},
)


def along():
    names = "cold", "warm", "eigsh, cold", "eigsh, warm", "warm, ms", "eigsh, ms", "error", "of eigsh"
    yield from head("run", "eigenvalues", *names)
    for (n, rank), steps in CASES.items():
        for label, sign, count in (("largest", 1, 1), ("largest", 1, 3), ("smallest", -1, 1)):
            run = Run(n, rank)
            for step, where in steps.items():
                run.advance(step)
                found = stretch(run, sign, count, SIDES if sign > 0 else ["lanczos"])
                sides = [found.get(side, (np.nan,) * 4) for side in SIDES]
                cells = [cell for cold, warm, _, _ in sides for cell in (f"{cold:.0f}", f"{warm:.1f}")]
                cells += [f"{spent * 1e3:.1f}" for _, _, spent, _ in sides]
                cells += [f"{error:.0e}" if sign > 0 else "" for *_, error in sides]
                cells = [cell.replace("nan", "") for cell in cells]
                yield row(f"n = {n}, step {step}: {where}", f"{count} {label}", *cells)


def doubles():
    target = lb.from_eigenvalues(10, [10.0, 8.0, 6.0, 4.0], seed=1)
    network = lb.Network.scaled_identity(10, 3, 0.5)
    widths = layout.as_widths(network.widths)
    goal = objective.weighted(target, np.ones_like(target))
    work = workspace.allocate_curvature(widths)
    dense = np.empty((network.params.size, network.params.size))
    cpu.hessian(network.params, widths, goal, 0.0, dense, work)
    expected = np.linalg.eigvalsh(dense)[:-6:-1]
    yield from head("values", "by", "products", "error")
    for side, find in SIDES.items():
        values, _, products = find(lambda x, y: np.matmul(dense, x, out=y), np.empty((0, len(dense))), 5)
        error = np.abs(values - expected).max() / expected[0]
        yield row(", ".join(f"{value:.4f}" for value in values), side, f"{products}", f"{error:.0e}")


def unseen():
    yield from head("share, steps, tolerance", "products of a record", "late", "largest error")
    for share, least in ((0.1, 12), (0.03, 12), (0.1, 0), (0.0, 0)):
        for tolerance in (1e-6, 1e-3):
            with mock.patch.multiple(LANCZOS, SHARE=share, LEAST=least):
                late, worst, made = crossing(tolerance)
            cells = f"{made:.1f}", f"{late}", f"{worst:.0e}"
            yield row(f"{share}, {least}, {tolerance:.0e}", *cells)


def crossing(tolerance):
    """(late records, largest relative error, products of a record), of a crossing and of a way out of a bulk."""
    size = sized(30_000, 300)
    records = sized(61, 5)
    late = 0
    worst = 0.0
    made = 0
    for first, second in ((1.5, 1.2), (1.05, 0.9)):
        diagonal = np.random.default_rng(0).uniform(-1, 1, size)
        start = np.empty((0, size))
        diagonal[7] = first
        for k in range(records):
            diagonal[11] = second + 0.01 * k
            found = cpu.lanczos(lambda x, y, d=diagonal: np.multiply(d, x, out=y), start, 1, tolerance)
            start = found.vectors
            made = made + found.products
            error = 1 - found.values[0] / diagonal.max()
            late = late + (error > 10 * tolerance)
            worst = max(worst, error)
    return late, worst, made / (2 * records)


def main():
    options = parsed()
    lines = [TITLE, "", NOTE, ""]
    with threadpool_limits(1), one_core():
        lines.append(machine())
        print(lines[-1], flush=True)
        for note, table in (("", products), (ALONG, along), (DOUBLES, doubles), (UNSEEN, unseen)):
            for line in (*(("", note) if note else ()), "", *table()):
                lines.append(line)
                print(line, flush=True)
    if options.write:
        (HERE / "curvature.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
