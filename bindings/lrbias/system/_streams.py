"""stdout and stderr, or what stands in their place: a file on a full disk, a pipe whose reader is gone, nothing at all.

Writing to them never ends the work that is written about. What a command was asked for goes to stdout; when that is
lost, the command says so at its end. What goes to stderr is lost where nobody can read it.
"""

import contextlib
import os
from collections.abc import Callable
from typing import Any


class Careful:
    """A text stream that drops what `stream` cannot take. `error` is the first failure; None: everything was written.

    stream: any stream, also a closed one, or None (`pythonw` has no stdout). Letters that its encoding has not (→, σ)
    are written as escapes, \\u2192.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.error: Exception | None = None

    def write(self, text: str) -> int:
        self._attempt(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(lambda stream: stream.flush())

    def _attempt(self, action: Callable[[Any], Any]) -> None:
        if self._stream is None or self.error is not None:
            return
        try:
            action(self._stream)
        except UnicodeEncodeError as error:
            escaped = error.object.encode(error.encoding, "backslashreplace").decode(error.encoding)
            self._attempt(lambda stream: stream.write(escaped))
        except Exception as error:  # kept for who asks: a stream of the user's may raise anything
            self.error = error

    @property
    def lost(self) -> str | None:
        """Why something was not written that somebody waits for, else None: who closes a pipe, as `head`, does not."""
        if self.error is None or isinstance(self.error, BrokenPipeError):
            return None
        return getattr(self.error, "strerror", None) or str(self.error)

    def isatty(self) -> bool:
        try:
            return bool(self._stream.isatty())
        except (AttributeError, ValueError, OSError):  # no stream, no method of that name, or closed
            return False

    def discard(self) -> None:
        """Let go of what could not be written: Python would try again when it ends, and complain."""
        if self.error is None:
            return
        with contextlib.suppress(AttributeError, ValueError, OSError):  # a stream without a file needs nothing
            target = self._stream.fileno()
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, target)
            os.close(nothing)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
