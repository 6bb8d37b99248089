"""What is logged and how often, and when a run ends early."""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from lrbias.errors import InvalidInput, check, shorten
from lrbias.metrics._absorbing import AbsorbingSets
from lrbias.metrics._registry import METRICS
from lrbias.settings import Accepts, Count, Positive, Settings, Share, Unset, did_you_mean, validate

ALL = "all"
NAME = re.compile(r"[A-Za-z][\w-]*(/[A-Za-z][\w-]*)*", re.ASCII)


def _check_metrics(metrics: Any) -> Any:
    """Names are checked against the registry; values are intervals or functions."""
    known = "one of " + ", ".join(METRICS)
    if isinstance(metrics, str):
        metrics = metrics if metrics == ALL else (metrics,)
    if metrics == ALL:
        return metrics
    check(
        isinstance(metrics, (list, tuple, set, dict)),
        "metrics",
        metrics,
        'names, {name: interval or function}, or "all"',
    )
    for name in metrics:
        value = metrics[name] if isinstance(metrics, dict) else None
        if callable(value):
            check(isinstance(name, str) and bool(NAME.fullmatch(name)), "metrics", name, "a name like abc or a/b_c")
            check(name not in METRICS, "metrics", name, "a new name for a function")
            continue
        near = did_you_mean(name, METRICS) if isinstance(name, str) else ""
        check(name in METRICS, "metrics", name, known + near)
        if value is not None:
            validate(Count, f"metrics.{name}", value)
    return dict(metrics) if isinstance(metrics, dict) else tuple(metrics)


def _default_of_sets(name: str) -> Unset:
    return Unset(f"{AbsorbingSets.model_fields[name].default:g}")


class Record(Settings):
    """What is measured, and every how many steps. The loss is kept for every step whatever this says.

    `metrics` may be {name: f}, too, with f(network) a number or an array of fixed shape. () records the loss alone.
    Some metrics are not among "all", and recorded where they are named: those of curvature, tangent kernel and updates,
    which can cost as much as many steps and deserve an interval of their own (benchmarks/monitors.md);
    absorbing_rank; and product, all of W, as large as the target at every record, which `lb.trajectory_distance`
    follows. Of every metric `run[name]` gives what it recorded; the rows are listed in `run.names`.
    """

    every: Count = Field(
        default=10, description="steps between records of every metric that names no interval of its own"
    )
    metrics: Annotated[Any, BeforeValidator(_check_metrics), Accepts('metric names, or "all"')] = Field(
        default=ALL, description="metrics to record: names, name=interval, all or none"
    )
    numerical_threshold: Positive = Field(default=1e-6, description="numerical_rank counts singular values above it")
    relative_threshold: Positive = Field(
        default=1e-3,
        description="relative_rank counts singular values above it times ‖W‖₂, relative_rank_frobenius times ‖W‖_F",
    )
    directions: Annotated[Count | None, Unset("as many as its rank, at most 20")] = Field(
        default=None, description="leading singular directions that are compared with the target's"
    )
    degenerate: Positive = Field(
        default=1e-3, description="target values closer than this, relatively, share one subspace; our choice"
    )
    absorbing_balance: Annotated[Positive | None, _default_of_sets("balance")] = Field(
        default=None, description="ε_1 of the sets of absorbing_rank"
    )
    absorbing_slack: Annotated[Positive | None, _default_of_sets("slack")] = Field(
        default=None, description="ε_2 of these sets"
    )
    absorbing_alpha: Annotated[Positive | None, _default_of_sets("alpha")] = Field(
        default=None, description="α of these sets"
    )
    absorbing_bound: Annotated[Positive | None, _default_of_sets("bound")] = Field(
        default=None, description="C of these sets"
    )
    leading: Count = Field(
        default=3, description="eigenvalues that sharpness, hessian_min_eigenvalues and ntk_eigenvalues record"
    )
    eigen_tolerance: Share = Field(
        default=1e-6, description="how exact these are: their residuals relative to the largest eigenvalue"
    )

    def absorbing_sets(self) -> AbsorbingSets:
        """The AbsorbingSets of these settings; what is not given has its default."""
        own = {key: getattr(self, f"absorbing_{key}") for key in AbsorbingSets.model_fields}
        return AbsorbingSets(**{key: value for key, value in own.items() if value is not None})

    def intervals(self) -> dict[str, int]:
        """{metric name: interval in steps}."""
        if isinstance(self.metrics, dict):
            return {name: self.every if callable(value) else value for name, value in self.metrics.items()}
        always = (name for name, metric in METRICS.items() if not metric.opt_in)
        return dict.fromkeys(always if self.metrics == ALL else self.metrics, self.every)

    @property
    def stateful(self) -> bool:
        """Whether a metric keeps something for the next record."""
        return self._any("stateful")

    @property
    def needs_initial(self) -> bool:
        """Whether a metric looks at the network of step 0."""
        return self._any("needs_initial")

    def _any(self, kind: str) -> bool:
        return any(getattr(METRICS[name], kind) for name in self.intervals() if name in METRICS)

    def functions(self) -> dict[str, Callable[..., Any]]:
        """The user's own metrics: {name: function of the network}."""
        values = self.metrics if isinstance(self.metrics, dict) else {}
        return {name: value for name, value in values.items() if callable(value)}

    def settings(self) -> dict[str, Any]:
        """Keys of an experiment file. Functions cannot be written down: they are given again to `resume`."""
        settings = self.model_dump(exclude_none=True)
        if isinstance(self.metrics, dict):
            settings["metrics"] = {name: value for name, value in self.metrics.items() if not callable(value)}
        elif self.metrics != ALL:
            settings["metrics"] = list(self.metrics)
        return settings

    def with_functions(self, functions: Any, needed: Sequence[str]) -> "Record":
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
