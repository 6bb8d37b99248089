"""The tangent kernel by its factors: against the definition, the whole matrix J Jᵀ, and where it is known."""

import numpy as np
import pytest

from lrcore import cpu, layout, reference
from lrcore.cpu import workspace
from networks import make, relative

SHAPES = [(4, 4), (7, 3, 5), (1, 9, 2, 6), (3, 5, 1, 4, 2, 6), (1, 1), (6, 8, 9, 5)]


def factors(params, widths, side=cpu):
    """(left, right), in scratch full of NaN."""
    left, right = (np.full((len(widths) - 1, n, n), np.nan, params.dtype) for n in (widths[-1], widths[0]))
    work = workspace.allocate_ntk(widths, params.dtype)
    for buffer in (work.turns, work.moved, work.chain.panel, work.chain.sums):
        buffer.fill(np.nan)
    side.ntk_factors(params, widths, left, right, work)
    return left, right


def apply(kernel, matrix, widths):
    out = np.full_like(matrix, np.nan)
    work = workspace.allocate_ntk(widths, matrix.dtype)
    work.moved.fill(np.nan)
    cpu.ntk_apply(*kernel, matrix, out, work)
    return out


def jacobian(params, widths):
    """(n_N·n_0, P): the product is linear in every weight, so a step of any length gives the derivative."""
    columns = []
    here = np.empty((widths[-1], widths[0]))
    reference.product(params, widths, here)
    for unit in np.eye(params.size):
        moved = np.empty_like(here)
        reference.product(params + unit, widths, moved)
        columns.append((moved - here).ravel())
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("widths", [*SHAPES, (5, 600, 7), (530, 3, 6), (3, 4, 530)], ids=str)
def test_factors_and_what_follows_equal_the_reference(widths, rng):
    params, widths, target, _ = make(widths)
    kernel, expected = factors(params, widths), factors(params, widths, reference)
    for found, exact in zip(kernel, expected, strict=True):
        assert relative(found, exact) < 1e-13
        assert np.array_equal(found, found.transpose(0, 2, 1))
    assert np.array_equal(kernel[0][-1], np.eye(widths[-1]))
    assert np.array_equal(kernel[1][0], np.eye(widths[0]))
    other = factors(rng.normal(size=params.size) / 4, widths)
    assert cpu.ntk_inner(*kernel, *other) == pytest.approx(reference.ntk_inner(*kernel, *other), rel=1e-12)
    exact = np.empty_like(target)
    reference.ntk_apply(*kernel, target, exact)
    assert relative(apply(kernel, target, widths), exact) < 1e-13


@pytest.mark.parametrize("widths", SHAPES, ids=str)
def test_inner_products_and_applications_are_those_of_the_whole_matrix(widths, rng):
    params, widths, target, _ = make(widths)
    others = params + rng.normal(size=params.size) / 3
    slopes, moved = jacobian(params, widths), jacobian(others, widths)
    whole = slopes @ slopes.T
    second = moved @ moved.T
    kernel, other = factors(params, widths), factors(others, widths)
    assert cpu.ntk_inner(*kernel, *other) == pytest.approx(np.sum(whole * second), rel=1e-12)
    assert cpu.ntk_inner(*kernel, *kernel) == pytest.approx(np.linalg.norm(whole) ** 2, rel=1e-12)
    assert relative(apply(kernel, target, widths).ravel(), whole @ target.ravel()) < 1e-12
    units = np.eye(target.size).reshape(-1, *target.shape)
    applied = np.stack([apply(kernel, unit, widths).ravel() for unit in units])
    assert relative(applied, whole) < 1e-12
    assert np.abs(applied - applied.T).max() < 1e-14 * np.abs(applied).max()
    assert np.linalg.eigvalsh(applied)[0] > -1e-13 * np.abs(applied).max()


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_of_scaled_rotations_it_is_a_multiple_of_the_identity(depth, rng):
    """W_i = αQ_i: every layer adds α^{2N−2}."""
    size, alpha = 5, 0.7
    layers = [alpha * np.linalg.qr(rng.normal(size=(size, size)))[0] for _ in range(depth)]
    params, widths = layout.flatten(layers)
    kernel = factors(params, widths)
    matrix = rng.normal(size=(size, size))
    assert relative(apply(kernel, matrix, widths), depth * alpha ** (2 * depth - 2) * matrix) < 1e-13
    expected = (depth * size) ** 2 * alpha ** (4 * depth - 4)
    assert cpu.ntk_inner(*kernel, *kernel) == pytest.approx(expected, rel=1e-13)


def test_float32_stays_float32():
    params, widths, target, _ = make((7, 3, 8, 5), np.float32)
    exact = factors(params.astype(np.float64), widths, reference)
    kernel = factors(params, widths)
    assert all(relative(found, expected) < 1e-5 for found, expected in zip(kernel, exact, strict=True))
    inner = cpu.ntk_inner(*kernel, *kernel)
    out = apply(kernel, target, widths)
    expected = sum(a @ target @ b for a, b in zip(*exact, strict=True))
    assert inner == pytest.approx(reference.ntk_inner(*exact, *exact), rel=1e-5)
    assert relative(out, expected) < 1e-5
    assert {kernel[0].dtype, kernel[1].dtype, out.dtype} == {np.dtype(np.float32)}
