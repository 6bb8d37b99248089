"""Passes through a model that leave it as it was, for a batch or for one sample of it."""

import contextlib
from collections.abc import Mapping

import torch

from lrbias.errors import check


def call(model, inputs):
    """The outputs of a model for a tensor, a tuple of tensors, or a dict, called as model(**inputs)."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def batch_size(inputs):
    """How many samples a batch has: the length of the first axis of its first tensor. InvalidInput for no batch."""
    first = next(tensors(inputs), None) if isinstance(inputs, (torch.Tensor, tuple, Mapping)) else None
    shown = f"<{type(inputs).__name__}>" if first is None else f"<shape {tuple(first.shape)}>"
    accepted = "a batch of at least one sample: a tensor, a tuple of tensors, or a dict of them"
    size = 0 if first is None or first.ndim == 0 else len(first)
    check(size > 0, "inputs", shown, accepted)
    return size


def tensors(batch):
    """Those of a batch, in order."""
    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, (tuple, list, Mapping)):
        for value in batch.values() if isinstance(batch, Mapping) else batch:
            yield from tensors(value)


def sample(batch, index, size):
    """Sample `index` of a batch of `size`, as a batch. Tensors with another first axis stay what they are."""
    if isinstance(batch, torch.Tensor):
        return batch[index : index + 1] if batch.ndim and len(batch) == size else batch
    if isinstance(batch, Mapping):
        return {key: sample(value, index, size) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        parts = [sample(value, index, size) for value in batch]
        return tuple(parts) if isinstance(batch, tuple) else parts
    return batch


@contextlib.contextmanager
def unchanged(model):
    """Afterwards the training flags and buffers of a model, and torch's random numbers, are what they were.

    Buffers are the running statistics of normalisations, and the iterates of spectral norms.
    """
    buffers = [(part._buffers, *named) for part in model.modules() for named in part._buffers.items()]
    copies = [None if buffer is None else buffer.clone() for *_, buffer in buffers]
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    with flags_kept(model), torch.random.fork_rng(sorted(device.index for device in devices)):
        try:
            yield
        finally:
            for (place, name, buffer), values in zip(buffers, copies, strict=True):
                place[name] = buffer
                if buffer is not None and not torch.equal(buffer, values):  # expanded ones cannot be written to
                    buffer.copy_(values)


@contextlib.contextmanager
def flags_kept(model):
    """Afterwards every part of the model is in the mode in which it was."""
    flags = [(part, part.training) for part in model.modules()]
    try:
        yield
    finally:
        for part, training in flags:
            part.training = training


@contextlib.contextmanager
def evaluating(model):
    """In evaluation mode, all parts of it."""
    with flags_kept(model):
        model.eval()
        yield


@contextlib.contextmanager
def every_module_called():
    """In evaluation mode torch fuses the modules of a transformer's layer, and would not call them one by one."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextlib.contextmanager
def without_cudnn():
    """On a GPU it rounds convolutions to TF32, and has no gradients of recurrent layers in evaluation mode."""
    enabled = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = enabled
