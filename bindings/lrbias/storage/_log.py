"""Rows on their way to the store: one block of each quantity in memory, handed on when it is full.

A commit hands on what the blocks hold so far, all of it as one file: the tail. A chunk of each quantity would
take as many files. When a run ends its last blocks become chunks like the others.
"""

import contextlib

import numpy as np

from lrbias.errors import StoreError
from lrbias.storage._directory import LOSSES, chunk_rows, progress_document, shortened
from lrbias.storage._quantity import Quantity


def losses_quantity(dtype):
    return Quantity(LOSSES, (), np.dtype(dtype).str.lstrip("<="), 1)


def committed(progress, name, interval):
    """How many rows of a quantity count, by what progress.json says."""
    return progress["losses"] if name == LOSSES else progress["rows"].get(str(interval), 0)


class Column:
    """The current block of one quantity."""

    def __init__(self, quantity, sink):
        self.quantity = quantity
        self._sink = sink
        self.rows = chunk_rows(quantity)
        self.index = 0
        self.block = self._blank()
        self.last = None
        self._filled, self._dirty, self._count = 0, False, 0

    def _blank(self):
        dtype = np.dtype(self.quantity.dtype)
        return np.full((self.rows, *self.quantity.shape), np.nan if dtype.kind == "f" else 0, dtype)

    def restore(self, row, count):
        """Continue at `row`; `count` rows count already, and those after `row` do until they are written again."""
        self._count = count
        if count // self.rows > row // self.rows:
            with contextlib.suppress(StoreError):  # damaged: the run may go back in order to make it again
                self._load(count)
                self.flush()  # a later block that only the tail has becomes a chunk
        self._load(row)

    def _load(self, row):
        """Go to the block of `row`; read back from the sink what it has before that row, and what counts after it."""
        self.index, kept = divmod(row, self.rows)
        first = self.index * self.rows
        self.block = self._blank()
        if kept:
            self.block[:kept] = self._sink.read(self.quantity.name, first, row)
        later = min(self._count - first, self.rows)
        if later > kept:
            with contextlib.suppress(StoreError):  # likewise
                self.block[kept:later] = self._sink.read(self.quantity.name, row, first + later)
                kept = later
        self._filled = kept
        self._dirty = kept > 0  # it may be the tail that has these rows, which ends with the run

    def set(self, row, value):
        """Write one row; rows come in order, and may repeat the last ones with the same values."""
        first = row - self.index * self.rows
        if not 0 <= first < self.rows:
            self._turn_to(row)
            first = row - self.index * self.rows
        self.block[first] = self.last = value
        if first >= self._filled:
            self._filled = first + 1
        self._dirty = True

    def view(self, row, count):
        """Up to `count` rows from `row` on, to be written in place: as many as the block still holds."""
        self._turn_to(row)
        first = row - self.index * self.rows
        view = self.block[first : first + count]
        self._filled = max(self._filled, first + len(view))
        self._dirty = True
        return view

    def _turn_to(self, row):
        if row // self.rows != self.index:
            self.flush()
            self._load(row - row % self.rows)

    def flush(self):
        """Hand on the whole block, full or not."""
        if self._dirty:
            self._sink.write_block(self.quantity.name, self.index, self.block)
            self._dirty = False

    def tail(self):
        """(first row, rows) of what the block holds."""
        return self.index * self.rows, self.block[: self._filled]


class Log:
    """All columns of a run."""

    def __init__(self, quantities, sink):
        self._sink = sink
        self.columns = {quantity.name: Column(quantity, sink) for quantity in quantities}

    def set(self, name, row, value):
        self.columns[name].set(row, value)

    def last(self, name):
        """The number that was written last to a quantity; None when there is none."""
        return self.columns[name].last if name in self.columns else None

    def restore(self, step, progress=None):
        """Continue at `step`: rows of earlier steps are kept, those of `step` itself are to be written again.

        progress: of the run that is taken up; what counts by it goes on counting, also after `step`.
        """
        for name, column in self.columns.items():
            interval = column.quantity.interval
            column.restore(-(-step // interval), committed(progress, name, interval) if progress else 0)

    def check(self, step):
        """Read what `restore` at `step` relies on, and write nothing; StoreError when some of it is damaged."""
        for name, column in self.columns.items():
            row = -(-step // column.quantity.interval)
            first = row - row % column.rows
            if row > first:
                self._sink.read(name, first, row)

    def flush(self):
        """Hand on every block: at the end of a run."""
        for column in self.columns.values():
            column.flush()

    def tails(self):
        """{quantity: (first row, rows)} of what the blocks hold so far: at a commit on the way."""
        return {name: column.tail() for name, column in self.columns.items()}


class MemorySink:
    """What a run directory does, in memory: blocks and progress of a run without a store."""

    def __init__(self):
        self._blocks = {}
        self._progress = {}
        self._checkpoints = {}

    def write_block(self, name, index, block):
        self._blocks.setdefault(name, {})[index] = block

    def write_tail(self, tails):
        """Nothing: nobody reads a run in memory before it ends."""

    def read(self, name, start, stop):
        blocks = self._blocks[name]
        joined = np.concatenate([blocks[index] for index in sorted(blocks)])
        return joined[start:stop]

    def write_checkpoint(self, step, arrays, widths):
        self._checkpoints[step] = {name: array.copy() for name, array in arrays.items()}

    def forget_checkpoint(self, step):
        self._checkpoints.pop(step, None)

    def checkpoint(self, step):
        return self._checkpoints[step]["params"].copy()

    def checkpoint_arrays(self, step):
        return dict(self._checkpoints[step])

    def checkpoint_steps(self):
        return sorted(self._checkpoints)

    def commit(self, *progress):
        self._progress = progress_document(*progress)

    def go_back(self, step):
        self._progress = shortened(self._progress, step)

    def progress(self):
        return self._progress

    def close(self):
        pass
