"""Errors over hidden entries, of greedy learning, flows and the least nuclear norm."""

import warnings
from typing import Any

from lrbias.analysis import nuclear_norm_completion
from lrbias.errors import DataWarning
from lrbias.experiments import Stop
from lrbias.methods import GLRL, GradientFlow
from lrbias.metrics import Record
from lrbias.network import Network
from lrbias.problems import Completion, from_singular_values
from lrbias.studies.glrl._parameters import COMPLETIONS, HIDDEN_VALUES, NUCLEAR, SIZE
from lrbias.training import train

FITTED = 1e-9  # the loss at which a flow ends


def test_errors(fraction, instance, steps, note):
    """{name: error over the hidden entries} of one instance; runs that are cut off count with what they have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        given = Completion(
            from_singular_values((SIZE, SIZE), HIDDEN_VALUES, instance), fraction=fraction, seed=instance
        )
    products = {}
    for name, depth, alpha in COMPLETIONS:
        products[name] = _completed(given, depth, alpha, steps)
        note(f"{name}, {100 * fraction:.0f} %", "finished")
    products[NUCLEAR] = nuclear_norm_completion(given.target, given.mask)
    note(NUCLEAR, "finished")
    return {name: float(given.errors(product)["test"]) for name, product in products.items()}


def _completed(given, depth, alpha, steps):
    nothing: dict[str, Any] = {"record": Record(every=steps, metrics=()), "forecast": False, "progress": False}
    if alpha is None:
        inner = GradientFlow(dt=0.1, scheme="dopri5", rtol=1e-8)
        others: dict[str, Any] = {"tolerance": 1e-6, "cutoff": 1e-4, "check_every": 50}
        greedy = GLRL(epsilon=1e-8 if depth == 2 else 1e-5, depth=depth, inner=inner, **others)
        return train(given, None, greedy, steps, **nothing).network.product()
    network = Network.orthogonal((SIZE,) * (depth + 1), alpha, seed=0)
    method = GradientFlow(dt=1.0, scheme="dopri5", rtol=1e-6)
    others = {"stop": Stop(loss=FITTED), "compress": "off", **nothing}
    return train(given, network, method, steps, **others).network.product()
