"""Greedy low-rank learning: its phases end at best approximations, it survives, and it says what it does not accept."""

import itertools

import numpy as np
import pytest

import lrbias as lb
from lrbias.errors import InvalidInput
from lrbias.steppers import _adaptive, _steps
from lrbias.steppers import _chunks as chunks
from lrbias.steppers._greedy import SMALL, leading_direction
from lrbias.system import together
from lrcore import layout
from runs import call, fingerprint

VALUES = (3.0, 2.0, 1.0)
RECORD = lb.Record(every=20, metrics=("singular_values", "effective_rank"))
FORMS = {
    "tied": lb.GLRL(epsilon=1e-6, inner=lb.GD(lr=0.05), tied=True),
    "depth 2": lb.GLRL(epsilon=1e-6, inner=lb.GD(lr=0.05)),
    "depth 2, flow": lb.GLRL(epsilon=1e-6, inner=lb.GradientFlow(dt=0.1)),
    "depth 2, adaptive": lb.GLRL(
        epsilon=1e-9, inner=lb.GradientFlow(dt=0.5, scheme="dopri5", rtol=1e-8), check_every=10
    ),
    "depth 3": lb.GLRL(epsilon=1e-6, inner=lb.GD(lr=0.03), depth=3),
    "depth 4": lb.GLRL(epsilon=1e-4, inner=lb.GD(lr=0.02), depth=4),
}


# the second eigenvalue of −∇f(0) is close to the first for a large R, so that the start has to be very small
SMALL_STARTS = {2: (1e-4, 1e-8, 1e-12), 3: (1e-8, 1e-12, 1e-20), 5: (1e-20, 1e-40, 1e-60)}


def semidefinite(n=8, values=VALUES, seed=0):
    """An exactly symmetric positive semidefinite matrix with the given eigenvalues."""
    vectors = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0][:, : len(values)]
    matrix = (vectors * values) @ vectors.T
    return (matrix + matrix.T) / 2


def rectangular():
    return lb.from_singular_values((6, 9), VALUES, seed=4)


def counterexample(large):
    """Li, Luo and Lyu: (1, 3) = 1, (1, 4) = (2, 3) = R of a symmetric 4 × 4 matrix are observed."""
    target = np.zeros((4, 4))
    target[0, 2] = 1
    target[0, 3] = large
    target[1, 2] = large
    target += target.T
    return lb.Completion(target, mask=target != 0)


def best(matrix, rank):
    u, s, vt = np.linalg.svd(matrix)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


def train(problem, method, **others):
    return lb.train(problem, None, method, record=others.pop("record", RECORD), forecast=False, **others)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("target", [semidefinite(), rectangular()], ids=["semidefinite", "rectangular"])
def test_phases_end_at_the_best_approximations(name, target):
    if name == "tied" and target.shape == (6, 9):
        target = semidefinite(13, (7.0, 2.5, 2.0, 0.4), seed=1)
    run = train(lb.Factorization(target), FORMS[name])
    values = np.linalg.svd(target, compute_uv=False)
    rank = int((values > 1e-9).sum())
    assert run.status == "stopped"
    assert f"after {rank} directions none is left" in run.detail
    assert [phase.rank for phase in run.phases] == list(range(1, rank + 1))
    for k, phase in enumerate(run.phases, start=1):
        assert np.abs(run.checkpoint(phase.end).product() - best(target, k)).max() < 1e-8
        assert phase.loss == pytest.approx(0.5 * np.sum(values[k:] ** 2), abs=1e-12)
        assert phase.slope == pytest.approx(values[k - 1], rel=1e-7)
        assert phase.next_slope == pytest.approx(values[k], rel=1e-7, abs=1e-7)
        assert phase.residual < 1e-9
        assert phase.gradient <= 1e-9 * values[0]
    ends = [phase.end for phase in run.phases]
    assert [phase.start for phase in run.phases] == [0, *ends[:-1]]
    assert run["greedy/units"].tolist() == [
        sum(step > s for s in (0, *ends[:-1])) for step in run.steps_of("greedy/units")
    ]


