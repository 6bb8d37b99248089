"""What is measured of a network while it is trained.

A metric is a row of `METRICS`. To add one: write a function of an `Observation` that returns its values in the order
of its quantities, and register it with `@metric`.
"""

from lrbias.metrics import _matrices as matrices, _regimes as regimes  # noqa: F401  which register their metrics
from lrbias.metrics._state import PRODUCT, RANKS, Observation, Setup, ranks_of
from lrbias.metrics._plan import Plan
from lrbias.metrics._registry import METRICS, Metric, Quantity, metric

__all__ = ["METRICS", "PRODUCT", "RANKS", "Metric", "Observation", "Plan", "Quantity", "Setup", "metric", "ranks_of"]
