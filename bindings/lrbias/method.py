"""How the network is trained: methods as frozen settings that know their kernel."""

from typing import Annotated, ClassVar

import numpy as np
from pydantic import AfterValidator, Field

from lrbias.settings import Positive, Settings
from lrbias.threads import together
from lrcore import layout, workspace
from lrcore.tableau import TABLEAUS


def _known_scheme(name):
    if name not in TABLEAUS:
        raise ValueError("unknown scheme")
    return name


def _in_lanes(numbers, dtype):
    return layout.to_lanes(np.array(numbers, dtype), layout.lanes(dtype))


class GD(Settings):
    """Gradient descent: W_i ← W_i − lr ∂L/∂W_i, all layers at once.

    lr: learning rate, > 0. One step advances the time t by lr.
    """

    name: ClassVar[str] = "gd"
    label: ClassVar[str] = "gradient descent"
    lr: Positive

    @property
    def step_size(self):
        """Time t per step."""
        return self.lr

    def stepper(self, problem, widths, dtype, threads=1):
        """steps(params, losses) -> status: the kernel with everything that does not change bound to it."""
        from lrcore import cpu

        widths, target = layout.as_widths(widths), layout.aligned_copy(problem.target, dtype)
        lr = np.dtype(dtype).type(self.lr)
        works = workspace.team(widths, dtype, 0, threads)
        return together(lambda params, losses, work: cpu.gd_steps(params, widths, target, lr, losses, work), works)

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

    def settings(self):
        return {"method": self.name, "lr": self.lr}


class GradientFlow(Settings):
    """Gradient flow dW_i/dt = −∂L/∂W_i, integrated with a fixed step.

    dt: time step, > 0; to compare with GD, t = lr · iteration.
    scheme: rk4 (order 4, four gradients a step), heun (order 2) or euler (which is GD).
    """

    name: ClassVar[str] = "flow"
    label: ClassVar[str] = "gradient flow"
    dt: Positive
    scheme: Annotated[str, AfterValidator(_known_scheme)] = Field("rk4", description="one of " + ", ".join(TABLEAUS))

    @property
    def step_size(self):
        return self.dt

    def stepper(self, problem, widths, dtype, threads=1):
        from lrcore import cpu

        tableau, widths, target = (
            TABLEAUS[self.scheme],
            layout.as_widths(widths),
            layout.aligned_copy(problem.target, dtype),
        )
        dt, (a, b) = np.dtype(dtype).type(self.dt), tableau.astype(dtype)
        works = workspace.team(widths, dtype, tableau.stages, threads)
        return together(
            lambda params, losses, work: cpu.rk_steps(params, widths, target, dt, a, b, losses, work), works
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
        return {"method": self.name, "dt": self.dt, "scheme": self.scheme}


METHODS = {method.name: method for method in (GD, GradientFlow)}
