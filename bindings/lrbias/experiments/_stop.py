"""When a run ends early."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from lrbias.errors import check, check_settable
from lrbias.methods import Method
from lrbias.metrics import Record
from lrbias.settings import Accepts, Count, Positive, Settings, Word, word_of


def _check_function(value: Any) -> Any:
    if value is not None and not callable(value):
        raise ValueError("not a function")
    return value


class Stop(Settings):
    """When a run ends before its last step.

    On a plateau the network is the best approximation of that rank when the target's values are far enough apart for
    each to have one. It is looked at every 16th record of effective_rank, which has to be among the metrics.
    """

    loss: Annotated[Positive | None, Word("stop_loss")] = Field(
        default=None, description="stop at the first step whose loss is at most this"
    )
    gradient: Annotated[Positive | None, Word("stop_gradient")] = Field(
        default=None, description="stop at the first record whose gradient norm is at most this"
    )
    plateaus: Annotated[Count | None, Word("stop_plateaus")] = Field(
        default=None, description="stop on this plateau of the effective rank, as `lb.plateaus` counts them"
    )
    when: Annotated[Any, AfterValidator(_check_function), Accepts("a function of (step, row), or nothing")] = Field(
        default=None,
        description="a function of (step, row), asked at each record: True ends the run. A row is {name: value} of "
        "what was measured, and the loss. A function cannot be written down: it is given again to `resume`",
        exclude=True,
    )

    def check(self, record: Record) -> None:
        """InvalidInput unless `record` (a Record) measures what this looks at."""
        measured = self.plateaus is None or "effective_rank" in record.intervals()
        check(measured, "metrics", record.metrics, "effective_rank among them, to stop on a plateau of it")

    def check_method(self, method: Method) -> None:
        """InvalidInput when a loss is to be reached that `method` does not see, or a gradient that it starts with."""
        reason = f"the losses of {method.label} are those of single entries"
        check_settable(self.loss is None or not method.stochastic, "stop_loss", self.loss, reason)
        reason = f"the phases of {method.label} begin and end where the gradient vanishes"
        check_settable(self.gradient is None or not method.phases, "stop_gradient", self.gradient, reason)

    def with_function(self, when: Callable[..., Any] | None, needed: bool) -> "Stop":
        """This Stop with the function of the user's given again; InvalidInput where it is missing, or not known.

        needed: whether the run had one.
        """
        check_settable(when is None or needed, "when", when, "no function ends this run")
        check(when is not None or not needed, "when", when, "the function that ends this run, as Stop(when=…) had it")
        return self.model_copy(update={"when": Stop(when=when).when}) if needed else self

    def settings(self) -> dict[str, Any]:
        given = self.model_dump(exclude_none=True)
        return {word_of(name, type(self).model_fields[name]): value for name, value in given.items()}
