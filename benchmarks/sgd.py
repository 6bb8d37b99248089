"""SGD on single entries with ridge: against the same steps by others, and many runs at once against one by one.

    python benchmarks/sgd.py            print the tables
    python benchmarks/sgd.py --write    and put them into benchmarks/README.md

One step draws one observed entry (r, c), with replacement, and makes W_i ← (1 − 2ηλ) W_i − η (W_rc − T_rc) ∂W_rc/∂W_i,
all layers from the old point. Before anything is timed, every side gets the entries that `cpu.draws` draws and has to
arrive where `lrcore.reference` does.

A peer is a function of a `Problem`; it returns `train(steps, drawn=None)`, which starts from the layers of the problem
each time and returns them trained. Without `drawn` it draws by itself: PyTorch and JAX all entries of a call at once,
which spares them a call per step, Numba one in each step.
"""

from harness import head, installed, machine, medians, one_core, parsed, row, sized  # isort: split

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import peers
from numba import njit
from threadpoolctl import threadpool_limits

from lrcore import cpu, layout, random, reference
from lrcore.cpu import workspace
from lrcore.objective import BatchRates, Entries, Sampling
from lrcore.status import OK

README = Path(__file__).parent / "README.md"
MARK, NEXT = "<!-- sgd -->", "<!-- results -->"  # table.py writes everything that follows its own mark
RIDGE, SEED = 1e-3, 3
CHECKED, CHECKED_RUNS, TOLERANCE = 50, 9, 1e-9
RUNS, RUN_STEPS = sized(1000, 16), sized(1000, 60)


class Case(NamedTuple):
    """n × n with `observed` entries; steps: of one timed call, for each package, about a tenth of a second."""

    n: int
    observed: int
    lr: float
    steps: dict


CASES = sized(
    (
        Case(10, 60, 0.1, {"lrbias": 400_000, "Numba": 400_000, "JAX": 100_000, "PyTorch": 2000}),
        Case(100, 3000, 0.01, {"lrbias": 20_000, "Numba": 10_000, "JAX": 10_000, "PyTorch": 1000}),
    ),
    (Case(10, 60, 0.1, {"lrbias": 60, "Numba": 60, "JAX": 60, "PyTorch": 60}),),
)


class Problem(NamedTuple):
    """Layers W_1 … W_N to start from, what is observed, and the rates."""

    layers: list
    entries: Entries
    lr: float
    ridge: float


def problem(case):
    """The layers of the other benchmarks and some entries of a target of rank 1 whose mean square is 1."""
    rng, (layers, _) = np.random.default_rng(1), peers.problem(case.n)
    target = np.outer(rng.normal(size=case.n), rng.normal(size=case.n))
    target /= np.sqrt(np.mean(target**2))
    rows, columns = np.unravel_index(rng.permutation(target.size)[: case.observed], target.shape)
    return Problem(layers, Entries(rows, columns, target[rows, columns], 1.0), case.lr, RIDGE)


def sampling(replacement=True, seed=SEED):
    """One entry in each step, from the first step on."""
    return Sampling(np.uint64(seed), 0, 1, replacement)


def by_steps(side, given, steps):
    """`sgd_steps` of lrcore.cpu or lrcore.reference as an action that returns the trained layers."""
    start, widths = layout.flatten(given.layers)
    params = layout.aligned_copy(start, start.dtype)
    losses = np.empty(steps)
    rates, ridges = np.full(steps, given.lr), np.full(steps, given.ridge)
    work = workspace.allocate_sgd(widths, given.entries.rows.size)

    def run():
        params[:] = start
        assert side.sgd_steps(params, widths, given.entries, rates, ridges, sampling(), losses, work) == OK
        return layout.layers(params, widths)

    return run


def ends(layers, where):
    """(W_rc, f_1, f_2, b_1, b_2) for N = 3 by products with vectors, in the notation of lrcore/cpu/sgd.py.

    Right for PyTorch and for JAX; f_1 and b_2 may be views of the layers.
    """
    (first, middle, last), (line, column) = layers, where
    f1 = first[:, column]
    b2 = last[line]
    f2 = middle @ f1
    return b2 @ f2, f1, f2, middle.T @ b2, b2


# PyTorch, eager.


