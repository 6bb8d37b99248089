"""One step of a chain whose widths are known when it is compiled, as straight-line LLVM instructions.

For layers of a few rows the tiles of `_tile` spend most of their time on what surrounds the arithmetic: the switch
between variants, addresses, loops of a few turns, packing. Here nothing of that is left: a row is a few vectors, a
product is the list of its fused multiply-adds, and a transpose is shuffles between registers.

The bits are those of `chain`: an element of a product is the same chain of fused multiply-adds from 0, k ascending,
lanes run across columns, and the loss is summed in the same order.

Matrices lie in memory with their rows padded to whole vectors (`Rows`), so that no load or store needs a mask. What the
padding holds meets nothing but padding.

Numbers are read one by one, and spread over a vector by the load itself, from where vectors were written. An optimiser
that sees this takes them out of the registers instead, which costs more: so they are read from an opaque address.
"""

import itertools
from typing import NamedTuple

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from lrcore.cpu._lanes import emit_fma
from lrcore.cpu._vector import I32, I64, VECTOR_BITS, emit_opaque, emit_shuffle, emit_spread, emit_transpose

MOST_SUMS = 24 if VECTOR_BITS == 512 else 12  # of 32 and of 16 registers: there must be room for rows and numbers
LINE = 16  # numbers of the smaller kind in a cache line
MOST_HELD = 8 if VECTOR_BITS == 512 else 4  # vectors of a matrix that stays in registers: the next ones were spilled


