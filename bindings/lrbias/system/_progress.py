"""Progress of long work on stderr: a live line on a terminal, a plain line now and then elsewhere.

A display that cannot be written, since stderr is closed or full or missing, becomes silent; the work goes on.
"""

import sys
import time

from lrbias.system._compilation import compile_seconds
from lrbias.system._streams import Careful

PLAIN_INTERVAL = 10.0
LIVE_INTERVAL = 0.25


class Silent:
    """Shows nothing."""

    def start(self, step: int, steps: int) -> None:
        pass

    def update(self, step: int, loss: float, rank: float | None) -> None:
        pass

    def stop(self) -> None:
        pass


class Plain(Silent):
    """One line every few seconds, for logs. rank: what the number beside the loss is."""

    interval = PLAIN_INTERVAL

    def __init__(self, rank: str = "effective rank") -> None:
        self._rank = rank
        self._stream = Careful(sys.stderr)

    def start(self, step: int, steps: int) -> None:
        self._first_step = step
        self._steps = steps
        self._first_time = self._last_time = time.monotonic()
        self._compiled = compile_seconds()

    def update(self, step: int, loss: float, rank: float | None) -> None:
        now = time.monotonic()
        if now - self._last_time >= self.interval:
            self._last_time = now
            self._show(self._text(step, loss, rank, now))

    def _text(self, step: int, loss: float, rank: float | None, now: float) -> str:
        training = now - self._first_time - (compile_seconds() - self._compiled)
        speed = (step - self._first_step) / max(training, 1e-9)
        left = (self._steps - step) / speed if speed else float("inf")
        shown_rank = "" if rank is None else f"  {self._rank} {rank:.2f}"
        return f"step {step} of {self._steps}  {speed:,.0f} steps/s  loss {loss:.3e}{shown_rank}  {clock(left)} left"

    def _show(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class Live(Plain):
    """One line that is rewritten, for terminals."""

    interval = LIVE_INTERVAL

    def start(self, step: int, steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        super().start(step, steps)
        console = Console(file=self._stream)
        self._bar = Progress(BarColumn(bar_width=24), TextColumn("{task.description}"), console=console, transient=True)
        self._task = self._bar.add_task("starting …", total=steps, completed=step)
        self._bar.start()

    def update(self, step: int, loss: float, rank: float | None) -> None:
        self._step = step
        super().update(step, loss, rank)

    def _show(self, text: str) -> None:
        self._bar.update(self._task, description=text, completed=self._step)

    def stop(self) -> None:
        self._bar.stop()


def clock(seconds: float) -> str:
    """Seconds as 12 s, 3:05 min or 2:10 h."""
    if seconds == float("inf"):
        return "?"
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    large, small, unit = (
        (seconds // 3600, seconds % 3600 // 60, "h") if seconds >= 3600 else (seconds // 60, seconds % 60, "min")
    )
    return f"{large:.0f}:{small:02.0f} {unit}"


def display(wanted: bool | None, rank: str = "effective rank") -> Silent:
    """The display for `wanted`: None means a live line on a terminal and nothing elsewhere; True always shows one."""
    if wanted is None:
        return Live(rank) if Careful(sys.stderr).isatty() else Silent()
    if not wanted:
        return Silent()
    return Live(rank) if Careful(sys.stderr).isatty() else Plain(rank)


class RunsDisplay:
    """One line for all runs of a sweep, rewritten on a terminal; elsewhere a line now and then."""

    def __init__(self, wanted: bool | None, runs: int, made: int) -> None:
        self._stream = Careful(sys.stderr)
        self._live = self._stream.isatty()
        self._wanted = self._live if wanted is None else wanted
        self._runs = runs
        self._before = made
        self._made = made
        self._counts: dict[str, int] = {}
        self._first = self._last = time.monotonic()

    def update(self, name: str, status: str) -> None:
        """A run has ended."""
        self._made += 1
        self._counts[status] = self._counts.get(status, 0) + 1
        now = time.monotonic()
        if self._wanted and (
            self._made == self._runs or now - self._last >= (LIVE_INTERVAL if self._live else PLAIN_INTERVAL)
        ):
            self._last = now
            self._show(name, now)

    def _show(self, name: str, now: float) -> None:
        speed = (self._made - self._before) / max(now - self._first, 1e-9)
        others = "".join(f"  {count} {status}" for status, count in self._counts.items() if status != "finished")
        left = clock((self._runs - self._made) / speed)
        text = f"run {self._made} of {self._runs}  {speed:.3g} runs/s{others}  {left} left  (last: {name})"
        before, after = ("\r\x1b[2K", "") if self._live else ("", "\n")
        print(f"{before}{text}", end=after, file=self._stream, flush=True)

    def stop(self) -> None:
        if self._wanted and self._live:
            print(file=self._stream)