def _torch_draws(torch, given, steps, drawn):
    """Row, column and value of the entry of every step, as numbers of Python."""
    rows, columns, values, _ = given.entries
    drawn = torch.randint(rows.size, (steps,)).numpy() if drawn is None else drawn
    return zip(rows[drawn].tolist(), columns[drawn].tolist(), values[drawn].tolist(), strict=True)


def torch_autograd(given):
    """The product of the layers, one entry of it, autograd, torch.optim.SGD with weight decay."""
    torch = peers._torch()

    def train(steps, drawn=None):
        layers = [torch.tensor(layer, requires_grad=True) for layer in given.layers]
        optimizer = torch.optim.SGD(layers, lr=given.lr, weight_decay=2 * given.ridge)
        for line, column, value in _torch_draws(torch, given, steps, drawn):
            optimizer.zero_grad()
            product = layers[0]
            for layer in layers[1:]:
                product = layer @ product
            (0.5 * (product[line, column] - value) ** 2).backward()
            optimizer.step()
        return [layer.detach().numpy() for layer in layers]

    return train


def torch_by_hand(given):
    """Products with vectors and updates in place."""
    torch = peers._torch()
    decay = 1 - 2 * given.lr * given.ridge

    def train(steps, drawn=None):
        first, middle, last = layers = [torch.tensor(layer) for layer in given.layers]
        for line, column, value in _torch_draws(torch, given, steps, drawn):
            found, f1, f2, b1, b2 = ends(layers, (line, column))
            factor = -given.lr * (found.item() - value)
            middle.addr_(b2, f1, beta=decay, alpha=factor)  # before the layers that f_1 and b_2 are views of
            first.mul_(decay)[:, column].add_(b1, alpha=factor)
            last.mul_(decay)[line].add_(f2, alpha=factor)
        return [layer.numpy() for layer in layers]

    return train


# JAX: all steps of a call are one compiled loop.


def _jax_train(given, step, inside=False):
    """`train` from step(layers, where, value) → layers; inside: entries are drawn one by one in the loop."""
    jax = peers._jax()
    rows, columns, values = (jax.numpy.asarray(part) for part in given.entries[:3])

    def drawn_step(layers, entry):
        return step(layers, (rows[entry], columns[entry]), values[entry])

    @jax.jit
    def run(layers, drawn):
        return jax.lax.fori_loop(0, drawn.size, lambda k, now: drawn_step(now, drawn[k]), layers)

    @jax.jit
    def run_and_draw(layers, steps):
        def body(_, state):
            layers, key = state
            key, own = jax.random.split(key)
            return drawn_step(layers, jax.random.randint(own, (), 0, rows.size)), key

        return jax.lax.fori_loop(0, steps, body, (layers, jax.random.key(SEED)))[0]

    def train(steps, drawn=None):
        if drawn is None and inside:
            return jax.block_until_ready(run_and_draw([jax.numpy.asarray(layer) for layer in given.layers], steps))
        if drawn is None:
            drawn = jax.random.randint(jax.random.key(SEED), (steps,), 0, rows.size)
        return jax.block_until_ready(run([jax.numpy.asarray(layer) for layer in given.layers], drawn))

    return train


def jax_autograd(given):
    """jax.grad of the loss of one entry, which is formed by products with vectors."""
    jax = peers._jax()

    def loss(layers, where, value):
        (first, middle, last), (line, column) = layers, where
        return 0.5 * (last[line] @ (middle @ first[:, column]) - value) ** 2

    def step(layers, where, value):
        slopes = jax.grad(loss)(layers, where, value)
        pairs = zip(layers, slopes, strict=True)
        return [layer - given.lr * (slope + 2 * given.ridge * layer) for layer, slope in pairs]

    return _jax_train(given, step)


def jax_in_the_loop(given):
    """jax.grad of an entry of the whole product, which is drawn in the loop: the first thing that one writes."""
    jax = peers._jax()

    def loss(layers, where, value):
        first, middle, last = layers
        return 0.5 * ((last @ middle @ first)[where] - value) ** 2

    def step(layers, where, value):
        slopes = jax.grad(loss)(layers, where, value)
        pairs = zip(layers, slopes, strict=True)
        return [layer - given.lr * (slope + 2 * given.ridge * layer) for layer, slope in pairs]

    return _jax_train(given, step, inside=True)


