"""How the network is trained: methods as frozen settings that know their kernel.

`stepper(problem, widths, dtype, threads)` gives steps(params, losses, step=0) -> status: as many steps as `losses` is
long, the first of which has the number `step`. With a ridge λ every method minimises the loss + λ Σ ‖W_i‖².
"""

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from lrbias.errors import require
from lrbias.schedule import as_schedule, as_settings
from lrbias.settings import Count, NotNegative, Positive, Seed, Settings
from lrbias.threads import together
from lrcore import layout, workspace
from lrcore.objective import Entries, Sampling
from lrcore.tableau import TABLEAUS

RIDGE = "a finite number of at least 0"


def _known_scheme(name):
    if name not in TABLEAUS:
        raise ValueError("unknown scheme")
    return name


def _schedule(argument):
    """The annotation of a schedule: see `lrbias.schedule`."""
    return Annotated[Any, BeforeValidator(lambda value: as_schedule(argument, value))]


def _in_lanes(numbers, dtype):
    return layout.to_lanes(np.array(numbers, dtype), layout.lanes(dtype))


class Method(Settings):
    """What all methods have: a ridge, and a name for files and for people.

    Each one has a step_size beside it, the time t per step; the first one where a schedule changes it.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    stochastic: ClassVar[bool] = False  # whether a step, and so the loss of it, sees only part of the data
    ridge: NotNegative = Field(0.0, description=RIDGE)

    @property
    def plain(self):
        """Whether only the loss is minimised, with steps of one size: that has the fastest kernels and short cuts."""
        return self.ridge == 0

    def rates(self, first, count):
        """Time t of the steps first … first + count − 1."""
        return np.full(count, self.step_size)

    def ridges(self, first, count):
        """λ of these steps."""
        return np.full(count, self.ridge)

    def settings(self):
        """Keys of an experiment file; what has its default is left out, apart from the method's own numbers."""
        own = {"method": self.name, **self.model_dump(exclude_defaults=True, exclude={"lr_schedule", "ridge_schedule"})}
        schedules = {key: getattr(self, key, None) for key in ("lr_schedule", "ridge_schedule")}
        return {**own, **{key: as_settings(value) for key, value in schedules.items() if value is not None}}

    def _with_ridge(self, text):
        return f"{text}, ridge = {self.ridge:g}" if self.ridge else text


class Descent(Method):
    """Methods with a learning rate: it and the ridge may follow a schedule, of which they are the largest values."""

    lr: Positive
    lr_schedule: _schedule("lr_schedule") = None
    ridge_schedule: _schedule("ridge_schedule") = None

    @model_validator(mode="after")
    def _check_decay(self):
        """Weights are multiplied by 1 − 2ηλ in a step, which has to stay positive."""
        require(2 * self.lr * self.ridge < 1, "ridge", self.ridge, f"less than 1/(2 lr) = {0.5 / self.lr:g}")
        scheduled = self.ridge_schedule is None or self.ridge > 0
        require(scheduled, "ridge", self.ridge, "a number greater than 0, which ridge_schedule multiplies")
        return self

    @property
    def step_size(self):
        return self.lr

    @property
    def plain(self):
        return self.ridge == 0 and self.lr_schedule is None

    def rates(self, first, count):
        """η of the steps first … first + count − 1."""
        return self.lr * _factors(self.lr_schedule, first, count)

    def ridges(self, first, count):
        return self.ridge * _factors(self.ridge_schedule, first, count)

    def factors(self, first, count, dtype):
        """(2, count): what `lr` and `ridge` are multiplied by in these steps."""
        return np.stack([_factors(s, first, count) for s in (self.lr_schedule, self.ridge_schedule)]).astype(dtype)


def _factors(schedule, first, count):
    return np.ones(count) if schedule is None else schedule.factors(first, count)


