"""Matrix products in the three forms of the chain, with what follows them done in registers: the twin of `cpu.gemm`.

Every element is one chain s ← fma(a_ik, b_kj, s) from 0, k ascending, and then goes by `mode` into its place. Which
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

import numpy as np

from lrcore.cuda._target import cuda, device, fetch, fma, kernel, on_gpu, put, read, write
from lrcore.status import OK

AB, AT_B, A_BT = 0, 1, 2
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


@device
def _settle(memory, mode, at, target, factor, value):
    """Where a finished sum goes."""
    if mode == UPDATE:
        memory[at] = fma(factor, value, memory[at])
    elif mode == RESIDUAL:
        memory[at] = value - memory[target]
    elif mode == NEGATE:
        memory[at] = memory.dtype.type(0) - value
    else:
        memory[at] = value


def _direct(size):
    """The product whose threads make tiles of size × size."""

    @device
    def direct(memory, form, mode, m, n, count, a, b, c, target, factor, thread, threads):
        across = (n + size - 1) // size
        tiles = (m + size - 1) // size * across
        a_row = count
        a_k = 1
        b_column = 1
        b_k = n
        if form == AT_B:
            a_row = 1
            a_k = m
        elif form == A_BT:
            b_column = count
            b_k = 1
        sums = cuda.local.array((size, size), memory.dtype)
        lefts, rights = cuda.local.array(size, np.int64), cuda.local.array(size, np.int64)
        tile = thread
        while tile < tiles:
            i = tile // across * size
            j = tile % across * size
            for p in range(size):  # beyond the edge: the last one, not stored
                lefts[p] = a + min(i + p, m - 1) * a_row
                rights[p] = b + min(j + p, n - 1) * b_column
                for q in range(size):
                    sums[p, q] = memory.dtype.type(0)
            k = 0
            while k < count:
                for p in range(size):
                    left = read(memory, lefts[p])
                    for q in range(size):
                        sums[p, q] = fma(left, read(memory, rights[q]), sums[p, q])
                for p in range(size):
                    lefts[p] += a_k
                    rights[p] += b_k
                k += 1
            for p in range(size):
                for q in range(size):
                    if i + p < m and j + q < n:
                        at = (i + p) * n + j + q
                        _settle(memory, mode, c + at, target + at, factor, sums[p, q])
            tile += threads

    return direct


_single, _double = _direct(1), _direct(2)


@device
def direct(memory, form, mode, m, n, count, a, b, c, target, factor, thread, threads):
    """c (m, n) by `mode` from a product with inner size `count`; a, b, c, target are offsets into `memory`."""
    if m * n <= threads:
        _single(memory, form, mode, m, n, count, a, b, c, target, factor, thread, threads)
    else:
        _double(memory, form, mode, m, n, count, a, b, c, target, factor, thread, threads)


def _tiled(q):
    """The product made by a block of q × q threads."""
    side = TILE * q
    threads = q * q
    line_length = TILE * q + 1
    turns = DEPTH * TILE // q

    @device
    def stage(memory, tile, start, line_step, k_step, line, lines, k, count, thread):
        """tile[p, i] = the number of line `line` + i at k + p, 0 beyond the edges."""
        near = thread % side
        p = thread // side
        near_step = 0
        p_step = threads // side
        if k_step == 1:  # neighbours read what lies side by side
            near = thread // DEPTH
            p = thread % DEPTH
            near_step = threads // DEPTH
            p_step = 0
        source = start + (line + near) * line_step + (k + p) * k_step
        step = near_step * line_step + p_step * k_step
        place = p * line_length + near
        place_step = p_step * line_length + near_step
        near = line + near
        p = k + p
        turn = 0
        while turn < turns:
            value = memory.dtype.type(0)
            if near < lines and p < count:
                value = read(memory, source)
            write(tile, place, value)
            near = near + near_step
            p = p + p_step
            source = source + step
            place = place + place_step
            turn = turn + 1

    @device
    def add(left, right, sums, a_place, b_place):
        """One k of a thread's chains."""
        for i in range(TILE):
            value = read(left, a_place + i * q)
            for j in range(TILE):
                sums[i, j] = fma(value, read(right, b_place + j * q), sums[i, j])

    @device
    def tiled(memory, left, right, form, mode, m, n, count, a, b, c, target, factor, first, step):
        """The tiles number first, first + step, … of c; see `direct`. left, right: shared, DEPTH lines of TILE·q + 1.

        Shared arrays are made where a kernel begins: one in here would be made anew for every call that is inlined.
        """
        sums = cuda.local.array((TILE, TILE), memory.dtype)
        thread = cuda.threadIdx.x
        row = thread // q
        column = thread % q
        a_row = count
        a_k = 1
        b_column = 1
        b_k = n
        if form == AT_B:
            a_row = 1
            a_k = m
        elif form == A_BT:
            b_column = count
            b_k = 1
        across = (n + side - 1) // side
        tiles = (m + side - 1) // side * across
        tile = first
        while tile < tiles:
            top = tile // across * side
            start = tile % across * side
            for i in range(TILE):
                for j in range(TILE):
                    sums[i, j] = memory.dtype.type(0)
            k = 0
            while k < count:
                stage(memory, left, a, a_row, a_k, top, m, k, count, thread)
                stage(memory, right, b, b_column, b_k, start, n, k, count, thread)
                cuda.syncthreads()
                end = min(DEPTH, count - k) * line_length
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
                        _settle(memory, mode, c + at, target + at, factor, sums[i, j])
            tile += step

    return tiled


