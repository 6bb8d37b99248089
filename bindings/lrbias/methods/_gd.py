"""Gradient descent."""

from typing import ClassVar

from lrbias.methods._base import METHODS, Descent


@METHODS.add
class GD(Descent):
    """Gradient descent: W_i ← (1 − 2ηλ) W_i − η ∂L/∂W_i, all layers at once."""

    name: ClassVar[str] = "gd"
    label: ClassVar[str] = "gradient descent"
    euler: ClassVar[bool] = True

    @property
    def caption(self) -> str:
        """For a legend."""
        return self._with_ridge(f"GD, lr = {self.lr:g}")
