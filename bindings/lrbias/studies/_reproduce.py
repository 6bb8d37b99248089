"""`lb.reproduce` and `lb.read_evidence`: a study by its name, its findings by its folder."""

from os import PathLike
from typing import Any

from lrbias.errors import refused
from lrbias.settings import check_switches
from lrbias.studies._findings import Findings
from lrbias.studies._registry import find_study, study_in
from lrbias.system import as_path


def reproduce(
    name: str = "protocol",
    store: str | PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool | None = None,
    **parameters: Any,
) -> Findings:
    """Make the runs of a study, as far as they are not made yet, and return what they show: its findings.

    name     "protocol": 256 runs with its three starts, more than an hour on two cores; returns Evidence
             "chou": recovery of eigenvalues in deep matrix factorization, seconds
             "wang-jacot": jumps of SGD to lower rank, about ten minutes. Needs the extra `convex`
             "glrl": greedy low-rank learning beside gradient flow, three minutes. Needs `convex`, too
             "galanti": ranks of real networks under SGD with weight decay, about an hour on two cores. Needs `vision`
             "regimes": lazy and rich, edge of stability, saddles, updates, directions, spectral bias, some minutes
             or one that another package has registered under the entry points `lrbias.studies`
    store    a folder, by default reproduced/NAME; started again the study goes on
    workers  processes or threads, by default one for each core
    parameters  those of the study: `lrbias reproduce NAME --help` lists them. Fewer `steps` and `seeds` give a quicker
             and weaker study
    """
    check_switches(progress=progress)
    return find_study(name)(store, workers, progress, **parameters).run()


def read_evidence(store: str | PathLike[str]) -> Findings:
    """The findings in a folder that `reproduce` made. Those of the protocol can be read as far as its runs are made."""
    store = as_path("store", store)
    study = study_in(store)
    if study is None:
        raise refused("store", str(store), "the folder of a study that `lrbias reproduce` made")
    return study.read(store)
