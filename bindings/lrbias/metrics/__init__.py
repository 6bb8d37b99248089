"""What is measured of a network while it is trained, and when.

A metric is a row of `METRICS`. To add one: write a function of an `Observation` that returns its values in the order
of its quantities, and register it with `@metric`.
"""

from lrbias.metrics import _matrices, _regimes  # noqa: F401  which register their metrics
from lrbias.metrics._absorbing import NONE, AbsorbingSets
from lrbias.metrics._hessian import Hessian
from lrbias.metrics._plan import Plan, has_another_core
from lrbias.metrics._record import Record
from lrbias.metrics._registry import METRICS, Metric, metric
from lrbias.metrics._state import PRODUCT, RANKS, Observation, Setup, ranks_of
from lrbias.storage import Quantity

__all__ = [
    "METRICS",
    "NONE",
    "PRODUCT",
    "RANKS",
    "AbsorbingSets",
    "Hessian",
    "Metric",
    "Observation",
    "Plan",
    "Quantity",
    "Record",
    "Setup",
    "has_another_core",
    "metric",
    "ranks_of",
]