@pytest.mark.parametrize("large", [2, 3, 5])
def test_the_counterexample_to_nuclear_norm_minimisation(large):
    """One phase, rank 1, nuclear norm 2R² + 2, where the least one is 4R (tests/test_convex.py); so does the flow."""
    problem = counterexample(large)
    run = train(problem, lb.GLRL(epsilon=1e-8, inner=lb.GD(lr=0.1 / large**2), tied=True))
    product = run.network.product()
    x = np.array([1, large, 1, large])
    assert [phase.rank for phase in run.phases] == [1]
    assert np.linalg.norm(product, "nuc") == pytest.approx(2 * large**2 + 2, abs=1e-6)
    assert np.abs(product - np.outer(x, x)).max() < 1e-6
    assert 4 * large < 2 * large**2 + 2
    gaps = []
    for alpha in SMALL_STARTS[large]:
        flow = lb.GradientFlow(dt=2.0, scheme="dopri5", rtol=1e-9)
        start = lb.Network.tied((4, 4, 4), alpha, seed=1)
        flowed = lb.train(problem, start, flow, 200, RECORD, forecast=False)
        gaps.append(np.abs(flowed.network.product() - product).max())
    assert gaps[0] > 10 * gaps[1] > 100 * gaps[2]
    assert gaps[2] < 1e-4


def test_greedy_completion_and_sensing_recover_a_low_rank():
    """All but a few entries of a rank-2 matrix, and measurements of it."""
    target = lb.from_singular_values((7, 5), [2.0, 1.0], seed=0)
    matrices = np.random.default_rng(1).normal(size=(30, 7, 5)) / np.sqrt(30)
    problems = [
        lb.Completion(target, entries=30, seed=1),
        lb.Sensing(matrices, np.einsum("kij,ij->k", matrices, target), target),
    ]
    for problem in problems:
        run = train(problem, lb.GLRL(epsilon=1e-6, inner=lb.GD(lr=0.1)), record=lb.Record(metrics="errors"))
        assert [phase.rank for phase in run.phases] == [1, 2]
        assert run["test_error"][-1] < 1e-6


def test_units_are_balanced_and_of_strength_epsilon():
    method = lb.GLRL(epsilon=1e-4, inner=lb.GD(lr=1e-12), depth=3)
    run = train(lb.Factorization(rectangular()), method, steps=1)
    layers = run.network.layers
    values = np.linalg.svd(run.network.product(), compute_uv=False)
    assert values[0] == pytest.approx(1e-4, rel=1e-9)
    for below, above in itertools.pairwise(layers):
        assert np.abs(above.T @ above - below @ below.T).max() < 1e-12


def test_the_steps_are_those_of_the_whole_network_bit_for_bit():
    """The units that are not in use are left out; GD on the wide network of the run takes the same way."""
    problem = lb.Factorization(rectangular())
    run = train(problem, lb.GLRL(epsilon=1e-6, inner=lb.GD(lr=0.05), depth=3), checkpoint_every=1)
    first, second = run.phases[:2]
    for begin, end in ((first.start + 1, first.end), (second.start + 1, second.end)):
        wide = lb.train(
            problem, run.checkpoint(begin), lb.GD(lr=0.05), end - begin, RECORD, compress="off", forecast=False
        )
        assert np.array_equal(wide.network.params, run.checkpoint(end).params)


def test_tied_layers_stay_tied_bit_for_bit():
    run = train(lb.Factorization(semidefinite()), FORMS["tied"], checkpoint_every=50)
    for step in run.checkpoints:
        below, above = run.checkpoint(step).layers
        assert np.array_equal(above, below.T)


