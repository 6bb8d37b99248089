"""Ranks of real networks under SGD with weight decay (Galanti, Siegel, Gupte and Poggio), scaled to two CPU cores.

Matched: the loss (mean cross entropy + λ‖W‖_F², so that a step multiplies the weights by 1 − 2μλ), the rank of a layer
(#{σ_i > 1e-3 ‖W‖₂}, a convolution as the matrix c_out × c_in·k·k), its average over the weight matrices, what is varied
in which figure, the shapes of the networks, MLP-BN-10-100 in its own size, SGD without momentum except for Figure 7.

Not matched, for want of time on two cores: Fashion-MNIST instead of CIFAR-10, pooled to 14 × 14 pixels for all networks
with convolutions or attention, with 10 000 training images for these; a quarter of the channels (ResNet-18 and VGG-16
with 16 instead of 64) and thousands of steps instead of 500 epochs; no decay of the learning rate, no crops and flips.
μλ is larger than the paper's in return: what has to pass for old weights to be forgotten is 1/(2μλ) steps.

Ours: the values of B, μ and λ (the text at hand does not list the paper's); that all runs of a network make the same
number of steps. Equal epochs would give small batches more steps, and with them more forgetting; so the comparison
here is the harder one for the claim about B. The statistics and their verdicts are ours, too.
"""

import itertools
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from lrbias.errors import InvalidInput, require
from lrbias.runs import open as open_run
from lrbias.settings import Count, validate
from lrbias.storage import read_json, write_json
from lrbias.studies import ENDED, make_store
from lrbias.sweeps import run_all
from lrbias.system import RunsDisplay, cores

KEYS = ("batch", "lr", "weight_decay")
SMALL_IMAGES = {"data": "fashion-mnist", "pool": 2, "samples": 10_000, "test_samples": 2_000}
LARGE_IMAGES = {"data": "fashion-mnist", "test_samples": 2_000}
RECORDS = 15  # of a run, after the first
PACKAGES = ("torch", "monai", "einops")
FEW = 10  # images, to see whether a data set is there
PROBED = 8  # samples whose gradients' ranks are measured


@dataclass(frozen=True)
class Axis:
    """Runs of one network that differ in one setting, each with several seeds.

    fixed: the other settings. figures: of the paper's.
    """

    network: str
    varied: str
    values: tuple
    fixed: dict
    figures: str
    seeds: int | None = None

    def cells(self):
        """The settings of each value."""
        return [{**self.fixed, self.varied: value} for value in self.values]


@dataclass(frozen=True)
class Map:
    """Runs of one network over two settings, one seed each."""

    network: str
    varied: tuple
    values: tuple
    fixed: dict

    def cells(self):
        """The settings of each cell, the second of the varied ones changing first."""
        cells = itertools.product(*self.values)
        return [{**self.fixed, **dict(zip(self.varied, cell, strict=True))} for cell in cells]


@dataclass(frozen=True)
class Scale:
    """How large the study is: what each network is trained on and how long, which runs there are.

    networks: {key: settings of Training}; seconds: {key: (of a step, of a sample in it)}, on one core.
    """

    networks: dict
    axes: tuple
    controls: tuple
    others: tuple
    maps: tuple
    wide: dict
    seconds: dict = field(default_factory=dict)


