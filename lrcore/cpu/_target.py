"""The only place that decorates. What each option is for:

cache            compiled once per machine and source file; a second process starts in milliseconds
nogil            metrics may run in another thread beside a training kernel
error_model      "numpy": x/0 is inf or nan and becomes a status, not an exception from a kernel
fastmath         never: it would remove the finiteness checks and reorder sums, and with them the bits
cfunc wrapper    never: nobody calls these from C

Compilation is lazy: importing a kernel costs nothing.
"""

import functools
import importlib
import os

import llvmlite.binding
from llvmlite import ir
from numba import cfunc, njit
from numba.core import cgutils, types
from numba.extending import intrinsic

# Code for another vector width than this CPU's must not end up where the next process finds it.
CACHE = "LRBIAS_VECTOR_BITS" not in os.environ

_STANDALONE = {}  # (module, name): a function


def kernel(function):
    """Compile `function` for the CPU."""
    return njit(function, cache=CACHE, nogil=True, error_model="numpy", no_cfunc_wrapper=True)


def formula(function):
    """Compile a formula of `lrcore.formulas` (its source stays undecorated, so other targets can compile it too).

    Not cached on its own: it is inlined into the kernels that call it, and they are.
    """
    return njit(function, nogil=True, error_model="numpy", no_cfunc_wrapper=True)


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
    compiled = cfunc(types.void(*arguments), cache=CACHE, error_model="numpy")(function)
    llvmlite.binding.add_symbol(_symbol(key, number), compiled.address)
    return compiled  # kept, and with it its code
