"""Singular values and vectors of matrices with structure, against LAPACK, 50 digits and what is known; their proof."""

from collections import Counter

import numpy as np
import pytest
import scipy.linalg

import lrbias as lb
import structured
from lrcore import cpu
from lrcore.cpu import decomposition, qds, svd, workspace
from lrcore.cpu.bidiagonal import bidiagonalize
from lrcore.cpu.inertia import unproven_values
from refusals import refuse

SURE = 1e-13  # |σ̂ − σ| / σ_1
VECTORS = 2e-10  # residuals relative to σ_1, and products of different vectors
ROUNDED = 1e-7  # of results in float32, relative to σ_1
STEP = 2.0**-149  # between the smallest numbers of float32
SQUARES = 2 * svd.PROVEN + 2e-14  # |σ̂² − σ²| / σ_1² of `weight_values` in float32: of what is proven, and of G


def _spectra(matrices, counts):
    return cpu.spectra(matrices, counts, workspace.allocate_spectra([m.shape for m in matrices], counts))


def _weight_values(matrices):
    return cpu.weight_values(
        matrices, workspace.allocate_weight_values([m.shape for m in matrices], [m.dtype for m in matrices])
    )


def _exact(matrix):
    return scipy.linalg.svd(matrix.astype(np.float64), compute_uv=False, lapack_driver="gesvd")


def _error(values, exact):
    """Relative to the largest value; near the smallest numbers, where a quotient says nothing, 0 for equal bits."""
    if exact[0] < 1e-290:
        return 0.0 if np.abs(values - exact).max() <= max(1e-12 * exact[0], 5e-323) else np.inf
    return np.abs(values / exact[0] - exact / exact[0]).max()


def _vectors_error(matrix, left, values, right):
    """The largest residual or product, of what has a norm that can be divided by."""
    inner = [np.abs(vectors.T @ vectors - np.eye(vectors.shape[1])).max() for vectors in (left, right)]
    if values[0] < 1e-290:
        return max(inner)
    scaled = matrix / values[0]
    values = values[: left.shape[1]] / values[0]
    return max(*inner, np.abs(scaled @ right - left * values).max(), np.abs(scaled.T @ left - right * values).max())


def _in_float32(matrices):
    """Those that float32 can hold, rounded."""
    with np.errstate(under="ignore"):
        return [m.astype(np.float32) for m in matrices if np.abs(m).max() < 1e30]


def _wrong(rng, groups, largest):
    """Names of the matrices with a wrong answer, in groups of eight, of all entry points."""
    wrong = []
    for _ in range(groups):
        names, matrices = zip(*(structured.draw(rng, largest) for _ in range(8)), strict=True)
        exact = [_exact(m) for m in matrices]
        none = [0] * 8
        counts = [int(rng.integers(1, min(m.shape) + 1)) for m in matrices]
        found = [values for _, values, _ in _spectra(matrices, none)], _weight_values(matrices)
        for name, values, e in zip(names * 2, [*found[0], *found[1]], exact * 2, strict=True):
            wrong += [("values", name)] * (not _error(values, e) <= SURE)
        for name, matrix, e, triplets in zip(names, matrices, exact, _spectra(matrices, counts), strict=True):
            wrong += [("values beside vectors", name)] * (not _error(triplets[1], e) <= SURE)
            wrong += [("vectors", name)] * (not _vectors_error(matrix, *triplets) <= VECTORS)
        single = _in_float32(matrices)
        for matrix, triplets, values in zip(
            single, _spectra(single, [1] * len(single)), _weight_values(single), strict=True
        ):
            e = _exact(matrix)
            wrong += [("float32", matrix.shape)] * (not np.abs(triplets[1] - e).max() <= ROUNDED * e[0] + STEP / 2)
            wrong += [("Gram", matrix.shape)] * (not np.abs(values**2 - e**2).max() <= SQUARES * e[0] ** 2)
    return wrong


@pytest.fixture
def calls():
    """The counter of calls of LAPACK, from 0."""
    svd.lapack_calls.clear()
    return svd.lapack_calls


def test_structured_matrices(rng, calls):
    """LAPACK is called for vectors and near the smallest numbers alone, never for want of convergence or proof."""
    assert _wrong(rng, 60, 24) == []
    assert set(calls) <= {"vectors", "reduction"}, calls


