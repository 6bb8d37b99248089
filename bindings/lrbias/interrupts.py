"""Ctrl-C and SIGTERM: collected while work can only stop between steps, or raised where it can stop at once.

Outside the main thread Python sets no handlers; both contexts do nothing there.
"""

import contextlib
import signal
import threading

from lrbias.errors import Interrupted


def _handled():
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def collected():
    """Yield a list to which the numbers of the signals that arrive are appended."""
    received = []

    def note(number, frame):
        if received:  # a second Ctrl-C does not wait
            raise KeyboardInterrupt
        received.append(number)

    with _handlers({signal.SIGINT: note, signal.SIGTERM: note}):
        yield received


@contextlib.contextmanager
def terminable():
    """SIGTERM raises Interrupted, as Ctrl-C raises KeyboardInterrupt."""

    def end(number, frame):
        raise Interrupted("terminated", None, number)

    with _handlers({signal.SIGTERM: end}):
        yield


@contextlib.contextmanager
def _handlers(chosen):
    previous = {number: signal.signal(number, handler) for number, handler in chosen.items()} if _handled() else {}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
