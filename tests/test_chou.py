"""The examples of deep matrix factorization: what is recovered, when, and the figures of it."""

import json

import numpy as np
import pytest

import lrbias as lb
from lrbias import theory
from lrbias.cli import main
from lrbias.studies.chou import _parameters as chou
from lrbias.studies.chou._theory import bounds, half_steps

RECORDS = 1000


@pytest.fixture(scope="module")
def recovery(tmp_path_factory):
    return lb.reproduce("chou", tmp_path_factory.mktemp("study") / "chou", progress=False, records=RECORDS)


def test_the_examples_are_those_of_the_report():
    """(5.2) as printed; (5.1) but for its entry (4, 4), which is misprinted."""
    second = np.array([[-3, 4, -8, 4], [4, -1, 10, 6], [-8, 10, 3, 2], [4, 6, 2, 7]]) / 3
    assert np.allclose(chou.target(2), second)
    first = np.array([[7, 10, -12, 2], [10, 10, 15, 5], [-12, 15, 12, 3], [2, 5, 3, -15]]) / 3
    wrong = ~np.isclose(chou.target(1), first)
    assert np.argwhere(wrong).tolist() == [[3, 3]]
    assert chou.target(1)[3, 3] == pytest.approx(22 / 3)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("example-1-identical", (10, 7, 5, 0)),
        ("example-1-perturbed", (10, 7, 5, -5)),
        ("example-2-identical", (5, 3, 0, 0)),
        ("example-2-perturbed", (5, 3, -1, -5)),
    ],
)
def test_eigenvalues_are_recovered(name, values, recovery):
    run = recovery.runs[name]
    assert run.reduced == "diagonal"
    final = run["product/eigenvalues_in_basis"][-1]
    known = run.problem.eigen.values
    expected = theory.recovered(known, perturbed=name.endswith("perturbed"))
    assert sorted(np.round(expected, 9)) == sorted(values)
    assert np.abs(final - expected).max() < 1e-6
    assert run["product/off_diagonal"].max() < 1e-12


def test_dominant_eigenvalues_are_recovered_first(recovery):
    """By the step at which half of |λ| is reached: larger ones first, and of ±5 the positive one."""
    run = recovery.runs["example-1-perturbed"]
    steps = dict(zip(np.round(run.problem.eigen.values), half_steps(run), strict=True))
    assert steps[10] < steps[7] < steps[5] < steps[-5]
    run = recovery.runs["example-2-perturbed"]
    steps = dict(zip(np.round(run.problem.eigen.values), half_steps(run), strict=True))
    assert steps[5] < steps[3] < steps[-5] < steps[-1]
    halves = [recovery.runs[f"depth-{depth}"] for depth in (2, 3, 4, 5)]
    traced = [half_steps(run)[1] for run in halves]
    assert traced == sorted(traced)


def test_the_bound_holds_for_the_examples(recovery):
    held = 0
    for example in (1, 2):
        run = recovery.runs[f"example-{example}-identical"]
        layers = np.abs(run["product/eigenvalues_in_basis"]) ** (1 / 3)
        goals = np.maximum(run.problem.eigen.values, 0) ** (1 / 3)
        steps = run.steps_of("product/eigenvalues_in_basis")
        for i, bound in enumerate(bounds(run, 0.01)):
            close = np.abs(layers[:, i] - goals[i]) <= 0.01
            if bound <= run.step:
                assert close.any()
                assert steps[close.argmax()] <= bound + run.settings["every"]
                held += 1
    assert held >= 6, "of 8 eigenvalues"


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_stopping_on_a_plateau_gives_the_best_approximation(wanted):
    """Example 1, perturbed start. Its values 5 and −5 are of one size: the third plateau has the positive one."""
    problem = lb.Factorization(chou.target(1))
    network = lb.Network.perturbed(4, 3, chou.ALPHA, chou.BETA)
    record = lb.Record(every=10, metrics=("effective_rank",))
    run = lb.train(problem, network, lb.GD(lr=chou.LR), 20_000, record, lb.Stop(plateaus=wanted), forecast=False)
    assert run.status == "stopped"
    values, vectors = np.linalg.eigh(problem.target)
    kept = np.argsort(-values)[:wanted]
    best = (vectors[:, kept] * values[kept]) @ vectors[:, kept].T
    assert np.linalg.norm(run.network.product() - best) < 0.01 * np.linalg.norm(best)


def test_a_target_that_is_not_symmetric(recovery):
    """Identical layers keep the sign of their determinants. That of Example 2 is positive: all is recovered, after
    λ = 3 was recovered and lost for a while. That of Example 1 is negative: λ = 5 is recovered and lost."""
    run = recovery.runs["not-symmetric-2"]
    entries = run["product/eigenvalues_in_basis"]
    place = int(np.argmin(np.abs(run.problem.eigen.values - 3)))
    near = np.abs(entries[:, place] - 3) < 0.3
    changes = np.flatnonzero(np.diff(near.astype(int)))
    assert np.allclose(run.network.product(), run.target, atol=1e-6)
    assert len(changes) == 3, "recovered, lost, recovered"
    assert run.settings["every"] * (changes[2] - changes[1]) > 1000
    other = recovery.runs["not-symmetric-1"]
    assert np.linalg.det(other.target) < 0 < np.linalg.det(run.target)
    assert all(np.linalg.det(layer) > 0 for layer in other.network.layers)
    place = int(np.argmin(np.abs(other.problem.eigen.values - 5)))
    entries = other["product/eigenvalues_in_basis"][:, place]
    assert entries.max() > 4.9
    assert entries[-1] < 3


def test_the_study_is_written_down(recovery, capsys):
    words = ["reproduce", "chou", "-o", str(recovery.store), "--records", str(RECORDS), "--format", "png"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--json", "--quiet"])
    assert ended.value.code == 0
    facts = json.loads(capsys.readouterr().out)
    assert set(facts["runs"].values()) == {"finished"}
    figures = {path.stem for path in (recovery.store / "figures").iterdir()}
    assert figures == {
        *(f"figure-5.{k}{side}" for k in (1, 2, 3, 4) for side in "ab"),
        "not-symmetric-1",
        "not-symmetric-2",
        "random",
    }
    text = (recovery.store / "recovery.md").read_text()
    assert "misprint" in text
    assert text.count("| example-") == 4
    assert str(lb.read_evidence(recovery.store)) + "\n" == text


def test_settings_of_another_study_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(lb.InvalidInput, match="seeds = 2 cannot be set: chou has a fixed set of runs"):
        lb.reproduce("chou", seeds=2)
    assert list(tmp_path.iterdir()) == []
