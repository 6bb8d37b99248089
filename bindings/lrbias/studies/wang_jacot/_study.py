"""The study of jumps of SGD to lower rank, registered as `wang-jacot`."""

import itertools

import numpy as np

from lrbias.analysis import check_installed, least_squares_nuclear, nuclear_norm_completion
from lrbias.errors import check
from lrbias.experiments import Stop
from lrbias.forecasts import seconds_of
from lrbias.methods import GD, SGD, ExponentialDecay, SquareWave
from lrbias.metrics import Record
from lrbias.network import Network
from lrbias.settings import Threads, validate
from lrbias.storage import read_json, write_json
from lrbias.studies import Study, made
from lrbias.studies.wang_jacot import _parameters as parameters
from lrbias.studies.wang_jacot._parameters import (
    BASELINES,
    DEPTH_INSTANCE,
    DEPTH_LR,
    LR_OF_GD,
    MILLION,
    NOISE,
    NOISES,
    ONE_WAY,
    SCHEDULE_STEPS,
    SCHEDULES,
    SETS,
    SIZE,
    SMALL_RIDGE,
    WangJacotParameters,
    problem,
)
from lrbias.studies.wang_jacot._tables import JumpFindings
from lrbias.sweeps import ensemble
from lrbias.system import cores

TIMED_RUNS = 64
RECORD = 12  # bytes of a record of a run
FILES = 3000  # bytes of a run beside them


