"""The sets B_1 ⊂ B_2 ⊂ … of Wang and Jacot, which hold the networks of rank r or less and which SGD does not leave.

In words: approximately balanced, approximately of rank r or less, bounded. Their exact form was not to be had, so this
one, and all four numbers in it, are **ours**. A network is in B_r when for all layers

    ‖W_{l+1}ᵀ W_{l+1} − W_l W_lᵀ‖_F² ≤ ε_1,    Σ_i min(1, σ_i(W_l)/α) ≤ r + ε_2,    ‖W_l‖_F² ≤ C.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from lrbias.settings import Positive, Settings

NONE = -1


class AbsorbingSets(Settings):
    """The numbers of the sets B_r."""

    balance: Positive = Field(default=0.1, description="ε_1")
    slack: Positive = Field(default=0.5, description="ε_2")
    alpha: Positive = Field(default=0.5, description="α, the singular value from which on a direction counts in full")
    bound: Positive = Field(default=100.0, description="C")

    def rank(self, values: Sequence[np.ndarray], balancedness: np.ndarray) -> np.ndarray:
        """The smallest r with the network in B_r, an integer array of shape (…); −1 where it is in none.

        values: singular values of each layer, (…, k_l); balancedness (…, N − 1): the norms above, not squared.
        What is not finite is in none.
        """
        counts = np.max([np.minimum(1, layer / self.alpha).sum(axis=-1) for layer in values], axis=0)
        with np.errstate(over="ignore"):  # which is more than the bounds, too
            norms = np.max([(layer**2).sum(axis=-1) for layer in values], axis=0)
            squares = np.max(np.asarray(balancedness) ** 2, axis=-1, initial=0)
        inside = (squares <= self.balance) & (norms <= self.bound)
        ranks = np.ceil(np.where(inside, counts, 0) - self.slack)
        return np.where(inside, np.maximum(ranks, 0), NONE).astype(np.int32)
