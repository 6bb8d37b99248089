"""The study of regimes of training, registered as `regimes`."""

from typing import Any

import numpy as np

from lrbias import theory
from lrbias.errors import check
from lrbias.experiments import Stop
from lrbias.methods import GD, GradientFlow, Linearized
from lrbias.metrics import Hessian, Record
from lrbias.network import Network
from lrbias.problems import Factorization, Regression, from_singular_values, teacher
from lrbias.runs import open as open_run
from lrbias.studies import Study, made
from lrbias.studies.regimes import _parameters as parameters
from lrbias.studies.regimes._parameters import (
    BIAS_RATE,
    BIAS_START,
    DEPTH,
    DRIFT_GAMMA,
    EDGE_SIZE,
    EDGE_VALUES,
    FITTED,
    LAZY_RECORDS,
    LAZY_SHARE,
    LAZY_VALUES,
    SADDLE_DT,
    STRENGTHS,
    RegimeParameters,
)
from lrbias.studies.regimes._starts import aligned_layers, bias_data, edge_start, silent_start
from lrbias.studies.regimes._tables import RegimeFindings
from lrbias.training import train

LONGEST = 200_000  # steps of a lazy or rich run
WHOLE_SEEDS = 3  # of which the time was measured
SECONDS, BYTES = 240.0, 6e8  # most of it for the pairs of lazy and rich runs


