"""Networks: shapes, known numbers of parameters, gradients everywhere, residual blocks, what is not accepted."""

import importlib.util
import sys

import numpy as np
import pytest
import torch

from lrbias.errors import InvalidInput
from lrbias.nn._networks import NETWORKS, build

NEEDED = {"resnet-18": ("monai",), "vit": ("monai", "einops")}
SMALL = {
    "mlp-bn": {"width": 16, "depth": 3},
    "resnet-18": {"width": 4},
    "vgg-16": {"width": 4},
    "vit": {"width": 16, "depth": 2},
    "mixed": {"width": 8, "depth": 2},
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=NETWORKS)
def name(request):
    _skip_without(request.param)
    return request.param


def _skip_without(name):
    for package in NEEDED.get(name, ()):
        if not importlib.util.find_spec(package):
            pytest.skip(f"{name} needs {package}: pip install 'lrbias[vision]'")


def _small(name, shape=(3, 32, 32), classes=10, seed=0):
    torch.manual_seed(seed)
    return build(name, shape, classes, **SMALL[name])


def _matrices(network):
    return {key: value for key, value in network.named_parameters() if key.endswith("weight") and value.ndim > 1}


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 14, 14), (3, 32, 32), (2, 10, 6), (1, 15, 13)])
def test_logits_of_every_shape_of_image(name, shape):
    if name == "vit" and shape[1] % 2:
        shape = (1, 16, 14)  # its patches cover even sides only
    network = _small(name, shape, classes=7)
    logits = network(torch.randn(3, *shape))
    assert logits.shape == (3, 7)
    assert torch.isfinite(logits).all()
    with torch.no_grad():  # logits: nothing keeps them between −1 and 1
        for parameter in list(network.parameters())[-2:]:
            parameter *= 1000
    assert network(torch.randn(3, *shape)).abs().max() > 10


# For 3 × 32 × 32 and ten classes; the weights, then what comes with them.
COUNTS = {
    "mlp-bn": 3072 * 100 + 9 * 100 * 100 + 10 * (100 + 2 * 100) + 100 * 10 + 10,
    "resnet-18": 11_173_962,  # as published for CIFAR
    "vgg-16": 14_728_266,  # with batch norm and one linear layer, as published for CIFAR
    "vit": 6 * ((3 + 1 + 4 + 4) * 512**2 + (1 + 4 + 1 + 2 * 2) * 512)
    + (48 + 1) * 512  # patches
    + (64 + 1) * 512  # positions and the token of the class
    + 2 * 512
    + (512 + 1) * 10,
    "mixed": 9 * 256 * (3 + 10 * 256) + 11 * 2 * 256 + (1024 + 10) * 256**2 + 11 * 3 * 256 + (256 + 1) * 10,
}
MATRICES = {"mlp-bn": 11, "resnet-18": 21, "vgg-16": 14, "vit": 26, "mixed": 23}


def test_the_sizes_of_the_paper_have_the_known_number_of_parameters_and_matrices(name):
    with torch.device("meta"):  # numbers of parameters without the parameters: "mixed" has 74 million
        network = build(name, (3, 32, 32), 10)
    assert sum(parameter.numel() for parameter in network.parameters()) == COUNTS[name]
    assert len(_matrices(network)) == MATRICES[name]


def test_gradients_reach_all_parameters_and_a_step_along_them_lowers_the_loss(name):
    """By ‖∇L‖² times the learning rate, for small ones."""
    network = _small(name).double()
    labels = torch.arange(20) % 10
    inputs = torch.randn(20, 3, 32, 32, dtype=torch.float64)

    def loss():
        return torch.nn.functional.cross_entropy(network(inputs), labels)

    before = loss()
    before.backward()
    gradients = {key: parameter.grad for key, parameter in network.named_parameters()}
    assert [key for key, gradient in gradients.items() if gradient is None] == []
    assert [key for key in _matrices(network) if not gradients[key].abs().max() > 0] == []

    lr = 1e-7
    with torch.no_grad():
        for parameter in network.parameters():
            parameter -= lr * parameter.grad
        fall = (before - loss()).item()
    slope = sum((gradient**2).sum().item() for gradient in gradients.values())
    assert fall == pytest.approx(lr * slope, rel=1e-3)


def test_a_residual_network_for_small_images_halves_them_three_times():
    _skip_without("resnet-18")
    network = _small("resnet-18")
    sides = []
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        stage.register_forward_hook(lambda _, __, output: sides.append(tuple(output.shape[1:])))
    network(torch.randn(2, 3, 32, 32))
    assert sides == [(4, 32, 32), (8, 16, 16), (16, 8, 8), (32, 4, 4)]


def test_the_same_seed_makes_the_same_weights(name):
    weights, same, other = (_matrices(_small(name, seed=seed)) for seed in (3, 3, 4))
    assert all(torch.equal(weights[key], same[key]) for key in weights)
    assert not any(torch.equal(weights[key], other[key]) for key in weights)


