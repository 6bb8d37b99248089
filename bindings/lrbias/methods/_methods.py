"""How the network is trained: methods as frozen settings that know their kernel.

`stepper(problem, widths, dtype, threads, device)` gives steps(params, losses, step=0) -> status: as many steps as
`losses` is long, the first of which has the number `step`, made by the kernels of a `Device`. With a ridge λ every method minimises the loss + λ Σ ‖W_i‖².
"""

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from lrbias.devices import CPU
from lrbias.errors import require
from lrbias.network import Network
from lrbias.methods._schedules import as_schedule, as_settings
from lrbias.settings import Count, Depth, NotNegative, Positive, Seed, Settings, Share
from lrbias.system import together
from lrcore import layout
from lrcore.objective import Entries, Sampling
from lrcore.tableau import PAIRS, TABLEAUS

RIDGE = "a finite number of at least 0"
SCHEMES = (*TABLEAUS, *PAIRS)
RTOL = 1e-6


def _known_scheme(name):
    if name not in SCHEMES:
        raise ValueError("unknown scheme")
    return name


def _schedule(argument):
    """The annotation of a schedule: see `lrbias.methods._schedules`."""
    return Annotated[Any, BeforeValidator(lambda value: as_schedule(argument, value))]


def _checked_inner(value):
    plain = isinstance(value, (GD, GradientFlow)) and value.plain
    require(plain, "inner", value, "a GD or GradientFlow without ridge and schedule")
    return value


def _in_lanes(numbers, dtype):
    return layout.to_lanes(np.array(numbers, dtype), layout.lanes(dtype))


class Method(Settings):
    """What all methods have: a ridge, and a name for files and for people.

    Each one has a step_size beside it, the time t per step; the first one where a schedule changes it.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    stochastic: ClassVar[bool] = False  # whether a step, and so the loss of it, sees only part of the data
    most_steps: ClassVar[int | None] = None  # of a run that is not told how many, where a method knows its end
    ridge: NotNegative = Field(0.0, description=RIDGE)

    @property
    def plain(self):
        """Whether only the loss is minimised, with steps of one size: that has the fastest kernels and short cuts."""
        return self.ridge == 0

    @property
    def fixed(self):
        """Whether every step is the same map of the layers: short forms and kernels for many runs need that."""
        return True

    def start(self, problem, network):
        """The Network that a run starts from, given the one it was handed. Raises InvalidInput."""
        require(isinstance(network, Network), "network", network, "a Network")
        return network

    def check_record(self, record):
        """InvalidInput when `record` (a Record) asks for what has no meaning under this method."""

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
    lr_schedule, ridge_schedule: how they change, as a schedule, a dictionary or text; see `lrbias.methods._schedules`.
    """

    name: ClassVar[str] = "gd"
    label: ClassVar[str] = "gradient descent"

    @property
    def caption(self):
        """For a legend."""
        return self._with_ridge(f"GD, lr = {self.lr:g}")

    def stepper(self, problem, widths, dtype, threads=1, device=CPU):
        """See the top of this file."""
        kernels, widths = device.kernels, layout.as_widths(widths)
        works = device.workspace.team(widths, dtype, 0, threads)
        if self.plain and problem.plain:
            target, lr = device.constant(layout.aligned_copy(problem.target, dtype)), np.dtype(dtype).type(self.lr)
            return together(
                lambda params, losses, _, work: kernels.gd_steps(params, widths, target, lr, losses, work), works
            )
        goal = device.constant(problem.objective(dtype))

        def steps(params, losses, step, work):
            rates, ridges = (f(step, losses.size).astype(dtype) for f in (self.rates, self.ridges))
            return kernels.objective_gd_steps(params, widths, goal, rates, ridges, losses, work)

        return together(steps, works)

    @classmethod
    def batch_stepper(cls, methods, targets, widths, dtype, device=CPU):
        """steps(params, losses, statuses) for many runs, a method for each; arrays as `layout.to_lanes` makes them."""
        made, widths = device.kernels.batch_gd_steps, layout.as_widths(widths)
        work, targets = device.workspace.allocate_batch(widths, dtype), device.constant(targets)
        lr = _in_lanes([method.lr for method in methods], dtype)
        return lambda params, losses, statuses: made(params, widths, targets, lr, losses, statuses, work)

    def chain_stepper(self, modes, target, weights, device=CPU):
        """steps(losses) -> status for independent chains of numbers, changing `modes` (see `lrcore.cpu.diagonal`)."""
        made, work = device.kernels.diagonal_gd_steps, device.workspace.allocate_diagonal(*modes.shape)
        target, weights = device.constant(target), device.constant(weights)
        return lambda losses: made(modes, target, weights, self.lr, losses, work)


