"""When modes are learnt, by their own strengths: against loops in plain NumPy, where sorted values would mislead."""

import numpy as np
import pytest

import lrbias as lb
from lrbias.problems import _modes as modes

EVERY = 10


def descend(slope, layers, lr, steps):
    """The products of plain gradient descent at every EVERY-th step: (records, m, n). slope: ∂L/∂W at a product."""
    layers = [layer.copy() for layer in layers]
    products = []
    for step in range(steps + 1):
        below = [np.eye(layers[0].shape[1])]
        for layer in layers:
            below.append(layer @ below[-1])
        if step % EVERY == 0:
            products.append(below[-1])
        back = slope(below[-1])
        moved = []
        for layer, seen in zip(reversed(layers), reversed(below[:-1]), strict=True):
            moved.append(layer - lr * back @ seen.T)
            back = layer.T @ back
        layers = moved[::-1]
    return np.array(products)


def first_above(strengths, goal):
    """The step of the first record above a goal, or None."""
    above = strengths > goal
    return int(above.argmax()) * EVERY if above.any() else None


def data(seed=0):
    """Inputs whose covariance has the directions of the correlation, and outputs: what is largest is learnt last."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    covariance = np.diag([4, 0.5, 0.4, 1, 1, 1])
    left = np.linalg.qr(rng.normal(size=(5, 3)))[0]
    white = np.linalg.qr(rng.normal(size=(60, 6)))[0] * np.sqrt(60)
    inputs = white @ np.sqrt(covariance) @ turn.T
    correlation = (left * [3, 1.5, 0.8]) @ turn[:, :3].T
    return inputs, inputs @ (correlation @ turn @ np.linalg.inv(covariance) @ turn.T).T


def test_modes_of_a_regression_escape_in_their_own_order():
    inputs, outputs = data()
    problem = lb.Regression(inputs, outputs)
    start = lb.Network.gaussian((6, 6, 5), gamma=2.2, seed=1)
    record = lb.Record(every=EVERY, metrics=("singular_values", "mode_strengths"))
    run = lb.train(problem, start, lb.GD(lr=0.02), 400, record, forecast=False)
    covariance = inputs.T @ inputs / 60
    correlation = outputs.T @ inputs / 60
    products = descend(lambda product: product @ covariance - correlation, start.layers, 0.02, 400)
    left, order, right = np.linalg.svd(correlation)
    goals = [order[i] / (right[i] @ covariance @ right[i]) / 2 for i in range(3)]
    expected = [first_above(left[:, i] @ products @ right[i], goals[i]) for i in range(3)]
    assert None not in expected
    assert run.escape_steps() == expected
    assert "3 of 3 modes of the target have passed half" in str(run)
    assert goals[0] < goals[1], "sorted singular values have another order"


@pytest.mark.parametrize(
    ("start", "learnt"),
    [
        (lb.Network.scaled_identity(8, 3, 0.2), [True, False, True, True, False]),
        (lb.Network.perturbed(8, 3, 0.3, 0.1), [True, True, True, True, True]),
    ],
)
def test_signed_eigenvalues_escape_one_by_one(start, learnt):
    """Each mode is a chain of numbers. From an identical start a negative eigenvalue is never learnt (Chou et al.)."""
    values = [6.0, -4, 3, 2, -1]
    lr = 0.005
    steps = 4000
    problem = lb.Factorization(lb.from_eigenvalues(8, values, seed=1))
    record = lb.Record(every=EVERY, metrics=("singular_values", "mode_strengths"))
    run = lb.train(problem, start, lb.GD(lr=lr), steps, record, forecast=False)
    first = np.array([layer[0, 0] for layer in start.layers])
    for found, value, wanted in zip(run.escape_steps(), values, learnt, strict=True):
        chain = descend(lambda product, value=value: product - value, first.reshape(3, 1, 1), lr, steps)
        assert found == first_above(chain[:, 0, 0] * np.sign(value), abs(value) / 2)
        assert (found is not None) == wanted
    assert run.summary()["escape_steps"] == run.escape_steps()
    assert f"{sum(learnt)} of 5 modes" in str(run)


def test_equal_values_share_their_strengths():
    """Of 2, 2 and −2 two are learnt from an identical start, whatever basis LAPACK gives their space."""
    problem = lb.Factorization(lb.from_eigenvalues(6, [2.0, 2.0, -2.0, 1.0], seed=3))
    run = lb.train(
        problem, lb.Network.scaled_identity(6, 3, 0.3), lb.GD(lr=0.01), 1500, lb.Record(every=EVERY), forecast=False
    )
    first, second, third, last = run.escape_steps()
    assert first == second < last
    assert third is None


def test_strengths_of_a_cluster_do_not_depend_on_its_basis(rng):
    products = rng.normal(size=(4, 5, 6))
    left = np.linalg.qr(rng.normal(size=(5, 3)))[0]
    right = np.linalg.qr(rng.normal(size=(6, 3)))[0]
    turn = np.eye(3)
    turn[:2, :2] = np.linalg.qr(rng.normal(size=(2, 2)))[0]
    clusters = np.array([(0, 2), (0, 2), (2, 3)])
    found = modes.strengths(products, left, right, clusters)
    assert np.allclose(found, modes.strengths(products, left @ turn, right @ turn, clusters), atol=1e-14)
    single = np.einsum("mk,amn,nk->ak", left, products, right)
    assert np.allclose(found[:, :2].sum(axis=1), single[:, :2].sum(axis=1))
    assert np.allclose(found[:, 2], single[:, 2])
    products[1, 2, 3] = np.nan
    assert np.isnan(modes.strengths(products, left, right, clusters)).all(axis=1).tolist() == [
        False,
        True,
        False,
        False,
    ]


def test_recorded_products_tell_the_same(small, tmp_path):
    run = lb.train(
        *small, 300, lb.Record(every=EVERY, metrics=("product", "mode_strengths")), store=tmp_path / "a", forecast=False
    )
    alone = lb.train(*small, 300, lb.Record(every=EVERY, metrics=("product",)), forecast=False)
    assert None not in run.escape_steps()
    assert alone.escape_steps() == run.escape_steps()
    assert np.allclose(alone.mode_strengths()[1], run.mode_strengths()[1], atol=1e-13)
    few = lb.train(*small, 300, lb.Record(every=EVERY, metrics=("mode_strengths",), directions=1), forecast=False)
    assert few.escape_steps() == run.escape_steps()[:1]
    assert "1 of the 1 leading of 2 modes" in str(few)


def test_what_was_not_recorded_or_is_not_known_is_not_told(small):
    run = lb.train(*small, 20, lb.Record(metrics=("singular_values",)), forecast=False)
    assert "escape_steps" not in run.summary()
    assert "modes" not in str(run)
    with pytest.raises(lb.InvalidInput, match="recorded mode_strengths or product"):
        run.escape_steps()
    holes = small[0].target.copy()
    holes[0, 0] = np.nan
    run = lb.train(lb.Completion(holes), *small[1:], 20, forecast=False)
    assert "escape_steps" not in run.summary()
    with pytest.raises(lb.InvalidInput, match="a known target"):
        run.escape_steps()