@pytest.mark.evidence
def test_100_000_structured_matrices(calls):
    rng = np.random.default_rng(0)
    wrong = _wrong(rng, 12_500, structured.LARGEST)
    print(f"\n100 000 matrices: {len(wrong)} wrong {Counter(wrong)}; LAPACK was called for {dict(calls)}")
    assert wrong == []
    assert calls["proof"] == 0


def _shift_matrix(n):
    return np.eye(n, k=1)


def _zero_column(n):
    matrix = np.random.default_rng(0).normal(size=(n, n))
    matrix[:, 0] = 0
    return matrix


GOLDEN = (1 + 5**0.5) / 2
KNOWN = {
    "0 and 1": ([[0, 1, 1], [0, 1, 0], [0, 1, 0]], [1.8477590650225735, 0.7653668647301796, 0]),
    "signs": ([[0, 1, -1], [0, 0, 0], [0, 0, -1]], [GOLDEN, 1 / GOLDEN, 0]),
    "shift of 2": (_shift_matrix(2), [1, 0]),
    "shift of 5": (_shift_matrix(5), [1, 1, 1, 1, 0]),
    "shift of 40": (_shift_matrix(40), [1] * 39 + [0]),
    "exchange": (np.eye(9)[::-1], [1] * 9),
    "one entry": (np.eye(1, 7, k=6).T @ np.eye(1, 5, k=4), [1, 0, 0, 0, 0]),
    "ones but for a column": (np.outer(np.ones(6), [0, 1, 1, 1, 1]), [24**0.5, 0, 0, 0, 0]),
}


@pytest.mark.parametrize("scale", [1.0, 1e-300, 1e300])
@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("name", KNOWN)
def test_known_values(name, count, scale):
    matrix = scale * np.array(KNOWN[name][0], float)
    exact = scale * np.array(KNOWN[name][1])
    for shaped in (matrix, matrix.T.copy()):
        ((_, values, _),) = _spectra([shaped], [count])
        assert np.abs(values - exact).max() <= 1e-14 * exact[0]
        if count == 0:
            assert np.abs(_weight_values([shaped])[0] - exact).max() <= 1e-14 * exact[0]


