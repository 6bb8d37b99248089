"""Which device makes the steps of a run: the one file that knows that there are GPUs.

`lrcore.cuda` has the names, the parameters and the bits of `lrcore.cpu`. So a run is the same run on either, one that
was begun here may be finished there, and what follows only asks a Device for its kernels and its scratch.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

from lrbias.errors import InvalidInput, check
from lrbias.settings import validate

DeviceName = Literal["cpu", "cuda", "auto"]
WIDE = 256  # widest layer from which on a single pass over a network costs more than launching it and copying weights


class Device:
    """The CPU, and what another device has in its place.

    name       "cpu" or "cuda"
    is_accelerator  whether it trains beside the cores of this machine: a call leaves them free, and thousands of small
               networks cost it hardly more than one
    kernels    what has the names of `lrcore.cpu`
    workspace  what has the names of `lrcore.cpu.workspace`
    describe   what a run says of it beside the machine's own versions, {name: value}
    """

    name = "cpu"
    is_accelerator = False

    @property
    def describe(self) -> dict[str, str]:
        return {}

    @property
    def kernels(self) -> Any:
        from lrcore import cpu

        return cpu

    @property
    def workspace(self) -> Any:
        from lrcore.cpu import workspace

        return workspace

    def device_put(self, value: Any) -> Any:
        """What kernels take in place of an array, an Objective or Entries that stay as they are."""
        return value

    def fitting(self) -> AbstractContextManager[None]:
        """A context in which it is InvalidInput to ask for more memory than there is."""
        return contextlib.nullcontext()

    def for_one_pass(self, widths: Sequence[int]) -> "Device":
        """The Device on which a network of `widths` is looked at once, as for a record."""
        return self


class Cuda(Device):
    """An NVIDIA GPU. Its modules are imported when they are asked for: they need the extra `cuda`."""

    name = "cuda"
    is_accelerator = True

    @property
    def kernels(self) -> Any:
        from lrcore import cuda

        return cuda

    @property
    def workspace(self) -> Any:
        return self.kernels.workspace

    @property
    def describe(self) -> dict[str, str]:
        from importlib.metadata import version

        gpu = self.kernels.device_properties()
        capability = ".".join(map(str, gpu.capability))
        return {"gpu": f"{gpu.name}, compute capability {capability}", "numba-cuda": version("numba-cuda")}

    def device_put(self, value: Any) -> Any:
        return self.kernels.device_put(value)

    @contextlib.contextmanager
    def fitting(self) -> Iterator[None]:
        try:
            yield
        except self.kernels.DeviceMemoryError as error:
            raise _refused(self.name, str(error)) from None

    def for_one_pass(self, widths: Sequence[int]) -> Device:
        return self if max(widths) >= WIDE else CPU


CPU = Device()
CUDA = Cuda()


def resolve(device: str, threads: int = 1) -> Device:
    """The Device of a setting: "cpu", "cuda", or "auto", which is a GPU where there is one that can be used.

    Raises InvalidInput where "cuda" cannot run here, and for several threads beside it.
    """
    check_threads(device, threads)
    if device == CPU.name:
        return CPU
    reason = _missing()
    if reason is None:
        return CUDA
    if device == CUDA.name:
        raise _refused(device, reason)
    return CPU


def check_threads(device: str, threads: int) -> None:
    """InvalidInput unless `device` is a known name, and `threads` are something that it uses."""
    name = validate(DeviceName, "device", device)
    accepted = "1 on device = 'cuda', which shares a step among threads of its own"
    check(name != CUDA.name or threads == 1, "threads", threads, accepted)


def elsewhere(device: str) -> Device:
    """The Device of a setting for runs that are made by other machines, which have or have not got it."""
    return CUDA if validate(DeviceName, "device", device) == CUDA.name else resolve(device)


def _missing() -> str | None:
    """Why nothing can run on a GPU here, None where it can."""
    try:
        from lrcore import cuda
    except ImportError as error:
        return str(error)
    return cuda.missing()


def _refused(device: str, reason: str) -> InvalidInput:
    return InvalidInput(f"device = {device!r} is not accepted: {reason} ('cpu' makes the same bits).")