class WangJacot(Study):
    """Parts that are made under `store` when they are asked for. workers: threads of each ensemble."""

    name = "wang-jacot"
    summary = "SGD with ridge jumps to lower rank and not back (Wang and Jacot); about ten minutes."
    title = "Jumps of SGD to lower rank"
    about = parameters.__doc__.split("\n\n", 1)[1].strip()
    Parameters = WangJacotParameters

    def check(self):
        check_installed("the study wang-jacot")  # of which only the last part needs them, minutes later
        self._threads()

    def forecast(self):
        """From timing one group of runs for a moment."""
        own = self.parameters
        counts = self._counts()
        runs = sum(counts.values())
        trained = sum(share * count for share, count in counts.items()) * own.steps
        seconds = trained * self._seconds_per_step() / self._threads()
        return {"runs": runs, "seconds": seconds, "bytes": runs * (own.records * RECORD + FILES)}

    def _counts(self):
        """{share of the steps: runs}."""
        own = self.parameters
        ensembles = len(own.samplings) + len(own.depths) * len(own.depth_ridges)
        cells = len(own.phase_lrs) * len(own.phase_ridges)
        schedules = len(NOISES) * len(SCHEDULES) * own.instances
        return {
            1.0: len(ONE_WAY) * self._runs(1024),
            0.5: ensembles * self._runs(256) + len(own.widths) * self._runs(128) + cells * own.seeds,
            SCHEDULE_STEPS / MILLION: schedules * self._runs(16),
        }

    def _seconds_per_step(self):
        given = problem(0)
        start = Network.gaussian((SIZE,) * 4, gamma=0.5, seed=0)
        method = SGD(lr=0.1, ridge=1e-3)
        few = max(self.parameters.steps // 100, 1)

        def make():
            ensemble(given, start, method, few, runs=TIMED_RUNS, every=few, threads=1, progress=False)

        return seconds_of(make) / (TIMED_RUNS * few)

    def make(self):
        return JumpFindings(self)

    def _refuse(self, known):
        own = self.parameters
        if (known.steps, known.seeds) == (own.steps, own.seeds):
            super()._refuse(known)
        there = {"steps": known.steps, "seeds": known.seeds}
        accepted = f"a study of {own.steps} steps and {own.seeds} seeds, this one has {there}"
        check(False, "store", str(self.store), accepted)

    def _steps(self, share=1.0):
        """A share of the steps, a multiple of the record interval."""
        return max(round(self.parameters.steps * share / self._every), 1) * self._every

    @property
    def _every(self):
        return max(self.parameters.steps // self.parameters.records, 1)

    def _runs(self, whole):
        """A number of runs in proportion to the seeds, of which 20 are the whole study."""
        return max(whole * self.parameters.seeds // 20, 2)

    @property
    def _instances(self):
        return range(self.parameters.instances)

    def _threads(self):
        return cores() if self.workers is None else validate(Threads, "workers", self.workers)

    def descend(self, name, given, start, ridge, steps=None):
        """Gradient descent to its end at a ridge, or for so many steps; the Run."""
        longest = steps or self._steps()
        record = Record(every=1000, metrics=("singular_values", "errors"))
        stop = Stop() if steps else Stop(gradient=1e-10)
        method = GD(lr=LR_OF_GD, ridge=ridge)
        arguments = {"problem": given, "network": start, "method": method, "steps": longest, "record": record}
        return made(self.store / "gd" / name, False, **arguments, stop=stop, checkpoint_every=longest)

    def early(self, instance, noise, depth, hidden=SIZE):
        """Gradient descent with the small ridge, stopped while its rank is still high."""
        start = Network.gaussian((SIZE, *[hidden] * (depth - 1), SIZE), gamma=0.5, seed=instance)
        name = f"instance={instance},noise={noise:g},depth={depth},hidden={hidden},early"
        return self.descend(name, problem(instance, noise), start, SMALL_RIDGE, steps=self.parameters.early_steps)

    def minimum(self, instance, noise, depth, ridge, hidden=SIZE):
        """The run that ends at the minimum which gradient descent finds at `ridge`, from where `early` stopped."""
        start = self.early(instance, noise, depth, hidden).network
        name = f"instance={instance},noise={noise:g},depth={depth},hidden={hidden},ridge={ridge:.3g}"
        return self.descend(name, problem(instance, noise), start, ridge)

    def _ensemble(self, name, problem, network, method, share=1.0, **others):
        settings = {"sets": SETS, "threads": self._threads(), "progress": self.progress, **others}
        settings |= {"every": self._every, "store": self.store / "sgd" / name}
        return ensemble(problem, network, method, self._steps(share), **settings)

    def one_way(self):
        """[(name, the run before, its Ensemble)]: do ranks fall, rise, and are the sets B_r left?"""
        rows = []
        for number, (name, instance, noise, depth, lr, ridge, start) in enumerate(ONE_WAY):
            if start == "early":
                before = self.early(instance, noise, depth)
            else:
                before = self.minimum(instance, noise, depth, ridge)
            method = SGD(lr=lr, ridge=ridge)
            given = problem(instance, noise)
            runs = self._runs(1024)
            rows.append((name, before, self._ensemble(f"one-way-{number}", given, before.network, method, runs=runs)))
        return rows

    def example(self, several):
        """(gradient descent, SGD): both go on from the first start of `one_way`, whose Ensemble `several` is."""
        _, instance, noise, depth, lr, ridge, _ = ONE_WAY[0]
        before = self.minimum(instance, noise, depth, ridge)
        first = np.where(several.first_falls < 0, several.steps[-1] + 1, several.first_falls)
        seed = int(several.sampling_seed[np.argsort(first)[len(first) // 2]])  # a run of median waiting time
        steps = self._steps(0.5)
        given = problem(instance, noise)
        runs = []
        for name, method in (("gd", GD(lr=lr, ridge=ridge)), ("sgd", SGD(lr=lr, ridge=ridge, sampling_seed=seed))):
            record = Record(every=max(self._every // 4, 1), metrics=("singular_values", "errors"))
            arguments = {"problem": given, "network": before.network, "method": method, "steps": steps}
            path = self.store / "example" / name
            runs.append(made(path, False, **arguments, record=record, checkpoint_every=steps))
        return tuple(runs)

    def sampling(self):
        """[(batch, replacement, Ensemble)] from the first start of `one_way`, half as many steps."""
        _, instance, noise, depth, lr, ridge, _ = ONE_WAY[0]
        before = self.minimum(instance, noise, depth, ridge)
        rows = []
        for batch, replacement in self.parameters.samplings:
            method = SGD(lr=lr, ridge=ridge, batch=batch, replacement=replacement)
            given = problem(instance, noise)
            name = f"sampling-{batch}-{replacement}"
            made = self._ensemble(name, given, before.network, method, runs=self._runs(256), share=0.5)
            rows.append((batch, replacement, made))
        return rows

    def depths(self):
        """[(depth, ridge, the run before, Ensemble)]: each from its own minimum, all with the same η."""
        own = self.parameters
        rows = []
        for depth, ridge in itertools.product(own.depths, own.depth_ridges):
            before = self.minimum(DEPTH_INSTANCE, NOISE, depth, ridge)
            method = SGD(lr=DEPTH_LR, ridge=ridge)
            name = f"depth-{depth}-{ridge:g}"
            given = problem(DEPTH_INSTANCE)
            made = self._ensemble(name, given, before.network, method, runs=self._runs(256), share=0.5)
            rows.append((depth, ridge, before, made))
        return rows

    def widths(self):
        """[(hidden width, the run before, Ensemble)] at the step size and ridge of the first start of `one_way`."""
        _, instance, noise, depth, lr, ridge, _ = ONE_WAY[0]
        rows = []
        for hidden in self.parameters.widths:
            before = self.minimum(instance, noise, depth, ridge, hidden)
            given = problem(instance, noise)
            method = SGD(lr=lr, ridge=ridge)
            made = self._ensemble(f"width-{hidden}", given, before.network, method, runs=self._runs(128), share=0.5)
            rows.append((hidden, before, made))
        return rows

    def phases(self):
        """({ridge: run of gradient descent}, Ensemble over learning rates × ridges × seeds, each from its end)."""
        own = self.parameters
        descents = {ridge: self.minimum(0, NOISE, 3, ridge) for ridge in own.phase_ridges}
        cells = list(itertools.product(own.phase_lrs, descents, range(own.seeds)))
        methods = [SGD(lr=lr, ridge=ridge, sampling_seed=seed) for lr, ridge, seed in cells]
        starts = {ridge: run.network for ridge, run in descents.items()}
        networks = [starts[ridge] for _, ridge, _ in cells]
        return descents, self._ensemble("phases", problem(0), networks, methods, share=0.5)

    def schedules(self, noise):
        """{name: Ensemble} over instances and seeds, from where `early` stopped."""
        seeds = self._runs(16)
        made = {}
        runs = list(itertools.product(self._instances, range(seeds)))
        own = [problem(instance, noise) for instance in self._instances]
        starts = [self.early(instance, noise, 3).network for instance in self._instances]
        for name, settings in SCHEDULES.items():
            methods = [self._scheduled(settings, seed) for _, seed in runs]
            problems, networks = ([chosen[instance] for instance, _ in runs] for chosen in (own, starts))
            folder = f"{name.replace(', ', '-')}-{noise:g}"
            made[name] = self._ensemble(folder, problems, networks, methods, share=SCHEDULE_STEPS / MILLION)
        return made

    def _scheduled(self, settings, seed):
        """An SGD whose schedules are stretched with the number of steps."""
        lr, ridge, of_lr, of_ridge = settings

        def schedule(given):
            if given is None:
                return None
            factor, *times = given
            times = [max(round(time * self.parameters.steps / MILLION), k + 1) for k, time in enumerate(times)]
            if len(times) == 1:
                return SquareWave(factor=factor, period=times[0])
            return ExponentialDecay(factor=factor, start=times[0], stop=max(times[1], times[0] + 1))

        schedules = {"lr_schedule": schedule(of_lr), "ridge_schedule": schedule(of_ridge)}
        return SGD(lr=lr, ridge=ridge, sampling_seed=seed, **schedules)

    def baselines(self, noise):
        """{name: hidden errors (instances,)}: nuclear norm and gradient descent, also with hindsight."""
        path = self.store / f"baselines-{noise:g}.json"
        if not path.is_file():
            each = [self._baselines_of(instance, noise) for instance in self._instances]
            write_json(path, {name: [found[name] for found in each] for name in BASELINES})
        known = read_json(path)
        return {name: np.array(known[name]) for name in BASELINES}

    def _baselines_of(self, instance, noise):
        given = problem(instance, noise)
        weights = self.parameters.weights

        def hidden(matrix):
            return float(given.errors(matrix)["test"])

        exact = hidden(nuclear_norm_completion(given.target, given.mask))
        soft = min(hidden(least_squares_nuclear(given.target, given.mask, weight)) for weight in weights)
        descents = [self.minimum(instance, noise, 3, ridge) for ridge in (SMALL_RIDGE, *weights[1::2])]
        errors = [hidden(run.network.product()) for run in descents]
        return dict(zip(BASELINES, (exact, min(exact, soft), errors[0], min(errors)), strict=True))
