"""Vectors of LANE_BYTES: as many numbers as a cache line holds, one in each lane, worked on by one instruction.

They are that long whatever the CPU has (shorter registers take them in parts), so what is made with them has the same
bits everywhere. They live at addresses, which are integers. `lrcore.cpu.batch` puts one run into each lane,
`lrcore.cpu.bidiagonal` eight columns of a matrix, `lrcore.cpu.qds` eight matrices or eight singular values.

The bits of an integer say for each lane whether it takes part: `less_lanes` makes one, `where_lanes` reads it.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

from lrcore.cpu._vector import I1, I32, I64, emit_masked, emit_spread
from lrcore.layout import LANE_BYTES


class Lanes(types.Type):
    """One vector: a number in each lane."""

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


def lanes_vector(dtype):
    element = ir.DoubleType() if dtype.bitwidth == 64 else ir.FloatType()
    return ir.VectorType(element, 8 * LANE_BYTES // dtype.bitwidth)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, runs):
        super().__init__(manager, runs, lanes_vector(runs.dtype))


def emit_load(builder, vector, ptr):
    return builder.load(builder.inttoptr(ptr, vector.as_pointer()), align=4)


def emit_store(builder, value, ptr):
    builder.store(value, builder.inttoptr(ptr, value.type.as_pointer()), align=4)


def emit_fma(builder, a, b, c):
    bits = 64 if isinstance(a.type.element, ir.DoubleType) else 32
    function_type = ir.FunctionType(a.type, [a.type] * 3)
    function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.fma.v{a.type.count}f{bits}")
    return builder.call(function, [a, b, c])


def emit_splat(builder, number):
    bits = 64 if isinstance(number.type, ir.DoubleType) else 32
    return emit_spread(builder, number, 8 * LANE_BYTES // bits)


def emit_where(builder, active, new, old):
    count = new.type.count
    lanes = builder.bitcast(builder.trunc(active, ir.IntType(count)), ir.VectorType(I1, count))
    return builder.select(lanes, new, old)


def _element(like):
    """The type of the numbers, from that of a dtype or of a number."""
    return like.dtype if isinstance(like, types.DType) else like


@intrinsic
def load_lanes(typingctx, like, ptr):
    """The vector at `ptr`; like: a dtype, or a number of the same type."""

    def codegen(context, builder, signature, arguments):
        return emit_load(builder, lanes_vector(_element(like)), arguments[1])

    return Lanes(_element(like))(like, types.intp), codegen


@intrinsic
def store_lanes(typingctx, value, ptr):
    """Write a vector to `ptr`."""

    def codegen(context, builder, signature, arguments):
        emit_store(builder, *arguments)
        return context.get_dummy_value()

    return types.void(value, types.intp), codegen


@intrinsic
def zero_lanes(typingctx, like):
    """+0 in every lane; like as for `load_lanes`."""

    def codegen(context, builder, signature, arguments):
        vector = lanes_vector(_element(like))
        return ir.Constant(vector, [0.0] * vector.count)

    return Lanes(_element(like))(like), codegen


@intrinsic
def add_lanes(typingctx, a, b):
    """a + b in every lane."""

    def codegen(context, builder, signature, arguments):
        return builder.fadd(*arguments)

    return a(a, b), codegen


@intrinsic
def subtract_lanes(typingctx, a, b):
    """a − b in every lane."""

    def codegen(context, builder, signature, arguments):
        return builder.fsub(*arguments)

    return a(a, b), codegen


@intrinsic
def fma_lanes(typingctx, a, b, c):
    """a·b + c for every run, rounded once."""

    def codegen(context, builder, signature, arguments):
        return emit_fma(builder, *arguments)

    return a(a, b, c), codegen


@intrinsic
def where_lanes(typingctx, active, new, old):
    """`new` in the lanes whose bit in `active` is set, `old` in the others."""

    def codegen(context, builder, signature, arguments):
        return emit_where(builder, *arguments)

    return new(types.intp, new, new), codegen


@intrinsic
def multiply_lanes(typingctx, a, b):
    """a · b in every lane."""

    def codegen(context, builder, signature, arguments):
        return builder.fmul(*arguments)

    return a(a, b), codegen


@intrinsic
def divide_lanes(typingctx, a, b):
    """a / b in every lane."""

    def codegen(context, builder, signature, arguments):
        return builder.fdiv(*arguments)

    return a(a, b), codegen


@intrinsic
def splat_lanes(typingctx, value):
    """The number in every lane."""
    if not isinstance(value, types.Float):
        return None

    def codegen(context, builder, signature, arguments):
        return emit_splat(builder, arguments[0])

    return Lanes(value)(value), codegen


@intrinsic
def sqrt_lanes(typingctx, a):
    """The square root in every lane."""

    def codegen(context, builder, signature, arguments):
        vector = arguments[0].type
        bits = 64 if isinstance(vector.element, ir.DoubleType) else 32
        function_type = ir.FunctionType(vector, [vector])
        function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.sqrt.v{vector.count}f{bits}")
        return builder.call(function, arguments)

    return a(a), codegen


@intrinsic
def sum_lanes(typingctx, a):
    """The sum over the lanes, halves first: lanes l and l + 4, then l + 2, then l + 1."""

    def codegen(context, builder, signature, arguments):
        value = arguments[0]
        count = value.type.count
        undefined = ir.Constant(value.type, ir.Undefined)
        while count > 1:
            count //= 2
            order = ir.Constant(
                ir.VectorType(I32, value.type.count), [(i + count) % value.type.count for i in range(value.type.count)]
            )
            value = builder.fadd(value, builder.shuffle_vector(value, undefined, order))
        return builder.extract_element(value, I32(0))

    return a.dtype(a), codegen


@intrinsic
def less_lanes(typingctx, a, b):
    """The lanes with a < b, as the bits of an integer."""

    def codegen(context, builder, signature, arguments):
        bits = builder.fcmp_ordered("<", *arguments)
        return builder.zext(builder.bitcast(bits, ir.IntType(bits.type.count)), I64)

    return types.intp(a, b), codegen


def _pointers(builder, vector, base, offsets):
    """A pointer for each lane: `base` plus the int64 at the address `offsets`, which holds one per lane."""
    integers = ir.VectorType(I64, vector.count)
    each = builder.load(builder.inttoptr(offsets, integers.as_pointer()), align=8)
    ptrs = builder.add(emit_spread(builder, base, vector.count), each)
    return builder.inttoptr(ptrs, ir.VectorType(vector.element.as_pointer(), vector.count))


@intrinsic
def gather_lanes(typingctx, like, base, offsets):
    """In each lane the number at `base` plus that lane's int64 at the address `offsets`; like as for `load_lanes`."""

    def codegen(context, builder, signature, arguments):
        vector = lanes_vector(_element(like))
        pointers = _pointers(builder, vector, arguments[1], arguments[2])
        everywhere = ir.Constant(ir.VectorType(I1, vector.count), [1] * vector.count)
        name = f"llvm.masked.gather.v{vector.count}f{_element(like).bitwidth}.v{vector.count}p0"
        unused = ir.Constant(vector, ir.Undefined)
        return emit_masked(builder, name, vector, [pointers, everywhere, unused], 0, 4)

    return Lanes(_element(like))(like, types.intp, types.intp), codegen


