"""Compilation of kernels: announced on stderr, and no part of the time of training.

Kernels are compiled when they are first called on a machine, for some 20 seconds, and loaded in milliseconds later on.
"""

import functools
import sys

from lrbias.system._streams import Careful

SENTENCE = "compiling (once, about 20 s) …"


class _Announcement:
    """The line that says so, at most once in a process, as soon as it is both wanted and true."""

    def __init__(self) -> None:
        self.wanted = self._said = False

    def __call__(self) -> None:
        if self.wanted and not self._said:
            self._said = True
            print(SENTENCE, file=Careful(sys.stderr), flush=True)


@functools.cache
def _announcement() -> _Announcement:
    from lrcore.cpu import compilation

    made = _Announcement()
    compilation.call_before(made)
    return made


def announce_compilation(wanted: bool | None) -> None:
    """Whether to say from now on that kernels are compiled; None: where stderr is a terminal."""
    _announcement().wanted = Careful(sys.stderr).isatty() if wanted is None else wanted


def compile_seconds() -> float:
    """How long this thread has spent compiling so far."""
    from lrcore.cpu import compilation

    return compilation.seconds()
