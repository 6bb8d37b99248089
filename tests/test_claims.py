"""The statistics behind the protocol's claims, and a small study from its runs to its table and figures."""

import csv
import json

import numpy as np
import pytest

import lrbias as lb
from lrbias.cli import main
from lrbias.experiments import Experiment
from lrbias.studies.protocol import _claims as claims
from lrbias.studies.protocol import _parameters as protocol

pytestmark = pytest.mark.usefixtures("sweeps_here")
METRICS = protocol.METRICS


def _run(**changes):
    """Three values far apart at depth 3, learnt one after the other."""
    settings = {"shape": [12, 12], "values": [4.0, 2.0, 1.0], "teacher_seed": 1, "gamma": 1.8, "seed": 2, "lr": 0.01}
    whole = Experiment.from_words({**settings, "steps": 30_000, "metrics": METRICS, **changes})
    return lb.train(**whole.arguments(), forecast=False)


@pytest.fixture(scope="module")
def learnt():
    return _run()


def test_modes_far_apart_are_learnt_on_plateaus_and_in_order(learnt):
    escapes = claims.escape_steps(learnt)
    assert escapes.tolist() == learnt.escape_steps(), "here the sorted values are the modes"
    assert claims.plateau_share(learnt) == 1
    assert claims.order_of_learning(learnt) == 1
    assert claims.count_above(learnt, -1) == 3
    assert claims.count_above(learnt, int(escapes[1] - 10) // 10) == 2


def test_what_is_not_learnt_is_not_judged():
    run = _run(steps=100)
    assert np.isinf(claims.escape_steps(run)).all()
    assert claims.plateau_share(run) is None
    assert claims.order_of_learning(run) is None
    rows = claims.judge([("square", "r = 3", run)])
    assert {row.verdict for row in rows} == {"not judged"}


def test_equal_values_have_no_order():
    run = _run(values=[2.0, 2.0, 2.0])
    assert claims.order_of_learning(run) is None
    with_first = _run(values=[4.0, 1.0, 1.0, 1.0])
    assert claims.order_of_learning(with_first) == 1


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 1),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1),
        ([1, 2, 3, 4], [1, 1, 2, 2], 1),
        ([2, 2, 3, 3], [7, 7, 9, 9], 1),
        ([1, 2, 3], [1, 3, 2], 1 / 3),
        ([1, 2, 3], [5, 5, 5], None),
    ],
)
def test_concordance_is_one_for_the_best_order_that_ties_allow(x, y, expected):
    assert claims._concordance(x, y) == (None if expected is None else pytest.approx(expected))


def test_the_flow_is_smoother_the_nearer_gd_is_to_its_limit():
    ratios = []
    for lr in (0.02, 0.1, 0.25):  # the limit is 1/4
        common = {"gamma": 1.0, "steps": int(40 / lr), "every": 1, "values": [4.0], "depth": 2}
        gd, flow = _run(lr=lr, **common), _run(lr=None, method="flow", dt=lr, **common)
        ratios.append(claims.smoothness(gd, flow)[0])
        assert claims.smoothness(gd, gd) == (1, 1)
    assert 1 < ratios[0] < ratios[1] < ratios[2]


SMALL = {"parts": ("square",), "shape": (20, 20), "ranks": (3,), "depths": (2, 3, 4), "step_sizes": (0.01, 0.02)}


def test_a_study_from_its_runs_to_its_evidence(tmp_path, capsys):
    flags = [f"--{name.replace('_', '-')} {' '.join(map(str, values))}" for name, values in SMALL.items()]
    words = f"--steps 1500 --seeds 2 --gamma 1 --spectral-norm 4 --format png --workers 1 --json {' '.join(flags)}"
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", "protocol", "-o", str(tmp_path / "study"), *words.split()])
    assert ended.value.code == 0
    printed = capsys.readouterr()
    assert "24 runs, about" in printed.err
    facts = json.loads(printed.out)
    assert facts["runs"] == {"finished": 24}
    rows = {(row["claim"], row["statistic"]): row for row in facts["table"]}
    order = rows["order", "τ_b of value and time"]
    assert order["holds"] + order["in part"] + order["fails"] + order["not judged"] == 12
    assert set(order["by_depth"]) == {"2", "3", "4"}
    assert sum(claim == "depth" for claim, _ in rows) == 4
    study = tmp_path / "study"
    assert {path.name for path in (study / "figures").iterdir()} == {
        "plateaus.png",
        "order.png",
        "smoothness.png",
        "depth.png",
    }
    with open(study / "evidence.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(facts["settings"])
    text = (study / "evidence.md").read_text()
    assert "24 runs: 24 finished." in text
    assert str(lb.read_evidence(study)) + "\n" == text
    for sentence in claims.CLAIMS.values():
        assert f"## {sentence}" in text


def test_a_study_too_short_to_learn_anything_says_so(tmp_path):
    sizes = {**SMALL, "steps": 25, "seeds": 1, "gamma": 1.0, "spectral_norm": 4.0}
    evidence = lb.reproduce("protocol", tmp_path / "study", workers=1, progress=False, **sizes)
    assert {row["verdict"] for row in evidence.table()} == {"not judged"}
    assert len(evidence.save(("png",))) == 7
    assert "**not judged**" in str(evidence)


def test_the_protocol_has_the_runs_that_it_asks_for():
    sweeps = protocol.ProtocolParameters().sweeps()
    base, over = sweeps["square-gd"]
    assert (over["rank"], over["depth"], over["lr"]) == ([5, 10, 20], [2, 3, 4, 5], [1e-4, 1e-3, 1e-2])
    assert base["shape"] == [100, 100]
    assert base["steps"] == 50_000
    assert 10 <= base["every"] <= 50
    for name, (base, over) in sweeps.items():
        assert base["method"] == name.split("-")[1]
        assert name.split("-")[0] in protocol.PARTS
        assert len(over) >= 2


@pytest.mark.parametrize("words", [["reproduce", "other"], ["reproduce", "protocol", "--seeds", "0"]], ids=" ".join)
def test_bad_words_are_refused(words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(lb.InvalidInput, match="store"):
        lb.read_evidence(tmp_path)
