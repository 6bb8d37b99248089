"""Greedy low-rank learning (Li, Luo and Lyu 2021): phases from one new direction to the next critical point.

At a critical point of the layers, the product W moves again only if the layers get a unit more. The one along which the
loss falls fastest is the leading singular triple of −∇f(W), for tied layers its leading eigenvector. It is found by
ARPACK's Lanczos method, started from what was second before, and accepted by its residual; small matrices, and what
Lanczos misses, go to LAPACK.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lrbias.errors import check
from lrbias.methods import GLRL
from lrbias.network import Network
from lrbias.problems import Problem, gaussian
from lrbias.steppers._stepper import DEFAULT, Execution, Stepper, stepper_of
from lrbias.storage import Arrays, Quantity
from lrcore import layout, random, status

SMALL = 64  # rows and columns together up to which LAPACK is as quick
RESIDUAL = 1e-9  # ‖Av − λv‖ / λ that is accepted from Lanczos
ROUNDING = 1e-12  # of the norm of ∇f: smaller slopes are those of rounding
NEWS = 0.1  # of a start that has nothing to do with where Lanczos looked before
RANK_LEVEL = 1e-6  # of the largest singular value: smaller ones of a critical point do not count


class Phase(NamedTuple):
    """One phase of a run.

    start       step at which its direction was added
    end         step at which its gradient had vanished; −1 while it goes on
    units       hidden units in use
    slope       σ_1(−∇f) at its start: how fast the loss falls along the new direction
    next_slope  σ_2(−∇f) there; with no gap between the two the direction is not determined
    residual    ‖−∇f v − σ u‖ / σ of the new direction
    rank        of the product at its end: #{σ_i > 1e-6 σ_1}; −1 while it goes on
    loss        at its end; NaN while it goes on
    gradient    norm of the gradient of all layers there
    """

    start: int
    end: int
    units: int
    slope: float
    next_slope: float
    residual: float
    rank: int = -1
    loss: float = np.nan
    gradient: float = np.nan

    @classmethod
    def from_row(cls, row: np.ndarray) -> "Phase":
        """The phase of a row of `as_rows`."""
        return cls._make(int(value) if kind is int else float(value) for value, kind in zip(row, _KINDS, strict=True))

    def as_dict(self) -> dict[str, Any]:
        """For JSON: what is not known yet is None."""
        return {name: None if value == -1 or np.isnan(value) else value for name, value in self._asdict().items()}


_KINDS = tuple(Phase.__annotations__.values())


def as_rows(phases: Sequence[Phase]) -> np.ndarray:
    """Phases as an array, for a checkpoint."""
    return np.array(phases, np.float64).reshape(len(phases), len(_KINDS))


class Direction(NamedTuple):
    """left (m,), right (n,): u, v; numbers (3,): slope, next slope, residual; second (m + n,): where to look next."""

    left: np.ndarray
    right: np.ndarray
    numbers: np.ndarray
    second: np.ndarray


def leading_direction(slope: np.ndarray, tied: bool, start: np.ndarray | None = None) -> Direction:
    """The Direction of steepest descent at ∂f/∂W = `slope` (m, n).

    tied: u = v, of the symmetric part. start: a vector (m + n,), or (n,) when tied, that is likely to be near;
    None where none is known.
    """
    matrix = -slope
    if tied:
        operator = (matrix + matrix.T) / 2
        split = None
    else:  # its eigenvalues are ± the singular values, its vectors (u; v)/√2
        split = matrix.shape[0]
        operator = np.zeros((sum(matrix.shape),) * 2)
        operator[:split, split:] = matrix
        operator[split:, :split] = matrix.T
    values, vectors = _two_largest(operator, start)
    first = vectors[:, 0] * np.sign(vectors[np.argmax(np.abs(vectors[:, 0])), 0])
    residual = np.linalg.norm(operator @ first - values[0] * first) / max(abs(values[0]), np.finfo(float).tiny)
    left, right = (first, first) if tied else (first[:split], first[split:])
    numbers = np.array([values[0], values[1], residual])
    return Direction(_unit(left), _unit(right), numbers, vectors[:, 1])


def _unit(vector: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vector)
    return vector / norm if norm > 0 else vector


def _two_largest(operator: np.ndarray, start: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The two largest eigenvalues of a symmetric matrix and their vectors, as columns."""
    from scipy.sparse.linalg import ArpackNoConvergence, eigsh

    size = len(operator)
    if size > SMALL:
        try:
            # All directions are in it: from inside an invariant subspace, as of one part of a graph, no other is found.
            begin = gaussian((size,), seed=0, stream=0, domain=random.ROTATION) / np.sqrt(size)
            if start is not None:
                begin = start + NEWS * begin
            values, vectors = eigsh(operator, k=2, which="LA", v0=begin, tol=RESIDUAL / 100)
        except ArpackNoConvergence:  # as between equal eigenvalues
            pass
        else:
            values = values[::-1]
            vectors = vectors[:, ::-1]
            residuals = np.linalg.norm(operator @ vectors - values * vectors, axis=0)
            if residuals[0] <= RESIDUAL * abs(values[0]):
                return values, vectors
    values, vectors = np.linalg.eigh(operator)
    if size == 1:
        return np.array([values[0], 0.0]), np.hstack([vectors, np.zeros((1, 1))])
    return values[:-3:-1], vectors[:, :-3:-1]


