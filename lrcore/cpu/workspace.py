"""Every scratch buffer of the kernels, allocated once per run.

A kernel finds its buffers by name and leaves them dirty; nothing in here outlives a call except where a kernel's
docstring says so (`forward` leaves what `backward` reads).
"""

from typing import NamedTuple

import numpy as np

from lrcore import layout


class Workspace(NamedTuple):
    """Scratch for one network of `widths`; n_0 is the input width, P the number of parameters.

    prefix    sum of n_i·n_0 for 1 < i < N   the prefix products P_2 … P_{N-1} (P_1 is W_1 itself)
    residual  n_N·n_0                        the product minus the target: B_N of the backward chain
    back      2·max n_i·n_0                  B_i and B_{i-1}, which take turns
    square    max n_i², 0 < i < N            a Gram matrix (balancedness)
    columns   max n_i, i < N                 per-column sums of squares
    point     P                              where a Runge-Kutta stage is evaluated
    stages    (s, P)                         k_1 … k_s; row 0 for their weighted sum where that is enough
    panel     see lrcore.cpu.gemm            packed columns of B; aligned to 64 bytes
    sums      see lrcore.cpu.gemm            sums between blocks of k, for large matrices
    record    3, int64                       what a stage hands to the products (`STAGE` in lrcore.cpu._tile)
    barrier   16, int64                      where the threads of a run wait for each other

    thread_id    which of `num_threads` threads this workspace belongs to
    num_threads  how many threads share the run
    """

    prefix: np.ndarray
    residual: np.ndarray
    back: np.ndarray
    square: np.ndarray
    columns: np.ndarray
    point: np.ndarray
    stages: np.ndarray
    panel: np.ndarray
    sums: np.ndarray
    record: np.ndarray
    barrier: np.ndarray
    thread_id: int
    num_threads: int


def allocate(widths, dtype=np.float64, stages=0):
    """A Workspace for `widths`; `stages` is the number of Runge-Kutta stages, 0 when no flow is integrated."""
    from lrcore.cpu import gemm

    inputs = int(widths[0])
    inner = [int(n) for n in widths[1:-1]]
    parameters = layout.size(widths)
    return Workspace(
        prefix=layout.aligned(sum(inner[1:]) * inputs, dtype),
        residual=layout.aligned(int(widths[-1]) * inputs, dtype),
        back=layout.aligned(2 * max(inner, default=0) * inputs, dtype),
        square=layout.aligned(max((n * n for n in inner), default=0), dtype),
        columns=layout.aligned(max(inputs, *inner, 0), dtype),
        point=layout.aligned(parameters if stages else 0, dtype),
        stages=layout.aligned((stages, parameters if stages else 0), dtype),
        panel=layout.aligned(gemm.panel_size(np.dtype(dtype)), dtype),
        sums=layout.aligned(max(gemm.sums_size(*shape) for shape in _products(widths)), dtype),
        record=np.zeros(3, np.int64),
        barrier=np.zeros(16, np.int64),
        thread_id=0,
        num_threads=1,
    )


def thread_workspaces(widths, dtype=np.float64, stages=0, threads=1):
    """One Workspace for each thread of a run: everything is shared but the panel.

    All threads call the same kernel with the same arrays, each with its own workspace, and return the same status.
    """
    first = allocate(widths, dtype, stages)
    panels = [first.panel] + [layout.aligned(first.panel.size, dtype) for _ in range(threads - 1)]
    return [first._replace(panel=panel, thread_id=i, num_threads=threads) for i, panel in enumerate(panels)]


def _products(widths):
    """(rows, columns, inner size) of every product: of a regression, forward, backward, gradients, Gram matrices."""
    inputs = int(widths[0])
    yield int(widths[-1]), inputs, inputs
    for n, below in layout.shapes(widths):
        yield from ((n, inputs, below), (below, inputs, n), (n, below, inputs), (n, n, below), (below, below, n))


class CurvatureWorkspace(NamedTuple):
    """Scratch for `hessian_point` and what follows it; n_0 is the input width, P the number of parameters.

    chain      a Workspace           P_i and G; panel and sums of the products
    back       as chain.prefix       B_2 … B_{N−1}
    prefix     as chain.prefix       the tangents of P_2 … P_{N−1}
    grad_product  n_N·n_0            the tangent of the product, then that of G
    direction  P                     a unit vector
    """

    chain: Workspace
    back: np.ndarray
    prefix: np.ndarray
    grad_product: np.ndarray
    direction: np.ndarray