def small():
    """Two CPU cores for less than an hour."""
    convolutional = {**SMALL_IMAGES, "width": 16, "steps": 4000}
    networks = {
        "resnet": {**convolutional, "network": "resnet-18"},
        "mlp": {**LARGE_IMAGES, "network": "mlp-bn", "steps": 15_000},
        "momentum": {**LARGE_IMAGES, "network": "mlp-bn", "steps": 15_000, "momentum": 0.9},
        "vgg": {**convolutional, "network": "vgg-16"},
        "vit": {**SMALL_IMAGES, "network": "vit", "width": 64, "depth": 4, "steps": 3000},
        "mixed": {**SMALL_IMAGES, "network": "mixed", "width": 32, "depth": 3, "steps": 3000},
        "wide": {**LARGE_IMAGES, "network": "mlp-bn", "width": 2000, "depth": 2, "steps": 2000},
    }
    resnet = {"batch": 16, "lr": 0.4, "weight_decay": 5e-3}
    mlp = {"batch": 16, "lr": 0.1, "weight_decay": 2.5e-3}
    axes = (
        _axis("resnet", "lr", (0.1, 0.2, 0.4, 0.8), resnet, "2"),
        _axis("resnet", "weight_decay", (0.0, 1.25e-3, 2.5e-3, 5e-3, 1e-2), resnet, "3"),
        _axis("resnet", "batch", (4, 8, 16, 32, 64), resnet, "4"),
        _axis("mlp", "lr", (0.025, 0.05, 0.1, 0.2, 0.4), mlp, "2 for the MLP"),
        _axis("mlp", "weight_decay", (0.0, 6.25e-4, 1.25e-3, 2.5e-3, 5e-3), mlp, "8"),
        _axis("mlp", "batch", (4, 8, 16, 32, 64), mlp, "9"),
    )
    controls = (
        _axis("resnet", "lr", (0.1, 0.4, 0.8), {**resnet, "weight_decay": 0.0}, "12"),
        _axis("resnet", "batch", (4, 16, 64), {**resnet, "weight_decay": 0.0}, "12"),
        _axis("mlp", "lr", (0.025, 0.1, 0.4), {**mlp, "weight_decay": 0.0}, "12 for the MLP"),
        _axis("mlp", "batch", (4, 16, 64), {**mlp, "weight_decay": 0.0}, "12 for the MLP"),
    )
    others = (
        _axis("momentum", "weight_decay", (0.0, 1.25e-3, 2.5e-3, 5e-3), {**mlp, "lr": 0.01}, "7", 1),
        _axis("vgg", "batch", (8, 16, 64), {**resnet, "lr": 0.2}, "13, 19", 1),
        _axis("vit", "batch", (4, 16, 64), {**resnet, "lr": 0.1}, "10", 1),
        _axis("vit", "weight_decay", (0.0, 1.25e-3, 5e-3), {**resnet, "lr": 0.1}, "11", 1),
        _axis("mixed", "weight_decay", (0.0, 1.25e-3, 2.5e-3, 5e-3), resnet, "16", 1),
        _axis("mixed", "weight_decay", (0.0, 1.25e-3, 2.5e-3, 5e-3), {**resnet, "lr": 0.2}, "16", 1),
    )
    grid = {"batch": (4, 16, 64), "lr": (0.1, 0.4, 0.8), "weight_decay": (1.25e-3, 5e-3, 1e-2)}
    pairs = (("lr", "weight_decay"), ("batch", "weight_decay"), ("batch", "lr"))
    maps = tuple(Map("resnet", pair, tuple(grid[key] for key in pair), _without(resnet, *pair)) for pair in pairs)
    wide = {"batch": 4, "lr": 0.4, "weight_decay": 8e-3}
    seconds = {
        "resnet": (6.5e-3, 4e-4),
        "mlp": (1.2e-3, 1e-5),
        "momentum": (1.3e-3, 1e-5),
        "vgg": (5e-3, 3e-4),
        "vit": (1e-2, 8e-4),
        "mixed": (6e-3, 4e-4),
        "wide": (3e-2, 1e-4),
    }
    return Scale(networks, axes, controls, others, maps, wide, seconds)