narrow_tiled, wide_tiled = _tiled(NARROW), _tiled(WIDE)


@kernel("xinnnnnnnnns", products=True, registers=96)
def _narrow_product(memory, state, form, mode, m, n, count, a, b, c, target, factor):
    left = cuda.shared.array(NARROW_TILES, memory.dtype)
    right = cuda.shared.array(NARROW_TILES, memory.dtype)
    if state[0] == OK:  # a run that has diverged makes no more steps
        first = cuda.blockIdx.x
        step = cuda.gridDim.x
        narrow_tiled(memory, left, right, form, mode, m, n, count, a, b, c, target, factor, first, step)


@kernel("xinnnnnnnnns", products=True)
def _wide_product(memory, state, form, mode, m, n, count, a, b, c, target, factor):
    left = cuda.shared.array(WIDE_TILES, memory.dtype)
    right = cuda.shared.array(WIDE_TILES, memory.dtype)
    if state[0] == OK:
        first = cuda.blockIdx.x
        step = cuda.gridDim.x
        wide_tiled(memory, left, right, form, mode, m, n, count, a, b, c, target, factor, first, step)


def launch_product(memory, state, form, mode, m, n, count, a, b, c, target, factor):
    """One product by as many blocks as it has tiles."""
    made, q = (_wide_product, WIDE) if min(m, n) >= WIDE_FROM else (_narrow_product, NARROW)
    blocks = -(-int(m) // (TILE * q)) * -(-int(n) // (TILE * q))
    made(blocks, q * q, memory, state, form, mode, m, n, count, a, b, c, target, factor)


def _multiply(form, m, n, count, a, b, out):
    """Outside a network: both factors and the product in one array of the device."""
    dtype = out.dtype
    first = a.size + b.size
    memory = put(np.concatenate([a.reshape(-1), b.reshape(-1), np.empty(m * n, dtype)]))
    state = put(np.zeros(1, np.int64))
    launch_product(memory, state, form, STORE, m, n, count, 0, a.size, first, 0, dtype.type(1))
    fetch(memory[first : first + m * n], out)


def multiply(a, b, out, work):
    """out (m, n) = a (m, k) · b (k, n)."""
    _multiply(AB, a.shape[0], b.shape[1], a.shape[1], a, b, out)


def multiply_at(a, b, out, work):
    """out (m, n) = aᵀ · b with a (k, m), b (k, n)."""
    _multiply(AT_B, a.shape[1], b.shape[1], a.shape[0], a, b, out)


def multiply_bt(a, b, out, work):
    """out (m, n) = a · bᵀ with a (m, k), b (n, k)."""
    _multiply(A_BT, a.shape[0], b.shape[0], a.shape[1], a, b, out)
