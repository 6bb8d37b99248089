"""The one door for arrays: lists, tensors, tables and masked arrays become plain NumPy arrays, or are refused."""

import sys
from typing import Any

import numpy as np

from lrbias.errors import InvalidInput, check, shorten

LARGEST = 1e150  # squares of larger numbers overflow
DEEPEST_LIST = 4  # lists nested deeper than this hold no array of ours: (K, outputs, inputs) is the deepest


def as_array(argument: str, value: Any) -> np.ndarray:
    """`value` as a plain array of whatever dtype; InvalidInput for ragged lists and for entries that are masked."""
    array = as_maybe_masked(argument, value)
    if not isinstance(array, np.ma.MaskedArray):
        return array
    hidden = int(np.ma.count_masked(array))
    accepted = "an array without masked entries; only the target of a Completion may have them, as not observed"
    check(hidden == 0, argument, f"<{hidden} of {array.size} entries are masked>", accepted)
    return np.asarray(array.data)


def as_maybe_masked(argument: str, value: Any) -> np.ndarray:
    """As `as_array`, but a masked array stays one."""
    try:
        array = _to_numpy(argument, value)
    except InvalidInput:
        raise
    except ValueError as error:
        reason = "rows of equal length" if "inhomogeneous" in str(error) else f"an array ({shorten(str(error), 120)})"
        raise InvalidInput(f"{argument} = {_shown(value)} is not accepted: expected {reason}.") from error
    except Exception as error:  # whatever the conversion of another library's object raises
        reason = shorten(str(error) or type(error).__name__, 120)
        raise InvalidInput(f"{argument} = {_shown(value)} is not accepted: expected an array ({reason}).") from error
    if array.dtype.name == "bfloat16":  # of JAX; NumPy itself has no such dtype
        array = array.astype(np.float32)
    return array


def as_numbers(argument: str, value: Any) -> np.ndarray:
    """`value` as an array of its own dtype; InvalidInput unless its entries are real numbers."""
    array = as_array(argument, value)
    check(array.dtype.kind in "fiu", argument, f"<an array of dtype {array.dtype}>", "real numbers")
    return array


def as_real(argument: str, value: Any, source: str | None = None) -> np.ndarray:
    """`value` as a float64 array in C order, a copy; InvalidInput unless its entries are real numbers."""
    return _as_float64(argument, as_array(argument, value), source)


def as_partly_known(argument: str, value: Any) -> np.ndarray:
    """As `as_real`; entries that are masked become NaN."""
    array = as_maybe_masked(argument, value)
    if not isinstance(array, np.ma.MaskedArray):
        return _as_float64(argument, array)
    real = _as_float64(argument, array.data)
    real[np.ma.getmaskarray(array)] = np.nan
    return real


def as_matrix(argument: str, value: Any, source: str | None = None) -> np.ndarray:
    """`value` as a float64 matrix in C order; InvalidInput unless it is 2-D, real, finite and not empty."""
    matrix = as_real(argument, value, source)
    shown = source or f"<an array of shape {matrix.shape}>"
    check(matrix.ndim == 2, argument, shown, f"a matrix (2 dimensions, not {matrix.ndim})")
    check(matrix.size > 0, argument, shown, "a matrix with at least one entry")
    bad = int((~np.isfinite(matrix)).sum())
    check(bad == 0, argument, shown, f"finite entries only ({bad} are NaN or infinite)")
    check(np.abs(matrix).max() < LARGEST, argument, shown, "entries below 1e150, so that squares do not overflow")
    return matrix


def as_vector(argument: str, value: Any) -> np.ndarray:
    """`value` as a float64 vector; InvalidInput unless it is 1-D, real, finite and not empty."""
    vector = as_real(argument, value)
    check(vector.ndim == 1 and vector.size > 0, argument, value, "a list of at least one number")
    check(np.isfinite(vector).all(), argument, value, "finite numbers")
    check(np.abs(vector).max() < LARGEST, argument, value, "numbers below 1e150, so that squares do not overflow")
    return vector


def _as_float64(argument: str, array: np.ndarray, source: str | None = None) -> np.ndarray:
    shown = source or f"<an array of dtype {array.dtype}>"
    check(array.dtype.kind in "fiu", argument, shown, "real numbers")
    with np.errstate(over="ignore"):  # a longdouble becomes infinite, which is refused where it matters
        return np.array(array, dtype=np.float64, order="C")


def _to_numpy(argument: str, value: Any) -> np.ndarray:
    value = _without_tensors(argument, value, 0)
    if np.ma.isMaskedArray(value):
        return value
    if isinstance(value, (list, tuple)) and _holds_masked(value, 0):
        return np.ma.array(value)
    return np.asarray(value)


def _without_tensors(argument: str, value: Any, depth: int) -> Any:
    """`value` with PyTorch tensors and sparse matrices in it, also in lists, as NumPy arrays."""
    if isinstance(value, (list, tuple)):
        if depth == DEEPEST_LIST or all(isinstance(entry, (int, float)) for entry in value):
            return value
        return [_without_tensors(argument, entry, depth + 1) for entry in value]
    torch = sys.modules.get("torch")  # who has a tensor has imported it
    if torch is not None and isinstance(value, torch.Tensor):
        return _of_tensor(torch, argument, value)
    if hasattr(value, "toarray") and hasattr(value, "nnz"):  # of scipy.sparse, which NumPy takes for an object
        return value.toarray()
    return value


def _of_tensor(torch: Any, argument: str, tensor: Any) -> np.ndarray:
    """The numbers of a tensor wherever they are, whether or not it records gradients; bfloat16 as float32."""
    check(tensor.device.type != "meta", argument, "<a tensor on the meta device>", "a tensor that holds numbers")
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    tensor = tensor.cpu().resolve_conj().resolve_neg()
    known = (torch.float16, torch.float32, torch.float64)
    if tensor.is_floating_point() and tensor.dtype not in known:  # bfloat16 and shorter, which NumPy has not
        tensor = tensor.float()
    return tensor.numpy()


def _holds_masked(value: Any, depth: int) -> bool:
    if np.ma.isMaskedArray(value):  # also the constant np.ma.masked
        return True
    if not isinstance(value, (list, tuple)) or depth > DEEPEST_LIST:
        return False
    return any(_holds_masked(entry, depth + 1) for entry in value)


def _shown(value: Any) -> str:
    """What stands for a value in a sentence: small things as they are, others by their kind."""
    plain = isinstance(value, (list, tuple, str, int, float, dict, type(None)))
    return shorten(value) if plain else f"<a {type(value).__module__}.{type(value).__qualname__}>"