def paper(folder=None):
    """The paper's sizes, as far as its text gives them: CIFAR-10 in `folder`, 500 epochs (the ViT 200), on a cluster.

    The values of μ, λ and B are those that its captions name, others ours; the learning rate is multiplied by 0.1 at
    epochs 60, 100 and 200, with crops and flips.
    """
    base = {"data": "cifar-10", "folder": folder, "epochs": 500, "milestones": (60, 100, 200), "augment": True}
    networks = {
        "resnet": {**base, "network": "resnet-18"},
        "mlp": {**base, "network": "mlp-bn"},
        "momentum": {**base, "network": "mlp-bn", "momentum": 0.9},
        "vgg": {**base, "network": "vgg-16"},
        "vit": {**base, "network": "vit", "epochs": 200},
        "mixed": {**base, "network": "mixed"},
        "wide": {**base, "network": "mlp-bn", "width": 10_000, "depth": 2},
    }
    decays = (0.0, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3)
    batches = (4, 8, 16, 32, 64, 128)
    rates = (5e-3, 1e-2, 5e-2, 0.1, 0.5, 1.0)
    axes = (
        _axis("resnet", "lr", rates, {"batch": 8, "weight_decay": 5e-4}, "2"),
        _axis("resnet", "weight_decay", decays, {"batch": 16, "lr": 1.5}, "3"),
        _axis("resnet", "batch", batches, {"lr": 5e-3, "weight_decay": 6e-3}, "4"),
        _axis("mlp", "weight_decay", decays, {"batch": 16, "lr": 0.1}, "8"),
        _axis("mlp", "batch", batches, {"lr": 0.1, "weight_decay": 5e-4}, "9"),
    )
    controls = (
        _axis("resnet", "lr", rates, {"batch": 8, "weight_decay": 0.0}, "12"),
        _axis("resnet", "batch", batches, {"lr": 5e-3, "weight_decay": 0.0}, "12"),
    )
    others = (
        _axis("momentum", "weight_decay", decays, {"batch": 16, "lr": 0.1}, "7", 1),
        _axis("vgg", "batch", batches, {"lr": 1e-2, "weight_decay": 4e-4}, "13, 19", 1),
        _axis("vit", "batch", batches, {"lr": 4e-2, "weight_decay": 5e-4}, "10", 1),
        _axis("vit", "weight_decay", decays, {"batch": 16, "lr": 4e-2}, "11", 1),
        _axis("mixed", "weight_decay", decays, {"batch": 16, "lr": 1e-2}, "16", 1),
    )
    grid = {"batch": batches, "lr": rates, "weight_decay": decays[1:]}
    center = {"batch": 16, "lr": 0.1, "weight_decay": 5e-4}
    pairs = (("lr", "weight_decay"), ("batch", "weight_decay"), ("batch", "lr"))
    maps = tuple(Map("resnet", pair, tuple(grid[key] for key in pair), _without(center, *pair)) for pair in pairs)
    return Scale(networks, axes, controls, others, maps, {"batch": 6, "lr": 0.1, "weight_decay": 8e-3})


SCALES = {"small": small, "paper": paper}


def _axis(network, varied, values, settings, figures, seeds=None):
    return Axis(network, varied, values, _without(settings, varied), figures, seeds)


def _without(settings, *keys):
    return {key: value for key, value in settings.items() if key not in keys}


