"""The Gram matrix of the shorter side of a matrix in float32, made in float64: half of a product, as it is symmetric.

The columns of A in Aᵀ·A, or its rows in A·Aᵀ, are packed into panels as wide as a tile and become float64 on the way.
Both factors are read from the same panels. Those of a block of the longer side stay in the second-level cache, and no
copy of the matrix in float64 is ever made. Nothing is scaled: squares of numbers of float32 lie far within the range
of float64, and are exact there.

Tiles on and below the diagonal are made (`lrcore.cpu.gemm` says what a tile is). An element is a sum over blocks of
chains of fused multiply-adds, k ascending: no bit depends on the width of a vector. More than SECTION blocks are summed
section by section, and the sections are added: a product passes through fewer than BLOCK + 2 max(SECTION, √blocks)
roundings. In one sum over all blocks, 16 × 1 000 000 equal numbers, whose roundings all have the same sign, were off by
1e-13 of σ_1², now by 2e-15.
"""

import numpy as np

from lrcore.cpu._target import kernel
from lrcore.cpu._tile import STORE, TILE_ROWS, TILE_VECTORS, UPDATE, lanes, pack_transposed, tile
from lrcore.cpu._vector import NULL, data_ptr
from lrcore.cpu.gemm import epilogue

SIZE = np.int64(8)
PANEL = np.int64(TILE_VECTORS * lanes(np.dtype(np.float64)))
BLOCK = np.int64(128)  # of the longer side; with 256 the time is the same within 5 %, and chains round twice as much
SECTION = np.int64(64)  # blocks


def panels_size(size):
    """Numbers in the buffer of all panels of a block; size: of the shorter side."""
    return -(-size // int(PANEL)) * int(PANEL * BLOCK)


def rows_size():
    """Numbers in the buffer of the rows of one panel, before they are transposed."""
    return int(PANEL * BLOCK)


def has_sections(count):
    """Whether the longer side, of length `count`, takes more than one section, for which `gram` needs work.section."""
    return count > SECTION * BLOCK


@kernel
def gram(matrix, work):
    """work.gram = AᵀA of an (m, n) matrix, or AAᵀ if m < n, on and below the diagonal; next to it also above."""
    size = min(matrix.shape)
    count = max(matrix.shape)
    if count <= SECTION * BLOCK:
        _sum_blocks(matrix, 0, count, work.gram, work)
        return
    length = max(SECTION, np.int64(np.sqrt(count / BLOCK))) * BLOCK
    work.gram[:size, :size] = 0
    for k in range(0, count, length):
        _sum_blocks(matrix, k, min(k + length, count), work.section, work)
        for i in range(size):
            for j in range(i + 1):
                work.gram[i, j] += work.section[i, j]


@kernel
def _sum_blocks(matrix, first, last, out, work):
    """What `gram` makes, of the rows or columns first … last − 1 of the longer side alone."""
    size = min(matrix.shape)
    for k in range(first, last, BLOCK):
        length = min(BLOCK, last - k)
        if matrix.shape[0] < matrix.shape[1]:
            _pack_rows(matrix[:, k : k + length], work)
        else:
            _pack_columns(matrix[k : k + length], work)
        _multiply_panels(size, length, STORE if k == first else UPDATE, out, work)


@kernel
def _pack_rows(block, work):
    """Panels of the rows of a block (size, length)."""
    size, length = block.shape
    panels = data_ptr(work.panels)
    rows = work.rows
    for first in range(0, size, PANEL):
        width = min(PANEL, size - first)
        for i in range(width):
            for k in range(length):
                rows[i * BLOCK + k] = block[first + i, k]
        pack_transposed(panels + first * BLOCK * SIZE, data_ptr(rows), BLOCK, width, length, rows.dtype.type(1))


@kernel
def _pack_columns(block, work):
    """Panels of the columns of a block (length, size)."""
    length, size = block.shape
    for first in range(0, size, PANEL):
        panel = work.panels[first * BLOCK :]
        width = min(PANEL, size - first)
        for k in range(length):
            for j in range(width):
                panel[k * PANEL + j] = block[k, first + j]


@kernel
def _multiply_panels(size, length, mode, result, work):
    """Each panel times itself and those after it, into or onto `result` by `mode`."""
    panels = data_ptr(work.panels)
    out = data_ptr(result)
    stride = np.intp(result.shape[1])
    end = epilogue(mode, work.gram.dtype.type(1))
    for column in range(0, size, PANEL):
        width = min(PANEL, size - column)
        b = (panels + column * BLOCK * SIZE, PANEL)
        for panel in range(column, size, PANEL):
            stop = min(panel + PANEL, size)
            for row in range(panel, stop, TILE_ROWS):
                rows = min(np.int64(TILE_ROWS), stop - row)
                a = (panels + (panel * BLOCK + row - panel) * SIZE, np.int64(1), PANEL)
                c = (out + (row * stride + column) * SIZE, stride)
                tile((rows, width, length), a, b, (NULL, stride), c, end)
