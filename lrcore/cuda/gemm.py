"""Matrix products in the three forms of the chain, with what follows them done in registers, as in `cpu.gemm`.

Every element is one chain s ← fma(a_ik, b_kj, s) from 0, k ascending, and then goes where its mode says. Which
thread makes it decides nothing, so bits are those of the CPU. Two ways to make them:

direct   each thread makes a tile of 1 × 1 or 2 × 2 straight from memory: for networks that are on chip
tiled    a block makes tiles of SIDE × SIDE, a thread 4 × 4 of each in registers. DEPTH elements of k at a time are
         brought to shared memory, where A·Bᵀ and Aᵀ·B are turned; a thread reads 8 numbers there for 16 FMAs

```
                 tx →                     rows i ≡ ty and columns j ≡ tx (mod Q) belong to thread (ty, tx):
        ┌───┬───┬───┬───┐                 neighbours read neighbouring columns, so shared memory serves a warp
   ty   │ ▪ │ ▪ │ ▪ │ ▪ │  ▪: of one      at once, and all that read a row of A read the same number
    ↓   ├───┼───┼───┼───┤     thread
        │ ▪ │ ▪ │ ▪ │ ▪ │
        …
```
"""

from typing import NamedTuple

import numpy as np

from lrcore.cuda._target import (
    Integer,
    Integers,
    Number,
    Numbers,
    copy_to_host,
    cuda,
    device,
    fma,
    kernel,
    load,
    on_gpu,
    plain,
    store,
    to_device,
)
from lrcore.status import OK

NN, TN, NT = 0, 1, 2  # A·B, Aᵀ·B, A·Bᵀ
STORE = 0
UPDATE = 1
RESIDUAL = 2
NEGATE = 3

TILE = on_gpu(4, 2)  # rows and columns of a thread
NARROW, WIDE = on_gpu(8, 2), on_gpu(16, 4)  # Q: a block of Q × Q threads makes tiles of TILE·Q
DEPTH = on_gpu(16, 2)  # of which Q² is a multiple, as it is of TILE·Q
# of shared memory for the tiles of one factor; a line is one longer, so that a column lies in different banks
NARROW_TILES = DEPTH * (TILE * NARROW + 1)
WIDE_TILES = DEPTH * (TILE * WIDE + 1)
WIDE_FROM = on_gpu(512, 7)  # from so many rows and columns on there are enough wide tiles for all multiprocessors


class Product(NamedTuple):
    """c (m, n) from a and b with inner size `count`, in one of three forms; a, b, c: offsets into the memory."""

    form: Integer
    m: Integer
    n: Integer
    count: Integer
    a: Integer
    b: Integer
    c: Integer


class Epilogue(NamedTuple):
    """What is done with a finished sum: see `_store_sum`. target: an offset into the memory, 0 where not read."""

    mode: Integer
    factor: Number
    target: Integer


class Share(NamedTuple):
    """What of a pass a thread or a block makes: number first, first + step, …"""

    first: Integer
    step: Integer


class _Operand(NamedTuple):
    """A factor of a product: element (line, k) lies at start + line · line_step + k · k_step."""

    start: Integer
    line_step: Integer
    k_step: Integer
    lines: Integer


@device
def _left(product):
    """The _Operand a, whose lines are rows of c."""
    if product.form == TN:
        return _Operand(product.a, 1, product.m, product.m)
    return _Operand(product.a, product.count, 1, product.m)


@device
def _right(product):
    """The _Operand b, whose lines are columns of c."""
    if product.form == NT:
        return _Operand(product.b, product.count, 1, product.n)
    return _Operand(product.b, 1, product.n, product.n)


@device
def _store_sum(memory, epilogue, c, target, value):
    """Where a finished sum goes; c, target: offsets of its element."""
    if epilogue.mode == UPDATE:
        memory[c] = fma(epilogue.factor, value, memory[c])
    elif epilogue.mode == RESIDUAL:
        memory[c] = value - memory[target]
    elif epilogue.mode == NEGATE:
        memory[c] = memory.dtype.type(0) - value
    else:
        memory[c] = value


