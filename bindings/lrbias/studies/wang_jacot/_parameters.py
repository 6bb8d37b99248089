"""SGD with ridge on matrix completion (Wang and Jacot): jumps to lower rank that never go back, and where they do.

Matched: single entries drawn with replacement, W_l ← (1 − 2ηλ) W_l − η (W_ij − Ŵ_ij) · …, depth 3 and others, the
experiments that a report on the paper asks for. Ours: all sizes and seeds, the exact form and the numbers of the sets
B_r, the hysteresis of the rank (0.01 and 0.02 of σ_1), and the noise. Targets are 10 × 10 of rank 1 and mean square 1,
60 entries observed, with Gaussian noise of standard deviation 0.2 on what is observed: without noise gradient descent
with a ridge ended at the true rank in all ten instances, and no minimum of a higher rank was left to jump from. SGD
starts where gradient descent has ended for the same loss (gradient norm below 1e-10) unless a table says otherwise, so
that jumps are the work of the noise and not of a ridge that was changed.
"""

from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from lrbias.metrics import AbsorbingSets
from lrbias.problems import Completion, from_singular_values, gaussian
from lrbias.settings import Accepts, Count
from lrbias.studies import Counts, Parameters, Positives
from lrcore import random

SIZE = 10
ENTRIES = 60
NOISE = 0.2
NOISES = (0.0, NOISE)  # for the schedules
SMALL_RIDGE = 1e-4
MILLION = 1_000_000
SETS = AbsorbingSets(balance=10.0, slack=0.5, alpha=0.5, bound=60.0)
LR_OF_GD = 0.1
DEPTH_LR = 0.08
DEPTH_INSTANCE = 1
SCHEDULES = {  # name: η, λ, and how they change: (factor, start, stop) or (factor, period)
    "SGD, constant": (0.1, 3e-3, None, None),
    "SGD, annealed": (0.1, 6e-3, (0.1, 300_000, 500_000), (0.01, 300_000, 500_000)),
    "SGD, periodic": (0.1, 6e-3, (0.1, 200_000), (0.01, 200_000)),
}
SCHEDULE_STEPS = 600_000
BASELINES = ("nuclear norm, exact", "nuclear norm, best weight", "GD, small ridge", "GD, best ridge")
Grid = Annotated[Positives, Field(min_length=2), Accepts("a list of at least two numbers greater than 0")]
Samplings = Annotated[tuple[tuple[Count, bool], ...], Accepts("pairs of a batch size and True or False")]


class OneWay(NamedTuple):
    """One start of the runs whose ranks are to fall and not to rise."""

    name: str
    instance: int
    noise: float
    depth: int
    lr: float
    ridge: float
    start: str  # "minimum": that of gradient descent at the same ridge; "early": before its end


ONE_WAY = [
    OneWay("N = 3, large step", 0, NOISE, 3, 0.16, 2.5e-3, "minimum"),
    OneWay("N = 3, smaller step", 0, NOISE, 3, 0.14, 2.5e-3, "minimum"),
    OneWay("N = 5, small step", 0, NOISE, 5, 0.08, 2e-3, "minimum"),
    OneWay("no noise, GD not at its end", 0, 0.0, 3, 0.1, 1e-3, "early"),
    OneWay("outside: too large a step", 1, NOISE, 3, 0.16, 1e-3, "minimum"),
]


def _geometric(first, last, count):
    return tuple(np.geomspace(first, last, count).tolist())


class WangJacotParameters(Parameters):
    steps: Count = Field(MILLION, description="of a one-way trajectory; what the other parts take is in proportion")
    seeds: Count = Field(20, description="of each cell of the phase diagram; other numbers of runs are in proportion")
    records: Count = Field(500, description="of a one-way trajectory")
    samplings: Samplings = Field(
        ((1, True), (1, False), (2, True), (2, False), (4, True), (4, False)),
        description="batch sizes, with and without replacement",
    )
    depths: Counts = Field((2, 3, 4, 5), description="each from its own minimum")
    depth_ridges: Positives = Field((1e-3, 2e-3, 3e-3), description="ridges of every depth")
    widths: Counts = Field((5, 10, 20, 40), description="of the hidden layers")
    phase_lrs: Grid = Field(_geometric(0.03, 0.3, 20), description="learning rates of the phase diagram")
    phase_ridges: Grid = Field(_geometric(3e-4, 6e-2, 20), description="ridges of the phase diagram")
    instances: Count = Field(10, description="matrices that schedules are compared on")
    weights: Positives = Field(
        _geometric(1e-4, 1e-1, 13), description="of the nuclear norm, and ridges of gradient descent: the best counts"
    )
    # of gradient descent with a small ridge, where its rank is still high
    early_steps: Count = Field(10_000, description="after which gradient descent is stopped early")


def truth(instance):
    """The rank-1 matrix of an instance: mean square 1, random directions."""
    return from_singular_values((SIZE, SIZE), [float(SIZE)], seed=instance)


def problem(instance, noise=NOISE):
    """Observed entries with noise, hidden ones without."""
    mask = Completion(truth(instance), entries=ENTRIES, seed=instance).mask
    added = noise * gaussian((SIZE, SIZE), instance, stream=3, domain=random.OBSERVED)
    return Completion(np.where(mask, truth(instance) + added, truth(instance)), mask=mask, reduction="mean")
