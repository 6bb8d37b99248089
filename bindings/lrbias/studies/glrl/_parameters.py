"""Greedy low-rank learning beside gradient flow (Li, Luo and Lyu): the same path from small starts, and how small.

Matched, as far as an abstract of the paper and a summary of it tell: the algorithm for depth 2, symmetric and by
symmetrisation, dist(t) = min_t' ‖W_flow(t) − W_greedy(t')‖_F, the counter-example to nuclear norm minimisation, and the
comparison of depth 2 with depths ≥ 3. Ours: every size, seed and tolerance, the form for depth ≥ 3, the rate at which
the distance falls, and the experiments about hidden entries and connected graphs (after Bai et al. 2024).

One completion problem for all distances: a symmetric 10 × 10 matrix with eigenvalues 10, 3 and 1, of which 70 % of the
pairs (i, j), (j, i) are seen. Flows start from layers αI and are integrated by Dormand and Prince's pair with
rtol = 1e-10; greedy learning uses the same integrator in its phases.
"""

from typing import Annotated

from pydantic import AfterValidator, Field

from lrbias.settings import Accepts, Count, Positive
from lrbias.studies import Parameters, Positives

SIZE = 10
SEED = 5
DEPTHS = (2, 3, 4)
RTOL = 1e-10
LARGE = (2, 3, 5)  # R of the counter-example
HIDDEN_VALUES = (10.0, 5.0)
COMPLETIONS = (  # name, depth, α; None for greedy learning
    ("greedy, N = 2", 2, None),
    ("greedy, N = 3", 3, None),
    ("flow, N = 2, α = 0.001", 2, 1e-3),
    ("flow, N = 3, α = 0.03", 3, 3e-2),
    ("flow, N = 2, α = 0.3", 2, 0.3),
)
NUCLEAR = "least nuclear norm"
GRAPHS = ("two parts", "joined by one pair", "connected, as many pairs")
DECADES = tuple(10.0**-k for k in range(1, 11))


def _of_every_depth(values):
    if set(values) != set(DEPTHS):
        raise ValueError("not of every depth")
    return values


ByDepth = Annotated[
    dict[int, Positive],
    AfterValidator(_of_every_depth),
    Accepts("a number greater than 0 for each of the depths 2, 3, 4"),
]
ScalesByDepth = Annotated[
    dict[int, Positives],
    AfterValidator(_of_every_depth),
    Accepts("a list of numbers greater than 0 for each of the depths 2, 3, 4"),
]


class GreedyParameters(Parameters):
    spectrum: Positives = Field(
        (7.0, 4.0, 2.0, 1.0), description="of the whole target whose phases are compared with best approximations"
    )
    large_scales: Positives = Field(
        (1e-1, 1e-2, 1e-4, 1e-8, 1e-16, 1e-32, 1e-64), description="starts of the flows of the counter-example"
    )
    fractions: Positives = Field((0.4, 0.5, 0.6, 0.7, 0.8), description="of the entries that are observed")
    instances: Count = Field(10, description="matrices of each fraction")
    completion_steps: Count = Field(5000, description="longest time of a completion")
    scales: ScalesByDepth = Field(
        {2: DECADES, 3: (0.3, 0.1, 0.03, 0.01, 0.003, 0.001), 4: (0.5, 0.3, 0.2, 0.1, 0.05, 0.03)},
        description="sizes α of starts αI",
    )
    random_scales: Positives = Field(DECADES, description="sizes of Gaussian starts, depth 2")
    # in depths ≥ 3 its time grows as a power of 1/ε
    epsilons: ByDepth = Field({2: 1e-14, 3: 1e-6, 4: 1e-5}, description="of greedy learning")
    # records are joined by chords
    greedy_dt: ByDepth = Field({2: 0.002, 3: 0.01, 4: 0.01}, description="time between records of greedy learning")
    flow_dt: ByDepth = Field({2: 0.02, 3: 0.03, 4: 0.03}, description="time between records of a flow")
    settled: Positive = Field(200.0, description="time in which the last mode settles")
    levels: Positives = Field(
        (0.3, 0.1, 0.03, 0.01, 0.003, 0.001), description="distances for which the necessary start is told"
    )
