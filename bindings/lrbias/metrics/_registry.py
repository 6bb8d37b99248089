"""The metrics by name, and the quantities that each one writes."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A named group of quantities that are measured together.

    quantities(setup) lists (name, row shape, kind: "float" or "int"); measure(observation) gives their values in order;
    needs(setup) maps the keys of the matrices whose singular values it reads to how many leading singular vectors it
    reads beside them. on_request: recorded only where it is named, not among "all". remembers: what it keeps in
    `observation.memory` enters the next record, so records are made in order. looks_back: it reads `setup.start`.
    """

    name: str
    quantities: Callable
    measure: Callable
    needs: Callable
    on_request: bool = False
    remembers: bool = False
    looks_back: bool = False


METRICS: dict[str, Metric] = {}


def metric(name, quantities, needs=lambda setup: {}, **kinds):
    """Register the decorated function as the metric `name`; `kinds` as in `Metric`."""

    def register(measure):
        METRICS[name] = Metric(name, quantities, measure, needs, **kinds)
        return measure

    return register
