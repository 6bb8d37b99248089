"""What a user has called while a run goes on, and the function that ends one."""

import os
import time

import numpy as np
import pytest

import lrbias as lb
from lrbias.storage import _format as disk
from runs import fingerprint, settings

MEASURED = {"singular_values": 4, "stable_rank": 10, "updates": 6}
RECORD = lb.Record(every=10, metrics=MEASURED)


class Diary:
    """Writes down what it is told; raises `error` at one of the moments."""

    def __init__(self, moment=None, at=None, error=None):
        self.heard = []
        self.rows = {}
        self._fails = moment, at
        self._error = error

    def _note(self, moment, at):
        self.heard.append((moment, at))
        if (moment, at) == self._fails and self._error is not None:
            error = self._error
            self._error = None
            raise error

    def on_start(self, run):
        self.run = run
        self._note("start", run.step)

    def on_record(self, step, row):
        self.rows[step] = row
        self._note("record", step)

    def on_commit(self, step):
        self._note("commit", step)

    def on_end(self, run):
        self._note("end", run.step)

    def steps(self, moment):
        return [at for name, at in self.heard if name == moment]


@pytest.fixture(params=[1, 2])
def cores(request, monkeypatch):
    """One core: metrics are measured in the thread that trains. Two: beside it."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(request.param)))
    monkeypatch.setattr("lrbias.metrics._schedule.SMALL", 0)
    return request.param


def arguments(steps=120, **changes):
    return settings(steps, **{"record": RECORD, "checkpoint_every": 40, **changes})


def same_rows(rows, run):
    """Rows that were told are those that are recorded, and all of them. The first loss of a phase has its new unit."""
    assert rows
    begun = {phase.start for phase in run.phases}
    for step, row in rows.items():
        assert row["loss"] == run.losses[step] or step in begun
        for name in set(row) - {"loss"}:
            interval = run.steps_of(name)[1]
            recorded = run[name][step // interval]
            assert step % interval == 0
            assert np.asarray(row[name]).dtype == recorded.dtype
            assert np.array_equal(row[name], recorded), (name, step)
    for name in set(run.names) - {"losses"}:
        assert [step for step in rows if name in rows[step]] == run.steps_of(name).tolist(), name


def test_moments_come_in_order_and_rows_in_the_order_of_the_steps(cores, tmp_path):
    diary = Diary()
    run = lb.train(**arguments(), store=tmp_path / "run", callbacks=[diary])
    assert diary.heard[0] == ("start", 0)
    assert diary.heard[-1] == ("end", 120)
    assert diary.steps("record") == [step for step in range(121) if step % 4 == 0 or step % 6 == 0 or step % 10 == 0]
    assert diary.steps("commit") == [40, 80, 120]
    for step in (40, 80, 120):
        before = diary.heard[: diary.heard.index(("commit", step))]
        assert ("record", step) in before, "a commit has the record of its step"
    same_rows(diary.rows, run)
    assert diary.run.refresh().step == 120


@pytest.mark.parametrize("stored", [True, False])
def test_a_run_can_be_read_while_it_goes_on(stored, cores, tmp_path):
    class Reader(Diary):
        def on_commit(self, step):
            run = self.run.refresh()
            self.read.append((run.step, run.losses.copy(), run["product/stable_rank"].copy(), run.network.params))

    reader = Reader()
    reader.read = []
    run = lb.train(**arguments(), store=tmp_path / "run" if stored else None, callbacks=[reader])
    assert [step for step, *_ in reader.read] == [40, 80, 120]
    for step, losses, ranks, params in reader.read:
        assert np.array_equal(losses, run.losses[: step + 1])
        assert np.array_equal(ranks, run["product/stable_rank"][: step // 10 + 1])
        assert np.array_equal(params, run.checkpoint(step).params)


def test_callbacks_change_no_bits(cores):
    plain = fingerprint(lb.train(**arguments()))
    assert fingerprint(lb.train(**arguments(), callbacks=[Diary(), lambda step, row: row.clear()])) == plain


def test_slow_metrics_are_told_in_order_too(monkeypatch):
    """Training is ahead of what is measured beside it."""
    from lrbias import metrics

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr("lrbias.metrics._schedule.SMALL", 0)
    known = metrics.METRICS["stable_rank"]

    def slow(state):
        time.sleep(0.002 * (state.step % 30 == 0))
        return known.measure(state)

    slower = metrics.Metric("stable_rank", known.quantities, slow, known.needs)
    monkeypatch.setitem(metrics.METRICS._known, "stable_rank", slower)
    told = []
    record = lb.Record(every=1, metrics=("stable_rank",))
    lb.train(**arguments(record=record), callbacks=[lambda step, row: told.append(step)])
    assert told == list(range(121))


METHODS = {
    "flow": {"method": lb.GradientFlow(dt=0.1, scheme="dopri5")},
    "sgd": {"method": lb.SGD(lr=1e-3, batch=3)},
    "greedy": {"method": lb.GLRL(inner=lb.GD(lr=0.05), max_rank=1, check_every=20), "network": None},
    "linearized": {"method": lb.Linearized(lr=0.02)},
    "float32": {"network": lb.Network.gaussian((5, 7, 6), gamma=1.0, seed=2, dtype="float32")},
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_tells_what_it_records(name):
    diary = Diary()
    record = lb.Record(every=10, metrics={"singular_values": 4, "gradient_norm": 20})
    run = lb.train(**arguments(60, record=record, **METHODS[name]), callbacks=[diary])
    same_rows(diary.rows, run)


def test_without_metrics_there_is_the_loss():
    rows = {}
    run = lb.train(**arguments(record=lb.Record(every=30, metrics=())), callbacks=[rows.__setitem__])
    assert rows == {step: {"loss": run.losses[step]} for step in range(0, 121, 30)}


def test_callbacks_are_called_in_the_order_in_which_they_were_given():
    said = []
    lb.train(**arguments(20), callbacks=[lambda *_: said.append("first"), lambda *_: said.append("second")])
    assert said == ["first", "second"] * (len(said) // 2)
    assert said


@pytest.mark.parametrize("given", [print, "print", [3], [print, None], [object()], {"a": print}])
def test_what_is_no_callback_is_refused(given, tmp_path):
    with pytest.raises(lb.InvalidInput, match=r"callbacks = .* expected a list of functions of \(step, row\), or"):
        lb.train(**arguments(), store=tmp_path / "run", callbacks=given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("moment", "at", "step"),
    [("start", 0, 0), ("record", 0, 0), ("record", 52, 52), ("record", 120, 120), ("commit", 80, 80)],
)
def test_an_exception_ends_the_run_with_everything_saved(moment, at, step, cores, tmp_path):
    """At the record that it was told of, though training may be further; the way on is named and leads to the same."""
    diary = Diary(moment, at, ZeroDivisionError("of the user's"))
    with pytest.raises(ZeroDivisionError, match="of the user's") as caught:
        lb.train(**arguments(), store=tmp_path / "run", callbacks=[diary])
    assert f"continue with: lb.resume('{tmp_path / 'run'}', callbacks=[…])" in caught.value.__notes__[0]
    failed = lb.open(tmp_path / "run")
    assert (failed.status, failed.step, failed.detail) == ("failed", step, "ZeroDivisionError: of the user's")
    whole = lb.train(**arguments())
    assert np.array_equal(failed.losses, whole.losses[: step + 1])
    ranks = failed["product/stable_rank"]
    assert np.array_equal(ranks, whole["product/stable_rank"][: len(ranks)])
    assert failed.check() == []
    assert diary.heard[-1] == ("end", step), "which is told whatever has ended the run"
    assert diary.steps("record") == sorted(diary.steps("record"))
    again = lb.resume(tmp_path / "run", callbacks=[diary])
    assert fingerprint(again) == fingerprint(whole)
    same_rows(diary.rows, again)


def test_a_failure_far_behind_the_training_loses_no_rows(tmp_path, monkeypatch):
    """Blocks that are full have been written by then; the losses before the failure are read back from them."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr("lrbias.metrics._schedule.SMALL", 0)
    monkeypatch.setattr(disk, "MOST_CHUNK_ROWS", 4)
    whole = lb.train(**arguments())

    def late(step, row):
        if step == 36:
            raise ZeroDivisionError

    for store in (tmp_path / "run", None):
        with pytest.raises(ZeroDivisionError):
            lb.train(**arguments(checkpoint_every=1000), store=store, callbacks=[late])
    failed = lb.open(tmp_path / "run")
    assert failed.step == 36
    assert np.array_equal(failed.losses, whole.losses[:37])
    assert fingerprint(lb.resume(tmp_path / "run")) == fingerprint(whole)