def _direct(size):
    """The product whose threads make tiles of size × size."""

    @device
    def direct(memory, product, epilogue, share):
        m = product.m
        n = product.n
        left = _left(product)
        right = _right(product)
        across = (n + size - 1) // size
        tiles = (m + size - 1) // size * across
        sums = cuda.local.array((size, size), memory.dtype)
        rows, columns = cuda.local.array(size, np.int64), cuda.local.array(size, np.int64)
        tile = share.first
        while tile < tiles:
            i = tile // across * size
            j = tile % across * size
            for p in range(size):  # beyond the edge: the last one, not stored
                rows[p] = left.start + min(i + p, m - 1) * left.line_step
                columns[p] = right.start + min(j + p, n - 1) * right.line_step
                for q in range(size):
                    sums[p, q] = memory.dtype.type(0)
            k = 0
            while k < product.count:
                for p in range(size):
                    value = load(memory, rows[p])
                    for q in range(size):
                        sums[p, q] = fma(value, load(memory, columns[q]), sums[p, q])
                for p in range(size):
                    rows[p] += left.k_step
                    columns[p] += right.k_step
                k += 1
            for p in range(size):
                for q in range(size):
                    if i + p < m and j + q < n:
                        at = (i + p) * n + j + q
                        _store_sum(memory, epilogue, product.c + at, epilogue.target + at, sums[p, q])
            tile += share.step

    return direct


_single, _double = _direct(1), _direct(2)


@device
def direct(memory, product, epilogue, share):
    """A Product by the threads of a block, each its Share of the tiles."""
    if product.m * product.n <= share.step:
        _single(memory, product, epilogue, share)
    else:
        _double(memory, product, epilogue, share)


def _staging(q):
    """What brings a part of a factor to shared memory, by a block of q × q threads."""
    side = TILE * q
    threads = q * q
    line_length = TILE * q + 1
    turns = DEPTH * TILE // q

    @device
    def stage(memory, tile, operand, line, k, count):
        """tile[p, i] = the number of line `line` + i at k + p, 0 beyond the edges."""
        thread = cuda.threadIdx.x
        near = thread % side
        p = thread // side
        near_step = 0
        p_step = threads // side
        if operand.k_step == 1:  # neighbours read what lies side by side
            near = thread // DEPTH
            p = thread % DEPTH
            near_step = threads // DEPTH
            p_step = 0
        source = operand.start + (line + near) * operand.line_step + (k + p) * operand.k_step
        step = near_step * operand.line_step + p_step * operand.k_step
        index = p * line_length + near
        index_step = p_step * line_length + near_step
        near = line + near
        p = k + p
        turn = 0
        while turn < turns:
            value = memory.dtype.type(0)
            if near < operand.lines and p < count:
                value = load(memory, source)
            store(value, tile, index)
            near = near + near_step
            p = p + p_step
            source = source + step
            index = index + index_step
            turn = turn + 1

    return stage


def _chains(q):
    """What adds one k to the chains of a thread in a block of q × q threads."""

    @device
    def add(left, right, sums, row, column):
        """One k of a thread's chains."""
        for i in range(TILE):
            value = load(left, row + i * q)
            for j in range(TILE):
                sums[i, j] = fma(value, load(right, column + j * q), sums[i, j])

    return add