class GradientFlow(Method):
    """Gradient flow dW_i/dt = −∂L/∂W_i − 2λ W_i.

    dt: time step, > 0; to compare with GD, t = lr · iteration.
    scheme: rk4 (order 4, four gradients a step), heun (order 2) or euler (which is GD) make steps of dt. dopri5
        (Dormand and Prince, order 5) chooses its own, whatever dt is: its layers at multiples of dt are interpolated to
        order 4. A plateau then takes few gradients; a small dt takes a forward pass for each of its losses.
    ridge: λ ≥ 0.
    rtol, atol: of dopri5, 1e-6 and 0 unless given: the error of a step, as root mean square over all weights, is at
        most atol + rtol · root mean square of the weights. (Ours: one norm for all weights, so the steps do not depend
        on the basis. Modes that are small beside others are followed as well as their own time scale lets them.)
    """

    name: ClassVar[str] = "flow"
    label: ClassVar[str] = "gradient flow"
    dt: Positive
    scheme: Annotated[str, AfterValidator(_known_scheme)] = Field("rk4", description="one of " + ", ".join(SCHEMES))
    rtol: Positive | None = Field(None, description="a finite number greater than 0")
    atol: NotNegative | None = Field(None, description="a finite number of at least 0")

    @model_validator(mode="after")
    def _check_tolerances(self):
        for name in ("rtol", "atol"):
            value, accepted = getattr(self, name), f"nothing for {self.scheme}, whose steps are all dt long"
            require(value is None or not self.fixed, name, value, accepted)
        return self

    @property
    def step_size(self):
        return self.dt

    @property
    def fixed(self):
        return self.scheme in TABLEAUS

    @property
    def tolerances(self):
        """(rtol, atol) of dopri5."""
        return RTOL if self.rtol is None else self.rtol, 0.0 if self.atol is None else self.atol

    @property
    def caption(self):
        chosen = f"dt = {self.dt:g}" if self.fixed else f"rtol = {self.tolerances[0]:g}"
        return self._with_ridge(f"gradient flow ({self.scheme}), {chosen}")

    def stepper(self, problem, widths, dtype, threads=1, device=CPU):
        kernels, tableau, widths = device.kernels, TABLEAUS[self.scheme], layout.as_widths(widths)
        dt, ridge = (np.dtype(dtype).type(number) for number in (self.dt, self.ridge))
        (a, b), works = tableau.astype(dtype), device.workspace.team(widths, dtype, tableau.stages, threads)
        if self.plain and problem.plain:
            made, numbers, goal = kernels.rk_steps, (dt, a, b), layout.aligned_copy(problem.target, dtype)
        else:
            made, numbers, goal = kernels.objective_rk_steps, (ridge, dt, (a, b)), problem.objective(dtype)
        goal = device.constant(goal)
        return together(lambda params, losses, _, work: made(params, widths, goal, *numbers, losses, work), works)

    @classmethod
    def batch_stepper(cls, methods, targets, widths, dtype, device=CPU):
        """As that of GD; all methods have the same scheme."""
        made, tableau, widths = device.kernels.batch_rk_steps, TABLEAUS[methods[0].scheme], layout.as_widths(widths)
        work, targets = device.workspace.allocate_batch(widths, dtype, tableau.stages), device.constant(targets)
        dt, (a, b) = _in_lanes([method.dt for method in methods], dtype), tableau.astype(dtype)
        return lambda params, losses, statuses: made(params, widths, targets, dt, a, b, losses, statuses, work)

    def chain_stepper(self, modes, target, weights, device=CPU):
        """As that of GD."""
        made, tableau = device.kernels.diagonal_rk_steps, TABLEAUS[self.scheme]
        work = device.workspace.allocate_diagonal(*modes.shape, stages=tableau.stages)
        (a, b), target, weights = tableau.astype(modes.dtype), device.constant(target), device.constant(weights)
        return lambda losses: made(modes, target, weights, self.dt, a, b, losses, work)

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

    def stepper(self, problem, widths, dtype, threads=1, device=CPU):
        """See the top of this file; one thread makes all steps."""
        made, entries, widths = device.kernels.sgd_steps, problem.entries(dtype), layout.as_widths(widths)
        self._check_batch(entries)
        work = device.workspace.allocate_sgd(widths, entries.rows.size, self.batch, dtype)
        entries, seed = device.constant(entries), np.uint64(self.sampling_seed)

        def steps(params, losses, step=0):
            rates, ridges = (f(step, losses.size).astype(dtype) for f in (self.rates, self.ridges))
            sampling = Sampling(seed, step, self.batch, self.replacement)
            return made(params, widths, entries, rates, ridges, sampling, losses, work)

        return steps

    @classmethod
    def many_stepper(cls, methods, problems, widths, dtype, device=CPU):
        """steps(params, count, statuses, step) -> mean losses, for many runs with a method and a problem each.

        params (blocks, P, lanes), as `layout.to_lanes` makes it; statuses (blocks, lanes), read and written; losses
        likewise. Batch, sampling and schedules of all methods are those of the first, the numbers of entries are equal.
        """
        first, lanes, widths = methods[0], layout.lanes(dtype), layout.as_widths(widths)
        own = {id(problem): problem.entries(dtype) for problem in problems}
        every = [own[id(problem)] for problem in problems]
        first._check_batch(every[0])
        blocked = [
            layout.to_lanes(np.stack([getattr(entries, name) for entries in every]).astype(kind), lanes)
            for name, kind in (("rows", np.int32), ("columns", np.int32), ("values", dtype))
        ]
        made, entries = device.kernels.batch_sgd_steps, device.constant(Entries(*blocked, every[0].weight))
        lr, ridge = (_in_lanes([getattr(m, key) for m in methods], dtype) for key in ("lr", "ridge"))
        seeds = layout.to_lanes(np.array([m.sampling_seed for m in methods], np.uint64), lanes)
        work = device.workspace.allocate_batch_sgd(widths, every[0].rows.size, first.batch, dtype)

        def steps(params, count, statuses, step):
            losses, factors = np.empty(statuses.shape, dtype), first.factors(step, count, dtype)
            sampling = Sampling(seeds, step, first.batch, first.replacement)
            made(params, widths, entries, lr, ridge, factors, sampling, losses, statuses, work)
            return losses

        return steps


