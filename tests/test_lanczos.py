"""The largest eigenvalues from products alone: against all of them, multiple ones, and operators that change."""

import numpy as np
import pytest

import lrbias as lb
from lrcore import cpu, layout, objective, reference
from lrcore.cpu import workspace
from networks import make


def of(matrix):
    """The operator of a matrix, or of a diagonal."""
    if matrix.ndim == 1:
        return lambda vector, out: np.multiply(matrix, vector, out=out)
    return lambda vector, out: np.matmul(matrix, vector, out=out)


def cold(size):
    return np.empty((0, size))


def rotated(values, rng):
    turn = np.linalg.qr(rng.normal(size=(len(values), len(values))))[0]
    matrix = turn * values @ turn.T
    return (matrix + matrix.T) / 2


def check(found, matrix, expected, rel=1e-12):
    """Values, that the vectors belong to them, and that the residuals are what they are said to be."""
    dense = np.diag(matrix) if matrix.ndim == 1 else matrix
    scale = max(np.abs(matrix).max(), 1e-300)
    assert np.abs(found.values - expected).max() < rel * scale
    assert np.abs(found.vectors @ found.vectors.T - np.eye(len(expected))).max() < 1e-12
    residuals = np.linalg.norm(found.vectors @ dense - found.values[:, None] * found.vectors, axis=1)
    assert np.abs(residuals - found.residuals).max() < 1e-12 * scale


@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("size", [1, 2, 3, 8, 33, 300])
def test_eigenpairs_equal_the_reference(size, count, rng):
    """From nothing, from the exact vectors, and from those of the other end."""
    matrix = rotated(rng.normal(size=size), rng)
    expected = reference.lanczos(of(matrix), cold(size), count, 1e-8)
    check(expected, matrix, np.linalg.eigvalsh(matrix)[::-1][:count])
    other = reference.lanczos(of(-matrix), cold(size), count, 1e-8)
    for start in (cold(size), expected.vectors, other.vectors):
        found = cpu.lanczos(of(matrix), start, count, 1e-8)
        assert len(found.values) == min(count, size)
        check(found, matrix, expected.values)
        assert (found.residuals <= 1e-8 * np.abs(matrix).sum()).all()


@pytest.mark.parametrize("values", [[3.0, 3, 3, 2, 2, 1], [1.0], [0.0], [2.0, -5], [1.0, 0, 0, 0, 0, 0, 0]], ids=str)
@pytest.mark.parametrize("size", [40, 200])
def test_multiple_eigenvalues_are_all_found(values, size, rng):
    """Each as often as it is there, though every invariant subspace ends an iteration early."""
    everything = np.resize(values, size)
    matrix = rotated(everything, rng)
    for start in (cold(size), rng.normal(size=(5, size))):
        found = cpu.lanczos(of(matrix), start, 5, 1e-10)
        check(found, matrix, np.sort(everything)[::-1][:5])


def test_a_basis_that_is_full_is_restarted(rng):
    """An edge at which the eigenvalues crowd: many more steps than a basis has room for, to the same accuracy."""
    diagonal = np.sqrt(np.linspace(0, 1, 3000))
    found = cpu.lanczos(of(diagonal), cold(3000), 3, 1e-7)
    assert found.products > 100
    check(found, diagonal, diagonal[:-4:-1], rel=1e-9)


def test_both_ends_say_how_small_a_residual_has_to_be():
    """Near a minimum the lower end of a Hessian is a crowd about 0: to be told apart it need not be."""
    diagonal = np.append(np.linspace(-1e-5, 0, 2000), -64.0)
    found = cpu.lanczos(of(diagonal), cold(2001), 1, 1e-6)
    assert found.products < 40
    assert -1e-5 <= found.values[0] <= 0
    assert found.residuals[0] <= 64e-6


def bulk(size=300):
    return np.random.default_rng(1).uniform(-1, 1, size)


