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

**Threads.** All threads of a run make the same calls, each with its own workspace: part p of P makes every P-th panel
and then waits for the others. No element is made by two threads, and none in another order, so bits stay.
"""

from typing import NamedTuple

import numpy as np

from lrcore.cpu._target import kernel, part, standalone
from lrcore.cpu._tile import NARROW, STAGE, STORE, TILE_ROWS, TILE_VECTORS, lanes, pack, pack_transposed, tile
from lrcore.cpu._vector import VECTOR_BITS, address, barrier, size_of

AB, AT_B, A_BT = 0, 1, 2
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


class Places(NamedTuple):
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
    meeting: int
    part: int
    parts: int
    size: int


@part
def places_of(work):
    """The Places of a workspace, which the caller keeps alive."""
    size = work.panel.itemsize
    return Places(
        address(work.prefix),
        address(work.prefix) + work.prefix.size * size,
        address(work.residual),
        address(work.back),
        work.back.size // 2 * size,
        address(work.columns),
        address(work.panel),
        address(work.sums),
        address(work.record),
        address(work.meeting),
        work.part,
        work.parts,
        size,
    )


@part
def share(size, places):
    """The part of a vector of `size` numbers that belongs to this thread: (first, last + 1)."""
    if places.parts == 1:  # two divisions take as long as a small product
        return 0, size
    return size * places.part // places.parts, size * (places.part + 1) // places.parts


@part
def meet(places):
    """Wait for the other threads of the run."""
    if places.parts > 1:
        barrier(places.meeting, places.parts)


@part
def product_at(form, mode, m, n, count, a, b, c, factor, target, columns, places):
    """c (m, n) by `mode` from a product with inner size `count`. Matrices are addresses of contiguous rows.

    form: AB (a (m, count), b (count, n)), AT_B (a (count, m), b (count, n)) or A_BT (a (m, count), b (n, count)).
    mode: STORE, UPDATE, RESIDUAL, NEGATE or STAGE, see `_tile.tile`. The dtype is that of `factor`.
    """
    buffers = (places.panel, places.sums)
    team = (places.part, places.parts)
    _product(form, mode, m, n, count, a, b, c, factor, target, columns, *buffers, *team)
    meet(places)


@standalone(8)
def _product(form, mode, m, n, count, a, b, c, factor, target, columns, panel, sums, part, parts):
    """`product_at` without waiting for the other threads: this thread's panels."""
    size = size_of(factor)
    panel_width = TILE_VECTORS * (VECTOR_BITS // (8 * size))
    narrow = form != A_BT and n <= NARROW * panel_width // TILE_VECTORS and m <= FEW_ROWS
    block_k = count
    if count > BLOCK_K:  # evenly, so that the last block is not a short one
        blocks = (count + BLOCK_K - 1) // BLOCK_K
        block_k = (count + blocks - 1) // blocks
    a_row, a_k = (np.intp(1), m) if form == AT_B else (count, np.intp(1))
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
            j = panel_width * part
            while j < n:
                width = min(panel_width, n - j)
                b_at = panel
                b_row = panel_width
                if narrow:
                    b_at = b + k * n * size
                    b_row = n
                elif form == A_BT:
                    pack_transposed(panel, b + (j * count + k) * size, count, width, length, factor)
                else:
                    pack(panel, b + (k * n + j) * size, n, width, length, factor)
                row = top
                for block in range(row_blocks):
                    partial = sums + ((row - top) * n + j) * size
                    offset = (row * n + j) * size
                    tile_rows = rows + 1 if block < thicker else rows
                    tile(
                        tile_rows,
                        width,
                        length,
                        a + (row * a_row + k * a_k) * size,
                        a_row,
                        a_k,
                        b_at,
                        b_row,
                        partial if k > 0 else 0,
                        n,
                        c + offset if last else partial,
                        n,
                        mode if last else np.intp(STORE),
                        factor,
                        target + offset,
                        columns if mode == STAGE else columns + j * size,
                    )
                    row += tile_rows
                j += panel_width * parts
            k += block_k
        top += BLOCK_ROWS


@kernel
def _store(form, m, n, count, a, b, out, work):
    one = out.dtype.type(1)
    none = np.intp(0)
    mode = np.intp(STORE)
    product_at(form, mode, m, n, count, address(a), address(b), address(out), one, none, none, places_of(work))


@kernel
def multiply(a, b, out, work):
    """out (m, n) = a (m, k) · b (k, n)."""
    _store(np.intp(AB), a.shape[0], b.shape[1], a.shape[1], a, b, out, work)


@kernel
def multiply_at(a, b, out, work):
    """out (m, n) = aᵀ · b with a (k, m), b (k, n)."""
    _store(np.intp(AT_B), a.shape[1], b.shape[1], a.shape[0], a, b, out, work)


@kernel
def multiply_bt(a, b, out, work):
    """out (m, n) = a · bᵀ with a (m, k), b (n, k)."""
    _store(np.intp(A_BT), a.shape[0], b.shape[0], a.shape[1], a, b, out, work)
