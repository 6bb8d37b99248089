"""Deep matrix factorization (Chou, Gieshoff, Maly, Rauhut): their examples, theory drawn over the measured curves.

The two examples and Figures 5.1 to 5.4 are those of a report on that paper. Matched: Λ, V, N, η = 0.001, α = 0.1 and
β = 0.05. The matrix printed as (5.1) has a misprint, its entry (4, 4) is 22/3 and not −5; here it is built from V and
Λ. The report gives no numbers of iterations: ours are as many as it takes. Its η and β are above the limits of the
theorem about perturbed starts (last column; β < 0.0466 at N = 3); recovery works all the same.
"""

import numpy as np
from pydantic import Field

from lrbias.settings import Count
from lrbias.studies import Parameters

VECTORS = np.array([[0, 1, 1, 1], [1, 0, 1, -1], [1, -1, 0, 1], [1, 1, -1, 0]]) / np.sqrt(3)
EXAMPLES = {1: (10.0, 7.0, 5.0, -5.0), 2: (5.0, 3.0, -1.0, -5.0)}
DEPTH = 3
LR = 1e-3
ALPHA = 0.1
BETA = 0.05
# λ < 0 from an identical start: d ≈ 1/(|λ|ηk), so that d³ is below 1e-6 only after so many steps
STEPS = {(1, "identical"): 40_000, (1, "perturbed"): 20_000, (2, "identical"): 200_000, (2, "perturbed"): 50_000}
DEPTH_STEPS = {1: 10_000, 2: 10_000, 3: 10_000, 4: 30_000, 5: 200_000}
NOT_SYMMETRIC_STEPS = 200_000
RANDOM_STEPS = 20_000
TRACED = 7.0  # the eigenvalue of Figure 5.3
SKEW = 0.1  # size of the skew part that is added for a target that is not symmetric
METRICS = ("eigenvalues_in_basis", "effective_rank", "singular_values")


class ChouParameters(Parameters):
    records: Count = Field(5000, description="records of the longer runs")


def target(example, skew=0.0):
    """Ŵ of an example; skew: the Frobenius norm of a skew-symmetric matrix that is added."""
    matrix = VECTORS @ np.diag(EXAMPLES[example]) @ VECTORS.T
    turn = np.triu(np.ones((4, 4)), 1)
    turn = turn - turn.T
    return (matrix + matrix.T) / 2 + skew * turn / np.linalg.norm(turn)