def allocate_curvature(widths, dtype=np.float64):
    """A CurvatureWorkspace for `widths`."""
    chain = allocate(widths, dtype)
    sizes = chain.prefix.size, chain.prefix.size, chain.residual.size, layout.size(widths)
    return CurvatureWorkspace(chain, *(layout.aligned(size, dtype) for size in sizes))


class KernelWorkspace(NamedTuple):
    """Scratch for the neural tangent kernel.

    chain  a Workspace                               panel and sums of the products
    turns  2·max n_i·max(n_0, n_N), 0 < i < N        products of a part of the chain, which take turns
    moved  n_N·n_0                                   left_i · matrix
    change n_N·n_0                                   what a step of the linearised network changes
    ends   2, int64                                  n_0 and n_N: the widths of that network
    """

    chain: Workspace
    turns: np.ndarray
    moved: np.ndarray
    change: np.ndarray
    ends: np.ndarray


def allocate_ntk(widths, dtype=np.float64):
    """A KernelWorkspace for `widths`."""
    from lrcore.cpu import gemm

    chain = allocate(widths, dtype)
    ends = (int(widths[-1]), int(widths[0]))
    widest = max((int(n) for n in widths[1:-1]), default=0)
    sums = max(gemm.sums_size(*shape) for shape in _kernel_products(widths))
    return KernelWorkspace(
        chain._replace(sums=layout.aligned(max(sums, chain.sums.size), dtype)),
        turns=layout.aligned(2 * widest * max(ends), dtype),
        moved=layout.aligned(ends[0] * ends[1], dtype),
        change=layout.aligned(ends[0] * ends[1], dtype),
        ends=np.array(ends[::-1], np.int64),
    )


def _kernel_products(widths):
    """As `_products`, of the factors of the tangent kernel and of its application."""
    outputs = int(widths[-1])
    inputs = int(widths[0])
    yield from ((outputs, inputs, outputs), (outputs, inputs, inputs))
    for n, below in layout.shapes(widths):
        yield from ((n, inputs, below), (inputs, inputs, below), (outputs, below, n), (outputs, outputs, n))


class BatchWorkspace(NamedTuple):
    """Scratch for one block of a batch. Every buffer has the lanes (runs) as its last index, left out here.

    prefix, residual, back, columns, point, stages: as in `Workspace`
    loss      ()                 losses of one step
    factors   1, or s·s + s      the factor of the gradient, or the time step times the tableau
    """

    prefix: np.ndarray
    residual: np.ndarray
    back: np.ndarray
    columns: np.ndarray
    point: np.ndarray
    stages: np.ndarray
    loss: np.ndarray
    factors: np.ndarray


def allocate_batch(widths, dtype=np.float64, stages=0):
    """A BatchWorkspace for `widths`; `stages` as for `allocate`. It does not depend on the number of runs."""
    inputs = int(widths[0])
    inner = [int(n) for n in widths[1:-1]]
    lanes = layout.lanes(dtype)
    parameters = layout.size(widths) if stages else 0

    def buffer(*shape):
        return layout.aligned((*shape, lanes), dtype)

    return BatchWorkspace(
        prefix=buffer(sum(inner[1:]) * inputs),
        residual=buffer(int(widths[-1]) * inputs),
        back=buffer(2, max(inner, default=0) * inputs),
        columns=buffer(inputs),
        point=buffer(parameters),
        stages=buffer(stages, parameters),
        loss=buffer(),
        factors=buffer(stages * stages + stages if stages else 1),
    )


DRAWS_AHEAD = 32  # of the entries that stochastic steps see


class SGDWorkspace(NamedTuple):
    """Scratch for stochastic steps on single entries; B is the batch size, m the number of entries.

    forward, back  (B, n_1 + … + n_{N−1})   f_1 … f_{N−1} and b_1 … b_{N−1} of every entry of a batch
    residual       (B,)
    order          (m + 2,), int64          the last permutation and its name (see `cpu.draws`)
    drawn          (≥ B,), int64            entries drawn ahead
    """

    forward: np.ndarray
    back: np.ndarray
    residual: np.ndarray
    order: np.ndarray
    drawn: np.ndarray


def allocate_sgd(widths, entries, batch=1, dtype=np.float64):
    """An SGDWorkspace for networks of `widths`; entries: their number m."""
    ends = batch, sum(int(n) for n in widths[1:-1])
    return SGDWorkspace(
        forward=layout.aligned(ends, dtype),
        back=layout.aligned(ends, dtype),
        residual=layout.aligned(batch, dtype),
        order=np.zeros(entries + 2, np.int64),
        drawn=np.empty(max(DRAWS_AHEAD, batch), np.int64),
    )


