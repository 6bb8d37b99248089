"""Is the tensor in a layer its weight? What a hook makes before each pass is made again; what is no weight is named."""

from torch import Tensor, nn, strided
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

NUMBERS = "weights that are matrices of real floating-point numbers, or layers=… without this one"


def made_weight(holder: nn.Module, attribute: str) -> Tensor | None:
    """The tensor that the holder's hook would make before a pass now; None where no known hook makes it."""
    found = None
    for hook in _pre_hooks(holder, attribute):
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == attribute:
            found = hook.apply_mask(holder)
        elif isinstance(hook, WeightNorm) and hook.name == attribute:
            found = hook.compute_weight(holder)
        elif isinstance(hook, SpectralNorm) and hook.name == attribute:
            found = hook.compute_weight(holder, do_power_iteration=False)
    return found


def _pre_hooks(holder, attribute):
    """Those that may make this tensor before a pass: no hook makes a parameter, a buffer or a parametrized weight."""
    held = attribute in holder._parameters or attribute in holder._buffers
    if held or parametrize.is_parametrized(holder, attribute):
        return ()
    return tuple(holder._forward_pre_hooks.values())


def fault_of(weight: Tensor, holder: nn.Module, attribute: str, name: str, shape: tuple | None) -> tuple | None:
    """(what is there, what is accepted) where a tensor is not the weight as numbers; None where it is.

    name: "<layer.weight", which what is there begins with. shape: of the weight, where the layer says it.
    """
    if not isinstance(weight, Tensor):
        return f"{name} is a {type(weight).__name__}>", NUMBERS
    if is_lazy(weight):
        return f"{name} has no shape yet>", "a model that was called once, for its lazy layers"
    if weight.is_meta:
        return f"{name} is on the meta device>", "weights with values"
    if type(weight).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return f"{name} is a {type(weight).__name__}, which represents another tensor>", NUMBERS
    if weight.is_quantized or weight.layout is not strided or not weight.is_floating_point():
        return f"{name} is {_kind(weight)}>", NUMBERS
    if shape is not None and tuple(weight.shape) != tuple(shape):
        return f"{name} has shape {tuple(weight.shape)} in a layer for {tuple(shape)}>", NUMBERS
    if _pre_hooks(holder, attribute) and made_weight(holder, attribute) is None:
        return f"{name} is made by a hook before each pass>", "parameters, pruned ones, weight_norm or spectral_norm"
    return None


def _kind(weight):
    """What the entries are."""
    kind = "quantized" if weight.is_quantized else "" if weight.layout is strided else "sparse"
    return " ".join(filter(None, (kind, str(weight.dtype).removeprefix("torch."))))
