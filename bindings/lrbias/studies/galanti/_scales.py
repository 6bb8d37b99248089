"""How large the study can be: what the networks are trained on and how long, which runs there are."""

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

SMALL_IMAGES = {"data": "fashion-mnist", "pool": 2, "samples": 10_000, "test_samples": 2_000}
LARGE_IMAGES = {"data": "fashion-mnist", "test_samples": 2_000}
Value = int | float  # of a setting


@dataclass(frozen=True)
class Axis:
    """Runs of one network that differ in one setting, each with several seeds.

    fixed: the other settings. figures: of the paper's.
    """

    network: str
    varied: str
    values: tuple[Value, ...]
    fixed: dict[str, Value]
    figures: str
    seeds: int | None = None

    def cells(self):
        """The settings of each value."""
        return [{**self.fixed, self.varied: value} for value in self.values]


@dataclass(frozen=True)
class Map:
    """Runs of one network over two settings, one seed each."""

    network: str
    varied: tuple[str, str]
    values: tuple[tuple[Value, ...], tuple[Value, ...]]
    fixed: dict[str, Value]

    def cells(self):
        """The settings of each cell, the second of the varied ones changing first."""
        cells = itertools.product(*self.values)
        return [{**self.fixed, **dict(zip(self.varied, cell, strict=True))} for cell in cells]


@dataclass(frozen=True)
class Scale:
    """How large the study is: what each network is trained on and how long, which runs there are.

    networks: {key: settings of Training}; seconds: {key: (of a step, of a sample in it)}, on one core.
    """

    networks: dict[str, dict[str, Any]]
    axes: tuple[Axis, ...]
    controls: tuple[Axis, ...]
    others: tuple[Axis, ...]
    maps: tuple[Map, ...]
    wide: dict[str, Value]
    seconds: dict[str, tuple[float, float]] = field(default_factory=dict)

    def stretched(self, steps):
        """The scale with runs of ResNet-18 that make so many steps, and others in proportion."""
        share = steps / self.networks["resnet"]["steps"]
        networks = {
            name: {**settings, "steps": max(round(settings["steps"] * share), 2)}
            for name, settings in self.networks.items()
        }
        return replace(self, networks=networks)


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
        axis("resnet", "lr", (0.1, 0.2, 0.4, 0.8), resnet, "2"),
        axis("resnet", "weight_decay", (0.0, 1.25e-3, 2.5e-3, 5e-3, 1e-2), resnet, "3"),
        axis("resnet", "batch", (4, 8, 16, 32, 64), resnet, "4"),
        axis("mlp", "lr", (0.025, 0.05, 0.1, 0.2, 0.4), mlp, "2 for the MLP"),
        axis("mlp", "weight_decay", (0.0, 6.25e-4, 1.25e-3, 2.5e-3, 5e-3), mlp, "8"),
        axis("mlp", "batch", (4, 8, 16, 32, 64), mlp, "9"),
    )
    controls = (
        axis("resnet", "lr", (0.1, 0.4, 0.8), {**resnet, "weight_decay": 0.0}, "12"),
        axis("resnet", "batch", (4, 16, 64), {**resnet, "weight_decay": 0.0}, "12"),
        axis("mlp", "lr", (0.025, 0.1, 0.4), {**mlp, "weight_decay": 0.0}, "12 for the MLP"),
        axis("mlp", "batch", (4, 16, 64), {**mlp, "weight_decay": 0.0}, "12 for the MLP"),
    )
    others = (
        axis("momentum", "weight_decay", (0.0, 1.25e-3, 2.5e-3, 5e-3), {**mlp, "lr": 0.01}, "7", 1),
        axis("vgg", "batch", (8, 16, 64), {**resnet, "lr": 0.2}, "13, 19", 1),
        axis("vit", "batch", (4, 16, 64), {**resnet, "lr": 0.1}, "10", 1),
        axis("vit", "weight_decay", (0.0, 1.25e-3, 5e-3), {**resnet, "lr": 0.1}, "11", 1),
        axis("mixed", "weight_decay", (0.0, 1.25e-3, 2.5e-3, 5e-3), resnet, "16", 1),
        axis("mixed", "weight_decay", (0.0, 1.25e-3, 2.5e-3, 5e-3), {**resnet, "lr": 0.2}, "16", 1),
    )
    grid = {"batch": (4, 16, 64), "lr": (0.1, 0.4, 0.8), "weight_decay": (1.25e-3, 5e-3, 1e-2)}
    pairs = (("lr", "weight_decay"), ("batch", "weight_decay"), ("batch", "lr"))
    maps = tuple(Map("resnet", (a, b), (grid[a], grid[b]), _without(resnet, a, b)) for a, b in pairs)
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
        axis("resnet", "lr", rates, {"batch": 8, "weight_decay": 5e-4}, "2"),
        axis("resnet", "weight_decay", decays, {"batch": 16, "lr": 1.5}, "3"),
        axis("resnet", "batch", batches, {"lr": 5e-3, "weight_decay": 6e-3}, "4"),
        axis("mlp", "weight_decay", decays, {"batch": 16, "lr": 0.1}, "8"),
        axis("mlp", "batch", batches, {"lr": 0.1, "weight_decay": 5e-4}, "9"),
    )
    controls = (
        axis("resnet", "lr", rates, {"batch": 8, "weight_decay": 0.0}, "12"),
        axis("resnet", "batch", batches, {"lr": 5e-3, "weight_decay": 0.0}, "12"),
    )
    others = (
        axis("momentum", "weight_decay", decays, {"batch": 16, "lr": 0.1}, "7", 1),
        axis("vgg", "batch", batches, {"lr": 1e-2, "weight_decay": 4e-4}, "13, 19", 1),
        axis("vit", "batch", batches, {"lr": 4e-2, "weight_decay": 5e-4}, "10", 1),
        axis("vit", "weight_decay", decays, {"batch": 16, "lr": 4e-2}, "11", 1),
        axis("mixed", "weight_decay", decays, {"batch": 16, "lr": 1e-2}, "16", 1),
    )
    grid = {"batch": batches, "lr": rates, "weight_decay": decays[1:]}
    center = {"batch": 16, "lr": 0.1, "weight_decay": 5e-4}
    pairs = (("lr", "weight_decay"), ("batch", "weight_decay"), ("batch", "lr"))
    maps = tuple(Map("resnet", (a, b), (grid[a], grid[b]), _without(center, a, b)) for a, b in pairs)
    return Scale(networks, axes, controls, others, maps, {"batch": 6, "lr": 0.1, "weight_decay": 8e-3})


def axis(network, varied, values, settings, figures, seeds=None):
    """An Axis with all settings but the varied one fixed."""
    return Axis(network, varied, values, _without(settings, varied), figures, seeds)


def _without(settings, *keys):
    return {key: value for key, value in settings.items() if key not in keys}
