"""The protocol's four expected results as statistics with a definition, a value for every setting, and a verdict.

The definitions and thresholds are ours; the protocol states its expectations in words only. A setting is a target, a
depth, a step size and a method; its value is the median over the starts. Where nothing was learnt within the steps, or
a run diverged, a setting is not judged.
"""

import itertools
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.stats import kendalltau

HOLDS = "holds"
IN_PART = "in part"
FAILS = "fails"
NOT_JUDGED = "not judged"
LOSS_LEVELS = (0.5, 0.2, 0.05)
FLOOR = 1e-12  # of the first loss; below it rounding is all that is left to compare
SAME = 0.01  # a ratio that differs from 1 by less is no difference
SMALL = 0.01  # singular values below this share of the largest do not count
FEWEST_DEPTHS = 3
CLAIMS = {
    "plateaus": "The effective rank rises in plateaus, one for every value learnt: Σ_{i≤k} σ̂_i/σ̂_1 for k = 1, 2, …, r",
    "order": "Larger singular values are learnt first",
    "smoothness": "Gradient flow is smoother than gradient descent",
    "depth": "Deeper networks have a stronger bias to low rank",
}
DEFINITIONS = {
    "plateaus": """\
Share of the levels k = 1 … min(learnt, r − 1) at which `lb.plateaus` finds a plateau: within half the distance to the
next level, and ending after mode k is learnt (û_kᵀWv̂_k > σ̂_k/2). 1: holds; from 1/2: in part.""",
    "order": """\
Kendall's τ_b between σ̂_i and the time at which û_iᵀWv̂_i passes σ̂_i/2 first, divided by the largest that the ties
allow, with the sign that makes 1 the expected order. Modes that are not learnt are last, and tied. The directions are
the target's, so it is not sorting that makes the order. From 0.9: holds; from 0.5: in part.""",
    "smoothness": """\
Total curvature Σ|second differences| of GD divided by that of RK4 at the same times and from the same start, until the
loss is 1e-12 of the first: of ln(loss) over all steps, and of the effective rank over the records. Above 1.01: holds;
from 0.99: in part (no difference).""",
    "depth": """\
Kendall's τ_b between depth and a rank of the product, over all starts, divided by the largest that the ties allow, with
the sign that makes 1 "deeper is lower". The rank is the number of σ_i > 0.01 σ_1, or the effective rank (to two
decimals). It is taken at the same loss (the first record at or below 1/2, 1/5, 1/20 of the first loss), or at the same
t (the end of the run) where half of the first loss is reached; among the depths that got there, three at least. From
0.9: holds; from 0.5: in part.""",
}


@dataclass
class Setting:
    """One row of evidence. `values` are those of the starts."""

    claim: str
    statistic: str
    part: str
    target: str
    method: str
    step_size: float
    depth: int | None
    values: list[float]
    verdict: str
    detail: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def at(cls, place, claim, statistic, values, verdict, detail=None):
        """The Setting at `place`, (part, target, method, step size, depth)."""
        part, target, method, step_size, depth = place
        return cls(claim, statistic, part, target, method, step_size, depth, values, verdict, detail or {})

    @property
    def value(self):
        return float(np.median(self.values)) if self.values else None

    def as_dict(self):
        return {**asdict(self), "value": self.value}


def _verdict(values, holds, in_part):
    if not len(values):
        return NOT_JUDGED
    value = np.median(values)
    return HOLDS if value >= holds else IN_PART if value >= in_part else FAILS


def escape_steps(run):
    """`run.escape_steps()` as an array, with inf for modes that do not escape."""
    return np.array([np.inf if step is None else step for step in run.escape_steps()])


def plateau_share(run):
    """The statistic of the first claim; None when no mode below the last was learnt."""
    escapes = escape_steps(run)
    levels = np.cumsum(run.target_values[: run.target_rank]) / run.target_values[0]
    reached = min(int(np.isfinite(escapes).sum()), len(levels) - 1)
    if reached < 1:
        return None
    gaps = np.diff(levels, prepend=0.0)
    found = run.plateaus()
    held = 0
    for k in range(reached):
        near = min(gaps[k], gaps[k + 1]) / 2
        held += any(abs(plateau.level - levels[k]) < near and plateau.end >= escapes[k] for plateau in found)
    return held / reached


def order_of_learning(run):
    """The statistic of the second claim; None with fewer than three modes, when none was learnt or all at once."""
    escapes = escape_steps(run)
    if not np.isfinite(escapes).any() or len(escapes) < 3:
        return None
    values = np.round(run.target_values[: len(escapes)] / run.target_values[0], 6)  # equal ones differ by rounding
    return _concordance(values, -np.minimum(escapes, np.finfo(float).max))


def _concordance(x, y):
    """Kendall's τ_b divided by the largest value that the ties of x and y allow; None when one of them is all ties."""
    largest = kendalltau(np.sort(x), np.sort(y)).statistic
    return None if np.isnan(largest) else float(kendalltau(x, y).statistic / largest)


def curvatures(run, last):
    """(of ln(loss) over steps, of the effective rank over records) up to step `last`: Σ|second differences|."""
    losses = np.log(run.losses[: last + 1])
    ranks = run["product/effective_rank"][run.steps_of("product/effective_rank") <= last]
    return float(np.abs(np.diff(losses, 2)).sum()), float(np.abs(np.diff(ranks, 2)).sum())


