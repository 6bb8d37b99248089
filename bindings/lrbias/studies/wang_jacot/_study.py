"""SGD with ridge on matrix completion (Wang and Jacot): jumps to lower rank that never go back, and where they do.

Matched: single entries drawn with replacement, W_l ← (1 − 2ηλ) W_l − η (W_ij − Ŵ_ij) · …, depth 3 and others, the
experiments that a report on the paper asks for. Ours: all sizes and seeds, the exact form and the numbers of the sets
B_r, the hysteresis of the rank (0.01 and 0.02 of σ_1), and the noise. Targets are 10 × 10 of rank 1 and mean square 1,
60 entries observed, with Gaussian noise of standard deviation 0.2 on what is observed: without noise gradient descent
with a ridge ended at the true rank in all ten instances, and no minimum of a higher rank was left to jump from. SGD
starts where gradient descent has ended for the same loss (gradient norm below 1e-10) unless a table says otherwise, so
that jumps are the work of the noise and not of a ridge that was changed.
"""

import itertools
from pathlib import Path

import numpy as np

from lrbias.errors import require
from lrbias.experiments import Stop
from lrbias.forecasts import seconds_of
from lrbias.methods import GD, SGD, Anneal, Periodic
from lrbias.metrics import AbsorbingSets, Record
from lrbias.network import Network
from lrbias.problems import Completion, gaussian, spectrum
from lrbias.settings import Threads, validate
from lrbias.storage import read_json, write_json
from lrbias.studies import made, make_store
from lrbias.sweeps import ensemble
from lrbias.system import cores
from lrcore import cpu, layout, random
from lrcore.cpu import workspace

SIZE = 10
ENTRIES = 60
NOISE = 0.2
SMALL_RIDGE = 1e-4
MILLION = 1_000_000
SETS = AbsorbingSets(balance=10.0, slack=0.5, alpha=0.5, bound=60.0)
LR_OF_GD = 0.1
# (name, instance, noise, depth, η, λ, start): "minimum" is that of gradient descent at the same λ
ONE_WAY = [
    ("N = 3, large step", 0, NOISE, 3, 0.16, 2.5e-3, "minimum"),
    ("N = 3, smaller step", 0, NOISE, 3, 0.14, 2.5e-3, "minimum"),
    ("N = 5, small step", 0, NOISE, 5, 0.08, 2e-3, "minimum"),
    ("no noise, GD not at its end", 0, 0.0, 3, 0.1, 1e-3, "early"),
    ("outside: too large a step", 1, NOISE, 3, 0.16, 1e-3, "minimum"),
]
CURVATURE_STEP = 1e-5
EARLY_STEPS = 10_000  # of gradient descent with a small ridge, where its rank is still high
SAMPLINGS = [(1, True), (1, False), (2, True), (2, False), (4, True), (4, False)]  # (batch, replacement)
DEPTHS = (2, 3, 4, 5)
DEPTH_RIDGES = (1e-3, 2e-3, 3e-3)
DEPTH_LR = 0.08
DEPTH_INSTANCE = 1
WIDTHS = (5, 10, 20, 40)
PHASE_LRS, PHASE_RIDGES = np.geomspace(0.03, 0.3, 20), np.geomspace(3e-4, 6e-2, 20)
INSTANCES = 10
SCHEDULES = {
    "SGD, constant": (0.1, 3e-3, None, None),
    "SGD, annealed": (0.1, 6e-3, (0.1, 300_000, 500_000), (0.01, 300_000, 500_000)),
    "SGD, periodic": (0.1, 6e-3, (0.1, 200_000), (0.01, 200_000)),
}
SCHEDULE_STEPS = 600_000
BASELINES = ("nuclear norm, exact", "nuclear norm, best weight", "GD, small ridge", "GD, best ridge")
WEIGHTS = np.geomspace(1e-4, 1e-1, 13)  # of the nuclear norm and the ridges of gradient descent: the best one counts


def truth(instance):
    """The rank-1 matrix of an instance: mean square 1, random directions."""
    return spectrum((SIZE, SIZE), [float(SIZE)], seed=instance)


def problem(instance, noise=NOISE):
    """Observed entries with noise, hidden ones without."""
    mask = Completion(truth(instance), entries=ENTRIES, seed=instance).mask
    added = noise * gaussian((SIZE, SIZE), instance, stream=3, domain=random.OBSERVED)
    return Completion(np.where(mask, truth(instance) + added, truth(instance)), mask=mask, mean=True)


