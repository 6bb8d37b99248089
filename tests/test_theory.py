"""Closed forms against integration, measured runs and each other; bounds against measured steps."""

import numpy as np
import pytest

import lrbias as lb
from lrbias import theory
from lrcore import cpu
from lrcore.cpu import workspace


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_a_mode_of_theory_is_a_measured_mode(depth):
    """A balanced start aligned with the target: every singular value follows its own equation."""
    values, initial = np.array([4.0, 2.0, 1.0]), np.array([0.02, 0.03, 0.01])
    rng = np.random.default_rng(0)
    frames = [np.linalg.qr(rng.normal(size=(6, 3)))[0] for _ in range(depth + 1)]
    layers = [(frames[i + 1] * initial ** (1 / depth)) @ frames[i].T for i in range(depth)]
    target = (frames[-1] * values) @ frames[0].T
    run = lb.train(
        lb.Factorization(target),
        lb.Network.from_layers(layers),
        lb.GradientFlow(dt=2e-3),
        4000,
        lb.Record(every=50, metrics=("mode_strengths",)),
        forecast=False,
    )
    times = run.steps_of("product/mode_strengths") * 2e-3
    for i in range(3):
        expected = theory.mode(times, values[i], initial[i], depth)
        assert np.allclose(run["product/mode_strengths"][:, i], expected, rtol=1e-6, atol=1e-9)
        half = theory.escape_time(values[i], initial[i], depth)
        if half < times[-1]:
            assert theory.mode([0, half], values[i], initial[i], depth)[1] == pytest.approx(values[i] / 2, rel=1e-7)
        if depth == 2:
            assert [theory.saxe(t, values[i], initial[i]) for t in times] == pytest.approx(list(expected), rel=1e-7)


def test_the_representation_cost_is_that_of_the_balanced_factorization():
    network = lb.Network.balanced((6, 4, 9, 5), 0.7, seed=2)
    values = np.linalg.svd(network.product())[1][:4]
    assert theory.representation_cost(values, 3) == pytest.approx((network.params**2).sum())


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_the_limit_of_stability_is_where_steps_stop_to_shrink(depth):
    """At a balanced minimum: below the limit a small distance shrinks, above it grows."""
    value = 3.0
    limit = theory.learning_rate_limit(value, depth)
    for share, shrinks in ((0.98, True), (1.02, False)):
        modes = np.full((depth, 8), value ** (1 / depth)) * (1 + 1e-6)
        losses = np.empty(200)
        work = workspace.allocate_diagonal(depth, 8)
        cpu.diagonal_gd_steps(modes, np.full(8, value), np.ones(8), share * limit, losses, work)
        assert (losses[-1] < losses[0]) == shrinks


def test_constants_of_the_theorems():
    assert theory.perturbed_constant(2) == pytest.approx((1 + 5**0.5) / 2)
    for depth in (2, 3, 4, 7):
        c = theory.perturbed_constant(depth)
        assert 1 < c < 2
        assert (c - 1) * c ** (depth - 1) == pytest.approx(1)
    assert theory.identical_limit(10.0, 3, 0.1) == pytest.approx(1 / (7 * 10 ** (4 / 3)))
    assert theory.eigenvalue_limit(7.0, 3, 0.1) == pytest.approx(1 / (6 * 7 ** (4 / 3)))
    assert theory.eigenvalue_limit(-7.0, 3, 0.1) == pytest.approx(1 / (7 * 7 ** (4 / 3)))
    assert theory.eigenvalue_limit(0.5, 3, 2.0) == pytest.approx(1 / (6 * 2.0**4))
    assert theory.recovered([3.0, -1.0], perturbed=False).tolist() == [3.0, 0.0]
    assert theory.recovered([3.0, -1.0], perturbed=True).tolist() == [3.0, -1.0]


def _largest_root(depth):
    """Of (c − 1) c^{N−1} = 1, as the roots of a polynomial."""
    polynomial = np.zeros(depth + 1)
    polynomial[0] = 1
    polynomial[1] -= 1
    polynomial[-1] -= 1
    roots = np.roots(polynomial)
    return max(root.real for root in roots if abs(root.imag) < 1e-9)


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 8])
def test_limits_of_the_perturbed_start_are_the_formulas(depth):
    """η < 1 / (9N (cM)^{2N−2}) and β < (c − 1) α; M is α where the start is larger than the target."""
    c = _largest_root(depth)
    assert theory.largest_perturbation(depth, 0.1) == pytest.approx(0.1 * (c - 1), rel=1e-12)
    for norm, alpha, largest in ((10.0, 0.1, 10 ** (1 / depth)), (1e-9, 2.0, 2.0)):
        expected = 1 / (9 * depth * (c * largest) ** (2 * depth - 2))
        assert theory.perturbed_limit(norm, depth, alpha) == pytest.approx(expected, rel=1e-12)