@pytest.mark.parametrize("share", [0.0, 1e-300, 1e-158, 1e-150, 1e-30, 1e-16])
@pytest.mark.parametrize("n", [6, 33, 100])
def test_a_first_column_that_is_next_to_nothing(n, share):
    """Between 1e-162 and 1e-154 of the rest squares lose digits, and reflections made with them were not orthogonal."""
    matrix = np.random.default_rng(0).normal(size=(n, n))
    matrix[:, 0] *= share
    for shaped in (matrix, matrix.T.copy(), matrix[:, ::-1].copy(), matrix[: n // 2].copy()):
        exact = _exact(shaped)
        for (_, values, _), count in zip(_spectra([shaped] * 2, [0, 1]), (0, 1), strict=True):
            assert _error(values, exact) <= SURE, count


def test_a_vector_whose_squares_overflow_is_not_zero():
    """It has a residual of 0, and no length. Values of 1, 1e-6 and 1e-277."""
    matrix = np.array([[0, 1e136, 0], [0, 0, 1e-135], [-5e2, 0, 2e142]])
    for shaped in (matrix, matrix.T.copy(), matrix[::-1, ::-1].copy()):
        (triplets,) = _spectra([shaped], [3])
        assert _vectors_error(shaped, *triplets) <= VECTORS


def test_results_in_float32_near_its_smallest_numbers():
    """They are the nearest that there are: 2.4e-46 off, which is 1.3e-7 σ_1."""
    matrix = np.array([[-1.71621592e-39, 7.15796196e-40, -1.21357212e-40]], np.float32)
    ((_, values, _),) = _spectra([matrix], [1])
    assert values[0] == np.float32(_exact(matrix)[0])


def test_a_run_with_a_dead_input_records_what_lapack_finds():
    target = np.random.default_rng(0).normal(size=(6, 6))
    target[:, 0] = 0
    network = lb.Network.gaussian((6, 6, 6), gamma=1.0, seed=1)
    record = lb.Record(every=100, metrics=("singular_values", "product"))
    run = lb.train(lb.Factorization(target), network, lb.GD(lr=0.02), 2000, record=record, forecast=False)
    exact = np.linalg.svd(run["product/matrix"], compute_uv=False)
    assert np.abs(run["product/singular_values"] - exact).max() <= SURE * exact.max()
    assert np.abs(run["product/singular_values"][-1] - _exact(target)).max() < 2e-2


@pytest.mark.parametrize("cosine", [1.0, 1 - 1e-9, 0.7])
def test_principal_angles_of_coordinate_planes(cosine):
    """[0, 0, π/2] and the like: the matrices of cosines and of sines are partial permutations."""
    a = np.eye(9)[:, [0, 1, 2]]
    b = np.eye(9)[:, [5, 0, 1]]
    b[:, 2] = cosine * b[:, 2] + np.sqrt(1 - cosine**2) * np.eye(9)[:, 7]
    exact = np.sort([0.0, np.arctan2(np.sqrt(1 - cosine**2), cosine), np.pi / 2])
    work = workspace.allocate_spectra([(3, 3), (9, 3)], [0, 0])
    (angles,) = cpu.principal_angles([(a, b)], work)
    assert np.abs(angles - exact).max() < 1e-14


def test_principal_angles_of_structured_planes(rng):
    """cos θ_i e_i + sin θ_i e_{k+i}, in another order and turned."""
    for _ in range(100):
        k = int(rng.integers(1, 9))
        exact = np.sort(rng.choice([0.0, 0.0, np.pi / 2, 1e-9, 1e-3, 0.5, np.pi / 2 - 1e-9], k))
        order = rng.permutation(2 * k + 1)
        turn = scipy.linalg.qr(rng.normal(size=(k, k)))[0]
        a = np.eye(2 * k + 1)[order][:, :k]
        b = a * np.cos(exact) + np.eye(2 * k + 1)[order][:, k : 2 * k] * np.sin(exact)
        b = b[:, rng.permutation(k)] if rng.random() < 0.5 else b @ turn
        work = workspace.allocate_spectra([(k, k), (2 * k + 1, k)], [0, 0])
        (angles,) = cpu.principal_angles([(a, b)], work)
        assert np.abs(angles - exact).max() < 1e-13


@pytest.mark.parametrize("size", [6, pytest.param(12, marks=pytest.mark.evidence)])
def test_fifty_digits(size, rng):
    """Another oracle than LAPACK: mpmath."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(50):
        for _ in range(3 * size):
            _, matrix = structured.draw(rng, size)
            scale = np.abs(matrix).max()
            if scale < 1e-290:
                continue
            tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
            exact = mpmath.svd_r(mpmath.matrix((tall).tolist()), compute_uv=False)
            for _, values, _ in _spectra([matrix] * 2, [0, min(matrix.shape)]):
                errors = [abs(mpmath.mpf(float(v)) - e) for v, e in zip(values, exact, strict=True)]
                assert max(errors) <= SURE * exact[0]


def test_gram_of_equal_values_in_fifty_digits():
    """Values of orthogonal matrices in float32 are off by more than those of others, and by no more than is said."""
    mpmath = pytest.importorskip("mpmath")
    rng = np.random.default_rng(0)
    with mpmath.workdps(50):
        for _ in range(4):
            matrix = structured._orthogonal(rng, 12, 12).astype(np.float32)
            exact = mpmath.svd_r(mpmath.matrix(matrix.astype(np.float64).tolist()), compute_uv=False)
            errors = [
                abs(mpmath.mpf(float(v)) ** 2 - e**2) for v, e in zip(_weight_values([matrix])[0], exact, strict=True)
            ]
            assert max(errors) <= SQUARES * exact[0] ** 2


def _bidiagonal(rng, size):
    """Values, and the workspace that holds them and their matrix."""
    lanes = workspace.allocate_lanes(size)
    sizes = np.array([size] + [0] * (qds.LANES - 1))
    lanes.q[:size, 0] = (rng.normal(size=size) * (rng.random(size) < 0.8)) ** 2
    lanes.e[: size - 1, 0] = (rng.normal(size=size - 1) * 10.0 ** -rng.integers(0, 20, size - 1)) ** 2
    matrix = np.diag(np.sqrt(lanes.q[:size, 0])) + np.diag(np.sqrt(lanes.e[: size - 1, 0]), 1)
    assert qds.bidiagonal_values(sizes, lanes) == 0
    return sizes, lanes, _exact(matrix)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9, 40])
def test_the_proof_accepts_what_is_right_and_nothing_else(size, rng):
    """Each value in turn moved by a little more than is allowed, up and down."""
    for _ in range(20):
        sizes, lanes, exact = _bidiagonal(rng, size)
        lanes.values[:size, 0] = exact
        assert unproven_values(sizes, svd.PROVEN, lanes) == 0
        for i in range(size if exact[0] else 0):
            for move in (1.1 * svd.PROVEN + 1e-14, -1.1 * svd.PROVEN - 1e-14):
                if exact[i] + move * exact[0] < 0:
                    continue
                lanes.values[:size, 0] = exact
                lanes.values[i, 0] += move * exact[0]
                assert unproven_values(sizes, svd.PROVEN, lanes) == 1, (i, move)


def test_the_proof_refuses_the_answers_that_were_once_given():
    """2, 0, 0 has the right sum of squares."""
    for matrix, values in (
        ([[0, 1, 1], [0, 1, 0], [0, 1, 0]], [2, 0, 0]),
        ([[0, 1, -1], [0, 0, 0], [0, 0, -1]], [3**0.5, 0, 0]),
    ):
        reduction = workspace.ReductionWorkspace(*map(np.zeros, workspace.reduction_shapes((3, 3), 0)))
        lanes = workspace.allocate_lanes(3)
        scale = bidiagonalize(np.array(matrix, float), reduction, 0, lanes)
        sizes = np.array([3] + [0] * (qds.LANES - 1))
        qds.bidiagonal_values(sizes, lanes)
        assert unproven_values(sizes, svd.PROVEN, lanes) == 0
        lanes.values[:3, 0] = np.array(values) / scale
        assert unproven_values(sizes, svd.PROVEN, lanes) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_proof_refuses_what_is_not_a_number(bad, rng):
    sizes, lanes, _ = _bidiagonal(rng, 5)
    lanes.values[2, 0] = bad
    assert unproven_values(sizes, svd.PROVEN, lanes) == 1


@pytest.mark.parametrize("apart", [1.0, 2.5, 3.5, 10.0])
def test_the_proof_of_values_side_by_side(apart):
    """Where intervals are apart the sign is enough; else values are counted. One value twice is refused by both."""
    lanes = workspace.allocate_lanes(9)
    sizes = np.array([9] + [0] * (qds.LANES - 1))
    exact = np.sqrt(np.append(1 - svd.PROVEN * apart * np.arange(5), [0.5, 0.25, 0.1, 0.0]))
    lanes.q[:9, 0] = exact**2
    assert qds.bidiagonal_values(sizes, lanes) == 0
    assert unproven_values(sizes, svd.PROVEN, lanes) == 0
    for wrong, other in ((5, 6), (7, 8), (8, 7), (1, 6)):
        found = exact.copy()
        found[wrong] = exact[other]
        lanes.values[:9, 0] = np.sort(found)[::-1]
        assert unproven_values(sizes, svd.PROVEN, lanes) == 1


@pytest.mark.parametrize("unproven", [True, False])
def test_what_is_not_proven_is_done_by_lapack_and_counted(unproven, rng, calls, monkeypatch):
    if unproven:
        refuse(monkeypatch, {0: decomposition.PROOF})
        whole = svd.proven_values
        monkeypatch.setattr(svd, "proven_values", lambda *arguments: (whole(*arguments)[0], 1))
    matrices = [rng.normal(size=(5, 7)), rng.normal(size=(4, 4)), np.full((2, 2), np.nan)]
    for matrix, (_, values, _) in zip(matrices[:2], _spectra(matrices, [0, 0, 0]), strict=False):
        assert np.allclose(values, _exact(matrix), rtol=1e-12)
    single = matrices[0].astype(np.float32)
    assert np.allclose(_weight_values([single])[0], _exact(single), rtol=1e-9)
    assert calls == (Counter(proof=2) if unproven else Counter())


def test_cosines_near_one_do_not_need_lapack(calls):
    """The shifts stalled: of 400 such matrices 1 to 3 % did not converge, and in a group all wait for the slowest."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        matrices = [structured._cosines(rng, k, k) for k in rng.integers(2, 20, 8)]
        for matrix, (_, values, _) in zip(matrices, _spectra(matrices, [0] * 8), strict=True):
            assert _error(values, _exact(matrix)) <= SURE
    assert not calls


def test_a_small_value_between_nearly_equal_ones_does_not_need_lapack(calls):
    """It comes to the end late, and values before it cannot be taken off: up to 48 sweeps for each."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        matrices = [structured._cosines(rng, k, k).astype(np.float32) for k in (24, 28, 33, 36, 38, 20, 30, 26)]
        for matrix in matrices:
            matrix[-1] = 0
        for matrix, (_, values, _) in zip(matrices, _spectra(matrices, [0] * 8), strict=True):
            assert np.abs(values - _exact(matrix)).max() <= ROUNDED
    assert not calls