class GLRL(Method):
    """Greedy low-rank learning (Li, Luo and Lyu): from nothing, one direction after the other.

    While the loss f falls in some direction from the product W, the steepest one is given to a new hidden unit of every
    layer, and the layers are trained until their gradient vanishes: a phase. With the leading singular triple
    (σ, u, v) of −∇f(W) the unit has the weights ε^{1/N} v, ε^{1/N}, …, ε^{1/N} u, so that the product grows by ε u vᵀ.
    A run ends when σ is at most `cutoff` times what it was at W = 0. `run.phases` lists the phases.

    For depth 2 this is the algorithm of the paper, for `tied` layers (W = U Uᵀ, u = v an eigenvector with positive
    eigenvalue) as for others (which are tied ones of [[0, W], [Wᵀ, 0]], where the unit has the strength 2ε). The form
    for depth ≥ 3, all tolerances and their defaults are ours.

    epsilon: strength ε > 0 of a new direction.
    inner: the GD or GradientFlow that trains in a phase, without ridge and schedule.
    depth: number of layers N ≥ 2.
    tied: W = U Uᵀ for a loss that is symmetric; depth 2.
    tolerance: a phase ends when the gradient norm is at most this times σ at W = 0 (and the new unit was trained: its
        own gradient, divided by the (N−1)-th power of its norm, is at most half of σ).
    cutoff: see above, in (0, 1).
    max_rank: end after so many phases; None: as many as the smaller side of the target, which is also the width of the
        hidden layers of the recorded network, whose other units are 0.
    check_every: steps between two looks at the gradient.
    """

    name: ClassVar[str] = "glrl"
    label: ClassVar[str] = "greedy low-rank learning"
    most_steps: ClassVar[int | None] = 1_000_000
    epsilon: Positive = 1e-6
    inner: Annotated[Any, AfterValidator(_checked_inner)] = GD(lr=1e-3)
    depth: Annotated[Depth, Field(ge=2, description="an integer of at least 2, at most 1000")] = 2
    tied: bool = Field(False, strict=True, description="True or False")
    tolerance: Positive = 1e-9
    cutoff: Share = 1e-6
    max_rank: Count | None = Field(None, description="an integer of at least 1, or nothing")
    check_every: Count = Field(100, description="an integer of at least 1")

    @model_validator(mode="after")
    def _check_form(self):
        require(not self.tied or self.depth == 2, "depth", self.depth, "2 for tied layers")
        require(self.ridge == 0, "ridge", self.ridge, "0 for greedy low-rank learning")
        return self

    @property
    def plain(self):
        return False

    @property
    def fixed(self):
        return False

    @property
    def step_size(self):
        return self.inner.step_size

    @property
    def caption(self):
        return f"greedy, N = {self.depth}{' (tied)' if self.tied else ''}, ε = {self.epsilon:g}"

    def start(self, problem, network):
        """A network of zeros, with room for every direction."""
        require(network is None, "network", network, "None: greedy low-rank learning starts from nothing")
        require(not self.tied or problem.symmetric_loss, "tied", self.tied, f"False, or a symmetric loss for {problem}")
        smaller = min(problem.shape)
        most = smaller if self.max_rank is None else self.max_rank
        require(most <= smaller, "max_rank", most, f"at most {smaller}, the smaller side of the target")
        widths = (problem.shape[1], *[most] * (self.depth - 1), problem.shape[0])
        return Network(np.zeros(layout.size(widths)), widths)

    def settings(self):
        own = {"method": self.name, **self.model_dump(exclude_defaults=True, exclude={"inner"})}
        inner = self.inner.settings()
        return {
            **own,
            "epsilon": self.epsilon,
            "depth": self.depth,
            **inner,
            "method": self.name,
            "inner": inner["method"],
        }


