"""What ends a process: each signal saves first, says how to go on, and leaves the handlers as they were."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import lrbias as lb
from lrbias.studies._runs import made
from lrbias.studies.chou import Chou
from lrbias.system import _interrupts as interrupts
from runs import call, fingerprint, settings

ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]


def sent(*numbers, step=40):
    """A metric that sends these signals to its own process, once."""
    left = list(numbers)

    def metric(network):
        metric.calls += 1
        while left and metric.calls > step // 10:
            signal.raise_signal(left.pop(0))
        return 0.0

    metric.calls = 0
    return metric


def recorded(*numbers):
    return settings(record=lb.Record(every=10, metrics={"sent": sent(*numbers), "stable_rank": 10}))


def whole():
    return fingerprint(lb.train(**settings(record=lb.Record(every=10, metrics={"sent": sent(), "stable_rank": 10}))))


@pytest.mark.parametrize("number", ALL)
def test_every_signal_saves_and_leaves_handlers_as_they_were(tmp_path, number):
    before = [signal.getsignal(each) for each in ALL]
    with pytest.raises(lb.Interrupted) as caught:
        lb.train(**recorded(number), store=tmp_path / "it's a run")
    assert [signal.getsignal(each) for each in ALL] == before
    assert (caught.value.signal, caught.value.run.status) == (number, "interrupted")
    advice = str(caught.value).split("continue with: ")[1].replace("…", "f")
    assert fingerprint(eval(advice, {"lb": lb, "f": sent()})) == whole()


def test_a_second_signal_ends_the_run_at_once():
    with pytest.raises(lb.Interrupted, match="at once") as caught:
        lb.train(**recorded(signal.SIGINT, signal.SIGTERM))
    assert (caught.value.signal, caught.value.run) == (signal.SIGTERM, None)


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1"])
@pytest.mark.parametrize("own", ["ignored", "the user's"])
def test_a_signal_that_does_not_end_the_process_is_left_alone(name, own):
    """`nohup` ignores SIGHUP; SIGUSR1 may mean something to the program."""
    noted = []
    number = getattr(signal, name)
    handler = signal.SIG_IGN if own == "ignored" else lambda number, frame: noted.append(number)
    before = signal.signal(number, handler)
    try:
        run = lb.train(**recorded(number))
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
    assert run.status == "finished"
    assert noted == ([] if own == "ignored" else [number])


def test_a_handler_that_is_not_pythons_is_left_alone(monkeypatch):
    """It cannot be put back: signal.signal(number, None) is a TypeError, and a run in memory would be lost."""
    real = signal.getsignal
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGTERM else real(number))
    before = real(signal.SIGTERM)
    assert lb.train(**recorded()).status == "finished"
    assert real(signal.SIGTERM) is before


def test_a_platform_without_the_signals_of_schedulers(monkeypatch):
    monkeypatch.delattr(signal, "SIGHUP")
    monkeypatch.delattr(signal, "SIGUSR1")
    assert lb.train(**recorded()).status == "finished"
    with interrupts.terminable():
        assert interrupts._taken(interrupts.WHERE_FATAL) == {}


def test_work_in_parts_hands_its_signals_to_a_part(tmp_path):
    """Within the handler of the whole, which ends it at once, a run is saved first; the whole says how to go on."""
    said = "what was made is in parts, and the same call goes on"
    with pytest.raises(lb.Interrupted, match=said) as caught, interrupts.goes_on_in("parts"):
        lb.train(**recorded(signal.SIGUSR1), store=tmp_path / "run")
    assert caught.value.signal == signal.SIGUSR1
    assert lb.open(tmp_path / "run").status == "interrupted"


@pytest.mark.parametrize("name", ["run", "a run", "it's", "-dash", "$HOME"])
def test_the_command_that_resumes_can_be_pasted_into_a_shell(name):
    words = interrupts.shell_command("resume", name)
    shown = subprocess.check_output(["sh", "-c", words.replace("lrbias resume", "printf %s")], text=True)
    assert os.path.normpath(shown) == name


def test_a_run_in_memory_is_handed_over_with_the_exception():
    with pytest.raises(lb.Interrupted, match=r"`\.run` of this exception") as caught:
        lb.train(**recorded(signal.SIGINT))
    run = caught.value.run
    rest = lb.train(**settings(200 - run.step, network=run.network))
    assert np.array_equal(rest.network.params, lb.train(**settings()).network.params)


def test_a_study_that_is_interrupted_goes_on_with_the_same_command(work, capsys, monkeypatch):
    class Shown:
        def save(self, formats):
            return []

        def as_dict(self):
            return {}

    def make(study):
        for name in ("first", "second"):
            arguments = recorded(*signals.pop(name, ()))
            del arguments["forecast"]
            made(study.store / name, study.progress, **arguments)
        return Shown()

    signals = {"second": [signal.SIGTERM]}
    monkeypatch.setattr(Chou, "make", make)
    code, _, err = call(capsys, "reproduce chou -o study --quiet")
    assert (code, err.count("\n")) == (143, 1)
    assert "what was made is in study, and the same call goes on with it" in err
    before = (work / "study/first/progress.json").stat().st_mtime_ns
    assert [lb.open(f"study/{name}").status for name in ("first", "second")] == ["finished", "interrupted"]
    again = {"sent": sent()}
    monkeypatch.setattr("lrbias.studies._runs.resume", lambda path, progress: lb.resume(path, metrics=again))
    assert call(capsys, "reproduce chou -o study --quiet")[0] == 0
    assert lb.open("study/second").status == "finished"
    assert (work / "study/first/progress.json").stat().st_mtime_ns == before


PROGRAM = """
import os, signal, sys
import lrbias.__main__
{before}
words = "run --shape 6 5 --rank 2 --depth 2 --lr 0.02 --gamma 1 --metrics none --quiet --no-figures -o run"
sys.argv = ["lrbias", *words.split()]
lrbias.__main__.main()
"""
IMPORTING = """
import builtins
real = builtins.__import__
def importing(name, *others):
    if name == "cyclopts":
        signal.raise_signal(signal.SIGINT)
    return real(name, *others)
builtins.__import__ = importing
"""
TWICE = """
from lrbias.storage import Log
def twice(*arguments):
    for _ in range(2):
        signal.raise_signal(signal.{name})
Log.restore = twice
"""


@pytest.mark.parametrize(
    ("before", "code"),
    [
        (IMPORTING, 130),
        (TWICE.format(name="SIGINT"), 130),
        (TWICE.format(name="SIGTERM"), 143),
    ],
)
def test_one_line_and_an_exit_code(work, before, code):
    command = [sys.executable, "-c", PROGRAM.format(before=before)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == code
    assert answer.stderr.startswith("lrbias: interrupted")
    assert answer.stderr.count("\n") == 1