def test_an_exception_at_the_end_is_raised_when_the_run_is_complete(tmp_path):
    with pytest.raises(ZeroDivisionError):
        lb.train(**arguments(), store=tmp_path / "run", callbacks=[Diary("end", 120, ZeroDivisionError())])
    run = lb.open(tmp_path / "run")
    assert (run.status, run.step) == ("finished", 120)
    assert fingerprint(run) == fingerprint(lb.train(**arguments()))


def test_a_second_exception_is_a_note_of_the_first():
    class Twice(Diary):
        def on_end(self, run):
            raise ValueError("at the end")

    with pytest.raises(ZeroDivisionError) as caught:
        lb.train(**arguments(), callbacks=[Twice("record", 20, ZeroDivisionError())])
    assert caught.value.__notes__ == ["on_end has failed, too: ValueError: at the end"]


@pytest.mark.parametrize(("moment", "at"), [("start", 0), ("record", 52), ("commit", 80)])
def test_a_keyboard_interrupt_in_a_callback_is_an_interrupt(moment, at, cores, tmp_path):
    diary = Diary(moment, at, KeyboardInterrupt())
    with pytest.raises(lb.Interrupted, match="everything is saved; continue with: ") as caught:
        lb.train(**arguments(), store=tmp_path / "run", callbacks=[diary])
    run = caught.value.run
    assert (run.status, run.step) == ("interrupted", diary.heard[-1][1])
    assert at <= run.step < 120
    assert fingerprint(lb.resume(tmp_path / "run")) == fingerprint(lb.train(**arguments()))


