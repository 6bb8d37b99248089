"""What a run will cost and show, before it starts: time, size, stability (`lrbias.forecasts`), escapes of modes
(`lrbias.forecasts`)."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from lrbias import theory
from lrbias.devices import resolve
from lrbias.errors import check
from lrbias.forecasts._escapes import HORIZON, Escape, escapes
from lrbias.forecasts._stability import Limits, limits
from lrbias.methods import Method
from lrbias.metrics import MetricSchedule, NetworkState, Record, RunContext, logs_asynchronously
from lrbias.network import Network, Perturbed, ScaledIdentity
from lrbias.problems import Problem
from lrbias.settings import Compress, Count, validate
from lrbias.steppers import Execution, Stepper, make_stepper
from lrbias.storage import capacity, losses_quantity
from lrbias.system import clock, one_blas_thread, usual_errors
from lrcore import status

MODES = 20
TIMING_SECONDS = 0.1
AUTOMATIC = Execution(compress="auto")
COMMIT_SECONDS = 0.01
TIMED_GRADIENTS = 64  # of a timed call, where a step takes as many as its error asks for
LEAST_PART = 1e-9  # of a step, for its time to be a number
CALL = 100  # steps that a timed call makes where calls cost more than steps


@dataclass(frozen=True)
class Forecast:
    """What a run is expected to take and to show.

    seconds, bytes      of training, and on disk; at_most: the method may end before its last step
    step_size_limit     the smaller one of limit_at_start and limit_at_minimum, below which `step_size` is stable: see
                        `lrbias.forecasts`. None where it is not known, or the method chooses its own steps
    values              of the target's modes, as far as they are followed
    escape_steps        per mode the step at which it passes half its value; None: see outcomes
    outcomes            per mode "expected", "later" than 50 times the steps, "never" from this start, or "unknown"
    """

    steps: int
    seconds: float
    bytes: int
    step_size: float
    step_size_limit: float | None
    values: list[float]
    escape_steps: list[int | None]
    warnings: list[str]
    at_most: bool = False
    limit_at_start: float | None = None
    limit_at_minimum: float | None = None
    outcomes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        at_most = "at most " if self.at_most else ""
        lines = [
            f"expected time   {at_most}{clock(self.seconds)} for {at_most}{self.steps} steps",
            f"size on disk    {at_most}{self.bytes / 1e6:.1f} MB",
        ]
        if self.step_size_limit is not None:
            lines.append(f"step size       {self.step_size:g}; stable below {self._told_limits()}")
        if self.values:  # only a loss that sees the whole target has modes that are known beforehand
            lines.append("modes           value     escapes at step")
        rows = zip(self.values, self.escape_steps, self.outcomes, strict=True)
        for i, (value, step, outcome) in enumerate(rows, start=1):
            lines.append(f"  {i:<14}{value:<10.4g}{told_escape(step, outcome, self.steps)}")
        lines += [f"warning: {sentence}" for sentence in self.warnings]
        return "\n".join(lines)

    def _told_limits(self) -> str:
        start = "not known" if self.limit_at_start is None else f"{self.limit_at_start:.4g}"
        least = "" if self.limit_at_minimum is None else f", {self.limit_at_minimum:.4g} at a balanced minimum"
        return f"{start} at the start{least}"


def told_escape(step: int | None, outcome: str, steps: int) -> str:
    """An Escape in words, of a run of so many steps."""
    words = {"later": f"after {HORIZON * steps}", "never": "never from this start", "unknown": "not known"}
    if step is None:
        return words[outcome]
    return f"{step}" if step <= steps else f"{step}  (beyond this run)"


def _check(problem: Any, method: Any, record: Any) -> None:
    check(isinstance(problem, Problem), "problem", problem, "a Factorization, Completion, Sensing or Regression")
    accepted = "a method: GD, GradientFlow, SGD, GLRL, Linearized"
    check(isinstance(method, Method), "method", method, accepted)
    check(record is None or isinstance(record, Record), "record", record, "a Record")


@usual_errors
def forecast(
    problem: Problem,
    network: Network | None,
    method: Method,
    steps: int | None = None,
    record: Record | None = None,
    checkpoint_every: int = 1000,
    compress: str = "auto",
    device: str = "cpu",
) -> Forecast:
    """The Forecast of a run, whose problem, network, method, steps, record, checkpoint_every, compress and device are
    those of `train`.

    Takes about a second: it times some real steps and records.
    """
    _check(problem, method, record)
    checkpoint_every = validate(Count, "checkpoint_every", checkpoint_every)
    compress = validate(Compress, "compress", compress)
    record = Record() if record is None else record
    place = resolve(device)
    network, given = method.start(problem, network), network
    steps = validate(Count, "steps", method.most_steps if steps is None else steps)
    problem.check(network)
    problem = problem.scaled(network.output_scale)
    spectrum = problem.svd
    known = method.is_plain_on(problem)
    modes = min(spectrum.rank, MODES) if known else 0
    execution = Execution(device=place, compress=compress)
    with one_blas_thread(), place.fitting():
        found = escapes(problem, network, method.step_size, steps, modes)
        seconds, size = cost(problem, given, method, steps, record, checkpoint_every, execution)
        stable = limits(problem, given, method)
    return Forecast(
        steps=steps,
        seconds=seconds,
        bytes=size,
        step_size=method.step_size,
        step_size_limit=stable.smaller,
        values=[float(value) for value in spectrum.values[:modes]],
        escape_steps=[escape.step for escape in found],
        warnings=_warnings(problem, network, method, steps, stable, found),
        at_most=method.most_steps is not None,
        limit_at_start=stable.start,
        limit_at_minimum=stable.minimum,
        outcomes=[escape.outcome for escape in found],
    )


def _warnings_of_data(problem: Problem) -> list[str]:
    parts = problem.facts().get("components", 1)
    if parts == 1:
        return []
    return [f"the graph of observed entries has {parts} parts; nothing determines the entries between them"]


def first_warnings(problem: Problem, network: Network, given: Network | None, method: Method, steps: int) -> list[str]:
    """The warnings of a forecast, without its costs: only the leading mode is followed.

    given: the network that `train` was handed, of which `method` makes `network`.
    """
    with one_blas_thread():
        stable = limits(problem, given, method)
        modes = min(problem.svd.rank, 1) if method.is_plain_on(problem) else 0
        found = escapes(problem, network, method.step_size, steps, modes)
    return _warnings(problem, network, method, steps, stable, found)


def _warnings(
    problem: Problem, network: Network, method: Method, steps: int, stable: Limits, found: list[Escape]
) -> list[str]:
    warned = _warnings_of_stability(method, stable)
    if not method.is_plain_on(problem):
        return warned + _warnings_of_data(problem)
    if problem.svd.rank == 0:
        return ["the target is zero: there is nothing to learn"]
    return warned + _warnings_of_theorems(problem, network, method) + _warnings_of_escapes(steps, found)


def _warnings_of_stability(method: Method, stable: Limits) -> list[str]:
    """One, of the smaller limit."""
    if stable.smaller is None or method.step_size < stable.smaller:
        return []
    at_start = stable.smaller == stable.start
    place = "at the start" if at_start else "at a balanced minimum"
    reason = f"the stability limit {stable.factor:.4g}/λ {place}, λ the largest curvature of the loss there"
    return [f"{method.step_name} = {method.step_size:g} is not below {stable.smaller:.4g}, {reason}"]


def _warnings_of_escapes(steps: int, found: list[Escape]) -> list[str]:
    """That nothing will be seen within the steps, unless that is not known."""
    first = min((escape.step for escape in found if escape.step is not None), default=None)
    outcomes = {escape.outcome for escape in found}
    if not found or "unknown" in outcomes or (first is not None and first <= steps):
        return []
    if outcomes == {"never"}:
        return [f"no mode is expected to escape within {steps} steps, nor later: from this start none ever does"]
    when = f"step {first}" if first is not None else f"a step beyond {HORIZON * steps}"
    return [
        f"no mode is expected to escape within {steps} steps: the first does at about {when}; "
        "a larger start (smaller gamma) or step size is needed"
    ]


def _warnings_of_theorems(problem: Problem, network: Network, method: Method) -> list[str]:
    """What keeps the theorems of Chou et al. from holding, for the starts that they are about."""
    start = network.settings()
    if not method.euler or start.get("init") not in (ScaledIdentity.name, Perturbed.name):
        return []
    alpha = start["alpha"]
    depth = network.depth
    norm = problem.svd.values[0]
    found = []
    if not problem.symmetric:
        found.append("the target is not symmetric, so the theorems about this start do not apply")
    perturbed = start["init"] == Perturbed.name
    limit = (theory.perturbed_limit if perturbed else theory.identical_limit)(norm, depth, alpha)
    if method.step_size >= limit:
        found.append(
            f"lr = {method.step_size:g} is not below {limit:.4g}, up to which recovery is proven for this start"
        )
    if perturbed and start["beta"] >= theory.largest_perturbation(depth, alpha):
        largest = theory.largest_perturbation(depth, alpha)
        found.append(f"beta = {start['beta']:g} is not below {largest:.4g}, up to which recovery is proven")
    return found


def cost(
    problem: Problem,
    network: Network | None,
    method: Method,
    steps: int,
    record: Record,
    checkpoint_every: int,
    execution: Execution = AUTOMATIC,
    alone: bool = False,
) -> tuple[float, int]:
    """(seconds, bytes): timed steps and records, extrapolated; sizes from shapes. alone: on one core."""
    network, given = method.start(problem, network), network
    problem = problem.scaled(network.output_scale)
    device = execution.device
    context = RunContext(problem, network.widths, network.dtype, record, method, device, network.params.copy)
    network_state = NetworkState(context)
    schedule = MetricSchedule(context)
    params = network.params.copy()
    schedule.probe(network_state.at(params))
    call = min([CALL, checkpoint_every, *schedule.intervals]) if device.is_accelerator else 1
    per_step = _seconds_per_step(problem, network, given, method, execution, call)
    training = steps * per_step
    measuring = 0.0
    for interval in schedule.intervals:
        # step = interval: this interval's metrics and, at worst, those of its divisors
        per_record = seconds_of(functools.partial(_measure, schedule, network_state, params, interval))
        measuring += steps / interval * per_record
    commits = steps // checkpoint_every + 1
    quantities = [losses_quantity(network.dtype), *schedule.quantities]
    log = sum(
        capacity(q, steps) * int(np.prod(q.shape, dtype=np.int64)) * np.dtype(q.dtype).itemsize for q in quantities
    )
    seconds = training + measuring
    if not alone and logs_asynchronously(1, record, network.widths, device):
        seconds = max(training, seconds / 2)
    return seconds + commits * COMMIT_SECONDS, log + (commits + 1) * (params.nbytes + 1000) + problem.target.nbytes


def _measure(schedule: Any, network_state: NetworkState, params: np.ndarray, step: int) -> None:
    schedule.measure(network_state, params, step, lambda *row: None)
    schedule.memory.settle()  # what it is timed with again is the next record


def _seconds_per_step(
    problem: Problem, network: Network, given: Network | None, method: Method, execution: Execution, call: int
) -> float:
    """Timed in calls of `call` steps, as between two records: a call costs an accelerator more than a step does.

    network: what `method` makes of the `given` one.
    """
    stepper = make_stepper(method, problem, network, execution)
    if stepper.reduced:
        several = np.empty(CALL)
        return seconds_of(lambda: stepper.step(several, 0)) / several.size
    stepper.init(given)
    timed = _TimedSteps(stepper, np.empty(call, network.dtype))
    seconds = seconds_of(timed.call)
    return seconds * timed.calls / timed.steps


class _TimedSteps:
    """Calls that go on where the one before has stopped: a step of a grid can take any number of gradients."""

    def __init__(self, stepper: Stepper, losses: np.ndarray) -> None:
        self._stepper = stepper
        self._losses = losses
        self.calls, self._whole, self._part = 0, 0, 0.0
        stepper.budget = TIMED_GRADIENTS

    def call(self) -> None:
        code = self._stepper.step(self._losses, self._whole)
        self.calls += 1
        paused = code == status.PAUSED
        self._whole += int(np.isfinite(self._losses).sum()) if paused else len(self._losses)
        self._part = self._stepper.part_of_step(self._whole) if paused else 0.0

    @property
    def steps(self) -> float:
        """How many were made, the last one in part; a little more than 0."""
        return self._whole + max(self._part, LEAST_PART)


def seconds_of(action: Callable[[], Any]) -> float:
    """Seconds of one call, compilation and first touch left out."""
    action()
    calls = 0
    started = time.perf_counter()
    while calls < 3 or time.perf_counter() - started < TIMING_SECONDS:
        action()
        calls += 1
        if calls >= 1000:
            break
    return (time.perf_counter() - started) / calls