@pytest.mark.parametrize("name", ["depth 2", "depth 2, adaptive", "depth 3"])
def test_a_run_can_be_taken_up_anywhere(name, tmp_path):
    """From the start, within phases, at their ends, after the last one: the same bits."""
    problem = lb.Factorization(rectangular())
    method = FORMS[name]
    whole = train(problem, method, store=tmp_path / "run", checkpoint_every=30)
    expected = fingerprint(whole)
    phases = whole.phases
    ends = [phase.end for phase in phases]
    assert set(ends) <= set(whole.checkpoints)
    for step in [0, whole.checkpoints[1], *ends, ends[0] + 30 - ends[0] % 30]:
        again = lb.resume(tmp_path / "run", from_checkpoint=step)
        assert fingerprint(again) == expected
        assert again.phases == phases
        assert again.detail == whole.detail
    assert fingerprint(lb.resume(tmp_path / "run")) == expected


@pytest.mark.parametrize("name", ["depth 2", "depth 2, adaptive"])
def test_stopped_early_and_taken_further(name, tmp_path):
    problem = lb.Factorization(rectangular())
    method = FORMS[name]
    expected = fingerprint(train(problem, method, record=RECORD))
    last = train(problem, method).step
    short = train(problem, method, steps=last // 3, store=tmp_path / "run", checkpoint_every=1000)
    assert short.status == "finished"
    assert short.phases[-1].end == -1
    assert fingerprint(lb.resume(tmp_path / "run", steps=1_000_000)) == expected


@pytest.mark.parametrize("name", ["depth 2", "depth 2, adaptive"])
def test_the_length_of_kernel_calls_does_not_change_bits(name, monkeypatch):
    problem = lb.Factorization(rectangular())
    method = FORMS[name]
    expected = fingerprint(train(problem, method))
    monkeypatch.setattr(chunks, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(chunks, "FIRST_CHUNK", 1)
    assert fingerprint(train(problem, method)) == expected
    teams = []

    def note(kernel, works):
        teams.append(len(works))
        return together(kernel, works)

    for module in (_adaptive, _steps):
        monkeypatch.setattr(module, "together", note)
    assert fingerprint(train(problem, method, threads=2)) == expected
    assert set(teams) == {2}


def test_a_loss_is_stopped_at_exactly():
    problem = lb.Factorization(rectangular())
    method = FORMS["depth 2"]
    whole = train(problem, method)
    limit = float(whole.losses[whole.phases[1].start + 77])
    run = train(problem, method, stop=lb.Stop(loss=limit))
    assert run.step == int(np.argmax(whole.losses <= limit))
    assert np.array_equal(run.losses[:-1], whole.losses[: run.step])


@pytest.mark.parametrize("greedy", [True, False], ids=["greedy", "exact reduction"])
def test_the_last_loss_of_a_run_that_diverged_is_that_of_its_last_step(greedy):
    """Within a call of several steps: the layers are made from what was trained in their place."""
    problem = lb.Factorization(lb.from_eigenvalues(5, [3.0, 1.0]))
    inner = lb.GD(lr=50.0)
    start, method = (None, lb.GLRL(inner=inner)) if greedy else (lb.Network.scaled_identity(5, 2, 0.1), inner)
    run = lb.train(problem, start, method, 100, lb.Record(every=100, metrics="singular_values"), forecast=False)
    assert run.status == "diverged"
    assert np.isfinite(run.losses[:-1]).all()
    assert not np.isfinite(run.losses[-1])


def test_max_rank_and_cutoff_end_a_run():
    problem = lb.Factorization(rectangular())
    few = train(problem, lb.GLRL(epsilon=1e-6, inner=lb.GD(lr=0.05), max_rank=2))
    assert (len(few.phases), few.widths) == (2, (9, 2, 6))
    assert "as many as max_rank allows" in few.detail
    coarse = train(problem, lb.GLRL(epsilon=1e-6, inner=lb.GD(lr=0.05), cutoff=0.5))
    assert len(coarse.phases) == 2  # 1 is not above half of 3


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (20, 20), (90, 90), (40, 70), (150, 3)])
def test_the_direction_is_the_leading_one(shape, tied, rng):
    """Small ones by LAPACK, large ones by Lanczos, with and without a place to start from."""
    tied = tied and shape[0] == shape[1]
    slope = rng.normal(size=shape)
    if tied:
        values, vectors = np.linalg.eigh(-(slope + slope.T) / 2)
        left = right = vectors[:, -1]
        expected = values[::-1]
    else:
        u, expected, vt = np.linalg.svd(-slope)
        left = u[:, 0]
        right = vt[0]
    size = shape[0] if tied else sum(shape)
    assert {True, False} == {size > SMALL for size in (10, 90)}
    for start in (None, rng.normal(size=size)):
        found = leading_direction(slope, tied, start)
        assert found.numbers[0] == pytest.approx(expected[0], rel=1e-10)
        if min(shape) > 1:
            assert found.numbers[1] == pytest.approx(expected[1], rel=1e-6)
        assert found.numbers[2] < 1e-9
        sign = np.sign(found.left @ left)
        assert np.abs(found.left - sign * left).max() < 1e-6
        assert np.abs(found.right - sign * right).max() < 1e-6
        assert leading_direction(slope, tied, start).left.tobytes() == found.left.tobytes()


