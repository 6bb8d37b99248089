"""Least nuclear norm: known minima, recovery, certificates of optimality, what is not accepted."""

import sys

import numpy as np
import pytest

from lrbias.analysis import _convex as convex
from lrbias.errors import InvalidInput

cvxpy = pytest.importorskip("cvxpy")


def _norm(matrix):
    return np.linalg.norm(matrix, "nuc")


def _completion(rng, rows, columns, rank, observed):
    """A random target of `rank` and a mask with `observed` entries."""
    target = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns))
    mask = np.zeros(rows * columns, bool)
    mask[rng.permutation(rows * columns)[:observed]] = True
    return target, mask.reshape(rows, columns)


@pytest.mark.parametrize("large", [2, 3, 5])
def test_the_least_norm_of_the_counterexample_is_four_times_its_large_entry(large):
    """With the blocks 0 and B = (1 R; R x) it is twice that of B, least at x = 1. Semidefinite completions reach it."""
    target = np.zeros((4, 4))
    target[0, 2] = 1
    target[0, 3] = large
    target[1, 2] = large
    target += target.T
    mask = target != 0
    found = convex.nuclear_norm_completion(target, mask)
    assert np.abs(found - target)[mask].max() <= 1e-4 * large
    assert _norm(found) == pytest.approx(4 * large, rel=1e-4)

    block, root = np.array([[1, large], [large, 1]]), np.array([[large, 1], [1, large]])
    semidefinite = np.block([[root, block], [block, root]])
    assert np.array_equal(semidefinite[mask], target[mask])
    assert np.linalg.eigvalsh(semidefinite)[0] >= -1e-12
    assert np.trace(semidefinite) == 4 * large


@pytest.mark.parametrize("seed", range(5))
def test_a_matrix_of_rank_one_is_recovered(seed):
    """Its factors are spread out: with a few large entries among the unobserved, another matrix has a smaller norm."""
    rng = np.random.default_rng(seed)
    left, right = rng.choice([-1, 1], (2, 10)) * rng.uniform(0.5, 1.5, (2, 10))
    target, (_, mask) = np.outer(left, right), _completion(rng, 10, 10, rank=1, observed=70)
    found = convex.nuclear_norm_completion(target, mask)
    assert np.abs(found - target).max() <= 1e-3
    assert np.abs(found - target)[mask].max() <= 1e-4


@pytest.mark.parametrize("factor", [1e-140, 1e-9, 1e9, 1e140])
def test_the_tolerance_is_relative_to_the_entries(rng, factor):
    target, mask = _completion(rng, 6, 9, rank=1, observed=40)
    assert np.allclose(
        convex.nuclear_norm_completion(target * factor, mask) / factor,
        convex.nuclear_norm_completion(target, mask),
        rtol=1e-6,
    )


@pytest.mark.parametrize(("rows", "columns", "observed"), [(8, 8, 32), (5, 9, 20), (9, 5, 20), (1, 6, 3)])
def test_no_feasible_matrix_nearby_has_a_smaller_norm(rng, rows, columns, observed):
    target, mask = _completion(rng, rows, columns, rank=min(3, rows), observed=observed)
    found = convex.nuclear_norm_completion(target, mask)
    least = _norm(found)
    assert least <= _norm(target) * (1 + 1e-4)
    assert least <= _norm(np.where(mask, target, 0)) * (1 + 1e-4)
    for size in np.geomspace(1e-4, 10, 200):
        change = np.where(mask, 0, rng.normal(size=mask.shape))
        assert _norm(found + size * change) >= least * (1 - 1e-4)


@pytest.mark.parametrize("weight", [1e-1, 1e-2, 1e-3, 1e-5])
def test_least_squares_meet_their_condition_of_optimality(rng, weight):
    """The residuals over count · weight are a subgradient of the norm: ‖Y‖₂ ≤ 1 and ⟨Y, X⟩ = ‖X‖_*."""
    target, mask = _completion(rng, 8, 7, rank=2, observed=40)
    found = convex.least_squares_nuclear(target, mask, weight)
    subgradient = np.where(mask, target - found, 0) / (mask.sum() * weight)
    assert np.linalg.norm(subgradient, 2) <= 1 + 1e-4
    assert (subgradient * found).sum() == pytest.approx(_norm(found), rel=1e-4)