def test_an_mlp_at_its_start_is_products_and_rectified_sums(rng):
    network = _small("mlp-bn", (2, 3, 4), classes=5).double().eval()
    inputs = rng.normal(size=(6, 2, 3, 4))
    hidden = inputs.reshape(6, -1)
    values = [value.detach().numpy() for key, value in network.named_parameters()]
    for layer in range(3):
        weight, bias, scale, shift = values[4 * layer : 4 * layer + 4]
        hidden = np.maximum((hidden @ weight.T + bias) / np.sqrt(1 + 1e-5) * scale + shift, 0)
    expected = hidden @ values[12].T + values[13]
    assert np.allclose(network(torch.from_numpy(inputs)).detach().numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("part", "shape"), [("convolutions", (5, 8, 6, 6)), ("linears", (5, 8))])
def test_a_residual_block_is_the_identity_where_its_last_norm_is_zero(part, shape):
    """And otherwise it adds what ReLU lets through."""
    network = _small("mixed", (3, 6, 6))
    inputs = torch.randn(shape)
    blocks = getattr(network, part)
    assert len(blocks) > 0
    for block in blocks:
        assert (block(inputs) >= inputs).all()
        assert (block(inputs) > inputs).any()
        torch.nn.init.zeros_(block[4].weight)
        assert torch.equal(block(inputs), inputs)


def test_layers_of_the_two_kinds_of_blocks_have_names_of_their_own():
    names = list(_matrices(_small("mixed")))
    layers = [f"{block}.{layer}.weight" for block in (0, 1) for layer in (0, 3)]
    blocks = [f"{part}.{layer}" for part in ("convolutions", "linears") for layer in layers]
    assert [name for name in names if name.startswith(("convolutions.", "linears."))] == blocks
    assert names == ["stem.0.weight", *blocks[:4], "narrowing.1.weight", *blocks[4:], "head.weight"]


@pytest.mark.parametrize(("sides", "tokens"), [((32, 32), 64), ((14, 14), 49), ((8, 12), 6), ((8, 6), 12)])
def test_patches_of_a_transformer_cover_the_image(sides, tokens):
    _skip_without("vit")
    network = _small("vit", (1, *sides))
    inputs = torch.randn(2, 1, *sides, requires_grad=True)
    assert network.network.patch_embedding.n_patches == tokens
    network(inputs)[:, 0].sum().backward()
    assert (inputs.grad != 0).all()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"name": "alexnet"},
            "network = 'alexnet' is not accepted: expected one of mlp-bn, resnet-18, vgg-16, vit, mixed.",
        ),
        (
            {"name": ["vit"]},
            "network = ['vit'] is not accepted: expected one of mlp-bn, resnet-18, vgg-16, vit, mixed.",
        ),
        ({"width": 0}, "width = 0 is not accepted: expected an integer of at least 1."),
        ({"width": 1.5}, "width = 1.5 is not accepted: expected an integer of at least 1."),
        ({"depth": 0}, "depth = 0 is not accepted: expected an integer of at least 1."),
        (
            {"name": "resnet-18", "depth": 18},
            "depth = 18 is not accepted: expected none, the depth of resnet-18 is fixed.",
        ),
        ({"name": "vgg-16", "depth": 16}, "depth = 16 is not accepted: expected none, the depth of vgg-16 is fixed."),
        ({"classes": 1}, "classes = 1 is not accepted: expected an integer of at least 2."),
        (
            {"shape": (28, 28)},
            "shape = (28, 28) is not accepted: expected three integers of at least 1: channels, height, ",
        ),
        ({"shape": (1, 0, 28)}, "shape = 0 is not accepted: expected an integer of at least 1."),
        (
            {"name": "vit", "shape": (1, 7, 8)},
            "shape = (1, 7, 8) is not accepted: expected even sides, for patches of 2 × 2",
        ),
        (
            {"name": "vit", "width": 12},
            "width = 12 is not accepted: expected a multiple of 8, as many as there are heads.",
        ),
    ],
)
def test_what_is_not_accepted(arguments, sentence):
    with pytest.raises(InvalidInput) as refusal:
        build(**{"name": "mlp-bn", "shape": (1, 28, 28), "classes": 10} | arguments)
    assert str(refusal.value).startswith(sentence)


@pytest.mark.parametrize("name", ["resnet-18", "vgg-16", "mixed"])
def test_images_have_to_be_as_large_as_a_kernel(name):
    _skip_without(name)
    build(name, (1, 3, 3), 10, **SMALL[name])
    with pytest.raises(InvalidInput, match=r"^shape = \(1, 2, 9\) is not accepted: expected images of at least 3 ×"):
        build(name, (1, 2, 9), 10)


@pytest.mark.parametrize(
    ("name", "package", "shown"),
    [("resnet-18", "monai", "MONAI"), ("vit", "monai", "MONAI and einops"), ("vit", "einops", "MONAI and einops")],
)
def test_a_missing_package_is_named_with_the_extra(monkeypatch, name, package, shown):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InvalidInput) as refusal:
        build(name, (1, 28, 28), 10)
    assert str(refusal.value) == f"network = '{name}' needs {shown}: pip install 'lrbias[vision]'."
