"""Ranks of real networks: a tracker for any PyTorch module, and a trainer with weight decay (extra `torch`).

    tracker = lb.nn.RankTracker(model, every=100, store="runs/mine")
    tracker.watch(optimizer)                       # every step of the optimizer counts; or call tracker.step(loss=…)

Names are imported when they are first used: reading a run needs no PyTorch.
"""

import importlib

from lrbias.errors import InvalidInput

_HOME = {
    "RankTracker": "tracker",
    "Probe": "gradients",
    "GradientRanks": "gradients",
    "gradient_ranks": "gradients",
    "WeightMatrix": "matrices",
    "weight_matrices": "matrices",
    "patches": "matrices",
    "Training": "fitting",
    "fit": "fitting",
    "resume": "fitting",
    "write_scalars": "callbacks",
    "build": "networks",
    "NETWORKS": "networks",
    "load": "datasets",
    "Images": "datasets",
    "DATASETS": "datasets",
    "ModelRun": "model_run",
}
__all__ = list(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'lrbias.nn' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f"lrbias.nn.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise InvalidInput(f"lb.nn.{name} needs PyTorch: pip install 'lrbias[torch]'.") from None
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
