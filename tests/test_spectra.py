"""Several SVDs at once: values, vectors and bits against LAPACK, over hard matrices and along whole runs."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lrbias as lb
from conftest import ROOT
from lrcore import cpu, reference
from lrcore.cpu import decomposition, svd, workspace
from lrcore.cpu.qds import LANES
from refusals import refuse


def _spectra(matrices, counts):
    return cpu.spectra(matrices, counts, workspace.allocate_spectra([m.shape for m in matrices], counts))


def _with_values(values, shape, rng):
    """A matrix of `shape` with given singular values."""
    left, right = (np.linalg.qr(rng.normal(size=(n, min(shape))))[0] for n in shape)
    return (left * values) @ right.T


def _check(matrices, counts, tolerance=1e-13):
    """Values, residuals and orthogonality against LAPACK, relative to the largest value."""
    results = _spectra(matrices, counts)
    for matrix, count, (left, values, right) in zip(matrices, counts, results, strict=True):
        expected = np.linalg.svd(matrix, compute_uv=False)
        scale = max(expected[0], np.finfo(matrix.dtype).tiny)
        assert (left.shape, right.shape) == ((matrix.shape[0], count), (matrix.shape[1], count))
        assert np.abs(values - expected).max() <= tolerance * scale, matrix.shape
        assert (np.diff(values) <= 0).all()
        if count:
            assert np.abs(matrix @ right - left * values[:count]).max() <= 20 * tolerance * scale
            assert np.abs(matrix.T @ left - right * values[:count]).max() <= 20 * tolerance * scale
            for vectors in (left, right):
                assert np.abs(vectors.T @ vectors - np.eye(count)).max() <= max(1e-10, 10 * np.finfo(matrix.dtype).eps)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40), st.floats(0, 16)), min_size=1, max_size=10), st.data()
)
def test_random_shapes_and_gradings(kinds, data):
    """Up to ten matrices of different shapes, with columns graded over up to sixteen orders of magnitude."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    matrices = [rng.normal(size=(m, n)) * 10.0 ** (-grade * rng.random(n)) for m, n, grade in kinds]
    _check(matrices, [data.draw(st.integers(0, min(matrix.shape))) for matrix in matrices])


SPECTRA = {
    "separate": np.linspace(2, 1, 30),
    "geometric": 0.5 ** np.arange(30.0),
    "steep": 1e-3 ** np.arange(30.0),
    "rank 3": np.array([5.0, 2, 1] + [0.0] * 27),
    "rank 3 and noise": np.array([5.0, 2, 1] + [1e-15] * 27),
    "one large": np.array([1e8] + [1.0] * 29),
    "close pairs": np.repeat(np.linspace(2, 1, 15), 2) * np.tile([1, 1 - 1e-12], 15),
    "equal": np.ones(30),
    "steps": np.repeat([1.0, 1e-4, 1e-8], 10),
    "tiny cluster": np.concatenate([np.linspace(3, 2, 10), 1e-9 * (1 + 1e-3 * np.arange(20)[::-1])]),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("shape", [(30, 30), (50, 30), (30, 71)], ids=str)
def test_hard_spectra(name, shape, rng):
    _check([_with_values(SPECTRA[name], shape, rng)] * 3, [0, 1, 10])


@pytest.mark.parametrize(
    "make",
    [np.eye, lambda n: np.zeros((n, n)), lambda n: np.ones((n, n)), np.tri],
    ids=["identity", "zeros", "ones", "triangle"],
)
@pytest.mark.parametrize("n", [1, 2, 9, 40])
def test_special_matrices(make, n):
    _check([make(n), make(n)], [0, 1])


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-120, 1e120, 1e160, 1e300])
def test_extreme_scales(scale, rng):
    _check([scale * rng.normal(size=(12, 12)), scale * np.eye(3)], [2, 0])


def test_values_are_certain_in_relative_terms_where_the_matrix_allows(rng):
    """Bidiagonal matrices determine their small values to full relative accuracy, and nothing here loses it."""
    from lrcore.cpu.qds import bidiagonal_values

    diagonal = 10.0 ** -np.arange(0, 12, 0.5)
    above = 10.0 ** -np.arange(0.3, 11.8, 0.5)
    lanes = workspace.allocate_lanes(24)
    lanes.q[:24, 0] = diagonal**2
    lanes.e[:23, 0] = above**2
    assert bidiagonal_values(np.array([24] + [0] * 7), lanes) == 0
    inverse = np.linalg.inv(np.diag(diagonal) + np.diag(above, 1))  # of its largest values LAPACK is certain
    expected = 1 / np.linalg.svd(inverse, compute_uv=False)[:3]
    assert np.abs(lanes.values[23:20:-1, 0] / expected - 1).max() < 1e-11


def test_float32_is_computed_in_float64(rng):
    matrix = rng.normal(size=(20, 14)).astype(np.float32)
    ((left, values, right),) = _spectra([matrix], [3])
    assert {part.dtype for part in (left, values, right)} == {np.dtype(np.float32)}
    exact = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    assert np.array_equal(values, exact.astype(np.float32))
    _check([matrix, matrix.T.copy()], [2, 5], tolerance=1e-6)