class Linearized(Method):
    """Gradient descent on the network linearised at its start, f(θ) = W(θ_0) + J (θ − θ_0): the lazy limit.

    It is made in the space of outputs, W ← W − η K_0(∂L/∂W) with the tangent kernel K_0 = J Jᵀ of the start (Jacot et
    al. 2018; the same steps as in the space of weights). So its run is that of a network with one layer, which is the
    linear model itself: product, ranks, alignment and loss are those of the model, there are no other layers, and its
    own kernel and curvature never change. `lb.compare` draws it beside the run of the full network.

    lr: learning rate η, > 0, of the weights.
    lr_schedule: as for GD.
    """

    name: ClassVar[str] = "linearized"
    label: ClassVar[str] = "linearised gradient descent"
    lr: Positive
    lr_schedule: _schedule("lr_schedule") = None

    @model_validator(mode="after")
    def _check_ridge(self):
        require(self.ridge == 0, "ridge", self.ridge, "0 for a linearised network, whose weights are not kept")
        return self

    @property
    def plain(self):
        return False

    @property
    def fixed(self):
        return False

    @property
    def step_size(self):
        return self.lr

    @property
    def caption(self):
        return f"linearised, lr = {self.lr:g}"

    def rates(self, first, count):
        return self.lr * _factors(self.lr_schedule, first, count)

    def start(self, problem, network):
        """The linear model at its start: a network of one layer, the output of the given one."""
        super().start(problem, network)
        problem.check(network)
        network.check_method(self)
        return Network(network.product().ravel(), (network.widths[0], network.widths[-1]))

    def check_record(self, record):
        for name in ("sharpness", "negative_curvature", "ntk", "ntk_eigenvalues"):
            accepted = "metrics of a linear model, whose curvature and kernel are those of its start"
            require(name not in record.intervals(), "metrics", name, accepted)


METHODS = {method.name: method for method in (GD, GradientFlow, SGD, GLRL, Linearized)}
OWN = {name: tuple(method.model_fields) for name, method in METHODS.items()}  # the settings that each has
INNER = ("gd", "flow")
# those of a phase's method stand beside its own; the depth of other methods is that of the network
OWN["glrl"] = tuple(dict.fromkeys(key for name in ("glrl", *INNER) for key in OWN[name] if key != "depth"))
