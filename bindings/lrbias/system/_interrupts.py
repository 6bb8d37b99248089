"""Signals that end a process: collected while work can only stop between steps, or raised where it can stop at once.

    SIGINT, SIGTERM    Ctrl-C, and what ends a job: always
    SIGHUP, SIGUSR1    a terminal that is closed, and what Slurm's --signal=USR1@60 sends before a job's time is over:
                       where the process would die of them; `nohup` and handlers of the user's are left alone

A handler that is not Python's is left alone: it could not be put back. Outside the main thread Python sets no handlers;
both contexts do nothing there.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from lrbias.errors import Interrupted

ALWAYS = ("SIGINT", "SIGTERM")
WHERE_FATAL = ("SIGHUP", "SIGUSR1")  # not on Windows


class _Handler:
    """A handler of ours, which one of these contexts within another may replace."""

    def __init__(self, action: Callable[[int], None]) -> None:
        self._action = action

    def __call__(self, number: int, frame: Any) -> None:
        self._action(number)


@contextlib.contextmanager
def collected() -> Iterator[list[int]]:
    """Yield a list to which the numbers of the signals that arrive are appended. A second one raises Interrupted."""
    received: list[int] = []

    def note(number: int) -> None:
        if received:
            raise Interrupted("interrupted at once; what was committed is kept", None, number)
        received.append(number)

    with _handled_by(_Handler(note), _taken(ALWAYS + WHERE_FATAL)):
        yield received


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """The other signals raise Interrupted, as Ctrl-C raises KeyboardInterrupt."""

    def end(number: int) -> NoReturn:
        raise Interrupted("terminated", None, number)

    with _handled_by(_Handler(end), _taken(("SIGTERM", *WHERE_FATAL))):
        yield


@contextlib.contextmanager
def goes_on_in(folder: Any) -> Iterator[None]:
    """Work in several parts: when one is interrupted, say how to go on with the whole."""
    try:
        with terminable():
            yield
    except KeyboardInterrupt as error:
        number = getattr(error, "signal", signal.SIGINT)
        sentence = f"interrupted; what was made is in {folder}, and the same call goes on with it"
        raise Interrupted(sentence, None, number) from None


def _taken(names: Sequence[str]) -> dict[int, Any]:
    """{number: present handler} of those signals of `names` that are ours to handle."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    present = {name: signal.getsignal(getattr(signal, name)) for name in names if hasattr(signal, name)}
    return {
        getattr(signal, name): handler
        for name, handler in present.items()
        if handler == signal.SIG_DFL or isinstance(handler, _Handler) or (name in ALWAYS and handler is not None)
    }


@contextlib.contextmanager
def _handled_by(handler: Any, previous: dict[int, Any]) -> Iterator[None]:
    for number in previous:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def shell_command(name: str, path: Any) -> str:
    """The command `name` for the run at `path`, to be typed: the path is quoted for the shell where it has to be."""
    text = str(path)
    text = os.path.join(os.curdir, text) if text.startswith("-") else text
    return f"lrbias {name} {subprocess.list2cmdline([text]) if os.name == 'nt' else shlex.quote(text)}"


def resume_call(function: str, path: Any, **given: str) -> str:
    """What to call instead where a run needs again what no file holds: given = {argument: what is to be given}."""
    arguments = "".join(f", {name}={value}" for name, value in given.items())
    return f"{function}({str(path)!r}{arguments})"
