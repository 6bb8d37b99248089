"""Gradient flow, by Runge–Kutta methods."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from lrbias.errors import check_settable
from lrbias.methods._base import METHODS, STEP_SIZE, Method
from lrbias.settings import Accepts, NotNegative, Positive, Unset
from lrcore.tableau import PAIRS, TABLEAUS

SCHEMES = (*TABLEAUS, *PAIRS)
RTOL = 1e-6


def _known_scheme(name: str) -> str:
    if name not in SCHEMES:
        raise ValueError("unknown scheme")
    return name


Scheme = Annotated[str, AfterValidator(_known_scheme), Accepts("one of " + ", ".join(SCHEMES))]
SCHEMES_HELP = "rk4, heun or euler, which make steps of dt, or dopri5, which chooses its steps"


@METHODS.add
class GradientFlow(Method):
    """Gradient flow dW_i/dt = −∂L/∂W_i − 2λ W_i.

    The schemes rk4 (order 4, four gradients a step), heun (order 2) and euler (which is GD) make steps of dt. dopri5
    (Dormand and Prince, order 5) chooses its own, whatever dt is: its layers at multiples of dt are interpolated to
    order 4. A plateau then takes few gradients; a small dt takes a forward pass for each of its losses. The error of a
    step of dopri5, as root mean square over all weights, is at most atol + rtol · root mean square of the weights.
    (Ours: one norm for all weights, so the steps do not depend on the basis. Modes that are small beside others are
    followed as well as their own time scale lets them.)
    """

    name: ClassVar[str] = "flow"
    label: ClassVar[str] = "gradient flow"
    step_name: ClassVar[str] = "dt"
    dt: Positive = Field(
        default=STEP_SIZE,
        description="time step; of dopri5 only the time between two losses. GD has t = lr · iteration",
    )
    scheme: Scheme = Field(default="rk4", description=SCHEMES_HELP)
    rtol: Annotated[Positive | None, Unset(f"{RTOL:g}")] = Field(
        default=None, description="error of a step of dopri5 relative to the weights"
    )
    atol: Annotated[NotNegative | None, Unset("0")] = Field(
        default=None, description="error of a step of dopri5 beside that"
    )

    @model_validator(mode="after")
    def _check_tolerances(self) -> Self:
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            reason = f"the steps of {self.scheme} are all dt long"
            check_settable(value is None or not self.fixed, name, value, reason)
        return self

    @property
    def step_size(self) -> float:
        return self.dt

    @property
    def fixed(self) -> bool:
        return self.scheme in TABLEAUS

    @property
    def has_stability_limit(self) -> bool:
        return self.fixed

    @property
    def tolerances(self) -> tuple[float, float]:
        """(rtol, atol) of dopri5."""
        return RTOL if self.rtol is None else self.rtol, 0.0 if self.atol is None else self.atol

    @property
    def caption(self) -> str:
        chosen = f"dt = {self.dt:g}" if self.fixed else f"rtol = {self.tolerances[0]:g}"
        return self._with_ridge(f"gradient flow ({self.scheme}), {chosen}")

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "scheme": self.scheme}
