"""Greedy low-rank learning beside gradient flow (Li, Luo and Lyu): the same path from small starts, and how small.

Matched, as far as an abstract of the paper and a summary of it tell: the algorithm for depth 2, symmetric and by
symmetrisation, dist(t) = min_t' ‖W_flow(t) − W_greedy(t')‖_F, the counter-example to nuclear norm minimisation, and the
comparison of depth 2 with depths ≥ 3. Ours: every size, seed and tolerance, the form for depth ≥ 3, the rate at which
the distance falls, and the experiments about hidden entries and connected graphs (after Bai et al. 2024).

One completion problem for all distances: a symmetric 10 × 10 matrix with eigenvalues 10, 3 and 1, of which 70 % of the
pairs (i, j), (j, i) are seen. Flows start from layers αI and are integrated by Dormand and Prince's pair with
rtol = 1e-10; greedy learning uses the same integrator in its phases.
"""

import itertools
import warnings
from pathlib import Path

import numpy as np

from lrbias.errors import DataWarning, require
from lrbias.experiments import Stop
from lrbias.methods import GLRL, GradientFlow
from lrbias.metrics import Record
from lrbias.network import Network
from lrbias.problems import Completion, Factorization, spectrum, symmetric
from lrbias.storage import read_json, write_json
from lrbias.studies import made, make_store
from lrbias.studies.glrl._paths import DEPTHS, RANDOM_SCALES, RTOL, SCALES, SEED, SIZE, compare_paths
from lrbias.system import RunsDisplay
from lrbias.training import train

WATCHED = ("product", "singular_values", "effective_rank")
LARGE = (2, 3, 5)  # R of the counter-example
LARGE_SCALES = (1e-1, 1e-2, 1e-4, 1e-8, 1e-16, 1e-32, 1e-64)
SPECTRUM = (7.0, 4.0, 2.0, 1.0)  # of the whole target whose phases are compared with best approximations
FRACTIONS = (0.4, 0.5, 0.6, 0.7, 0.8)
INSTANCES = 10
HIDDEN_VALUES = (10.0, 5.0)
COMPLETIONS = (  # name, depth, α; None for greedy learning
    ("greedy, N = 2", 2, None),
    ("greedy, N = 3", 3, None),
    ("flow, N = 2, α = 0.001", 2, 1e-3),
    ("flow, N = 3, α = 0.03", 3, 3e-2),
    ("flow, N = 2, α = 0.3", 2, 0.3),
)
NUCLEAR = "least nuclear norm"
COMPLETION_STEPS, FITTED = 5000, 1e-9
GRAPHS = ("two parts", "joined by one pair", "connected, as many pairs")
BLOCK = SIZE // 2
SECONDS, BYTES = 180.0, 5.5e7


def counterexample(large):
    """A symmetric 4 × 4 matrix, (1, 3) = 1 and (1, 4) = (2, 3) = R seen: rank 1 has nuclear norm 2R² + 2, not 4R."""
    target = np.zeros((4, 4))
    target[0, 2] = 1
    target[0, 3] = large
    target[1, 2] = large
    target += target.T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return Completion(target, mask=target != 0)


def graph(name):
    """A rank-1 matrix of which two diagonal blocks are seen, or these and one pair between them, or as many others."""
    target = symmetric(SIZE, (float(SIZE),), SEED)
    first = np.arange(SIZE) < BLOCK
    mask = first[:, None] == first
    if name == GRAPHS[1]:
        i, j = np.unravel_index(np.argmax(np.where(mask, 0, np.abs(target))), mask.shape)
        mask[i, j] = mask[j, i] = True
    elif name == GRAPHS[2]:
        pairs = int(np.triu(mask).sum())
        return next(given for given in _drawn(target, pairs) if given.connected)
    return Completion(target, mask=mask)


def _drawn(target, pairs):
    for seed in itertools.count():
        yield Completion(target, entries=pairs, seed=seed, pairs=True)


def _flow(dt, rtol=RTOL):
    return GradientFlow(dt=dt, scheme="dopri5", rtol=rtol)


