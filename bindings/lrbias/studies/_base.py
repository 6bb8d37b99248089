"""What all studies have: a name, parameters with defaults, a folder, a forecast, runs that are made once, findings."""

import functools
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from lrbias.errors import InvalidInput, check, check_settable, refused
from lrbias.settings import Accepts, Count, Number, Positive, Settings
from lrbias.storage import read_json
from lrbias.studies._findings import Findings
from lrbias.studies._runs import make_store
from lrbias.system import RunsDisplay, as_path, goes_on_in

DOCUMENT = "study.json"  # says what a folder holds: the name of the study and its parameters
OF_RUNS = ("steps", "seeds")  # a study without these parameters always makes the same runs

Counts = Annotated[tuple[Count, ...], Field(min_length=1), Accepts("a list of integers of at least 1")]
Numbers = Annotated[tuple[Number, ...], Field(min_length=1), Accepts("a list of finite numbers")]
Positives = Annotated[tuple[Positive, ...], Field(min_length=1), Accepts("a list of numbers greater than 0")]


class Parameters(Settings):
    """What a study can be given. The defaults are those of the whole study."""


class Study:
    """One study in one folder. A subclass says which runs it takes, what they cost and what is found in them.

    name      how `lb.reproduce` and `lrbias reproduce` find it, once it is an entry point in the group `lrbias.studies`
    summary   one line for `lrbias reproduce --help`
    title     the heading of its findings
    about     what was matched and what is a choice of its own
    earlier   {a parameter's name in folders of earlier versions: its name}

    store     the folder, by default reproduced/NAME
    workers   processes or threads, by default one for each core
    progress  whether to show it; None: on a terminal
    parameters  fields of `Parameters`, by name; None: the default
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    title: ClassVar[str]
    about: ClassVar[str]
    Parameters: ClassVar[type[Parameters]] = Parameters
    earlier: ClassVar[dict[str, str]] = {}

    def __init__(self, store=None, workers=None, progress=None, **parameters):
        self.store = Path("reproduced") / self.name if store is None else as_path("store", store)
        self.workers = workers
        self.progress = progress
        self.parameters = self._accepted(parameters)

    def check(self) -> None:
        """InvalidInput where something is missing without which the study cannot be finished."""

    def forecast(self) -> dict[str, Any]:
        """{runs, seconds, bytes} of the whole study."""
        raise NotImplementedError

    def make(self) -> Findings:
        """Make the runs that are not made yet, and return what they show."""
        raise NotImplementedError

    def run(self) -> Findings:
        """The whole study: begun, or resumed where it was stopped."""
        self.check()
        with goes_on_in(self.store):
            self.begin()
            return self.make()

    def is_begun(self) -> bool:
        """Whether the folder is there."""
        return (self.store / DOCUMENT).is_file()

    def begin(self) -> None:
        """The folder, with its document; InvalidInput where it holds another study, or this one of another size."""
        if not self.is_begun():
            own = self.parameters.model_dump(mode="json")
            make_store(self.store, {"study": self.name, **own})
        known = self.recorded(self.store)
        if known != self.parameters:
            self._refuse(known)

    @functools.cached_property
    def shown(self) -> RunsDisplay:
        """The progress over all runs, for a study that makes them one after the other."""
        return RunsDisplay(self.progress, self.forecast()["runs"], 0)

    @classmethod
    def stem(cls) -> str:
        """The name of the files with its findings."""
        return cls.name

    @classmethod
    def is_in(cls, folder: Path) -> bool:
        """Whether a folder holds this study and its findings."""
        return (folder / f"{cls.stem()}.json").is_file()

    @classmethod
    def read(cls, folder: Path) -> Findings:
        """The findings in the folder of a study that is complete."""
        made = f"a folder that `lrbias reproduce {cls.name}` completed"
        check(cls.is_in(folder), "store", str(folder), made)
        return cls(folder, progress=False, **dict(cls.recorded(folder))).make()

    @classmethod
    def recorded(cls, folder: Path) -> Settings:
        """The parameters that a folder was made with; InvalidInput when it is none of this study."""
        accepted = "a new folder, or one of this study"
        known = read_json(folder / DOCUMENT)
        ours = isinstance(known, dict) and known.pop("study", cls.name) == cls.name
        check(ours, "store", str(folder), accepted)
        current = {cls.earlier.get(name, name): value for name, value in known.items()}
        try:
            return cls.Parameters(**current)
        except InvalidInput as error:
            raise refused("store", str(folder), f"{accepted} ({DOCUMENT}: {str(error).rstrip('.')})") from None

    def _refuse(self, known):
        """`known`: the parameters of the folder, which are not those of this study."""
        pairs = [(key, value) for key, value in known if value != getattr(self.parameters, key)]
        there = ", ".join(f"{key} = {value}" for key, value in pairs)
        check(False, "store", str(self.store), f"a new folder, or this study with {there}")

    def _accepted(self, given):
        """The Parameters; InvalidInput for one that the study does not have."""
        fields = self.Parameters.model_fields
        for argument, value in given.items():
            reason = "has a fixed set of runs" if argument in OF_RUNS else "has no such parameter"
            others = f"; its parameters are {', '.join(fields)}" if fields else ""
            known = argument in fields or value is None
            check_settable(known, argument, value, f"{self.name} {reason}{others}")
        return self.Parameters(**{key: value for key, value in given.items() if value is not None})
