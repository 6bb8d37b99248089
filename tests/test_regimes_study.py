"""The study of regimes in small: what it finds, its tables, figures and page."""

import json

import pytest

import lrbias as lb
from lrbias.studies.regimes import Regimes
from runs import call

SMALL = {
    "seeds": 1,
    "widths": (20, 80),
    "gammas": (0.4, 0.5, 0.6, 0.8),
    "scales": (1.0, 30.0),
    "saddle_starts": {2: (1e-5, 1500)},
    "update_runs": {"N = 3": (3, 3, 1.1, 2e-3, 4000), "N = 3, large start": (3, 3, 0.5, 1e-3, 2000)},
    "update_rank": 3,
    "drift_rates": (0.02, 0.01),
    "side": 10,
    "scaled_width": 30,
    "shares": (0.8, 1.2, 1.6),
    "edge_steps": 1000,
    "edge_every": 20,
    "saddle_size": 6,
    "saddle_values": (8.0, 2.5),
    "update_size": 20,
    "window": 50,
    "drift_size": 8,
    "drift_time": 1.0,
    "bias_steps": 2500,
}


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    return lb.reproduce("regimes", tmp_path_factory.mktemp("study") / "study", progress=False, **SMALL)


def test_large_starts_are_lazy_and_small_ones_rich(findings):
    rows = {(row["width"], row["gamma"]): row for row in findings.lazy_table()}
    for width in (20, 80):
        distances = [rows[width, gamma]["distance"] for gamma in (0.5, 0.6, 0.8)]
        assert distances == sorted(distances)
        assert rows[width, 0.8]["gap"] > 0.5
    assert rows[80, 0.4]["distance"] < 0.2 * rows[20, 0.4]["distance"]
    assert rows[80, 0.4]["gap"] < 0.1
    assert rows[80, 0.8]["distance"] > 0.4
    assert all(0.5 < gamma < 0.8 for gamma in findings.transition().values())
    assert findings.rise(80) > findings.rise(20)


def test_a_scaled_output_is_lazy(findings):
    rich, lazy = findings.scaled_table()
    assert lazy["distance"] < 0.1 * rich["distance"]
    assert lazy["gap"] < 0.3 * rich["gap"]


def test_above_the_limit_of_the_flow_sharpness_settles_at_that_of_gradient_descent(findings):
    below, *above = findings.edge_table()
    assert below["ratio"] == pytest.approx(below["flow_ratio"], rel=0.01)
    for row in above:
        assert row["flow_ratio"] > 1.1
        assert 0.9 < row["ratio"] <= 1
        assert row["loss"] < 1e-3


def test_the_flow_comes_by_saddles_of_every_rank(findings):
    assert [saddle.rank for saddle in findings.saddles[2]] == [0, 1, 2]
    assert [saddle.index for saddle in findings.saddles[2]] == [12, 5, 0]


def test_updates_of_small_starts_are_of_low_rank(findings):
    assert findings.verdicts() == {"N = 3": True, "N = 3, large start": False}


def test_orders_of_the_drift(findings):
    assert [row["order"] for row in findings.drift_table()] == pytest.approx([1, 4], abs=0.2)


def test_modes_are_learnt_in_the_order_of_their_strength(findings):
    for row in findings.bias_table():
        assert row["measured"] == pytest.approx(row["expected"], rel=0.06)
    plain = [row for row in findings.bias_table() if not row["whitened"]]
    ordered = [row["value"] for row in sorted(plain, key=lambda row: row["measured"])]
    assert ordered == pytest.approx([0.5, 2.0, 5.0])


def test_it_is_written_read_again_and_shown(findings, tmp_path):
    written = findings.save(formats=("png",))
    assert {path.name for path in written} >= {"regimes.md", "regimes.json", "lazy-and-rich.png", "spectral-bias.png"}
    assert Regimes.is_in(findings.store)
    again = lb.read_evidence(findings.store)
    assert str(again) == str(findings)
    assert json.loads((findings.store / "regimes.json").read_text())["rise"] == pytest.approx(
        {str(width): value for width, value in findings.as_dict()["rise"].items()}
    )
    page = lb.report([findings.store], tmp_path / "page.html", progress=False).read_text()
    for title, *_ in findings.tables():
        assert title in page
    assert page.count("<figure") == len(findings.figures())
    assert "it holds in N = 3. It fails in N = 3, large start." in page


def test_what_does_not_fit_is_refused(findings, capsys, tmp_path):
    with pytest.raises(lb.InvalidInput, match="steps = 100 cannot be set: regimes has a fixed set of runs"):
        lb.reproduce("regimes", tmp_path / "study", steps=100)
    with pytest.raises(lb.InvalidInput, match="seeds = 2 is not accepted: expected 1, the number that the folder was"):
        lb.reproduce("regimes", findings.store, progress=False, **{**SMALL, "seeds": 2})
    code, out, _ = call(capsys, "reproduce regimes --dry-run --json")
    assert (code, json.loads(out)["runs"]) == (0, 2 * 3 * (4 * 10 + 5) + 1 + 8 + 2 + 5 + 2 * 4 + 2)
    assert not (tmp_path / "study").exists()
