"""The protocol's study: which runs it takes. Ranks, depths and step sizes, GD and gradient flow, several starts.

Matched: n = 100, r, N, η, 50 000 iterations, a record every 10, Gaussian start with σ = w^−γ, GD and RK4 from the same
starts. Our own choices: γ = 1.1 (the protocol asks for γ > 1), a target of spectral norm 10, and one teacher of depth 3
for every student: with the student's own depth, as in the protocol, depths would learn different targets and could not
be compared. Two parts are added: targets that are not square, with students that narrow and widen; and a target with
values far apart, since those of the teachers lie so close together that their modes are learnt at overlapping times.
"""

from typing import Annotated, Literal, get_args

from pydantic import Field

from lrbias.settings import Accepts, Count, Finite, Positive
from lrbias.studies import Counts, Parameters, Positives

METRICS = ["effective_rank", "singular_values", "mode_strengths"]
RECTANGULAR = [  # (shape, widths): wide and tall targets, students that narrow and widen
    [[100, 50], [50, 100, 100]],
    [[100, 50], [50, 100, 100, 100]],
    [[50, 100], [100, 30, 50]],
    [[50, 100], [100, 60, 30, 50]],
]
SEPARATED = [10.0, 5.0, 2.5, 1.25, 0.625]
Part = Literal["square", "rectangular", "separated"]
PARTS = get_args(Part)
STEP_KEY = {"gd": "lr", "flow": "dt"}
NAMES = [f"{part}-{method}" for part in PARTS for method in STEP_KEY]  # of the sweeps
Parts = Annotated[tuple[Part, ...], Field(min_length=1), Accepts(f"some of {', '.join(PARTS)}")]
Shape = Annotated[tuple[Count, Count], Accepts("two integers of at least 1")]


class ProtocolParameters(Parameters):
    steps: Count = Field(50_000, description="iterations of every run")
    seeds: Count = Field(3, description="number of starts")
    parts: Parts = Field(PARTS, description="which parts: square targets, rectangular ones, one with values far apart")
    shape: Shape = Field((100, 100), description="of the square targets")
    ranks: Counts = Field((5, 10, 20), description="of the square targets")
    depths: Counts = Field((2, 3, 4, 5), description="of the students")
    step_sizes: Positives = Field((1e-4, 1e-3, 1e-2), description="of GD and of the flow")
    gamma: Finite = Field(1.1, description="starts have the standard deviation w^-gamma, w the width")
    spectral_norm: Positive = Field(10.0, description="the spectral norm of the teachers' targets")

    def sweeps(self):
        """{name: (base, over)} of the sweeps that make up the study."""
        return {f"{part}-{method}": self._sweep(part, method) for method in STEP_KEY for part in self.parts}

    def _sweep(self, part, method):
        step = STEP_KEY[method]
        sizes = list(self.step_sizes)
        starts = list(range(1, self.seeds + 1))
        common = {
            "gamma": self.gamma,
            "teacher_seed": 0,
            "every": 10,
            "metrics": METRICS,
            "steps": self.steps,
            "checkpoint_every": max(self.steps // 5, 1),
            "method": method,
        }
        teacher = {**common, "spectral_norm": self.spectral_norm, "teacher_depth": 3}
        depths = list(self.depths)
        if part == "square":
            base = {**teacher, "shape": list(self.shape)}
            return base, {"seed": starts, "rank": list(self.ranks), "depth": depths, step: sizes}
        if part == "rectangular":
            return {**teacher, "rank": 10}, {"seed": starts[:1], "shape,widths": RECTANGULAR, step: sizes[-2:]}
        return {**common, "values": SEPARATED}, {"seed": starts, "depth": depths, step: sizes[-1:]}


def target_label(settings):
    """How the target of a run of the study is called in tables and figures."""
    if "values" in settings:
        return "values far apart"
    if "widths" in settings:
        return f"r = {settings['rank']}, widths {' → '.join(map(str, settings['widths']))}"
    return f"r = {settings['rank']}"