class Regimes(Study):
    """Parts that are made under `store` when they are asked for."""

    name = "regimes"
    summary = "Lazy and rich, edge of stability, saddles, updates, directions, spectral bias; some minutes."
    title = "Regimes of training"
    about = parameters.__doc__.split("\n\n", 1)[1].strip()
    Parameters = RegimeParameters

    @property
    def seeds(self):
        """Of the lazy and rich runs."""
        return range(1, self.parameters.seeds + 1)

    def forecast(self):
        """As measured, on one core."""
        own = self.parameters
        lazy = 2 * own.seeds * (len(own.widths) * len(own.gammas) + len(own.scales))
        others = 1 + len(own.shares) + len(own.saddle_starts) + len(own.update_runs) + 2 * len(own.drift_rates) + 2
        share = 0.2 + 0.8 * own.seeds / WHOLE_SEEDS
        return {"runs": lazy + others, "seconds": SECONDS * share, "bytes": BYTES * share}

    def make(self):
        found = RegimeFindings(self)
        self.shown.stop()
        return found

    def _refuse(self, known):
        accepted = f"{known.seeds}, the number that the folder was made with"
        check(known.seeds == self.parameters.seeds, "seeds", self.parameters.seeds, accepted)
        super()._refuse(known)

    def _made(self, name, problem, network, method, steps, record, **others):
        arguments = {"problem": problem, "network": network, "method": method, "steps": steps, "record": record}
        run = made(self.store / name, False, **arguments, **{"checkpoint_every": steps, **others})
        self.shown.update(name, run.status)
        return run

    def lazy(self, width, gamma, seed):
        """(full run, linearised run) from one start with hidden layers of `width`."""
        own = self.parameters
        network = Network.gaussian((own.side, *[width] * (DEPTH - 1), own.side), std=width**-gamma, seed=seed)
        return self._beside_linear(f"lazy/width={width},gamma={gamma:g},seed={seed}", network)

    def scaled(self, alpha, seed):
        """Likewise of one rich start with an output of 0, which is alpha times as large."""
        own = self.parameters
        start = silent_start(own.side, own.scaled_width, seed)
        return self._beside_linear(f"scaled/alpha={alpha:g},seed={seed}", start.scaled(alpha))

    def _beside_linear(self, name, network):
        own = self.parameters
        problem = Factorization(from_singular_values((own.side, own.side), LAZY_VALUES, seed=0))
        fitted = Stop(loss=FITTED * 0.5 * float(np.sum(problem.target**2)))
        if (self.store / name / "config.json").is_file():  # what was found out for it stands there
            known = open_run(self.store / name).settings
            lr, every, steps = known["lr"], known["every"], known["steps"]
        else:
            lr = LAZY_SHARE * _limit(problem, network)
            every, steps = _paced(problem, network, lr, fitted)
        record = Record(every=every, metrics=("product", "ntk", "distance_from_init"))
        run = self._made(name, problem, network, GD(lr=lr), steps, record, stop=fitted)
        record = Record(every=every, metrics=("product",))
        steps = max(run.step, 1)
        linear = self._made(f"{name},linear", problem, network, Linearized(lr=lr), steps, record)
        return run, linear

    def edge(self):
        """(flow, {share: run of GD}) from one start that is not balanced."""
        own = self.parameters
        problem = Factorization(from_singular_values((EDGE_SIZE, EDGE_SIZE), EDGE_VALUES, seed=0))
        network = edge_start()
        record = Record(every=20, metrics={"sharpness": 20, "balancedness": 20})
        flow = self._made("edge/flow", problem, network, GradientFlow(dt=0.1, scheme="dopri5"), 2000, record)
        limit = 2 / float(flow["hessian/largest"][-1, 0])
        record = Record(every=own.edge_every, metrics=("sharpness", "balancedness"))
        runs = {}
        for share in own.shares:
            name = f"edge/share={share:g}"
            method = GD(lr=share * limit)
            runs[share] = self._made(name, problem, network, method, own.edge_steps, record)
        return flow, runs

    def saddles(self, depth):
        """A flow that goes from saddle to saddle."""
        own = self.parameters
        problem = Factorization(from_singular_values((own.saddle_size, own.saddle_size), own.saddle_values, seed=0))
        std, steps = own.saddle_starts[depth]
        network = Network.gaussian((own.saddle_size,) * (depth + 1), std=std, seed=1)
        method = GradientFlow(dt=SADDLE_DT, scheme="dopri5", rtol=1e-8)
        metrics = ("gradient_norm", "singular_values", "effective_rank", "sharpness", "hessian_min_eigenvalues")
        record = Record(every=4, metrics=metrics, leading=1)
        return self._made(f"saddles/depth={depth}", problem, network, method, steps, record)

    def updates(self, name):
        """A run whose updates are measured."""
        own = self.parameters
        depth, rank, gamma, lr, steps = own.update_runs[name]
        problem = Factorization(teacher((own.update_size, own.update_size), rank, DEPTH, 10.0, seed=0))
        network = Network.gaussian((own.update_size,) * (depth + 1), gamma=gamma, seed=1)
        directions = ("weight_gradient_alignment", "layer_alignment", "direction_change", "balancedness")
        metrics = dict.fromkeys(("updates", "singular_values", "effective_rank", *directions), own.window)
        record = Record(every=own.window, metrics=metrics)
        return self._made(
            f"updates/{name}", problem, network, GD(lr=lr), steps, record, checkpoint_every=max(steps // 25, 1)
        )

    def drift(self):
        """({learning rate: GD}, {dt: RK4}) up to one time, from one start."""
        own = self.parameters
        problem = Factorization(from_singular_values((own.drift_size, own.drift_size), EDGE_VALUES, seed=0))
        network = Network.gaussian((own.drift_size,) * (DEPTH + 1), gamma=DRIFT_GAMMA, seed=1)
        found: dict[str, dict[float, Any]] = {}
        for name, method in (("gd", lambda h: GD(lr=h)), ("rk4", lambda h: GradientFlow(dt=h))):
            found[name] = {}
            for h in own.drift_rates:
                record = Record(every=10, metrics=("balancedness",))
                steps = round(own.drift_time / h)
                found[name][h] = self._made(f"drift/{name},h={h:g}", problem, network, method(h), steps, record)
        return found["gd"], found["rk4"]

    def bias(self, whiten):
        """A run on data whose inputs have different variances, whitened or not."""
        own = self.parameters
        inputs, outputs = bias_data()
        problem = Regression(inputs, outputs, whiten=whiten)
        modes = problem.modes()
        network = Network.from_layers(aligned_layers(modes, len(STRENGTHS), BIAS_START))
        record = Record(every=5, metrics=("mode_strengths", "effective_rank", "singular_values"))
        name = f"bias/{'whitened' if whiten else 'as-they-are'}"
        return self._made(name, problem, network, GD(lr=BIAS_RATE), own.bias_steps, record)


def _limit(problem, network):
    """The largest stable learning rate at the start, or at a balanced minimum where that is less."""
    goal = problem.scaled(network.output_scale).objective(np.float64)
    top = float(Hessian(network.params, network.widths, goal).end(1, tolerance=1e-4).values[0])
    least = theory.sharpness(problem.svd.values[0] / network.output_scale, network.depth) * network.output_scale**2
    return 2 / max(top, least)


def _paced(problem, network, lr, fitted):
    """(record interval, steps) for a run of unknown length: a trial of GD without records says how long it takes."""
    nothing = Record(every=1_000_000, metrics=())
    trial = train(problem, network, GD(lr=lr), LONGEST, nothing, fitted, checkpoint_every=LONGEST, forecast=False)
    return max(1, trial.step // LAZY_RECORDS), max(trial.step, 1)
