"""The one loop on a toy: a stepper that counts, a recorder that writes down what it is asked."""

import numpy as np
import pytest

import lrbias as lb
from lrbias.steppers import Chunks, Stepper, WholeChunks, replay
from lrbias.storage import MemoryStorage
from lrbias.system import display
from lrbias.training import EverySteps, Loop, Never, Recorder, Span, Subject
from lrbias.training._stops import NoStops
from lrcore.status import DIVERGED, OK, PAUSED


class Toy(Stepper):
    """`params` is the number of steps made; the loss of step k is 1/(k + 1). Pauses within some steps once each."""

    widths = (1, 1)

    def __init__(self, diverges=None, pauses=(), ends=None, stages=()):
        self.params = np.zeros(1)
        self.calls = []
        self._diverges = diverges
        self._pauses = set(pauses)
        self._ends = ends
        self._stages = stages

    def step(self, losses, step):
        self.calls.append((step, len(losses)))
        for k in range(len(losses)):
            stopped = self._stopped(step + k)
            if stopped != OK:
                losses[k:] = np.nan
                return stopped
            losses[k] = 1 / (step + k + 1)
            self.params += 1
        return OK

    def _stopped(self, step):
        if step == self._diverges:
            return DIVERGED
        if step in self._pauses:
            self._pauses.remove(step)
            return PAUSED
        return OK

    def restore(self, params, state):
        self.params[:] = params

    def ends_stage(self, step):
        if step == self._ends:
            self.ending = "there is nothing more to do"
        return step in self._stages


class Notes(Recorder):
    """Losses by step, steps that were recorded, what was handed on."""

    def __init__(self, every):
        self.intervals = self.marks = [every]
        self.found = {}
        self.recorded = []
        self.handed = []
        self.closed = 0

    def note(self, step, losses):
        self.found.update(zip(range(step, step + len(losses)), losses.tolist(), strict=True))

    def record(self, step):
        self.recorded.append(step)

    def divergence(self, step):
        return step, f"no loss at step {step}"

    def hand_on(self, ending):
        self.handed.append(ending)

    def close(self):
        self.closed += 1


class Sight(NoStops):
    """Stops at a loss, or at a step."""

    def __init__(self, loss=None, step=None, intervals=()):
        self.loss = loss
        self.intervals = intervals
        self._step = step

    def sentence(self, step):
        return "it was seen" if step == self._step else None


class Kept(MemoryStorage):
    """With a note of every commit."""

    def __init__(self):
        super().__init__({"quantities": {}})
        self.commits = []

    def commit(self, step, checkpoint, status, detail, intervals, elapsed):
        super().commit(step, checkpoint, status, detail, intervals, elapsed)
        self.commits.append((step, status))


def loop_of(toy, every=7, last=50, commits=20, stops=None, **span):
    storage = Kept()
    commits = Never() if commits is None else EverySteps(commits)
    subject = Subject(lambda: storage.progress(), None, display(False))
    return Loop(toy, Notes(every), storage, Span(0, last, commits, **span), subject, stops)


def test_every_step_is_made_once_and_recorded_when_it_is_due():
    toy = Toy()
    loop = loop_of(toy)
    progress = loop.run()
    assert (progress["status"], progress["step"], progress["checkpoint"]) == ("finished", 50, 50)
    assert toy.params[0] == 50
    assert loop.recorder.found == {step: 1 / (step + 1) for step in range(50)}
    assert set(range(0, 50, 7)) <= set(loop.recorder.recorded)
    assert loop.storage.commits == [(20, "running"), (40, "running"), (50, "finished")]
    assert loop.recorder.handed == ["running", "running", "finished"]
    assert loop.recorder.closed == 1
    assert {step: loop.storage.checkpoint(step)[0] for step in (20, 40, 50)} == {20: 20, 40: 40, 50: 50}


