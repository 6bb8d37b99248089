"""From what a run keeps of its loss, or a file that says what is observed, to the problem."""

from typing import Any

import numpy as np

from lrbias.errors import InvalidInput, check, shorten
from lrbias.problems._factorization import Problem
from lrbias.problems._matrix_files import read_matrix
from lrbias.problems._registry import PROBLEMS
from lrbias.system import Damaged, as_path, read_any_archive


def restore(target: np.ndarray, observed: dict[str, Any], reduction: str = "sum", source: Any = None) -> Problem:
    """The problem that a run was made with, from its target and what it kept as `Problem.observed`."""
    return class_of(observed).restored(target, observed, reduction, source)


def class_of(observed: dict[str, Any]) -> type[Problem]:
    """The class of the loss that keeps these arrays, the one that most of them belong to; InvalidInput for none."""
    PROBLEMS.names  # noqa: B018  asking for the kinds imports all classes
    fitting = [cls for cls in Problem.classes if set(cls.kept) <= set(observed) and bool(cls.kept) == bool(observed)]
    names = [" and ".join(cls.kept) for cls in Problem.classes if cls.kept]
    check(bool(fitting), "observed", sorted(observed), "the arrays of a loss: " + ", or ".join(names))
    return max(fitting, key=lambda cls: len(cls.kept))


def load_observed(path: Any) -> dict[str, Any]:
    """{name: array} of a file that says what is observed: a run's observed.npz, or a mask as `load_matrix` reads it."""
    path = as_path("observed", path)
    if path.suffix.lower() != ".npz" or not path.is_file():
        return {"mask": read_matrix("observed", path)}
    accepted = "a file with a mask, or with matrices and values, or with the moments of a regression"
    try:
        found = read_any_archive(path)
    except Damaged as error:
        reason = shorten(str(error))
        raise InvalidInput(f"observed = {str(path)!r} is not accepted: expected {accepted} ({reason}).") from None
    try:
        class_of(found)
    except InvalidInput:
        raise InvalidInput(f"observed = {str(path)!r} is not accepted: expected {accepted}.") from None
    return found
