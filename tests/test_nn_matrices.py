"""Matrices of networks: which there are, what their numbers are, and how often each is applied in one sample."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence

from lrbias.errors import InvalidInput
from lrbias.nn._matrices import patches, weight_matrices
from lrcore import cpu

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(20260101)


def _by_name(model, only=None):
    return {matrix.name: matrix for matrix in weight_matrices(model, only)}


def _values(model):
    return {name: matrix.value() for name, matrix in _by_name(model).items()}


class Called(nn.Module):
    """A model whose forward is a function of itself and the inputs."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.function = forward

    def forward(self, *inputs):
        return self.function(self, *inputs)


def test_names_kinds_and_shapes_in_the_order_of_the_modules():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 5),
        nn.BatchNorm2d(4),
        nn.Sequential(nn.Flatten(), nn.Linear(4, 6)),
        nn.LayerNorm(6),
        nn.GRU(6, 2),
    )
    found = [(matrix.name, matrix.kind, matrix.shape, matrix.layer) for matrix in weight_matrices(model)]
    sides = (("ih", 6), ("hh", 2))
    gates = ("reset", "update", "new")
    recurrent = [(f"4.weight_{side}_l0.{gate}", (2, size)) for side, size in sides for gate in gates]
    assert found[:2] == [("0", "convolution", (4, 75), "0"), ("2.1", "linear", (6, 4), "2.1")]
    assert found[2:] == [(name, "recurrent", shape, "4") for name, shape in recurrent]
    assert all(matrix.value().shape == matrix.shape for matrix in weight_matrices(model))


