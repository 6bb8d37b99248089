"""Lemma 3.1 of Galanti et al., measured: ranks of gradients of one sample, and of a batch."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from lrbias.errors import InvalidInput
from lrbias.nn._gradients import Probe, gradient_ranks, ranks
from lrbias.nn._matrices import weight_matrices

torch.set_num_threads(1)
entropy = nn.functional.cross_entropy
DTYPES = [torch.float32, torch.float64]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(20260101)


def _convolutional(dtype):
    """Outputs of 6 × 6 and 2 × 2 positions, then one vector. Tanh, as rectifiers leave some of them out."""
    layers = [nn.Conv2d(2, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.Tanh()]
    layers += [nn.Conv2d(8, 20, 3, stride=2, bias=False), nn.BatchNorm2d(20), nn.Tanh(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(80, 30), nn.Tanh(), nn.Linear(30, 9)).to(dtype)


def _batch(count, dtype):
    return torch.randn(count, 2, 13, 13, dtype=dtype), torch.arange(count) % 9


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 3, 6])
def test_convolutions_under_batch_normalisation(count, dtype):
    """Of one sample, 2 × 2 positions: rank 4 exactly. Of a batch, in training mode where samples mix: 4 B − 1, as far
    as the 20 rows go: behind the layer a mean over all positions is taken away, so what comes back sums to 0."""
    model, (inputs, targets) = _convolutional(dtype), _batch(count, dtype)
    model.train(count > 1)
    first, second, hidden, last = gradient_ranks(model, entropy, inputs, targets)
    assert [found.patches for found in (first, second, hidden, last)] == [36, 4, 1, 1]
    assert first.bounds == (8, 8)
    assert second.bounds == (4, min(4 * count, 20))
    assert second.sample.tolist() == [4] * count
    assert second.batch == min(4 * count - (count > 1), 20) <= second.bounds[1]
    for found in (hidden, last):
        assert found.sample.tolist() == [1] * count
    assert hidden.batch == count
    assert last.batch == min(count, 8)  # the slopes of a softmax sum to 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_ranks_are_those_of_backward(dtype):
    """The same gradients by autograd's usual way, their values by torch; tolerances beside the default agree."""
    model, (inputs, targets) = _convolutional(dtype), _batch(3, dtype)
    found = gradient_ranks(model, entropy, inputs, targets)
    assert found
    entropy(model(inputs), targets).backward()
    for matrix, ranked in zip(weight_matrices(model), found, strict=True):
        values = torch.linalg.svdvals(matrix.gradient())
        for factor in (0.5, 1, 50):
            tolerance = factor * max(matrix.shape) * torch.finfo(dtype).eps
            assert int((values > tolerance * values[0]).sum()) == ranked.batch
    model.eval()
    for i in range(3):
        model.zero_grad()
        entropy(model(inputs[i : i + 1]), targets[i : i + 1]).backward()
        for matrix, ranked in zip(weight_matrices(model), found, strict=True):
            assert int(torch.linalg.matrix_rank(matrix.gradient())) == ranked.sample[i]


def test_groups_have_patches_of_their_own():
    """Two groups, 2 positions: each half of the rows has rank 2, together 4 — more than there are positions."""
    layer = nn.Conv1d(6, 8, 3, groups=2, dtype=torch.float64)
    loss = nn.functional.mse_loss
    for count, rank in ((1, 4), (2, 8)):
        inputs = torch.randn(count, 6, 4).double()
        (found,) = gradient_ranks(layer, loss, inputs, torch.randn(count, 8, 2).double())
        assert found.patches == 4
        assert found.sample.tolist() == [4] * count
        assert found.batch == rank


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_has_at_most_the_rank_of_its_tokens(dtype):
    """T = 3 tokens of width 10. Rows of a softmax sum to 1: keys lose one dimension in each sample."""
    model = nn.TransformerEncoderLayer(10, 2, 12, dropout=0.5, batch_first=True, activation="gelu").to(dtype)
    inputs, targets = torch.randn(2, 3, 10, dtype=dtype), torch.randn(2, 3, 10, dtype=dtype)
    found = {ranked.name: ranked for ranked in gradient_ranks(model, nn.functional.mse_loss, inputs, targets)}
    for ranked in found.values():
        assert ranked.bounds == (3, 6)
        assert ranked.sample.tolist() == [3 - (ranked.name == "self_attn.key")] * 2
        assert ranked.batch <= 6
    assert found["self_attn.value"].batch == 6
    assert found["self_attn.out_proj"].shape == (10, 10)


