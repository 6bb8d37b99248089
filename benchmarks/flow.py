"""The adaptive flow: how many gradients it needs on runs with plateaus, what bounds its steps, what would help.

    python benchmarks/flow.py            print the tables; about four minutes
    python benchmarks/flow.py --write    put them into benchmarks/flow.md, and two into benchmarks/README.md

Nothing is timed: gradients are counted. Runs, errors and schemes are in `plateaus.py`.
"""

from harness import head, parsed, row, sized  # isort: split

import itertools
from pathlib import Path

import chebyshev
import numpy as np
from plateaus import CASES, SHARE, VALUES, both, dopri5, largest_rk4, reference, rk4, rkc2, scipy, trained
from scipy.sparse.linalg import LinearOperator, eigsh
from threadpoolctl import threadpool_limits

import lrbias as lb

HERE = Path(__file__).parent
MARK, NEXT = "<!-- flow -->", "<!-- sgd -->"  # sgd.py writes what follows its own mark
SHOWN = sized((1e-4, 1e-6, 1e-8, 1e-10), (1e-4, 1e-6))
LADDER = tuple(10.0**-k for k in range(3, 13))
USUAL = 1e-6  # rtol of dopri5
PROTOCOL = sized(1e-3, 2.5e-2)  # dt of RK4
LEVELS = tuple(10.0**-k for k in range(2, 9))
LOSS = 1 / 3  # the products of a loss, N − 1, over those of a gradient, 3 (N − 1)
BOUND = 3.31  # of h|λ|, λ < 0, in dopri5
STIFFEST = CASES[-1]


def short(number):
    """A power of ten in few letters."""
    return f"{number:.0e}".replace("e-0", "e-")


def protocol_rk4(case):
    return rk4(case, round(case.grid / PROTOCOL))


def as_accurate(case, goal):
    """The Found of dopri5 at the largest rtol of the ladder whose error is at most `goal`."""
    return next(dopri5(case, rtol) for rtol in LADDER if dopri5(case, rtol).error <= goal)


def until(case):
    """dopri5's gradients until σ_1 is half learnt, and that time."""
    k = round(half_times(case)[0] / case.grid)
    return dopri5(case, USUAL).more["flow/evaluations"][k], case.times[k]


def runs():
    """What the cases are."""
    yield from head("run", "T", "grid", "values of the target", "half learnt at t", "N σ̂_1^(2−2/N)")
    for case in CASES:
        values = np.linalg.svd(case.target, compute_uv=False)[: np.linalg.matrix_rank(case.target)]
        lists = (", ".join(f"{number:.4g}" for number in numbers) for numbers in (values, half_times(case)))
        yield row(case.name, f"{case.end:g}", f"{case.grid:g}", *lists, f"{case.sharpness:.3g}")


def main_table():
    """All cases, a row each: RK4 at the protocol's dt and at its largest ones, over dopri5."""
    fixed = f"RK4, dt = {short(PROTOCOL)}"
    given = f"dopri5, rtol = {short(USUAL)}"
    largest = (1e-4, USUAL, 1e-10)
    ratios = ("÷", "÷ with all losses", "÷ as accurate", "÷ until σ_1", "÷ after it")
    yield from head("run", fixed, given, *ratios, *(f"RK4, largest dt ÷, rtol = {short(rtol)}" for rtol in largest))
    for case in CASES:
        peer, own, (first, time) = protocol_rk4(case), dopri5(case, USUAL), until(case)
        early = 4 * time / PROTOCOL
        found = (
            peer.gradients / own.gradients,
            peer.gradients / (own.gradients + LOSS * case.end / PROTOCOL),
            peer.gradients / as_accurate(case, peer.error).gradients,
            early / first,
            (peer.gradients - early) / (own.gradients - first),
            *(largest_rk4(case, f.error).gradients / f.gradients for f in (dopri5(case, rtol) for rtol in largest)),
        )
        counts = (f"{one.gradients} ({short(one.error)})" for one in (peer, own))
        yield row(case.name, *counts, *(f"{ratio:.1f}" if ratio < 100 else f"{ratio:.0f}" for ratio in found))


