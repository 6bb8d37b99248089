"""Singular values by way of Gram matrices: the error bound over hard spectra, exact cases, bits."""

import hashlib
import sys
import threading

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from lrcore import cpu, reference
from lrcore.cpu import gram, svd, workspace
from lrcore.cpu.decomposition import COLUMNS, ROWS
from lrcore.cpu.qds import LANES
from lrcore.cpu.tridiagonal import tridiagonalize

EPSILON = 2e-14  # of the docstring: |σ̂² − σ²| / σ_1²
SHAPES = [(1, 1), (1, 9), (9, 1), (2, 3), (64, 9), (10, 128), (40, 40), (77, 31), (31, 300), (300, 140)]
ids = {"ids": lambda shape: f"{shape[0]}x{shape[1]}"}


def _work(matrices):
    return workspace.allocate_weight_values([m.shape for m in matrices], [m.dtype for m in matrices])


def _values(matrices):
    return cpu.weight_values(matrices, _work(matrices))


def _single(matrix):
    return np.ascontiguousarray(matrix, np.float32)


def _with_values(values, shape, rng):
    """A matrix of `shape` whose singular values are `values` but for rounding to float32."""
    left, right = (np.linalg.qr(rng.normal(size=(n, min(shape))))[0] for n in shape)
    return _single((left * values) @ right.T)


def _check(matrix, values):
    """The bound that the docstring proves, against the reference."""
    (expected,) = reference.weight_values([matrix])
    assert values.dtype == np.float64
    assert values.shape == expected.shape
    assert (np.diff(values) <= 0).all()
    assert (values >= 0).all()
    ours = values / expected[0]
    exact = expected / expected[0]
    assert np.abs(ours**2 - exact**2).max() < EPSILON
    error = np.abs(ours - exact)
    assert error.max() < 1.5e-7
    assert error[exact >= 1e-6].max() < 2e-8
    assert error[exact >= 1e-3].max() < 2e-11


SPECTRA = {
    "random": lambda k, rng: rng.random(k),
    "graded to 1e-12": lambda k, rng: np.logspace(0, -12, k),
    "steep": lambda k, rng: 1e-3 ** np.arange(float(k)),
    "rank 2": lambda k, rng: np.array([3.0, 2.0] + [0.0] * k)[:k],
    "one large": lambda k, rng: np.array([1e6] + [1.0] * k)[:k],
    "equal": lambda k, rng: np.ones(k),
    "clusters": lambda k, rng: np.repeat([1.0, 1e-3, 1e-5], -(-k // 3))[:k],
    "tiny cluster": lambda k, rng: np.where(np.arange(k) < 3, 1.0, 1e-6 * (1 + 1e-3 * rng.random(k))),
}


@pytest.mark.parametrize("shape", SHAPES, **ids)
@pytest.mark.parametrize("name", SPECTRA)
def test_hard_spectra(name, shape, rng):
    matrix = _with_values(SPECTRA[name](min(shape), rng), shape, rng)
    _check(matrix, _values([matrix])[0])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 70), st.integers(1, 300), st.floats(0, 12)), min_size=1, max_size=11),
    st.integers(0, 2**31),
)
def test_random_shapes_and_gradings(kinds, seed):
    """More matrices than lanes, of all sizes, in one workspace; columns graded over up to twelve orders."""
    rng = np.random.default_rng(seed)
    matrices = [_single(rng.normal(size=(m, n)) * 10.0 ** (-grade * rng.random(n))) for m, n, grade in kinds]
    for matrix, values in zip(matrices, _values(matrices), strict=True):
        _check(matrix, values)


@pytest.mark.parametrize("make", [np.ones, np.eye, np.tri], ids=["ones", "identity", "triangle"])
@pytest.mark.parametrize("n", [1, 2, 8, 9, 33, 64])
def test_special_matrices(make, n):
    matrix = _single(make((n, 2 * n)) if make is np.ones else make(n))
    _check(matrix, _values([matrix])[0])


