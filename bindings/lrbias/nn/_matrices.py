"""Which parameters of a network are matrices, how each is read, and how often it is applied in one sample.

Embeddings are left out: tables of which single rows are looked up, not matrices that are applied to vectors. So is
nn.Bilinear, whose weight is a tensor with two inputs.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import PackedSequence

from lrbias.errors import check
from lrbias.nn import _hooks as hooks
from lrbias.nn._passes import batch_size, call, evaluating, every_module_called, sample, unchanged

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
PROJECTIONS = ("query", "key", "value")
PACKED = ("qkv", "in_proj", "c_attn", "query_key_value", "Wqkv", "to_qkv")  # names of layers that hold all three
LSTM = ("input", "forget", "cell", "output")
GRU = ("reset", "update", "new")
TABLE = "embedding"
ACCEPTED = "a torch.nn.Module with a linear, convolution, attention or recurrent layer"


@dataclass(frozen=True)
class WeightMatrix:
    """One matrix of a model, read from it each time, so it follows the training.

    name       of the layer in the model ("layer1.0.conv1"), "weight" where that is the whole model. Parts of a packed
               weight follow: ".query", ".key", ".value" and ".out_proj", for gates ".weight_ih_l0.input" and so on
    kind       "linear", "convolution", "recurrent" or "attention" (nn.MultiheadAttention, and layers that hold
               queries, keys and values together)
    shape      (rows, columns)
    layer      name in the model of `module`, which applies it
    holder, attribute   where the tensor stands that has its numbers
    layout, rows        what makes a matrix of that tensor, and which of its rows are this one
    vectors    the argument of the module's forward with the vectors to which it is applied
    fault      (what is there, what is accepted) where the tensor is not the weight as numbers: see `lrbias.nn`
    """

    name: str
    kind: str
    shape: tuple
    layer: str
    module: nn.Module = field(repr=False)
    holder: nn.Module = field(repr=False)
    attribute: str = field(repr=False)
    layout: Callable[..., Any] = field(repr=False, compare=False)
    rows: slice = field(repr=False, compare=False)
    vectors: str = field(repr=False)
    fault: tuple | None = field(default=None, repr=False, compare=False)

    def value(self) -> torch.Tensor:
        """(rows, columns): the weight that the layer would apply now, detached; a view of it where that is possible.

        Of a parametrized weight (weight_norm, spectral_norm) it is the effective one, and so it is of one that a hook
        makes before each pass (pruning, the older weight_norm and spectral_norm): made here from the parameters as
        they are, since what stands in the layer is that of the pass before. Looking at it changes nothing.
        """
        made = hooks.made_weight(self.holder, self.attribute)
        return self.read((self.weight() if made is None else made).detach())

    def gradient(self) -> torch.Tensor | None:
        """(rows, columns): `.grad` in the same layout, or None. A parametrized weight has none of its own."""
        parameter = self.holder._parameters.get(self.attribute)
        return None if parameter is None or parameter.grad is None else self.read(parameter.grad)

    def weight(self) -> torch.Tensor:
        """The whole tensor, as the layer has it: that of the last pass where a hook makes it before each."""
        if not parametrize.is_parametrized(self.holder, self.attribute):
            return getattr(self.holder, self.attribute)
        with evaluating(self.holder.parametrizations[self.attribute]):
            return getattr(self.holder, self.attribute)

    def read(self, tensor: torch.Tensor) -> torch.Tensor:
        """(rows, columns) of a tensor with the shape of the whole one."""
        return self.layout(tensor)[self.rows]

    @property
    def identity(self) -> tuple[Any, int, int]:
        """The same for matrices that share their numbers, whichever layers have them."""
        parameter = self.holder._parameters.get(self.attribute)
        tensor = (id(self.holder), self.attribute) if parameter is None else id(parameter)
        return tensor, self.rows.start, self.rows.stop


def weight_matrices(model: Any, only: Any = None) -> list[WeightMatrix]:
    """The WeightMatrix of everything in `model` that is applied to vectors, in the order of model.named_modules().

    only  a glob pattern of names ("layer?.*"), a list of them, or a function of a WeightMatrix; None: all

    linear        (out, in)
    convolution   (c_out, c_in/groups · k), k the size of the kernel. Of a transposed one, whose weight is
                  (c_in, c_out/groups, kernel): (c_out/groups, c_in · k). Both are applied once per output position
    attention     query, key, value and out_proj of nn.MultiheadAttention. A linear layer named `qkv` or alike with
                  three times as many outputs as inputs is taken for query, key and value in this order, each one
                  block of rows (MONAI, timm, GPT-2). GPT-NeoX and BLOOM interleave them head by head under the name
                  `query_key_value`: there the three parts are mixtures of them
    recurrent     each gate of LSTM and GRU alone, layers and cells; the single one of an RNN

    Shared parameters are listed once, where they come first. transformers' Conv1D, whose weight is (in, out), is a
    linear layer. What a module multiplies by parameters of its own making is not seen.

    Raises InvalidInput: nothing to list, or a chosen weight that is not there as real numbers: lazy layers without a
    shape, the meta device, packed or integer codes, complex numbers, tensors that represent others.
    """
    return _readable(_select(_listed(model), only))


def patches(model: torch.nn.Module, inputs: Any, matrices: Any = None) -> dict[str, int]:
    """{name: m}: how often each of `matrices` (all of the model) is applied to a vector in one sample.

    inputs    a batch: a tensor, a tuple of tensors, or a dict, called as model(**inputs). The first axis of its first
              tensor counts the samples, and every tensor of that length is cut there: a model that wants sequences
              first has to transpose them itself

    The positions of a convolution's output (times its groups, each of which has rows of its own), the tokens of a
    sequence, 1 for a plain linear layer. Calls add up, and so do lookups in an embedding that shares the weight. 0:
    the layer is not called. Counted in a forward pass of the first sample, in evaluation mode and without gradients,
    that leaves the model as it was. Raises InvalidInput.
    """
    matrices = chosen(model, matrices)
    names = {matrix.identity: matrix.name for matrix in matrices}
    counts = dict.fromkeys(names.values(), 0)
    first = sample(inputs, 0, batch_size(inputs))
    with unchanged(model), torch.no_grad(), every_module_called(), contextlib.ExitStack() as stack:
        model.eval()
        for place in _places(model):
            if place.identity in names:
                count = functools.partial(_count, counts, names[place.identity], place.vectors)
                stack.callback(place.module.register_forward_hook(count, with_kwargs=True).remove)
        call(model, first)
    return counts


def chosen(model: Any, matrices: Any) -> list[WeightMatrix]:
    """`matrices`, all of the model where it is None. InvalidInput for those of another model."""
    listed = _listed(model)
    if matrices is None:
        return _readable(listed)
    known = {matrix.identity for matrix in listed}
    fits = isinstance(matrices, (list, tuple)) and len(matrices) > 0
    fits = fits and all(isinstance(matrix, WeightMatrix) and matrix.identity in known for matrix in matrices)
    check(fits, "matrices", matrices, "a list of what weight_matrices gives for this model")
    return list(matrices)


def _readable(matrices):
    """The matrices; InvalidInput where one has a fault."""
    for matrix in matrices:
        check(matrix.fault is None, "model", *(matrix.fault or ("", "")))
    return matrices


def _count(counts, name, argument, module, args, kwargs, output):
    """A forward hook that adds the vectors of one call."""
    if isinstance(module, (nn.MultiheadAttention, *RECURRENT)):  # the output does not tell keys from queries
        names = PROJECTIONS if isinstance(module, nn.MultiheadAttention) else ("input",)
        vectors = (dict(zip(names, args, strict=False)) | kwargs)[argument]
        vectors = vectors.data if isinstance(vectors, PackedSequence) else vectors
        counts[name] += vectors.numel() // vectors.shape[-1]
    else:
        counts[name] += output.numel() // _width(module)


def _width(module):
    """How many numbers of the output one vector gives."""
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.Embedding):
        return module.embedding_dim
    return module.nf if _is_conv1d(module) else module.out_channels // module.groups


def _select(matrices, only):
    if only is None:
        return matrices
    if callable(only):
        found = [matrix for matrix in matrices if only(matrix)]
    else:
        patterns = [only] if isinstance(only, str) else only
        globs = isinstance(patterns, (list, tuple)) and all(isinstance(pattern, str) for pattern in patterns)
        check(globs, "only", only, "glob patterns of names, or a function of a WeightMatrix")
        found = [m for m in matrices if any(fnmatch.fnmatchcase(m.name, pattern) for pattern in patterns)]
    names = ", ".join(matrix.name for matrix in matrices[:3]) + (", …" if len(matrices) > 3 else "")
    check(found, "only", only, f"what fits some of the model's matrices: {names}")
    return found


def _listed(model):
    check(isinstance(model, nn.Module), "model", model, ACCEPTED)
    found: dict[Any, WeightMatrix] = {}
    for matrix in _places(model):
        if matrix.kind != TABLE:
            found.setdefault(matrix.identity, matrix)
    check(found, "model", model, ACCEPTED)
    return list(found.values())


def _places(model):
    """A WeightMatrix for every place where one is held, and for tables, which may share the numbers of one."""
    for layer, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            yield from _of_attention(layer, module)
        elif isinstance(module, RECURRENT):
            yield from _of_recurrent(layer, module)
        else:
            yield from _of_layer(layer, module)


def _of_layer(layer, module):
    if isinstance(module, nn.Embedding):
        yield from _parts(layer, module, TABLE, "weight")
    elif isinstance(module, CONVOLUTIONS):
        shape = (module.out_channels, module.in_channels // module.groups, *module.kernel_size)
        yield from _parts(layer, module, "convolution", "weight", layout=_flat, shape=shape)
    elif isinstance(module, TRANSPOSED):
        shape = (module.in_channels, module.out_channels // module.groups, *module.kernel_size)
        yield from _parts(layer, module, "convolution", "weight", layout=_flat_by_output, shape=shape)
    elif isinstance(module, nn.Linear):
        shape = module.out_features, module.in_features
        yield from _of_linear(layer, module, module.in_features, module.out_features, _as_it_is, shape)
    elif _is_conv1d(module):
        yield from _of_linear(layer, module, len(module.weight), module.nf, _transposed, None)


def _of_linear(layer, module, inputs, outputs, layout, shape):
    if layer.rpartition(".")[2] in PACKED and outputs == 3 * inputs:
        parts = dict.fromkeys(PROJECTIONS, "input")
        yield from _parts(layer, module, "attention", "weight", parts, layout, shape=shape)
    else:
        yield from _parts(layer, module, "linear", "weight", layout=layout, shape=shape)


def _of_attention(layer, module):
    if module.in_proj_weight is not None:
        yield from _parts(layer, module, "attention", "in_proj_weight", {part: part for part in PROJECTIONS})
    else:
        for part in PROJECTIONS:
            yield from _parts(layer, module, "attention", f"{part[0]}_proj_weight", {part: part})
    # A layer of its own, but one that is never called: its parent takes the weight.
    yield from _parts(layer, module, "attention", "weight", {"out_proj": "query"}, holder=module.out_proj)


def _of_recurrent(layer, module):
    gates: tuple[str, ...] = ("",)
    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        gates = LSTM
    elif isinstance(module, (nn.GRU, nn.GRUCell)):
        gates = GRU
    names = getattr(module, "_flat_weights_names", ("weight_ih", "weight_hh"))
    for name in names:
        if name.startswith("weight_hr"):  # the projection of an LSTM's state
            yield from _parts(layer, module, "recurrent", name, {name: "input"})
        elif name.startswith("weight"):
            yield from _parts(layer, module, "recurrent", name, {_joined(name, gate): "input" for gate in gates})


def _parts(layer, module, kind, attribute, parts=None, layout=None, holder=None, shape=None):
    """The equal blocks of rows of one weight. parts: {end of the name: argument with the vectors}; shape: that of the
    weight, where the module says it."""
    holder = holder or module
    layout = layout or _as_it_is
    parts = parts or {"": "input"}
    whole = WeightMatrix("", kind, (), layer, module, holder, attribute, layout, slice(None), "input")
    weight = whole.weight()
    fault = hooks.fault_of(weight, holder, attribute, f"<{_joined(layer, attribute)}", shape)
    rows, columns = (0, 0) if fault else layout(weight).shape
    size = rows // len(parts)
    for i, (end, vectors) in enumerate(parts.items()):
        block = slice(i * size, (i + 1) * size)
        name = _joined(layer, end) or attribute
        own = module, holder, attribute, layout, block, vectors, fault
        yield WeightMatrix(name, kind, (size, columns), layer, *own)


def _is_conv1d(module):
    """Known by its name, as in transformers, which need not be there."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def _joined(*names):
    return ".".join(name for name in names if name)


def _as_it_is(weight):
    return weight


def _flat(weight):
    return weight.flatten(1)


def _flat_by_output(weight):
    return weight.transpose(0, 1).flatten(1)


def _transposed(weight):
    return weight.T