class GreedyStepper(Stepper):
    """Phases of GLRL: a network of the units in use, `small`, which is written into the wider one of the run.

    Units that are not in use have weights 0, which training would leave 0: the bits are those of the wide network.
    `wide` has the unit of a phase from the beginning of its first step on, `params` from the end of it on.
    """

    machine = True

    def __init__(self, problem: Problem, network: Network, method: GLRL, execution: Execution) -> None:
        self.problem = problem
        self.method = method
        self.execution = execution
        self.params = network.params
        self.widths = network.widths
        self.wide = self.params.copy()
        self.phases: list[Phase] = []
        self._before_unit: Arrays | None = None
        nothing = np.zeros(problem.shape)
        direction = self._leading(nothing)
        self.direction: Direction | None = direction  # which waits for a unit
        largest = np.linalg.norm(problem.slope(nothing))
        self.steepest = direction.numbers[0]  # at W = 0, to which all tolerances refer
        what = "<no direction of descent at W = 0>"
        falls = self.steepest > ROUNDING * largest
        check(falls, "problem", what, "a loss that falls when one direction is added to W = 0")
        self._begin(1)

    def _leading(self, product: np.ndarray, start: np.ndarray | None = None) -> Direction:
        return leading_direction(self.problem.slope(product), self.method.tied, start)

    @property
    def _units(self) -> int:
        return len(self.phases)

    def _inner_widths(self, units: int) -> tuple[int, ...]:
        return (self.widths[0], *[units] * (self.method.depth - 1), self.widths[-1])

    def _first_units(self, units: int) -> tuple[np.ndarray, Any]:
        """(layers of the first `units` units, as a flat vector; its widths as the kernels take them)."""
        shapes = layout.shapes(self._inner_widths(units))
        wide = layout.layers(self.wide, self.widths)
        return layout.flatten([layer[:m, :n].copy() for layer, (m, n) in zip(wide, shapes, strict=True)])

    def _begin(self, units: int) -> None:
        """Make ready to train the first `units` units of the wide network."""
        self.small, self.small_widths = self._first_units(units)
        network = Network(self.small, self._inner_widths(units))
        self.inner = stepper_of(self.method.inner, self.problem, network, self.execution)
        looking = self.execution.device.for_one_pass(self.small_widths)
        self._loss_and_gradient = looking.kernels.objective_loss_and_gradient
        self._goal = looking.device_put(self.problem.objective(np.dtype(np.float64)))
        self._work = looking.workspace.allocate(self.small_widths)
        self._gradient = np.empty_like(self.small)

    def _add_unit(self, step: int, direction: Direction) -> None:
        """Give the pending direction to a new unit of every layer, in balanced form."""
        unit = self._units
        weight = self.method.epsilon ** (1 / self.method.depth)
        layers = layout.layers(self.wide, self.widths)
        layers[0][unit] = weight * direction.right
        for layer in layers[1:-1]:
            layer[unit, unit] = weight
        layers[-1][:, unit] = weight * direction.left
        slope, next_slope, residual = map(float, direction.numbers)
        self.phases.append(Phase(step, -1, unit + 1, slope, next_slope, residual))
        self._second = direction.second
        self.direction = None
        before = self.inner
        self._begin(unit + 1)
        self.inner.count_on(before)

    def step(self, losses: np.ndarray, step: int) -> int:
        if self.direction is not None:
            self._before_unit = self.state()
            self._add_unit(step, self.direction)
        self.inner.budget = self.budget
        code = self.inner.step(losses, step - self.phases[-1].start)
        if not (code == status.PAUSED and np.isnan(losses[0])):
            self._before_unit = None
        return code

    def why_stuck(self, step: int) -> str:
        return self.inner.why_stuck(step - self.phases[-1].start)

    def expand(self) -> None:
        self.inner.expand()
        wide = layout.layers(self.wide, self.widths)
        for layer, small in zip(wide, layout.layers(self.small, self.small_widths), strict=True):
            layer[: small.shape[0], : small.shape[1]] = small
        self.params[:] = self.wide

    def most_steps(self, step: int) -> int:
        return self.method.check_every - step % self.method.check_every

    def ends_stage(self, step: int) -> bool:
        """Whether a phase is over; then the next direction waits, or there is none."""
        if step % self.method.check_every:
            return False
        loss = self._loss_and_gradient(self.small, self.small_widths, self._goal, 0.0, self._gradient, self._work)
        norm = np.linalg.norm(self._gradient)
        phase = self.phases[-1]
        if not (norm <= self.method.tolerance * self.steepest and self._trained(phase)):
            return False
        layers = layout.layers(self.small, self.small_widths)
        product = layers[0]
        for layer in layers[1:]:
            product = layer @ product
        values = np.linalg.svd(product, compute_uv=False)
        rank = int((values > RANK_LEVEL * values[0]).sum())
        self.phases[-1] = phase._replace(end=step, rank=rank, loss=float(loss), gradient=float(norm))
        self.direction = self._leading(product, self._second)
        self._conclude(self.direction)
        return True

    def _trained(self, phase: Phase) -> bool:
        """Whether the newest unit is: ‖∂L/∂w‖ / ‖w‖^{N−1} of its row w of the first layer was the slope at first."""
        rows = (layout.layers(flat, self.small_widths)[0][-1] for flat in (self._gradient, self.small))
        slope, weight = (np.linalg.norm(row) for row in rows)
        return slope <= 0.5 * phase.slope * weight ** (self.method.depth - 1)

    def _conclude(self, direction: Direction) -> None:
        """Say so when the direction that waits does not count, or has no place."""
        slope = direction.numbers[0]
        limit = self.method.cutoff * self.steepest
        learnt = f"{self._units} direction{'s' if self._units > 1 else ''}"
        if slope <= limit:
            self.ending = (
                f"after {learnt} none is left along which the loss falls (slope {slope:.2g}, {limit:.2g} counts)"
            )
        elif self._units == min(self.widths[1:-1]):
            self.ending = f"{learnt} were learnt, as many as max_rank allows"

    def state(self) -> Arrays:
        """Phases, the direction that waits, where to look for the next one, the state of the phase's own stepper.

        Until the first step of a phase is made, the layers are without its unit: so is the state.
        """
        if self._before_unit is not None:
            return self._before_unit
        waiting = self.direction
        if waiting is None:
            vectors = {"second": self._second}
        else:
            vectors = {name: getattr(waiting, name) for name in Direction._fields}
        inner = {f"inner_{name}": value for name, value in self.inner.state().items()}
        return {"phases": as_rows(self.phases), **vectors, **inner}

    def restore(self, params: np.ndarray, state: Arrays) -> None:
        self.params[:] = params
        self.wide[:] = params
        self._before_unit = None
        self.phases = [Phase.from_row(row) for row in state["phases"]]
        self.ending = None
        self._second = state["second"]
        waits = "left" in state
        self.direction = Direction._make(state[name] for name in Direction._fields) if waits else None
        self._begin(max(self._units, 1))
        inner = {name.removeprefix("inner_"): value for name, value in state.items() if name.startswith("inner_")}
        self.inner.restore(self.small, inner)
        if self.phases and self.direction is not None:
            self._conclude(self.direction)

    def quantities(self, every: int) -> list[Quantity]:
        return [Quantity("greedy/units", (), "i4", every), *self.inner.quantities(every)]

    def values(self) -> list[Any]:
        return [self._units, *self.inner.values()]


@stepper_of.register
def _(method: GLRL, problem: Problem, network: Network, execution: Execution = DEFAULT) -> Stepper:
    return GreedyStepper(problem, network, method, execution)
