"""An experiment: what is fitted, by what, how, and what is recorded of it."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from lrbias.experiments._options import RunOptions
from lrbias.experiments._stop import Stop
from lrbias.experiments._words import sort
from lrbias.methods import GD, METHODS, Method
from lrbias.metrics import Record
from lrbias.network import INITIALIZATIONS, Drawn, Initialization, Network
from lrbias.problems import PROBLEMS, Fitted, Problem
from lrbias.settings import OneOf, Settings


class Experiment(Settings):
    """One run. What is left out has the protocol's value: n = 100, r = 10, N = 3, GD with lr = 1e-3, 50 000 steps."""

    problem: Annotated[Fitted, OneOf(PROBLEMS)] = Field(description="what is fitted")
    network: Annotated[Initialization, OneOf(INITIALIZATIONS)] | None = Field(
        default=None, description="how the network starts"
    )
    method: Annotated[Method, OneOf(METHODS)] = Field(default=GD(), description="how it is trained")
    record: Record = Field(default=Record(), description="what is recorded")
    stop: Stop = Field(default=Stop(), description="when the run ends early")
    run: RunOptions = Field(default=RunOptions(), description="how the run is made")

    @classmethod
    def from_words(cls, words: dict[str, Any]) -> "Experiment":
        """The experiment that these flat keys describe, as flags, sweeps and the settings of a run have them."""
        return cls(**{section: part.build() for section, part in sort(words).items()})

    @model_validator(mode="after")
    def _check_parts(self) -> "Experiment":
        self.stop.check(self.record)
        self.stop.check_method(self.method)
        return self

    @property
    def depth(self) -> int:
        """The number of layers of the network, which a teacher has that is not told another."""
        given = "depth" in self.method.model_fields_set
        model: Any = self.method if given else self.network if isinstance(self.network, Drawn) else Drawn()
        return model.depth

    @property
    def steps(self) -> int:
        """The number of steps: as given, or as many as the method has by itself."""
        own = self.method.most_steps
        return self.run.steps if own is None or "steps" in self.run.model_fields_set else own

    def make_problem(self) -> Problem:
        """The loss."""
        return self.problem.make(self.depth)

    def make_network(self, problem: Problem) -> Network | None:
        """The network that a run starts from; None for a method that makes its own."""
        if self.network is None:
            return None
        network = Network.initialized(self.network, problem)
        problem.check(network)  # here, since a batch of a sweep does not pass through `train`
        network.check_method(self.method)
        return network

    def arguments(self) -> dict[str, Any]:
        """Those of `train` that say what is trained and how; the target and the start are made here."""
        problem = self.make_problem()
        options = {name: getattr(self.run, name) for name in ("checkpoint_every", "threads", "device", "compress")}
        return {
            "problem": problem,
            "network": self.make_network(problem),
            "method": self.method,
            "steps": self.steps,
            "record": self.record,
            "stop": self.stop,
            **options,
        }


def parts_of_words(words: dict[str, Any]) -> tuple[Method, Record, Stop]:
    """(method, record, stop) of the settings of a run."""
    parts = sort(words)
    method, record, stop = (parts[name].build() for name in ("method", "record", "stop"))
    stop.check(record)
    stop.check_method(method)
    return method, record, stop


def describe(*parts: Any, **others: Any) -> dict[str, Any]:
    """The settings of problem, network, method, record and stop, and others, as flat keys of an `Experiment`."""
    settings: dict[str, Any] = {}
    for part in parts:
        settings.update(part.settings())
    return {**settings, **others}
