"""The only place that imports CUDA, decorates for it and launches. What is settled here:

bits        no `fastmath`. A product and a sum that are rounded one after the other are written `mul_rn(a, b) + c`,
            since the compiler would fuse `a * b + c`; what is to be fused is written `fma(a, b, c)`.
types       parameters of kernels are annotated: Numbers, Integers, Number, Integer, a NamedTuple whose fields are, or
            `plain(a NamedTuple)`. So they compile without a GPU, for float64 and float32 (`make cuda-check`).
simulator   with NUMBA_ENABLE_CUDASIM=1 the same functions run as Python (_simulator.py), a coroutine for each thread
            of the GPU: blocks are small there, and `fma` is that of the C library, so that bits are those of a GPU.

Compilation is lazy: importing a kernel costs nothing.
"""

import functools
import warnings
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

try:
    import numba_cuda  # noqa: F401  else Numba's own, older target would be found in its place
except ImportError:
    raise ImportError("numba-cuda is not installed: pip install 'lrbias[cuda]'") from None
from numba import cuda
from numba.cuda import types
from numba.cuda.core import config

SIMULATED = bool(config.ENABLE_CUDASIM)
OLDEST = (7, 5)  # compute capability: what `make cuda-check` compiles for

KERNELS = []  # every kernel, for `make cuda-check`


def on_gpu(here, simulated):
    """A constant that is smaller in the simulator, where all threads share one core."""
    return simulated if SIMULATED else here


class Numbers:
    """A flat array of float64 or float32."""


class Integers:
    """A flat array of int64."""


class Number:
    """A number of the type that the arrays of a kernel have."""


class Integer:
    """An int64."""


KINDS = (Numbers, Integers, Number, Integer)


def plain(named):
    """The kind of a tuple with the fields of a NamedTuple class. Numba tells its type in a quarter of the time, which
    counts in kernels that are launched for each pass; they give it its names by `named(*argument)`."""
    return tuple(named.__annotations__.values())


def fields(kind):
    """The kinds of a tuple's elements."""
    return kind if isinstance(kind, tuple) else plain(kind)


def leaves(kind):
    """Which of KINDS a kernel's argument consists of."""
    return [kind] if kind in KINDS else [leaf for field in fields(kind) for leaf in leaves(field)]


class Kernel:
    """A kernel, launched by `kernel(blocks, threads, …)`. kinds: of its parameters, as they are annotated."""

    def __init__(self, function, name, products=False, registers=None):
        self.function = function
        self.name = name
        self.kinds = list(function.__annotations__.values())
        self.products = products
        self.registers = registers
        self._compiled = cuda.jit(**({} if SIMULATED else {"max_registers": registers}))(function)
        KERNELS.append(self)

    def __call__(self, blocks, threads, *arguments):
        if SIMULATED:
            with simulation():
                self._compiled[blocks, threads](*arguments)
        else:
            _configured(self._compiled, blocks, threads)(*arguments)


