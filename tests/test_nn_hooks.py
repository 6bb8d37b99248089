"""Weights that are made or packed, and models that change under a tracker: the right rows, or one sentence."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune, spectral_norm, weight_norm

import lrbias as lb
from lrbias.errors import InvalidInput
from lrbias.nn._matrices import weight_matrices

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(20260101)


def old_weight_norm(layer):
    """The one that works by a hook, which torch advises against."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return weight_norm(layer)


def pruned(layer):
    prune.random_unstructured(layer, "weight", 0.5)
    return layer


def raw(layer):
    """The parameter that a hook makes the weight of."""
    return layer.weight_v if hasattr(layer, "weight_g") else layer.weight_orig


@pytest.mark.parametrize("make", [pruned, old_weight_norm, spectral_norm])
def test_a_weight_that_a_hook_makes_is_that_of_the_next_pass(make):
    """Its rows were one step late: what stands in the layer is the weight of the pass before."""
    layer = make(nn.Linear(5, 4))
    tracker = lb.nn.RankTracker(layer)
    expected = []
    for _ in range(3):
        layer.eval()
        layer(torch.zeros(1, 5))  # the hook makes the weight
        expected.append(torch.linalg.svdvals(layer.weight.detach()).numpy())
        layer.train()
        with torch.no_grad():
            raw(layer).add_(torch.randn(4, 5))
        before = {name: value.clone() for name, value in layer.state_dict().items()}
        tracker.step()
        assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    layer.eval()
    layer(torch.zeros(1, 5))
    expected.append(torch.linalg.svdvals(layer.weight.detach()).numpy())
    rows = tracker.close()["layer/weight/singular_values"]
    np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-6)


def test_a_pruned_checkpoint_is_tracked_as_it_was_loaded():
    trained, loaded = pruned(nn.Linear(6, 5)), pruned(nn.Linear(6, 5))
    loaded.load_state_dict(trained.state_dict())
    run = lb.nn.RankTracker(loaded).close()
    effective = (trained.weight_orig * trained.weight_mask).detach()
    expected = torch.linalg.svdvals(effective).numpy()
    np.testing.assert_allclose(run["layer/weight/singular_values"][0], expected, rtol=1e-5, atol=1e-6)


class Packed(nn.Linear):
    """As quantized layers are: its weight is a column of codes, two to a byte."""

    def __init__(self, inputs, outputs, dtype):
        super().__init__(inputs, outputs)
        self.weight = nn.Parameter(torch.zeros(inputs * outputs // 2, 1, dtype=dtype), requires_grad=False)


class Stands(torch.Tensor):
    """As tensors of torchao do: represents another one, without storage of its own."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.detach.default:
            return args[0]
        raise NotImplementedError(function)


def holding(weight):
    layer = nn.Linear(4, 4)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer


def hooked():
    """A layer whose weight a hook of one's own makes."""
    layer = nn.Linear(4, 4)
    weight = layer.weight.detach()
    del layer._parameters["weight"]
    layer.weight = weight
    layer.register_forward_pre_hook(lambda module, inputs: setattr(module, "weight", 2 * weight))
    return layer


@pytest.mark.parametrize(
    ("make", "there"),
    [
        (lambda: Packed(64, 64, torch.uint8), "uint8"),
        (lambda: Packed(64, 64, torch.float32), r"has shape \(2048, 1\) in a layer for \(64, 64\)"),
        (lambda: holding(torch.ones(4, 4, dtype=torch.int8)), "int8"),
        (lambda: holding(torch.ones(4, 4, dtype=torch.complex64)), "complex64"),
        (lambda: holding(torch.eye(4).to_sparse()), "sparse float32"),
        (lambda: holding(Stands(torch.eye(4))), "a Stands, which represents another tensor"),
        (lambda: nn.Conv2d(2, 3, 2, dtype=torch.complex64), "complex64"),
        (lambda: nn.MultiheadAttention(4, 2, dtype=torch.complex64), "complex64"),
        (lambda: nn.GRU(3, 4, dtype=torch.complex64), "complex64"),
        (hooked, "is made by a hook before each pass"),
    ],
)
def test_what_is_not_the_weight_is_refused_in_one_sentence(make, there, tmp_path):
    model = nn.ModuleDict({"bad": make(), "good": nn.Linear(2, 3)})
    with pytest.raises(InvalidInput, match=rf"model = <bad\.\w+ .*{there}") as raised:
        lb.nn.RankTracker(model, store=tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()
    assert [matrix.name for matrix in weight_matrices(model, "good")] == ["good"], "the others can be tracked"


def test_a_replaced_module_is_followed():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    tracker = lb.nn.RankTracker(model)
    model[1] = nn.Linear(4, 2)
    tracker.step()
    rows = tracker.close()["layer/1/singular_values"]
    np.testing.assert_allclose(rows[1], torch.linalg.svdvals(model[1].weight.detach()).numpy(), rtol=1e-5)
    assert abs(rows[1] - rows[0]).max() > 1e-3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda model: model.append(nn.Linear(2, 2)), "<2 is new>"),
        (lambda model: model.pop(1), "<1 is gone>"),
        (lambda model: model.__setitem__(1, nn.Linear(4, 7)), r"<1 has shape \(7, 4\), not \(2, 4\)>"),
    ],
)
def test_a_model_that_is_another_one_is_refused(change, sentence):
    """The first rows of a new matrix were recorded under the name of the old one."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    tracker = lb.nn.RankTracker(model)
    change(model)
    with pytest.raises(InvalidInput, match=f"model = {sentence} is not accepted"):
        tracker.step()
    assert len(tracker.close()["layer/1/singular_values"]) == 1


class Wrapper:
    """As libraries wrap an optimizer."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def step(self):
        self.optimizer.step()


def test_a_wrapped_optimizer_is_watched_and_counted_once():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = Wrapper(Wrapper(optimizer))
    tracker = lb.nn.RankTracker(model)
    tracker.watch(wrapper).watch(optimizer).watch(wrapper)
    for _ in range(3):
        wrapper.step()
    assert tracker.close().step == 3
    wrapper.step()
    with pytest.raises(InvalidInput, match=r"optimizer = .* is not accepted"):
        lb.nn.RankTracker(model).watch(model)


def test_the_optimizer_of_accelerate_is_watched():
    accelerate = pytest.importorskip("accelerate")
    model = nn.Linear(2, 2)
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    tracker = lb.nn.RankTracker(model).watch(optimizer)
    for _ in range(6):
        with accelerator.accumulate(model):
            accelerator.backward(model(torch.ones(1, 2)).sum())
            optimizer.step()
            optimizer.zero_grad()
    assert tracker.close().step == 3
