"""Matrix products in the three forms of the chain: A·B, Aᵀ·B and A·Bᵀ, with what follows them done in registers.

**Bits.** Every element of a product is one chain of fused multiply-adds, s ← fma(a_ik, b_kj, s) from 0, k ascending.
Vector lanes run across columns j, never along the chain, so neither the width of a vector, nor the size of a block,
nor the number of threads changes a bit. What follows is fixed as well: the update c ← fma(factor, s, c), the residual
s − target, and per column the sum of its squares, rows ascending.

**Speed.** A core makes two vector FMAs per cycle, each of which takes four cycles, and loads two vectors per cycle. So
a product is cut into tiles (`_tile.tile`): 8 rows × 3 vectors of sums that stay in registers from the first k to the
last (4 × 3 where there are 16 registers). Each k loads 3 vectors of B and 8 numbers of A, spread over a vector by the
load itself, for 24 FMAs: 11 loads in the 12 cycles that the FMAs take anyway, and 24 independent chains where 8 hide
the latency. At the end of the chain the epilogue works on the sums where they are: a fused update costs a load and a
store for each vector instead of three passes over memory.

What feeds the tiles:

    panel   the columns of one tile, B_kj for all k of a block, packed so that loads are aligned, whole vectors, in
            order, and near while all rows of A go past. A·Bᵀ transposes here.
    rows    are divided evenly: 100 = 9 blocks of 8 and 4 of 7, so that no tile is thin.
    blocks  for large matrices k is cut in even blocks of at most 512; the sums of a block are stored and the next one
            continues the same chains. 192 rows of A at a time, so that their part of a block (768 KiB) stays in the
            second-level cache. Measured from 96 to 1024 and 128 to 384: a panel that fits the first-level cache (192)
            was slower, since its sums are stored and loaded more often.

**Threads.** All threads of a run make the same calls, each with its own workspace: thread t of T makes every T-th panel
and then waits for the others. No element is made by two threads, and none in another order, so bits stay.
"""

from typing import NamedTuple

import numpy as np

from lrcore.cpu._target import kernel, part, standalone
from lrcore.cpu._tile import NARROW, STAGE, STORE, TILE_ROWS, TILE_VECTORS, Epilogue, lanes, pack, pack_transposed, tile
from lrcore.cpu._vector import NULL, VECTOR_BITS, data_ptr, itemsize, spin_barrier

NN, TN, NT = np.intp(0), np.intp(1), np.intp(2)  # A·B, Aᵀ·B, A·Bᵀ
BLOCK_K = 512
BLOCK_ROWS = 192
FEW_ROWS = 32  # up to so many rows of A, a panel of few columns is not worth packing


def panel_columns(dtype):
    """Columns of a panel."""
    return TILE_VECTORS * lanes(dtype)


def panel_size(dtype):
    """Numbers in the buffer of a panel, with the rows that packing may write beyond the last."""
    return (BLOCK_K + lanes(dtype)) * panel_columns(dtype)


def sums_size(rows, columns, count):
    """Numbers in the buffer for sums between blocks of k; 0 when one block is enough."""
    return min(rows, BLOCK_ROWS) * columns if count > BLOCK_K else 0


class Pointers(NamedTuple):
    """Where the buffers of a workspace are: addresses, the size of a number in bytes, and the thread.

    Arrays would do, but Numba counts the references to each of them at every call: for 4 × 4 layers that took longer
    than the products.
    """

    prefix: int
    prefix_end: int
    residual: int
    back: int
    back_turn: int
    columns: int
    panel: int
    sums: int
    record: int
    barrier: int
    thread_id: int
    num_threads: int
    itemsize: int


@part
def pointers(work):
    """The Pointers of a workspace, which the caller keeps alive."""
    size = work.panel.itemsize
    return Pointers(
        data_ptr(work.prefix),
        data_ptr(work.prefix) + work.prefix.size * size,
        data_ptr(work.residual),
        data_ptr(work.back),
        work.back.size // 2 * size,
        data_ptr(work.columns),
        data_ptr(work.panel),
        data_ptr(work.sums),
        data_ptr(work.record),
        data_ptr(work.barrier),
        work.thread_id,
        work.num_threads,
        size,
    )


@part
def thread_range(size, ptrs):
    """What of a vector of `size` numbers belongs to this thread: (first, last + 1)."""
    if ptrs.num_threads == 1:  # two divisions take as long as a small product
        return 0, size
    return size * ptrs.thread_id // ptrs.num_threads, size * (ptrs.thread_id + 1) // ptrs.num_threads


