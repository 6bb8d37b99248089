"""Tiles of products whose vectors run across runs, for `lrcore.cpu.batch`: lane l belongs to run l of a block."""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from lrcore.cpu._lanes import emit_fma, emit_load, emit_store, emit_where, lanes_vector
from lrcore.cpu._vector import I64, VECTOR_BITS, emit_opaque
from lrcore.layout import LANE_BYTES

# A tile has RUNS_TILE² of them as sums: 16 of the 32 long registers, with 8 loads for 16 FMAs, or 8 of 16 shorter ones.
RUNS_TILE = 4 if VECTOR_BITS == 512 else 2
RUNS_STORE, RUNS_RESIDUAL, RUNS_NEGATE, RUNS_ADD = range(4)


@intrinsic
def tile_runs(typingctx, dtype, a, b, shape, out, finish):
    """One tile of a product for every run, the sums in registers: s_ij = fma(a_ik, b_kj, s_ij) from +0, k ascending.

    a = (address, step of i, step of k), b = (address, step of k, step of j), out = (address, step of i), in bytes;
    shape = (rows, inner, columns), all ≥ 1, rows and columns ≤ RUNS_TILE; finish = (mode, …) with addresses of vectors:

    RUNS_STORE                        out = s
    RUNS_RESIDUAL (…, target, sums)   out = s − target;  sums_j = fma(out_ij, out_ij, sums_j), i ascending
    RUNS_NEGATE                       out = 0 − s, which is fma(−1, s, 0)
    RUNS_ADD (…, factor, going)       out = fma(factor, s, out) for the runs whose bit in `active` is set
    """

    def codegen(context, builder, signature, arguments):
        parts = [cgutils.unpack_tuple(builder, argument) for argument in arguments[1:]]
        _RunsTile(builder, lanes_vector(dtype.dtype), *parts).emit()
        return context.get_dummy_value()

    triple = types.UniTuple(types.intp, 3)
    pair = types.UniTuple(types.intp, 2)
    return types.void(dtype, triple, triple, triple, pair, triple), codegen


class _RunsTile:
    """Emits the tile for every number of rows and of columns, and the switch between them."""

    def __init__(self, builder, vector, a, b, shape, out, finish):
        self.builder = builder
        self.zero = ir.Constant(vector, [0.0] * vector.count)
        self.vector = vector
        self.size = I64(LANE_BYTES)
        self.a, self.a_row, self.a_k = a
        self.b, self.b_k, self.b_column = b
        self.rows, self.inner, self.columns = shape
        self.out, self.out_row = out
        self.mode, self.first, self.second = finish

    def emit(self):
        builder = self.builder
        done = self.builder.append_basic_block("runs.done")
        switch = builder.switch(builder.add(builder.mul(self.rows, I64(RUNS_TILE + 1)), self.columns), done)
        for rows in range(1, RUNS_TILE + 1):
            for columns in range(1, RUNS_TILE + 1):
                block = builder.append_basic_block(f"runs.{rows}x{columns}")
                switch.add_case(I64(rows * (RUNS_TILE + 1) + columns), block)
                builder.position_at_end(block)
                self._finish(self._sums(rows, columns))
                builder.branch(done)
        builder.position_at_end(done)

    def _at(self, base, index, step):
        return self.builder.add(base, self.builder.mul(I64(index), step))

    def _load(self, ptr):
        return emit_load(self.builder, self.vector, ptr)

    def _sums(self, rows, columns):
        """The loop over k: rows + columns loads, rows · columns FMAs."""
        builder = self.builder
        before = self.builder.block
        loop = builder.append_basic_block("runs.k")
        after = builder.append_basic_block("runs.end")
        builder.branch(loop)
        builder.position_at_end(loop)
        k, a, b = (builder.phi(I64) for _ in range(3))
        sums = [[builder.phi(self.vector) for _ in range(columns)] for _ in range(rows)]
        column = [self._load(self._at(a, i, self.a_row)) for i in range(rows)]
        row = [self._load(self._at(b, j, self.b_column)) for j in range(columns)]
        new = [[emit_fma(builder, x, y, sums[i][j]) for j, y in enumerate(row)] for i, x in enumerate(column)]
        for counter, start, step in ((k, I64(1), I64(1)), (a, self.a, self.a_k), (b, self.b, self.b_k)):
            counter.add_incoming(start, before)
            counter.add_incoming(builder.add(counter, step), loop)
        for i in range(rows):
            for j in range(columns):
                sums[i][j].add_incoming(self.zero, before)
                sums[i][j].add_incoming(new[i][j], loop)
        builder.cbranch(builder.icmp_signed("<", k, self.inner), loop, after)
        builder.position_at_end(after)
        return new

    def _finish(self, sums):
        builder = self.builder
        done = self.builder.append_basic_block("runs.stored")
        emitters = {
            RUNS_STORE: self._store,
            RUNS_RESIDUAL: self._residual,
            RUNS_NEGATE: self._negate,
            RUNS_ADD: self._add,
        }
        switch = builder.switch(self.mode, done)
        for mode, emit in emitters.items():
            block = builder.append_basic_block("runs.mode")
            switch.add_case(I64(mode), block)
            builder.position_at_end(block)
            emit(sums)
            builder.branch(done)
        builder.position_at_end(done)

    def _element(self, base, i, j):
        return self._at(self._at(base, i, self.out_row), j, self.size)

    def _write(self, sums, change):
        for i, line in enumerate(sums):
            for j, s in enumerate(line):
                ptr = self._element(self.out, i, j)
                emit_store(self.builder, change(s, ptr), ptr)

    def _store(self, sums):
        self._write(sums, lambda s, ptr: s)

    def _negate(self, sums):
        self._write(sums, lambda s, ptr: self.builder.fsub(self.zero, s))

    def _add(self, sums):
        factor = self._load(self.first)

        def step(s, ptr):
            old = self._load(emit_opaque(self.builder, ptr))  # see `opaque`
            return emit_where(self.builder, self.second, emit_fma(self.builder, factor, s, old), old)

        self._write(sums, step)

    def _residual(self, sums):
        for j in range(len(sums[0])):
            column = self._at(self.second, j, self.size)
            squares = self._load(column)
            for i, line in enumerate(sums):
                difference = self.builder.fsub(line[j], self._load(self._element(self.first, i, j)))
                emit_store(self.builder, difference, self._element(self.out, i, j))
                squares = emit_fma(self.builder, difference, difference, squares)
            emit_store(self.builder, squares, column)
