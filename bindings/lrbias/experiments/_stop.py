"""When a run ends early."""

from pydantic import Field

from lrbias.errors import require
from lrbias.settings import Count, Positive, Settings


class Stop(Settings):
    """When a run ends before its last step.

    loss: stop at the first step whose loss is at most this.
    gradient: stop at the first recorded step (a multiple of `Record.every`) whose gradient norm is at most this.
    plateaus: stop on this plateau of the effective rank, as `lb.plateaus` counts them. When the target's values are far
        enough apart for each to have one, the network is then the best approximation of that rank. Looked at every 16th
        record of effective_rank, which has to be among the metrics.
    """

    loss: Positive | None = Field(None, description="a finite number greater than 0, or nothing")
    gradient: Positive | None = Field(None, description="a finite number greater than 0, or nothing")
    plateaus: Count | None = Field(None, description="an integer of at least 1, or nothing")

    def check(self, record):
        """InvalidInput unless `record` (a Record) measures what this looks at."""
        measured = self.plateaus is None or "effective_rank" in record.intervals()
        require(measured, "metrics", record.metrics, "effective_rank among them, to stop on a plateau of it")

    def check_method(self, method):
        """InvalidInput when a loss is to be reached that `method` does not see, or a gradient that it starts with."""
        accepted = f"nothing for {method.label}, whose losses are those of single entries"
        require(self.loss is None or not method.stochastic, "stop_loss", self.loss, accepted)
        accepted = f"nothing for {method.label}, whose phases begin and end where the gradient vanishes"
        require(self.gradient is None or method.name != "glrl", "stop_gradient", self.gradient, accepted)

    def settings(self):
        return {f"stop_{name}": value for name, value in self.model_dump(exclude_none=True).items()}
