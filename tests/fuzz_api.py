"""Calls of the Python API made at random: every public function, with arguments that fit and arguments that do not."""

import random
import traceback
import warnings
from pathlib import Path

import numpy as np

import lrbias as lb
from fuzz_commands import Folder, watched

ALLOWED = (lb.InvalidInput, lb.StoreError, lb.Interrupted)


class _Raising:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("no array")


def _nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


HUGE = [2**31, 2**63, 2**64, 10**400]
ODD = [None, True, 0, -1, 1.5, float("nan"), float("inf"), -float("inf"), "x", "", "a\0b", "ü", b"x", [], {}, (), set()]
ODD += [object(), 1j, 1e300, -1e300, 1e-320, 5e-324, 1e308, np.float32("nan"), np.int64(3), np.longdouble(2), Path("x")]
ODD += [
    len,
    _Raising(),
    _nested(900),
    range(3),
    [1, [2]],
    {"a": 1},
    [None],
    [[None]],
    np.array(0.5),
    np.array([]),
    *HUGE,
]
ODD += [np.ones((2, 2), complex), np.ones((2, 2), bool), np.array([["a"]]), np.full((2, 2), np.nan), np.ones((2, 2, 2))]
ODD += [np.ones((0, 3)), np.ma.array(np.ones((4, 3)), mask=np.eye(4, 3)), np.zeros((4, 3)), np.full((4, 3), 1e160)]
ODD += [np.full((4, 3), 5e-324), np.ones((4, 3)) * 1e-200, np.full((4, 3), 1e149), [1e149, 1.0], [1e-320], [-1.0, 2.0]]
ODD += ["w" * 300, "~nobody/x", "z" * 5000]

TARGET = lb.from_singular_values((4, 3), [2.0, 1.0])
PROBLEM = lb.Factorization(TARGET)
PART = lb.Completion(lb.from_singular_values((4, 4), [2.0, 1.0]), entries=12)
START, SQUARE = lb.Network.gaussian((3, 4, 4), gamma=0.5), lb.Network.gaussian((4, 4, 4), gamma=0.5)
WIDTHS = ["widths", (3, 4, 4)]
POSITIVE, INTEGER = 0.5, 2
SMALL = {"steps": 3, "record": lb.Record(every=1), "forecast": False, "progress": False}
METHODS = [lb.GD(lr=0.01), lb.GradientFlow(dt=0.01), lb.SGD(lr=0.01), lb.Linearized(lr=0.01)]
METHODS += [
    lb.GradientFlow(dt=0.01, scheme="dopri5"),
    lb.GD(lr=1e300),
    lb.GradientFlow(dt=1e-320),
    lb.GD(lr=0.01, ridge=1.0),
]
MODE = {"value": 2.0, "initial": 0.01, "depth": 2}
LIMIT = {"norm": 2.0, "depth": 2, "alpha": 0.1}


def _hashable(key):
    return key if isinstance(key, (str, int, float, bytes, type(None))) else "rank"


def _run(folder):
    return lb.open(folder / "run")