def test_least_squares_of_all_entries_shrink_the_singular_values(rng):
    target = rng.normal(size=(5, 7))
    weight = 0.05
    left, values, right = np.linalg.svd(target, full_matrices=False)
    expected = (left * np.maximum(values - weight * target.size, 0)) @ right
    assert 0 < np.linalg.matrix_rank(expected) < 5
    assert np.allclose(convex.least_squares_nuclear(target, np.ones((5, 7), bool), weight), expected, atol=1e-4)


def test_least_squares_lie_between_the_least_norm_and_zero(rng):
    target, mask = _completion(rng, 8, 8, rank=1, observed=45)
    least = convex.nuclear_norm_completion(target, mask)
    assert np.allclose(convex.least_squares_nuclear(target, mask, 1e-8), least, atol=1e-4)
    edge = np.linalg.norm(np.where(mask, target, 0), 2) / mask.sum()
    assert _norm(convex.least_squares_nuclear(target, mask, 0.99 * edge)) > 1e-3
    assert not convex.least_squares_nuclear(target, mask, 1.01 * edge).any()
    assert not convex.least_squares_nuclear(target, mask, 1e308).any()
    assert not convex.nuclear_norm_completion(0 * target, mask).any()


def test_unobserved_entries_of_the_target_do_not_matter(rng):
    target, mask = _completion(rng, 5, 5, rank=2, observed=15)
    found = convex.nuclear_norm_completion(target, mask)
    assert np.array_equal(convex.nuclear_norm_completion(np.where(mask, target, 7), mask), found)
    assert np.array_equal(convex.nuclear_norm_completion(target.tolist(), mask.tolist()), found)


EYE = np.eye(3)
SOME = np.eye(3) > 0
REFUSED = {
    "vector": ({"target": np.ones(3)}, "target = ", "2 dimensions"),
    "nan": ({"target": np.full((3, 3), np.nan)}, "target = ", "finite"),
    "complex": ({"target": EYE * 1j}, "target = ", "real numbers"),
    "other shape": ({"mask": np.ones((3, 2), bool)}, "mask = ", "booleans of shape (3, 3)"),
    "ones": ({"mask": np.ones((3, 3))}, "mask = ", "float64", "booleans"),
    "ragged": ({"mask": [[True], [True, False]]}, "mask = [[True]", "equal length"),
    "nothing observed": ({"mask": np.zeros((3, 3), bool)}, "mask = ", "at least one True"),
    "tolerance zero": ({"tolerance": 0}, "tolerance = 0", "greater than 0"),
    "tolerance text": ({"tolerance": "small"}, "tolerance = 'small'", "number"),
    "weight zero": ({"weight": 0.0}, "weight = 0.0", "greater than 0"),
    "weight nan": ({"weight": float("nan")}, "weight = nan", "finite"),
}


@pytest.mark.parametrize(("arguments", "words"), [(a, words) for a, *words in REFUSED.values()], ids=list(REFUSED))
def test_refused(arguments, words):
    solve = convex.least_squares_nuclear if "weight" in arguments else convex.nuclear_norm_completion
    with pytest.raises(InvalidInput) as caught:
        solve(**{"target": EYE, "mask": SOME, **arguments})
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("package", ["cvxpy", "scs"])
def test_a_missing_package_is_named_with_the_extra(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InvalidInput, match=r"^nuclear_norm_\w+ needs cvxpy and SCS: pip install 'lrbias\[convex\]'\.$"):
        convex.nuclear_norm_completion(EYE, SOME)


def test_too_few_iterations_are_reported_with_the_status(monkeypatch, rng):
    monkeypatch.setattr(convex, "ITERATIONS", 3)
    target, mask = _completion(rng, 6, 6, rank=1, observed=20)
    with pytest.raises(InvalidInput, match="status optimal_inaccurate"):
        convex.nuclear_norm_completion(target, mask)


def test_a_breakdown_of_the_solver_is_reported_with_the_status(monkeypatch):
    def solve(*_, **__):
        raise cvxpy.SolverError("SCS failed")

    monkeypatch.setattr(cvxpy.Problem, "solve", solve)
    with pytest.raises(InvalidInput, match="status solver_error"):
        convex.nuclear_norm_completion(EYE, SOME)
