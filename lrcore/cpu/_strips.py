"""Strips of a matrix, up to STRIP vectors wide, for `lrcore.cpu.bidiagonal`: one pass down all rows in each call.

What belongs to the columns of a strip stays in registers from the first row to the last, so a row costs little more
than loading and storing its own numbers once. Addresses are integers, matrices of float64.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from lrcore.cpu._lanes import emit_fma, emit_load, emit_splat, emit_store, lanes_vector
from lrcore.cpu._vector import I64
from lrcore.layout import LANE_BYTES

STRIP = 4  # vectors: as many chains of sums as hide the latency of one


INTEGERS = {length: types.UniTuple(types.intp, length) for length in (2, 4)}


@intrinsic
def downward_strip(typingctx, strip, y, v, u, w):
    """w = (A − y vᵀ)ᵀ u over the rows of a strip of A; y and u are numbers per row, v and w per column.

    strip = (vectors, address, stride, rows)
    """

    def codegen(context, builder, signature, arguments):
        strip, *operands = arguments
        _Strip(builder, *cgutils.unpack_tuple(builder, strip)).emit(_Downward(*operands))
        return context.get_dummy_value()

    return types.void(INTEGERS[4], *[types.intp] * 4), codegen


@intrinsic
def across_strip(typingctx, strip, update, r, sums):
    """A −= y vᵀ + u wᵀ and sums += A r over the rows of a strip; of each sum there are as many parts as a vector has
    lanes. update = (y, v, u, w), strip as in `downward_strip`.
    """

    def codegen(context, builder, signature, arguments):
        strip, update, *operands = arguments
        work = _Across(*cgutils.unpack_tuple(builder, update), *operands)
        _Strip(builder, *cgutils.unpack_tuple(builder, strip)).emit(work)
        return context.get_dummy_value()

    return types.void(INTEGERS[4], INTEGERS[4], types.intp, types.intp), codegen


@intrinsic
def mirrored_strip(typingctx, strip, update, r, sums, mirror):
    """`across_strip`, and with the same A, t = Aᵀ x: the part of a symmetric matrix that is not stored.

    mirror = (x, t): x is a number per row, t one per column.
    """

    def codegen(context, builder, signature, arguments):
        strip, update, r, sums, mirror = arguments
        work = _Mirrored(*cgutils.unpack_tuple(builder, update), r, sums, *cgutils.unpack_tuple(builder, mirror))
        _Strip(builder, *cgutils.unpack_tuple(builder, strip)).emit(work)
        return context.get_dummy_value()

    return types.void(INTEGERS[4], INTEGERS[4], types.intp, types.intp, INTEGERS[2]), codegen


@intrinsic
def total_rows(typingctx, sums, factor, out):
    """out = factor · the sums over the lanes of the vectors at `sums`, one number for each of as many as lanes."""

    def codegen(context, builder, signature, arguments):
        sums, factor, out = arguments
        vector = lanes_vector(types.float64)
        rows = [emit_load(builder, vector, builder.add(sums, I64(LANE_BYTES * i))) for i in range(vector.count)]
        step = 1
        while step < vector.count:
            for i in range(0, vector.count, 2 * step):
                rows[i] = _fold(builder, rows[i], rows[i + step], step)
            step *= 2
        emit_store(builder, builder.fmul(rows[0], emit_splat(builder, factor)), out)
        return context.get_dummy_value()

    return types.void(types.intp, types.float64, types.intp), codegen


def _fold(builder, a, b, step):
    """Sums of lanes `step` apart: those of a where the bit of `step` is off, those of b where it is on."""
    count = a.type.count
    low = [k if not k & step else count + k - step for k in range(count)]
    high = [k + step if not k & step else count + k for k in range(count)]
    order = ir.VectorType(ir.IntType(32), count)
    halves = [builder.shuffle_vector(a, b, ir.Constant(order, half)) for half in (low, high)]
    return builder.fadd(*halves)


class _Strip:
    """Emits one loop over rows for every width, and the switch between them."""

    def __init__(self, builder, vectors, a, stride, rows):
        self.builder = builder
        self.vectors = vectors
        self.a = a
        self.stride = stride
        self.rows = rows
        self.vector = lanes_vector(types.float64)
        self.zero = ir.Constant(self.vector, [0.0] * self.vector.count)

    def emit(self, work):
        builder = self.builder
        done = self.builder.append_basic_block("strip.done")
        switch = builder.switch(self.vectors, done)
        for width in range(1, STRIP + 1):
            block = builder.append_basic_block(f"strip.{width}")
            switch.add_case(I64(width), block)
            builder.position_at_end(block)
            self._loop(width, work)
            builder.branch(done)
        builder.position_at_end(done)

    def load(self, base, index):
        return emit_load(self.builder, self.vector, self.at(base, index))

    def store(self, value, base, index):
        emit_store(self.builder, value, self.at(base, index))

    def at(self, base, index):
        return self.builder.add(base, I64(LANE_BYTES * index))

    def fma(self, a, b, c):
        return emit_fma(self.builder, a, b, c)

    def splat(self, ptr, sign=1):
        """The number at `ptr` in every lane, or its negative."""
        value = self.builder.load(self.builder.inttoptr(ptr, self.vector.element.as_pointer()))
        return emit_splat(self.builder, value if sign > 0 else self.builder.fneg(value))

    def _loop(self, width, work):
        builder = self.builder
        before = self.builder.block
        columns = [work.column(self, j) for j in range(width)]
        loop = builder.append_basic_block("strip.rows")
        after = builder.append_basic_block("strip.end")
        builder.branch(loop)
        builder.position_at_end(loop)
        left, row, offset = (builder.phi(I64) for _ in range(3))
        sums = [builder.phi(self.vector) for _ in range(width)] if work.keeps_sums else []
        new = work.row(self, row, offset, columns, sums)
        steps = ((left, self.rows, I64(-1)), (row, self.a, self.stride), (offset, I64(0), I64(1)))
        for counter, start, step in steps:
            counter.add_incoming(start, before)
            counter.add_incoming(builder.add(counter, step), loop)
        for s, value in zip(sums, new, strict=True):
            s.add_incoming(self.zero, before)
            s.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed(">", left, I64(1)), loop, after)
        builder.position_at_end(after)
        work.finish(self, new)


class _Downward:
    keeps_sums = True

    def __init__(self, y, v, u, w):
        self.y = y
        self.v = v
        self.u = u
        self.w = w

    def column(self, strip, j):
        return strip.load(self.v, j)

    def row(self, strip, row, offset, columns, sums):
        at = strip.builder.mul(offset, I64(8))
        y = strip.splat(strip.builder.add(self.y, at), -1)
        u = strip.splat(strip.builder.add(self.u, at))
        new = []
        for j, (v, w) in enumerate(zip(columns, sums, strict=True)):
            new.append(strip.fma(u, strip.fma(y, v, strip.load(row, j)), w))
        return new

    def finish(self, strip, sums):
        for j, w in enumerate(sums):
            strip.store(w, self.w, j)


class _Across:
    keeps_sums = False

    def __init__(self, y, v, u, w, r, sums):
        self.y = y
        self.v = v
        self.u = u
        self.w = w
        self.r = r
        self.sums = sums

    def column(self, strip, j):
        return strip.load(self.v, j), strip.load(self.w, j), strip.load(self.r, j)

    def row(self, strip, row, offset, columns, sums):
        self._change(strip, row, offset, columns)
        return []

    def _change(self, strip, row, offset, columns):
        """Change a row of the strip and add to its sum; returns the row."""
        builder = strip.builder
        at = builder.mul(offset, I64(8))
        y = strip.splat(builder.add(self.y, at), -1)
        u = strip.splat(builder.add(self.u, at), -1)
        sum_ptr = builder.add(self.sums, builder.mul(offset, I64(LANE_BYTES)))
        total = strip.load(sum_ptr, 0)
        changed = []
        for j, (v, w, r) in enumerate(columns):
            a = strip.fma(u, w, strip.fma(y, v, strip.load(row, j)))
            strip.store(a, row, j)
            total = strip.fma(a, r, total)
            changed.append(a)
        strip.store(total, sum_ptr, 0)
        return changed

    def finish(self, strip, sums):
        pass


class _Mirrored(_Across):
    keeps_sums = True

    def __init__(self, y, v, u, w, r, sums, x, t):
        super().__init__(y, v, u, w, r, sums)
        self.x = x
        self.t = t

    def row(self, strip, row, offset, columns, sums):
        x = strip.splat(strip.builder.add(self.x, strip.builder.mul(offset, I64(8))))
        changed = self._change(strip, row, offset, columns)
        return [strip.fma(x, a, t) for a, t in zip(changed, sums, strict=True)]

    def finish(self, strip, sums):
        for j, t in enumerate(sums):
            strip.store(t, self.t, j)