@functools.lru_cache(maxsize=4096)
def _configured(compiled, blocks, threads):
    """Kept, since making it takes as long as a launch. Few threads are meant where a network is small."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compiled[blocks, threads]


def kernel(name=None, products=False, registers=None):
    """Compile a function as a kernel.

    products: it makes products, so no register of it may be spilled; registers: of a thread at most, so that more of
    them fit on a multiprocessor.
    """
    return lambda function: Kernel(function, name or function.__name__.strip("_"), products, registers)


if SIMULATED:
    try:
        import greenlet  # noqa: F401
    except ImportError:
        raise ImportError("NUMBA_ENABLE_CUDASIM=1 needs greenlet: pip install greenlet") from None
    from lrcore.cuda._simulator import device, fma, load, mul_rn, simulation, store

else:
    from llvmlite import ir
    from numba.cuda.extending import intrinsic

    def device(function):
        """A function for kernels."""
        return cuda.jit(device=True)(function)

    @device
    def fma(a, b, c):
        return cuda.fma(a, b, c)

    @intrinsic
    def mul_rn(typingctx, a, b):
        """a · b, rounded, whatever follows."""

        def codegen(context, builder, signature, arguments):
            number = arguments[0].type
            name = f"llvm.nvvm.mul.rn.{'d' if isinstance(number, ir.DoubleType) else 'f'}"
            function = builder.module.globals.get(name)
            if function is None:
                function = ir.Function(builder.module, ir.FunctionType(number, [number] * 2), name)
            return builder.call(function, arguments)

        return a(a, a), codegen

    def _pointer(context, builder, kind, array, index):
        """Where an element of a flat array lies: a[i] would ask first whether i is negative."""
        return builder.gep(context.make_array(kind)(context, builder, array).data, [index], inbounds=True)

    @intrinsic
    def load(typingctx, array, index):
        """array[index], index ≥ 0."""

        def codegen(context, builder, signature, arguments):
            kind = signature.args[0]
            return context.unpack_value(builder, kind.dtype, _pointer(context, builder, kind, *arguments))

        return array.dtype(array, index), codegen

    @intrinsic
    def store(typingctx, value, array, index):
        """array[index] = value, index ≥ 0."""

        def codegen(context, builder, signature, arguments):
            kind = signature.args[1]
            value, array, index = arguments
            context.pack_value(builder, kind.dtype, value, _pointer(context, builder, kind, array, index))
            return context.get_dummy_value()

        return types.none(array.dtype, array, index), codegen


def to_device(array):
    """A flat copy on the device. An empty one has room for a number."""
    array = np.ascontiguousarray(array).reshape(-1)
    return cuda.to_device(array if array.size else np.zeros(1, array.dtype))


def empty(size, dtype):
    """A flat array on the device."""
    return cuda.device_array(max(int(size), 1), dtype)


def copy_to_host(array, out):
    """Copy a flat array of the device into `out`, an array of as many numbers here."""
    if out.size == 0:
        return
    if out.flags.c_contiguous:
        array.copy_to_host(out.reshape(-1))
    else:
        out[...] = array.copy_to_host().reshape(out.shape)


class DeviceProperties(NamedTuple):
    """A GPU: its name, compute capability and number of multiprocessors."""

    name: str
    capability: tuple
    multiprocessors: int


def device_properties():
    """The DeviceProperties of the GPU in use."""
    if SIMULATED:
        return DeviceProperties("simulated", OLDEST, 1)
    gpu = cuda.get_current_device()
    name = gpu.name.decode() if isinstance(gpu.name, bytes) else str(gpu.name)
    return DeviceProperties(name, tuple(gpu.compute_capability), gpu.MULTIPROCESSOR_COUNT)


def free_memory():
    """Bytes that can be allocated now; inf in the simulator."""
    return cuda.current_context().get_memory_info().free


def missing():
    """What keeps kernels from running here, as the end of a sentence; None where they can."""
    if SIMULATED:
        return None
    from numba.cuda.cudadrv.error import CudaSupportError

    try:
        if not cuda.gpus:
            return "there is no NVIDIA GPU here"
        gpu = device_properties()
    except CudaSupportError as error:
        return _reason(str(error))
    except Exception as error:  # the driver's own errors have no common class with the above
        return _reason(f"{type(error).__name__}: {error}")
    if gpu.capability < OLDEST:
        has, needs = (".".join(map(str, numbers)) for numbers in (gpu.capability, OLDEST))
        return f"{gpu.name} has compute capability {has}, and at least {needs} is needed"
    return None


def _reason(text):
    text = " ".join(text.split())
    if "library cannot be found" in text:
        return "no NVIDIA driver is installed here"
    if "NO_DEVICE" in text:
        return "there is no NVIDIA GPU here"
    if "INSUFFICIENT" in text or "UNSUPPORTED_PTX" in text or "too old" in text:
        return "the NVIDIA driver is too old for this version of CUDA: update the driver"
    return text


def ptx(kernel, dtype, capability):
    """The PTX of a kernel for arrays of `dtype` and GPUs of a compute capability, (9, 0). Needs no GPU."""
    from numba.cuda import dispatcher

    signature = types.void(*(_numba_type(kind, dtype) for kind in kernel.kinds))
    asked = dispatcher.get_current_device
    # functions that are part of a kernel ask which GPU is there, only to compile for it
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    try:
        return cuda.compile_ptx(kernel.function, signature, cc=capability)[0]
    finally:
        dispatcher.get_current_device = asked


def _numba_type(kind, dtype):
    number = types.float32 if np.dtype(dtype) == np.float32 else types.float64
    if kind in KINDS:
        return {Numbers: number[::1], Integers: types.int64[::1], Number: number, Integer: types.int64}[kind]
    members = [_numba_type(field, dtype) for field in fields(kind)]
    return types.BaseTuple.from_types(members, None if isinstance(kind, tuple) else kind)