class Study:
    """The runs of the study under `store`. `make` trains what is missing; `run` opens one.

    scale: a Scale, or the name of one; seeds: of every axis that says none; steps: of ResNet-18, to which the others
    are in proportion (of the paper's scale nothing: its runs go by epochs).
    """

    def __init__(self, store, seeds=3, steps=None, workers=None, progress=None, scale="small", folder=None):
        self.store = Path(store)
        self.seeds = seeds
        self.workers = workers
        self.progress = progress
        self.scale = stretched(_scale_of(scale, folder), steps)
        named = scale if isinstance(scale, str) else "given"
        if not (self.store / "study.json").is_file():
            _check_installed(self.scale)
        self._begin({"study": "galanti", "scale": named, "seeds": seeds, "steps": steps, "folder": folder})

    def _begin(self, size):
        path = self.store / "study.json"
        if path.is_file():
            known = read_json(path)
            require(known == size, "store", str(self.store), f"a new folder, or this study with {known}")
            return
        make_store(self.store, size)

    def runs(self):
        """{name: settings of Training} of every run, those of the axes first."""
        found = {}
        for axis in (*self.scale.axes, *self.scale.controls, *self.scale.others):
            for cell, seed in itertools.product(axis.cells(), range(axis.seeds or self.seeds)):
                found.update(self._named(axis.network, cell, seed))
        found.update(self._named("wide", self.scale.wide, 0))
        for each in self.scale.maps:
            for cell in each.cells():
                found.update(self._named(each.network, cell, 0))
        return found

    def _named(self, network, cell, seed):
        settings = {**self.scale.networks[network], **cell, "seed": seed}
        if settings.get("steps"):
            settings["every"] = max(settings["steps"] // RECORDS, 1)
        return {run_name(network, cell, seed): settings}

    def make(self):
        """Train every run that is not at its end yet, on all cores with one each."""
        runs = self.runs()
        missing = [(str(self.path(name)), settings) for name, settings in runs.items() if not self._ended(name)]
        shown = RunsDisplay(self.progress, len(runs), len(runs) - len(missing))
        # the longest first, so that no core waits for the other at the end
        missing.sort(key=lambda job: -seconds_of(self.scale, Path(job[0]).name.split(",")[0], job[1]))
        for (path, _), status, error in run_all(train_one, missing, self.workers or cores()):
            if error is not None:
                raise error
            shown.update(Path(path).name, status)
        shown.stop()

    def path(self, name):
        return self.store / "runs" / name

    def _ended(self, name):
        return (self.path(name) / "config.json").is_file() and open_run(self.path(name)).status in ENDED

    def run(self, network, cell, seed=0):
        """The ModelRun of a network with the settings of a cell."""
        return open_run(self.path(run_name(network, cell, seed)))

    def table(self, axis):
        """[(value, [ModelRun of every seed])] of an axis."""
        seeds = range(axis.seeds or self.seeds)
        cells = zip(axis.values, axis.cells(), strict=True)
        return [(value, [self.run(axis.network, cell, seed) for seed in seeds]) for value, cell in cells]

    def gradients(self):
        """{network: rows of gradient ranks} of the first run of each network, at its end: made once."""
        path = self.store / "gradients.json"
        if not path.is_file():
            firsts = {axis.network: axis for axis in reversed((*self.scale.axes, *self.scale.others))}
            names = {network: run_name(network, axis.cells()[-1], 0) for network, axis in firsts.items()}
            write_json(path, {network: gradient_rows(open_run(self.path(name))) for network, name in names.items()})
        return read_json(path)


def _check_installed(scale):
    """InvalidInput unless the packages and the images of all runs are here: before anything is made."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InvalidInput(f"the study galanti needs {', '.join(missing)}: pip install 'lrbias[vision]'.")
    from lrbias.nn import load

    for name, folder in {(settings["data"], settings.get("folder")) for settings in scale.networks.values()}:
        load(name, FEW, FEW, folder=folder)


def run_name(network, cell, seed):
    """The folder of a run."""
    return f"{network},batch={cell['batch']},lr={cell['lr']:g},weight_decay={cell['weight_decay']:g},seed={seed}"


def _scale_of(scale, folder):
    if isinstance(scale, Scale):
        return scale
    require(scale in SCALES, "scale", scale, " or ".join(SCALES))
    require(folder is None or scale == "paper", "folder", folder, "nothing, but for the paper's scale")
    return small() if scale == "small" else paper(folder)


def stretched(scale, steps):
    """The scale with runs of ResNet-18 that make so many steps, and others in proportion; None: as it is."""
    if steps is None:
        return scale
    own = scale.networks["resnet"].get("steps")
    require(own is not None, "steps", steps, "nothing for a scale whose runs go by epochs")
    share = validate(Count, "steps", steps) / own
    networks = {
        name: {**settings, "steps": max(round(settings["steps"] * share), 2)}
        for name, settings in scale.networks.items()
    }
    return replace(scale, networks=networks)


def train_one(job):
    """Train or continue one run in this process, on one core; returns how it ended."""
    import torch

    from lrbias.nn import Training, fit, resume

    torch.set_num_threads(1)
    path = Path(job[0])
    settings = job[1]
    if (path / "config.json").is_file():
        return resume(path, progress=False).status
    return fit(Training(**settings), store=path, progress=False).status


def seconds_of(scale, network, settings):
    """What a run will take on one core, about; infinity where it is not known."""
    if "steps" not in settings:  # nobody has timed a run of the paper's size
        return float("inf")
    fixed, each = scale.seconds.get(network, (1e-2, 1e-3))
    return settings["steps"] * (fixed + each * settings["batch"])


def gradient_rows(run):
    """A dictionary for each matrix: m_l, ranks of the gradients of single samples and of the batch, their bounds."""
    import torch
    from torch.nn.functional import cross_entropy

    from lrbias.nn import gradient_ranks, trained

    model, images = trained(run)
    inputs, labels = (torch.from_numpy(a[:PROBED]) for a in (images.train_inputs, images.train_labels))
    rows = []
    for found in gradient_ranks(model, cross_entropy, inputs, labels):
        one, batch = found.bounds
        own = {"name": found.name, "patches": int(found.patches), "size": int(min(found.shape))}
        ranks = {"sample": int(np.max(found.sample)), "batch": int(found.batch)}
        rows.append({**own, **ranks, "sample_bound": int(one), "batch_bound": int(batch)})
    return rows


def expected(seeds=3, steps=None, workers=None, scale="small"):
    """{runs, seconds, bytes} of the study, from the times that were measured on one core."""
    sized = stretched(_scale_of(scale, None), steps)
    study = Study.__new__(Study)  # its runs alone: nothing is made
    study.scale = sized
    study.seeds = seeds
    runs = study.runs()
    seconds = sum(seconds_of(sized, name.split(",")[0], settings) + 3 for name, settings in runs.items())
    return {"runs": len(runs), "seconds": seconds / (workers or cores()), "bytes": len(runs) * 5e6}
