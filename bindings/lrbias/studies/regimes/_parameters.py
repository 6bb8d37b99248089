"""Regimes of training: lazy and rich, the edge of stability, saddles, low-rank updates, directions, spectral bias.

The questions are those that the protocol names beside its own. No figure of a paper is reproduced, and all sizes, seeds
and thresholds are ours. Matched are definitions: the tangent kernel and its distance from that of the start (after
Jacot et al.), the scaled output (after Chizat, Oyallon and Bach), sharpness against 2/η (after Cohen et al.), modes of
inputs and outputs (after Saxe et al.). Starts have the standard deviation w^−γ in all layers, w the hidden width: the
threshold γ = 1 of Jacot et al., who write the variance like that, is ½ here.
"""

from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field

from lrbias.settings import Accepts, Count, Finite, Positive
from lrbias.studies import Counts, Numbers, Parameters, Positives

DEPTH = 3
LAZY_VALUES = (1.0, 0.5)  # singular values of the target
FITTED = 1e-4  # of ½‖Ŵ‖²: where lazy and rich runs stop
LAZY_SHARE = 0.25  # of the largest stable learning rate
LAZY_RECORDS = 200
SCALED_GAMMA = 0.8
RISE = (0.5, 0.6)  # γ before and behind the transition
EDGE_SIZE = 8
EDGE_VALUES = (3.0, 2.0, 1.0)
EDGE_GAMMA = 0.8
UNBALANCED = 5.0
SADDLE_DT = 0.05
DRIFT_GAMMA = 0.6
# inputs of variance d are seen in outputs with strength s, so that the mode tends to s/d
STRENGTHS = (2.0, 1.0, 0.5)
VARIANCES = (4.0, 0.5, 0.1)
BIAS_OUTPUTS = 6
BIAS_SAMPLES = 200
BIAS_START, BIAS_RATE = 1e-3, 0.01


class SaddleStart(NamedTuple):
    std: Positive
    steps: Count


class UpdateRun(NamedTuple):
    depth: Count
    rank: Count
    gamma: Finite
    lr: Positive
    steps: Count


UPDATE_RUNS = {
    "N = 2": UpdateRun(2, 10, 1.1, 2e-4, 20_000),
    "N = 3": UpdateRun(3, 10, 1.1, 1e-3, 30_000),
    "N = 4": UpdateRun(4, 10, 1.0, 1e-3, 30_000),
    "N = 3, full rank": UpdateRun(3, 100, 1.1, 1e-3, 30_000),
    "N = 3, large start": UpdateRun(3, 10, 0.5, 1e-3, 10_000),
}
DIRECTIONS = "N = 3"  # the run of which directions are drawn


def _with(*needed):
    """A check that values, or keys, are among those given."""

    def check(given):
        if not set(needed) <= set(given):
            raise ValueError("not all that is needed")
        return given

    return AfterValidator(check)


Gammas = Annotated[Numbers, _with(*RISE), Accepts("a list of numbers, 0.5 and 0.6 among them")]
SaddleStarts = Annotated[
    dict[int, SaddleStart], Field(min_length=1), Accepts("a standard deviation and a number of steps for each depth")
]
UpdateRuns = Annotated[
    dict[str, UpdateRun],
    _with(DIRECTIONS),
    Accepts("depth, rank, gamma, learning rate and steps for each name, N = 3 among them"),
]


class RegimeParameters(Parameters):
    seeds: Count = Field(3, description="starts of each width and γ")
    side: Count = Field(20, description="outputs and inputs of the lazy and rich runs")
    widths: Counts = Field((50, 100, 200, 400), description="hidden widths of the lazy and rich runs")
    gammas: Gammas = Field(
        (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9), description="starts have the standard deviation w^-γ"
    )
    scales: Positives = Field((1.0, 3.0, 10.0, 30.0, 100.0), description="of the output")
    scaled_width: Count = Field(100, description="hidden width of the runs with a scaled output")
    shares: Positives = Field(
        (0.6, 0.8, 0.95, 1.05, 1.2, 1.4, 1.6, 1.9), description="of the largest rate that is stable where the flow ends"
    )
    edge_steps: Count = Field(2000, description="of the runs at the edge of stability")
    edge_every: Count = Field(2, description="steps between their records")
    saddle_size: Count = Field(20, description="neurons a layer of the flows from saddle to saddle")
    saddle_values: Positives = Field((8.0, 2.5, 0.8, 0.25), description="singular values of their target")
    saddle_starts: SaddleStarts = Field(
        {2: SaddleStart(1e-5, 2000), 3: SaddleStart(2e-3, 14_000)}, description="of each depth: deviation, iterations"
    )
    update_size: Count = Field(100, description="neurons a layer of the runs whose updates are measured")
    update_rank: Count = Field(10, description="the effective rank up to which an update is of low rank")
    update_runs: UpdateRuns = Field(UPDATE_RUNS, description="depth, rank of the target, γ, learning rate, steps")
    window: Count = Field(100, description="steps of an update")
    drift_size: Count = Field(20, description="neurons a layer of the runs whose balancedness drifts")
    drift_time: Positive = Field(4.0, description="until which it drifts")
    drift_rates: Positives = Field((0.02, 0.01, 0.005, 0.0025), description="learning rates, and steps of the flow")
    bias_steps: Count = Field(4000, description="of the runs with spectral bias")