@pytest.mark.parametrize("leaving", [1.5, 1.05], ids=["crossing", "out of the bulk"])
@pytest.mark.parametrize("tolerance", [1e-6, 1e-2])
def test_an_eigenvalue_that_grows_past_the_known_one_is_seen(leaving, tolerance):
    """Nothing couples the two, so the known vector stays an exact eigenvector of what is not the largest any more."""
    diagonal = bulk()
    start = cold(300)
    late = []
    diagonal[7] = leaving
    for growing in np.arange(leaving - 0.2, leaving + 0.3, 0.01):
        diagonal[11] = growing
        found = cpu.lanczos(of(diagonal), start, 1, tolerance)
        start = found.vectors
        late.append(diagonal.max() - found.values[0])
    assert max(late) < (0.02 if tolerance == 1e-6 else 0.1)
    assert np.count_nonzero(np.array(late) > 10 * tolerance) <= 1
    assert late[-1] < tolerance


def test_double_eigenvalues_that_come_up_together_are_both_seen():
    """One random vector has a part along one direction of their plane only."""
    diagonal = bulk()
    diagonal[[3, 5, 7]] = 1.5, 1.45, 1.4
    known = cpu.lanczos(of(diagonal), cold(300), 3, 1e-6).vectors
    diagonal[[11, 13]] = 2.0
    found = cpu.lanczos(of(diagonal), known, 3, 1e-6)
    check(found, diagonal, [2.0, 2.0, 1.5])


def test_every_record_looks_elsewhere():
    """Once the share of a random vector along a plane is known, the rest of the plane is at right angles to it."""
    diagonal = bulk()
    start = cold(300)
    late = 0
    diagonal[[3, 5, 7]] = 1.5, 1.45, 1.4
    for growing in np.arange(1.2, 1.8, 0.01):
        diagonal[[11, 13]] = growing
        found = cpu.lanczos(of(diagonal), start, 3, 1e-6)
        start = found.vectors
        expected = np.sort(diagonal)[:-4:-1]
        late += np.abs(found.values - expected).max() > 1e-9
    assert late <= 1


def test_what_the_known_vectors_never_reach_is_seen(rng):
    """They turn a little within forty dimensions from record to record; two equal eigenvalues grow outside of these.

    The second may be a record late, where the random vector is mixed into the first of the two.
    """
    size = 300
    inside = 40
    start = cold(300)
    late = 0
    turn, nudge = (np.linalg.qr(rng.normal(size=(inside, inside)))[0] for _ in range(2))
    skew = 1e-4 * (nudge - nudge.T)
    for growing in np.linspace(1.2, 1.8, 31):
        turn = turn @ np.linalg.solve(np.eye(inside) + skew, np.eye(inside) - skew)
        matrix = np.diag(bulk(size))
        matrix[:inside, :inside] = turn * np.append([1.5, 1.45, 1.4], np.linspace(-1, 1, inside - 3)) @ turn.T
        matrix[[77, 88], [77, 88]] = growing
        matrix = (matrix + matrix.T) / 2
        found = cpu.lanczos(of(matrix), start, 3, 1e-6)
        start = found.vectors
        expected = np.linalg.eigvalsh(matrix)[:-4:-1]
        late += np.abs(found.values - expected).max() > 1e-9
    assert late <= 1
    check(found, matrix, expected, rel=1e-9)


def test_starts_that_are_almost_the_same_become_orthogonal(rng):
    matrix = rotated(rng.normal(size=200), rng)
    one, other = rng.normal(size=(2, 200))
    found = cpu.lanczos(of(matrix), np.stack([one, one + 1e-5 * other, one, other]), 4, 1e-9)
    check(found, matrix, np.linalg.eigvalsh(matrix)[:-5:-1])


def trained(problem, network, lr, steps, every):
    """The parameters of a run, every so many steps."""
    params = network.params.copy()
    widths = layout.as_widths(network.widths)
    work = workspace.allocate(widths)
    losses = np.empty(every)
    for _ in range(0, steps, every):
        cpu.gd_steps(params, widths, problem.target, lr, losses, work)
        yield params.copy()


class Hessian:
    """That of the loss as an operator, and as a matrix."""

    def __init__(self, params, widths, target):
        self.goal = objective.weighted(target, np.ones_like(target))
        self.widths = layout.as_widths(widths)
        self.params = params
        self.work = workspace.allocate_curvature(self.widths)
        self.matrix = np.empty((params.size, params.size))
        cpu.hessian(params, self.widths, self.goal, 0.1, self.matrix, self.work)

    def apply(self, sign):
        def times(vector, out):
            cpu.hessian_vector(self.params, self.widths, self.goal, 0.1, vector, out, self.work)
            out *= sign

        return times