def test_a_chunk_ends_where_something_is_due():
    toy = Toy()
    loop_of(toy, stops=Sight(intervals=(9,))).run()
    for step, count in toy.calls:
        inside = range(step + 1, step + count)
        assert not [due for due in inside if due % 7 == 0 or due % 9 == 0 or due % 20 == 0]
    assert sum(count for _, count in toy.calls) == 50


def test_chunks_grow_while_calls_are_quick():
    toy = Toy()
    loop_of(toy, every=10_000, last=1000, commits=None).run()
    counts = [count for _, count in toy.calls]
    assert counts[:4] == [1, 2, 4, 8]


def test_whole_chunks_reach_as_far_as_is_asked_for():
    toy = Toy()
    loop = loop_of(toy, every=25, commits=None, chunks=WholeChunks)
    assert loop.make([]) == "finished"
    assert toy.calls == [(0, 25), (25, 25)]
    assert loop.recorder.recorded == [0, 25, 50]
    assert loop.storage.commits == [(50, "finished")]


def test_a_pause_within_a_step_changes_nothing():
    whole = loop_of(Toy())
    whole.run()
    toy = Toy(pauses=(0, 13, 14))
    loop = loop_of(toy)
    loop.run()
    assert loop.recorder.found == whole.recorder.found
    assert toy.params[0] == 50
    assert loop.recorder.recorded == sorted(set(loop.recorder.recorded)), "nothing is recorded twice"


def test_divergence_ends_the_run_where_it_happens():
    loop = loop_of(Toy(diverges=23))
    progress = loop.run()
    assert (progress["status"], progress["step"], progress["detail"]) == ("diverged", 23, "no loss at step 23")
    assert progress["checkpoint"] == 20, "of the commit before"
    assert loop.recorder.handed == ["running", "diverged"]


def test_a_loss_is_stopped_at_exactly():
    toy = Toy()
    loop = loop_of(toy, stops=Sight(loss=1 / 30))
    progress = loop.run()
    assert (progress["status"], progress["step"]) == ("stopped", 29)
    assert progress["detail"] == "the loss is at most 0.0333333"
    assert toy.params[0] == 29
    assert loop.recorder.found == {step: 1 / (step + 1) for step in range(29)}


@pytest.mark.parametrize(("toy", "stops"), [(Toy(ends=21), None), (Toy(), Sight(step=21, intervals=(21,)))])
def test_a_sentence_ends_the_run(toy, stops):
    progress = loop_of(toy, stops=stops).run()
    assert (progress["status"], progress["step"]) == ("stopped", 21)
    assert progress["detail"] in ("there is nothing more to do", "it was seen")


def test_a_signal_ends_the_run_between_two_calls():
    toy = Toy()
    signals = []
    loop = loop_of(toy)
    loop.recorder.note = lambda step, losses: signals.append(15) if step + len(losses) > 12 else None
    assert loop.make(signals) == "interrupted"
    assert 12 < loop.step < 50
    assert loop.storage.commits[-1] == (loop.step, "interrupted")
    assert loop.storage.checkpoint(loop.step)[0] == loop.step == toy.params[0]


def test_the_end_of_a_stage_is_committed():
    loop = loop_of(Toy(stages=(7, 28)))
    loop.run()
    assert [step for step, _ in loop.storage.commits] == [7, 20, 28, 40, 50]


def test_only_the_last_checkpoint_may_stay():
    loop = loop_of(Toy(), keeps_all=False)
    loop.run()
    assert loop.storage.checkpoint_steps() == [50]


def test_a_failure_in_a_recorder_that_cannot_go_back_is_raised():
    loop = loop_of(Toy())

    def broken(step):
        raise lb.InvalidInput("not this one")

    loop.recorder.record = broken
    with pytest.raises(lb.InvalidInput, match="not this one"):
        loop.run()
    assert loop.recorder.closed == 1


def test_steps_again_without_recording():
    toy = Toy(pauses=(4, 30))
    replay(toy, 0, 40)
    assert toy.params[0] == 40
    assert Chunks(toy).length(0, 40) == 1
