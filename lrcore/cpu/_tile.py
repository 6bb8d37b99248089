"""One tile of a product and the packing of its panels, as LLVM instructions: the heart of `lrcore.cpu.gemm`."""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from lrcore.cpu._vector import I1, I32, I64, VECTOR_BITS, emit_masked, emit_opaque, emit_spread, emit_transpose

# Rows and vectors of a tile: rows·vectors accumulators, the vectors of B and one of A must fit the registers, and
# there must be at least 8 accumulators (two FMA units, four cycles each) with few loads for each FMA.
TILE_ROWS = 8 if VECTOR_BITS == 512 else 4
TILE_VECTORS = 3
NARROW = 2  # up to so many vectors of B are loaded without what is beyond the width, so B need not be packed
UNROLL = 4


def lanes(dtype):
    """Numbers of a dtype (a NumPy dtype) in one vector."""
    return VECTOR_BITS // (8 * dtype.itemsize)


class _Vectors:
    """Emits vector instructions of one element type through an IR builder."""

    def __init__(self, builder, element):
        self.builder = builder
        self.element = element
        bits = 64 if isinstance(element, ir.DoubleType) else 32
        self.bytes = bits // 8
        self.lanes = VECTOR_BITS // bits
        self.type = ir.VectorType(element, self.lanes)
        self.mask_type = ir.VectorType(I1, self.lanes)
        self.suffix = f"v{self.lanes}f{bits}"
        self.zero = ir.Constant(self.type, [0.0] * self.lanes)

    def _call(self, name, result, *arguments):
        function_type = ir.FunctionType(result, [argument.type for argument in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, function_type, name)
        return self.builder.call(function, arguments)

    def fma(self, a, b, c):
        return self._call(f"llvm.fma.{self.suffix}", self.type, a, b, c)

    def splat(self, scalar):
        """The scalar in every lane."""
        return emit_spread(self.builder, scalar, self.lanes)

    def mask(self, count):
        """Lanes 0 … count−1 are on; count is an i64."""
        numbers = ir.Constant(ir.VectorType(I64, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", numbers, self.splat(count))

    def load(self, pointer, mask=None):
        vector = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            return self.builder.load(vector, align=self.bytes)
        name = f"llvm.masked.load.{self.suffix}.p0"
        return emit_masked(self.builder, name, self.type, [vector, mask, self.zero], 0, self.bytes)

    def store(self, value, pointer, mask=None):
        vector = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            self.builder.store(value, vector, align=self.bytes)
        else:
            name = f"llvm.masked.store.{self.suffix}.p0"
            emit_masked(self.builder, name, ir.VoidType(), [value, vector, mask], 1, self.bytes)


# NumPy integers: for every Python literal as an argument Numba would compile the called function anew.
STORE, UPDATE, RESIDUAL, NEGATE, STAGE = (np.intp(mode) for mode in range(5))


class Epilogue(NamedTuple):
    """What is done with a finished sum, in registers: see `tile`. target, columns: addresses; 0 where not read."""

    mode: int
    factor: float
    target: int
    columns: int


@intrinsic
def tile(typingctx, shape, a, b, start, c, epilogue):
    """One tile of a product, its sums in registers: s_ij = fma(a_ik, b_kj, s_ij) for k = 0 … count−1.

    shape     (rows, width, count): rows ≤ TILE_ROWS; width ≤ TILE_VECTORS vectors; count ≥ 1
    a         (address, row, k): a_ik at address + i·row + k·k
    b         (address, row): b_kj at address + k·row + j, whole vectors if there are more than NARROW of them
    start     (address, row): the sums start at 0, or where address ≠ 0 at address + i·row + j
    c         (address, row): c_ij at address + i·row + j
    epilogue  an Epilogue: target_ij at target + i·(row of c) + j, columns_j at columns + j

    Addresses are integers, strides count elements. What is done at the end, by `mode`:

    STORE     c = s
    UPDATE    c = fma(factor, s, c)
    NEGATE    c = 0 − s
    RESIDUAL  c = s − target;  columns_j = fma(c_ij, c_ij, columns_j), i ascending
    STAGE     with t = 0 − s and a record (from, to, weight) at `columns`, two integers and a number:
              c = fma(factor, t, what is `from` bytes behind target)
              what is `to` bytes behind target = fma(weight, t, target)

    The dtype is that of `factor`. Nothing else beyond the width is read or written.
    """
    factor = epilogue[1]
    if not isinstance(factor, types.Float):
        return None

    def codegen(context, builder, signature, arguments):
        element = ir.DoubleType() if factor.bitwidth == 64 else ir.FloatType()
        operands = [cgutils.unpack_tuple(builder, argument) for argument in arguments]
        _Tile(builder, _Vectors(builder, element), *operands).emit()
        return context.get_dummy_value()

    pair = types.UniTuple(types.intp, 2)
    triple = types.UniTuple(types.intp, 3)
    return types.void(triple, triple, pair, pair, pair, epilogue), codegen


class _Tile:
    """Emits one variant of the tile for every number of rows and of vectors, and the switch between them."""

    def __init__(self, builder, vectors, shape, a, b, start, c, epilogue):
        self.builder = builder
        self.vectors = vectors
        self.rows, self.width, self.count = shape
        self.a, self.a_row, self.a_k = a
        self.b, self.b_row = b
        self.start, self.start_row = start
        self.c, self.c_row = c
        self.mode, self.factor, self.target, self.columns = epilogue

    def emit(self):
        builder = self.builder
        lanes = self.vectors.lanes
        vectors = builder.sdiv(builder.add(self.width, I64(lanes - 1)), I64(lanes))
        last = builder.sub(self.width, builder.mul(builder.sub(vectors, I64(1)), I64(lanes)))
        self.mask = self.vectors.mask(last)
        size = I64(self.vectors.bytes)
        self.a_step = builder.mul(self.a_k, size)
        self.b_step = builder.mul(self.b_row, size)
        self.a_rows = [emit_opaque(builder, builder.mul(builder.mul(self.a_row, I64(i)), size)) for i in range(5)]
        variant = builder.add(builder.mul(self.rows, I64(TILE_VECTORS + 1)), vectors)
        done = builder.append_basic_block("tile.done")
        switch = builder.switch(variant, done)
        for rows in range(1, TILE_ROWS + 1):
            for count in range(1, TILE_VECTORS + 1):
                block = builder.append_basic_block(f"tile.{rows}x{count}")
                switch.add_case(I64(rows * (TILE_VECTORS + 1) + count), block)
                builder.position_at_end(block)
                self._variant(rows, count)
                builder.branch(done)
        builder.position_at_end(done)

    def _at(self, base, *offsets):
        """The element at base + offsets (in elements), as a pointer."""
        total = base
        for offset in offsets:
            total = self.builder.add(total, self.builder.mul(offset, I64(self.vectors.bytes)))
        return self.builder.inttoptr(total, self.vectors.element.as_pointer())

    def _row(self, bases, i):
        """Row i of A, as one of two pointers plus one of four offsets: what a load can add by itself."""
        ptr = self.builder.add(bases[i // 4], self.a_rows[i % 4]) if i % 4 else bases[i // 4]
        return self.builder.inttoptr(ptr, self.vectors.element.as_pointer())

    def _mask_of(self, j, count):
        return self.mask if j == count - 1 else None

    def _variant(self, rows, count):
        sums = self._chains(rows, count, self._begin(rows, count))
        self._finish(sums, rows, count)

    def _begin(self, rows, count):
        """The sums before the first k: zeros, or those of the block of k before this one."""
        builder = self.builder
        zero = self.vectors.zero
        fresh = builder.block
        load = builder.append_basic_block("tile.continue")
        ready = builder.append_basic_block("tile.ready")
        builder.cbranch(builder.icmp_signed("==", self.start, I64(0)), ready, load)
        builder.position_at_end(load)
        loaded = [
            [
                self.vectors.load(self._element(self.start, self.start_row, i, j), self._mask_of(j, count))
                for j in range(count)
            ]
            for i in range(rows)
        ]
        builder.branch(ready)
        builder.position_at_end(ready)
        sums = []
        for row in loaded:
            sums.append([])
            for value in row:
                phi = builder.phi(self.vectors.type)
                phi.add_incoming(zero, fresh)
                phi.add_incoming(value, load)
                sums[-1].append(phi)
        return sums

    def _chains(self, rows, count, begin):
        """The sums after all k: UNROLL of them in one turn of the loop, then the rest one by one."""
        builder = self.builder
        flat = [value for row in begin for value in row]
        state = [self.a, builder.add(self.a, self.a_rows[4]), self.b, *flat]
        if rows * count >= 8:
            state = self._loop(builder.sdiv(self.count, I64(UNROLL)), UNROLL, rows, count, state)
            state = self._loop(builder.srem(self.count, I64(UNROLL)), 1, rows, count, state)
        else:
            state = self._loop(self.count, 1, rows, count, state)
        return [state[3 + i * count : 3 + (i + 1) * count] for i in range(rows)]

    def _loop(self, turns, unroll, rows, count, state):
        """`turns` turns (possibly none) of `unroll` values of k; `state` is the pointers and the sums."""
        builder = self.builder
        before = builder.block
        loop = builder.append_basic_block("tile.k")
        after = builder.append_basic_block("tile.end")
        builder.cbranch(builder.icmp_signed(">", turns, I64(0)), loop, after)
        builder.position_at_end(loop)
        turn = builder.phi(I64)
        phis = [builder.phi(value.type) for value in state]
        new = phis
        for _ in range(unroll):
            new = self._one_k(rows, count, new)
        next_turn = builder.add(turn, I64(1))
        turn.add_incoming(I64(0), before)
        turn.add_incoming(next_turn, loop)
        for phi, old, value in zip(phis, state, new, strict=True):
            phi.add_incoming(old, before)
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", next_turn, turns), loop, after)
        builder.position_at_end(after)
        result = [builder.phi(value.type) for value in state]
        for phi, old, value in zip(result, state, new, strict=True):
            phi.add_incoming(old, before)
            phi.add_incoming(value, loop)
        return result

    def _one_k(self, rows, count, state):
        """One k: `count` loads of B, then each number of A times all of them."""
        builder = self.builder
        a_low, a_high, b_at, *sums = state
        b = [
            self.vectors.load(
                self._at(b_at, I64(j * self.vectors.lanes)), self._mask_of(j, count) if count <= NARROW else None
            )
            for j in range(count)
        ]
        new = []
        for i in range(rows):
            a = self.vectors.splat(builder.load(self._row((a_low, a_high), i)))
            new += [self.vectors.fma(a, b[j], sums[i * count + j]) for j in range(count)]
        return [
            emit_opaque(builder, builder.add(a_low, self.a_step)),
            emit_opaque(builder, builder.add(a_high, self.a_step)),
            builder.add(b_at, self.b_step),
            *new,
        ]

    def _finish(self, sums, rows, count):
        builder = self.builder
        blocks = {mode: builder.append_basic_block("tile.mode") for mode in (STORE, UPDATE, RESIDUAL, NEGATE, STAGE)}
        done = builder.append_basic_block("tile.stored")
        switch = builder.switch(self.mode, blocks[STORE])
        endings = (
            (STORE, self._store),
            (UPDATE, self._update),
            (RESIDUAL, self._residual),
            (NEGATE, self._negate),
            (STAGE, self._stage),
        )
        for mode, emit in endings:
            if mode != STORE:
                switch.add_case(I64(int(mode)), blocks[mode])
            builder.position_at_end(blocks[mode])
            emit(sums, rows, count)
            builder.branch(done)
        builder.position_at_end(done)

    def _element(self, base, stride, i, j):
        return self._at(base, self.builder.mul(I64(i), stride), I64(j * self.vectors.lanes))

    def _store(self, sums, rows, count):
        for i in range(rows):
            for j in range(count):
                self.vectors.store(sums[i][j], self._element(self.c, self.c_row, i, j), self._mask_of(j, count))

    def _update(self, sums, rows, count):
        factor = self.vectors.splat(self.factor)
        for i in range(rows):
            for j in range(count):
                pointer = self._element(self.c, self.c_row, i, j)
                mask = self._mask_of(j, count)
                total = self.vectors.fma(factor, sums[i][j], self.vectors.load(pointer, mask))
                self.vectors.store(total, pointer, mask)

    def _negate(self, sums, rows, count):
        zero = self.vectors.zero
        self._store([[self.builder.fsub(zero, value) for value in row] for row in sums], rows, count)

    def _stage(self, sums, rows, count):
        builder = self.builder
        vectors = self.vectors
        fields = builder.inttoptr(self.columns, I64.as_pointer())
        source, out = (builder.load(builder.gep(fields, [I32(i)])) for i in (0, 1))
        weight = builder.load(builder.inttoptr(builder.add(self.columns, I64(16)), vectors.element.as_pointer()))
        factor = vectors.splat(self.factor)
        weight = vectors.splat(weight)
        source = builder.add(self.target, source)
        out = builder.add(self.target, out)
        for i in range(rows):
            for j in range(count):
                mask = self._mask_of(j, count)
                slope = builder.fsub(vectors.zero, sums[i][j])
                base = vectors.load(self._element(self.target, self.c_row, i, j), mask)
                total = vectors.fma(factor, slope, vectors.load(self._element(source, self.c_row, i, j), mask))
                vectors.store(total, self._element(self.c, self.c_row, i, j), mask)
                vectors.store(vectors.fma(weight, slope, base), self._element(out, self.c_row, i, j), mask)

    def _residual(self, sums, rows, count):
        builder = self.builder
        for j in range(count):
            mask = self._mask_of(j, count)
            column = self._at(self.columns, I64(j * self.vectors.lanes))
            squares = self.vectors.load(column, mask)
            for i in range(rows):
                difference = builder.fsub(
                    sums[i][j], self.vectors.load(self._element(self.target, self.c_row, i, j), mask)
                )
                self.vectors.store(difference, self._element(self.c, self.c_row, i, j), mask)
                squares = self.vectors.fma(difference, difference, squares)
            self.vectors.store(squares, column, mask)


@intrinsic
def pack(typingctx, panel, b, b_row, width, count, like):
    """A panel of B for `tile`: panel_kj = b_kj for k < count, j < width; whole vectors are written.

    b_kj at b + k·b_row + j. The dtype is that of `like`.
    """

    def codegen(context, builder, signature, arguments):
        panel, b, b_row, width, count, _ = arguments
        vectors = _Vectors(builder, ir.DoubleType() if like.bitwidth == 64 else ir.FloatType())
        size = I64(vectors.bytes)
        lanes = vectors.lanes
        with cgutils.for_range(builder, count) as k:
            source = builder.add(b, builder.mul(builder.mul(k.index, b_row), size))
            out = builder.add(panel, builder.mul(k.index, I64(TILE_VECTORS * lanes * vectors.bytes)))
            for j in range(TILE_VECTORS):
                mask = vectors.mask(builder.sub(width, I64(j * lanes)))
                offset = I64(j * lanes * vectors.bytes)
                pointers = [
                    builder.inttoptr(builder.add(base, offset), vectors.element.as_pointer()) for base in (source, out)
                ]
                vectors.store(vectors.load(pointers[0], mask), pointers[1])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5, like), codegen


@intrinsic
def pack_transposed(typingctx, panel, b, b_row, width, count, like):
    """A panel of Bᵀ for `tile`: panel_kj = b_jk for k < count, j < width, square blocks of `lanes` at a time.

    b_jk at b + j·b_row + k. Columns j ≥ width repeat the last one and up to lanes − 1 rows beyond `count` are
    written: a panel has room for them. The dtype is that of `like`.
    """

    def codegen(context, builder, signature, arguments):
        panel, b, b_row, width, count, _ = arguments
        vectors = _Vectors(builder, ir.DoubleType() if like.bitwidth == 64 else ir.FloatType())
        size = vectors.bytes
        lanes = vectors.lanes
        panel_row = TILE_VECTORS * lanes * size
        last = builder.sub(width, I64(1))
        groups = builder.sdiv(builder.add(width, I64(lanes - 1)), I64(lanes))
        blocks = builder.sdiv(builder.add(count, I64(lanes - 1)), I64(lanes))
        with cgutils.for_range(builder, groups) as group:
            first = builder.mul(group.index, I64(lanes))
            sources = []
            for j in range(lanes):
                column = builder.add(first, I64(j))
                column = builder.select(builder.icmp_signed("<", column, last), column, last)
                sources.append(builder.add(b, builder.mul(builder.mul(column, b_row), I64(size))))
            with cgutils.for_range(builder, blocks) as block:
                k = builder.mul(block.index, I64(lanes))
                mask = vectors.mask(builder.sub(count, k))
                shift = builder.mul(k, I64(size))
                pointer = vectors.element.as_pointer()
                rows = [vectors.load(builder.inttoptr(builder.add(s, shift), pointer), mask) for s in sources]
                out = builder.add(panel, builder.mul(k, I64(panel_row)))
                out = builder.add(out, builder.mul(first, I64(size)))
                for i, row in enumerate(emit_transpose(builder, rows)):
                    vectors.store(row, builder.inttoptr(builder.add(out, I64(i * panel_row)), pointer))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5, like), codegen
