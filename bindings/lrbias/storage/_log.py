"""Rows on their way to the store: one block of each quantity in memory, handed on when it is full.

A commit hands on what the blocks hold so far, all of it as one file: the tail. A chunk of each quantity would
take as many files. When a run ends its last blocks become chunks like the others.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from lrbias.errors import StoreError
from lrbias.storage._format import LOSSES, chunk_rows
from lrbias.storage._protocol import RunStorage
from lrbias.storage._quantity import Group, Quantity

STAGED_BYTES = 1 << 18  # of rows of a group on their way to their columns


def losses_quantity(dtype: np.dtype[Any]) -> Quantity:
    return Quantity(LOSSES, (), np.dtype(dtype).str.lstrip("<="), 1)


def committed(progress: dict[str, Any], name: str, interval: int) -> int:
    """How many rows of a quantity count, by what progress.json says."""
    return progress["losses"] if name == LOSSES else progress["rows"].get(str(interval), 0)


class Column:
    """The current block of one quantity."""

    def __init__(self, quantity: Quantity, storage: RunStorage) -> None:
        self.quantity = quantity
        self._storage = storage
        self.rows = chunk_rows(quantity)
        self.index = 0
        self.block = self._empty()
        self.last = None
        self._filled = 0
        self._dirty = False
        self._count = 0

    def _empty(self) -> np.ndarray:
        """A block of which nothing counts. What it holds is written when it is needed: most runs fill a part of it."""
        return np.empty((self.rows, *self.quantity.shape), self.quantity.dtype)

    def _clear(self, first: int, last: int) -> np.ndarray:
        """Rows of the block that hold nothing yet, as the files say it."""
        rows = self.block[first:last]
        rows[...] = np.nan if rows.dtype.kind == "f" else 0
        return rows

    def restore(self, row: int, count: int) -> None:
        """Continue at `row`; `count` rows count already, and those after `row` do until they are written again."""
        self._count = count
        if count // self.rows > row // self.rows:
            with contextlib.suppress(StoreError):  # damaged: the run may go back in order to make it again
                self._load(count)
                self.flush()  # a later block that only the tail has becomes a chunk
        self._load(row)

    def _load(self, row: int) -> None:
        """Go to the block of `row`; read back what it has before that row, and what counts after it."""
        self.index, kept = divmod(row, self.rows)
        first = self.index * self.rows
        if self._filled:  # somebody may have been given the rows
            self.block = self._empty()
        self._filled = 0  # a row that cannot be read must not count
        self._dirty = False
        if kept:
            self.block[:kept] = self._storage.read(self.quantity.name, first, row)
        later = min(self._count - first, self.rows)
        if later > kept:
            with contextlib.suppress(StoreError):  # likewise
                self.block[kept:later] = self._storage.read(self.quantity.name, row, first + later)
                kept = later
        self._filled = kept
        self._dirty = kept > 0  # it may be the tail that has these rows, which ends with the run

    def set(self, row: int, value: Any) -> None:
        """Write one row; rows come in order, and may repeat the last ones with the same values."""
        first = row - self.index * self.rows
        if not 0 <= first < self.rows:
            self._turn_to(row)
            first = row - self.index * self.rows
        self.block[first] = self.last = value
        if first >= self._filled:
            if first > self._filled:
                self._clear(self._filled, first)
            self._filled = first + 1
        self._dirty = True

    def set_rows(self, row: int, values: np.ndarray) -> None:
        """Write the rows from `row` on, as `set` does each of them."""
        while len(values):
            self._turn_to(row)
            first = row - self.index * self.rows
            part = values[: self.rows - first]
            if first > self._filled:
                self._clear(self._filled, first)
            self.block[first : first + len(part)] = part
            self._filled = max(self._filled, first + len(part))
            self._dirty = True
            self.last = part[-1]
            row += len(part)
            values = values[len(part) :]

    def view(self, row: int, count: int) -> np.ndarray:
        """Up to `count` rows from `row` on, to be written in place: as many as the block still holds."""
        self._turn_to(row)
        first = row - self.index * self.rows
        last = min(first + count, self.rows)
        if last > self._filled:
            self._clear(self._filled, last)
            self._filled = last
        self._dirty |= last > first
        return self.block[first:last]

    def _turn_to(self, row: int) -> None:
        """Go to the block of `row`: the next one, or one before, which was handed on and has the rows before it."""
        if row // self.rows == self.index:
            return
        self.flush()
        self._load(row if row // self.rows < self.index else row - row % self.rows)

    def flush(self) -> None:
        """Hand on the whole block, full or not."""
        if self._dirty:
            self._clear(self._filled, self.rows)
            self._storage.write_block(self.quantity.name, self.index, self.block)
            self._dirty = False

    def tail(self) -> tuple[int, np.ndarray]:
        """(first row, rows) of what the block holds."""
        return self.index * self.rows, self.block[: self._filled]


class Stage:
    """Rows of a Group that are not in their columns yet: a single row costs a column nearly as much as many."""

    def __init__(self, group: Group) -> None:
        self._group = group
        most = max(STAGED_BYTES // (8 * max(group.size, 1)), 1)
        self._rows = np.empty((most, group.size))
        self._first = 0
        self._count = 0

    def set(self, row: int, numbers: np.ndarray, columns: dict[str, Column]) -> None:
        """Write one row; what does not follow on the last one, or has no room, sends the others to their columns."""
        if row != self._first + self._count or self._count == len(self._rows):
            self.hand_on(columns)
            self._first = row
        self._rows[self._count] = numbers
        self._count += 1

    def hand_on(self, columns: dict[str, Column]) -> None:
        """Write everything to the columns."""
        if self._count:
            with np.errstate(all="ignore"):  # what is not finite in their type is recorded as such
                for name, rows in self._group.split(self._rows[: self._count]):
                    columns[name].set_rows(self._first, rows)
            self._first += self._count
            self._count = 0

    def last(self, name: str) -> Any:
        """The last number of a quantity that is here; None where there is none. Another thread may hand it on."""
        count = self._count
        return self._rows[count - 1, self._group.places[name]][0] if count else None


class Log:
    """All columns of a run."""

    def __init__(self, quantities: Sequence[Quantity], storage: RunStorage) -> None:
        self._storage = storage
        self.columns = {quantity.name: Column(quantity, storage) for quantity in quantities}
        self._stages: dict[Group, Stage] = {}

    def set_group(self, group: Group, row: int, numbers: np.ndarray) -> None:
        """Write one row of every quantity of a group."""
        if group not in self._stages:
            self._stages[group] = Stage(group)
        self._stages[group].set(row, numbers, self.columns)

    def _settle(self) -> None:
        """Put all rows into their columns."""
        for stage in self._stages.values():
            stage.hand_on(self.columns)

    def set(self, name: str, row: int, value: Any) -> None:
        self.columns[name].set(row, value)

    def last(self, name: str) -> Any:
        """The number that was written last to a quantity; None when there is none."""
        for group, stage in list(self._stages.items()):
            last = stage.last(name) if name in group.places else None
            if last is not None:
                return last
        return self.columns[name].last if name in self.columns else None

    def restore(self, step: int, progress: dict[str, Any] | None = None) -> None:
        """Continue at `step`: rows of earlier steps are kept, those of `step` itself are to be written again.

        progress: of the run that is resumed; what counts by it goes on counting, also after `step`.
        """
        for name, column in self.columns.items():
            interval = column.quantity.interval
            column.restore(-(-step // interval), committed(progress, name, interval) if progress else 0)

    def check(self, step: int) -> None:
        """Read what `restore` at `step` relies on, and write nothing; StoreError when some of it is damaged."""
        for name, column in self.columns.items():
            row = -(-step // column.quantity.interval)
            first = row - row % column.rows
            if row > first:
                self._storage.read(name, first, row)

    def flush(self) -> None:
        """Hand on every block: at the end of a run."""
        self._settle()
        for column in self.columns.values():
            column.flush()

    def tails(self) -> dict[str, tuple[int, np.ndarray]]:
        """{quantity: (first row, rows)} of what the blocks hold so far: at a commit on the way."""
        self._settle()
        return {name: column.tail() for name, column in self.columns.items()}
