"""Greedy low-rank learning."""

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from lrbias.errors import require
from lrbias.methods._base import Method
from lrbias.methods._flow import GradientFlow
from lrbias.methods._gd import GD
from lrbias.network import Network
from lrbias.settings import Count, Depth, Positive, Share
from lrcore import layout


def _checked_inner(value):
    plain = isinstance(value, (GD, GradientFlow)) and value.plain
    require(plain, "inner", value, "a GD or GradientFlow without ridge and schedule")
    return value


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
    phases: ClassVar[bool] = True
    starts_empty: ClassVar[bool] = True
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
