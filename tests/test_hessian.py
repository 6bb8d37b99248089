"""Products with the Hessian: against the definition, differences of gradients, autograd, and where it is known."""

import hashlib

import numpy as np
import pytest

from lrbias import theory
from lrcore import cpu, layout, objective, reference
from lrcore.cpu import workspace
from networks import make, relative

SHAPES = [(4, 4), (7, 3, 5), (1, 9, 2, 6), (3, 5, 1, 4, 2, 6), (1, 1), (12, 20, 8, 10)]
KINDS = ["entries", "measurements", "regression"]
RIDGE = 0.02


def goals(target, seed=0):
    """{kind: Objective}, of the dtype of the target."""
    rng = np.random.default_rng(seed)
    dtype = target.dtype
    weights = rng.uniform(0.1, 1, target.shape) * (rng.random(target.shape) < 0.6)
    matrices, inputs = rng.normal(size=(6, *target.shape)), rng.normal(size=(9, target.shape[1]))
    return {
        "entries": objective.weighted(target, weights, dtype),
        "measurements": objective.measured(matrices, np.arange(6.0), 0.05, dtype),
        "regression": objective.regression(target, inputs.T @ inputs / 9, 0.3, dtype),
    }


def spoiled(widths, dtype=np.float64):
    """A CurvatureWorkspace full of NaN: a kernel that reads what it has not written shows it."""
    work = workspace.allocate_curvature(widths, dtype)
    for buffer in (*work[1:], *work.chain):
        if isinstance(buffer, np.ndarray) and buffer.dtype.kind == "f":
            buffer.fill(np.nan)
    return work


def times(params, widths, goal, ridge, direction):
    """(loss, H · direction) by the kernels, in fresh scratch."""
    work = spoiled(widths, params.dtype)
    out = np.full_like(params, np.nan)
    loss = cpu.hessian_point(params, widths, goal, ridge, work)
    cpu.hessian_vector(params, widths, goal, ridge, direction, out, work)
    return loss, out


def dense(params, widths, goal, ridge):
    out = np.full((params.size, params.size), np.nan)
    cpu.hessian(params, widths, goal, ridge, out, spoiled(widths))
    return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("widths", [*SHAPES, (5, 600, 7), (600, 2, 3)], ids=str)
