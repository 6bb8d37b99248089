"""Regimes of training: lazy and rich, the edge of stability, saddles, low-rank updates, directions, spectral bias.

The questions are those that the protocol names beside its own. No figure of a paper is reproduced, and all sizes, seeds
and thresholds are ours. Matched are definitions: the tangent kernel and its distance from that of the start (after
Jacot et al.), the scaled output (after Chizat, Oyallon and Bach), sharpness against 2/η (after Cohen et al.), modes of
inputs and outputs (after Saxe et al.). Starts have the standard deviation w^−γ in all layers, w the hidden width: the
threshold γ = 1 of Jacot et al., who write the variance like that, is ½ here.
"""

from pathlib import Path

import numpy as np

from lrbias import theory
from lrbias.errors import require
from lrbias.experiments import Stop
from lrbias.methods import GD, GradientFlow, Linearized
from lrbias.metrics import Hessian, Record
from lrbias.network import Network
from lrbias.problems import Factorization, Regression, spectrum, teacher
from lrbias.runs import open as open_run
from lrbias.storage import read_json
from lrbias.studies import made, make_store
from lrbias.system import RunsDisplay
from lrbias.training import train

DEPTH = 3
# lazy and rich
SIDE = 20  # outputs and inputs
LAZY_VALUES = (1.0, 0.5)  # singular values of the target
WIDTHS = (50, 100, 200, 400)
GAMMAS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9)
SEEDS = 3
FITTED = 1e-4  # of ½‖Ŵ‖²: where these runs stop
LAZY_SHARE = 0.25  # of the largest stable learning rate
LAZY_RECORDS = 200
SCALED_GAMMA = 0.8
SCALED_WIDTH = 100
SCALES = (1.0, 3.0, 10.0, 30.0, 100.0)
# edge of stability
EDGE_SIZE = 8
EDGE_VALUES = (3.0, 2.0, 1.0)
EDGE_GAMMA = 0.8
UNBALANCED = 5.0
SHARES = (0.6, 0.8, 0.95, 1.05, 1.2, 1.4, 1.6, 1.9)  # of the largest rate that is stable where the flow ends
EDGE_STEPS, EDGE_EVERY = 2000, 2
# saddles
SADDLE_SIZE = 20
SADDLE_VALUES = (8.0, 2.5, 0.8, 0.25)
SADDLE_DT = 0.05
SADDLE_STARTS = {2: (1e-5, 2000), 3: (2e-3, 14_000)}  # depth: standard deviation, iterations
# updates and directions
UPDATE_SIZE, UPDATE_RANK, WINDOW = 100, 10, 100
UPDATE_RUNS = {  # name: depth, rank of the target, γ, learning rate, steps
    "N = 2": (2, UPDATE_RANK, 1.1, 2e-4, 20_000),
    "N = 3": (3, UPDATE_RANK, 1.1, 1e-3, 30_000),
    "N = 4": (4, UPDATE_RANK, 1.0, 1e-3, 30_000),
    "N = 3, full rank": (3, UPDATE_SIZE, 1.1, 1e-3, 30_000),
    "N = 3, large start": (3, UPDATE_RANK, 0.5, 1e-3, 10_000),
}
DRIFT_SIZE = 20
DRIFT_TIME = 4.0
DRIFT_RATES = (0.02, 0.01, 0.005, 0.0025)
DRIFT_GAMMA = 0.6
# spectral bias: inputs of variance d are seen in outputs with strength s, so that the mode tends to s/d
STRENGTHS = (2.0, 1.0, 0.5)
VARIANCES = (4.0, 0.5, 0.1)
BIAS_OUTPUTS = 6
BIAS_SAMPLES = 200
BIAS_START, BIAS_RATE, BIAS_STEPS = 1e-3, 0.01, 4000
SECONDS, BYTES = 240.0, 6e8  # most of it for the pairs of lazy and rich runs


def _limit(problem, network):
    """The largest stable learning rate at the start, or at a balanced minimum where that is less."""
    goal = problem.scaled(network.scale).objective(np.float64)
    top = float(Hessian(network.params, network.widths, goal).end(1, tolerance=1e-4).values[0])
    least = theory.sharpness(problem.spectrum.values[0] / network.scale, network.depth) * network.scale**2
    return 2 / max(top, least)


