"""What a run will cost and show, before it starts.

Escape. Early in training the modes of the target hardly notice each other. Alone with mode i = (s, u, v), a network
trains like the same network seen through its two directions: first layer W_1 v, last layer uᵀ W_N, scalar target s.
That is a chain with ends of width 1 whose gradient costs a few matrix-vector products, so its flow is integrated from
the *actual* start with SciPy until its product passes s/2. This reduction is ours; the textbook estimate by the norm
of the layers alone comes out 2 to 2.5 times too early, because a random start overlaps a mode less than its norm says.
"""

import itertools
import time
from dataclasses import asdict, dataclass

import numpy as np
from scipy.integrate import solve_ivp

from lrbias import theory
from lrbias.beside import has_another_core
from lrbias.devices import CPU, resolve
from lrbias.log import losses_quantity
from lrbias.metrics import Observation, Plan, Setup
from lrbias.progress import clock
from lrbias.record import Record
from lrbias.reduced import reduce
from lrbias.store import capacity
from lrbias.theory import learning_rate_limit
from lrbias.threads import one_blas_thread
from lrcore import cpu, layout, workspace

HORIZON = 50  # how many times `steps` to look ahead for an escape
MODES = 20
TIMING_SECONDS = 0.1
COMMIT_SECONDS = 0.01
CALL = 100  # steps that a timed call makes where calls cost more than steps


@dataclass(frozen=True)
class Forecast:
    """seconds of training, bytes on disk, the step-size limit, and per mode the step at which it passes half its value
    (None: not within 50 times the steps). at_most: the method may end before its last step."""

    steps: int
    seconds: float
    bytes: int
    step_size: float
    step_size_limit: float | None
    values: list
    escape_steps: list
    warnings: list
    at_most: bool = False

    def as_dict(self):
        return asdict(self)

    def __str__(self):
        at_most = "at most " if self.at_most else ""
        lines = [
            f"expected time   {at_most}{clock(self.seconds)} for {at_most}{self.steps} steps",
            f"size on disk    {at_most}{self.bytes / 1e6:.1f} MB",
        ]
        if self.step_size_limit is not None:
            lines.append(f"step size       {self.step_size:g}; stable below {self.step_size_limit:.4g}")
        if self.values:  # only a loss that sees the whole target has modes that are known beforehand
            lines.append("modes           value     escapes at step")
        for i, (value, step) in enumerate(zip(self.values, self.escape_steps, strict=True), start=1):
            shown = f"{step}" if step is not None else f"after {HORIZON * self.steps}"
            late = "" if step is None or step <= self.steps else "  (beyond this run)"
            lines.append(f"  {i:<14}{value:<10.4g}{shown}{late}")
        lines += [f"warning: {sentence}" for sentence in self.warnings]
        return "\n".join(lines)


def forecast(problem, network, method, steps=None, record=None, checkpoint_every=1000, compress="auto", device="cpu"):
    """The Forecast of `train` with the same arguments. Takes about a second: it times some real steps and records."""
    record, device = Record() if record is None else record, resolve(device)
    network, given = method.start(problem, network), network
    steps = method.most_steps if steps is None else steps
    problem.check(network)
    problem = problem.scaled(network.scale)
    spectrum, known = problem.spectrum, _has_forecast(problem, method)
    modes = min(spectrum.rank, MODES) if known else 0
    with one_blas_thread(), device.fitting():
        escapes = escape_steps(problem, network, method.step_size, steps, modes)
        seconds, size = cost(problem, given, method, steps, record, checkpoint_every, compress, device)
    return Forecast(
        steps=steps,
        seconds=seconds,
        bytes=size,
        step_size=method.step_size,
        step_size_limit=learning_rate_limit(spectrum.values[0], network.depth) if known and method.fixed else None,
        values=[float(value) for value in spectrum.values[:modes]],
        escape_steps=escapes,
        warnings=_warnings(problem, network, method, steps, escapes) if known else _warnings_of_data(problem),
        at_most=method.most_steps is not None,
    )


def _has_forecast(problem, method):
    """Whether limits and escapes are those of the theory: a whole target, plain descent."""
    return problem.plain and method.plain


def _warnings_of_data(problem):
    parts = problem.facts().get("components", 1)
    if parts == 1:
        return []
    return [f"the graph of observed entries has {parts} parts; nothing determines the entries between them"]


def first_warnings(problem, network, method, steps):
    """The warnings of a forecast, without its costs: only the leading mode is followed."""
    if not _has_forecast(problem, method):
        return _warnings_of_data(problem)
    if problem.spectrum.rank == 0:
        return ["the target is zero: there is nothing to learn"]
    with one_blas_thread():
        escapes = escape_steps(problem, network, method.step_size, steps, 1)
    return _warnings(problem, network, method, steps, escapes)


def _warnings(problem, network, method, steps, escapes):
    found = []
    limit = learning_rate_limit(problem.spectrum.values[0], network.depth)
    if method.name == "gd" and method.step_size >= limit:
        found.append(f"lr = {method.step_size:g} is not below {limit:.4g}, the stability limit 2/(N σ_1^(2 - 2/N))")
    found += _warnings_of_theorems(problem, network, method)
    first = min((step for step in escapes if step is not None), default=None)
    if escapes and (first is None or first > steps):
        when = f"step {first}" if first is not None else f"a step beyond {HORIZON * steps}"
        found.append(
            f"no mode is expected to escape within {steps} steps: the first does at about {when}; "
            "a larger start (smaller gamma) or step size is needed"
        )
    return found


