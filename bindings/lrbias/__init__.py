"""lrbias: watch gradient descent learn low-rank solutions.

    import lrbias as lb

    target  = lb.teacher(shape=(100, 100), rank=10, depth=3, scale=10.0, seed=0)
    network = lb.Network.gaussian(widths=(100,) * 4, gamma=1.5, seed=1)
    run     = lb.train(lb.Factorization(target), network, lb.GD(lr=1e-3), steps=50_000, store="runs/gd")

Names are imported when they are first used, so that `lrbias --help` and a plain import stay quick.
"""

import importlib

__version__ = "0.1.0"

# No module may have the name of a function in here: importing it would put the module in the function's place.
_HOME = {
    "teacher": "problem",
    "spectrum": "problem",
    "symmetric": "problem",
    "load_matrix": "problem",
    "Factorization": "problem",
    "Completion": "completion",
    "Sensing": "completion",
    "Regression": "regression",
    "Network": "network",
    "GD": "method",
    "GradientFlow": "method",
    "SGD": "method",
    "GLRL": "method",
    "Linearized": "method",
    "Steps": "schedule",
    "Anneal": "schedule",
    "Periodic": "schedule",
    "Record": "record",
    "Stop": "record",
    "train": "training",
    "resume": "training",
    "Run": "run",
    "open": "run",
    "jumps": "jumping",
    "ensemble": "ensembles",
    "open_ensemble": "ensemble_data",
    "Ensemble": "ensemble_data",
    "nuclear_norm": "convex",
    "least_squares_nuclear": "convex",
    "AbsorbingSets": "absorbing",
    "saddles": "stationary",
    "Saddle": "stationary",
    "directional_convergence": "stationary",
    "plateaus": "plateau",
    "Plateau": "plateau",
    "sweep": "sweeps.making",
    "open_sweep": "sweeps.reading",
    "Sweep": "sweeps.reading",
    "reproduce": "studies.reproducing",
    "read_evidence": "studies.reproducing",
    "report": "reporting",
    "compare": "comparing",
    "Comparison": "comparing",
    "trajectory_distance": "comparing",
    "forecast": "forecasting",
    "Forecast": "forecasting",
    "InvalidInput": "errors",
    "StoreError": "errors",
    "FigureError": "errors",
    "RunsFailed": "errors",
    "Interrupted": "errors",
    "ForecastWarning": "errors",
    "DataWarning": "errors",
}
_MODULES = {
    "metrics": "metrics",
    "nn": "nn",
    "plots": "figures.plots",
    "sweep_plots": "figures.sweep_plots",
    "theory": "theory",
}

__all__ = [*_HOME, *_MODULES]


def __getattr__(name):
    if name in _HOME:
        value = getattr(importlib.import_module(f"lrbias.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"lrbias.{_MODULES[name]}")
    else:
        raise AttributeError(f"module 'lrbias' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted([*__all__, "__version__"])
