"""Gradient descent."""

from typing import ClassVar

from lrbias.methods._base import Descent


class GD(Descent):
    """Gradient descent: W_i ← (1 − 2ηλ) W_i − η ∂L/∂W_i, all layers at once.

    lr: learning rate η, > 0. One step advances the time t by lr.
    ridge: λ ≥ 0, with 2ηλ < 1.
    lr_schedule, ridge_schedule: how they change, as a schedule, a dictionary or text; see `lrbias.methods`.
    """

    name: ClassVar[str] = "gd"
    label: ClassVar[str] = "gradient descent"
    euler: ClassVar[bool] = True

    @property
    def caption(self):
        """For a legend."""
        return self._with_ridge(f"GD, lr = {self.lr:g}")
