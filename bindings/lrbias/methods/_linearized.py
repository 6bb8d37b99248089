"""The lazy limit: gradient descent on the linearised network."""

from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from lrbias.errors import check
from lrbias.methods._base import LR_SCHEDULE, METHODS, STEP_SIZE, LrSchedule, Method, factors_of
from lrbias.network import Network
from lrbias.problems import Problem
from lrbias.settings import Positive


@METHODS.add
class Linearized(Method):
    """Gradient descent on the network linearised at its start, f(θ) = W(θ_0) + J (θ − θ_0): the lazy limit.

    It is made in the space of outputs, W ← W − η K_0(∂L/∂W) with the tangent kernel K_0 = J Jᵀ of the start (Jacot et
    al. 2018; the same steps as in the space of weights). So its run is that of a network with one layer, which is the
    linear model itself: product, ranks, alignment and loss are those of the model, there are no other layers, and its
    own kernel and curvature never change. `lb.compare` draws it beside the run of the full network.
    """

    name: ClassVar[str] = "linearized"
    label: ClassVar[str] = "linearised gradient descent"
    linear: ClassVar[bool] = True
    lr: Positive = Field(default=STEP_SIZE, description="learning rate η of the weights")
    lr_schedule: LrSchedule = Field(default=None, description=LR_SCHEDULE)

    @model_validator(mode="after")
    def _check_ridge(self) -> Self:
        check(self.ridge == 0, "ridge", self.ridge, "0 for a linearised network, whose weights are not kept")
        return self

    @property
    def plain(self) -> bool:
        return False

    @property
    def fixed(self) -> bool:
        return False

    @property
    def step_size(self) -> float:
        return self.lr

    @property
    def caption(self) -> str:
        return f"linearised, lr = {self.lr:g}"

    def rates(self, first: int, count: int) -> np.ndarray:
        return self.lr * factors_of(self.lr_schedule, first, count)

    def start(self, problem: Problem, network: Any) -> Network:
        """The linear model at its start: a network of one layer, the output of the given one."""
        super().start(problem, network)
        problem.check(network)
        network.check_method(self)
        return Network(network.product().ravel(), (network.widths[0], network.widths[-1]))

    def check_record(self, record: Any) -> None:
        for name in ("sharpness", "hessian_min_eigenvalues", "ntk", "ntk_eigenvalues"):
            accepted = "metrics of a linear model, whose curvature and kernel are those of its start"
            check(name not in record.intervals(), "metrics", name, accepted)