def evaluations(case):
    """Every setting of one case."""
    heads = ("gradients", "failed steps", "losses beside them", "error", f"RK4, dt = {short(PROTOCOL)} ÷ this")
    yield from head(case.name, *heads, "largest dt of RK4 as accurate", "its gradients", "÷ dopri5")
    fixed = protocol_rk4(case)
    losses = round(case.end / case.grid)
    cells = f"{fixed.gradients}", "", "0", f"{fixed.error:.1e}", "1", "", "", ""
    yield row(f"RK4, dt = {short(PROTOCOL)}", *cells)
    for rtol in SHOWN:
        found = dopri5(case, rtol)
        peer = largest_rk4(case, found.error)
        yield row(
            f"dopri5, rtol = {short(rtol)}",
            f"{found.gradients}",
            f"{found.more['flow/rejections'][-1]}",
            f"{losses}",
            f"{found.error:.1e}",
            f"{fixed.gradients / found.gradients:.1f}",
            f"{peer.more:.2g}",
            f"{peer.gradients}",
            f"{peer.gradients / found.gradients:.1f}",
        )


# What bounds the step.


def half_times(case):
    """When each value of the target is half learnt, ascending."""
    values = reference(case)
    rank = np.linalg.matrix_rank(case.target)
    return np.sort([case.times[np.argmax(values[:, i] > 0.5 * values[-1, i])] for i in range(rank)])


def looked_at(case):
    """{what: place in the grid}: before the first value, while it is learnt, between two, the last one, the end."""
    times = half_times(case)
    longest = np.argmax(np.diff(times))
    middle = times[longest : longest + 2].mean()
    found = {
        "nothing learnt yet": times[0] / 2,
        "σ_1 half learnt": times[0],
        "longest plateau between two values": middle,
        "last value half learnt": times[-1],
        "all learnt": case.end - case.grid,
    }
    return {what: round(time / case.grid) for what, time in found.items()}


def curvature(case, params):
    """The Hessian's eigenvalue of largest modulus, by Lanczos on differences of gradients."""
    slope = case.slope()
    size = np.linalg.norm(params) * 1e-5

    def times(v):
        step = size * v.ravel() / np.linalg.norm(v)
        return (slope(params - step) - slope(params + step)) * (np.linalg.norm(v) / (2 * size))

    hessian = LinearOperator((params.size, params.size), matvec=times, dtype=float)
    start = np.random.default_rng(0).normal(size=params.size)
    return abs(eigsh(hessian, k=1, which="LM", tol=1e-6, v0=start, return_eigenvectors=False)[0])


def growth(case, index):
    """The largest d ln σ_i / dt of the target's values at a time of the grid, by a central difference."""
    rank = np.linalg.matrix_rank(case.target)
    values = reference(case)
    logs = np.log(values[[index - 1, index + 1], :rank])
    return (logs[1] - logs[0]).max() / (2 * case.grid)


def _step_at(time, starts, sizes, *others):
    """(size, …) of the step that `time` lies in."""
    where = np.searchsorted(starts, time, side="right") - 1
    return sizes[where], *(other[where] for other in others)


def bounds(case):
    """Where the step is bounded by what: one tolerance, times before and after the first value is learnt."""
    run = trained(case, lb.GradientFlow(dt=case.grid, scheme="dopri5", rtol=USUAL), case.end, 1)
    starts, sizes, errors = both(case, USUAL, 0.0).more.steps.T
    stabilised = rkc2(case, USUAL).more
    heads = ("t", "gradients so far", "N σ_1^(2−2/N)", "λ by Lanczos", "h", "hλ", "error of the step ÷ tolerance")
    yield from head(
        f"{case.name}; rtol = {short(USUAL)}", *heads, "h that it allows", "h of RKC2", "fastest growth, 1/t"
    )
    for what, k in looked_at(case).items():
        time = case.times[k]
        h = run["flow/step_size"][k]
        depth = case.network.depth
        largest = curvature(case, run.checkpoint(k).params)
        own, ratio = _step_at(time, starts, sizes, errors)
        yield row(
            what,
            f"{time:g}",
            f"{run['flow/evaluations'][k]}",
            f"{depth * run[VALUES][k, 0] ** (2 - 2 / depth):.3g}",
            f"{largest:.3g}",
            f"{h:.2g}",
            f"{h * largest:.2f}",
            short(ratio),
            f"{own * ratio**-0.2:.2g}",
            f"{_step_at(time, stabilised.starts, stabilised.sizes)[0]:.2g}",
            f"{growth(case, k):.2g}",
        )


