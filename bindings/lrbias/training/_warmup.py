"""Compiling the kernels of a run before they are needed, as in the image of a container or on a login node."""

from lrbias.errors import check
from lrbias.methods import GD, SGD, GradientFlow, Linearized, Method
from lrbias.problems import Problem

STEPS = 2
METHODS: dict[str, list[Method]] = {
    "gd": [GD(lr=1e-3)],
    "flow": [GradientFlow(dt=1e-3), GradientFlow(dt=1e-3, scheme="dopri5", rtol=1e-4)],
    "sgd": [SGD(lr=1e-3)],
    "linearized": [Linearized(lr=1e-3)],
}
DTYPES = ("float64", "float32")


def warm_up(methods: tuple[str, ...] = tuple(METHODS), dtypes: tuple[str, ...] = DTYPES[:1]) -> list[tuple[str, float]]:
    """Train small networks with each method and dtype, so that later processes find their kernels compiled.

    Returns (kernel, seconds) of what was compiled; what had been compiled before is not in the list.
    """
    from lrcore.cpu import compilation

    for name in methods:
        check(name in METHODS, "methods", name, f"some of {', '.join(METHODS)}")
    for name in dtypes:
        check(name in DTYPES, "dtypes", name, f"some of {', '.join(DTYPES)}")
    before = len(compilation.compiled())
    for dtype in dtypes:
        for name in methods:
            for method in METHODS[name]:
                _train(method, dtype)
    return [(each.kernel, each.seconds) for each in compilation.compiled()[before:]]


def _train(method: Method, dtype: str) -> None:
    """A run of a whole target, where the method takes one, and of some of its entries."""
    import lrbias as lb

    target = lb.teacher(shape=(4, 3), rank=2, depth=3, spectral_norm=1.0, seed=0)
    network = lb.Network.gaussian(widths=(3, 4, 4, 4), gamma=1.0, seed=1, dtype=dtype)
    record = lb.Record(every=1)
    whole: list[Problem] = [] if method.stochastic else [lb.Factorization(target)]
    for problem in [*whole, lb.Completion(target, fraction=0.7, seed=0)]:
        lb.train(problem, network, method, STEPS, record=record, compress="off", progress=False, forecast=False)