@pytest.mark.parametrize("scale", [-140, -100, 0, 100, 120])
def test_exact_values_at_all_scales(scale, rng):
    """A Hadamard matrix with columns times powers of two: σ = 8 · 2^j exactly, and all sums are exact.

    At 2^−140 these are subnormal numbers of float32; squares beyond its range are within that of float64.
    """
    powers = 2.0 ** np.repeat(np.arange(0, -8, -1), 8)
    matrix = _single(scipy.linalg.hadamard(64) * powers * 2.0**scale)
    exact = 8 * powers * 2.0**scale
    wide, tall = _values([matrix[:, rng.permutation(64)].copy(), np.vstack([matrix, np.zeros_like(matrix)])])
    assert np.abs(wide / exact - 1).max() < 1e-13
    assert np.abs(tall / exact - 1).max() < 1e-13


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30, 3e37])
@pytest.mark.parametrize("shape", [(20, 90), (90, 20)], **ids)
def test_extreme_scales(scale, shape, rng):
    matrix = _single(scale * np.clip(rng.normal(size=shape), -3, 3))
    _check(matrix, _values([matrix])[0])


@pytest.mark.parametrize("shape", SHAPES, **ids)
def test_the_gram_matrix_is_that_product(shape, rng):
    """Integers, whose sums are exact in any order."""
    matrix = _single(rng.integers(-99, 100, shape))
    work = _work([matrix]).gram
    n = min(shape)
    work.gram[:] = work.panels[:] = work.rows[:] = np.nan
    gram.gram(matrix, work)
    wide = matrix.astype(float) if shape[0] < shape[1] else matrix.T.astype(float)
    assert np.array_equal(np.tril(work.gram[:n, :n]), np.tril(wide @ wide.T))


@pytest.mark.parametrize("n", [1, 2, 3, 8, 9, 31, 32, 33, 64, 100])
def test_the_tridiagonal_matrix_is_similar(n, rng):
    """Trace, norm and eigenvalues stay. Neither old scratch is read nor what lies above the diagonal."""
    half = rng.normal(size=(n, n))
    symmetric = half + half.T
    work = workspace.allocate_weight_values([(100, 100)], [np.float32]).gram
    for buffer in work:
        buffer[:] = np.nan
    work.gram[:n, :n] = np.where(np.tri(n, dtype=bool), symmetric, np.nan)
    tridiagonalize(n, work)
    diagonal = work.diagonal[:n]
    beside = work.beside[: n - 1]
    assert np.isclose(diagonal.sum(), np.trace(symmetric), rtol=1e-12, atol=1e-12 * n)
    assert np.isclose((diagonal**2).sum() + 2 * (beside**2).sum(), (symmetric**2).sum(), rtol=1e-13)
    found = scipy.linalg.eigvalsh_tridiagonal(diagonal, beside)
    assert np.allclose(found, np.linalg.eigvalsh(symmetric), rtol=0, atol=1e-14 * n * np.linalg.norm(symmetric))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_finite_is_nan_and_spoils_nothing_else(bad, dtype, rng):
    matrices = [rng.normal(size=shape).astype(dtype) for shape in [(30, 50), (30, 50), (20, 9), (40, 60)]]
    matrices[1][3, 3] = bad
    work = _work(matrices)
    first, second = cpu.weight_values(matrices, work), cpu.weight_values(matrices, work)
    assert np.isnan(first[1]).all()
    assert first[1].shape == (30,)
    alone = _values([matrices[i] for i in (0, 2, 3)])
    for found in (first, second):
        assert all(np.array_equal(found[i], values) for i, values in zip((0, 2, 3), alone, strict=True))


def test_zero_is_zero_and_nothing_is_nothing():
    zeros = [np.zeros((5, 8), np.float32), np.zeros((8, 5))]
    assert all(np.array_equal(values, np.zeros(5)) for values in _values(zeros))
    assert _values([]) == []


def test_float64_keeps_its_accuracy_beside_float32(rng):
    """σ = 2^−40 of a float64 matrix to 1e-3 of itself, where a Gram matrix would leave nothing of it."""
    double = scipy.linalg.hadamard(32) * 2.0 ** np.linspace(0, -40, 32).round()
    single = _with_values(np.logspace(0, -3, 20), (20, 30), rng)
    first, second, third = _values([double, single, double.T.copy()])
    exact = np.sqrt(32) * 2.0 ** np.linspace(0, -40, 32).round()
    assert np.abs(first / exact - 1).max() < 1e-3
    assert np.abs(third / exact - 1).max() < 1e-3
    _check(single, second)