def calls(folder):
    """{name: (function, its usual arguments)}."""
    theory = lb.theory
    run = _run(folder)
    return {
        "teacher": (lb.teacher, {"shape": (4, 3), "rank": 2, "depth": 2, "spectral_norm": 1.0, "seed": 0}),
        "from_singular_values": (lb.from_singular_values, {"shape": (4, 3), "values": [2.0, 1.0], "seed": 0}),
        "from_eigenvalues": (lb.from_eigenvalues, {"size": 3, "eigenvalues": [2.0, -1.0], "seed": 0}),
        "load_matrix": (lb.load_matrix, {"path": folder / "good.csv", "spectral_norm": 1.0, "crop": (2, 2)}),
        "Factorization": (lb.Factorization, {"target": TARGET}),
        "Completion": (lb.Completion, {"target": TARGET, "mask": None, "fraction": 0.9, "entries": None, "seed": 0,
                                       "reduction": "sum", "symmetric_mask": False}),
        "Completion entries": (lb.Completion, {"target": TARGET, "entries": 9}),
        "Completion mask": (lb.Completion, {"target": TARGET, "mask": np.ones((4, 3))}),
        "Sensing": (lb.Sensing, {"matrices": np.ones((2, 4, 3)), "values": [1.0, 1.0], "target": None,
                                 "reduction": "sum"}),
        "Regression": (lb.Regression, {"inputs": np.eye(5, 3), "outputs": np.ones((5, 4)), "whiten": True,
                                       "center": False}),
        "gaussian": (lb.Network.gaussian, {"widths": (3, 4, 4), "gamma": 0.5, "seed": 0, "dtype": "float64",
                                           "parametrization": "standard", "std": None}),
        "gaussian std": (lb.Network.gaussian, {"widths": (3, 4, 4), "std": 0.5, "parametrization": "ntk"}),
        "scaled_identity": (lb.Network.scaled_identity, {"n": 3, "depth": 2, "alpha": 0.1, "dtype": "float32"}),
        "perturbed": (lb.Network.perturbed, {"n": 3, "depth": 2, "alpha": 0.1, "beta": 0.05}),
        "orthogonal": (lb.Network.orthogonal, {"widths": (3, 4, 4), "alpha": 0.1, "seed": 0, "dtype": "float64"}),
        "balanced": (lb.Network.balanced, {"widths": (3, 4, 4), "alpha": 0.1, "seed": 0, "dtype": "float64"}),
        "tied": (lb.Network.tied, {"widths": (4, 2, 4), "alpha": 0.1, "seed": 0, "dtype": "float64"}),
        "from_layers": (lb.Network.from_layers, {"layers": [np.ones((4, 3)), np.ones((2, 4))]}),
        "a layer": (lambda layer: lb.Network.from_layers([layer]), {"layer": np.ones((4, 3))}),
        "scaled": (START.scaled, {"output_scale": 2.0}),
        "GD": (lb.GD, {"lr": 0.1, "ridge": 0.0, "lr_schedule": None, "ridge_schedule": None}),
        "GradientFlow": (lb.GradientFlow, {"dt": 0.1, "scheme": "dopri5", "rtol": 1e-6, "atol": 0.0, "ridge": 0.0}),
        "SGD": (lb.SGD, {"lr": 0.1, "batch": 1, "replacement": True, "sampling_seed": 0, "ridge": 0.1}),
        "GLRL": (lb.GLRL, {"epsilon": 1e-6, "inner": lb.GD(lr=0.1), "depth": 2, "tied": False, "tolerance": 1e-6,
                           "cutoff": 1e-6, "max_rank": 2, "check_every": 10}),
        "Linearized": (lb.Linearized, {"lr": 0.1}),
        "PiecewiseConstant": (lb.PiecewiseConstant, {"factor": 0.5, "milestones": [1, 2]}),
        "ExponentialDecay": (lb.ExponentialDecay, {"factor": 0.5, "start": 1, "stop": 5}),
        "LinearDecay": (lb.LinearDecay, {"factor": 0.5, "start": 1, "stop": 5}),
        "SquareWave": (lb.SquareWave, {"factor": 0.5, "period": 4, "share": 0.5}),
        "Record": (lb.Record, {"every": 1, "metrics": "all", "numerical_threshold": 1e-6, "directions": 2,
                               "leading": 2}),
        "Stop": (lb.Stop, {"loss": 0.1, "gradient": 0.1, "plateaus": 1}),
        "AbsorbingSets": (lb.AbsorbingSets, {"balance": 0.1, "slack": 0.1, "alpha": 0.1, "bound": 10.0}),
        "train": (lb.train, {"problem": PROBLEM, "network": START, "method": METHODS, "checkpoint_every": 2,
                             "stop": None, "threads": 1, "compress": "auto", "device": "cpu", "store": None, **SMALL}),
        "trained target": (lambda target, lr: lb.train(lb.Factorization(target), START, lb.GD(lr=lr), **SMALL),
                           {"target": TARGET, "lr": 0.1}),
        "trained layers": (lambda layer, method: lb.train(PROBLEM, lb.Network.from_layers([layer]), method, **SMALL),
                           {"layer": np.ones((4, 3)), "method": METHODS}),
        "resume": (lb.resume, {"path": folder / "run", "steps": 4, "from_checkpoint": None, "progress": False,
                               "threads": 1, "device": "cpu", "metrics": None}),
        "open": (lb.open, {"path": folder / "run"}),
        "forecast": (lb.forecast, {"problem": PROBLEM, "network": START, "method": METHODS, "steps": 3,
                                   "record": None, "checkpoint_every": 2, "compress": "auto", "device": "cpu"}),
        "jumps": (lb.jumps, {"steps": [0, 1], "values": np.ones((2, 3)), "lower": 0.01, "upper": 0.02, "floor": None}),
        "plateaus": (lb.plateaus, {"steps": [0, 1], "values": [2.0, 1.0], "flatness": 0.05, "share": 0.03}),
        "ensemble": (lb.ensemble, {"problem": PART, "network": SQUARE, "method": lb.SGD(lr=0.01), "steps": 4, "runs": 2,
                                   "every": 2, "sets": None, "lower": 0.01, "upper": 0.02, "store": None, "threads": 1,
                                   "progress": False, "device": "cpu"}),
        "open_ensemble": (lb.open_ensemble, {"path": folder / "run"}),
        "open_sweep": (lb.open_sweep, {"path": folder / "sweep"}),
        "sweep": (lb.sweep, {"base": {"shape": [4, 3], "rank": 1, "steps": 2}, "over": {}, "store": folder / "new",
                             "workers": 1, "shard": None, "progress": False, "device": "cpu"}),
        "an axis": (lambda key, values: lb.sweep({}, {_hashable(key): values}, folder / "new", shard=(2, 1)),
                    {"key": "rank", "values": [1, 2]}),
        "a sweep's table": (lb.open_sweep(folder / "sweep").write, {"path": folder / "new.csv"}),
        "nuclear_norm_completion": (lb.nuclear_norm_completion, {"target": TARGET, "mask": np.ones((2, 2), bool),
                                                                 "tolerance": 1e-6}),
        "compare": (lb.compare, {"runs": [folder / "run", folder / "missing"]}),
        "trajectory_distance": (lb.trajectory_distance, {"run": run, "reference": run}),
        "saddles": (lb.saddles, {"run": run}),
        "directional_convergence": (lb.directional_convergence, {"run": run}),
        "report": (lb.report, {"paths": [folder / "missing"], "output": folder / "new.html"}),
        "read_evidence": (lb.read_evidence, {"store": folder / "run"}),
        "reproduce": (lb.reproduce, {"name": "x", "store": folder / "new", "steps": 1, "seeds": 1}),
        "checkpoint": (run.checkpoint, {"step": 2}),
        "network_at": (run.network_at, {"step": 3}),
        "a quantity": (run.__getitem__, {"name": "loss"}),
        "steps_of": (run.steps_of, {"name": "product/effective_rank"}),
        "escape_steps": (run.escape_steps, {}),
        "run.plateaus": (run.plateaus, {}),
        "run.jumps": (run.jumps, {}),
        "sharpness": (theory.sharpness, {"top_value": 2.0, "depth": 2}),
        "learning_rate_limit": (theory.learning_rate_limit, {"top_value": 2.0, "depth": 2}),
        "saxe": (theory.saxe, {"t": 1.0, "value": 2.0, "initial": 0.1}),
        "mode": (theory.mode, {"t": [0.0, 1.0], **MODE, "variance": 1.0}),
        "escape_time": (theory.escape_time, {**MODE, "fraction": 0.5, "variance": 1.0}),
        "representation_cost": (theory.representation_cost, {"values": [2.0, 1.0], "depth": 2}),
        "distance_bound": (theory.distance_bound, {"lr": 0.1, "weight_decay": 0.1, "steps": [1, 2], "norm_ratio": 1.0}),
        "rank_bound": (theory.rank_bound, {"lr": 0.1, "weight_decay": 0.1, "batch": 2, "epsilon": 1e-3, "patches": 1}),
        "perturbed_constant": (theory.perturbed_constant, {"depth": 2}),
        "identical_limit": (theory.identical_limit, LIMIT),
        "perturbed_limit": (theory.perturbed_limit, LIMIT),
        "eigenvalue_limit": (theory.eigenvalue_limit, {"eigenvalue": 2.0, "depth": 2, "alpha": 0.1}),
        "largest_perturbation": (theory.largest_perturbation, {"depth": 2, "alpha": 0.1}),
        "recovered": (theory.recovered, {"eigenvalues": [2.0, -1.0], "perturbed": True}),
        "recovery_bound": (theory.recovery_bound, {"eigenvalue": 2.0, "depth": 2, "alpha": 0.1, "lr": 1e-3,
                                                   "epsilon": 0.1}),
        "recovery_branch": (theory.recovery_branch, {"eigenvalue": 2.0, "depth": 2, "alpha": 0.1, "epsilon": 0.1}),
    }  # fmt: skip


