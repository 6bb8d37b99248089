"""The protocol's study: which runs it takes. Ranks, depths and step sizes, GD and gradient flow, several starts.

Matched: n = 100, r, N, η, 50 000 iterations, a record every 10, Gaussian start with σ = w^−γ, GD and RK4 from the same
starts. Our own choices: γ = 1.1 (the protocol asks for γ > 1), a target of spectral norm 10, and one teacher of depth 3
for every student: with the student's own depth, as in the protocol, depths would learn different targets and could not
be compared. Two parts are added: targets that are not square, with students that narrow and widen; and a target with
values far apart, since those of the teachers lie so close together that their modes are learnt at overlapping times.
"""

BASE = {
    "gamma": 1.1,
    "teacher_seed": 0,
    "every": 10,
    "metrics": ["effective_rank", "singular_values", "mode_strengths"],
}
RANKS = [5, 10, 20]
DEPTHS = [2, 3, 4, 5]
STEP_SIZES = [1e-4, 1e-3, 1e-2]
RECTANGULAR = [  # (shape, widths): wide and tall targets, students that narrow and widen
    [[100, 50], [50, 100, 100]],
    [[100, 50], [50, 100, 100, 100]],
    [[50, 100], [100, 30, 50]],
    [[50, 100], [100, 60, 30, 50]],
]
SEPARATED = [10.0, 5.0, 2.5, 1.25, 0.625]
PARTS = ("square", "rectangular", "separated")
STEP_KEY = {"gd": "lr", "flow": "dt"}


def sweeps(steps=50_000, seeds=3):
    """{name: (base, over)} of the sweeps that make up the study. seeds: number of starts."""
    common = {**BASE, "steps": steps, "checkpoint_every": max(steps // 5, 1)}
    teacher = {**common, "scale": 10.0, "teacher_depth": 3}
    starts = list(range(1, seeds + 1))
    made = {}
    for method, step in STEP_KEY.items():
        square = {"seed": starts, "rank": RANKS, "depth": DEPTHS, step: STEP_SIZES}
        made[f"square-{method}"] = {**teacher, "method": method, "shape": [100, 100]}, square
        rectangular = {"seed": starts[:1], "shape,widths": RECTANGULAR, step: STEP_SIZES[1:]}
        made[f"rectangular-{method}"] = {**teacher, "method": method, "rank": 10}, rectangular
        separated = {"seed": starts, "depth": DEPTHS, step: STEP_SIZES[2:]}
        made[f"separated-{method}"] = {**common, "method": method, "values": SEPARATED}, separated
    return made


NAMES = [f"{part}-{method}" for part in PARTS for method in STEP_KEY]  # of the sweeps


def target_label(settings):
    """How the target of a run of the study is called in tables and figures."""
    if "values" in settings:
        return "values far apart"
    if "widths" in settings:
        return f"r = {settings['rank']}, widths {' → '.join(map(str, settings['widths']))}"
    return f"r = {settings['rank']}"