def held():
    """h at all records some time after σ_1 is learnt, and the errors of all steps there."""
    heads = (
        "hλ: least",
        "median",
        "largest",
        f"% above {BOUND}",
        "error of a step ÷ tolerance: median",
        "% below 0.01",
    )
    yield from head(f"t > t_1 + (T − t_1)/10, rtol = {short(USUAL)}", *heads)
    for case in CASES:
        begin = 0.9 * half_times(case)[0] + 0.1 * case.end
        lengths = dopri5(case, USUAL).more["flow/step_size"][case.times > begin] * case.sharpness
        starts, _, errors = both(case, USUAL, 0.0).more.steps.T
        errors = errors[starts > begin]
        yield row(
            case.name,
            *(f"{number:.2f}" for number in (lengths.min(), np.median(lengths), lengths.max())),
            f"{100 * np.mean(lengths > BOUND):.0f}",
            short(np.median(errors)),
            f"{100 * np.mean(errors < 0.01):.0f}",
        )


# A stabilised scheme.


def order(stages):
    """Of RKC2, from its errors at time 1 with 64 and with 128 steps: w' = w (1 − w²), whose solution is known."""
    errors = []
    for steps in (64, 128):
        y = np.full(1, 0.5)
        for _ in range(steps):
            y = chebyshev.step(_cubic, y, _cubic(y), 1 / steps, stages)
        errors.append(abs(y[0] - 1 / np.sqrt(1 + 3 * np.exp(-2))))
    return np.log2(errors[0] / errors[1])


def _cubic(w):
    return w * (1 - w**2)


def scheme_table():
    heads = ("β(s), measured", "stated", "β / s²", "dopri5 with s gradients", "order, measured")
    yield from head("RKC2, stages s", *heads)
    for stages in (2, 3, 5, 10, 20, 50, 100, 200):
        found = chebyshev.measured_reach(stages)
        stated = 2 / 3 * (stages**2 - 1) * (1 - 2 / 15 * chebyshev.DAMPING)
        numbers = f"{found:.2f}", f"{stated:.2f}", f"{found / stages**2:.3f}", f"{BOUND * stages / 6:.1f}"
        yield row(f"{stages}", *numbers, f"{order(stages):.2f}")


def ladder(case, scheme):
    """What `scheme` finds at falling rtol, until it needs more gradients than dopri5 at the smallest one."""
    for rtol in LADDER:
        found = scheme(case, rtol)
        yield found
        if found.gradients > dopri5(case, LADDER[-1]).gradients:
            return


def fewest(case, scheme):
    """The fewest gradients with which the error is at most each of LEVELS; None where that was not reached."""
    found = list(ladder(case, scheme))
    return [min((f.gradients for f in found if f.error <= level), default=None) for level in LEVELS]


SCHEMES = {"dopri5": dopri5, "RKC2": rkc2, "dopri5 and RKC2 in turns": both}


def stabilised(case):
    """The fewest gradients for an error, and the ratios to those of dopri5."""
    yield from head(f"{case.name}: gradients for an error of", *(short(level) for level in LEVELS))
    own = fewest(case, dopri5)
    for name, scheme in SCHEMES.items():
        counts = fewest(case, scheme)
        yield row(name, *("–" if count is None else f"{count}" for count in counts))
        if name != "dopri5":
            pairs = zip(own, counts, strict=True)
            yield row("dopri5 ÷ it", *("–" if None in pair else f"{pair[0] / pair[1]:.2f}" for pair in pairs))


def gains():
    """The ratios of all cases at some errors."""
    names = list(SCHEMES)[1:]
    levels = (1e-2, 1e-3, 1e-5, 1e-7)
    heads = (f"{name}, {short(level)}" for name in names for level in levels)
    yield from head("dopri5 ÷ the scheme, for an error", "(T − t_1) λ", *heads)
    for case in CASES:
        own = dict(zip(LEVELS, fewest(case, dopri5), strict=True))
        cells = []
        for name, level in itertools.product(names, levels):
            count = dict(zip(LEVELS, fewest(case, SCHEMES[name]), strict=True))[level]
            cells.append("–" if count is None else f"{own[level] / count:.1f}")
        yield row(case.name, f"{(case.end - half_times(case)[0]) * case.sharpness:.0f}", *cells)


