"""The singular values of A as those of a small B with BᵀB = AᵀA: bidiagonal by way of the tridiagonal T = Qᵀ AᵀA Q.

This is faster than to reduce A itself, and most of it is a product. The price is the accuracy of small values;
`lrcore.cpu.svd` says what is left.

Of the Gram matrix G every column k is cleared below the subdiagonal by a reflection 1 − τ u uᵀ: with p = τ G u and
w = p − ½ τ (pᵀu) u it makes G − u wᵀ − w uᵀ. G is larger than the first-level cache, so what counts is how often it
passes through it. Only its lower half is read, and once per column: what the last reflection still owes is subtracted
where the product with the next u reads the matrix anyway. That u needs one column of G before, less what is owed.

                     ┌──────┐
    strips go down,  │square│
    first the square ├──────┤ ─▶ p_i += g_ij u_j                      row i
    on the diagonal, │ g_ij │
    which is whole:  │      │ ─▶ p_j += g_ij u_i, its mirror image    column j
                     └──────┘

No bit depends on the processor: sums follow the lanes of `_lanes` and strips begin at multiples of their width.
"""

import numpy as np

from lrcore.cpu._lanes import fma_lanes, load_lanes, splat_lanes, store_lanes, sum_lanes, zero_lanes
from lrcore.cpu._strips import STRIP, across_strip, mirrored_strip, total_rows
from lrcore.cpu._target import kernel
from lrcore.cpu._vector import data_ptr
from lrcore.cpu.bidiagonal import householder
from lrcore.cpu.gram import gram
from lrcore.layout import LANE_BYTES

UNIT, LANES, SIZE = np.int64(LANE_BYTES), np.int64(LANE_BYTES // 8), np.int64(8)
SQUARE = STRIP * LANES
SHIFT = 1e-12  # of the norm of T: far above what its least eigenvalue rounds by, and costs no more than a rounding


@kernel
def bidiagonalize_gram(matrix, work, lane, lanes):
    """B of an (m, n) matrix in float32: BᵀB has the eigenvalues of AᵀA, or of AAᵀ if m < n, and all are larger by δ.

    The squares of its diagonal and of what is above it go to column `lane` of lanes.q and lanes.e. Returns δ; 0 for a
    zero matrix, and NaN for what is not finite or not positive within δ. work: a GramWorkspace.
    """
    size = min(matrix.shape)
    gram(matrix, work)
    trace = 0.0
    for i in range(size):
        trace += work.gram[i, i]
    if trace == 0 or not np.isfinite(trace):
        return trace - trace
    tridiagonalize(size, work)
    return _factor(size, work, lane, lanes)


@kernel
def tridiagonalize(size, work):
    """T of the symmetric work.gram[:size, :size], of which the lower half is given: work.diagonal and work.beside."""
    g = work.gram
    w = work.owed
    last = work.reflections[0]
    u = work.reflections[1]
    _complete(size, work)
    last[:] = 0
    u[:] = 0
    w[:] = 0
    work.sums[:] = 0
    for k in range(size):
        work.diagonal[k] = g[k, k] - 2 * last[k] * w[k]
        work.beside[k] = 0
        if k < size - 1:
            u[k // LANES * LANES : k + 1] = 0
            for i in range(k + 1, size):
                u[i] = g[i, k] - last[i] * w[k] - w[i] * last[k]
            tau, work.beside[k], _ = householder(g.dtype, k + 1, data_ptr(u), size)
            _subtract_and_multiply(k + 1, size, last, u, work)
            _owe(k + 1, size, tau, u, work)
            last, u = u, last


@kernel
def _complete(size, work):
    """The squares on the diagonal whole, and zeros from there to whole vectors."""
    g = work.gram
    columns = (size + LANES - 1) // LANES * LANES
    for i in range(size):
        for j in range(i + 1, min((i // SQUARE + 1) * SQUARE, columns)):
            g[i, j] = g[j, i] if j < size else 0


@kernel
def _subtract_and_multiply(first, size, last, u, work):
    """From row and column `first` on: G −= w lastᵀ + last wᵀ, then G u, in work.sums by rows and work.mirrored by
    columns."""
    g = data_ptr(work.gram)
    stride = work.gram.shape[1] * SIZE
    w = data_ptr(work.owed)
    v = data_ptr(last)
    x = data_ptr(u)
    sums = data_ptr(work.sums)
    t = data_ptr(work.mirrored)
    columns = (size + LANES - 1) // LANES * LANES
    at = first // LANES * LANES
    work.sums[first:size] = 0
    while at < columns:
        end = min((at // SQUARE + 1) * SQUARE, columns)
        # c, i: how far into a vector a column, a row is
        c = at * SIZE
        vectors = (end - at) // LANES
        top = max(at, first)
        below = min(end, size)
        i = top * SIZE
        strip = (vectors, g + top * stride + c, stride, below - top)
        across_strip(strip, (w + i, v + c, v + i, w + c), x + c, sums + top * UNIT)
        work.mirrored[at:end] = 0
        if below < size:
            i = below * SIZE
            strip = (vectors, g + below * stride + c, stride, size - below)
            mirrored_strip(strip, (w + i, v + c, v + i, w + c), x + c, sums + below * UNIT, (x + i, t + c))
        at = end


@kernel
def _owe(first, size, tau, u, work):
    """w = p − ½ τ (pᵀu) u with p = τ G u."""
    dtype = u.dtype
    w = data_ptr(work.owed)
    t = data_ptr(work.mirrored)
    x = data_ptr(u)
    start = first // LANES * SIZE * LANES
    end = (size + LANES - 1) // LANES * UNIT
    total = zero_lanes(u.dtype)
    for at in range(start, end, UNIT):
        total_rows(data_ptr(work.sums) + at * LANES, tau, w + at)
        p = fma_lanes(splat_lanes(tau), load_lanes(dtype, t + at), load_lanes(dtype, w + at))
        store_lanes(p, w + at)
        total = fma_lanes(p, load_lanes(dtype, x + at), total)
    share = splat_lanes(-0.5 * tau * sum_lanes(total))
    for at in range(start, end, UNIT):
        store_lanes(fma_lanes(share, load_lanes(dtype, x + at), load_lanes(dtype, w + at)), w + at)


@kernel
def _factor(size, work, lane, lanes):
    """Cholesky's factor of T + δ: the squares of B to `lane`. Returns δ, NaN where T + δ is not positive."""
    d = work.diagonal
    b = work.beside
    bound = 0.0
    for i in range(size):
        bound = max(bound, abs(d[i]) + abs(b[i]) + (abs(b[i - 1]) if i > 0 else 0.0))
    shift = SHIFT * bound
    e = 0.0
    for i in range(size):
        q = d[i] + shift - e
        if not q > 0:
            return np.nan
        e = b[i] * b[i] / q
        lanes.q[i, lane] = q
        lanes.e[i, lane] = e
    return shift
