"""From what a run keeps of its loss, or a file that says what is observed, to the problem."""

import warnings

import numpy as np

from lrbias.errors import DataWarning, InvalidInput, require, shorten
from lrbias.problems._completion import Completion, Sensing
from lrbias.problems._factorization import Factorization
from lrbias.problems._matrix_files import read_matrix
from lrbias.problems._regression import MOMENTS, Regression
from lrbias.system import Damaged, as_path, read_any_archive


def restore(target, observed, mean=False, source=None):
    """The problem that a run was made with, from its target and what it kept as `Problem.observed`."""
    if not observed:
        return Factorization(target, source)
    if "matrices" in observed:
        truth = target if observed["truth_known"] else None
        return Sensing(observed["matrices"], observed["values"], truth, mean)
    if "covariance" in observed:
        kept = {name: observed[name] for name in (*MOMENTS, "whitening") if name in observed}
        return Regression.from_moments(target, **kept)
    with warnings.catch_warnings():  # they were given when the run was made
        warnings.simplefilter("ignore", DataWarning)
        known = observed.get("known", np.True_)
        return Completion(np.where(known, target, np.nan), observed["mask"], mean=mean, source=source)


def load_observed(path):
    """{name: array} of a file that says what is observed: a run's observed.npz, or a mask as `load_matrix` reads it."""
    path = as_path("observed", path)
    if path.suffix.lower() != ".npz" or not path.is_file():
        return {"mask": read_matrix("observed", path)}
    accepted = "a file with a mask, or with matrices and values, or with the moments of a regression"
    try:
        found = read_any_archive(path)
    except Damaged as error:
        raise InvalidInput(
            f"observed = {str(path)!r} is not accepted: expected {accepted} ({shorten(str(error))})."
        ) from None
    known = any(set(names) <= set(found) for names in (("mask",), ("matrices", "values"), MOMENTS))
    require(known, "observed", str(path), accepted)
    return found
