"""The study of jumps: its starts are minima, SGD leaves one for a lower rank and stays; tables, figures, page."""

import json
import sys

import numpy as np
import pytest

import lrbias as lb
from lrbias.cli import _app as cli
from lrbias.errors import InvalidInput
from lrbias.studies.wang_jacot import WangJacot
from lrbias.studies.wang_jacot import _study as wang_jacot
from lrbias.studies.wang_jacot._curvature import least_curvature
from lrbias.studies.wang_jacot._outcomes import OUTCOMES
from lrbias.studies.wang_jacot._parameters import BASELINES, NOISE, SCHEDULES, SETS, problem, truth

SMALL = {  # few instances, cells and baselines
    "steps": 1000,
    "seeds": 1,
    "records": 50,
    "instances": 2,
    "weights": (1e-3, 1e-2),
    "phase_lrs": (0.05, 0.1, 3.0),
    "phase_ridges": (1e-3, 1e-2, 5e-2),
    "depths": (2, 3),
    "depth_ridges": (3e-3,),
    "widths": (10, 12),
    "samplings": ((1, True), (2, False)),
    "early_steps": 1000,
}


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    return lb.reproduce("wang-jacot", tmp_path_factory.mktemp("study") / "study", progress=False, **SMALL)


def test_a_dry_run_says_what_the_study_takes(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["reproduce", "wang-jacot", "--dry-run", "--json"])
    assert ended.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert said["runs"] == 5 * 1024 + 18 * 256 + 4 * 128 + 8000 + 960
    assert 10 < said["seconds"] < 1e5


def test_instances_have_noise_where_they_are_observed_only():
    given = problem(3)
    difference = given.target - truth(3)
    assert np.abs(difference[~given.mask]).max() == 0
    assert difference[given.mask].std() == pytest.approx(NOISE, rel=0.3)
    assert np.linalg.matrix_rank(truth(3)) == 1
    assert (truth(3) ** 2).mean() == pytest.approx(1)
    assert given.count == 60


def test_sgd_leaves_a_minimum_of_gd_for_a_lower_rank_and_stays_there(tmp_path):
    """Depth 5: GD's minimum overestimates the rank, GD stays in it, SGD with the same ridge does not."""
    study = WangJacot(tmp_path / "study", progress=False)
    before = study.minimum(0, NOISE, 5, 2e-3)
    assert before.jumps().rank == 2
    assert least_curvature(before) > -1e-8
    given = problem(0)
    record = lb.Record(every=1000, metrics=("singular_values", "gradient_norm"))
    after = lb.train(given, before.network, lb.GD(lr=0.08, ridge=2e-3), 20_000, record, forecast=False)
    assert after["gradient_norm"].max() < 1e-9
    assert after.jumps().rank == 2
    method = lb.SGD(lr=0.08, ridge=2e-3)
    made = lb.ensemble(given, before.network, method, 150_000, runs=32, every=1000, sets=SETS, progress=False)
    assert made.down.sum() >= 10
    assert made.up.sum() == made.exits(1).sum() == made.diverged.sum() == 0
    assert set(made.ranks[:, -1]) <= {1, 2}


def test_curvature_is_that_of_the_hessian_where_it_is_known(tmp_path):
    """One layer, everything observed, loss a sum: the Hessian is the identity, and 2λ more with a ridge."""
    given = lb.Completion(np.ones((3, 2)))
    network = lb.Network.from_layers([np.zeros((3, 2))])
    run = lb.train(given, network, lb.GD(lr=0.1, ridge=0.5), 3, lb.Record(metrics=()), forecast=False)
    assert least_curvature(run) == pytest.approx(2.0, rel=1e-6)


def test_the_study_has_all_of_its_parts(findings):
    facts = findings.as_dict()
    assert [row["runs"] for row in facts["one_way"]] == [51] * 5
    assert len(facts["sampling"]) == 2
    assert [(row["depth"], row["ridge"]) for row in facts["depths"]] == [
        (depth, ridge) for depth in (2, 3) for ridge in SMALL["depth_ridges"]
    ]
    assert len(facts["phases"]) == 9
    methods = [row["method"] for row in facts["schedules"]["0.2"]]
    assert methods == [*SCHEDULES, *BASELINES]
    outcomes = [row[name] for row in facts["phases"] for name in OUTCOMES]
    assert sum(outcomes) == 9
    (explosive,) = [row for row in facts["phases"] if (row["lr"], row["ridge"]) == (3.0, 1e-3)]
    assert explosive["diverged"] == 1


def test_networks_that_are_wide_enough_make_the_same_jumps(tmp_path, monkeypatch):
    """From one minimum, written in layers of two widths: what is not in use stays 0."""
    study = WangJacot(tmp_path / "study", progress=False)
    method = lb.SGD(lr=0.16, ridge=2.5e-3)
    before = study.minimum(0, NOISE, 3, 2.5e-3).network
    wider = [np.pad(layer, pad) for layer, pad in zip(before.layers, PADS, strict=True)]
    ranks = [
        lb.ensemble(problem(0), start, method, 20_000, runs=8, every=1000, progress=False).test_error[:, -1]
        for start in (before, lb.Network.from_layers(wider))
    ]
    assert np.allclose(*ranks, rtol=1e-3)


PADS = [((0, 5), (0, 0)), ((0, 5), (0, 5)), ((0, 0), (0, 5))]


def test_a_study_is_saved_read_and_put_on_a_page(findings, monkeypatch):
    written = findings.save(("png",))
    assert {path.name for path in written} >= {"wang-jacot.md", "phases.csv", "wang-jacot.json", "phases.png"}
    monkeypatch.setattr(wang_jacot, "ensemble", _only_reads)
    again = lb.read_evidence(findings.store)
    assert json.dumps(again.as_dict()) == json.dumps(findings.as_dict())
    page = lb.report([findings.store], findings.store / "page.html", progress=False).read_text()
    for title, *_ in findings.tables():
        assert title in page


def _only_reads(*given, store, **settings):
    return lb.open_ensemble(store)


def test_a_folder_with_another_size_is_refused(tmp_path):
    WangJacot(tmp_path / "study", steps=2000, seeds=1).begin()
    with pytest.raises(InvalidInput, match=r"store = .* a study of 4000 steps and 1 seeds, this one has"):
        WangJacot(tmp_path / "study", steps=4000, seeds=1).begin()


def test_what_cannot_be_finished_is_not_begun(tmp_path, monkeypatch):
    with pytest.raises(InvalidInput, match="workers = 0 is not accepted"):
        lb.reproduce("wang-jacot", tmp_path / "study", workers=0)
    monkeypatch.setitem(sys.modules, "scs", None)
    with pytest.raises(InvalidInput, match="the study wang-jacot needs cvxpy and SCS"):
        lb.reproduce("wang-jacot", tmp_path / "study")
    assert not (tmp_path / "study").exists()
