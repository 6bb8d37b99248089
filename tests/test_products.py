"""The product kernels: shapes, forms and dtypes, guarded and poisoned; bits that depend on nothing else."""

import hashlib
import itertools
import json

import numpy as np
import pytest

from backends import CPU, at_full_size
from conftest import ROOT
from lrcore import tableau
from lrcore.cpu import gemm
from networks import make

GUARD = 64  # numbers before and behind the output that must stay as they are


def _check(core, name, m, n, k, dtype, rng, work):
    shapes = {"matmul_nn": ((m, k), (k, n)), "matmul_tn": ((k, m), (k, n)), "matmul_nt": ((m, k), (n, k))}[name]
    a, b = (rng.standard_normal(shape, dtype) for shape in shapes)
    memory = np.full(m * n + 2 * GUARD, np.nan, dtype)
    memory[:GUARD] = memory[-GUARD:] = 7
    out = memory[GUARD:-GUARD].reshape(m, n)
    getattr(core, name)(a, b, out, work)
    left = a.T if name == "matmul_tn" else a
    right = b.T if name == "matmul_nt" else b
    wider = np.longdouble if dtype == np.float64 else np.float64
    exact = left.astype(wider, order="C") @ right.astype(wider, order="F")  # NumPy's loop of long doubles runs along k
    bound = k * np.finfo(dtype).eps * (np.abs(left).astype(np.float64) @ np.abs(right).astype(np.float64))
    assert (np.abs(out - exact) <= bound).all(), (name, m, n, k)
    assert (memory[:GUARD] == 7).all(), (name, m, n, k)
    assert (memory[-GUARD:] == 7).all(), (name, m, n, k)


def _workspace(core, largest, dtype):
    return core.workspace.allocate((largest, largest, largest), dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", ["matmul_nn", "matmul_tn", "matmul_nt"])
def test_every_small_shape(core, name, dtype):
    """1 … 40 cubed. Sizes along m and k are thinned out except near multiples of the tile; every n is there."""
    rng = np.random.default_rng(1)
    work = _workspace(core, 40, dtype)
    thin = [1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 25, 31, 32, 33, 40]
    tiny = (1, 4, 9), (1, 5, 8), (1, 3, 7)
    for m, n, k in itertools.product(*core.pick((thin, range(1, 41), thin), tiny)):
        _check(core, name, m, n, k, dtype, rng, work)


@pytest.mark.evidence
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", ["matmul_nn", "matmul_tn", "matmul_nt"])
@at_full_size
def test_every_shape_to_forty_cubed(core, name, dtype):
    rng = np.random.default_rng(1)
    work = _workspace(core, 40, dtype)
    for m, n, k in itertools.product(range(1, 41), repeat=3):
        _check(core, name, m, n, k, dtype, rng, work)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", ["matmul_nn", "matmul_tn", "matmul_nt"])
def test_large_shapes(core, name, dtype):
    """Across the limits of the blocks of k and of rows; on a GPU across those of its tiles."""
    rng = np.random.default_rng(2)
    work = _workspace(core, core.pick(700, 20), dtype)
    edges = [1, 50, gemm.BLOCK_K - 1, gemm.BLOCK_K, gemm.BLOCK_K + 1, gemm.BLOCK_ROWS + 1, 2 * gemm.BLOCK_ROWS, 643]
    shapes = [tuple(rng.choice(edges, 3)) for _ in range(10)] + [(643, 97, 641), (300, 1, 500), (1, 643, 643)]
    for m, n, k in core.pick(shapes, [(17, 13, 4), (9, 20, 7), (19, 1, 3), (1, 13, 30)]):
        _check(core, name, int(m), int(n), int(k), dtype, rng, work)


def _chain(a, b):
    """Σ a_k b_k as one chain of fused multiply-adds, in exact rational arithmetic rounded once each."""
    from fractions import Fraction

    total = 0.0
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        total = float(Fraction(x) * Fraction(y) + Fraction(total))
    return total


@pytest.mark.parametrize("count", [1, 5, 40, gemm.BLOCK_K + 30])
def test_elements_are_fma_chains(core, count, rng):
    """Exactly: an emulation in rational arithmetic gives the same bits, also across blocks of k."""
    a, b = rng.normal(size=(3, count)), rng.normal(size=(count, 10))
    out = np.empty((3, 10))
    core.matmul_nn(a, b, out, _workspace(core, max(count, 10), np.float64))
    for i, j in itertools.product(range(3), range(10)):
        assert out[i, j] == _chain(a[i], b[:, j])


WIDTHS = [(4, 4), (3, 5, 1, 4, 2, 6), (10, 10, 10, 10), (50, 20, 80, 30), (64, 64, 64), (30, 300, 210), (20, 1100, 40)]


def training_hash(core=CPU):
    """A hash of parameters and losses of GD and RK4 over several networks and both dtypes."""
    digest = hashlib.sha256()
    for dtype in (np.float64, np.float32):
        for widths in WIDTHS:
            params, sizes, target, work = make(widths, dtype, stages=4, core=core)
            losses = np.empty(6, dtype)
            h = dtype(0.01)
            core.gd_steps(params, sizes, target, h, losses, work)
            digest.update(losses.tobytes())
            core.rk_steps(params, sizes, target, h, tableau.RK4.astype(dtype), losses, work)
            digest.update(losses.tobytes() + params.tobytes())
    return digest.hexdigest()


@at_full_size
def test_the_golden_hash(core):
    """The bits that this version promises on every machine; a kernel that changes them says so in the changelog."""
    golden = json.loads((ROOT / "tests/golden.json").read_text())
    assert training_hash(core) == golden["training"]
