"""What the log has rows of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """One logged series: its name in the run, the shape of one row, its dtype and its interval in steps."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    interval: int = 1
