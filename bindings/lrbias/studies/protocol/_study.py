"""The study of the protocol's four claims, registered as `protocol`."""

from typing import ClassVar

from lrbias.errors import check
from lrbias.studies import Study
from lrbias.studies.protocol import _parameters as parameters
from lrbias.studies.protocol._evidence import Evidence
from lrbias.studies.protocol._parameters import NAMES, ProtocolParameters, target_label
from lrbias.sweeps import forecast_sweep, open_sweep, sweep

ENDED = ("finished", "diverged")


class Protocol(Study):
    """Sweeps, one a folder: each refuses other settings by itself, so that the study has no document of its own."""

    name = "protocol"
    summary = "Does GD prefer low rank? Ranks, depths, step sizes, GD and flow, several starts; more than an hour."
    title = "The protocol's four claims"
    earlier: ClassVar[dict[str, str]] = {"scale": "spectral_norm"}
    about = parameters.__doc__.split("\n\n", 1)[1].strip()
    Parameters = ProtocolParameters

    def forecast(self):
        parts = [forecast_sweep(base, over, self.workers) for base, over in self.parameters.sweeps().values()]
        return {key: sum(part[key] for part in parts) for key in ("runs", "seconds", "bytes")}

    def begin(self):
        """Nothing: the sweeps make the folder."""

    def make(self):
        for part, (base, over) in self.parameters.sweeps().items():
            sweep(base, over, self.store / part, self.workers, progress=self.progress)
        return self.read(self.store)

    @classmethod
    def stem(cls):
        return "evidence"

    @classmethod
    def is_in(cls, folder):
        """Whether there is a sweep of the study, finished or not."""
        return any((folder / name / "sweep.json").is_file() for name in NAMES)

    @classmethod
    def read(cls, folder):
        """The Evidence of the runs, as far as they are made."""
        check(cls.is_in(folder), "store", str(folder), "a folder that `lrbias reproduce protocol` made")
        paths = [folder / name for name in sorted(NAMES)]
        sweeps = {path.name: open_sweep(path) for path in paths if (path / "sweep.json").is_file()}
        runs = []
        counts: dict[str, int] = {}
        for name, made in sweeps.items():
            ended = [run for run, status in made.statuses().items() if status in ENDED]
            runs += [(name.rsplit("-", 1)[0], target_label(made.settings(run)), made[run]) for run in ended]
            for status, number in made.counts().items():
                counts[status] = counts.get(status, 0) + number
        return Evidence(cls(folder), runs, counts)
