"""Metrics that are functions of the user's: what they may return, and what happens when they return something else."""

import numpy as np
import pytest

import lrbias as lb
from runs import fingerprint, settings


def _after(calls, first, later):
    """A function that returns `first` so many times, then `later`."""
    left = iter(range(calls))
    return lambda network: first if next(left, None) is not None else later


@pytest.mark.parametrize(
    ("first", "later", "sentence"),
    [
        (np.zeros(3), np.zeros(2), r"returned an array of shape \(2,\) at step 40: expected \(3,\)"),
        (np.zeros(3), 1.0, r"returned an array of shape \(\) at step 40: expected \(3,\)"),
        (0, 0.5, r"returned 0.5 at step 40: expected int64"),
        (0, float("nan"), r"returned nan at step 40: expected int64"),
        (1.0, None, r"returned None at step 40: expected a number or an array"),
        (1.0, "much", r"returned 'much' at step 40: expected a number or an array"),
        (1.0, [[1], [1, 2]], r"returned \[\[1\], \[1, 2\]\] at step 40: expected a number or an array"),
        (1.0, 1j, r"returned 1j at step 40: expected a number or an array"),
    ],
)
def test_a_value_that_changes_its_kind_ends_the_run_as_failed(tmp_path, first, later, sentence):
    """One call before the first step, then those at steps 0, 10, 20 and 30. A corrected function goes on from there."""
    record = lb.Record(every=10, metrics={"own": _after(5, first, later), "stable_rank": 10})
    with pytest.raises(lb.InvalidInput, match=sentence) as caught:
        lb.train(**settings(record=record, checkpoint_every=20), store=tmp_path / "a run")
    run = lb.open(tmp_path / "a run")
    assert (run.status, run.step, len(run["own"]), len(run["product/stable_rank"])) == ("failed", 40, 4, 4)
    assert "at step 40" in run.detail
    (note,) = caught.value.__notes__
    advice = note.split("continue with: ")[1]
    resumed = eval(advice.replace("…", "f"), {"lb": lb, "f": lambda network: first})
    assert resumed.status == "finished"
    whole = settings(record=lb.Record(every=10, metrics={"own": lambda network: first, "stable_rank": 10}))
    assert fingerprint(resumed) == fingerprint(lb.train(**whole))


def test_a_corrected_function_has_to_return_what_the_run_records(tmp_path):
    record = lb.Record(every=10, metrics={"own": _after(5, np.zeros(3), None)})
    with pytest.raises(lb.InvalidInput):
        lb.train(**settings(record=record), store=tmp_path / "run")
    with pytest.raises(lb.InvalidInput, match=r"shape \(2,\) at the start: expected \(3,\)"):
        lb.resume(tmp_path / "run", metrics={"own": lambda network: np.zeros(2)})
    assert lb.open(tmp_path / "run").status == "failed"


@pytest.mark.parametrize("value", [True, np.float16(1.5), np.longdouble(1.5), np.ones(2, ">f8"), np.uint8(7), 1 << 40])
def test_numbers_of_every_kind_are_kept(tmp_path, value):
    run = lb.train(**settings(20, record=lb.Record(metrics={"own": lambda network: value})), store=tmp_path / "run")
    assert np.array_equal(lb.open(tmp_path / "run")["own"][-1], value)
    assert run["own"].shape == (3, *np.shape(value))


def test_whole_numbers_among_fractions_are_fractions():
    run = lb.train(**settings(20, record=lb.Record(metrics={"own": _after(2, 0.5, 1)})))
    assert run["own"].tolist() == [0.5, 1.0, 1.0]