def test_a_keyboard_interrupt_at_the_end_is_raised_too():
    with pytest.raises(lb.Interrupted) as caught:
        lb.train(**arguments(), callbacks=[Diary("end", 120, KeyboardInterrupt())])
    assert (caught.value.run.status, caught.value.run.step) == ("finished", 120)


def test_a_resumed_run_has_callbacks_of_its_own(tmp_path):
    first = Diary()
    second = Diary()
    lb.train(**arguments(60), store=tmp_path / "run", callbacks=[first])
    run = lb.resume(tmp_path / "run", steps=120, callbacks=[second])
    assert second.heard[0] == ("start", 60)
    assert second.steps("record")[0] == 60, "the record at the step where it goes on is made again"
    assert second.steps("commit") == [80, 120]
    same_rows({**first.rows, **second.rows}, run)
    with pytest.raises(lb.InvalidInput, match="callbacks = 3 is not accepted"):
        lb.resume(tmp_path / "run", steps=130, callbacks=3)


# ── Stop(when=…) ────────────────────────────────────────────────────────────────────────────────────────────


def low(step, row):
    """Whether the loss has fallen to a tenth of the first one."""
    low.first = row["loss"] if step == 0 else low.first
    return row["loss"] < 0.5 * low.first


def test_a_function_ends_the_run_at_its_record(cores):
    whole = lb.train(**arguments(400))
    run = lb.train(**arguments(400, stop=lb.Stop(when=low)))
    assert (run.status, run.detail) == ("stopped", "the function that was given as `when` has said so")
    records = [step for step in range(401) if step % 4 == 0 or step % 6 == 0 or step % 10 == 0]
    assert run.step == next(step for step in records if whole.losses[step] < 0.5 * whole.losses[0])
    assert 0 < run.step < 400
    assert np.array_equal(run.losses, whole.losses[: run.step + 1])
    assert np.array_equal(run.network.params, whole.network_at(run.step).params)


def test_a_run_that_ended_so_goes_on_with_the_function_again(tmp_path):
    whole = lb.train(**arguments(400))
    run = lb.train(**arguments(400, stop=lb.Stop(when=low)), store=tmp_path / "run")
    assert not any("when" in key for key in run.settings)
    with pytest.raises(lb.InvalidInput, match=r"when = None is not accepted: expected the function that ends this run"):
        lb.resume(tmp_path / "run", steps=500)
    again = lb.resume(tmp_path / "run", steps=400, when=lambda step, row: False)
    assert fingerprint(again) == fingerprint(whole)


def test_an_interrupted_run_names_the_function_that_is_needed(tmp_path):
    def interrupted(step, row):
        if step == 40:
            raise KeyboardInterrupt
        return False

    stop = lb.Stop(when=interrupted)
    with pytest.raises(lb.Interrupted, match=r"continue with: lb\.resume\('.*run', when=…\)"):
        lb.train(**arguments(stop=stop), store=tmp_path / "run")
    assert lb.open(tmp_path / "run").step == 40
    again = lb.resume(tmp_path / "run", when=lambda step, row: False)
    assert fingerprint(again) == fingerprint(lb.train(**arguments()))


def test_a_function_that_fails_ends_the_run_with_everything_saved(tmp_path):
    def fragile(step, row):
        if step == 52:
            raise ZeroDivisionError
        return False

    with pytest.raises(ZeroDivisionError):
        lb.train(**arguments(stop=lb.Stop(when=fragile)), store=tmp_path / "run")
    failed = lb.open(tmp_path / "run")
    assert (failed.status, failed.step) == ("failed", 52)
    again = lb.resume(tmp_path / "run", when=lambda step, row: False)
    assert fingerprint(again) == fingerprint(lb.train(**arguments()))


def test_a_run_without_a_function_takes_none(tmp_path):
    lb.train(**arguments(), store=tmp_path / "run")
    with pytest.raises(lb.InvalidInput, match=r"when = .* cannot be set: no function ends this run"):
        lb.resume(tmp_path / "run", steps=130, when=low)


def test_what_is_no_function_is_refused():
    with pytest.raises(lb.InvalidInput, match=r"when = 3 is not accepted: expected a function of \(step, row\)"):
        lb.Stop(when=3)