def test_what_is_not_finite_is_nan(rng):
    good, bad = rng.normal(size=(2, 6, 5))
    bad[3, 3] = np.inf
    results = _spectra([bad, good, np.full((3, 3), np.nan)], [2, 0, 1])
    assert all(np.isnan(part).all() for part in (*results[0], *results[2]))
    assert np.allclose(results[1][1], reference.singular_values(good), rtol=1e-13)


def test_more_matrices_than_lanes_and_the_reference(rng):
    shapes = [(int(m), int(n)) for m, n in rng.integers(1, 20, (LANES + 5, 2))]
    matrices = [rng.normal(size=shape) for shape in shapes]
    counts = [min(shape) // 2 for shape in shapes]
    for actual, expected in zip(_spectra(matrices, counts), reference.spectra(matrices, counts), strict=True):
        assert np.allclose(actual[1], expected[1], rtol=1e-12)
        for ours, lapack in zip(actual[::2], expected[::2], strict=True):
            assert np.allclose(np.abs(np.sum(ours * lapack, axis=0)), 1, atol=1e-9)


@pytest.mark.parametrize("reason", ["large", "lanes that fail", "uncertain vectors"])
def test_what_the_kernels_cannot_do_goes_to_lapack(reason, rng, monkeypatch):
    matrices = [rng.normal(size=(9, 7)), rng.normal(size=(5, 8))]
    counts = [3, 2]
    if reason == "large":
        monkeypatch.setattr(decomposition, "LARGEST", 6)
    elif reason == "lanes that fail":
        refuse(monkeypatch, {1: decomposition.CONVERGENCE})
    else:
        refuse(monkeypatch, {0: decomposition.VECTORS, 1: decomposition.VECTORS})
    exact = []
    monkeypatch.setattr(svd, "exact_triplets", lambda *which: exact.append(which) or reference.spectra(*zip(which))[0])
    results = _spectra(matrices, counts)
    assert len(exact) == {"large": 1, "lanes that fail": 1, "uncertain vectors": 2}[reason]
    assert np.allclose(results[1][1], reference.singular_values(matrices[1]))


def test_every_record_of_a_run():
    """Through the plateaus and transitions of 6 000 steps."""
    target = lb.teacher(shape=(24, 30), rank=4, depth=3, spectral_norm=5.0, seed=3)
    network = lb.Network.gaussian((30, 30, 30, 24), gamma=1.5, seed=4)

    def compare(network):
        product = network.product()
        _check([product, *network.layers, product - target], [4, 1, 1, 1, 0])
        return 0

    record = lb.Record(every=60, metrics={"compare": compare})
    run = lb.train(lb.Factorization(target), network, lb.GD(lr=5e-3), 6000, record=record, forecast=False)
    assert run.loss[-1] < 1e-6 * run.loss[0]


@pytest.mark.evidence
def test_every_record_of_the_protocol(monkeypatch):
    """50 000 steps at n = 100: product, layers and residual at every tenth step, and how often LAPACK is needed."""
    target = lb.teacher(shape=(100, 100), rank=10, depth=3, spectral_norm=10.0, seed=0)
    network = lb.Network.gaussian((100,) * 4, gamma=1.5, seed=1)
    counts = [10, 1, 1, 1, 0]
    largest = [0.0]
    exact = []
    work = workspace.allocate_spectra([(100, 100)] * 5, counts)
    whole = svd.exact_triplets
    monkeypatch.setattr(svd, "exact_triplets", lambda *which: exact.append(which) or whole(*which))

    def compare(network):
        product = network.product()
        matrices = [product, *network.layers, product - target]
        for matrix, (_, values, _) in zip(matrices, cpu.spectra(matrices, counts, work), strict=True):
            expected = np.linalg.svd(matrix, compute_uv=False)
            largest[0] = max(largest[0], np.abs(values - expected).max() / expected[0])
        return largest[0]

    record = lb.Record(every=10, metrics={"error": compare})
    lb.train(lb.Factorization(target), network, lb.GD(lr=1e-3), 50_000, record=record, forecast=False)
    print(f"\nlargest |σ − σ_LAPACK| / σ_1 over 5001 records: {largest[0]:.1e}; LAPACK needed {len(exact)} times")
    assert largest[0] < 1e-10


def values_hash():
    """A hash of the singular values of several shapes and gradings."""
    rng = np.random.default_rng(7)
    digest = hashlib.sha256()
    shapes = [(100, 100), (7, 3), (1, 1), (40, 61), (33, 33), (16, 16), (8, 90), (2, 2)]
    matrices = [rng.integers(-999, 999, shape) * 0.5 ** np.arange(shape[1]) for shape in shapes]
    for _, values, _ in _spectra(matrices, [0] * len(shapes)):
        digest.update(values.tobytes())
    return digest.hexdigest()


def test_the_golden_hash_of_values():
    assert values_hash() == json.loads((ROOT / "tests/golden.json").read_text())["values"]
