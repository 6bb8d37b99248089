"""How long training takes."""

import time

from lrbias.system import compile_seconds


class Clock:
    """Seconds of training, without those of compilation."""

    def __init__(self, before: float = 0.0) -> None:
        self._before = before
        self.start()

    def start(self) -> None:
        self._started = time.perf_counter()
        self._compiled = compile_seconds()

    @property
    def elapsed(self) -> float:
        return self._before + time.perf_counter() - self._started - (compile_seconds() - self._compiled)
