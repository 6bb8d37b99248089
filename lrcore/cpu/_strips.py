"""Strips of a matrix, up to STRIP vectors wide, for `lrcore.cpu.bidiagonal`: one pass down all rows in each call.

What belongs to the columns of a strip stays in registers from the first row to the last, so a row costs little more
than loading and storing its own numbers once. Addresses are integers, matrices of float64.
"""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from lrcore.cpu._lanes import emit_fma, emit_load, emit_spread, emit_store, lanes_vector
from lrcore.cpu._vector import I64
from lrcore.layout import LANE_BYTES

STRIP = 4  # vectors: as many chains of sums as hide the latency of one


@intrinsic
def downward_strip(typingctx, vectors, a, stride, rows, y, v, u, w):
    """w = (A − y vᵀ)ᵀ u over `rows` rows of a strip at `a`; y and u are numbers per row, v and w per column."""

    def codegen(context, builder, signature, arguments):
        _Strip(builder, *arguments[:4]).emit(_Downward(*arguments[4:]))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 8), codegen


@intrinsic
def across_strip(typingctx, vectors, a, stride, rows, y, v, u, w, r, sums):
    """A −= y vᵀ + u wᵀ and sums += A r over `rows` rows; of each sum there are as many parts as a vector has lanes."""

    def codegen(context, builder, signature, arguments):
        _Strip(builder, *arguments[:4]).emit(_Across(*arguments[4:]))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 10), codegen


@intrinsic
def mirrored_strip(typingctx, vectors, a, stride, rows, y, v, u, w, r, sums, x, t):
    """`across_strip`, and with the same A, t = Aᵀ x: the part of a symmetric matrix that is not stored.

    x is a number per row, t one per column.
    """

    def codegen(context, builder, signature, arguments):
        _Strip(builder, *arguments[:4]).emit(_Mirrored(*arguments[4:]))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 12), codegen


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
        emit_store(builder, builder.fmul(rows[0], emit_spread(builder, factor)), out)
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

    def spread(self, address, sign=1):
        """The number at `address` in every lane, or its negative."""
        number = self.builder.load(self.builder.inttoptr(address, self.vector.element.as_pointer()))
        return emit_spread(self.builder, number if sign > 0 else self.builder.fneg(number))

    def _loop(self, width, work):
        builder = self.builder
        before = self.builder.block
        columns = [work.column(self, j) for j in range(width)]
        loop, after = builder.append_basic_block("strip.rows"), builder.append_basic_block("strip.end")
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
        y, u = strip.spread(strip.builder.add(self.y, at), -1), strip.spread(strip.builder.add(self.u, at))
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
        builder = strip.builder
        at = builder.mul(offset, I64(8))
        y, u = strip.spread(builder.add(self.y, at), -1), strip.spread(builder.add(self.u, at), -1)
        place = builder.add(self.sums, builder.mul(offset, I64(LANE_BYTES)))
        total = strip.load(place, 0)
        for j, (v, w, r) in enumerate(columns):
            x = strip.fma(u, w, strip.fma(y, v, strip.load(row, j)))
            strip.store(x, row, j)
            total = strip.fma(x, r, total)
        strip.store(total, place, 0)
        return []

    def finish(self, strip, sums):
        pass


class _Mirrored:
    keeps_sums = True

    def __init__(self, y, v, u, w, r, sums, x, t):
        self.y = y
        self.v = v
        self.u = u
        self.w = w
        self.r = r
        self.sums = sums
        self.x = x
        self.t = t

    def column(self, strip, j):
        return strip.load(self.v, j), strip.load(self.w, j), strip.load(self.r, j)

    def row(self, strip, row, offset, columns, sums):
        builder = strip.builder
        at = builder.mul(offset, I64(8))
        y, u = strip.spread(builder.add(self.y, at), -1), strip.spread(builder.add(self.u, at), -1)
        x = strip.spread(builder.add(self.x, at))
        place = builder.add(self.sums, builder.mul(offset, I64(LANE_BYTES)))
        total = strip.load(place, 0)
        new = []
        for j, ((v, w, r), t) in enumerate(zip(columns, sums, strict=True)):
            a = strip.fma(u, w, strip.fma(y, v, strip.load(row, j)))
            strip.store(a, row, j)
            total = strip.fma(a, r, total)
            new.append(strip.fma(x, a, t))
        strip.store(total, place, 0)
        return new

    def finish(self, strip, sums):
        for j, t in enumerate(sums):
            strip.store(t, self.t, j)