def _warnings_of_theorems(problem, network, method):
    """What keeps the theorems of Chou et al. from holding, for the starts that they are about."""
    start = network.settings()
    if method.name != "gd" or start.get("init") not in ("identical", "perturbed"):
        return []
    alpha, depth, norm, found = start["alpha"], network.depth, problem.spectrum.values[0], []
    if not problem.symmetric:
        found.append("the target is not symmetric, so the theorems about this start do not apply")
    perturbed = start["init"] == "perturbed"
    limit = (theory.perturbed_limit if perturbed else theory.identical_limit)(norm, depth, alpha)
    if method.step_size >= limit:
        found.append(
            f"lr = {method.step_size:g} is not below {limit:.4g}, up to which recovery is proven for this start"
        )
    if perturbed and start["beta"] >= theory.largest_perturbation(depth, alpha):
        largest = theory.largest_perturbation(depth, alpha)
        found.append(f"beta = {start['beta']:g} is not below {largest:.4g}, up to which recovery is proven")
    return found


def escape_steps(problem, network, step_size, steps, modes):
    """For each of the leading modes the step at which it alone would pass half its value, or None."""
    spectrum = problem.spectrum
    horizon = HORIZON * steps * step_size
    times = [
        _escape_time(network, spectrum.values[i], spectrum.left[:, i], spectrum.right[:, i], horizon)
        for i in range(modes)
    ]
    return [None if t is None else int(np.ceil(t / step_size)) for t in times]


def _escape_time(network, value, left, right, horizon):
    layers = [layer.astype(np.float64) for layer in network.layers]
    layers[0] = layers[0] @ right[:, None]
    layers[-1] = left[None, :] @ layers[-1]
    start, widths = layout.flatten(layers)
    work, target = workspace.allocate(widths), np.array([[value]])
    product = np.empty((1, 1))

    def slope(t, params):
        down = np.zeros_like(params)
        cpu.forward(params, widths, target, work)
        cpu.backward(params, widths, -1.0, down, work)
        return down

    def half(t, params):
        cpu.product(params, widths, product, work)
        return product[0, 0] - value / 2

    half.terminal, half.direction = True, 1
    if half(0.0, start) >= 0:
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # a trial step may overshoot; it is refused and made smaller
        solution = solve_ivp(slope, (0.0, horizon), start, events=half, rtol=1e-3, atol=1e-9 * np.abs(start).max())
    return float(solution.t_events[0][0]) if solution.t_events[0].size else None


def cost(problem, network, method, steps, record, checkpoint_every, compress="auto", device=CPU, alone=False):
    """(seconds, bytes): timed steps and records, extrapolated; sizes from shapes. alone: on one core."""
    network, given = method.start(problem, network), network
    problem = problem.scaled(network.scale)
    setup = Setup(problem, network.widths, network.dtype, record, method, device, network.params.copy)
    observation, plan = Observation(setup), Plan(setup)
    params = network.params.copy()
    plan.probe(observation.at(params))
    call = min([CALL, checkpoint_every, *plan.intervals]) if device.apart else 1
    per_step = _seconds_per_step(problem, network, given, method, compress, device, call)
    training, measuring = steps * per_step, 0.0
    for interval in plan.intervals:
        # step = interval: this interval's metrics and, at worst, those of its divisors
        per_record = seconds_of(lambda due=interval: _measure(plan, observation, params, due))
        measuring += steps / interval * per_record
    commits = steps // checkpoint_every + 1
    quantities = [losses_quantity(network.dtype), *plan.quantities]
    log = sum(
        capacity(q, steps) * int(np.prod(q.shape, dtype=np.int64)) * np.dtype(q.dtype).itemsize for q in quantities
    )
    seconds = training + measuring
    if not alone and has_another_core(1, record, device):
        seconds = max(training, seconds / 2)
    return seconds + commits * COMMIT_SECONDS, log + (commits + 1) * (params.nbytes + 1000) + problem.target.nbytes


def _measure(plan, observation, params, step):
    plan.measure(observation, params, step, lambda *row: None)
    plan.memory.settle()  # what it is timed with again is the next record


def _seconds_per_step(problem, network, given, method, compress, device, call):
    """Timed in calls of `call` steps, as between two records: a call costs a device apart more than a step does.

    network: what `method` makes of the `given` one.
    """
    short = reduce(problem, network, method, device) if compress == "auto" else None
    if short is not None:
        several = np.empty(CALL)
        return seconds_of(lambda: short.advance(several, 0)) / several.size
    trainer = method.trainer(problem, network.widths, network.params.copy(), device=device)
    trainer.begin(given)
    losses, steps = np.empty(call, network.dtype), itertools.count(step=call)
    return seconds_of(lambda: trainer.advance(losses, next(steps))) / call


def seconds_of(action):
    """Seconds of one call, compilation and first touch left out."""
    action()
    calls, started = 0, time.perf_counter()
    while calls < 3 or time.perf_counter() - started < TIMING_SECONDS:
        action()
        calls += 1
        if calls >= 1000:
            break
    return (time.perf_counter() - started) / calls