def test_recurrent_layers_have_at_most_the_rank_of_their_steps():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(8, 9, batch_first=True, dtype=torch.float64)

        def forward(self, x):
            return self.rnn(x)[0][:, -1]

    inputs = torch.randn(2, 3, 8).double()
    targets = torch.randn(2, 9).double()
    ranks = gradient_ranks(Last(), nn.functional.mse_loss, inputs, targets)
    assert len(ranks) == 8, "four gates, from the input and from the state before"
    for found in ranks:
        reached = 3 - ("_hh_" in found.name)  # the first state is 0
        if found.name.endswith(("l0.output", "_hh_l0.forget")):
            assert (found.sample <= reached).all()
        elif found.name.endswith("forget"):
            assert found.sample.tolist() == [2, 2]  # the first step forgets a state that is 0
        else:
            assert found.sample.tolist() == [reached] * 2
        assert found.batch <= found.bounds[1] == 6


def test_a_shared_layer_adds_its_calls():
    layer = nn.Linear(6, 6, dtype=torch.float64)
    model = nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), layer)
    (found,) = gradient_ranks(model, nn.functional.mse_loss, torch.randn(1, 6).double(), torch.zeros(1, 6).double())
    assert (found.patches, found.sample.tolist(), found.batch) == (3, [3], 3)


def test_an_output_layer_that_shares_its_embedding():
    """Tokens looked up, and tokens predicted: two vectors each."""
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 30, "n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 8}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(bos_token_id=0, eos_token_id=0, **sizes)).double()
    inputs = {"input_ids": torch.arange(8).reshape(2, 4), "attention_mask": torch.ones(2, 4)}

    def loss(outputs, tokens):
        return entropy(outputs.logits.flatten(0, 1), tokens.flatten())

    *inner, last = gradient_ranks(model.eval(), loss, inputs, inputs["input_ids"] + 9)
    assert last.name == "lm_head"
    assert last.bounds == (8, 16)
    assert (last.sample > 4).all()
    assert all((found.sample <= 4).all() and found.batch <= 8 and found.patches == 4 for found in inner)
    values = [found for found in inner if found.name.endswith("value")]
    assert values[0].sample.tolist() == [4, 4]


@pytest.mark.parametrize("make", [parametrizations.spectral_norm, parametrizations.weight_norm])
def test_the_gradient_of_a_parametrized_weight_is_that_of_the_effective_one(make):
    """In training mode: spectral_norm iterates on each reading, so another one is not what the pass has used."""
    model = nn.Sequential(make(nn.Linear(6, 7)), nn.Tanh(), nn.Linear(7, 5)).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = gradient_ranks(model, nn.functional.mse_loss, torch.randn(3, 6).double(), torch.zeros(3, 5).double())
    assert [ranked.sample.tolist() for ranked in found] == [[1] * 3] * 2
    assert [ranked.batch for ranked in found] == [3, 3]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_outputs_and_targets_reach_the_loss_as_they_are():
    class Twofold(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.unused, self.frozen = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 4)
            self.frozen.requires_grad_(False)

        def forward(self, x, scale):
            hidden = self.layer(x) * scale
            return self.frozen(hidden), hidden

    def loss(outputs, targets):
        logits, hidden = outputs
        labels, others = targets["labels"], targets["others"]
        assert len(logits) == len(hidden) == len(labels) == len(others[0])
        return entropy(logits, labels) + hidden.square().mean()

    targets = {"labels": torch.tensor([0, 1]), "others": [torch.ones(2, 1)]}
    layer, unused, frozen = gradient_ranks(Twofold(), loss, (torch.randn(2, 3), torch.ones(2, 1)), targets)
    assert (layer.sample.tolist(), layer.batch, layer.patches) == ([1, 1], 2, 1)
    assert (unused.sample.tolist(), unused.batch, unused.patches) == ([0, 0], 0, 0)
    assert (frozen.sample.tolist(), frozen.batch, frozen.patches) == ([0, 0], 0, 1)


