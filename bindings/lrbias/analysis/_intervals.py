"""Confidence intervals of counts, exact ones: rare events are few, and a normal approximation is wrong for them."""

from lrbias.errors import check

LEVEL = 0.95


def share_interval(count: float, total: int, level: float = LEVEL) -> tuple[float, float]:
    """(lower, upper) bounds of the probability of an event seen in `count` of `total` runs (Clopper and Pearson)."""
    from scipy.stats import binomtest

    check(total > 0, "total", total, "at least 1 run")
    check(0 <= count <= total, "count", count, f"from 0 to total = {total}")
    found = binomtest(int(count), int(total)).proportion_ci(level, method="exact")
    return float(found.low), float(found.high)


def rate_interval(count: float, exposure: float, level: float = LEVEL) -> tuple[float, float]:
    """(lower, upper) bounds of the rate of events of which `count` were seen in a time `exposure` (Garwood)."""
    from scipy.stats import chi2

    check(count >= 0, "count", count, "at least 0")
    check(exposure > 0, "exposure", exposure, "a time greater than 0")
    tail = (1 - level) / 2
    lower = chi2.ppf(tail, 2 * count) / 2 if count else 0.0
    return float(lower / exposure), float(chi2.ppf(1 - tail, 2 * count + 2) / 2 / exposure)