def jax_by_hand(given):
    """Gradients by products with vectors; `at` for the column and the row that change."""
    jax = peers._jax()
    decay = 1 - 2 * given.lr * given.ridge

    def step(layers, where, value):
        (first, middle, last), (line, column) = layers, where
        found, f1, f2, b1, b2 = ends(layers, where)
        factor = -given.lr * (found - value)
        first = (decay * first).at[:, column].add(factor * b1)
        middle = decay * middle + jax.numpy.outer(factor * b2, f1)
        return [first, middle, (decay * last).at[line].add(factor * f2)]

    return _jax_train(given, step)


# Numba: loops over numbers.


def numba_loops(given):
    """A loop over the steps in one compiled function, which draws the entries, too."""
    observed = tuple(given.entries[:3])

    def train(steps, drawn=None):
        layers = tuple(layer.copy() for layer in given.layers)
        drawn = np.empty(0, np.int64) if drawn is None else drawn
        _loop_steps(layers, observed, given.lr, given.ridge, drawn, steps)
        return layers

    return train


@njit
def _loop_steps(layers, observed, lr, ridge, drawn, steps):
    """`steps` steps on the entries `drawn`, or, where that is empty, on random ones."""
    rows, columns, values = observed
    f2, b1 = np.empty(layers[1].shape[0]), np.empty(layers[1].shape[1])
    for k in range(steps):
        entry = drawn[k] if drawn.size else np.random.randint(rows.size)  # noqa: NPY002 the way that is fast in Numba
        where = rows[entry], columns[entry]
        factor = -lr * (_loop_ends(layers, where, f2, b1) - values[entry])
        _loop_update(layers, where, f2, b1, factor, 1 - 2 * lr * ridge)


@njit
def _loop_ends(layers, where, f2, b1):
    """Fills f_2 and b_1; returns W_rc."""
    first, middle, last = layers
    line, column = where
    found, b1[:] = 0.0, 0.0
    for q in range(f2.size):
        total = 0.0
        for p in range(b1.size):
            total += middle[q, p] * first[p, column]
            b1[p] += middle[q, p] * last[line, q]
        f2[q] = total
        found += last[line, q] * total
    return found


@njit
def _loop_update(layers, where, f2, b1, factor, decay):
    """All layers from the old point, the middle one first since it needs the others."""
    first, middle, last = layers
    line, column = where
    for q in range(middle.shape[0]):
        for p in range(middle.shape[1]):
            middle[q, p] = decay * middle[q, p] + factor * last[line, q] * first[p, column]
    for layer in (first, last):
        for q in range(layer.shape[0]):
            for p in range(layer.shape[1]):
                layer[q, p] *= decay
    for q in range(first.shape[0]):
        first[q, column] += factor * b1[q]
    for p in range(last.shape[1]):
        last[line, p] += factor * f2[p]


PEERS = {
    "Numba": {"loops": numba_loops},
    "JAX": {"by hand": jax_by_hand, "jax.grad": jax_autograd, "draws in the loop": jax_in_the_loop},
    "PyTorch": {"by hand": torch_by_hand, "autograd": torch_autograd},
}


def check(name, found, expected):
    """Stop where a side does not arrive at the layers that are expected."""
    pairs = zip(found, expected, strict=True)
    distance = max(np.abs(np.asarray(layer) - right).max() for layer, right in pairs)
    if not distance < TOLERANCE:
        raise SystemExit(f"{name}: {distance:.1e} away from the reference after {CHECKED} steps")


def draws(count):
    """The entries of the first steps, of `count` observed ones."""
    drawn = np.empty(CHECKED, np.int64)
    cpu.draws(np.uint64(SEED), np.uint64(random.SAMPLE), 0, True, np.zeros(count + 2, np.int64), drawn)
    return drawn


def sides(case):
    """({name: action}, {name: steps of one action}), each one checked; lrbias first."""
    given = problem(case)
    expected = by_steps(reference, given, CHECKED)()
    drawn = draws(case.observed)
    check("lrbias", by_steps(cpu, given, CHECKED)(), expected)
    actions = {"lrbias": by_steps(cpu, given, case.steps["lrbias"])}
    steps = {"lrbias": case.steps["lrbias"]}
    for package, ways in installed(PEERS).items():
        for way, make in ways.items():
            name = f"{package}, {way}"
            train = make(given)
            count = case.steps[package]
            check(name, train(CHECKED, drawn), expected)
            actions[name] = lambda train=train, count=count: train(count)
            steps[name] = count
    return actions, steps


