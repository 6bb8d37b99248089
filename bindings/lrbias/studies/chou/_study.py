"""The study of recovery in deep matrix factorization, registered as `chou`."""

from lrbias.forecasts import cost
from lrbias.methods import GD
from lrbias.metrics import Record
from lrbias.network import Network
from lrbias.problems import Factorization
from lrbias.studies import Study, made
from lrbias.studies.chou import _parameters as parameters
from lrbias.studies.chou._parameters import (
    ALPHA,
    BETA,
    DEPTH,
    DEPTH_STEPS,
    EXAMPLES,
    LR,
    METRICS,
    NOT_SYMMETRIC_STEPS,
    RANDOM_STEPS,
    SKEW,
    STEPS,
    ChouParameters,
    target,
)
from lrbias.studies.chou._recovery import Recovery


class Chou(Study):
    """Runs from identical and perturbed starts, by example and by depth."""

    name = "chou"
    summary = "Recovery of eigenvalues from identical and perturbed starts (Chou et al.), with theory; seconds."
    title = "Recovery of eigenvalues"
    about = parameters.__doc__.split("\n\n", 1)[1].strip()
    Parameters = ChouParameters

    def forecast(self):
        costs = [cost(**arguments) for arguments in self.runs().values()]
        return {"runs": len(costs), "seconds": sum(s for s, _ in costs), "bytes": sum(size for _, size in costs)}

    def make(self):
        runs = self.runs().items()
        return Recovery(self, {name: made(self.store / name, self.progress, **own) for name, own in runs})

    @classmethod
    def stem(cls):
        return "recovery"

    def runs(self):
        """{name: arguments of train} of all runs."""
        found = {}
        for (example, start), steps in STEPS.items():
            found[f"example-{example}-{start}"] = self._arguments(target(example), _start(start, DEPTH), steps)
        for depth, steps in DEPTH_STEPS.items():
            found[f"depth-{depth}"] = self._arguments(target(1), _start("perturbed", depth), steps)
        for example in EXAMPLES:
            matrix = target(example, SKEW)
            identical = _start("identical", DEPTH)
            found[f"not-symmetric-{example}"] = self._arguments(matrix, identical, NOT_SYMMETRIC_STEPS)
        random = Network.gaussian((4,) * (DEPTH + 1), gamma=1.7, seed=1)
        found["random"] = self._arguments(target(1), random, RANDOM_STEPS)
        return found

    def _arguments(self, matrix, network, steps):
        return {
            "problem": Factorization(matrix),
            "network": network,
            "method": GD(lr=LR),
            "steps": steps,
            "record": Record(every=max(10, steps // self.parameters.records), metrics=METRICS),
            "checkpoint_every": steps,
        }


def _start(kind, depth):
    if kind == "identical":
        return Network.scaled_identity(4, depth, ALPHA)
    return Network.perturbed(4, depth, ALPHA, BETA)
