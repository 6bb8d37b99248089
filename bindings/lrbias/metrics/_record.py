"""What is logged and how often, and when a run ends early."""

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from lrbias.errors import InvalidInput, require, shorten
from lrbias.metrics._absorbing import AbsorbingSets
from lrbias.metrics._registry import METRICS
from lrbias.settings import Count, Positive, Settings, Share, validate

ALL = "all"
NAME = re.compile(r"[A-Za-z][\w-]*(/[A-Za-z][\w-]*)*", re.ASCII)


def _check_metrics(metrics):
    """Names are checked against the registry; values are intervals or functions."""
    known = "one of " + ", ".join(METRICS)
    if isinstance(metrics, str):
        metrics = metrics if metrics == ALL else (metrics,)
    if metrics == ALL:
        return metrics
    require(
        isinstance(metrics, (list, tuple, set, dict)),
        "metrics",
        metrics,
        'names, {name: interval or function}, or "all"',
    )
    for name in metrics:
        value = metrics[name] if isinstance(metrics, dict) else None
        if callable(value):
            require(isinstance(name, str) and bool(NAME.fullmatch(name)), "metrics", name, "a name like abc or a/b_c")
            require(name not in METRICS, "metrics", name, "a new name for a function")
            continue
        require(name in METRICS, "metrics", name, known)
        if value is not None:
            validate(Count, f"metrics.{name}", value)
    return dict(metrics) if isinstance(metrics, dict) else tuple(metrics)


class Record(Settings):
    """What is measured, and every how many steps. The loss is kept for every step whatever this says.

    every: interval in steps for every metric that names none.
    metrics: "all"; or names; or {name: interval}, or {name: f} with f(network) a number or an array of fixed shape.
        () records the loss alone. Some metrics are not among "all", and recorded where they are named: those of
        `lrbias.metrics` (curvature, tangent kernel, updates, movement), which can cost as much as many steps
        and deserve an interval of their own (benchmarks/monitors.md); absorbing_rank; and product, all of W, as large
        as the target at every record, which is what `lb.trajectory_distance` follows.
    numerical_threshold: numerical_rank counts σ_i above it.
    relative_threshold: relative_rank counts σ_i above it times ‖W‖₂, relative_rank_frobenius times ‖W‖_F.
    directions: how many leading singular directions are compared with the target's; None: its rank, at most 20.
    degenerate: target values closer than this (relatively) share one subspace in the alignment. Our choice.
    absorbing_balance, _slack, _alpha, _bound: ε_1, ε_2, α and C of the sets B_r of absorbing_rank, which is recorded
        only when it is named. Our choices, see `lrbias.metrics`.
    leading: how many eigenvalues sharpness, negative_curvature and ntk_eigenvalues record.
    eigen_tolerance: residuals ‖Hv − λv‖ of these are at most so large, relative to the largest |λ|.
    """

    every: Count = Field(10, description="an integer of at least 1")
    metrics: Annotated[Any, BeforeValidator(_check_metrics)] = Field(ALL, description='metric names, or "all"')
    numerical_threshold: Positive = Field(1e-6, description="a finite number greater than 0")
    relative_threshold: Positive = Field(1e-3, description="a finite number greater than 0")
    directions: Count | None = Field(None, description="an integer of at least 1, or nothing")
    degenerate: Positive = Field(1e-3, description="a finite number greater than 0")
    absorbing_balance: Positive | None = Field(None, description="a finite number greater than 0")
    absorbing_slack: Positive | None = Field(None, description="a finite number greater than 0")
    absorbing_alpha: Positive | None = Field(None, description="a finite number greater than 0")
    absorbing_bound: Positive | None = Field(None, description="a finite number greater than 0")
    leading: Count = Field(3, description="an integer of at least 1")
    eigen_tolerance: Share = Field(1e-6, description="a number between 0 and 1")

    def absorbing_sets(self):
        """The AbsorbingSets of these settings; what is not given has its default."""
        own = {key: getattr(self, f"absorbing_{key}") for key in AbsorbingSets.model_fields}
        return AbsorbingSets(**{key: value for key, value in own.items() if value is not None})

    def intervals(self):
        """{metric name: interval in steps}."""
        if isinstance(self.metrics, dict):
            return {name: self.every if callable(value) else value for name, value in self.metrics.items()}
        always = (name for name, metric in METRICS.items() if not metric.on_request)
        return dict.fromkeys(always if self.metrics == ALL else self.metrics, self.every)

    @property
    def remembers(self):
        """Whether a metric keeps something for the next record."""
        return self._any("remembers")

    @property
    def looks_back(self):
        """Whether a metric looks at the network of step 0."""
        return self._any("looks_back")

    def _any(self, kind):
        return any(getattr(METRICS[name], kind) for name in self.intervals() if name in METRICS)

    def functions(self) -> dict[str, Callable]:
        """The user's own metrics: {name: function of the network}."""
        values = self.metrics if isinstance(self.metrics, dict) else {}
        return {name: value for name, value in values.items() if callable(value)}

    def settings(self):
        """Keys of an experiment file. Functions cannot be written down: they are given again to `resume`."""
        settings = self.model_dump(exclude_none=True)
        if isinstance(self.metrics, dict):
            settings["metrics"] = {name: value for name, value in self.metrics.items() if not callable(value)}
        elif self.metrics != ALL:
            settings["metrics"] = list(self.metrics)
        return settings

    def with_functions(self, functions, needed):
        """This record with the user's functions given again; InvalidInput when one in `needed` is missing."""
        functions = functions or {}
        missing = sorted(set(needed) - set(functions))
        if missing:
            raise InvalidInput(
                f"metrics = {shorten(sorted(functions))} is not accepted: expected the functions that this run records "
                f"besides the built-in ones, {', '.join(missing)}."
            )
        if not needed:
            return self
        chosen = self.metrics if isinstance(self.metrics, dict) else dict.fromkeys(self.intervals(), self.every)
        return self.model_copy(update={"metrics": {**chosen, **{name: functions[name] for name in needed}}})
