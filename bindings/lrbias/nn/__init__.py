"""Ranks of real networks: a tracker for any PyTorch module, and a trainer with weight decay (extra `torch`).

    tracker = lb.nn.RankTracker(model, every=100, store="runs/mine")
    tracker.watch(optimizer)                       # every step of the optimizer counts; or call tracker.step(loss=…)

Names are imported when they are first used: reading a run needs no PyTorch.
"""

import importlib

from lrbias.errors import InvalidInput
from lrbias.runs import ModelRun

_HOME = {
    "RankTracker": "_tracker",
    "Probe": "_gradients",
    "GradientRanks": "_gradients",
    "gradient_ranks": "_gradients",
    "WeightMatrix": "_matrices",
    "weight_matrices": "_matrices",
    "patches": "_matrices",
    "Training": "_fit",
    "fit": "_fit",
    "resume": "_fit",
    "write_scalars": "_callbacks",
    "build": "_networks",
    "NETWORKS": "_networks",
    "load": "_datasets",
    "Images": "_datasets",
    "DATASETS": "_datasets",
}
_SHARED = {"trained": "_fit"}  # with studies
__all__ = [*_HOME, "ModelRun"]


def __getattr__(name):
    home = (_HOME | _SHARED).get(name)
    if home is None:
        raise AttributeError(f"module 'lrbias.nn' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f"lrbias.nn.{home}"), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise InvalidInput(f"lb.nn.{name} needs PyTorch: pip install 'lrbias[torch]'.") from None
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