def _arguments(rng, usual):
    """The usual arguments, with one of them odd, sometimes more."""
    given = {name: rng.choice(value) if value is METHODS else value for name, value in usual.items()}
    for name in rng.sample(sorted(given), min(len(given), rng.choice([1, 1, 1, 2, 3]))):
        given[name] = rng.choice(ODD)
    if isinstance(given.get("steps"), int) and given["steps"] > 1000 and "problem" in given:
        given["steps"] = 3  # which would be made
    return given


def fuzz(folder: Folder, count, seed, tell=None):
    """Make `count` calls; returns [(name, arguments, traceback)] of those that raise what they may not, and counts."""
    rng = random.Random(seed)
    faults = []
    known = calls(folder.path)
    counts = {}
    for number in range(count):
        name = list(known)[number % len(known)]
        function, usual = known[name]
        arguments = _arguments(rng, usual)
        kind = "returned"
        before = folder.listing()
        raised = None
        try:
            with warnings.catch_warnings(), watched():
                warnings.simplefilter("ignore")
                function(**arguments)
        except ALLOWED as error:
            kind = type(error).__name__
            if "\n" in str(error):
                raised = f"more than a line: {error}"
        except BaseException:
            raised = traceback.format_exc()
            kind = "raised"
        after = folder.listing()
        left = sorted(set(after) - set(before))
        if kind == "InvalidInput" and left:
            raised = f"left behind: {left[:3]}"
        if after != before:
            folder.restore()
        counts[kind] = counts.get(kind, 0) + 1
        if raised:
            faults.append((name, arguments, raised))
            if tell:
                tell(name, arguments, raised)
    return faults, counts