class BatchSGDWorkspace(NamedTuple):
    """Scratch for one block of runs under stochastic steps. The lanes are the last index unless said otherwise.

    forward, back  (B, n_1 + … + n_{N−1} or 1), as in `SGDWorkspace`
    residual       (B,)
    rows, columns, values  (≥ B,)           of entries drawn ahead: how far into the last and the first layer the row
                                            and the column lie, in bytes (int64), and the values that are aimed at
    total, rate, decay   ()                 sum of squares, −η · weight / batch, 1 − 2ηλ
    steps_made     (), int64                steps before a run ended
    order          (lanes, m + 2), int64    lanes first
    drawn          (≥ B,), int64            without lanes
    """

    forward: np.ndarray
    back: np.ndarray
    residual: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    total: np.ndarray
    rate: np.ndarray
    decay: np.ndarray
    steps_made: np.ndarray
    order: np.ndarray
    drawn: np.ndarray


def allocate_batch_sgd(widths, entries, batch=1, dtype=np.float64):
    """A BatchSGDWorkspace; it does not depend on the number of runs."""
    ends = max(sum(int(n) for n in widths[1:-1]), 1)
    ahead = max(DRAWS_AHEAD, batch)
    lanes = layout.lanes(dtype)

    def buffer(*shape, kind=dtype):
        return layout.aligned((*shape, lanes), kind)

    return BatchSGDWorkspace(
        forward=buffer(batch, ends),
        back=buffer(batch, ends),
        residual=buffer(batch),
        rows=buffer(ahead, kind=np.int64),
        columns=buffer(ahead, kind=np.int64),
        values=buffer(ahead),
        total=buffer(),
        rate=buffer(),
        decay=buffer(),
        steps_made=buffer(kind=np.int64),
        order=np.zeros((lanes, entries + 2), np.int64),
        drawn=np.empty(ahead, np.int64),
    )


class DiagonalWorkspace(NamedTuple):
    """Scratch for `lrcore.cpu.diagonal`: n modes of N layers.

    prefix (N, n) products from the first layer on; back (n,) residual; point (N, n), stages (s, N, n): empty without
    stages
    """

    prefix: np.ndarray
    back: np.ndarray
    point: np.ndarray
    stages: np.ndarray


def allocate_diagonal(depth, size, dtype=np.float64, stages=0):
    """A DiagonalWorkspace; `stages` as for `allocate`."""
    inner = (depth, size) if stages else (0, 0)
    shapes = ((depth, size), (size,), inner, (stages, *inner))
    return DiagonalWorkspace(*(layout.aligned(shape, dtype) for shape in shapes))


class ReductionWorkspace(NamedTuple):
    """Scratch for the reduction of one matrix to a bidiagonal one; its longer side is m, the shorter n.

    Lengths are rounded up to whole vectors; what is beyond the matrix stays 0. Without vectors, left has one row and
    right two, which are used in turn, and no reflection is kept.

    matrix    (m, ≥ n)          a copy, stride an odd number of vectors so that rows fall into different cache sets
    across    n                 w
    down      m                 y
    sums      (m, lanes)        of the rows, before the lanes are added
    left      (n or 1, m)       the reflections from the left, a row each
    right     (n or 2, n)       those from the right
    factors   (2, n)            their τ, left ones first
    diagonal  n exactly         B
    above     n exactly         its superdiagonal, and 0 at the end
    u, v      (count, m), (count, n)   the leading vectors, a row each
    """

    matrix: np.ndarray
    across: np.ndarray
    down: np.ndarray
    sums: np.ndarray
    left: np.ndarray
    right: np.ndarray
    factors: np.ndarray
    diagonal: np.ndarray
    above: np.ndarray
    u: np.ndarray
    v: np.ndarray


class LanesWorkspace(NamedTuple):
    """Scratch for the values of as many bidiagonal matrices as a vector has lanes; n is the largest size.

    q, e, values   (n + 3, lanes)
    q_new, e_new   (2 (n + 3), lanes)   the second half keeps q and e as they were, for the proof of the values
    state                        (rows of lrcore.cpu.qds, lanes)
    """

    q: np.ndarray
    e: np.ndarray
    q_new: np.ndarray
    e_new: np.ndarray
    values: np.ndarray
    state: np.ndarray


SHARED = 4  # buffers of a reduction that are not needed once the matrix is reduced: the first ones


def reduction_shapes(shape, count):
    """The shapes of the arrays of a ReductionWorkspace for a matrix of this shape and so many vectors."""
    long = _whole(max(shape))
    n = min(shape)
    short = _whole(n)
    return (
        (long, _odd(short)),
        (short,),
        (long,),
        (long, layout.lanes(np.float64)),
        (n if count else 1, long),
        (n if count else 2, short),
        (2, n),
        (n,),
        (n,),
        (count, long),
        (count, short),
    )