def test_a_matrix_is_a_view_that_follows_the_training():
    layer = nn.Linear(3, 2)
    (matrix,) = weight_matrices(layer)
    assert (matrix.name, matrix.layer) == ("weight", "")
    assert matrix.gradient() is None
    assert matrix.value().data_ptr() == layer.weight.data_ptr()
    assert not matrix.value().requires_grad
    layer(torch.ones(1, 3)).sum().backward()
    assert torch.equal(matrix.gradient(), torch.ones(2, 3))
    with torch.no_grad():
        layer.weight.fill_(7)
    assert torch.equal(matrix.value(), torch.full((2, 3), 7.0))


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_a_convolution_is_its_matrix_times_patches(data):
    """unfold makes the patches; each group has its own rows and its own part of a patch."""
    groups, stride, padding, kernel = (data.draw(st.integers(*range_)) for range_ in ((1, 3), (1, 3), (0, 2), (1, 3)))
    inputs = groups * data.draw(st.integers(1, 3))
    outputs = groups * data.draw(st.integers(1, 3))
    size = 5
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False, dtype=torch.float64)
    (matrix,) = weight_matrices(layer)
    images = torch.randn(2, inputs, size, size, dtype=torch.float64)
    columns = nn.functional.unfold(images, kernel, padding=padding, stride=stride)  # (2, inputs · k², positions)
    made = [block @ part for block, part in zip(matrix.value().chunk(groups), columns.chunk(groups, 1), strict=True)]
    expected = layer(images).flatten(2)
    assert torch.allclose(torch.cat(made, 1), expected, rtol=0, atol=1e-12)
    assert patches(layer, images) == {"weight": groups * expected.shape[2]}


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_is_its_matrix_times_what_reaches_an_output(groups):
    """By its definition: x[c, i] reaches y[o, i · stride + k] through W[c, o, k]. Groups: blocks of columns."""
    layer = nn.ConvTranspose1d(4, 6, 3, stride=2, groups=groups, bias=False, dtype=torch.float64)
    (matrix,) = weight_matrices(layer)
    assert matrix.shape == (6 // groups, 12)
    signal = torch.randn(1, 4, 5, dtype=torch.float64)
    expected = layer(signal)
    columns = torch.zeros(4, 3, expected.shape[2], dtype=torch.float64)
    for i in range(5):
        for k in range(3):
            columns[:, k, 2 * i + k] = signal[0, :, i]
    blocks = zip(matrix.value().chunk(groups, 1), columns.flatten(0, 1).chunk(groups), strict=True)
    assert torch.allclose(torch.cat([block @ part for block, part in blocks]), expected[0], rtol=0, atol=1e-12)
    assert patches(layer, signal) == {"weight": groups * expected.shape[2]}


def test_convolutions_of_other_dimensions():
    for layer, shape, positions in [
        (nn.Conv1d(2, 3, 4), (2, 9), 6),
        (nn.Conv3d(2, 3, 2), (2, 3, 4, 5), 24),
        (nn.ConvTranspose2d(2, 3, 2), (2, 3, 4), 20),
        (nn.ConvTranspose3d(2, 3, 2), (2, 2, 2, 2), 27),
    ]:
        (matrix,) = weight_matrices(layer)
        assert matrix.shape == (3, 2 * math.prod(layer.kernel_size))
        assert patches(layer, torch.randn(5, *shape)) == {"weight": positions}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_by_hand(packed, batch_first):
    """softmax(Q Kᵀ / √d) V with the three matrices, and their patches: as many as queries, keys, values."""
    sizes = {} if packed else {"kdim": 6, "vdim": 7}
    layer = nn.MultiheadAttention(4, 2, bias=False, batch_first=batch_first, dtype=torch.float64, **sizes)
    query, key, value = (
        torch.randn(3, t, d, dtype=torch.float64)
        for t, d in ((2, 4), (5, sizes.get("kdim", 4)), (5, sizes.get("vdim", 4)))
    )

    def turned(inputs):
        return inputs if batch_first else inputs.transpose(0, 1)

    def forward(self, query, key, value):
        return turned(self.inner(turned(query), value=turned(value), key=turned(key))[0])

    model = Called(forward, inner=layer)
    found = _values(model)
    assert list(found) == ["inner.query", "inner.key", "inner.value", "inner.out_proj"]
    assert {matrix.layer for matrix in weight_matrices(model)} == {"inner"}
    q, k, v = (x @ found[f"inner.{name}"].T for name, x in (("query", query), ("key", key), ("value", value)))
    heads = [
        torch.softmax(a @ b.transpose(1, 2) / math.sqrt(2), -1) @ c
        for a, b, c in zip(q.split(2, -1), k.split(2, -1), v.split(2, -1), strict=True)
    ]
    expected = torch.cat(heads, -1) @ found["inner.out_proj"].T
    assert torch.allclose(model(query, key, value), expected, rtol=0, atol=1e-12)
    assert list(patches(model, (query, key, value)).values()) == [2, 5, 5, 2]


def test_fused_layers_of_a_transformer_are_counted_too():
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert set(patches(encoder, torch.randn(3, 5, 8)).values()) == {5}
    assert len(weight_matrices(encoder)) == 6
    padded = nn.TransformerEncoder(encoder, 2)  # makes nested tensors of a fused pass
    inputs = {"src": torch.randn(3, 5, 8), "src_key_padding_mask": torch.tensor([[False] * 4 + [True]] * 3)}
    assert set(patches(padded, inputs).values()) == {5}
    assert torch.backends.mha.get_fastpath_enabled()


def test_packed_projections_are_three_blocks_of_rows():
    """Like MONAI's SABlock. Neither another name nor another size is split."""
    model = Called(None, qkv=nn.Linear(4, 12), other=nn.Linear(4, 12), to_qkv=nn.Linear(4, 24))
    found = _by_name(model)
    assert list(found) == ["qkv.query", "qkv.key", "qkv.value", "other", "to_qkv"]
    inputs = torch.randn(2, 4)
    blocks = (model.qkv(inputs) - model.qkv.bias).chunk(3, -1)
    for block, part in zip(blocks, ("query", "key", "value"), strict=True):
        assert torch.allclose(inputs @ found[f"qkv.{part}"].value().T, block, atol=1e-6)
        assert found[f"qkv.{part}"].kind == "attention"
    assert found["other"].kind == "linear"


def test_the_gates_of_an_lstm_by_hand():
    """c' = f c + i g, h' = o tanh c', with the gates of the last layer's documentation, and a projection of h."""
    cell = nn.LSTM(3, 4, proj_size=2, bias=False, batch_first=True, dtype=torch.float64)
    found = _values(cell)
    x = torch.randn(1, 1, 3, dtype=torch.float64)
    h = torch.randn(1, 2).double()
    c = torch.randn(1, 4).double()
    gates = {
        gate: found[f"weight_ih_l0.{gate}"] @ x[0, 0] + found[f"weight_hh_l0.{gate}"] @ h[0]
        for gate in ("input", "forget", "cell", "output")
    }
    opened = {gate: torch.sigmoid(value) for gate, value in gates.items()}
    state = opened["forget"] * c[0] + opened["input"] * torch.tanh(gates["cell"])
    expected = found["weight_hr_l0"] @ (opened["output"] * torch.tanh(state))
    assert torch.allclose(cell(x, (h[None], c[None]))[0][0, 0], expected, rtol=0, atol=1e-12)


def test_the_gates_of_a_gru_by_hand():
    cell = nn.GRUCell(3, 4, bias=False, dtype=torch.float64)
    found = _values(cell)
    x = torch.randn(3).double()
    h = torch.randn(4).double()
    own, state = (
        {g: found[f"weight_{of}.{g}"] @ y for g in ("reset", "update", "new")} for of, y in (("ih", x), ("hh", h))
    )
    reset, update = (torch.sigmoid(own[gate] + state[gate]) for gate in ("reset", "update"))
    expected = (1 - update) * torch.tanh(own["new"] + reset * state["new"]) + update * h
    assert torch.allclose(cell(x, h), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch_first", [True, False])
def test_recurrent_layers_are_applied_once_for_each_step(batch_first):
    rnn = nn.RNN(3, 4, num_layers=2, bidirectional=True, batch_first=batch_first)
    model = Called(lambda self, x: self.rnn(x if batch_first else x.transpose(0, 1))[0], rnn=rnn)
    counts = patches(model, torch.randn(2, 7, 3))
    assert counts == {
        f"rnn.weight_{of}_l{i}{end}": 7 for i in (0, 1) for end in ("", "_reverse") for of in ("ih", "hh")
    }
    packed = Called(
        lambda self, x, n: self.rnn(pack_padded_sequence(x, n, True))[0], rnn=nn.GRU(3, 4, batch_first=True)
    )
    assert set(patches(packed, (torch.randn(2, 7, 3), torch.tensor([5, 3]))).values()) == {5}
    stepped = Called(lambda self, x: self.cell(x[:, 1], self.cell(x[:, 0])), cell=nn.RNNCell(3, 4))
    assert patches(stepped, torch.randn(6, 2, 3)) == {"cell.weight_ih": 2, "cell.weight_hh": 2}


def test_calls_of_a_shared_layer_add_up_whoever_holds_it():
    layer = nn.Linear(4, 4)
    twin = nn.Linear(4, 4)
    table = nn.Embedding(4, 4)
    twin.weight = table.weight = layer.weight

    def forward(self, tokens):
        return self.twin(self.layer(self.layer(self.table(tokens))))

    model = Called(forward, table=table, layer=layer, again=layer, twin=twin, idle=nn.Linear(4, 2))
    assert list(_by_name(model)) == ["layer", "idle"]
    assert patches(model, torch.zeros(3, 5, dtype=torch.long)) == {"layer": 4 * 5, "idle": 0}


def test_a_layer_without_the_batch_axis_is_counted_for_one_sample():
    """A table of positions is the same for all samples: 6 vectors, not 6 / 4."""
    model = Called(lambda self, x: x + self.layer(torch.ones(6, 2)).sum(), layer=nn.Linear(2, 3))
    assert patches(model, torch.randn(4, 1)) == {"layer": 6}


def test_inputs_may_be_a_dict_and_some_matrices_suffice():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, tokens, scale, name):
            return self.second(self.first(tokens)) * scale

    model = Named()
    inputs = {"tokens": torch.randn(2, 5, 3), "scale": torch.ones(()), "name": "x"}
    assert patches(model, inputs) == {"first": 5, "second": 5}
    assert patches(model, inputs, weight_matrices(model, "second")) == {"second": 5}


def test_parametrized_weights_are_the_effective_ones_and_stay_what_they_are():
    layer = parametrizations.weight_norm(nn.Linear(3, 4))
    (matrix,) = weight_matrices(layer)
    size, direction = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    with torch.no_grad():
        size.mul_(3)
    effective = size * direction / direction.norm(dim=1, keepdim=True)
    assert torch.allclose(matrix.value(), effective)
    layer(torch.ones(1, 3)).sum().backward()
    assert matrix.gradient() is None

    layer = parametrizations.spectral_norm(nn.Linear(3, 4)).train()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    for _ in range(3):
        weight_matrices(layer)[0].value()
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert all(module.training for module in layer.modules())


def test_singular_values_are_those_of_torch():
    """Of a layer of every class; a rank-2 weight has two."""
    model = nn.Sequential(
        nn.Linear(5, 7),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.ConvTranspose2d(4, 6, 3),
        nn.MultiheadAttention(4, 2),
        nn.LSTM(3, 4),
    ).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(7, 2).double() @ torch.randn(2, 5).double())
    by_hand = [
        model[0].weight,
        model[1].weight.reshape(6, 18),
        model[2].weight.permute(1, 0, 2, 3).reshape(6, 36),
        *model[3].in_proj_weight.reshape(3, 4, 4),
        model[3].out_proj.weight,
        *model[4].weight_ih_l0.reshape(4, 4, 3),
        *model[4].weight_hh_l0.reshape(4, 4, 4),
    ]
    for matrix, expected in zip(weight_matrices(model), by_hand, strict=True):
        values = cpu.singular_values(matrix.value().numpy())
        known = torch.linalg.svdvals(expected.detach()).numpy()
        assert np.allclose(values, known, rtol=0, atol=1e-13 * known[0])
    assert np.sum(cpu.singular_values(weight_matrices(model)[0].value().numpy()) > 1e-10) == 2


