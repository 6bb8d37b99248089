"""The steps of `batch` for networks whose widths are known when they are compiled, as straight-line LLVM instructions.

Lane l of every vector belongs to run l of a block, as in `_runs`. What is left out is the switch between tiles, their
loops and their addresses, which took most of the time of products of a few rows. The order of operations in every lane
is that of `batch`, and so are the bits.

Where a register is shorter than a block, the same code runs for one part of the lanes after the other: addresses are
those of a part, its runs are `PART` lanes, and there are `PARTS` of them.
"""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from lrcore.cpu._lanes import emit_fma, emit_load, emit_store, emit_where
from lrcore.cpu._vector import I64, VECTOR_BITS, emit_opaque
from lrcore.layout import LANE_BYTES

PART_BYTES = min(LANE_BYTES, VECTOR_BITS // 8)
PARTS = LANE_BYTES // PART_BYTES
# Of a tile: 16 sums and 8 loads for 16 FMAs in 32 registers, or 8 sums and 6 loads for 8 FMAs in 16.
TILE_ROWS, TILE_COLUMNS = (4, 4) if VECTOR_BITS == 512 else (4, 2)


def part_vector(number):
    """The LLVM type of one part of a block."""
    element = ir.DoubleType() if number.bitwidth == 64 else ir.FloatType()
    return ir.VectorType(element, 8 * PART_BYTES // number.bitwidth)


def instructions(widths):
    """How many fused multiply-adds the products of a step have."""
    inputs = widths[0]
    return sum(3 * widths[i] * widths[i - 1] * inputs for i in range(2, len(widths)))


def forward_intrinsic(widths):
    """forward(dtype, params, target, ptrs, losses): P_2 … P_{N−1} and the residual of all runs of a block.

    ptrs: (prefix, residual, back, size of a turn of `back`), addresses. Half the sums of squares are written to
    `losses`. The value has the bits of the runs whose loss is finite.
    """

    @intrinsic
    def forward(typingctx, dtype, params, target, ptrs, losses):
        def codegen(context, builder, signature, arguments):
            _, params, target, ptrs, losses = arguments
            return _Runs(builder, dtype.dtype, widths, params, ptrs).forward(target, losses)

        return types.intp(dtype, types.intp, types.intp, types.UniTuple(types.intp, 4), types.intp), codegen

    return forward


def descend_intrinsic(widths):
    """descend(dtype, params, ptrs, factor, active): W ← fma(factor, ∇, W) for the runs whose bit in `active` is set.

    factor: the address of a vector.
    """

    @intrinsic
    def descend(typingctx, dtype, params, ptrs, factor, active):
        def codegen(context, builder, signature, arguments):
            _, params, ptrs, factor, active = arguments
            vector = part_vector(dtype.dtype)
            scale = emit_load(builder, vector, factor)

            def add(slope, place):
                old = emit_load(builder, vector, emit_opaque(builder, place))  # see `opaque`
                return emit_where(builder, active, emit_fma(builder, scale, slope, old), old)

            _Runs(builder, dtype.dtype, widths, params, ptrs).backward(params, add)
            return context.get_dummy_value()

        return types.void(dtype, types.intp, types.UniTuple(types.intp, 4), types.intp, types.intp), codegen

    return descend


def slopes_intrinsic(widths):
    """slopes(dtype, params, ptrs, out): out = −∇L of all runs."""

    @intrinsic
    def slopes(typingctx, dtype, params, ptrs, out):
        def codegen(context, builder, signature, arguments):
            _, params, ptrs, out = arguments
            vector = part_vector(dtype.dtype)
            zero = ir.Constant(vector, [0.0] * vector.count)
            _Runs(builder, dtype.dtype, widths, params, ptrs).backward(
                out, lambda slope, place: builder.fsub(zero, slope)
            )
            return context.get_dummy_value()

        return types.void(dtype, types.intp, types.UniTuple(types.intp, 4), types.intp), codegen

    return slopes


class _Runs:
    """Emits forward and backward. A matrix is (address, columns); where an element lies follows from its indices."""

    def __init__(self, builder, number, widths, params, ptrs):
        self.builder = builder
        self.vector = part_vector(number)
        self.zero = ir.Constant(self.vector, [0.0] * self.vector.count)
        self.widths = widths
        self.depth = len(widths) - 1
        self.params = params
        self.prefix, self.residual, self.back, self.turn = (builder.extract_value(ptrs, i) for i in range(4))

    def forward(self, target, losses):
        inputs = self.widths[0]
        sums = [self.zero] * inputs

        def subtract(value, place, i, j):
            difference = self.builder.fsub(value, self._load((target, inputs), i, j))
            sums[j] = emit_fma(self.builder, difference, difference, sums[j])
            return difference

        for i in range(2, self.depth + 1):
            last = i == self.depth
            out = (self.residual, inputs) if last else self._product(i)
            finish = subtract if last else lambda value, place, i, j: value
            self._multiply(self._layer(i), self._product(i - 1), (self.widths[i], self.widths[i - 1]), out, finish)
        return self._store_losses(sums, losses)

    def _store_losses(self, sums, losses):
        total = sums[0]
        for column in sums[1:]:
            total = self.builder.fadd(total, column)
        half = self.builder.fmul(total, ir.Constant(self.vector, [0.5] * self.vector.count))
        emit_store(self.builder, half, losses)
        finite = self.builder.fcmp_ordered("==", self.builder.fsub(half, half), self.zero)
        return self.builder.zext(self.builder.bitcast(finite, ir.IntType(self.vector.count)), I64)

    def backward(self, out, finish):
        """finish(slope, place): what is written to the place of a gradient in `out`."""
        inputs = self.widths[0]
        back = (self.residual, inputs)
        for i in range(self.depth, 1, -1):
            rows, columns = self.widths[i], self.widths[i - 1]
            below = (self._plus(self.back, 0) if i % 2 == 0 else self.builder.add(self.back, self.turn), inputs)
            self._multiply(_across(self._layer(i)), back, (columns, rows), below, lambda value, place, i, j: value)
            transposed = _across(self._product(i - 1))
            place = (self._plus(out, self._offset(i)), columns)
            shape = (rows, inputs, columns)
            self._multiply(back, transposed, shape, place, lambda value, place, i, j: finish(value, place))
            back = below
        for i in range(self.widths[1]):
            for j in range(inputs):
                place = self._place((out, inputs), i, j)
                emit_store(self.builder, finish(self._load(back, i, j), place), place)

    def _multiply(self, a, b, shape, out, finish):
        """Elements of a · b, tile by tile, k ascending; finish(value, place, i, j) says what is written.

        shape: (rows, inner size), and columns where they are not the inputs.
        """
        rows, inner = shape[:2]
        columns = shape[2] if len(shape) > 2 else self.widths[0]
        for top in range(0, rows, TILE_ROWS):
            for left in range(0, columns, TILE_COLUMNS):
                lines = range(top, min(top + TILE_ROWS, rows))
                places = range(left, min(left + TILE_COLUMNS, columns))
                a, b = self._again(a), self._again(b)
                sums = {(i, j): self.zero for i in lines for j in places}
                for k in range(inner):
                    column = {i: self._load(a, i, k) for i in lines}
                    row = {j: self._load(b, k, j) for j in places}
                    for i, j in sums:
                        sums[i, j] = emit_fma(self.builder, column[i], row[j], sums[i, j])
                for (i, j), value in sums.items():
                    place = self._place(out, i, j)
                    emit_store(self.builder, finish(value, place, i, j), place)

    def _again(self, matrix):
        """The same matrix, of whose elements the optimiser knows nothing: they are loaded where they are used."""
        return (emit_opaque(self.builder, matrix[0]), *matrix[1:])

    def _load(self, matrix, i, j):
        return emit_load(self.builder, self.vector, self._place(matrix, i, j))

    def _place(self, matrix, i, j):
        start, columns, *across = matrix
        if across:
            i, j = j, i
        return self._plus(start, i * columns + j)

    def _plus(self, start, elements):
        return self.builder.add(start, I64(elements * LANE_BYTES))

    def _layer(self, i):
        return self._plus(self.params, self._offset(i)), self.widths[i - 1]

    def _offset(self, i):
        return sum(self.widths[k] * self.widths[k - 1] for k in range(1, i))

    def _product(self, i):
        """P_i, P_1 = W_1."""
        inputs = self.widths[0]
        if i == 1:
            return self._layer(1)
        return self._plus(self.prefix, sum(self.widths[k] * inputs for k in range(2, i))), inputs


def _across(matrix):
    """Its transpose."""
    return (*matrix, True)
