"""The study of greedy learning beside flow: one path from small starts, the counter-example, graphs; tables, page."""

import json
import sys

import numpy as np
import pytest

import lrbias as lb
from lrbias.cli import _app as cli
from lrbias.errors import InvalidInput
from lrbias.studies import _runs as making
from lrbias.studies.glrl import Greedy
from lrbias.studies.glrl._parameters import GRAPHS
from lrbias.studies.glrl._paths import measured_power
from lrbias.studies.glrl._problems import counterexample, graph
from lrbias.studies.glrl._tables import start_for

SMALL = {  # few starts, coarse paths and one completion
    "spectrum": (7.0, 5.0, 3.0),
    "large_scales": (1e-2, 1e-8),
    "fractions": (0.8,),
    "instances": 1,
    "completion_steps": 500,
    "scales": {2: (1e-2, 1e-3, 1e-4), 3: (0.2, 0.1, 0.03), 4: (0.2, 0.1)},
    "random_scales": (1e-2, 1e-4),
    "greedy_dt": {2: 0.03, 3: 0.03, 4: 0.03},
    "epsilons": {2: 1e-10, 3: 1e-4, 4: 1e-3},
    "settled": 20.0,
    "levels": (0.1, 0.05),
}


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    return lb.reproduce("glrl", tmp_path_factory.mktemp("study") / "study", progress=False, **SMALL)


def test_a_dry_run_says_what_the_study_takes(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["reproduce", "glrl", "--dry-run", "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["runs"] == 3 + 22 + 10 + 4 + 24 + 6 + 300


def test_flows_come_nearer_the_smaller_they_start(findings):
    for depth in (2, 3, 4):
        flows = findings.flows(depth)
        for key in ("largest", "critical", "tails"):
            values = np.array([np.ravel(flow[key])[0] for flow in flows])
            assert (np.diff(values) < 0).all(), (depth, key)
    assert findings.flows(3)[-1]["critical"][0] < 1e-3 < 0.05 < findings.flows(2)[-1]["critical"][0]


def test_the_power_at_depth_two_is_the_expected_one(findings):
    (at_two, random, *_) = findings.power_table()
    assert at_two["power"] == pytest.approx(at_two["predicted"], abs=0.01)
    assert random["power"] == pytest.approx(at_two["predicted"], abs=0.02)


def test_deeper_networks_get_there_from_larger_starts(findings):
    rows = findings.level_table()
    assert [row["distance"] for row in rows] == list(SMALL["levels"])
    for row in rows:
        assert row["alpha"][2] < 0.1 * row["alpha"][3]


def test_phases_end_at_best_approximations(findings):
    rows = findings.factorization_table()
    assert [(row["depth"], row["tied"]) for row in rows] == [(2, True), (2, False), (3, False), (4, False)]
    for row in rows:
        assert row["ranks"] == [1, 2, 3]
        assert row["largest_error"] < 1e-8


def test_the_counterexample(findings):
    rows = findings.counterexample_table()
    assert [row["R"] for row in rows] == [2, 3, 5]
    for row in rows:
        assert (row["phases"], row["rank"]) == (1, 1)
        assert row["greedy"] == pytest.approx(row["expected"], abs=1e-6)
        assert row["least"] == pytest.approx(row["expected_least"], rel=1e-4)
        large, small = row["flows"].values()
        assert row["least"] - 1e-3 <= large < small <= row["greedy"] + 1e-6


def test_one_pair_more_joins_two_parts(findings):
    apart, joined, connected = findings.graph_table()
    assert (apart["parts"], joined["parts"], connected["parts"]) == (2, 1, 1)
    assert (apart["greedy_rank"], joined["greedy_rank"], connected["greedy_rank"]) == (2, 1, 1)
    assert (apart["flow_rank"], joined["flow_rank"]) == (2, 1)
    assert joined["entries"] == apart["entries"] + 2
    assert apart["greedy_error"] > 0.1
    assert joined["greedy_error"] < 1e-8


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_are_symmetric_and_of_rank_one(name):
    given = graph(name)
    assert given.symmetric_loss
    assert np.linalg.matrix_rank(given.target) == 1
    assert int(np.triu(given.mask).sum()) == {GRAPHS[0]: 30, GRAPHS[1]: 31, GRAPHS[2]: 30}[name]


def test_the_counterexample_has_the_eigenvalues_that_its_table_tells():
    values = np.linalg.eigvalsh(-counterexample(5).slope(np.zeros((4, 4))))[::-1]
    assert values[:2] == pytest.approx([(np.sqrt(101) + 1) / 2, (np.sqrt(101) - 1) / 2])


def test_a_start_is_interpolated_between_two_that_were_run():
    flows = [{"alpha": 1e-1, "largest": 1.0}, {"alpha": 1e-3, "largest": 1e-2}]
    assert start_for(0.1, flows) == pytest.approx(1e-2)
    assert start_for(2.0, flows) is None
    assert measured_power(flows)[0] == pytest.approx(1)


def test_a_study_is_saved_read_and_put_on_a_page(findings, monkeypatch):
    assert not Greedy.is_in(findings.store)
    written = findings.save(("png",))
    assert {path.name for path in written} >= {"glrl.md", "glrl.json", "same-path.png", "graphs.png"}
    monkeypatch.setattr(making, "train", None)
    monkeypatch.setattr(making, "resume", None)
    assert Greedy.is_in(findings.store)
    again = lb.read_evidence(findings.store)
    assert json.dumps(again.as_dict()) == json.dumps(findings.as_dict())
    page = lb.report([findings.store], findings.store / "page.html", progress=False).read_text()
    for title, *_ in findings.tables():
        assert title in page


def test_a_folder_of_another_study_is_refused(tmp_path):
    (tmp_path / "study").mkdir()
    with pytest.raises(InvalidInput, match="store = "):
        lb.reproduce("glrl", tmp_path / "study", progress=False)


def test_what_cannot_be_finished_is_not_begun(tmp_path, monkeypatch):
    with pytest.raises(InvalidInput, match="steps = 10 cannot be set: glrl has a fixed set of runs"):
        lb.reproduce("glrl", tmp_path / "study", steps=10)
    monkeypatch.setitem(sys.modules, "scs", None)
    with pytest.raises(InvalidInput, match="the study glrl needs cvxpy and SCS"):
        lb.reproduce("glrl", tmp_path / "study")
    assert not (tmp_path / "study").exists()