def _tiled(q):
    """The product made by a block of q × q threads."""
    side = TILE * q
    line_length = TILE * q + 1
    stage = _staging(q)
    add = _chains(q)

    @device
    def tiled(memory, left, right, product, epilogue, share):
        """A Share of the tiles of c. left, right: shared, DEPTH lines of TILE·q + 1; they are made where a kernel
        begins, for in here they would be made anew for every call that is inlined."""
        sums = cuda.local.array((TILE, TILE), memory.dtype)
        row = cuda.threadIdx.x // q
        column = cuda.threadIdx.x % q
        m = product.m
        n = product.n
        # what `_left` and `_right` say: here registers spill with them, in `_direct` without
        row_step = product.count
        a_step = 1
        column_step = 1
        b_step = n
        if product.form == TN:
            row_step = 1
            a_step = m
        elif product.form == NT:
            column_step = product.count
            b_step = 1
        a = _Operand(product.a, row_step, a_step, m)
        b = _Operand(product.b, column_step, b_step, n)
        across = (n + side - 1) // side
        tiles = (m + side - 1) // side * across
        tile = share.first
        while tile < tiles:
            top = tile // across * side
            start = tile % across * side
            for i in range(TILE):
                for j in range(TILE):
                    sums[i, j] = memory.dtype.type(0)
            k = 0
            while k < product.count:
                stage(memory, left, a, top, k, product.count)
                stage(memory, right, b, start, k, product.count)
                cuda.syncthreads()
                end = min(DEPTH, product.count - k) * line_length
                p = 0
                while p < end:  # nothing beyond the end is added: it would turn −0 into 0
                    add(left, right, sums, p + row, p + column)
                    p += line_length
                cuda.syncthreads()
                k += DEPTH
            for i in range(TILE):
                for j in range(TILE):
                    if top + row + i * q < m and start + column + j * q < n:
                        at = (top + row + i * q) * n + start + column + j * q
                        _store_sum(memory, epilogue, product.c + at, epilogue.target + at, sums[i, j])
            tile += share.step

    return tiled


narrow_tiled, wide_tiled = _tiled(NARROW), _tiled(WIDE)


@kernel(products=True, registers=96)
def _narrow_product(memory: Numbers, state: Integers, product: plain(Product), epilogue: plain(Epilogue)):
    left = cuda.shared.array(NARROW_TILES, memory.dtype)
    right = cuda.shared.array(NARROW_TILES, memory.dtype)
    if state[0] == OK:  # a run that has diverged makes no more steps
        share = Share(cuda.blockIdx.x, cuda.gridDim.x)
        narrow_tiled(memory, left, right, Product(*product), Epilogue(*epilogue), share)


@kernel(products=True)
def _wide_product(memory: Numbers, state: Integers, product: plain(Product), epilogue: plain(Epilogue)):
    left = cuda.shared.array(WIDE_TILES, memory.dtype)
    right = cuda.shared.array(WIDE_TILES, memory.dtype)
    if state[0] == OK:
        share = Share(cuda.blockIdx.x, cuda.gridDim.x)
        wide_tiled(memory, left, right, Product(*product), Epilogue(*epilogue), share)


def launch_product(memory, state, product, epilogue):
    """One product by as many blocks as it has tiles."""
    wide = min(product.m, product.n) >= WIDE_FROM
    q = WIDE if wide else NARROW
    blocks = -(-int(product.m) // (TILE * q)) * -(-int(product.n) // (TILE * q))
    launched = _wide_product if wide else _narrow_product
    launched(blocks, q * q, memory, state, tuple(product), tuple(epilogue))


def _matmul(form, shape, a, b, out):
    """Outside a network: both factors and the product in one array of the device."""
    m, n, count = shape
    dtype = out.dtype
    first = a.size + b.size
    memory = to_device(np.concatenate([a.reshape(-1), b.reshape(-1), np.empty(m * n, dtype)]))
    state = to_device(np.zeros(1, np.int64))
    product = Product(form, m, n, count, 0, a.size, first)
    launch_product(memory, state, product, Epilogue(STORE, dtype.type(1), 0))
    copy_to_host(memory[first : first + m * n], out)


def matmul_nn(a, b, out, work):
    """out (m, n) = a (m, k) · b (k, n)."""
    _matmul(NN, (a.shape[0], b.shape[1], a.shape[1]), a, b, out)


def matmul_tn(a, b, out, work):
    """out (m, n) = aᵀ · b with a (k, m), b (k, n)."""
    _matmul(TN, (a.shape[1], b.shape[1], a.shape[0]), a, b, out)


def matmul_nt(a, b, out, work):
    """out (m, n) = a · bᵀ with a (m, k), b (n, k)."""
    _matmul(NT, (a.shape[0], b.shape[0], a.shape[1]), a, b, out)