@pytest.mark.parametrize("tied", [True, False])
def test_a_direction_in_another_part_is_found(tied):
    """Two blocks that know nothing of each other: the start lies in one, the leading direction in the other."""
    slope = np.zeros((100, 100))
    slope[:50, :50], slope[50:, 50:] = -np.diag(np.arange(50.0, 0, -1)), -np.diag(np.arange(60.0, 10, -1))
    start = np.tile(np.arange(100) < 50, 1 if tied else 2) / 10.0
    found = leading_direction(slope, tied, start)
    assert found.numbers[0] == pytest.approx(60, rel=1e-9)
    assert abs(found.left[50]) == pytest.approx(1, abs=1e-8)


def test_equal_leading_values_are_no_obstacle(rng):
    """Of a plane of leading directions one is taken; all that is known of it is its slope."""
    vectors = np.linalg.qr(rng.normal(size=(100, 100)))[0]
    slope = -(vectors * np.r_[2.0, 2.0, np.linspace(1, 0, 98)]) @ vectors.T
    found = leading_direction(slope, tied=True)
    assert np.allclose(found.numbers[:2], 2, rtol=1e-6)
    assert np.linalg.norm(vectors[:, :2].T @ found.left) == pytest.approx(1, abs=1e-8)


ASYMMETRIC = lb.Factorization(np.arange(9.0).reshape(3, 3))
SYMMETRIC = lb.Factorization(np.diag([2.0, 1.0, 0.0]))
REFUSED = {
    "no strength": (lambda: lb.GLRL(epsilon=0), "epsilon = 0", "greater than 0"),
    "negative strength": (lambda: lb.GLRL(epsilon=-1e-3), "epsilon = -0.001", "greater than 0"),
    "depth 1": (lambda: lb.GLRL(depth=1), "depth = 1", "at least 2"),
    "deep and tied": (lambda: lb.GLRL(depth=3, tied=True), "depth = 3", "2 for tied layers"),
    "ridge": (lambda: lb.GLRL(ridge=0.1), "ridge = 0.1", "0 for greedy"),
    "cutoff": (lambda: lb.GLRL(cutoff=1), "cutoff = 1", "between 0 and 1"),
    "inner": (lambda: lb.GLRL(inner=lb.SGD(lr=0.1)), "inner = SGD", "a GD or GradientFlow without ridge"),
    "inner with ridge": (lambda: lb.GLRL(inner=lb.GD(lr=0.1, ridge=0.1)), "inner = GD", "without ridge"),
    "asymmetric": (lambda: train(ASYMMETRIC, lb.GLRL(tied=True)), "tied = True", "symmetric loss"),
    "asymmetric mask": (
        lambda: train(lb.Completion(np.eye(3), np.triu(np.ones((3, 3)))), lb.GLRL(tied=True)),
        "tied = True",
        "symmetric loss",
    ),
    "no descent": (lambda: train(lb.Factorization(np.zeros((3, 3))), lb.GLRL()), "no direction of descent", "falls"),
    "no semidefinite descent": (
        lambda: train(lb.Factorization(-np.eye(3)), lb.GLRL(tied=True)),
        "no direction of descent",
        "falls",
    ),
    "rounding is no descent": (
        lambda: train(lb.Factorization(lb.from_eigenvalues(6, [-5.0, -3.0])), lb.GLRL(tied=True)),
        "no direction of descent",
        "falls",
    ),
    "a network": (
        lambda: lb.train(SYMMETRIC, lb.Network.scaled_identity(3, 2, 0.1), lb.GLRL()),
        "network = Network",
        "None: greedy",
    ),
    "no network": (lambda: lb.train(SYMMETRIC, None, lb.GD(lr=0.1), 10), "network = None", "a Network"),
    "no steps": (
        lambda: lb.train(SYMMETRIC, lb.Network.scaled_identity(3, 2, 0.1), lb.GD(lr=0.1)),
        "steps = None",
        "integer",
    ),
    "max_rank": (lambda: train(SYMMETRIC, lb.GLRL(max_rank=4)), "max_rank = 4", "at most 3"),
    "gradient": (
        lambda: train(SYMMETRIC, lb.GLRL(), stop=lb.Stop(gradient=1e-3)),
        "stop_gradient = 0.001",
        "cannot be set: the phases of",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_accepted(case):
    act, *needles = REFUSED[case]
    with pytest.raises(InvalidInput) as caught:
        act()
    sentence = str(caught.value)
    assert "\n" not in sentence
    for needle in needles:
        assert needle in sentence


def test_from_the_command_line(work, capsys):
    np.save("target.npy", semidefinite())
    words = "run --target target.npy --method glrl --lr 0.05 --epsilon 1e-6 --tied --quiet --no-figures --json -o a"
    code, out, _ = call(capsys, words)
    assert code == 0
    assert '"phases"' in out
    first = lb.open("a")
    assert [phase.rank for phase in first.phases] == [1, 2, 3]
    assert first.method == FORMS["tied"]
    assert call(capsys, "run a/experiment.toml --quiet --no-figures -o b")[0] == 0
    assert fingerprint(lb.open("b")) == fingerprint(first)
    assert "phases ended with rank 1 at step" in call(capsys, "info b")[1]
    assert call(capsys, "resume b --quiet")[0] == 0
    words = "run --target target.npy --method glrl --inner flow --dt 0.2 --scheme dopri5 --depth 3 --quiet"
    words += " --no-figures -o c"
    assert call(capsys, words)[0] == 0
    deep = lb.open("c")
    assert (deep.depth, len(deep.phases)) == (3, 3)
    assert {"flow/evaluations", "flow/step_size"} < set(deep.names)


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        ("--epsilon 0", "epsilon = 0"),
        ("--gamma 1.2", "gamma = 1.2"),
        ("--inner sgd", "inner = 'sgd'"),
        ("--inner flow --lr 0.1", "lr = 0.1"),
        ("--batch 3", "batch = 3"),
        ("--tied", "tied = True"),
        ("--rtol 1e-3", "rtol = 0.001"),
    ],
)
def test_flags_that_are_not_accepted(work, capsys, words, needle):
    code, _, err = call(capsys, f"run --shape 6 5 --rank 2 --method glrl {words} --quiet -o a")
    assert code == 2
    assert needle in err
    assert len(err.strip().splitlines()) == 1
    assert not list(work.iterdir())


def test_epsilon_is_a_setting_of_greedy_learning_alone(work, capsys):
    code, _, err = call(capsys, "run --epsilon 0.1 -o a")
    assert code == 2
    assert "epsilon = 0.1" in err


def test_layers_of_the_run_have_room_for_every_direction():
    run = train(lb.Factorization(rectangular()), lb.GLRL(inner=lb.GD(lr=0.05), depth=4), steps=1)
    assert run.widths == (9, 6, 6, 6, 6)
    assert run.network.params.size == layout.size(run.widths)