class GD(Descent):
    """Gradient descent: W_i ← (1 − 2ηλ) W_i − η ∂L/∂W_i, all layers at once.

    lr: learning rate η, > 0. One step advances the time t by lr.
    ridge: λ ≥ 0, with 2ηλ < 1.
    lr_schedule, ridge_schedule: how they change, as a schedule, a dictionary or text; see `lrbias.schedule`.
    """

    name: ClassVar[str] = "gd"
    label: ClassVar[str] = "gradient descent"

    @property
    def caption(self):
        """For a legend."""
        return self._with_ridge(f"GD, lr = {self.lr:g}")

    def stepper(self, problem, widths, dtype, threads=1):
        """See the top of this file."""
        from lrcore import cpu

        works, widths = workspace.team(layout.as_widths(widths), dtype, 0, threads), layout.as_widths(widths)
        if self.plain and problem.plain:
            target, lr = layout.aligned_copy(problem.target, dtype), np.dtype(dtype).type(self.lr)
            return together(
                lambda params, losses, _, work: cpu.gd_steps(params, widths, target, lr, losses, work), works
            )
        goal = problem.objective(dtype)

        def steps(params, losses, step, work):
            rates, ridges = (f(step, losses.size).astype(dtype) for f in (self.rates, self.ridges))
            return cpu.objective_gd_steps(params, widths, goal, rates, ridges, losses, work)

        return together(steps, works)

    @classmethod
    def batch_stepper(cls, methods, targets, widths, dtype):
        """steps(params, losses, statuses) for many runs, a method for each; arrays as `layout.to_lanes` makes them."""
        from lrcore import cpu

        widths, work = layout.as_widths(widths), workspace.allocate_batch(widths, dtype)
        lr = _in_lanes([method.lr for method in methods], dtype)
        return lambda params, losses, statuses: cpu.batch_gd_steps(params, widths, targets, lr, losses, statuses, work)

    def chain_stepper(self, modes, target, weights):
        """steps(losses) -> status for independent chains of numbers, changing `modes` (see `lrcore.cpu.diagonal`)."""
        from lrcore import cpu

        work = workspace.allocate_diagonal(*modes.shape)
        return lambda losses: cpu.diagonal_gd_steps(modes, target, weights, self.lr, losses, work)


class GradientFlow(Method):
    """Gradient flow dW_i/dt = −∂L/∂W_i − 2λ W_i, integrated with a fixed step.

    dt: time step, > 0; to compare with GD, t = lr · iteration.
    scheme: rk4 (order 4, four gradients a step), heun (order 2) or euler (which is GD).
    ridge: λ ≥ 0.
    """

    name: ClassVar[str] = "flow"
    label: ClassVar[str] = "gradient flow"
    dt: Positive
    scheme: Annotated[str, AfterValidator(_known_scheme)] = Field("rk4", description="one of " + ", ".join(TABLEAUS))

    @property
    def step_size(self):
        return self.dt

    @property
    def caption(self):
        return self._with_ridge(f"gradient flow ({self.scheme}), dt = {self.dt:g}")

    def stepper(self, problem, widths, dtype, threads=1):
        from lrcore import cpu

        tableau, widths, number = TABLEAUS[self.scheme], layout.as_widths(widths), np.dtype(dtype).type
        dt, ridge, (a, b) = number(self.dt), number(self.ridge), tableau.astype(dtype)
        works = workspace.team(widths, dtype, tableau.stages, threads)
        if self.plain and problem.plain:
            target = layout.aligned_copy(problem.target, dtype)
            return together(
                lambda params, losses, _, work: cpu.rk_steps(params, widths, target, dt, a, b, losses, work), works
            )
        goal = problem.objective(dtype)
        return together(
            lambda params, losses, _, work: cpu.objective_rk_steps(
                params, widths, goal, ridge, dt, (a, b), losses, work
            ),
            works,
        )

    @classmethod
    def batch_stepper(cls, methods, targets, widths, dtype):
        """As that of GD; all methods have the same scheme."""
        from lrcore import cpu

        tableau, widths = TABLEAUS[methods[0].scheme], layout.as_widths(widths)
        work = workspace.allocate_batch(widths, dtype, tableau.stages)
        dt, (a, b) = _in_lanes([method.dt for method in methods], dtype), tableau.astype(dtype)
        return lambda params, losses, statuses: cpu.batch_rk_steps(
            params, widths, targets, dt, a, b, losses, statuses, work
        )

    def chain_stepper(self, modes, target, weights):
        """As that of GD."""
        from lrcore import cpu

        tableau = TABLEAUS[self.scheme]
        (a, b), work = tableau.astype(modes.dtype), workspace.allocate_diagonal(*modes.shape, stages=tableau.stages)
        return lambda losses: cpu.diagonal_rk_steps(modes, target, weights, self.dt, a, b, losses, work)

    def settings(self):
        return {**super().settings(), "scheme": self.scheme}