class Study:
    """The parts of the study, made under `store` when they are asked for."""

    def __init__(self, store, progress=None):
        self.store = Path(store)
        self._shown = RunsDisplay(progress, expected()["runs"], 0)
        if not (self.store / "study.json").is_file():
            make_store(self.store, {"study": "glrl"})
        known = read_json(self.store / "study.json").get("study")
        require(known == "glrl", "store", str(self.store), "a new folder, or one of this study")

    def _made(self, name, given, network, method, steps=None, every=1, metrics=WATCHED, stop=None):
        others = {"record": Record(every=every, metrics=metrics), "checkpoint_every": steps or 1_000_000}
        arguments = {"problem": given, "network": network, "method": method, "steps": steps, "stop": stop, **others}
        run = made(self.store / name, False, **arguments, compress="off")
        self._shown.update(name, run.status)
        return run

    def paths(self, depth):
        """What `compare_paths` says of a depth."""
        path = self.store / f"paths-{depth}.json"
        if not path.is_file():
            write_json(path, compare_paths(depth, self._shown.update))
        return read_json(path)

    def factorization(self, depth, tied):
        """Greedy learning of a whole matrix."""
        method = GLRL(epsilon=1e-6, depth=depth, tied=tied, inner=_flow(0.1), tolerance=1e-10, check_every=20)
        name = f"factorization/depth={depth}{',tied' if tied else ''}"
        given = Factorization(symmetric(SIZE, SPECTRUM, SEED))
        return self._made(name, given, None, method, metrics=("singular_values", "effective_rank"))

    def counterexample(self, large):
        """(greedy learning, {α: flow}) of the counter-example."""
        method = GLRL(epsilon=1e-10, tied=True, inner=_flow(0.1), tolerance=1e-10, check_every=50)
        metrics = ("singular_values",)
        folder = f"counterexample/R={large}"
        greedy = self._made(f"{folder}/greedy", counterexample(large), None, method, metrics=metrics)
        flows = {}
        for alpha in LARGE_SCALES:
            network = Network.symmetric((4, 4, 4), alpha, seed=1)
            given = (_flow(1.0), 400)
            name = f"{folder}/flow,alpha={alpha:g}"
            flows[alpha] = self._made(name, counterexample(large), network, *given, metrics=metrics)
        return greedy, flows

    def on_graph(self, name):
        """(greedy learning, flow) of a rank-1 matrix on one of GRAPHS, α = 1e-4."""
        folder = f"graphs/{name}"
        given = graph(name)
        method = GLRL(epsilon=1e-10, tied=True, inner=_flow(0.1), tolerance=1e-9, check_every=50)
        greedy = self._made(f"{folder}/greedy", given, None, method)
        network = Network.symmetric((SIZE, SIZE, SIZE), 1e-4, seed=SEED)
        return greedy, self._made(f"{folder}/flow", given, network, _flow(1.0), 400)

    def completions(self):
        """{fraction: {name: (instances,) root mean square errors over hidden entries}}."""
        path = self.store / "completions.json"
        if not path.is_file():
            found = {f"{fraction:g}": self._completions_at(fraction) for fraction in FRACTIONS}
            write_json(path, {"hidden_errors": found})
        found = read_json(path)["hidden_errors"]
        return {float(key): {name: np.array(errors) for name, errors in row.items()} for key, row in found.items()}

    def _completions_at(self, fraction):
        names = [*(name for name, _, _ in COMPLETIONS), NUCLEAR]
        each = [_hidden_errors(fraction, instance, self._shown.update) for instance in range(INSTANCES)]
        return {name: [errors[name] for errors in each] for name in names}

    def stop(self):
        """The end of the display."""
        self._shown.stop()


def _hidden_errors(fraction, instance, note):
    """{name: error over the hidden entries} of one instance; runs that are cut off count with what they have."""
    from lrbias.analysis import nuclear_norm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        given = Completion(spectrum((SIZE, SIZE), HIDDEN_VALUES, instance), fraction=fraction, seed=instance)
    products = {}
    for name, depth, alpha in COMPLETIONS:
        products[name] = _completed(given, depth, alpha)
        note(f"{name}, {100 * fraction:.0f} %", "finished")
    products[NUCLEAR] = nuclear_norm(given.target, given.mask)
    note(NUCLEAR, "finished")
    return {name: float(given.errors(product)["hidden"]) for name, product in products.items()}


def _completed(given, depth, alpha):
    nothing = {"record": Record(every=COMPLETION_STEPS, metrics=()), "forecast": False, "progress": False}
    if alpha is None:
        others = {"tolerance": 1e-6, "cutoff": 1e-4, "check_every": 50}
        method = GLRL(epsilon=1e-8 if depth == 2 else 1e-5, depth=depth, inner=_flow(0.1, 1e-8), **others)
        return train(given, None, method, COMPLETION_STEPS, **nothing).network.product()
    network = Network.orthogonal((SIZE,) * (depth + 1), alpha, seed=0)
    others = {"stop": Stop(loss=FITTED), "compress": "off", **nothing}
    return train(given, network, _flow(1.0, 1e-6), COMPLETION_STEPS, **others).network.product()


def expected():
    """{runs, seconds, bytes}: as measured, on one core; how long plateaus take cannot be timed beforehand."""
    distances = len(DEPTHS) + sum(map(len, SCALES.values())) + len(RANDOM_SCALES)
    others = 4 + len(LARGE) * (1 + len(LARGE_SCALES)) + 2 * len(GRAPHS)
    completed = len(FRACTIONS) * INSTANCES * (len(COMPLETIONS) + 1)
    return {"runs": distances + others + completed, "seconds": SECONDS, "bytes": BYTES}
