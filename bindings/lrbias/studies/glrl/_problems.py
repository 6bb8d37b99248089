"""The matrices of the study, and what is seen of them."""

import itertools
import warnings

import numpy as np

from lrbias.errors import DataWarning
from lrbias.problems import Completion, from_eigenvalues
from lrbias.studies.glrl._parameters import GRAPHS, SEED, SIZE

BLOCK = SIZE // 2


def counterexample(large):
    """A symmetric 4 × 4 matrix, (1, 3) = 1 and (1, 4) = (2, 3) = R seen: rank 1 has nuclear norm 2R² + 2, not 4R."""
    target = np.zeros((4, 4))
    target[0, 2] = 1
    target[0, 3] = large
    target[1, 2] = large
    target += target.T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return Completion(target, mask=target != 0)


def graph(name):
    """A rank-1 matrix of which two diagonal blocks are seen, or these and one pair between them, or as many others."""
    target = from_eigenvalues(SIZE, (float(SIZE),), SEED)
    first = np.arange(SIZE) < BLOCK
    mask = first[:, None] == first
    if name == GRAPHS[1]:
        i, j = np.unravel_index(np.argmax(np.where(mask, 0, np.abs(target))), mask.shape)
        mask[i, j] = mask[j, i] = True
    elif name == GRAPHS[2]:
        pairs = int(np.triu(mask).sum())
        return next(given for given in _drawn(target, pairs) if given.connected)
    return Completion(target, mask=mask)


def _drawn(target, pairs):
    for seed in itertools.count():
        yield Completion(target, entries=pairs, seed=seed, symmetric_mask=True)