def test_along_a_run_both_ends_of_the_hessian_are_found_with_fewer_products():
    problem = lb.Factorization(lb.teacher((6, 6), rank=2, spectral_norm=5.0))
    network = lb.Network.gaussian((6, 6, 6, 6), gamma=0.8)
    starts = {1: None, -1: None}
    products = []
    for params in trained(problem, network, 5e-3, 1000, 50):
        hessian = Hessian(params, network.widths, problem.target)
        for sign in (1, -1):
            expected = np.linalg.eigvalsh(sign * hessian.matrix)[::-1][:3]
            afresh = cpu.lanczos(hessian.apply(sign), cold(params.size), 3, 1e-7)
            start = afresh.vectors if starts[sign] is None else starts[sign]
            found = cpu.lanczos(hessian.apply(sign), start, 3, 1e-7)
            check(found, sign * hessian.matrix, expected, rel=1e-9)
            check(afresh, sign * hessian.matrix, expected, rel=1e-9)
            starts[sign] = found.vectors
            products.append((sign, found.products, afresh.products))
    _, warm, fresh = np.array(products[-20:]).T
    assert warm.sum() < 0.8 * fresh.sum()


def test_the_double_eigenvalues_of_an_identical_start_are_found():
    """Where one starting vector, as ARPACK has, gives too little."""
    target = lb.from_eigenvalues(6, [4.0, 3.0, 2.0], seed=1)
    network = lb.Network.scaled_identity(6, 3, 0.5)
    hessian = Hessian(network.params, network.widths, target)
    expected = np.linalg.eigvalsh(hessian.matrix)[::-1][:8]
    assert (np.diff(expected) > -1e-9).any()
    check(cpu.lanczos(hessian.apply(1), cold(network.params.size), 8, 1e-8), hessian.matrix, expected, rel=1e-9)


def test_the_same_start_gives_the_same_bits(rng):
    matrix = rotated(rng.normal(size=60), rng)
    start = rng.normal(size=(2, 60))
    kept = start.copy()
    found, again = (cpu.lanczos(of(matrix), start, 2, 1e-6) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    assert np.array_equal(start, kept)


def test_what_is_not_finite_is_a_result_and_no_start():
    found = cpu.lanczos(lambda vector, out: out.fill(np.nan), cold(50), 2, 1e-6)
    assert np.isnan(found.values).all()
    assert np.isnan(found.vectors).all()
    assert found.vectors.shape == (2, 50)
    diagonal = bulk(50)
    again = cpu.lanczos(of(diagonal), np.stack([found.vectors[0], np.zeros(50)]), 2, 1e-8)
    check(again, diagonal, np.sort(diagonal)[:-3:-1])


def test_it_ends_after_as_many_products_as_are_allowed():
    diagonal = np.sqrt(np.linspace(0, 1, 3000))
    found = cpu.lanczos(of(diagonal), cold(3000), 2, 1e-10, 50)
    assert found.products == 50
    assert found.residuals.max() > 1e-10
    assert found.values[0] <= 1


def test_products_do_not_depend_on_scale(rng):
    """Nothing in it is absolute."""
    matrix = rotated(rng.normal(size=80), rng)
    found = [cpu.lanczos(of(scale * matrix), cold(80), 2, 1e-7) for scale in (1.0, 2.0**60, 2.0**-60)]
    assert len({each.products for each in found}) == 1
    assert np.array_equal(found[0].values * 2.0**60, found[1].values)


def test_the_largest_eigenvalues_of_a_tangent_kernel(rng):
    params, widths, *_ = make((5, 7, 6))
    left, right = np.empty((2, 6, 6)), np.empty((2, 5, 5))
    work = workspace.allocate_ntk(widths)
    cpu.ntk_factors(params, widths, left, right, work)
    dense = sum(np.kron(a, b) for a, b in zip(left, right, strict=True))

    def apply(vector, out):
        cpu.ntk_apply(left, right, vector.reshape(6, 5), out.reshape(6, 5), work)

    found = cpu.lanczos(apply, cold(30), 3, 1e-9)
    check(found, dense, np.linalg.eigvalsh(dense)[::-1][:3])