def test_only_some():
    model = nn.Sequential(nn.Linear(3, 4), nn.Conv1d(4, 5, 2), nn.Linear(5, 2))
    for only in ("[02]", ["0", "2"], ("2", "0"), lambda matrix: matrix.kind == "linear"):
        assert list(_by_name(model, only)) == ["0", "2"]


@pytest.mark.parametrize(
    ("model", "only", "sentence"),
    [
        ("a model", None, "model = 'a model' is not accepted: expected a torch.nn.Module with a linear, convolution"),
        (nn.Sequential(nn.Embedding(3, 2), nn.Bilinear(2, 2, 2)), None, r"model = Sequential\(.* is not accepted"),
        (nn.Sequential(nn.Linear(2, 2)), "conv*", r"only = 'conv\*' is not accepted: .*: 0\."),
        (nn.Sequential(nn.Linear(2, 2)), [], r"only = \[\] is not accepted"),
        (nn.Sequential(nn.Linear(2, 2)), 3, "only = 3 is not accepted: expected glob patterns"),
        (nn.Sequential(nn.Linear(2, 2)), ["0", 3], "is not accepted: expected glob patterns"),
        (nn.Sequential(nn.LazyLinear(2)), None, "model = <0.weight has no shape yet> is not accepted"),
        (nn.Linear(2, 2, device="meta"), None, "model = <weight is on the meta device> is not accepted"),
    ],
)
def test_what_is_refused(model, only, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        weight_matrices(model, only)


@pytest.mark.parametrize("inputs", ["text", [torch.ones(2, 2)], {}, torch.ones(()), torch.ones(0, 2), None])
def test_inputs_that_are_no_batch_are_refused(inputs):
    with pytest.raises(InvalidInput, match=r"inputs = .* is not accepted: expected a batch"):
        patches(nn.Linear(2, 2), inputs)


def test_matrices_of_another_model_are_refused():
    for matrices in (weight_matrices(nn.Linear(2, 2)), [], "weight", ["weight"]):
        with pytest.raises(InvalidInput, match=r"matrices = .* is not accepted: expected a list of what"):
            patches(nn.Linear(2, 2), torch.ones(1, 2), matrices)


def test_counting_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    model[1].eval()
    flags = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    patches(model, torch.randn(1, 3, generator=torch.Generator().manual_seed(0)))
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in model.modules())

    def count(self, x):
        self.calls = self.calls + 1
        return self.layer(x)

    counting = Called(count, layer=nn.Linear(3, 4))
    counting.register_buffer("calls", torch.zeros(()))
    calls = counting.calls
    patches(counting, torch.ones(1, 3))
    assert counting.calls is calls
    assert calls == 0

    failing = Called(lambda self, x: self.layer(x) + missing, layer=nn.Linear(3, 4))  # noqa: F821
    with pytest.raises(NameError):
        patches(failing, torch.ones(1, 3))
    assert failing.training
    assert not failing.layer._forward_hooks


