"""What the optimiser does not find by itself, written as LLVM instructions.

`fma(a, b, c)` is a·b + c with one rounding, on every machine: in hardware where there is an FMA unit, else through
the C library. It is the one operation that products, updates and sums are made of, so their bits do not depend on
the width of a vector, nor on whether a compiler fuses.

On these stand the tiles of the product kernels (`_tile`) and the vectors of a fixed length (`_lanes`).
"""

import os

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic

NULL = np.intp(0)  # in place of an address: nothing is there

I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)


def _vector_bits():
    """Bits of a vector register that the code is compiled for: what the CPU has, or LRBIAS_VECTOR_BITS."""
    if "LRBIAS_VECTOR_BITS" in os.environ:
        return int(os.environ["LRBIAS_VECTOR_BITS"])
    if config.CPU_FEATURES is not None:
        has = set(config.CPU_FEATURES.split(",")).__contains__
    elif config.CPU_NAME not in (None, "host"):
        return 256
    else:
        features = llvmlite.binding.get_host_cpu_features()
        has = {f"+{name}" for name, present in features.items() if present}.__contains__
    return 512 if has("+avx512f") else 256 if has("+avx") else 128


VECTOR_BITS = _vector_bits()


def emit_masked(builder, name, result, arguments, pointer, alignment):
    """A masked load, store or gather of LLVM's; argument number `pointer` is aligned to so many bytes.

    Since LLVM 22 the alignment is an attribute of that argument. It used to be one more argument behind it.
    """
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    call = builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)
    call.arg_attributes[pointer] = ir.values.ArgumentAttributes()
    call.arg_attributes[pointer].align = alignment
    return call


