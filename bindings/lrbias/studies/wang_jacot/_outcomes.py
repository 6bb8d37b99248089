"""How the runs of the phase diagram end."""

import numpy as np

TRUE_RANK = 1
OUTCOMES = ("diverged", "rank above 1", "rank 1", "collapsed to 0")


def outcomes(made):
    """(R,): the place in OUTCOMES of every run."""
    ranks = made.ranks[:, -1]
    found = np.where(ranks > TRUE_RANK, 1, np.where(ranks == TRUE_RANK, 2, 3))
    return np.where(made.diverged, 0, found)
