"""The whole job of the protocol by others: train, and measure everything at every tenth step.

Written with what NumPy and PyTorch have in common, as a user of either would, and with no metric computed twice.
"""

import itertools
import tempfile
from pathlib import Path

import numpy as np
from peers import numpy_gradients

import lrbias as lb
from lrcore import cpu
from lrcore.cpu import workspace

N = 100
RANK = 10
LR = 1e-3
GAMMA = 1.5


def _setting(depth=3):
    target = lb.teacher(shape=(N, N), rank=RANK, depth=3, spectral_norm=10.0, seed=0)
    return target, lb.Network.gaussian((N,) * (depth + 1), gamma=GAMMA, seed=1)


def ours(steps, record, stored=True):
    """lrbias.train with a store and progress off, as `lrbias run` does it. record: of lb.Record."""
    target, network = _setting()

    def run():
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "run" if stored else None
            lb.train(
                lb.Factorization(target),
                network,
                lb.GD(lr=LR),
                steps,
                record,
                store=store,
                progress=False,
                forecast=False,
            )

    return run


def _matrices(n):
    """Eight of a record at depth 3: product, layers and their gradients; and the vectors that are read of each."""
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(n, n)) * 0.5 / np.sqrt(n) for _ in range(3)]
    target = rng.normal(size=(n, n))
    product = layers[2] @ layers[1] @ layers[0]
    matrices = [product, *layers, product - target, *numpy_gradients(layers, target)[1]]
    return matrices, [min(n, RANK), 1, 1, 1, 0, 0, 0, 0]


def record_svds(n):
    matrices, counts = _matrices(n)
    work = workspace.allocate_spectra([matrix.shape for matrix in matrices], counts)
    return lambda: cpu.spectra(matrices, counts, work)


def record_svds_lapack(n):
    """The same by LAPACK's divide and conquer (gesdd): vectors where some are read, else values alone."""
    matrices, counts = _matrices(n)
    return lambda: [np.linalg.svd(m, compute_uv=count > 0) for m, count in zip(matrices, counts, strict=True)]


def with_numpy(steps, every):
    target, network = _setting()
    return lambda: _job(np, [layer.copy() for layer in network.layers], target, steps, every)


def with_torch(steps, every, depth=3, threads=1):
    import torch

    target, network = _setting(depth)

    def run():
        torch.set_num_threads(threads)
        with torch.no_grad():
            _job(torch, [torch.tensor(layer) for layer in network.layers], torch.tensor(target), steps, every)

    return run


def _job(library, layers, target, steps, every):
    u, _, vt = library.linalg.svd(target)
    teacher = (u[:, :RANK], vt[:RANK].T)
    log = []
    for step in range(steps + 1):
        loss, slopes = numpy_gradients(layers, target)
        if step % every == 0:
            log.append((loss, measure(library, layers, slopes, target, teacher)))
        for layer, slope in zip(layers, slopes, strict=True):
            layer -= LR * slope
    return log


def measure(library, layers, slopes, target, teacher):
    """Everything that lrbias records by default, each thing once."""
    product = layers[-1]
    for layer in reversed(layers[:-1]):
        product = product @ layer
    svds = [library.linalg.svd(matrix) for matrix in (product, *layers)]
    return {
        "values": [(s, _ranks(library, s)) for _, s, _ in svds],
        "alignment": _alignment(library, svds[0], teacher),
        "layer_alignment": [abs(a[0][:, 0] @ b[2][0]) for a, b in itertools.pairwise(svds[1:])],
        "balancedness": [_norm(library, b.T @ b - a @ a.T) for a, b in itertools.pairwise(layers)],
        "gradients": [library.linalg.svdvals(slope) for slope in (product - target, *slopes)],
        "directions": [_direction(library, layer, slope) for layer, slope in zip(layers, slopes, strict=True)],
    }


def _ranks(library, s):
    p = s / s.sum()
    p = p[p > 0]
    frobenius = _norm(library, s)
    return (
        s.sum() / s[0],
        library.exp(-(p * library.log(p)).sum()),
        (frobenius / s[0]) ** 2,
        (s > 1e-6).sum(),
        (s > 1e-3 * s[0]).sum(),
        (s > 1e-3 * frobenius).sum(),
    )


def _norm(library, array):
    return library.sqrt((array**2).sum())


def _alignment(library, svd, teacher):
    """Cosines of single directions, and both cosines and sines of the angles between the subspaces."""
    found = []
    for vectors, known in ((svd[0][:, :RANK], teacher[0]), (svd[2][:RANK].T, teacher[1])):
        inner = vectors.T @ known
        sines = library.linalg.svdvals(known - vectors @ inner)
        found.append((abs(library.diagonal(inner)), library.linalg.svdvals(inner), sines))
    return found


def _direction(library, layer, slope):
    norm, slope_norm = _norm(library, layer), _norm(library, slope)
    moved = layer - LR * slope
    change = _norm(library, moved / _norm(library, moved) - layer / norm)
    return slope_norm, (layer * slope).sum() / (norm * slope_norm), change
