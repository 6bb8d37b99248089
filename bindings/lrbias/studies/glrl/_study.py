"""The study of greedy low-rank learning, registered as `glrl`."""

import numpy as np

from lrbias.analysis import check_installed
from lrbias.methods import GLRL, GradientFlow
from lrbias.metrics import Record
from lrbias.network import Network
from lrbias.problems import Factorization, from_eigenvalues
from lrbias.storage import read_json, write_json
from lrbias.studies import Study, made
from lrbias.studies.glrl import _parameters as parameters
from lrbias.studies.glrl._completions import test_errors
from lrbias.studies.glrl._parameters import (
    COMPLETIONS,
    DEPTHS,
    GRAPHS,
    LARGE,
    NUCLEAR,
    RTOL,
    SEED,
    SIZE,
    GreedyParameters,
)
from lrbias.studies.glrl._paths import compare_paths
from lrbias.studies.glrl._problems import counterexample, graph
from lrbias.studies.glrl._tables import GreedyFindings

WATCHED = ("product", "singular_values", "effective_rank")
FACTORIZATIONS = ((2, True), *((depth, False) for depth in DEPTHS))  # depth, tied
FLOW_STEPS = 400
SECONDS, BYTES = 180.0, 5.5e7


class Greedy(Study):
    """Parts that are made under `store` when they are asked for."""

    name = "glrl"
    summary = "Greedy low-rank learning beside gradient flow (Li, Luo and Lyu); about three minutes."
    title = "Greedy low-rank learning beside gradient flow"
    about = parameters.__doc__.split("\n\n", 1)[1].strip()
    Parameters = GreedyParameters

    def check(self):
        check_installed("the study glrl")

    def forecast(self):
        """As measured, on one core; how long plateaus take cannot be timed beforehand."""
        own = self.parameters
        distances = len(DEPTHS) + sum(map(len, own.scales.values())) + len(own.random_scales)
        others = len(FACTORIZATIONS) + len(LARGE) * (1 + len(own.large_scales)) + 2 * len(GRAPHS)
        completed = len(own.fractions) * own.instances * (len(COMPLETIONS) + 1)
        return {"runs": distances + others + completed, "seconds": SECONDS, "bytes": BYTES}

    def make(self):
        found = GreedyFindings(self, FACTORIZATIONS)
        self.shown.stop()
        return found

    def _made(self, name, given, network, method, **others):
        steps = others.pop("steps", None)
        record = Record(every=1, metrics=others.pop("metrics", WATCHED))
        arguments = {"problem": given, "network": network, "method": method, "steps": steps, "record": record}
        run = made(self.store / name, False, **arguments, checkpoint_every=steps or 1_000_000, compress="off")
        self.shown.update(name, run.status)
        return run

    def paths(self, depth):
        """What `compare_paths` says of a depth."""
        path = self.store / f"paths-{depth}.json"
        if not path.is_file():
            write_json(path, compare_paths(self.parameters, depth, self.shown.update))
        return read_json(path)

    def factorization(self, depth, tied):
        """Greedy learning of a whole matrix."""
        method = GLRL(epsilon=1e-6, depth=depth, tied=tied, inner=_flow(0.1), tolerance=1e-10, check_every=20)
        name = f"factorization/depth={depth}{',tied' if tied else ''}"
        given = Factorization(from_eigenvalues(SIZE, self.parameters.spectrum, SEED))
        return self._made(name, given, None, method, metrics=("singular_values", "effective_rank"))

    def counterexample(self, large):
        """(greedy learning, {α: flow}) of the counter-example."""
        method = GLRL(epsilon=1e-10, tied=True, inner=_flow(0.1), tolerance=1e-10, check_every=50)
        metrics = ("singular_values",)
        folder = f"counterexample/R={large}"
        given = counterexample(large)
        greedy = self._made(f"{folder}/greedy", given, None, method, metrics=metrics)
        flows = {}
        for alpha in self.parameters.large_scales:
            network = Network.tied((4, 4, 4), alpha, seed=1)
            name = f"{folder}/flow,alpha={alpha:g}"
            flows[alpha] = self._made(name, given, network, _flow(1.0), steps=FLOW_STEPS, metrics=metrics)
        return greedy, flows

    def on_graph(self, name):
        """(greedy learning, flow) of a rank-1 matrix on one of GRAPHS, α = 1e-4."""
        folder = f"graphs/{name}"
        given = graph(name)
        method = GLRL(epsilon=1e-10, tied=True, inner=_flow(0.1), tolerance=1e-9, check_every=50)
        greedy = self._made(f"{folder}/greedy", given, None, method)
        network = Network.tied((SIZE, SIZE, SIZE), 1e-4, seed=SEED)
        return greedy, self._made(f"{folder}/flow", given, network, _flow(1.0), steps=FLOW_STEPS)

    def completions(self):
        """{fraction: {name: (instances,) root mean square errors over hidden entries}}."""
        path = self.store / "completions.json"
        if not path.is_file():
            found = {f"{fraction:g}": self._completions_at(fraction) for fraction in self.parameters.fractions}
            write_json(path, {"test_errors": found})
        found = read_json(path)["test_errors"]
        return {float(key): {name: np.array(errors) for name, errors in row.items()} for key, row in found.items()}

    def _completions_at(self, fraction):
        names = [*(name for name, _, _ in COMPLETIONS), NUCLEAR]
        steps = self.parameters.completion_steps
        instances = range(self.parameters.instances)
        each = [test_errors(fraction, instance, steps, self.shown.update) for instance in instances]
        return {name: [errors[name] for errors in each] for name in names}


def _flow(dt):
    return GradientFlow(dt=dt, scheme="dopri5", rtol=RTOL)
