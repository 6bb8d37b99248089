"""Greedy low-rank learning."""

from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from lrbias.errors import check
from lrbias.methods._base import METHODS, Method
from lrbias.methods._flow import GradientFlow
from lrbias.methods._gd import GD
from lrbias.network import Network
from lrbias.problems import Problem
from lrbias.settings import Accepts, Count, Depth, Kinds, OneOf, Positive, Share, Switch, Unset
from lrcore import layout

INNER = Kinds("method", word="inner", default="gd", base=Method)
INNER.add(GD)
INNER.add(GradientFlow)


def _checked_inner(value: Any) -> Any:
    plain = isinstance(value, (GD, GradientFlow)) and value.plain
    check(plain, "inner", value, "a GD or GradientFlow without ridge and schedule")
    return value


@METHODS.add
class GLRL(Method):
    """Greedy low-rank learning (Li, Luo and Lyu): from nothing, one direction after the other.

    While the loss f falls in some direction from the product W, the steepest one is given to a new hidden unit of every
    layer, and the layers are trained until their gradient vanishes: a phase. With the leading singular triple
    (σ, u, v) of −∇f(W) the unit has the weights ε^{1/N} v, ε^{1/N}, …, ε^{1/N} u, so that the product grows by ε u vᵀ.
    A run ends when σ is at most `cutoff` times what it was at W = 0. `run.phases` lists the phases.

    For depth 2 this is the algorithm of the paper, for `tied` layers (W = U Uᵀ, u = v an eigenvector with positive
    eigenvalue) as for others (which are tied ones of [[0, W], [Wᵀ, 0]], where the unit has the strength 2ε). The form
    for depth ≥ 3, all tolerances and their defaults are ours.

    A phase ends when the gradient norm is at most `tolerance` times σ at W = 0 and the new unit was trained: its own
    gradient, divided by the (N−1)-th power of its norm, is at most half of σ. `max_rank` is also the width of the
    hidden layers of the recorded network, whose other units are 0.
    """

    name: ClassVar[str] = "glrl"
    label: ClassVar[str] = "greedy low-rank learning"
    phases: ClassVar[bool] = True
    starts_empty: ClassVar[bool] = True
    most_steps: ClassVar[int | None] = 1_000_000
    epsilon: Positive = Field(default=1e-6, description="strength ε of a new direction")
    inner: Annotated[Method, OneOf(INNER), AfterValidator(_checked_inner)] = Field(
        default=GD(), description="gd or flow without ridge and schedule, which trains in a phase"
    )
    depth: Annotated[Depth, Field(ge=2), Accepts("an integer of at least 2, at most 1000")] = Field(
        default=2, description="number of layers N"
    )
    tied: Switch = Field(default=False, description="learn W = U Uᵀ, for a symmetric loss and depth 2")
    tolerance: Positive = Field(
        default=1e-9, description="gradient norm at which a phase ends, relative to the slope at W = 0"
    )
    cutoff: Share = Field(
        default=1e-6, description="slope of the last direction that is learnt, relative to that at W = 0"
    )
    max_rank: Annotated[Count | None, Unset("the smaller side of the target")] = Field(
        default=None, description="end after so many phases"
    )
    check_every: Count = Field(default=100, description="iterations between two looks at the gradient")

    @model_validator(mode="after")
    def _check_form(self) -> Self:
        check(not self.tied or self.depth == 2, "depth", self.depth, "2 for tied layers")
        check(self.ridge == 0, "ridge", self.ridge, "0 for greedy low-rank learning")
        return self

    @property
    def plain(self) -> bool:
        return False

    @property
    def fixed(self) -> bool:
        return False

    @property
    def step_size(self) -> float:
        return self.inner.step_size

    @property
    def caption(self) -> str:
        return f"greedy, N = {self.depth}{' (tied)' if self.tied else ''}, ε = {self.epsilon:g}"

    def start(self, problem: Problem, network: Any) -> Network:
        """A network of zeros, with room for every direction."""
        check(network is None, "network", network, "None: greedy low-rank learning starts from nothing")
        check(not self.tied or problem.symmetric_loss, "tied", self.tied, f"False, or a symmetric loss for {problem}")
        smaller = min(problem.shape)
        most = smaller if self.max_rank is None else self.max_rank
        check(most <= smaller, "max_rank", most, f"at most {smaller}, the smaller side of the target")
        widths = (problem.shape[1], *[most] * (self.depth - 1), problem.shape[0])
        return Network(np.zeros(layout.size(widths)), widths)

    def settings(self) -> dict[str, Any]:
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
