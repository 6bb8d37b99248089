"""Stochastic gradient descent on single entries."""

from typing import Any, ClassVar

from pydantic import Field

from lrbias.errors import check
from lrbias.methods._base import METHODS, Descent
from lrbias.settings import Count, Seed, Switch


@METHODS.add
class SGD(Descent):
    """Stochastic gradient descent on single entries of a Completion (or of a whole target).

    A step draws `batch` entries (r, c): W_i ← (1 − 2ηλ) W_i − η · mean of (W_rc − Ŵ_rc) ∂W_rc/∂W_i, all layers from
    the old point. That is the step of Wang and Jacot with `Completion(…, reduction="mean")`; for a loss
    that is a sum the gradient is multiplied by the number of entries, so that its expectation always is that of GD.
    `losses` hold what the drawn entries say: ½ of the mean square of their residuals, times that number, no ridge.

    Weights below 1e-30 become 0 at every 1024th step (see `lrcore.objective`).
    """

    name: ClassVar[str] = "sgd"
    label: ClassVar[str] = "stochastic gradient descent"
    stochastic: ClassVar[bool] = True
    batch: Count = Field(default=1, description="entries that a step draws")
    replacement: Switch = Field(
        default=True,
        description="draw with replacement, or a fresh permutation for each epoch (its last batch may be smaller)",
    )
    sampling_seed: Seed = Field(
        default=0, description="seed of the draws, which depend on it and the number of the step alone"
    )

    @property
    def plain(self) -> bool:
        return False

    @property
    def caption(self) -> str:
        kind = "" if self.replacement else ", without replacement"
        several = f", batch {self.batch}" if self.batch > 1 else ""
        return self._with_ridge(f"SGD, lr = {self.lr:g}{several}{kind}")

    def check_batch(self, entries: Any) -> None:
        count = entries.rows.shape[0]
        check(self.batch <= count, "batch", self.batch, f"at most {count}, the number of observed entries")
