"""The chain-product gradient against its definition, central differences and PyTorch's autograd."""

import numpy as np
import pytest

from backends import cases, everywhere
from lrcore import layout, reference
from networks import WIDTHS, make, relative


@cases("widths", WIDTHS)
def test_loss_product_and_gradient_equal_the_reference(core, widths):
    params, widths, target, work = make(widths, core=core)
    actual, expected = np.empty_like(params), np.empty_like(params)
    loss = core.loss_and_gradient(params, widths, target, actual, work)
    assert loss == pytest.approx(reference.loss_and_gradient(params, widths, target, expected), rel=1e-13)
    assert relative(actual, expected) < 1e-13
    product, expected_product = np.empty_like(target), np.empty_like(target)
    core.product(params, widths, product, work)
    reference.product(params, widths, expected_product)
    assert relative(product, expected_product) < 1e-13


@cases("widths", WIDTHS[1:])
def test_gradient_equals_central_differences(core, widths):
    """Along one entry the loss is a parabola, so central differences have no truncation error at any step."""
    params, widths, target, work = make(widths, core=core)
    gradient = np.empty_like(params)
    core.loss_and_gradient(params, widths, target, gradient, work)
    chosen = np.linspace(0, params.size - 1, min(params.size, core.pick(60, 10))).astype(int)
    differences = []
    for k in chosen:
        ends = []
        for step in (1.0, -1.0):
            moved = params.copy()
            moved[k] += step
            ends.append(core.forward(moved, widths, target, work))
        differences.append((ends[0] - ends[1]) / 2)
    assert relative(gradient[chosen], np.array(differences)) < 1e-10


@cases("widths", WIDTHS)
def test_gradient_equals_autograd(core, widths):
    torch = pytest.importorskip("torch")
    params, widths, target, work = make(widths, core=core)
    gradient = np.empty_like(params)
    core.loss_and_gradient(params, widths, target, gradient, work)
    layers = [torch.tensor(layer, requires_grad=True) for layer in layout.layers(params, widths)]
    product = layers[0]
    for layer in layers[1:]:
        product = layer @ product
    (0.5 * ((product - torch.tensor(target)) ** 2).sum()).backward()
    expected = np.concatenate([layer.grad.numpy().ravel() for layer in layers])
    assert relative(gradient, expected) < 1e-10


@everywhere
def test_backward_adds_and_scales(core, rng):
    params, widths, target, work = make((7, 3, 5), core=core)
    gradient = np.empty_like(params)
    base = rng.normal(size=params.size)
    reference.loss_and_gradient(params, widths, target, gradient)
    out = base.copy()
    core.forward(params, widths, target, work)
    core.backward(params, widths, -0.3, out, work)
    assert relative(out, base - 0.3 * gradient) < 1e-14