@intrinsic
def lanes_at(typingctx, like, offsets, start):
    """The lanes whose int64 at the address `offsets` is where their number lies in the vector at `start`, as bits."""

    def codegen(context, builder, signature, arguments):
        vector = lanes_vector(_element(like))
        integers = ir.VectorType(I64, vector.count)
        each = builder.load(builder.inttoptr(arguments[1], integers.as_pointer()), align=8)
        size = LANE_BYTES // vector.count
        steps = ir.Constant(integers, [lane * size for lane in range(vector.count)])
        own = builder.add(emit_spread(builder, arguments[2], vector.count), steps)
        bits = builder.icmp_signed("==", each, own)
        return builder.zext(builder.bitcast(bits, ir.IntType(vector.count)), I64)

    return types.intp(like, types.intp, types.intp), codegen


def _as_integers(builder, value):
    return builder.bitcast(value, ir.VectorType(I64, value.type.count))


@intrinsic
def add_where_signs_differ(typingctx, count, a, b):
    """count + 1 in the lanes where the signs of a and b, float64, differ."""

    def codegen(context, builder, signature, arguments):
        count, a, b = arguments
        signs = builder.xor(_as_integers(builder, a), _as_integers(builder, b))
        differ = builder.icmp_signed("<", signs, ir.Constant(signs.type, [0] * signs.type.count))
        more = builder.fadd(count, ir.Constant(count.type, [1.0] * count.type.count))
        return builder.select(differ, more, count)

    return count(count, a, b), codegen


EXPONENT = 0x7FF0000000000000  # of a float64: the bits of infinity
LARGEST_POWER = 0x7FE0000000000000  # those of 2^1023


@intrinsic
def power_toward_one(typingctx, a, b):
    """In each lane a power of two: times it, the larger of |a| and |b|, float64 and normal, is in [1, 2)."""

    def codegen(context, builder, signature, arguments):
        integers = ir.VectorType(I64, arguments[0].type.count)

        def constant(bits):
            return ir.Constant(integers, [bits] * integers.count)

        sizes = [builder.and_(_as_integers(builder, value), constant(2**63 - 1)) for value in arguments]
        larger = builder.select(builder.icmp_signed(">", *sizes), *sizes)
        power = builder.sub(constant(LARGEST_POWER), builder.and_(larger, constant(EXPONENT)))
        return builder.bitcast(power, arguments[0].type)

    return a(a, b), codegen