def test_values_do_not_depend_on_the_company(rng):
    """Order, lanes and the size of the workspace change no bit."""
    matrices = [_single(rng.normal(size=shape)) for shape in rng.integers(1, 60, (2 * LANES + 3, 2))]
    together = _values(matrices)
    for matrix, values, other in zip(matrices, together, reversed(_values(matrices[::-1])), strict=True):
        assert np.array_equal(values, _values([matrix])[0])
        assert np.array_equal(values, other)


@pytest.mark.parametrize("reason", ["lanes that fail", "not positive"])
def test_what_the_kernels_cannot_do_goes_to_lapack(reason, rng, monkeypatch):
    matrices = [_single(rng.normal(size=shape)) for shape in [(9, 7), (5, 8), (30, 4)]]
    if reason == "lanes that fail":
        whole = svd.proven_values
        monkeypatch.setattr(svd, "proven_values", lambda *arguments: (whole(*arguments)[0] | 0b10, 0))
    else:
        whole = svd.bidiagonalize_gram
        monkeypatch.setattr(svd, "bidiagonalize_gram", lambda m, w, i, to: np.nan if i == 1 else whole(m, w, i, to))
    exact = []
    monkeypatch.setattr(svd, "singular_values", lambda m: exact.append(m) or reference.singular_values(m))
    for matrix, values in zip(matrices, _values(matrices), strict=True):
        _check(matrix, values)
    assert [matrix.dtype for matrix in exact] == [np.dtype(np.float64)]


def test_another_thread_gets_on_meanwhile(rng):
    """For a hundred seconds no thread is asked to give way, so another one runs where a kernel gives the GIL free."""
    matrices = [_single(rng.normal(size=(64, 700)))]
    gate = threading.Lock()
    seen = []
    work = _work(matrices)
    cpu.weight_values(matrices, work)  # compiles, which gives it free as well

    def pass_through():
        with gate:
            seen.append(True)

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=pass_through)
    gate.acquire()
    thread.start()
    sys.setswitchinterval(100.0)
    try:
        gate.release()
        passed = any(cpu.weight_values(matrices, work) and seen for _ in range(1000))
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    assert passed


@pytest.mark.parametrize("shape", [(16, 1_000_000), (100_003, 5), (3, 8193)], **ids)
@pytest.mark.parametrize("value", [0.1, -1 / 3])
def test_long_sides_cost_no_accuracy(shape, value):
    """Equal numbers: all roundings of a sum have the same sign, and σ_1 = |value| √(mn) is known."""
    matrix = np.full(shape, value, np.float32)
    exact = abs(float(np.float32(value))) * np.sqrt(float(matrix.size))
    values = _values([matrix])[0] / exact
    assert abs(values[0] ** 2 - 1) < EPSILON
    assert values[1:].max() ** 2 < EPSILON


def test_the_sums_of_sections_are_that_product(rng):
    """Integers, in a workspace shared with a matrix that is larger and has no sections."""
    matrix = _single(rng.integers(-99, 100, (7, 20_001)))
    work = _work([matrix, np.zeros((40, 40), np.float32)]).gram
    work.gram[:] = work.section[:] = np.nan
    gram.gram(matrix, work)
    assert np.array_equal(np.tril(work.gram[:7, :7]), np.tril(matrix.astype(float) @ matrix.T.astype(float)))


def test_the_workspace_holds_no_copy_of_a_matrix():
    work = workspace.allocate_weight_values([(64, 40_000), (20, 30)], [np.float32, np.float32])
    most = 2 * 64**2 + 200 * 64 + 6000  # twice n²: one of a section
    assert sum(buffer.nbytes for buffer in (*work.gram, *work.lanes)) < 8 * most
    assert work.spectra is None
    mixed = workspace.allocate_weight_values([(4, 6), (5, 3)], [np.float64, "f4"])
    assert mixed.gram.gram.shape[0] == 3
    assert mixed.spectra.plan[:, [ROWS, COLUMNS]].tolist() == [[4, 6]]


def weight_values_hash():
    """A hash of the values of several shapes and gradings."""
    rng = np.random.default_rng(7)
    digest = hashlib.sha256()
    shapes = [(100, 100), (7, 3), (1, 1), (40, 161), (133, 33), (16, 16), (8, 290), (2, 2), (10, 128)]
    for values in _values([_single(rng.integers(-999, 999, s) * 0.7 ** np.arange(s[1])) for s in shapes]):
        digest.update(values.tobytes())
    return digest.hexdigest()