def test_products_equal_the_reference_and_differences_of_gradients(widths, kind, rng):
    params, widths, target, _ = make(widths)
    goal = goals(target)[kind]
    direction = rng.normal(size=params.size)
    expected = np.empty_like(params)
    loss, found = times(params, widths, goal, RIDGE, direction)
    reference.hessian_vector(params, widths, goal, RIDGE, direction, expected)
    assert relative(found, expected) < 1e-12
    gradient = np.empty_like(params)
    differences = np.zeros_like(params)
    step = 3e-3 / np.abs(direction).max()
    for place, weight in ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12)):
        moved = params + place * step * direction
        reference.objective_loss_and_gradient(moved, widths, goal, RIDGE, gradient)
        differences += weight / step * gradient
    assert relative(found, differences) < 1e-8
    assert loss == pytest.approx(reference.hessian_point(params, widths, goal, RIDGE), rel=1e-12)
    assert loss == pytest.approx(
        reference.objective_loss_and_gradient(params, widths, goal, RIDGE, gradient), rel=1e-12
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("widths", [(4, 4), (7, 3, 5), (3, 5, 1, 4, 2, 6)], ids=str)
def test_products_equal_autograd(widths, kind, rng):
    torch = pytest.importorskip("torch")
    params, widths, target, _ = make(widths)
    goal = goals(target)[kind]
    direction = rng.normal(size=params.size)
    goals_of = {name: torch.tensor(getattr(goal, name)) for name in goal._fields}

    def loss(vector):
        matrices = []
        start = 0
        for shape in layout.shapes(widths):
            matrices.append(vector[start : start + shape[0] * shape[1]].reshape(shape))
            start += shape[0] * shape[1]
        output = matrices[0]
        for matrix in matrices[1:]:
            output = matrix @ output
        missed = output - goals_of["target"]
        if kind == "entries":
            data = (goals_of["weights"] * missed**2).sum()
        elif kind == "regression":
            data = (missed @ goals_of["covariance"] * missed).sum()
        else:
            data = goals_of["weight"] * ((goals_of["matrices"] @ output.ravel() - goals_of["values"]) ** 2).sum()
        return data / 2 + RIDGE * (vector**2).sum()

    _, expected = torch.autograd.functional.vhp(loss, torch.tensor(params), torch.tensor(direction))
    assert relative(times(params, widths, goal, RIDGE, direction)[1], expected.numpy()) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("widths", SHAPES[:5], ids=str)
def test_the_whole_hessian_is_symmetric_and_a_ridge_moves_its_diagonal(widths, kind):
    params, widths, target, _ = make(widths)
    goal = goals(target)[kind]
    expected = np.empty((params.size, params.size))
    found = dense(params, widths, goal, RIDGE)
    loss = reference.hessian(params, widths, goal, RIDGE, expected)
    again = cpu.hessian(params, widths, goal, RIDGE, np.empty_like(expected), spoiled(widths))
    assert again == pytest.approx(loss, rel=1e-12)
    assert relative(found, expected) < 1e-12
    assert np.abs(found - found.T).max() < 1e-13 * np.abs(found).max()
    assert np.abs(found - dense(params, widths, goal, 0.0) - 2 * RIDGE * np.eye(params.size)).max() < 1e-14


def test_of_one_layer_it_is_that_of_the_loss_itself():
    """Σ, the weights, or the measurements' Gram matrix, wherever the layer is."""
    params, widths, target, _ = make((3, 4))
    own = goals(target)
    assert np.array_equal(dense(params, widths, own["entries"], 0.0), np.diag(own["entries"].weights.ravel()))
    matrices = own["measurements"].matrices
    assert relative(dense(params, widths, own["measurements"], 0.0), 0.05 * matrices.T @ matrices) < 1e-15
    expected = np.kron(np.eye(4), own["regression"].covariance)
    assert relative(dense(params, widths, own["regression"], 0.0), expected) < 1e-15


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_spectrum_at_a_balanced_minimum_is_the_exact_one(depth, rng):
    """Σ_l σ_i^{2(N−l)/N} σ_j^{2(l−1)/N} for all pairs of values of the product, and 0; at most the sharpness."""
    size = 4
    values = np.array([3.0, 2.0, 0.5, 0.0])
    turns = [np.linalg.qr(rng.normal(size=(size, size)))[0] for _ in range(depth + 1)]
    roots = np.diag(values ** (1 / depth))
    params, widths = layout.flatten([turns[i + 1] @ roots @ turns[i].T for i in range(depth)])
    target = turns[depth] @ np.diag(values) @ turns[0].T
    found = np.linalg.eigvalsh(dense(params, widths, objective.weighted(target, np.ones_like(target)), 0.0))
    above = values[:, None] ** (2 / depth)
    below = values[None, :] ** (2 / depth)
    pairs = sum(above ** (depth - layer) * below ** (layer - 1) for layer in range(1, depth + 1))
    expected = np.sort(np.append(pairs.ravel(), np.zeros(params.size - pairs.size)))
    assert np.abs(found - expected).max() < 1e-12
    assert found[-1] == pytest.approx(theory.sharpness(values[0], depth), rel=1e-13)


@pytest.mark.evidence  # lrbias asks for float64 alone, and the kernels take long to compile
@pytest.mark.parametrize("kind", KINDS)
def test_float32_stays_float32(kind, rng):
    params, widths, target, _ = make((7, 3, 8, 5), np.float32)
    goal = goals(target)[kind]
    direction = rng.normal(size=params.size).astype(np.float32)
    _, found = times(params, widths, goal, np.float32(RIDGE), direction)
    expected = np.empty(params.size)
    exact = goals(target.astype(np.float64))[kind]
    reference.hessian_vector(params.astype(np.float64), widths, exact, RIDGE, direction.astype(np.float64), expected)
    assert found.dtype == np.float32
    assert relative(found, expected) < 1e-5


def curvature_hash():
    """Of losses and products; NumPy's stream is not in it."""
    digest = hashlib.sha256()
    for widths in ((4, 4), (7, 9, 5), (20, 23, 21, 20)):
        params = np.sin(np.arange(layout.size(widths))) / np.sqrt(max(widths))
        sizes = layout.as_widths(widths)
        shape = (widths[-1], widths[0])
        target = np.cos(np.arange(shape[0] * shape[1])).reshape(shape)
        matrices = np.sin(np.arange(3 * target.size)).reshape(3, *shape)
        for goal in (
            objective.weighted(target, np.abs(target)),
            objective.measured(matrices, np.arange(3.0)),
            objective.regression(target, target.T @ target),
        ):
            loss, out = times(params, sizes, goal, 0.01, np.cos(np.arange(params.size)))
            digest.update(np.float64(loss).tobytes() + out.tobytes())
    return digest.hexdigest()
