"""stdout and stderr that are missing, closed, full or of another encoding: what was trained is kept."""

import errno
import io
import subprocess
import sys

import pytest

import lrbias as lb
from lrbias.cli import _app as cli
from lrbias.system._progress import Live, Plain, RunsDisplay, Silent, display
from lrbias.system._streams import Careful
from runs import settings

SMALL = "run --shape 6 5 --rank 2 --depth 2 --lr 0.02 --gamma 1 --steps 50 --metrics none --no-figures -o run"


class Broken(io.StringIO):
    """A terminal, or a file, that takes nothing."""

    def __init__(self, error, terminal=False):
        super().__init__()
        self.fault = error
        self.terminal = terminal

    def isatty(self):
        return self.terminal

    def write(self, text):
        raise self.fault


class Full(Broken):
    """One that says so when it is flushed, as buffered files do."""

    def write(self, text):
        return len(text)

    def flush(self):
        raise self.fault


class Bare:
    """What a program may put in place of stderr: it can be written to, and nothing else."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text


NO_SPACE = OSError(errno.ENOSPC, "No space left on device")
GONE = OSError(errno.EIO, "Input/output error")
CLOSED = io.StringIO()
CLOSED.close()


def run_command(monkeypatch, words, **streams):
    """The exit code of a command whose streams are these."""
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    with pytest.raises(SystemExit) as ended:
        cli.main(words.split())
    return ended.value.code or 0


@pytest.mark.parametrize("stream", [None, CLOSED, Bare(), Broken(NO_SPACE), Broken(BrokenPipeError()), Full(NO_SPACE)])
def test_messages_that_cannot_be_written_end_nothing(work, monkeypatch, stream):
    out = io.StringIO()
    assert run_command(monkeypatch, SMALL, stdout=out, stderr=stream) == 0
    assert out.getvalue().startswith("Run: GD")  # and no message strays there
    assert "expected time" not in out.getvalue()
    assert lb.open("run").status == "finished"


@pytest.mark.parametrize(
    ("stream", "code"), [(None, 0), (Broken(BrokenPipeError()), 0), (Broken(NO_SPACE), 1), (Full(NO_SPACE), 1)]
)
def test_facts_that_cannot_be_written_are_missed_once_the_run_is_saved(work, monkeypatch, stream, code):
    """Who closes a pipe, as `head` does, has what it wants."""
    err = io.StringIO()
    assert run_command(monkeypatch, f"{SMALL} --quiet", stdout=stream, stderr=err) == code
    assert lb.open("run").status == "finished"
    said = "lrbias: the output cannot be written (No space left on device); what was stored is complete.\n"
    assert err.getvalue() == (said if code else "")


def test_a_run_that_diverged_has_its_exit_code_whoever_reads(work, monkeypatch):
    words = SMALL.replace("--lr 0.02", "--lr 10") + " --quiet"
    assert run_command(monkeypatch, words, stdout=Broken(NO_SPACE), stderr=None) == 3


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_letters_that_an_encoding_has_not_are_escaped(work, monkeypatch, encoding):
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    assert run_command(monkeypatch, f"{SMALL} --quiet", stdout=out) == 0
    assert "widths 5 \\u2192 6" in out.buffer.getvalue().decode(encoding)
    assert out.errors == "strict"  # the stream is as it was


@pytest.mark.parametrize(
    "stream", [None, CLOSED, Bare(), Broken(BrokenPipeError()), Broken(OSError(errno.EIO, "gone"))]
)
@pytest.mark.parametrize("terminal", [False, True])
def test_a_display_that_cannot_be_written_is_dropped(monkeypatch, stream, terminal):
    if isinstance(stream, Broken):
        stream.terminal = terminal
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(Plain, "interval", 0.0)
    assert lb.train(**settings(), progress=True).status == "finished"
    runs = RunsDisplay(True, 1, 0)
    runs.update("run", "finished")
    runs.stop()


def test_what_a_stream_is_decides_about_the_display(monkeypatch):
    for stream, kind in ((None, Silent), (CLOSED, Silent), (Bare(), Silent), (Broken(NO_SPACE, terminal=True), Live)):
        monkeypatch.setattr(sys, "stderr", stream)
        assert type(display(None)) is kind
    bare = Bare()
    monkeypatch.setattr(sys, "stderr", bare)
    shown = display(True)
    shown._show("12 steps")
    assert bare.text == "12 steps\n"


def test_a_stream_is_silent_after_its_first_failure():
    stream = Careful(Broken(NO_SPACE))
    stream.write("a")
    assert (stream.error, stream.lost) == (NO_SPACE, "No space left on device")
    stream.write("b")
    assert Careful(Broken(BrokenPipeError())).lost is None


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_python_does_not_complain_at_the_end(work):
    """Of what is left in the buffers: in a process of its own, whose stdout is full and whose stderr is closed."""
    command = f"{sys.executable} -m lrbias --version > /dev/full"
    answer = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr.count("\n")) == (1, 1)
    assert answer.stderr.startswith("lrbias: the output cannot be written (No space left on device)")
    closed = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m lrbias info nothing 2>&-"], capture_output=True, check=False
    )
    assert (closed.returncode, closed.stdout) == (2, b"")