def test_everything_is_left_as_it_was():
    """Also from within no_grad, and when the loss fails. Dropout draws, batch normalisation counts."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    model[1].eval()
    model.append(nn.BatchNorm1d(2))
    inputs, targets = torch.randn(5, 3), torch.randn(5, 2)
    model(inputs).sum().backward()
    slopes = [parameter.grad for parameter in model.parameters()]
    kept = [slope.clone() for slope in slopes]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [m.training for m in model.modules()]
    random = torch.get_rng_state()

    def failing(outputs, targets):
        return None if len(targets) == 1 else outputs.sum()

    with torch.no_grad():
        gradient_ranks(model, nn.functional.mse_loss, inputs, targets)
    with pytest.raises(InvalidInput, match="loss = None is not accepted"):
        gradient_ranks(model, failing, inputs, targets)
    assert all(p.grad is slope for p, slope in zip(model.parameters(), slopes, strict=True))
    assert all(torch.equal(slope, known) for slope, known in zip(slopes, kept, strict=True))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.backends.cudnn.enabled


def test_a_probe_follows_the_weights():
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)).double()
    probe = Probe(nn.functional.mse_loss, torch.randn(5, 4).double(), torch.randn(5, 3).double())
    probed = probe.of(model, weight_matrices(model, "0"))
    assert probed.patches == {"0": 1}
    assert [found.batch for found in probed.ranks()] == [3]  # the three outputs
    with torch.no_grad():
        model[1].weight[1:] = 0
    assert [found.batch for found in probed.ranks()] == [1]


def test_numerical_ranks():
    """A rounded product of rank 3 has rank 3, in each precision. Half of one goes through float32."""
    exact = torch.randn(40, 3).double() @ torch.randn(3, 60).double()
    assert ranks([exact, exact.float(), torch.zeros(4, 5)]).tolist() == [3, 3, 0]
    assert np.linalg.matrix_rank(exact.numpy()) == 3
    diagonal = torch.diag(torch.tensor([1.0, 1e-2, 1e-4]))
    assert [int(ranks([diagonal], tolerance)[0]) for tolerance in (0.5, 1e-3, 1e-5)] == [1, 2, 3]
    assert ranks([diagonal.bfloat16()], 1e-3).tolist() == [2]
    with pytest.raises(InvalidInput, match="tolerance = None is not accepted"):
        ranks([torch.ones(200, 3).bfloat16()])


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"loss": "mse"}, "loss = 'mse' is not accepted"),
        ({"loss": lambda outputs, targets: (outputs - targets).square()}, "loss = tensor.* is not accepted"),
        ({"loss": lambda outputs, targets: targets.sum()}, "loss = tensor.* depends on the parameters"),
        ({"targets": torch.ones(3, 2)}, "targets = .* is not accepted: expected one for each of 2 samples"),
        ({"targets": torch.ones(())}, "targets = .* is not accepted"),
        ({"inputs": torch.ones(2, 2).fill_(torch.inf)}, "model = <a gradient is not finite> is not accepted"),
        ({"tolerance": 1}, "tolerance = 1 is not accepted"),
        ({"tolerance": 0.0}, "tolerance = 0.0 is not accepted"),
        ({"matrices": []}, r"matrices = \[\] is not accepted"),
    ],
)
def test_what_is_refused(changed, sentence):
    given = {"loss": nn.functional.mse_loss, "inputs": torch.ones(2, 2), "targets": torch.ones(2, 2)} | changed
    with pytest.raises(InvalidInput, match=sentence):
        gradient_ranks(nn.Linear(2, 2), **given)