def smoothness(gd, flow):
    """(ratio for ln(loss), ratio for the effective rank) of GD to the flow from the same start; None for a flow without
    any curvature."""
    last = min(_first_below(run.losses, FLOOR * run.losses[0]) for run in (gd, flow))
    (loss, rank), (loss_of_flow, rank_of_flow) = curvatures(gd, last), curvatures(flow, last)
    return (loss / loss_of_flow if loss_of_flow else None), (rank / rank_of_flow if rank_of_flow else None)


def _first_below(losses, level):
    below = losses <= level
    return int(below.argmax()) if below.any() else len(losses) - 1


def judge(runs):
    """[Setting] for the runs: a list of (part, target, Run), GD and flows, any number of starts."""
    groups: dict[Any, list[Any]] = {}
    for part, target, run in runs:
        if run.status != "diverged":
            key = part, target, run.settings["method"], run.step_size, run.depth
            groups.setdefault(key, []).append(run)
    return [*_plateaus(groups), *_orders(groups), *_smoother(groups), *_deeper(groups)]


def _known(values):
    return [value for value in values if value is not None]


def _plateaus(groups):
    for place, members in groups.items():
        shares = _known(plateau_share(run) for run in members)
        yield Setting.at(place, "plateaus", "share of levels", shares, _verdict(shares, 1.0, 0.5))


def _orders(groups):
    for place, members in groups.items():
        orders = _known(order_of_learning(run) for run in members)
        yield Setting.at(place, "order", "τ_b of value and time", orders, _verdict(orders, 0.9, 0.5))


def _smoother(groups):
    for place, members in groups.items():
        part, target, method, step_size, depth = place
        if method != "gd":
            continue
        flows = {_start(flow): flow for flow in groups.get((part, target, "flow", step_size, depth), [])}
        learnt = [run for run in members if np.isfinite(escape_steps(run)).any()]
        ratios = [smoothness(run, flows[_start(run)]) for run in learnt if _start(run) in flows]
        for i, name in enumerate(("ln(loss)", "effective rank")):
            values = _known(pair[i] for pair in ratios)
            statistic = f"curvature of {name}, GD / flow"
            yield Setting.at(place, "smoothness", statistic, values, _verdict(values, 1 + SAME, 1 - SAME))


def _start(run):
    return run.checkpoint(0).params.tobytes()


def count_above(run, row):
    """The number of σ_i > 0.01 σ_1 of the product at a record."""
    values = run["product/singular_values"][row]
    return int((values > SMALL * values[0]).sum())


def _effective_rank(run, row):
    return round(float(run["product/effective_rank"][row]), 2)


def _record(run, level):
    """The first record at which the loss is at most `level` of the first one, None if it never is.

    level None: the last record, None for a run that has not come down to half of the first loss: what has learnt
    nothing has the rank of its start.
    """
    steps = run.steps_of("product/effective_rank")
    below = run.losses[steps] <= (LOSS_LEVELS[0] if level is None else level) * run.losses[0]
    if not below.any() or (level is None and run.status != "finished"):
        return None
    return len(steps) - 1 if level is None else int(below.argmax())


def _deeper(groups):
    """For every target, method and step size, with at least three depths: at the same loss, and at the same time."""
    families: dict[Any, dict[int, list[Any]]] = {}
    for (*place, depth), members in groups.items():
        families.setdefault(tuple(place), {})[depth] = members
    for place, by_depth in families.items():
        if len(by_depth) < FEWEST_DEPTHS:
            continue
        for (name, measure), level in itertools.product(RANKS.items(), (*LOSS_LEVELS, None)):
            known = {}
            for depth, members in sorted(by_depth.items()):
                rows = [(run, _record(run, level)) for run in members]
                known[depth] = [measure(run, row) for run, row in rows if row is not None]
            known = {depth: values for depth, values in known.items() if values}
            pairs = [(depth, value) for depth, values in known.items() for value in values]
            found = _concordance([d for d, _ in pairs], [-v for _, v in pairs]) if len(known) >= FEWEST_DEPTHS else None
            statistic = f"τ_b of depth and {name}, same {'t' if level is None else 'loss'}"
            detail = {"loss_level": level, "ranks": {str(d): float(np.mean(v)) for d, v in known.items()}}
            values = _known([found])
            yield Setting.at((*place, None), "depth", statistic, values, _verdict(values, 0.9, 0.5), detail)


RANKS = {"number of σ_i > 0.01 σ_1": count_above, "effective rank": _effective_rank}


def count_verdicts(settings):
    """{verdict: number of settings}."""
    counts = dict.fromkeys((HOLDS, IN_PART, FAILS, NOT_JUDGED), 0)
    for setting in settings:
        counts[setting.verdict] += 1
    return counts


def overall(settings):
    """The verdict on a claim: "holds" or "fails" when every judged setting says so, "in part" otherwise."""
    found = {setting.verdict for setting in settings} - {NOT_JUDGED}
    if not found:
        return NOT_JUDGED
    return found.pop() if len(found) == 1 else IN_PART