class SGD(Descent):
    """Stochastic gradient descent on single entries of a Completion (or of a whole target).

    A step draws `batch` entries (r, c): W_i ← (1 − 2ηλ) W_i − η · mean of (W_rc − Ŵ_rc) ∂W_rc/∂W_i, all layers from
    the old point. That is the step of Wang and Jacot when the loss is a mean, `Completion(…, mean=True)`; for a loss
    that is a sum the gradient is multiplied by the number of entries, so that its expectation always is that of GD.
    `losses` hold what the drawn entries say: ½ of the mean square of their residuals, times that number, no ridge.

    Weights below 1e-30 become 0 at every 1024th step (see `lrcore.objective`).

    lr: learning rate η, > 0.
    ridge: λ ≥ 0, with 2ηλ < 1.
    batch: entries of a step.
    replacement: False draws a fresh permutation for each epoch; its last batch may be smaller.
    sampling_seed: the draws of a step depend on it and on the number of the step alone.
    lr_schedule, ridge_schedule: as for GD.
    """

    name: ClassVar[str] = "sgd"
    label: ClassVar[str] = "stochastic gradient descent"
    stochastic: ClassVar[bool] = True
    batch: Count = Field(1, description="an integer of at least 1")
    replacement: bool = Field(True, strict=True, description="True or False")
    sampling_seed: Seed = Field(0, description="an integer from 0 to 2^64 - 1")

    @property
    def plain(self):
        return False

    @property
    def caption(self):
        kind = "" if self.replacement else ", without replacement"
        several = f", batch {self.batch}" if self.batch > 1 else ""
        return self._with_ridge(f"SGD, lr = {self.lr:g}{several}{kind}")

    def _check_batch(self, entries):
        count = entries.rows.shape[0]
        require(self.batch <= count, "batch", self.batch, f"at most {count}, the number of observed entries")

    def stepper(self, problem, widths, dtype, threads=1):
        """See the top of this file; one thread makes all steps."""
        from lrcore import cpu

        entries, widths = problem.entries(dtype), layout.as_widths(widths)
        self._check_batch(entries)
        work, seed = workspace.allocate_sgd(widths, entries.rows.size, self.batch, dtype), np.uint64(self.sampling_seed)

        def steps(params, losses, step=0):
            rates, ridges = (f(step, losses.size).astype(dtype) for f in (self.rates, self.ridges))
            sampling = Sampling(seed, step, self.batch, self.replacement)
            return cpu.sgd_steps(params, widths, entries, rates, ridges, sampling, losses, work)

        return steps

    @classmethod
    def many_stepper(cls, methods, problems, widths, dtype):
        """steps(params, count, statuses, step) -> mean losses, for many runs with a method and a problem each.

        params (blocks, P, lanes), as `layout.to_lanes` makes it; statuses (blocks, lanes), read and written; losses
        likewise. Batch, sampling and schedules of all methods are those of the first, the numbers of entries are equal.
        """
        from lrcore import cpu

        first, lanes, widths = methods[0], layout.lanes(dtype), layout.as_widths(widths)
        own = {id(problem): problem.entries(dtype) for problem in problems}
        every = [own[id(problem)] for problem in problems]
        first._check_batch(every[0])
        blocked = [
            layout.to_lanes(np.stack([getattr(entries, name) for entries in every]).astype(kind), lanes)
            for name, kind in (("rows", np.int32), ("columns", np.int32), ("values", dtype))
        ]
        entries = Entries(*blocked, every[0].weight)
        lr, ridge = (_in_lanes([getattr(m, key) for m in methods], dtype) for key in ("lr", "ridge"))
        seeds = layout.to_lanes(np.array([m.sampling_seed for m in methods], np.uint64), lanes)
        work = workspace.allocate_batch_sgd(widths, every[0].rows.size, first.batch, dtype)

        def steps(params, count, statuses, step):
            losses, factors = np.empty(statuses.shape, dtype), first.factors(step, count, dtype)
            sampling = Sampling(seeds, step, first.batch, first.replacement)
            cpu.batch_sgd_steps(params, widths, entries, lr, ridge, factors, sampling, losses, statuses, work)
            return losses

        return steps


METHODS = {method.name: method for method in (GD, GradientFlow, SGD)}
OWN = {name: tuple(method.model_fields) for name, method in METHODS.items()}  # the settings that each has
