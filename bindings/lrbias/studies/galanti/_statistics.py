"""What is asked of the runs of Galanti et al.: ranks at the end, correlations with intervals, spreads, verdicts."""

import numpy as np
from scipy.stats import rankdata

EXPECTED = {"batch": 1, "lr": -1, "weight_decay": -1}  # the sign of the correlation that is predicted
HOLDS, OPEN, FAILS = "holds", "not shown", "fails"
METRICS = {"rank": None, "stable_rank": "stable_rank"}  # what is judged: that of the runs, one without a threshold
RESAMPLES, LEVEL = 2000, 0.95
NO_EFFECT = 0.1  # of the spread with weight decay: a spread without it that is smaller is called none
CHANCE = 0.2  # of the training images put right, twice what guessing gives: below it nothing was learnt


def last_rank(run, metric=None):
    """The average rank over the matrices at the last record; metric: another one than the rank of the run."""
    return float(run.average(metric)[-1])


def learnt(run):
    """Whether a network has learnt anything: what did not train says nothing about ranks."""
    return run.status == "finished" and float(run["train_accuracy"][-1]) > CHANCE


def correlation(values, ranks, seed=0):
    """(Spearman's ρ, lower, upper): of the rank with what is varied, and a percentile interval of the bootstrap.

    values: of the setting; ranks: a list for each value, of its seeds, which are drawn again with replacement.
    """
    repeated = np.repeat(values, [len(each) for each in ranks])
    rng = np.random.default_rng(seed)
    drawn = [np.concatenate([rng.choice(each, len(each)) for each in ranks]) for _ in range(RESAMPLES)]
    found = _spearman(repeated, np.stack([np.concatenate(ranks), *drawn]))
    low, high = np.quantile(found[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(found[0]), float(low), float(high)


def _spearman(values, rows):
    """Spearman's ρ of every row with the values: the correlation of places; 0 where a row is constant, NaN of NaN."""
    places = rankdata(values) - (len(values) + 1) / 2
    theirs = rankdata(rows, axis=1) - (len(values) + 1) / 2
    norms = np.sqrt((theirs**2).sum(axis=1) * (places**2).sum())
    return np.divide(theirs @ places, norms, out=np.zeros(len(rows)), where=norms != 0)


def verdict(varied, low, high):
    """Whether the interval of the correlation lies on the side that is predicted."""
    low, high = sorted((EXPECTED[varied] * low, EXPECTED[varied] * high))
    return HOLDS if low > 0 else FAILS if high < 0 else OPEN


def judged(varied, known):
    """Correlation, its interval and the verdict, of [(value, ranks)]."""
    if len(known) < 2:
        return {"correlation": None, "low": None, "high": None, "verdict": "not judged"}
    rho, low, high = correlation(*zip(*known, strict=True))
    return {"correlation": rho, "low": low, "high": high, "verdict": verdict(varied, low, high)}


def spread(table, metric):
    """Largest minus smallest of the means over the seeds."""
    return float(np.ptp([np.mean([last_rank(run, metric) for run in runs]) for _, runs in table]))


def compared(without, decayed):
    """The spreads without and with weight decay, and whether the first is nothing beside the second."""
    share = without / decayed if decayed else None
    said = "not judged" if share is None else "no effect" if share <= NO_EFFECT else "an effect"
    return {"spread": without, "with_decay": decayed, "share": share, "verdict": said}
