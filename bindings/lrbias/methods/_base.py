"""What all methods have."""

import functools
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from numpy.typing import DTypeLike
from pydantic import BeforeValidator, Field, model_validator

from lrbias.errors import check
from lrbias.methods._schedules import as_schedule, as_settings
from lrbias.network import Network
from lrbias.problems import Problem
from lrbias.settings import Accepts, Kind, Kinds, NotNegative, Positive

STEP_SIZE = 1e-3  # learning rate or time step of a method that is not told another
LR_SCHEDULE = (
    "how the learning rate changes: exponential_decay:factor=0.1,start=0,stop=1000 or linear_decay: likewise, "
    "piecewise_constant:factor=0.1,milestones=500+800 or square_wave:factor=0.1,period=200,share=0.5"
)


A_SCHEDULE = Accepts("a schedule, as in exponential_decay:factor=0.1,start=0,stop=1000")
LrSchedule = Annotated[Any, BeforeValidator(functools.partial(as_schedule, "lr_schedule")), A_SCHEDULE]
RidgeSchedule = Annotated[Any, BeforeValidator(functools.partial(as_schedule, "ridge_schedule")), A_SCHEDULE]


def factors_of(schedule: Any, first: int, count: int) -> np.ndarray:
    """What the steps first … first + count − 1 are multiplied by; 1 without a schedule."""
    return np.ones(count) if schedule is None else schedule.factors(first, count)


class Method(Kind):
    """What all methods have: a ridge, a name for files and for people, and what they declare of themselves.

    stochastic    a step, and so the loss of it, sees only part of the data
    phases        training goes by phases, each as long as it takes: a run lists them, and its time is its own
    starts_empty  the method makes its network itself: none is given
    linear        the network is its linearization, whose curvature and kernel do not change
    euler         a step is W_i − η ∂L/∂W_i of the whole loss, which is Euler's method on the gradient flow
    step_name     the setting that is the step size
    most_steps    of a run that is not told how many, where a method knows its end
    """

    label: ClassVar[str]
    stochastic: ClassVar[bool] = False
    phases: ClassVar[bool] = False
    starts_empty: ClassVar[bool] = False
    linear: ClassVar[bool] = False
    euler: ClassVar[bool] = False
    step_name: ClassVar[str] = "lr"
    most_steps: ClassVar[int | None] = None
    ridge: NotNegative = Field(default=0.0, description="λ: minimise the loss + λ Σ ‖W_i‖²")

    @property
    def step_size(self) -> float:
        """Time t per step; that of the first one where a schedule changes it."""
        raise NotImplementedError

    @property
    def caption(self) -> str:
        """For a legend."""
        raise NotImplementedError

    @property
    def plain(self) -> bool:
        """Whether only the loss is minimised, with steps of one size: that has the fastest kernels and short cuts."""
        return self.ridge == 0

    @property
    def fixed(self) -> bool:
        """Whether every step is the same map of the layers: exact reductions and kernels for many runs need that."""
        return True

    @property
    def has_stability_limit(self) -> bool:
        """Whether its steps are stable below some size, and grow beyond it, by the curvature of the loss alone."""
        return self.euler or self.linear

    def fits_whole(self, problem: Problem) -> bool:
        """Whether what is minimised is ½‖W − target‖_F² and nothing else: a whole target, without ridge."""
        return problem.plain and self.ridge == 0

    def is_plain_on(self, problem: Problem) -> bool:
        """Whether that is done by steps of one size: it has the fastest kernels, exact reductions and forecasts."""
        return self.plain and self.fits_whole(problem)

    def start(self, problem: Problem, network: Any) -> Network:
        """The Network that a run starts from, given the one it was handed. Raises InvalidInput."""
        check(isinstance(network, Network), "network", network, "a Network")
        return network

    def check_record(self, record: Any) -> None:
        """InvalidInput when `record` (a Record) asks for what has no meaning under this method."""

    def rates(self, first: int, count: int) -> np.ndarray:
        """Time t of the steps first … first + count − 1."""
        return np.full(count, self.step_size)

    def ridges(self, first: int, count: int) -> np.ndarray:
        """λ of these steps."""
        return np.full(count, self.ridge)

    def settings(self) -> dict[str, Any]:
        """Keys of an experiment file; what has its default is left out, apart from the method's own numbers."""
        size = {name: getattr(self, name) for name in (self.step_name,) if name in type(self).model_fields}
        others = self.model_dump(exclude_defaults=True, exclude={"lr_schedule", "ridge_schedule"})
        own = {"method": self.name, **size, **others}
        schedules = {key: getattr(self, key, None) for key in ("lr_schedule", "ridge_schedule")}
        return {**own, **{key: as_settings(value) for key, value in schedules.items() if value is not None}}

    def _with_ridge(self, text: str) -> str:
        return f"{text}, ridge = {self.ridge:g}" if self.ridge else text


METHODS = Kinds("method", word="method", default="gd", base=Method, home="lrbias.methods", group="lrbias.methods")


class Descent(Method):
    """Methods with a learning rate: it and the ridge may follow a schedule, of which they are the largest values."""

    lr: Positive = Field(default=STEP_SIZE, description="learning rate η; a step advances the time t by it")
    lr_schedule: LrSchedule = Field(default=None, description=LR_SCHEDULE)
    ridge_schedule: RidgeSchedule = Field(
        default=None, description="how the ridge changes, in the same words; with 2ηλ < 1"
    )

    @model_validator(mode="after")
    def _check_decay(self) -> Self:
        """Weights are multiplied by 1 − 2ηλ in a step, which has to stay positive."""
        check(2 * self.lr * self.ridge < 1, "ridge", self.ridge, f"less than 1/(2 lr) = {0.5 / self.lr:g}")
        scheduled = self.ridge_schedule is None or self.ridge > 0
        check(scheduled, "ridge", self.ridge, "a number greater than 0, which ridge_schedule multiplies")
        return self

    @property
    def step_size(self) -> float:
        return self.lr

    @property
    def plain(self) -> bool:
        return self.ridge == 0 and self.lr_schedule is None

    def rates(self, first: int, count: int) -> np.ndarray:
        """η of the steps first … first + count − 1."""
        return self.lr * factors_of(self.lr_schedule, first, count)

    def ridges(self, first: int, count: int) -> np.ndarray:
        return self.ridge * factors_of(self.ridge_schedule, first, count)

    def factors(self, first: int, count: int, dtype: DTypeLike) -> np.ndarray:
        """(2, count): what `lr` and `ridge` are multiplied by in these steps."""
        return np.stack([factors_of(s, first, count) for s in (self.lr_schedule, self.ridge_schedule)]).astype(dtype)