def allocate_spectra(shapes, counts):
    """A `decomposition.Decomposition` for `spectra` of matrices of `shapes`.

    counts: how many leading vectors are wanted of each, 0 for values alone. Matrices of one shape share what is not
    needed once they are reduced.
    """
    from lrcore.cpu import decomposition

    return decomposition.allocate(shapes, counts)


def allocate_sheet(sheet):
    """A `lrcore.cpu.sheet.SheetWorkspace` for a `lrcore.sheet.Sheet`."""
    from lrcore.cpu import sheet as kernels

    return kernels.allocate(sheet, allocate(sheet.widths, sheet.dtype))


class GramWorkspace(NamedTuple):
    """Scratch for the values of one matrix after the other by way of its Gram matrix; n is the largest shorter side.

    Lengths are rounded up to whole vectors. In all about n² + 150 n numbers, or 2n² where a longer side has sections
    (see lrcore.cpu.gram): no matrix is copied.

    gram         (n, ≥ n)    stride as in `ReductionWorkspace`
    section      (n, ≥ n)    of one section, with n of the matrices that have some
    panels       see lrcore.cpu.gram   a block of the longer side, packed
    rows         see lrcore.cpu.gram   rows of one panel, before they are transposed
    reflections  (2, n)      this one and the last one, which take turns
    owed         n           w
    mirrored     n           what G u has from above the diagonal
    sums         (n, lanes)  of the rows, before the lanes are added
    diagonal     n exactly   T
    beside       n exactly   what is beside its diagonal, and 0 at the end
    """

    gram: np.ndarray
    section: np.ndarray
    panels: np.ndarray
    rows: np.ndarray
    reflections: np.ndarray
    owed: np.ndarray
    mirrored: np.ndarray
    sums: np.ndarray
    diagonal: np.ndarray
    beside: np.ndarray


class WeightValuesWorkspace(NamedTuple):
    """Scratch for `weight_values`: a GramWorkspace and a LanesWorkspace for matrices in float32, what
    `allocate_spectra` gives for those in float64; None where there are none of a dtype."""

    gram: GramWorkspace | None
    lanes: LanesWorkspace | None
    spectra: tuple | None


def allocate_weight_values(shapes, dtypes):
    """A WeightValuesWorkspace for matrices of `shapes`, each with its dtype in `dtypes`: float32 or float64."""
    single, double = (
        [shape for shape, dtype in zip(shapes, dtypes, strict=True) if np.dtype(dtype) == kind]
        for kind in (np.float32, np.float64)
    )
    size = max((min(shape) for shape in single), default=0)
    return WeightValuesWorkspace(
        _gram_workspace(single, size) if single else None,
        allocate_lanes(size) if single else None,
        allocate_spectra(double, [0] * len(double)) if double else None,
    )


def _gram_workspace(matrices, n):
    from lrcore.cpu import gram

    whole = _whole(n)
    lanes = layout.lanes(np.float64)
    long = max((min(shape) for shape in matrices if gram.has_sections(max(shape))), default=0)
    shapes = (
        (n, _odd(whole)),
        (long, _odd(_whole(long))),
        (gram.panels_size(n),),
        (gram.rows_size(),),
        (2, whole),
        (whole,),
        (whole,),
        (whole, lanes),
        (n,),
        (n,),
    )
    return GramWorkspace(*(_zeros(*shape) for shape in shapes))


def _odd(size):
    """Whole vectors of at least `size`, an odd number of them."""
    lanes = layout.lanes(np.float64)
    return size + lanes * (size // lanes % 2 == 0)


def lanes_shapes(n):
    """The shapes of the arrays of a LanesWorkspace for bidiagonal matrices of size up to n."""
    from lrcore.cpu import qds

    lanes = layout.lanes(np.float64)
    return *((rows * (n + 3), lanes) for rows in (1, 1, 2, 2, 1)), (qds.STATES, lanes)


def allocate_lanes(n):
    """A LanesWorkspace for bidiagonal matrices of size up to n."""
    return LanesWorkspace(*(_zeros(*shape) for shape in lanes_shapes(n)))


def _whole(size):
    """`size` rounded up to whole vectors."""
    lanes = layout.lanes(np.float64)
    return -(-size // lanes) * lanes


def _zeros(*shape):
    buffer = layout.aligned(shape, np.float64)
    buffer[...] = 0
    return buffer
