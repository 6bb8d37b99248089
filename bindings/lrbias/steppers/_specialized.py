"""Kernels made for the widths of a run, which take the place of the general ones when that has been earned.

Compiling one takes seconds, loading one that is kept some hundredths of a second, and neither changes a bit. So the
general kernel is used until it has taken as long itself: what is lost is never more than what could have been saved.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lrbias.devices import Device
from lrbias.system import compile_seconds

COMPILE_SECONDS = 3.0  # it takes one to four
LOAD_SECONDS = 0.05


def chain_kernel(
    name: str, device: Device, widths: Sequence[int], dtype: np.dtype[Any], threads: int
) -> Callable[..., int]:
    """The kernel of a device by its name, `gd_steps` or `rk_steps`, for networks of these widths."""
    if device.is_accelerator or threads > 1:
        return getattr(device.kernels, name)
    from lrcore.cpu import specialized

    return _kernel(name, widths, dtype) if specialized.fits(widths, dtype) else getattr(device.kernels, name)


def batch_kernel(name: str, device: Device, widths: Sequence[int], dtype: np.dtype[Any]) -> Callable[..., None]:
    """Likewise `batch_gd_steps` or `batch_rk_steps`."""
    if device.is_accelerator:
        return getattr(device.kernels, name)
    from lrcore.cpu import specialized

    return _kernel(name, widths, dtype) if specialized.fits_batch(widths) else getattr(device.kernels, name)


def _kernel(name: str, widths: Sequence[int], dtype: np.dtype[Any]) -> "_EarnedKernel":
    return _earned(name, tuple(int(n) for n in widths), np.dtype(dtype))


@functools.cache
def _earned(name: str, widths: tuple[int, ...], dtype: np.dtype[Any]) -> "_EarnedKernel":
    """One for all runs of this process."""
    from lrcore import cpu
    from lrcore.cpu import specialized

    return _EarnedKernel(getattr(cpu, name), getattr(specialized, name)(widths, dtype))


class _EarnedKernel:
    """The general kernel until one made for some widths is earned, then that."""

    def __init__(self, general: Callable[..., Any], made: Callable[..., Any]) -> None:
        from lrcore.cpu import specialized

        self._general = general
        self._made = made
        self._left = LOAD_SECONDS if specialized.is_kept(made) else COMPILE_SECONDS

    def __call__(self, *arguments: Any) -> Any:
        if self._left <= 0:
            return self._made(*arguments)
        compiled = compile_seconds()
        started = time.perf_counter()
        status = self._general(*arguments)
        self._left -= time.perf_counter() - started - (compile_seconds() - compiled)
        return status
