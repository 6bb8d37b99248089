"""The study of ranks of real networks, registered as `galanti`."""

import functools
import itertools
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from lrbias.errors import InvalidInput
from lrbias.runs import open as open_run
from lrbias.storage import read_json, write_json
from lrbias.studies import ENDED, Study
from lrbias.studies.galanti import _parameters as parameters
from lrbias.studies.galanti._parameters import GalantiParameters
from lrbias.studies.galanti._tables import RankFindings
from lrbias.studies.galanti._training import gradient_rows, train_one
from lrbias.sweeps import run_all
from lrbias.system import RunsDisplay, cores

RECORDS = 15  # of a run, after the first
PACKAGES = ("torch", "monai", "einops")
FEW = 10  # images, to see whether a data set is there
SECONDS, BYTES = 3, 5e6  # of a run beside its training


class Galanti(Study):
    """Runs of many networks, each in a process of its own."""

    name = "galanti"
    summary = "Ranks of real networks under SGD with weight decay (Galanti et al.); about an hour."
    title = "Ranks of real networks under SGD with weight decay"
    earlier: ClassVar[dict[str, str]] = {"scale": "preset"}
    about = parameters.__doc__.split("\n\n", 1)[1].strip()
    Parameters = GalantiParameters

    @functools.cached_property
    def preset(self):
        return self.parameters.size()

    def check(self):
        """The packages and the images of all runs are here, before anything is made."""
        if self.is_begun():
            return
        missing = [name for name in PACKAGES if find_spec(name) is None]
        if missing:
            raise InvalidInput(f"the study galanti needs {', '.join(missing)}: pip install 'lrbias[vision]'.")
        from lrbias.nn import load

        for name, folder in {(each["data"], each.get("folder")) for each in self.preset.networks.values()}:
            load(name, FEW, FEW, folder=folder)

    def forecast(self):
        """From the times that were measured on one core."""
        runs = self.runs()
        seconds = sum(seconds_of(self.preset, name.split(",")[0], own) + SECONDS for name, own in runs.items())
        return {"runs": len(runs), "seconds": seconds / (self.workers or cores()), "bytes": len(runs) * BYTES}

    def make(self):
        self.train()
        return RankFindings(self)

    def runs(self):
        """{name: settings of Training} of every run, those of the axes first."""
        found = {}
        for axis in (*self.preset.axes, *self.preset.controls, *self.preset.others):
            for cell, seed in itertools.product(axis.cells(), range(axis.seeds or self.parameters.seeds)):
                found.update(self._named(axis.network, cell, seed))
        found.update(self._named("wide", self.preset.wide, 0))
        for each in self.preset.maps:
            for cell in each.cells():
                found.update(self._named(each.network, cell, 0))
        return found

    def _named(self, network, cell, seed):
        settings = {**self.preset.networks[network], **cell, "seed": seed}
        if settings.get("steps"):
            settings["every"] = max(settings["steps"] // RECORDS, 1)
        return {run_name(network, cell, seed): settings}

    def train(self):
        """Train every run that is not at its end yet, on all cores with one each."""
        runs = self.runs()
        missing = [(str(self.path(name)), settings) for name, settings in runs.items() if not self._ended(name)]
        shown = RunsDisplay(self.progress, len(runs), len(runs) - len(missing))
        # the longest first, so that no core waits for the other at the end
        missing.sort(key=lambda job: -seconds_of(self.preset, Path(job[0]).name.split(",")[0], job[1]))
        for (path, _), status, error in run_all(train_one, missing, self.workers or cores()):
            if error is not None:
                raise error
            shown.update(Path(path).name, status)
        shown.stop()

    def path(self, name):
        return self.store / "runs" / name

    def _ended(self, name):
        return (self.path(name) / "config.json").is_file() and open_run(self.path(name)).status in ENDED

    def opened(self, network, cell, seed=0):
        """The ModelRun of a network with the settings of a cell."""
        return open_run(self.path(run_name(network, cell, seed)))

    def table(self, axis):
        """[(value, [ModelRun of every seed])] of an axis."""
        seeds = range(axis.seeds or self.parameters.seeds)
        cells = zip(axis.values, axis.cells(), strict=True)
        return [(value, [self.opened(axis.network, cell, seed) for seed in seeds]) for value, cell in cells]

    def gradients(self):
        """{network: rows of gradient ranks} of the first run of each network, at its end: made once."""
        path = self.store / "gradients.json"
        if not path.is_file():
            firsts = {axis.network: axis for axis in reversed((*self.preset.axes, *self.preset.others))}
            names = {network: run_name(network, axis.cells()[-1], 0) for network, axis in firsts.items()}
            write_json(path, {network: gradient_rows(open_run(self.path(name))) for network, name in names.items()})
        return read_json(path)


def run_name(network, cell, seed):
    """The folder of a run."""
    return f"{network},batch={cell['batch']},lr={cell['lr']:g},weight_decay={cell['weight_decay']:g},seed={seed}"


def seconds_of(scale, network, settings):
    """What a run will take on one core, about; infinity where it is not known."""
    if "steps" not in settings:  # nobody has timed a run of the paper's size
        return float("inf")
    fixed, each = scale.seconds.get(network, (1e-2, 1e-3))
    return settings["steps"] * (fixed + each * settings["batch"])