def _checked_threads(threads):
    return cores() if threads is None else validate(Threads, "workers", threads)


def _share(runs, seeds):
    """A number of runs in proportion to the seeds, of which 20 are the whole study."""
    return max(runs * seeds // 20, 2)


class Study:
    """The parts of the study, made under `store` when they are asked for.

    steps: of every one-way trajectory; what the other parts take is in proportion. seeds: of each cell of the phase
    diagram; the numbers of runs of the other parts are in proportion.
    """

    def __init__(self, store, steps=MILLION, seeds=20, threads=None, progress=None):
        self.store = Path(store)
        self.steps = steps
        self.seeds = seeds
        self.threads = _checked_threads(threads)
        self.progress = progress
        self._begin()

    def _begin(self):
        """The folder, with the size of the study in it; InvalidInput when it holds one of another size."""
        path = self.store / "study.json"
        size = {"steps": self.steps, "seeds": self.seeds}
        if path.is_file():
            known = read_json(path)
            accepted = f"a study of {self.steps} steps and {self.seeds} seeds, this one has {known}"
            require(known == size, "store", str(self.store), accepted)
            return
        make_store(self.store, size)

    def _steps(self, share=1.0):
        """A share of the steps, a multiple of the record interval."""
        return max(round(self.steps * share / self._every), 1) * self._every

    @property
    def _every(self):
        return max(self.steps // 500, 1)

    def _runs(self, whole):
        return _share(whole, self.seeds)

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
        return self.descend(name, problem(instance, noise), start, SMALL_RIDGE, steps=EARLY_STEPS)

    def minimum(self, instance, noise, depth, ridge, hidden=SIZE):
        """The run that ends at the minimum which gradient descent finds at `ridge`, from where `early` stopped."""
        start = self.early(instance, noise, depth, hidden).network
        name = f"instance={instance},noise={noise:g},depth={depth},hidden={hidden},ridge={ridge:.3g}"
        return self.descend(name, problem(instance, noise), start, ridge)

    def _ensemble(self, name, *given, share=1.0, **others):
        settings = {"sets": SETS, "threads": self.threads, "progress": self.progress, **others}
        return ensemble(*given, self._steps(share), every=self._every, store=self.store / "sgd" / name, **settings)

    def one_way(self):
        """[(name, the run before, its Ensemble)]: do ranks fall, rise, and are the sets B_r left?"""
        rows = []
        for number, (name, instance, noise, depth, lr, ridge, start) in enumerate(ONE_WAY):
            before = (
                self.early(instance, noise, depth) if start == "early" else self.minimum(instance, noise, depth, ridge)
            )
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
        for batch, replacement in SAMPLINGS:
            method = SGD(lr=lr, ridge=ridge, batch=batch, replacement=replacement)
            given = problem(instance, noise)
            name = f"sampling-{batch}-{replacement}"
            made = self._ensemble(name, given, before.network, method, runs=self._runs(256), share=0.5)
            rows.append((batch, replacement, made))
        return rows

    def depths(self):
        """[(depth, ridge, the run before, Ensemble)]: each from its own minimum, all with the same η."""
        rows = []
        for depth, ridge in itertools.product(DEPTHS, DEPTH_RIDGES):
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
        for hidden in WIDTHS:
            before = self.minimum(instance, noise, depth, ridge, hidden)
            given = problem(instance, noise)
            method = SGD(lr=lr, ridge=ridge)
            made = self._ensemble(f"width-{hidden}", given, before.network, method, runs=self._runs(128), share=0.5)
            rows.append((hidden, before, made))
        return rows

    def phases(self):
        """({ridge: run of gradient descent}, Ensemble over learning rates × ridges × seeds, each from its end)."""
        descents = {float(ridge): self.minimum(0, NOISE, 3, float(ridge)) for ridge in PHASE_RIDGES}
        cells = list(itertools.product(PHASE_LRS, descents, range(self.seeds)))
        methods = [SGD(lr=float(lr), ridge=ridge, sampling_seed=seed) for lr, ridge, seed in cells]
        starts = {ridge: run.network for ridge, run in descents.items()}
        networks = [starts[ridge] for _, ridge, _ in cells]
        return descents, self._ensemble("phases", problem(0), networks, methods, share=0.5)

    def schedules(self, noise):
        """{name: Ensemble} over instances and seeds, from where `early` stopped."""
        seeds = self._runs(16)
        made = {}
        runs = list(itertools.product(range(INSTANCES), range(seeds)))
        own = [problem(instance, noise) for instance in range(INSTANCES)]
        starts = [self.early(instance, noise, 3).network for instance in range(INSTANCES)]
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
            times = [max(round(time * self.steps / MILLION), k + 1) for k, time in enumerate(times)]
            if len(times) == 1:
                return Periodic(factor=factor, period=times[0])
            return Anneal(factor=factor, start=times[0], stop=max(times[1], times[0] + 1))

        schedules = {"lr_schedule": schedule(of_lr), "ridge_schedule": schedule(of_ridge)}
        return SGD(lr=lr, ridge=ridge, sampling_seed=seed, **schedules)

    def baselines(self, noise):
        """{name: hidden errors (instances,)}: nuclear norm and gradient descent, also with hindsight."""
        path = self.store / f"baselines-{noise:g}.json"
        if not path.is_file():
            each = [self._baselines_of(instance, noise, problem(instance, noise)) for instance in range(INSTANCES)]
            write_json(path, {name: [found[name] for found in each] for name in BASELINES})
        known = read_json(path)
        return {name: np.array(known[name]) for name in BASELINES}

    def _baselines_of(self, instance, noise, given):
        from lrbias.analysis import least_squares_nuclear, nuclear_norm

        def hidden(matrix):
            return float(given.errors(matrix)["hidden"])

        exact = hidden(nuclear_norm(given.target, given.mask))
        soft = min(hidden(least_squares_nuclear(given.target, given.mask, weight)) for weight in WEIGHTS)
        descents = [self.minimum(instance, noise, 3, float(ridge)) for ridge in (SMALL_RIDGE, *WEIGHTS[1::2])]
        errors = [hidden(run.network.product()) for run in descents]
        return dict(zip(BASELINES, (exact, min(exact, soft), errors[0], min(errors)), strict=True))


def expected(steps=MILLION, seeds=20, threads=None):
    """{runs, seconds, bytes} of the study, from timing one group of runs for a moment."""
    given = problem(0)
    runs = 64
    threads = _checked_threads(threads)
    start = Network.gaussian((SIZE,) * 4, gamma=0.5, seed=0)
    few = max(steps // 100, 1)

    def make():
        ensemble(given, start, SGD(lr=0.1, ridge=1e-3), few, runs=runs, every=few, threads=1, progress=False)

    per_step = seconds_of(make) / (runs * few)
    halves = (len(SAMPLINGS) + len(DEPTHS) * len(DEPTH_RIDGES)) * _share(256, seeds) + len(WIDTHS) * _share(128, seeds)
    counts = {  # by the share of the steps
        1.0: len(ONE_WAY) * _share(1024, seeds),
        0.5: halves + len(PHASE_LRS) * len(PHASE_RIDGES) * seeds,
        SCHEDULE_STEPS / MILLION: 2 * len(SCHEDULES) * INSTANCES * _share(16, seeds),
    }
    every = sum(counts.values())
    trained = sum(share * count for share, count in counts.items()) * steps
    rows = 500 * 12  # bytes of the records of a run
    return {"runs": every, "seconds": trained * per_step / threads, "bytes": every * (rows + 3000)}


def least_curvature(run):
    """The smallest eigenvalue of the Hessian where a run has ended, by central differences of the gradient.

    Directions that only turn neighbouring layers against each other are flat, so at a minimum it is 0 up to rounding.
    """
    network, problem = run.network, run.problem
    widths = layout.as_widths(network.widths)
    goal = problem.objective(np.float64)
    work = workspace.allocate(widths)
    ridge = run.settings["ridge"]
    count = network.params.size
    hessian, ends = np.empty((count, count)), np.empty((2, count))
    for k in range(count):
        for end, step in zip(ends, (CURVATURE_STEP, -CURVATURE_STEP), strict=True):
            moved = network.params.copy()
            moved[k] += step
            cpu.objective_loss_and_gradient(moved, widths, goal, ridge, end, work)
        hessian[k] = (ends[0] - ends[1]) / (2 * CURVATURE_STEP)
    return float(np.linalg.eigvalsh((hessian + hessian.T) / 2)[0])