def test_models_of_transformers():
    """c_attn of GPT-2 is split, transposed; its output layer shares the embedding. BERT's layers are linear ones."""
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 11, "bos_token_id": 0, "eos_token_id": 0}
    gpt = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=1, n_embd=6, n_head=2, n_positions=8, **sizes))
    found = _by_name(gpt)
    block = "transformer.h.0"
    names = ["attn.c_attn.query", "attn.c_attn.key", "attn.c_attn.value", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
    assert list(found) == [f"{block}.{name}" for name in names] + ["lm_head"]
    assert [matrix.shape for matrix in found.values()] == [(6, 6)] * 4 + [(24, 6), (6, 24), (11, 6)]
    layer = gpt.transformer.h[0].attn.c_attn
    inputs = torch.randn(2, 6)
    keys = (layer(inputs) - layer.bias)[:, 6:12]
    assert torch.allclose(inputs @ found[f"{block}.attn.c_attn.key"].value().T, keys, atol=1e-6)
    tokens = torch.zeros(3, 4, dtype=torch.long)
    assert list(patches(gpt, {"input_ids": tokens}).values()) == [4] * 6 + [8]

    sizes = {
        "vocab_size": 11,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 5,
    }
    bert = transformers.BertModel(transformers.BertConfig(**sizes))
    counts = patches(bert, {"input_ids": tokens, "attention_mask": torch.ones(3, 4)})
    assert counts.pop("pooler.dense") == 1
    assert set(counts) == {
        f"encoder.layer.0.{name}.dense" for name in ("attention.output", "intermediate", "output")
    } | {f"encoder.layer.0.attention.self.{name}" for name in ("query", "key", "value")}
    assert set(counts.values()) == {4}


def test_models_of_monai():
    nets = pytest.importorskip("monai.networks.nets")
    unet = nets.UNet(2, 1, 3, (4, 8), (2,))
    assert {name: m.shape for name, m in _by_name(unet).items()} == {
        "model.0.conv": (4, 9),
        "model.1.submodule.conv": (8, 36),
        "model.2.conv": (3, 12 * 9),
    }
    counts = patches(unet, torch.randn(2, 1, 8, 8))
    assert counts == {"model.0.conv": 16, "model.1.submodule.conv": 16, "model.2.conv": 64}
    dense = nets.DenseNet121(2, 1, 3, init_features=4, growth_rate=2, block_config=(1, 1))
    counts = patches(dense, torch.randn(2, 1, 32, 32))
    assert counts["features.conv0"] == 16 * 16
    assert counts["class_layers.out"] == 1