class Study:
    """The runs of the study, made under `store` when they are asked for. seeds: number of starts of lazy and rich."""

    def __init__(self, store, seeds, progress=None):
        self.store = Path(store)
        self.seeds = range(1, seeds + 1)
        self._shown = RunsDisplay(progress, expected(seeds)["runs"], 0)
        if not (self.store / "study.json").is_file():
            make_store(self.store, {"study": "regimes", "seeds": list(self.seeds)})
        known = read_json(self.store / "study.json")
        require(known.get("study") == "regimes", "store", str(self.store), "a new folder, or one of this study")
        accepted = f"{len(known['seeds'])}, the number that the folder was made with"
        require(known["seeds"] == list(self.seeds), "seeds", seeds, accepted)

    def _made(self, name, problem, network, method, steps, record, **others):
        arguments = {"problem": problem, "network": network, "method": method, "steps": steps, "record": record}
        run = made(self.store / name, False, **arguments, **{"checkpoint_every": steps, **others})
        self._shown.update(name, run.status)
        return run

    def stop(self):
        """The end of the display."""
        self._shown.stop()

    def lazy(self, width, gamma, seed):
        """(full run, linearised run) from one start with hidden layers of `width`."""
        network = Network.gaussian((SIDE, *[width] * (DEPTH - 1), SIDE), std=width**-gamma, seed=seed)
        return self._beside_linear(f"lazy/width={width},gamma={gamma:g},seed={seed}", network)

    def scaled(self, alpha, seed):
        """Likewise of one rich start with an output of 0, which is alpha times as large."""
        return self._beside_linear(f"scaled/alpha={alpha:g},seed={seed}", silent_start(seed).scaled(alpha))

    def _beside_linear(self, name, network):
        problem = Factorization(spectrum((SIDE, SIDE), LAZY_VALUES, seed=0))
        fitted = Stop(loss=FITTED * 0.5 * float(np.sum(problem.target**2)))
        if (self.store / name / "config.json").is_file():  # what was found out for it stands there
            known = open_run(self.store / name).settings
            lr, every, steps = known["lr"], known["every"], known["steps"]
        else:
            lr = LAZY_SHARE * _limit(problem, network)
            every, steps = _paced(problem, network, lr, fitted)
        record = Record(every=every, metrics=("product", "ntk", "movement"))
        run = self._made(name, problem, network, GD(lr=lr), steps, record, stop=fitted)
        record = Record(every=every, metrics=("product",))
        steps = max(run.step, 1)
        linear = self._made(f"{name},linear", problem, network, Linearized(lr=lr), steps, record)
        return run, linear

    def edge(self):
        """(flow, {share: run of GD}) from one start that is not balanced."""
        problem = Factorization(spectrum((EDGE_SIZE, EDGE_SIZE), EDGE_VALUES, seed=0))
        network = edge_start()
        record = Record(every=20, metrics={"sharpness": 20, "balancedness": 20})
        flow = self._made("edge/flow", problem, network, GradientFlow(dt=0.1, scheme="dopri5"), 2000, record)
        limit = 2 / float(flow["hessian/largest"][-1, 0])
        record = Record(every=EDGE_EVERY, metrics=("sharpness", "balancedness"))
        runs = {}
        for share in SHARES:
            name = f"edge/share={share:g}"
            method = GD(lr=share * limit)
            runs[share] = self._made(name, problem, network, method, EDGE_STEPS, record)
        return flow, runs

    def saddles(self, depth):
        """A flow that goes from saddle to saddle."""
        problem = Factorization(spectrum((SADDLE_SIZE, SADDLE_SIZE), SADDLE_VALUES, seed=0))
        std, steps = SADDLE_STARTS[depth]
        network = Network.gaussian((SADDLE_SIZE,) * (depth + 1), std=std, seed=1)
        method = GradientFlow(dt=SADDLE_DT, scheme="dopri5", rtol=1e-8)
        metrics = ("gradient_norm", "singular_values", "effective_rank", "sharpness", "negative_curvature")
        record = Record(every=4, metrics=metrics, leading=1)
        return self._made(f"saddles/depth={depth}", problem, network, method, steps, record)

    def updates(self, name):
        """A run of UPDATE_RUNS."""
        depth, rank, gamma, lr, steps = UPDATE_RUNS[name]
        problem = Factorization(teacher((UPDATE_SIZE, UPDATE_SIZE), rank, DEPTH, 10.0, seed=0))
        network = Network.gaussian((UPDATE_SIZE,) * (depth + 1), gamma=gamma, seed=1)
        directions = ("weight_gradient_alignment", "layer_alignment", "direction_change", "balancedness")
        metrics = dict.fromkeys(("updates", "singular_values", "effective_rank", *directions), WINDOW)
        record = Record(every=WINDOW, metrics=metrics)
        return self._made(f"updates/{name}", problem, network, GD(lr=lr), steps, record, checkpoint_every=steps // 25)

    def drift(self):
        """({learning rate: GD}, {dt: RK4}) up to one time, from one start."""
        problem = Factorization(spectrum((DRIFT_SIZE, DRIFT_SIZE), EDGE_VALUES, seed=0))
        network = Network.gaussian((DRIFT_SIZE,) * (DEPTH + 1), gamma=DRIFT_GAMMA, seed=1)
        found = {}
        for name, method in (("gd", lambda h: GD(lr=h)), ("rk4", lambda h: GradientFlow(dt=h))):
            found[name] = {}
            for h in DRIFT_RATES:
                record = Record(every=10, metrics=("balancedness",))
                steps = round(DRIFT_TIME / h)
                found[name][h] = self._made(f"drift/{name},h={h:g}", problem, network, method(h), steps, record)
        return found["gd"], found["rk4"]

    def bias(self, whiten):
        """A run on data whose inputs have different variances, whitened or not."""
        problem = Regression(*bias_data(), whiten=whiten)
        modes = problem.modes()
        network = Network.from_layers(aligned_layers(modes, len(STRENGTHS), BIAS_START))
        record = Record(every=5, metrics=("mode_strengths", "effective_rank", "singular_values"))
        name = f"bias/{'whitened' if whiten else 'as-they-are'}"
        return self._made(name, problem, network, GD(lr=BIAS_RATE), BIAS_STEPS, record)


def _paced(problem, network, lr, fitted):
    """(record interval, steps) for a run of unknown length: a trial of GD without records says how long it takes."""
    nothing = Record(every=1_000_000, metrics=())
    trial = train(problem, network, GD(lr=lr), 200_000, nothing, fitted, checkpoint_every=200_000, forecast=False)
    return max(1, trial.step // LAZY_RECORDS), max(trial.step, 1)


def silent_start(seed):
    """Two rich networks side by side, the same but for the sign of the output: together their output is 0."""
    deviation = SCALED_WIDTH**-SCALED_GAMMA
    first, middle, last = Network.gaussian((SIDE, SCALED_WIDTH, SCALED_WIDTH, SIDE), std=deviation, seed=seed).layers
    both = np.kron(np.eye(2), middle)
    return Network.from_layers([np.vstack([first, first]), both, np.hstack([last, -last])])


def edge_start():
    """Layers of one deviation, the first of which is UNBALANCED times as large: the flow keeps what is not balanced."""
    layers = Network.gaussian((EDGE_SIZE,) * (DEPTH + 1), gamma=EDGE_GAMMA, seed=1).layers
    return Network.from_layers([UNBALANCED * layers[0], *layers[1:]])


def bias_data():
    """(inputs, outputs): samples with Σ = V diag(d) Vᵀ exactly, and outputs with YᵀX/m = U diag(s) Vᵀ."""
    count = len(STRENGTHS)
    rng = np.random.default_rng(0)
    scores = np.linalg.qr(rng.normal(size=(BIAS_SAMPLES, count)))[0] * np.sqrt(BIAS_SAMPLES)
    right = np.linalg.qr(rng.normal(size=(count, count)))[0]
    left = np.linalg.qr(rng.normal(size=(BIAS_OUTPUTS, count)))[0]
    inputs = scores * np.sqrt(VARIANCES) @ right.T
    outputs = scores * (np.array(STRENGTHS) / np.sqrt(VARIANCES)) @ left.T
    return inputs, outputs


def aligned_layers(modes, count, start):
    """Balanced layers of depth 2 whose product is `start` along each of `count` modes."""
    root = np.sqrt(start)
    return [root * modes.right[:, :count].T, root * modes.left[:, :count]]


def expected(seeds):
    """{runs, seconds, bytes}: as measured, on one core."""
    lazy = 2 * seeds * (len(WIDTHS) * len(GAMMAS) + len(SCALES))
    others = 1 + len(SHARES) + len(SADDLE_STARTS) + len(UPDATE_RUNS) + 2 * len(DRIFT_RATES) + 2
    share = 0.2 + 0.8 * seeds / SEEDS
    return {"runs": lazy + others, "seconds": SECONDS * share, "bytes": BYTES * share}
