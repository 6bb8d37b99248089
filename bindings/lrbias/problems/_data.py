"""Data with inputs and outputs."""

from typing import Annotated, Any, ClassVar

from pydantic import Field

from lrbias.problems._factorization import Problem
from lrbias.problems._registry import PROBLEMS, Fitted
from lrbias.problems._regression import load_regression
from lrbias.settings import PathOf, Switch

SAMPLES = "a matrix (.npy or a table) with a sample in each row"


@PROBLEMS.add
class DataFiles(Fitted):
    """The mean square error over samples: see `lb.Regression`."""

    name: ClassVar[str] = "regression"
    selected_by: ClassVar[tuple[str, ...]] = ("inputs", "outputs")
    inputs: Annotated[Any, PathOf("samples")] = Field(description=f"fit data instead of a target: {SAMPLES}")
    outputs: Annotated[Any, PathOf("samples")] = Field(
        description="what the network is to make of these samples, in as many rows"
    )
    whiten: Switch = Field(default=False, description="whiten the inputs, so that their covariance is the identity")
    center: Switch = Field(default=False, description="subtract the means of inputs and outputs")

    def make(self, depth: int) -> Problem:
        return load_regression(self.inputs, self.outputs, self.whiten, self.center)