def test_the_limit_of_the_perturbation_is_the_one_that_the_report_names():
    assert round(theory.largest_perturbation(3, 0.1), 4) == 0.0466


@pytest.mark.parametrize("alpha", [0.5, 0.9])
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_below_its_limits_the_perturbed_start_recovers_every_eigenvalue(depth, alpha):
    """By the equations of its entries: just below both limits, values of both signs, as long as it takes."""
    values = np.array([1.0, 0.5, -0.5, -1.0])
    lr = 0.999 * theory.perturbed_limit(1.0, depth, alpha)
    first = np.full(4, alpha - 0.999 * theory.largest_perturbation(depth, alpha))
    others = np.full(4, alpha)
    for _ in range(10_000):
        gap = first * others ** (depth - 1) - values
        down = others ** (depth - 1) * gap, first * others ** (depth - 2) * gap
        first, others = first - lr * down[0], others - lr * down[1]
    assert first * others ** (depth - 1) == pytest.approx(theory.recovered(values, True), abs=1e-9)
    assert (np.sign(first) == np.sign(values)).all(), "the first layer alone changes its sign"


def _random_case(rng):
    """(λ, N, α, η, ε) in the admissible range, every branch about equally often."""
    depth = int(rng.integers(2, 6))
    alpha = float(10 ** rng.uniform(-1.2, 0.3))
    share = (depth - 1) / (2 * depth - 1)
    start = alpha**depth
    kind = rng.integers(5)
    if kind == 0:
        value = -float(10 ** rng.uniform(-1, 1))
    elif kind == 1:
        value = start * float(rng.uniform(0.02, 0.95))
    elif kind == 2:
        value = start * float(rng.uniform(1.05, 0.99 / share))
    else:
        value = start / share * float(10 ** rng.uniform(0.01, 2))
    root = max(value, 0.0) ** (1 / depth)
    distance = abs(alpha - root)
    fine = (1 - share ** (1 / depth)) * root
    if kind == 3:
        epsilon = fine * float(rng.uniform(0.001, 0.99))
    elif kind == 4:
        epsilon = fine + (distance - fine) * float(rng.uniform(0.01, 0.95))
    else:
        epsilon = distance * float(rng.uniform(0.02, 0.95))
    lr = theory.eigenvalue_limit(value, depth, alpha) * float(rng.uniform(0.05, 0.999))
    return value, depth, alpha, lr, epsilon


def _measured_steps(value, depth, alpha, lr, epsilon, most):
    d = alpha
    goal = max(value, 0.0) ** (1 / depth)
    for k in range(most + 2):
        if abs(d - goal) <= epsilon:
            return k
        d -= lr * d ** (depth - 1) * (d**depth - value)
    return most + 2


def _violations(cases, most_steps):
    rng = np.random.default_rng(7)
    branches = dict.fromkeys(theory.BRANCHES, 0)
    violations = []
    while sum(branches.values()) < cases:
        case = _random_case(rng)
        value, depth, alpha, _, epsilon = case
        bound = int(np.ceil(theory.recovery_bound(*case)))
        if bound > most_steps:
            continue
        branches[theory.recovery_branch(value, depth, alpha, epsilon)] += 1
        if _measured_steps(*case, bound) > bound:
            violations.append(case)
    return branches, violations


def test_measured_steps_are_within_the_bound():
    branches, violations = _violations(400, 3000)
    assert violations == []
    assert min(branches.values()) > 20


@pytest.mark.evidence
def test_ten_thousand_measured_steps_are_within_the_bound():
    branches, violations = _violations(10_000, 30_000)
    print(f"\n{sum(branches.values())} cases, {branches}: {len(violations)} violations")
    assert violations == []
    assert min(branches.values()) >= 500


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ((7.0, 3, 0.1, 1.0, 0.01), "lr = 1.0 is not accepted: expected less than"),
        ((7.0, 3, 0.1, 1e-3, 5.0), "epsilon = 5.0 is not accepted: expected less than"),
        ((7.0, 1, 0.1, 1e-3, 0.01), "depth = 1 is not accepted"),
        ((7.0, 3, -0.1, 1e-3, 0.01), "alpha = -0.1 is not accepted"),
        ((float("nan"), 3, 0.1, 1e-3, 0.01), "eigenvalue = nan is not accepted"),
    ],
)
def test_bad_bounds_are_refused(case, sentence):
    with pytest.raises(lb.InvalidInput, match=sentence):
        theory.recovery_bound(*case)


def test_a_representation_cost_beyond_the_largest_number_is_infinite():
    assert lb.theory.representation_cost([1e200, 1.0], 1) == np.inf
    assert lb.theory.representation_cost([], 3) == 0
