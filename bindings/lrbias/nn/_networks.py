"""Networks for images of MNIST's and CIFAR's size, as Galanti, Siegel, Gupte and Poggio trained them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from torch import nn

from lrbias.errors import InvalidInput, check
from lrbias.settings import Count, validate

HEADS = 8  # of a vision transformer


def build(
    name: str, shape: Sequence[int], classes: int, width: int | None = None, depth: int | None = None
) -> nn.Module:
    """A torch module that maps (B, channels, height, width) images to (B, classes) logits.

    name: "mlp-bn"     `depth` times a linear layer of `width` neurons, batch norm and ReLU; then a linear layer
          "resnet-18"  the form for CIFAR: a stem of 3 × 3 and no pooling after it; `width` channels in the first of
                       four stages, twice as many in each that follows
          "vgg-16"     the form for CIFAR: thirteen convolutions with batch norm, means over what is left of the
                       image, one linear layer (the form for ImageNet has three); `width` channels at first, 8 × as
                       many at last
          "vit"        a vision transformer: `depth` blocks, tokens of `width` values, 8 heads, 4 × `width` neurons
                       in between; patches of 4 × 4, or of 2 × 2 where 4 does not divide both sides
          "mixed"      `depth` residual blocks of two convolutions, then `depth` of two linear layers, `width` wide
    shape: (channels, height, width) of one image.
    classes: how many logits, from 2 on.
    width, depth: None takes those of the paper: 100 and 10 for "mlp-bn", 64 for "resnet-18" and "vgg-16", 256 and 5
          for "mixed". It says none for "vit"; 512 and 6 are ours. The depths of "resnet-18" and "vgg-16" are fixed.

    Weights are drawn from torch's generator: the same `torch.manual_seed`, the same weights. Training needs at least
    two images in a batch where batch norm sees one value of each, as in "mlp-bn".

    Raises InvalidInput for an argument that is not accepted, for images that are too small, and where MONAI, which
    "resnet-18" and "vit" come from, is not installed.
    """
    check(name in NETWORKS, "network", name, "one of " + ", ".join(NETWORKS))
    make, *defaults = _BUILDERS[name]
    shape = _check_shape(shape)
    classes = validate(Count, "classes", classes)
    check(classes > 1, "classes", classes, "an integer of at least 2")
    sizes = []
    for argument, value, default in zip(("width", "depth"), (width, depth), defaults, strict=True):
        check(value is None or default, argument, value, f"none, the {argument} of {name} is fixed")
        sizes += [validate(Count, argument, default if value is None else value)] if default else []
    return make(shape, classes, *sizes)


def _check_shape(shape):
    accepted = "three integers of at least 1: channels, height, width"
    check(isinstance(shape, (tuple, list)) and len(shape) == 3, "shape", shape, accepted)
    return tuple(validate(Count, "shape", side) for side in shape)


def _check_kernel(shape):
    check(min(shape[1:]) >= 3, "shape", shape, "images of at least 3 × 3 pixels, the size of a kernel")


def _check_installed(name, **packages):
    """packages: {name of the module: name to show}."""
    if any(find_spec(package) is None for package in packages):
        shown = " and ".join(packages.values())
        raise InvalidInput(f"network = '{name}' needs {shown}: pip install 'lrbias[vision]'.")


def _mlp(shape, classes, width, depth):
    layers = [nn.Flatten()]
    inputs = shape[0] * shape[1] * shape[2]
    for _ in range(depth):
        layers += [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, classes))


def _resnet(shape, classes, width):
    _check_kernel(shape)
    _check_installed("resnet-18", monai="MONAI")
    from monai.networks.nets import ResNet

    return ResNet(
        "basic",
        layers=[2, 2, 2, 2],
        block_inplanes=[width, 2 * width, 4 * width, 8 * width],
        spatial_dims=2,
        n_input_channels=shape[0],
        conv1_t_size=3,
        conv1_t_stride=1,
        no_max_pool=True,
        num_classes=classes,
        bias_downsample=False,
    )


def _vgg(shape, classes, width):
    _check_kernel(shape)
    layers = []
    inputs = shape[0]
    for factor, convolutions in ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3)):
        for _ in range(convolutions):
            layers += _convolution(inputs, factor * width, bias=True)
            inputs = factor * width
        layers.append(nn.MaxPool2d(2, ceil_mode=True))  # so that 14 pixels can be halved four times and more
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def _convolution(inputs, outputs, bias):
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias), nn.BatchNorm2d(outputs), nn.ReLU()]


def _vit(shape, classes, width, depth):
    channels, *sides = shape
    check(all(side % 2 == 0 for side in sides), "shape", shape, "even sides, for patches of 2 × 2 or 4 × 4")
    check(width % HEADS == 0, "width", width, f"a multiple of {HEADS}, as many as there are heads")
    _check_installed("vit", monai="MONAI", einops="einops")
    from monai.networks.nets import ViT

    transformer = ViT(
        in_channels=channels,
        img_size=sides,
        patch_size=4 if all(side % 4 == 0 for side in sides) else 2,
        hidden_size=width,
        mlp_dim=4 * width,
        num_layers=depth,
        num_heads=HEADS,
        classification=True,
        num_classes=classes,
        spatial_dims=2,
        post_activation=None,  # MONAI would squash the logits by tanh
    )
    for block in transformer.blocks:
        block.norm_cross_attn = nn.Identity()  # made for a decoder; no gradient would reach its weights
    return Logits(transformer)


class Logits(nn.Module):
    """The first of several outputs of a network."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        return self.network(inputs)[0]


class Residual(nn.Sequential):
    """x plus what the layers make of x."""

    def forward(self, inputs):
        return inputs + super().forward(inputs)


class Mixed(nn.Module):
    """Convolutional, then fully connected residual blocks, as in appendix B of the paper.

    The weights of the blocks are `convolutions.I.J.weight` and `linears.I.J.weight`. The paper flattens
    64 × 32 × 32 values where 256 channels arrive; here all values that arrive are flattened.
    """

    def __init__(self, shape, classes, width, depth):
        _check_kernel(shape)
        super().__init__()
        channels, height, across = shape
        self.stem = nn.Sequential(*_convolution(channels, width, bias=False))
        self.convolutions = _blocks(depth, lambda: _convolution(width, width, bias=False))
        self.narrowing = nn.Sequential(nn.Flatten(), *_linear(width * height * across, width))
        self.linears = _blocks(depth, lambda: _linear(width, width))
        self.head = nn.Linear(width, classes)

    def forward(self, inputs):
        return self.head(self.linears(self.narrowing(self.convolutions(self.stem(inputs)))))


def _blocks(depth, layer):
    """layer: makes one anew; a block has two of them."""
    return nn.Sequential(*(Residual(*layer(), *layer()) for _ in range(depth)))


def _linear(inputs, outputs):
    return [nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.ReLU()]


# The width and the depth of the paper; None: there is none to choose.
_BUILDERS: dict[str, tuple[Any, int | None, int | None]] = {
    "mlp-bn": (_mlp, 100, 10),
    "resnet-18": (_resnet, 64, None),
    "vgg-16": (_vgg, 64, None),
    "vit": (_vit, 512, 6),
    "mixed": (Mixed, 256, 5),
}
NETWORKS = tuple(_BUILDERS)
