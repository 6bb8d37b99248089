"""The only place that decorates. What each option is for:

cache            compiled once per machine and state of the sources (`_cache`)
nogil            metrics may run in another thread beside a training kernel
error_model      "numpy": x/0 is inf or nan and becomes a status, not an exception from a kernel
fastmath         never: it would remove the finiteness checks and reorder sums, and with them the bits
cfunc wrapper    never: nobody calls these from C

Compilation is lazy: importing a kernel costs nothing. What takes long in it is LLVM, so no code passes through it more
often than it has to: what only kernels call (a `part`) goes into its callers as it is, and is optimised there; the
largest function of all (a `standalone` one) is compiled by itself, once.
"""

import functools
import importlib

import llvmlite.binding
from llvmlite import ir
from numba import njit
from numba.core import cgutils, config, types
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.extending import intrinsic

import lrcore.cpu.compilation  # noqa: F401  which attends from the first kernel on
from lrcore.cpu._cache import KernelCache

if config.DISABLE_JIT:
    raise ImportError(
        "NUMBA_DISABLE_JIT = 1 is not accepted: expected 0, since the kernels exist as compiled code only.",
        name="numba",
    )

_STANDALONE = {}  # (module, name): a function


def kernel(function):
    """Compile `function` for the CPU. One whose name begins with an underscore is a `part`.

    Other kernels that call it have it as a part, so that it is compiled by itself only where Python calls it.
    """
    if function.__name__.startswith("_"):
        return part(function)
    dispatcher = njit(function, nogil=True, error_model="numpy", no_cfunc_wrapper=True)
    inside = part(function)
    dispatcher.get_call_template = inside.get_call_template
    dispatcher.get_overload = inside.get_overload
    if function.__module__.startswith("lrcore."):  # the others' sources are not those that the cache is named after
        dispatcher._cache = KernelCache(function)
    return dispatcher


def named_kernel(function, name):
    """A kernel from a function that was made for some constants, which `name` tells from its siblings in the cache."""
    function.__name__ = name
    function.__qualname__ = name
    return kernel(function)


def is_kept(kernel):
    """Whether the cache has something of a kernel: mostly what this machine needs."""
    return kernel._cache.has_files


def part(function):
    """Compile a function that only kernels call, as a part of each of them. It is not cached: they are.

    The formulas of `lrcore.formulas` are parts, too; their source stays undecorated, so that other targets can compile
    it.
    """
    wrappers = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    dispatcher = njit(function, nogil=True, error_model="numpy", pipeline_class=_PartCompiler, **wrappers)

    def refuse(*arguments, **named):
        raise TypeError(f"{function.__name__} is a part of kernels: Python cannot call it")

    # Python finds no entry, and so asks for a compilation
    dispatcher.add_overload = lambda result: dispatcher.overloads.update({tuple(result.signature.args): result})
    dispatcher._compile_for_args = refuse
    return dispatcher


class _PartLibrary(JITCodeLibrary):
    """Code that is linked into kernels and optimised with them; by itself it becomes no machine code."""

    def _optimize_functions(self, module):
        module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self):
        pass

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._codegen._add_module(llvmlite.binding.parse_assembly(self._environment()))
        self._finalized = True

    def _environment(self):
        """The one thing of a function that Numba looks for by its symbol: the pointer to its environment."""
        names = [value.name for value in self._final_module.global_variables]
        lines = [f'@"{name}" = common global ptr null' for name in names if name.startswith("_ZN08NumbaEnv")]
        return "\n".join([f'target triple = "{self._final_module.triple}"', *lines])

    def get_pointer_to_function(self, name):
        self._ensure_finalized()
        return 0


class _PartCompiler(Compiler):
    def __init__(self, typingctx, targetctx, library, *others):
        super().__init__(typingctx, targetctx, library or _PartLibrary(targetctx.codegen(), "part"), *others)


def standalone(position):
    """Compile a large function once, for all kernels that call it.

    What a kernel calls is otherwise optimised and compiled again with each of its callers. This one has a symbol of
    its own, by which kernels find it when they are linked. The argument at `position` is a number (float64 or
    float32), all others are integers, and nothing is returned.
    """

    def decorate(function):
        key = function.__module__, function.__name__
        _STANDALONE[key] = function

        @intrinsic
        def call(typingctx, *arguments):
            number = arguments[position]

            def codegen(context, builder, signature, values):
                _link(key, position, number.name)
                # what is loaded from the cache later asks for the symbol first
                context.active_code_library._reload_init.add(_loader(key, position, number.name))
                values = cgutils.unpack_tuple(builder, values[0])
                values = [
                    value if i == position else context.cast(builder, value, kind, types.intp)
                    for i, (value, kind) in enumerate(zip(values, arguments, strict=True))
                ]
                kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
                target = cgutils.get_or_insert_function(builder.module, kind, _symbol(key, number.name))
                builder.call(target, values)
                return context.get_dummy_value()

            return types.void(types.StarArgTuple(arguments)), codegen

        return call

    return decorate


def _symbol(key, number):
    return "_".join((*key, number)).replace(".", "_")


@functools.cache
def _loader(key, position, number):
    """One for each symbol, which may be pickled."""
    return functools.partial(_link, key, position, number)


@functools.cache
def _link(key, position, number):
    """Compile or load a standalone function for one type of number and make its symbol known."""
    importlib.import_module(key[0])
    function = _STANDALONE[key]
    arguments = [types.intp] * function.__code__.co_argcount
    arguments[position] = getattr(types, number)
    compiled = CFunc(function, (arguments, types.void), {}, {"error_model": "numpy", "nogil": True})
    compiled._cache = KernelCache(function)
    compiled.compile()
    llvmlite.binding.add_symbol(_symbol(key, number), compiled.address)
    return compiled  # kept, and with it its code