@part
def barrier(ptrs):
    """Wait for the other threads of the run."""
    if ptrs.num_threads > 1:
        spin_barrier(ptrs.barrier, ptrs.num_threads)


@part
def epilogue(mode, factor):
    """The Epilogue of a mode that reads no target and adds up no columns: STORE, UPDATE or NEGATE."""
    return Epilogue(mode, factor, NULL, NULL)


@part
def matmul_ptr(form, shape, a, b, c, end, ptrs):
    """c (m, n) from a product with inner size `count`. Matrices are addresses of contiguous rows.

    form   NN (a (m, count), b (count, n)), TN (a (count, m), b (count, n)) or NT (a (m, count), b (n, count))
    shape  (m, n, count)
    end    an Epilogue; its factor has the dtype of the matrices
    """
    m, n, count = shape
    buffers = (ptrs.panel, ptrs.sums)
    thread = (ptrs.thread_id, ptrs.num_threads)
    _matmul(form, m, n, count, a, b, c, end.mode, end.factor, end.target, end.columns, *buffers, *thread)
    barrier(ptrs)


# A symbol has integers and a number as arguments, so what belongs together comes one by one.
@standalone(8)
def _matmul(  # noqa: PLR0913
    form, m, n, count, a, b, c, mode, factor, target, columns, panel, sums, thread_id, num_threads
):
    """`matmul_ptr` without waiting for the other threads: this thread's panels."""
    size = itemsize(factor)
    panel_width = TILE_VECTORS * (VECTOR_BITS // (8 * size))
    narrow = form != NT and n <= NARROW * panel_width // TILE_VECTORS and m <= FEW_ROWS
    block_k = _block_size(count)
    a_row, a_k = (np.intp(1), m) if form == TN else (count, np.intp(1))
    top = np.intp(0)
    while top < m:  # a range with a step would begin with a division, which is as long as a tile of a small product
        height = min(BLOCK_ROWS, m - top)
        row_blocks = (height + TILE_ROWS - 1) // TILE_ROWS
        rows = height
        thicker = np.intp(0)
        if row_blocks > 1:
            # so many blocks have one row more
            rows = height // row_blocks
            thicker = height % row_blocks
        k = np.intp(0)
        while k < count:
            length = min(block_k, count - k)
            last = k + length == count
            j = panel_width * thread_id
            while j < n:
                width = min(panel_width, n - j)
                b_panel = (panel, panel_width)
                if narrow:
                    b_panel = (b + k * n * size, n)
                elif form == NT:
                    pack_transposed(panel, b + (j * count + k) * size, count, width, length, factor)
                else:
                    pack(panel, b + (k * n + j) * size, n, width, length, factor)
                row = top
                for block in range(row_blocks):
                    tile_rows = rows + 1 if block < thicker else rows
                    partial = sums + ((row - top) * n + j) * size
                    offset = (row * n + j) * size
                    end = Epilogue(
                        mode if last else STORE,
                        factor,
                        target + offset,
                        columns if mode == STAGE else columns + j * size,
                    )
                    a_rows = (a + (row * a_row + k * a_k) * size, a_row, a_k)
                    start = (partial if k > 0 else NULL, n)
                    tile((tile_rows, width, length), a_rows, b_panel, start, (c + offset if last else partial, n), end)
                    row += tile_rows
                j += panel_width * num_threads
            k += block_k
        top += BLOCK_ROWS


@part
def _block_size(count):
    """How many k a block has: as even as can be, so that the last block is not a short one."""
    if count <= BLOCK_K:
        return count
    blocks = (count + BLOCK_K - 1) // BLOCK_K
    return (count + blocks - 1) // blocks


@kernel
def matmul_nn(a, b, out, work):
    """out (m, n) = a (m, k) · b (k, n)."""
    _store(NN, (a.shape[0], b.shape[1], a.shape[1]), a, b, out, work)


@kernel
def matmul_tn(a, b, out, work):
    """out (m, n) = aᵀ · b with a (k, m), b (k, n)."""
    _store(TN, (a.shape[1], b.shape[1], a.shape[0]), a, b, out, work)


@kernel
def matmul_nt(a, b, out, work):
    """out (m, n) = a · bᵀ with a (m, k), b (n, k)."""
    _store(NT, (a.shape[0], b.shape[0], a.shape[1]), a, b, out, work)


@kernel
def _store(form, shape, a, b, out, work):
    end = epilogue(STORE, out.dtype.type(1))
    matmul_ptr(form, shape, data_ptr(a), data_ptr(b), data_ptr(out), end, pointers(work))