@intrinsic
def fma(typingctx, a, b, c):
    """a·b + c, rounded once; all three of one floating-point type."""
    if not (isinstance(a, types.Float) and a == b == c):
        return None

    def codegen(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return a(a, b, c), codegen


@intrinsic
def load(typingctx, ptr, like):
    """The number at an address, of the type of `like`."""
    if not isinstance(like, types.Float):
        return None

    def codegen(context, builder, signature, arguments):
        pointer = context.get_value_type(like).as_pointer()
        return builder.load(builder.inttoptr(arguments[0], pointer))

    return like(types.intp, like), codegen


@intrinsic
def itemsize(typingctx, like):
    """Bytes of a number of the type of `like`."""
    if not isinstance(like, types.Float):
        return None
    return types.intp(like), lambda context, builder, signature, arguments: I64(like.bitwidth // 8)


def emit_opaque(builder, value):
    """The same address or number, of which the optimiser knows nothing.

    Of row strides, for one, it would make chains of additions, which take the place of FMAs in the processor.
    """
    same = ir.InlineAsm(ir.FunctionType(value.type, [value.type]), "", "=r,0")
    return builder.call(same, [value])


def emit_shuffle(builder, a, b, order):
    """A vector of lanes of a, and of b behind them."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(order)), order))


def emit_spread(builder, number, lanes):
    """The number in every one of so many lanes."""
    undefined = ir.Constant(ir.VectorType(number.type, lanes), ir.Undefined)
    return emit_shuffle(builder, builder.insert_element(undefined, number, I32(0)), undefined, [0] * lanes)


def emit_transpose(builder, rows):
    """The columns of a square block: log2(lanes) rounds of exchanges between rows 1, 2, 4, … apart."""
    lanes = len(rows)
    step = 1
    while step < lanes:
        new = list(rows)
        for i in range(lanes):
            if i & step:
                continue
            low = [k if not k & step else lanes + k - step for k in range(lanes)]
            high = [k + step if not k & step else lanes + k for k in range(lanes)]
            new[i] = emit_shuffle(builder, rows[i], rows[i + step], low)
            new[i + step] = emit_shuffle(builder, rows[i], rows[i + step], high)
        rows = new
        step = 2 * step
    return rows


@intrinsic
def pointer_at(typingctx, ptr, like):
    """An address as a pointer to numbers of the type of `like`: `numba.carray` makes an array of it, whose references
    nobody counts."""

    def codegen(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(types.intp, like), codegen


@intrinsic
def opaque(typingctx, ptr):
    """The same address, of which the optimiser knows nothing.

    An old value that is loaded from the address where it or a new one is stored, lane by lane, becomes a store under a
    mask, which takes many cycles on some processors. Loaded from an opaque address it becomes a blend.
    """

    def codegen(context, builder, signature, arguments):
        return emit_opaque(builder, arguments[0])

    return types.intp(types.intp), codegen


@intrinsic
def load_int(typingctx, ptr):
    """The int64 at an address."""

    def codegen(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], I64.as_pointer()))

    return types.intp(types.intp), codegen


@intrinsic
def store(typingctx, value, ptr):
    """Write a number or an int64 to an address."""
    if not isinstance(value, types.Float) and value != types.intp:
        return None

    def codegen(context, builder, signature, arguments):
        pointer = context.get_value_type(value).as_pointer()
        builder.store(arguments[0], builder.inttoptr(arguments[1], pointer))
        return context.get_dummy_value()

    return types.void(value, types.intp), codegen


SPINS = 2000  # turns of waiting before the processor is offered to others


@intrinsic
def spin_barrier(typingctx, ptr, num_threads):
    """Wait until all threads are here. ptr: the address of two int64 zeros, 64 bytes apart, that they share.

    The last one to come resets the count at 0 and advances the round at 64, for which the others wait.
    """

    def codegen(context, builder, signature, arguments):
        _Barrier(builder, *arguments).emit()
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


class _Barrier:
    """Emits the wait: who comes last releases the others, who does not spins, and now and then yields its processor."""

    def __init__(self, builder, ptr, num_threads):
        self.builder = builder
        self.num_threads = num_threads
        self.count = builder.inttoptr(ptr, I64.as_pointer())
        self.round = builder.inttoptr(builder.add(ptr, I64(64)), I64.as_pointer())

    def emit(self):
        builder = self.builder
        this_round = self._load_round()
        before = builder.atomic_rmw("add", self.count, I64(1), "seq_cst")
        last = builder.append_basic_block("barrier.last")
        wait = builder.append_basic_block("barrier.wait")
        done = builder.append_basic_block("barrier.done")
        here = builder.block
        builder.cbranch(builder.icmp_signed("==", before, builder.sub(self.num_threads, I64(1))), last, wait)
        builder.position_at_end(last)
        builder.store_atomic(I64(0), self.count, "seq_cst", align=8)
        builder.atomic_rmw("add", self.round, I64(1), "seq_cst")
        builder.branch(done)
        builder.position_at_end(wait)
        self._spin(this_round, here, wait, done)
        builder.position_at_end(done)

    def _load_round(self):
        return self.builder.load_atomic(self.round, "seq_cst", align=8)

    def _spin(self, this_round, before, wait, done):
        """The loop that begins in block `wait`, entered from `before`, until the round is another one."""
        builder = self.builder
        rest = builder.append_basic_block("barrier.rest")
        give_way = builder.append_basic_block("barrier.yield")
        spins = builder.phi(I64)
        spins.add_incoming(I64(0), before)
        builder.cbranch(builder.icmp_signed("==", self._load_round(), this_round), rest, done)
        builder.position_at_end(rest)
        more = builder.add(spins, I64(1))
        spins.add_incoming(more, rest)
        spins.add_incoming(more, give_way)
        builder.cbranch(builder.icmp_signed("<", more, I64(SPINS)), wait, give_way)
        builder.position_at_end(give_way)
        builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(I32, []), "sched_yield"), [])
        builder.branch(wait)


@intrinsic
def noinline(typingctx):
    """Keep the function that calls this out of its callers: a large one would be compiled again at every place."""

    def codegen(context, builder, signature, arguments):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def data_ptr(typingctx, array):
    """Where the data of an array starts, as an integer. The caller keeps the array alive."""

    def codegen(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.ptrtoint(data, I64)

    return types.intp(array), codegen