class Rows(NamedTuple):
    """How `count` rows of a matrix lie in memory: as `vectors` vectors of `lanes` numbers, `columns` of them used."""

    count: int
    columns: int
    lanes: int
    vectors: int

    @property
    def stride(self):
        return self.lanes * self.vectors

    @property
    def size(self):
        """Numbers from its start to where the next matrix may start: whole cache lines."""
        return -(-self.count * self.stride // LINE) * LINE


def rows_of(count, columns, bits):
    """The Rows of a matrix of numbers of `bits` bits: of the shortest vectors that hold a row, or the longest."""
    lanes = 2
    while lanes < columns and lanes < VECTOR_BITS // bits:
        lanes *= 2
    return Rows(count, columns, lanes, -(-columns // lanes))


class Chain:
    """The layers of a network and its target.

    offsets       where each layer starts, in numbers from the first
    params_size   numbers of all layers
    scratch_size  numbers that a step keeps: P_i, B_i, the transposes of P_i
    """

    def __init__(self, widths, bits):
        self.widths = widths
        self.bits = bits
        self.depth = len(widths) - 1
        self.layers = [rows_of(n, below, bits) for below, n in itertools.pairwise(widths)]
        self.target = rows_of(widths[-1], widths[0], bits)
        self.offsets = _running([layer.size for layer in self.layers])
        self.params_size = sum(layer.size for layer in self.layers)
        inner = [self.rows_of_product(i) for i in range(1, self.depth)]
        transposed = [rows_of(widths[0], n, bits) for n in widths[1:-1]]
        self.scratch_size = sum(rows.size for rows in [*inner, *inner, *transposed, self.target])

    def rows_of_product(self, i):
        """The Rows of P_i and of B_i."""
        return rows_of(self.widths[i], self.widths[0], self.bits)

    @property
    def instructions(self):
        """How many fused multiply-adds of vectors the products of a step have."""
        total = 0
        for i in range(2, self.depth + 1):
            n, below, inputs = self.widths[i], self.widths[i - 1], self.widths[0]
            total += 2 * n * below * self.target.vectors + n * inputs * self.layers[i - 1].vectors
        return total


def _running(sizes):
    return [sum(sizes[:i]) for i in range(len(sizes))]


def gradient_intrinsic(widths, ending):
    """An intrinsic for a network of `widths`: loss and gradients at one point, each gradient ended in registers.

    It is called with (point, target, scratch, loss, anyway, arguments): addresses of the layers and of the target, both
    padded, of room for `Chain.scratch_size` numbers, and of the number that the loss is written to. The value is 1
    where the loss is finite; where it is not, there are gradients only if `anyway` is not 0. ending(step, offset,
    slopes, arguments) emits what is done with some rows of a layer's gradient, the first of which lies `offset`
    numbers behind the start of the layers; `arguments` begin with a number of the dtype.
    """

    @intrinsic
    def gradient(typingctx, point, target, scratch, loss, anyway, arguments):
        number = arguments[0]
        if not isinstance(number, types.Float):
            return None

        def codegen(context, builder, signature, values):
            chain = Chain(widths, number.bitwidth)
            *addresses, packed = values
            own = [builder.extract_value(packed, i) for i in range(len(arguments))]
            return _Step(builder, chain, *addresses).emit(lambda *found: ending(*found, own))

        return types.intp(*[types.intp] * 5, arguments), codegen

    return gradient


def descend(step, offset, slopes, arguments):
    """W ← fma(factor, ∇, W); arguments: (factor,)."""
    factor = step.splat(arguments[0], slopes[0][0].type.count)
    at = offset
    for row in slopes:
        for value in row:
            old = step.load(step.point, at, value.type.count)
            step.store(step.fma(factor, value, old), step.point, at)
            at += value.type.count


def stage(step, offset, slopes, arguments):
    """With t = 0 − ∇: out = fma(scale, t, source) and middle = fma(weight, t, base).

    arguments: (scale, weight, source, out, base, middle), the last four addresses of padded parameters.
    """
    scale, weight = arguments[:2]
    source, out, base, middle = map(step.pointer, arguments[2:])
    at = offset
    for row in slopes:
        for value in row:
            lanes = value.type.count
            slope = step.builder.fsub(step.zero(lanes), value)
            origin = step.load(base, at, lanes)
            step.store(step.fma(step.splat(scale, lanes), slope, step.load(source, at, lanes)), out, at)
            step.store(step.fma(step.splat(weight, lanes), slope, origin), middle, at)
            at += lanes


class _Kept:
    """A matrix in memory, of `rows`, from the pointer `numbers` on; rows are loaded where they are used."""

    def __init__(self, step, numbers, rows):
        self._step = step
        self.numbers = numbers
        self.rows = rows

    def row(self, k):
        start = k * self.rows.stride
        return [
            self._step.load(self.numbers, start + j * self.rows.lanes, self.rows.lanes)
            for j in range(self.rows.vectors)
        ]

    def places(self):
        """Where its numbers are, row by row."""
        return [[r * self.rows.stride + k for k in range(self.rows.columns)] for r in range(self.rows.count)]

    def again(self):
        """The same matrix, whose rows are loaded once more: there are fewer registers than rows."""
        return _Kept(self._step, emit_opaque(self._step.builder, self.numbers), self.rows)

    def held(self):
        return _Held(self)


class _Held(_Kept):
    """A matrix whose rows are loaded once and stay in registers."""

    def __init__(self, kept):
        super().__init__(kept._step, kept.numbers, kept.rows)
        self._values = [kept.row(k) for k in range(kept.rows.count)]

    def row(self, k):
        return self._values[k]

    def again(self):
        return self


class _Step:
    """Emits forward, loss and backward for one Chain."""

    def __init__(self, builder, chain, point, target, scratch, loss, anyway):
        self.builder = builder
        self.chain = chain
        self.element = ir.DoubleType() if chain.bits == 64 else ir.FloatType()
        self.point, self.target, self.scratch, self.loss = map(self.pointer, (point, target, scratch, loss))
        self.anyway = anyway
        self._taken = 0  # numbers of the scratch

    def emit(self, ending):
        """Whether the loss is finite, 1 or 0."""
        builder = self.builder
        numbers = emit_opaque(builder, self.point)
        prefix = self._prefix(numbers)
        residual, sums = self._residual(numbers, prefix[-1])
        finite = self._store_loss(sums)
        go_on = builder.append_basic_block("unrolled.backward")
        done = builder.append_basic_block("unrolled.done")
        builder.cbranch(builder.or_(finite, builder.icmp_signed("!=", self.anyway, I64(0))), go_on, done)
        builder.position_at_end(go_on)
        self._backward(numbers, prefix, residual, ending)
        builder.branch(done)
        builder.position_at_end(done)
        return builder.zext(finite, I64)

    def _prefix(self, numbers):
        """[P_1, …, P_{N−1}], P_1 = W_1."""
        chain = self.chain
        prefix = [self._matrix(numbers, chain.layers[0])]
        for i in range(1, chain.depth - 1):
            product = self._product(numbers, self._places(i), prefix[-1])
            prefix.append(self._keep(product, chain.rows_of_product(i + 1)))
        return prefix

    def _residual(self, numbers, last):
        """(P_N − target, the sums of the squares of its columns, rows ascending)."""
        target = _Kept(self, self.target, self.chain.target)
        sums = [self.zero(self.chain.target.lanes)] * self.chain.target.vectors

        def subtract():
            nonlocal sums
            for first, block in self._product(numbers, self._places(self.chain.depth - 1), last):
                residual = [
                    [self.builder.fsub(value, wanted) for value, wanted in zip(row, target.row(r), strict=True)]
                    for r, row in enumerate(block, start=first)
                ]
                for row in residual:
                    sums = [self.fma(value, value, total) for value, total in zip(row, sums, strict=True)]
                yield first, residual

        return self._keep(subtract(), self.chain.target), sums

    def _store_loss(self, sums):
        """Write half the sum over columns; returns whether it is finite."""
        builder = self.builder
        columns = [builder.extract_element(total, I32(lane)) for total in sums for lane in range(total.type.count)]
        loss = columns[0]
        for column in columns[1 : self.chain.widths[0]]:
            loss = builder.fadd(loss, column)
        loss = builder.fdiv(loss, ir.Constant(self.element, 2.0))
        builder.store(loss, self.loss)
        return builder.fcmp_ordered("==", builder.fsub(loss, loss), ir.Constant(self.element, 0.0))

    def _backward(self, numbers, prefix, back, ending):
        """Gradients from the last layer to the first; `back` is B_N. What reads a layer comes before it is written."""
        chain = self.chain
        for i in range(chain.depth - 1, 0, -1):
            own = back
            transposed = self._transpose(prefix[i - 1], chain.rows_of_product(i), chain.layers[i])
            below = self._product(numbers, self._places(i, across=True), own)
            if i > 1:
                back = self._keep(below, chain.rows_of_product(i))
            else:
                self._end(ending, 0, below)
            slopes = self._product(own.numbers, own.places(), transposed)
            self._end(ending, i, slopes)

    def _end(self, ending, i, slopes):
        layer = self.chain.layers[i]
        for first, block in slopes:
            ending(self, self.chain.offsets[i] + first * layer.stride, block)

    def _places(self, i, across=False):
        """Where the numbers of W_{i+1} are, row by row, or column by column."""
        layer = self.chain.layers[i]
        places = [
            [self.chain.offsets[i] + r * layer.stride + k for k in range(layer.columns)] for r in range(layer.count)
        ]
        return [list(column) for column in zip(*places, strict=True)] if across else places

    def _product(self, numbers, places, matrix):
        """Yield (first row, rows) of a product: row i is Σ_k (the number at places[i][k]) · row k of `matrix`.

        So many rows are made side by side as have their sums in registers.
        """
        blocks = -(-len(places) * matrix.rows.vectors // MOST_SUMS)
        for block in range(blocks):
            first = block * len(places) // blocks
            yield first, self._rows_of_product(numbers, places[first : (block + 1) * len(places) // blocks], matrix)
            matrix = matrix.again()

    def _rows_of_product(self, numbers, places, matrix):
        sums = [[self.zero(matrix.rows.lanes)] * matrix.rows.vectors for _ in places]
        for k in range(matrix.rows.count):
            row = matrix.row(k)
            for i, own in enumerate(places):
                number = self._spread(numbers, own[k], matrix.rows.lanes)
                sums[i] = [self.fma(number, value, total) for value, total in zip(row, sums[i], strict=True)]
        return sums

    def _keep(self, blocks, rows):
        """Write a matrix that is made block by block to the scratch."""
        start = self._taken
        self._taken += rows.size
        for first, block in blocks:
            for r, row in enumerate(block, start=first):
                for j, value in enumerate(row):
                    self.store(value, self.scratch, start + r * rows.stride + j * rows.lanes)
        return self._matrix(self.builder.gep(emit_opaque(self.builder, self.scratch), [I64(start)]), rows)

    def _matrix(self, pointer, rows):
        kept = _Kept(self, pointer, rows)
        return kept.held() if rows.count * rows.vectors <= MOST_HELD else kept

    def _transpose(self, matrix, rows, like):
        """The columns of a matrix of `rows` as rows of the form `like`."""
        lanes = max(rows.lanes, like.lanes)
        matrix = matrix.again()
        wide = [[self._resize(value, lanes) for value in matrix.row(k)] for k in range(rows.count)]

        def columns():
            for k in range(0, rows.columns, lanes):
                blocks = []
                for first in range(0, rows.count, lanes):
                    square = [row[k // lanes] for row in wide[first : first + lanes]]
                    square += [self.zero(lanes)] * (lanes - len(square))
                    blocks.append(emit_transpose(self.builder, square))
                count = min(lanes, rows.columns - k)
                yield k, [[self._resize(block[inside], like.lanes) for block in blocks] for inside in range(count)]

        form = like._replace(count=rows.columns)
        return self._keep(columns(), form)

    def _resize(self, value, lanes):
        """The first `lanes` lanes of a vector, with zeros where it is shorter."""
        own = value.type.count
        if own == lanes:
            return value
        return emit_shuffle(self.builder, value, self.zero(own), [min(lane, own) for lane in range(lanes)])

    def _spread(self, base, at, lanes):
        """The number at a place in every lane."""
        return self.splat(self.builder.load(self.builder.gep(base, [I64(at)])), lanes)

    def pointer(self, address):
        return self.builder.inttoptr(address, self.element.as_pointer())

    def load(self, base, at, lanes):
        kind = ir.VectorType(self.element, lanes)
        place = self.builder.gep(base, [I64(at)])
        return self.builder.load(self.builder.bitcast(place, kind.as_pointer()), align=self.chain.bits // 8)

    def store(self, value, base, at):
        place = self.builder.gep(base, [I64(at)])
        self.builder.store(value, self.builder.bitcast(place, value.type.as_pointer()), align=self.chain.bits // 8)

    def splat(self, number, lanes):
        return emit_spread(self.builder, number, lanes)

    def zero(self, lanes):
        return ir.Constant(ir.VectorType(self.element, lanes), [0.0] * lanes)

    def fma(self, a, b, c):
        return emit_fma(self.builder, a, b, c)