def measured(case):
    """{name: (microseconds of a step, ratio to lrbias)}."""
    actions, steps = sides(case)
    middle, ratio = medians(actions)
    return {name: (middle[name] / steps[name] * 1e6, ratio[name] * steps["lrbias"] / steps[name]) for name in actions}


def sgd_steps():
    """A row for each side, sizes next to each other."""
    found = [measured(case) for case in CASES]
    heads = (cell for case in CASES for cell in (f"n = {case.n}, µs", "÷ lrbias"))
    yield from head(f"SGD step on one entry, N = {peers.DEPTH}, float64", *heads)
    for name in found[0]:
        yield row(name, *(cell for sizes in found for cell in (f"{sizes[name][0]:.2f}", f"{sizes[name][1]:.1f}")))


# Runs that differ in their seeds.


def batched(given, runs, steps, replacement):
    """All runs by the batched kernel; the action returns their parameters, a row for each."""
    start, widths = layout.flatten(given.layers)
    lanes = layout.lanes(start.dtype)
    entries = given.entries

    def everywhere(values, dtype=np.float64):
        return layout.to_lanes(np.tile(np.asarray(values, dtype), (runs, 1)), lanes)

    begin = everywhere(start)
    lr = everywhere(given.lr)[:, 0]
    ridge = everywhere(given.ridge)[:, 0]
    places = everywhere(entries.rows, np.int32), everywhere(entries.columns, np.int32)
    observed = Entries(*places, everywhere(entries.values), entries.weight)
    own = sampling(replacement)._replace(seed=layout.to_lanes(np.arange(runs, dtype=np.uint64), lanes))
    rates = BatchRates(lr, ridge, np.ones((2, steps)))
    losses = np.empty(lr.shape)
    statuses = np.full(lr.shape, OK)
    params = layout.aligned_copy(begin, begin.dtype)
    work = workspace.allocate_batch_sgd(widths, entries.rows.size)

    def run():
        params[:] = begin
        cpu.batch_sgd_steps(params, widths, observed, rates, own, losses, statuses, work)
        assert (statuses == OK).all()
        return layout.from_lanes(params, runs)

    return run


def in_turn(given, runs, steps, replacement, side=cpu):
    """The same runs by the kernel for one."""
    start, widths = layout.flatten(given.layers)
    params = layout.aligned_copy(np.tile(start, (runs, 1)), start.dtype)
    losses = np.empty(steps)
    rates, ridges = np.full(steps, given.lr), np.full(steps, given.ridge)
    work = workspace.allocate_sgd(widths, given.entries.rows.size)

    def run():
        params[:] = start
        for seed, own in enumerate(params):
            now = sampling(replacement, seed)
            assert side.sgd_steps(own, widths, given.entries, rates, ridges, now, losses, work) == OK
        return params

    return run


def batches():
    """Many runs in lock-step against the same runs one by one."""
    given = problem(CASES[0])
    heads = ("batched, µs per run and step", "one after the other, µs", "÷ batched")
    yield from head(f"{RUNS} runs, n = {CASES[0].n}, N = {peers.DEPTH}, float64", *heads)
    makes = {"batched": batched, "one after the other": in_turn}
    for name, replacement in (("with replacement", True), ("without replacement", False)):
        expected = in_turn(given, CHECKED_RUNS, CHECKED, replacement, reference)()
        for side, make in makes.items():
            check(side, make(given, CHECKED_RUNS, CHECKED, replacement)(), expected)
        middle, ratio = medians({side: make(given, RUNS, RUN_STEPS, replacement) for side, make in makes.items()})
        each = (f"{middle[side] / RUNS / RUN_STEPS * 1e6:.3f}" for side in makes)
        yield row(name, *each, f"{ratio['one after the other']:.2f}")


def write(path, lines):
    """Put `lines` between the marks, in front of what table.py has written."""
    before, following, after = path.read_text().partition(NEXT)
    parts = before.split(MARK)[0].rstrip(), MARK, "\n".join(lines), following + after
    path.write_text("\n\n".join(parts))


def main():
    """Measure, print, write where that is wanted."""
    options = parsed()
    lines = []
    with threadpool_limits(1), one_core():
        for line in itertools.chain([machine(), ""], sgd_steps(), [""], batches()):
            lines.append(line)
            print(line, flush=True)
    if options.write:
        write(README, lines)


if __name__ == "__main__":
    main()
