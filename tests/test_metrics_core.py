"""Singular values, ranks, alignment, angles and directions of the core, against the reference and known cases."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from backends import cases
from lrcore import cpu, layout, reference
from lrcore.cpu import workspace
from networks import WIDTHS, make, relative

MATRIX = np.array([[1.0, 2, 2], [2, 1, 2], [2, 2, 1]])


def _ranks(values, numerical=1e-6, relative_threshold=1e-3):
    out = np.empty(6)
    cpu.rank_metrics(np.asarray(values, float), numerical, relative_threshold, out)
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31), st.floats(-12, 4))
def test_ranks_equal_the_reference(rows, columns, seed, exponent):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, columns)) * 10.0 ** (exponent * rng.random(columns))
    values = cpu.singular_values(matrix)
    expected = np.empty(6)
    reference.rank_metrics(reference.singular_values(matrix), 1e-6, 1e-3, expected)
    assert np.allclose(_ranks(values), expected, rtol=1e-12)


def test_the_seed_example_has_effective_rank_1_4():
    values = cpu.singular_values(MATRIX)
    assert _ranks(values)[0] == pytest.approx(1.4, rel=1e-14)
    assert _ranks(values)[3] == 3


def test_ranks_of_special_matrices():
    assert np.allclose(_ranks(np.ones(5)), 5)
    assert np.allclose(_ranks([2.0, 0, 0]), 1)
    assert np.allclose(_ranks(np.zeros(3)), 0)
    ranks = _ranks([np.nan, np.nan])
    assert np.isnan(ranks[:3]).all()


def test_thresholds_of_the_counting_ranks():
    values = np.array([10.0, 1.0, 0.02, 1e-5, 1e-7])
    assert _ranks(values)[3:].tolist() == [4, 3, 3]
    assert _ranks(values, numerical=0.5, relative_threshold=0.0999)[3:].tolist() == [2, 2, 1]


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (1, 7), (7, 1), (1, 1)])
def test_triplets_rebuild_the_matrix(shape, rng):
    matrix = rng.normal(size=shape)
    left, values, right = cpu.singular_triplets(matrix)
    assert relative((left * values) @ right.T, matrix) < 1e-14
    assert np.allclose(values, cpu.singular_values(matrix), rtol=1e-13)
    assert np.allclose(values, np.abs(reference.singular_triplets(matrix)[1]))


def test_svd_of_what_is_not_finite_is_nan():
    matrix = np.array([[1.0, np.inf], [0.0, 1.0], [np.nan, 2.0]])
    assert np.isnan(cpu.singular_values(matrix)).all()
    for part, shape in zip(cpu.singular_triplets(matrix), [(3, 2), (2,), (2, 2)], strict=True):
        assert part.shape == shape
        assert np.isnan(part).all()


def test_svd_falls_back_when_divide_and_conquer_fails(monkeypatch, rng):
    matrix = rng.normal(size=(5, 3))
    expected = cpu.singular_values(matrix)

    def fail(*args, **options):
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(np.linalg, "svd", fail)
    assert np.allclose(cpu.singular_values(matrix), expected, rtol=1e-13)
    assert np.allclose(cpu.singular_triplets(matrix)[1], expected, rtol=1e-13)


def _angles(a, b):
    k = b.shape[1]
    return cpu.principal_angles([(a, b)], workspace.allocate_spectra([(k, k), b.shape], [0, 0]))[0]


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-7, 1e-3, 0.5, np.pi / 2 - 1e-9, np.pi / 2])
def test_principal_angles_of_planes_with_known_angles(angle, rng):
    """Spans of (e1, e3) and (e1 turned towards e2, e3 turned by 0.3 towards e4), in a random frame."""
    frame, _ = np.linalg.qr(rng.normal(size=(7, 7)))
    a = frame[:, [0, 2]]
    b = np.stack(
        [
            np.cos(angle) * frame[:, 0] + np.sin(angle) * frame[:, 1],
            np.cos(0.3) * frame[:, 2] + np.sin(0.3) * frame[:, 3],
        ],
        axis=1,
    )
    assert np.allclose(_angles(a, b), np.sort([angle, 0.3]), rtol=1e-12, atol=1e-15)


def test_principal_angles_equal_the_reference(rng):
    a, b = (np.linalg.qr(rng.normal(size=(9, 4)))[0] for _ in range(2))
    assert np.allclose(_angles(a, b), reference.principal_angles([(a, b)])[0], atol=1e-7)
    assert np.allclose(_angles(a, b)[::-1], scipy.linalg.subspace_angles(a, b), atol=1e-7)


def test_alignment_ignores_signs_and_rotations_within_a_cluster(rng):
    teacher, _ = np.linalg.qr(rng.normal(size=(8, 4)))
    turned = teacher.copy()
    rotation, _ = np.linalg.qr(rng.normal(size=(2, 2)))
    turned[:, 1:3] = teacher[:, 1:3] @ rotation
    turned[:, 0] *= -1
    single = np.array([[i, i + 1] for i in range(4)])
    clusters = np.array([[0, 1], [1, 3], [1, 3], [3, 4]])
    out, expected = np.empty(4), np.empty(4)
    cpu.vector_alignment(turned, teacher, clusters, out)
    assert np.allclose(out, 1, atol=1e-14)
    assert (out <= 1).all()
    cpu.vector_alignment(turned, teacher, single, out)
    reference.vector_alignment(turned, teacher, single, expected)
    assert np.allclose(out, expected, atol=1e-14)
    assert out[1] < 0.999


def test_mode_strengths_equal_the_reference(rng):
    product, left, right = rng.normal(size=(7, 5)), rng.normal(size=(7, 3)), rng.normal(size=(5, 3))
    out, expected = np.empty((2, 3)), np.empty((2, 3))
    cpu.mode_strengths(product, left, right, out)
    reference.mode_strengths(product, left, right, expected)
    assert np.allclose(out[0], expected[0], rtol=1e-13)
    u, s, vt = np.linalg.svd(product, full_matrices=False)
    out = np.empty((2, 5))
    cpu.mode_strengths(product, u, np.ascontiguousarray(vt.T), out)
    assert np.allclose(out[0], s, rtol=1e-13)


@cases("widths", WIDTHS[1:])
def test_balancedness_and_directions_equal_the_reference(core, widths, rng):
    params, widths, _, work = make(widths, core=core)
    gradient = rng.normal(size=params.size)
    depth = layout.depth(widths)
    for name, shape, arguments in [
        ("balancedness", (depth - 1,), (params, widths)),
        ("directions", (depth, 3), (params, gradient, widths, 0.01)),
    ]:
        actual, expected = np.empty(shape), np.empty(shape)
        tail = (work,) if name == "balancedness" else ()
        getattr(core, name)(*arguments, actual, *tail)
        getattr(reference, name)(*arguments, expected, *tail)
        assert np.allclose(actual, expected, rtol=1e-12, atol=1e-15)
