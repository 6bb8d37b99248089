"""A file system on which one operation fails: the k-th of those that change what lies under a folder."""

import builtins
import errno
import os
import re
import stat
from contextlib import contextmanager
from pathlib import Path

import pytest

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EDQUOT)


class Disk:
    """Counts the operations below `folder`, keeps their names, and fails once, at number `limit` (0: never)."""

    def __init__(self, folder, limit=0, error=errno.ENOSPC):
        self._folder = os.fspath(folder)
        self._limit = limit
        self._error = error
        self.done = []

    def note(self, name, path):
        path = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
        if not os.path.abspath(path).startswith(self._folder + os.sep) or not path:
            return
        self.done.append((name, re.sub(r"[0-9a-f]{32}", "ID", os.path.relpath(path, self._folder))))
        if len(self.done) == self._limit:
            raise OSError(self._error, os.strerror(self._error), path)

    def failing(self, name, act):
        def acted(path, *rest, **named):
            if name != "os.mkdir" or not os.path.isdir(path):  # which a lock asks for where it is
                self.note(name, path)
            return act(path, *rest, **named)

        return acted

    def open(self, path, mode="r", *rest, **named):
        if set(mode) & set("wax+"):
            self.note("open", path)
        return SYSTEM_OPEN(path, mode, *rest, **named)

    def fsync(self, descriptor):
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        self.note("sync folder" if folder else "sync file", os.readlink(f"/proc/self/fd/{descriptor}"))
        SYSTEM_SYNC(descriptor)


SYSTEM_OPEN = builtins.open
SYSTEM_SYNC = os.fsync
CHANGING = ("mkdir", "replace", "rename", "unlink", "open")


@contextmanager
def failing_at(folder, limit=0, error=errno.ENOSPC):
    """Within it the disk fails as `Disk` says. Yields the Disk."""
    disk = Disk(Path(folder).absolute(), limit, error)
    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGING:
            patch.setattr(os, name, disk.failing(f"os.{name}", getattr(os, name)))
        patch.setattr(builtins, "open", disk.open)
        patch.setattr(os, "fsync", disk.fsync)
        yield disk
