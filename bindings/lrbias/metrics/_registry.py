"""The metrics by name, and the quantities that each one writes."""

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from lrbias.settings import load_entry_point
from lrcore.sheet import Part

Described = tuple[str, tuple[int, ...], str]  # name, shape of a row, "float" or "int"
Quantities = Callable[[Any], list[Described]]  # of a RunContext
Needs = Callable[[Any], dict[Any, int]]  # of a RunContext
Measure = Callable[[Any], Any]  # of a NetworkState
Place = tuple[Part, Any]  # a part of a `lrcore.sheet.Sheet`, an index in it
Places = Callable[[Any], list[Place] | None]  # of a RunContext


def _none(context: Any) -> None:
    """Of a metric that measures itself."""


@dataclass(frozen=True)
class Metric:
    """A named group of quantities that are measured together.

    quantities(context) lists (name, row shape, kind: "float" or "int"); measure(state) gives their values in order;
    needs(context) maps the keys of the matrices whose singular values it reads to how many leading singular vectors it
    reads beside them. places(context) tells instead where these values stand in the sheet of numbers that one call
    makes of a network; None where this one cannot be had from there. opt_in: recorded only where it is named, not among
    "all". stateful: what it keeps in `state.memory` enters the next record, so records are made in order.
    needs_initial: it reads `context.start`.
    """

    name: str
    quantities: Quantities
    measure: Measure
    needs: Needs
    places: Places = _none
    opt_in: bool = False
    stateful: bool = False
    needs_initial: bool = False


class Metrics(Mapping[str, Metric]):
    """The metrics by name: those of this room, and those that other packages add as entry points `lrbias.metrics`.

    Their modules are imported when a metric is looked up, since they need the kernels.
    """

    def __init__(self) -> None:
        self._known: dict[str, Metric] = {}

    def add(self, added: Metric) -> None:
        self._known[added.name] = added

    @functools.cached_property
    def _all(self) -> dict[str, Metric]:
        home = importlib.import_module("lrbias.metrics")
        for module in pkgutil.iter_modules(home.__path__, f"{home.__name__}."):
            importlib.import_module(module.name)
        for point in entry_points(group="lrbias.metrics"):
            self.add(load_entry_point(point, Metric))
        return self._known

    def __getitem__(self, name: str) -> Metric:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


METRICS = Metrics()


def metric(
    name: str,
    quantities: Quantities,
    needs: Needs = lambda context: {},
    places: Places = _none,
    **kinds: bool,
) -> Callable[[Measure], Metric]:
    """Register the decorated function as the metric `name`; arguments as in `Metric`.

    It gives the Metric, for an entry point of the group `lrbias.metrics`.
    """

    def register(measure: Measure) -> Metric:
        made = Metric(name, quantities, measure, needs, places, **kinds)
        METRICS.add(made)
        return made

    return register


def sheet_metric(name: str, quantities: Quantities, places: Places) -> None:
    """Register a metric all of whose values can always be had from a sheet."""

    def measure(state: Any) -> Any:
        return state.taken(places(state.context))

    METRICS.add(Metric(name, quantities, measure, lambda context: {}, places))