def implicit(case):
    """SciPy's stiff solvers. A decomposition takes 2/3 P³, a gradient 6 (N − 1) n³; half of Radau's are complex."""
    heads = (
        "gradients",
        "LU decompositions",
        "these in gradients",
        "error",
        "dopri5 as accurate",
        "÷ gradients",
        "÷ all",
    )
    yield from head(f"{case.name}: SciPy", *heads)
    size = case.network.params.size
    n = case.target.shape[0]
    depth = case.network.depth
    for name, rtol in itertools.product(("LSODA", "BDF", "Radau"), SHOWN):
        found = scipy(case, name, rtol)
        work = found.more * 2 / 3 * size**3 / (6 * (depth - 1) * n**3) * (2.5 if name == "Radau" else 1)
        own = as_accurate(case, found.error).gradients
        yield row(
            f"{name}, rtol = {short(rtol)}",
            f"{found.gradients}",
            f"{found.more}",
            f"{work:.1e}",
            f"{found.error:.1e}",
            f"{own}",
            f"{own / found.gradients:.1f}",
            f"{own / (found.gradients + work):.2f}",
        )


INTRODUCTION = """# The adaptive flow

Written by `python benchmarks/flow.py --write`; what follows from it is in [README.md](README.md). Gradients are
counted, so no clock matters. An error is the largest |σ_i(t) − σ_i^ref(t)| / σ̂_1 at the times of a grid; the
reference is dopri5 at rtol = 1e-13. dopri5 makes the losses of that grid beside its gradients, each a forward pass
and a third of a gradient; RK4 has one at every step for nothing. The runs, as `plateaus.py` has them:"""

TEXTS = {
    "gradients": """## Gradients

Errors in brackets. ÷: gradients of RK4 over those of dopri5. With all losses: dopri5 makes one at the times of RK4,
too. As accurate: at the largest rtol of 1e-3, 1e-4, … whose error is at most that of RK4. Until σ_1 is half learnt,
and after it. Largest dt: of grid/1, grid/2, … with an error of at most that of dopri5 at this rtol, to 2 %.""",
    "bounds": """## What bounds the step

h is the size of the step in which t lies, λ the modulus of the Hessian's largest eigenvalue. dopri5 is stable to
hλ = 3.31, and lrbias aims at 3. The error of a step is of order h⁵, so h (tolerance / error)^(1/5) would have been
accepted, and more where that error is rounding. RKC2 has the same tolerance and no such bound.""",
    "scheme": """## A stabilised scheme

RKC2 of Sommeijer, Shampine and Verwer (`chebyshev.py`): its steps are stable to hλ = β(s), stated as
2/3 (s² − 1)(1 − 2ε/15) with ε = 2/13.""",
    "stabilised": f"""The fewest gradients with an error of at most so much, rtol being 1e-3, 1e-4, …; – where that
is more than dopri5 needs at rtol = {short(LADDER[-1])}. The power method for |λ| is counted, too. In turns
(`switching.py`, a prototype): dopri5 until stability bounds its steps, then RKC2 with {SHARE:g} rtol for as long as
it saves a fifth of the gradients. t_1 is when σ_1 is half learnt, T the end.""",
    "implicit": """## Implicit schemes

They have no such bound, but decompose matrices of P × P, P the number of weights. Their Jacobians are made of P
gradients, which are counted; decompositions are put beside them, in gradients by floating point operations.""",
}


def tables():
    """(what stands before it, whether the README shows it, too, its lines)."""
    yield INTRODUCTION, False, runs()
    yield TEXTS["gradients"], True, main_table()
    yield from (("", False, evaluations(case)) for case in CASES)
    yield TEXTS["bounds"], False, held()
    yield from (("", False, bounds(case)) for case in CASES)
    yield TEXTS["scheme"], False, scheme_table()
    yield TEXTS["stabilised"], True, gains()
    yield from (("", False, stabilised(case)) for case in CASES)
    yield TEXTS["implicit"], False, implicit(STIFFEST)


def write_readme(path, tables):
    """Put the tables between the marks."""
    before, following, after = path.read_text().partition(NEXT)
    path.write_text("\n\n".join((before.split(MARK)[0].rstrip(), MARK, *tables, following + after)))


def main():
    options = parsed()
    page = []
    summary = []
    with threadpool_limits(1):
        for text, in_readme, lines in tables():
            found = "\n".join(lines)
            page += [*([text + "\n"] if text else []), found + "\n"]
            summary += [found] if in_readme else []
            print(text, found, sep="\n\n", end="\n\n", flush=True)
    if options.write:
        (HERE / "flow.md").write_text("\n".join(page))
        write_readme(HERE / "README.md", summary)


if __name__ == "__main__":
    main()
