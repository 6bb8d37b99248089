"""Files and folders on any file system: written whole or not at all, and still there after a power cut.

A file is written beside its place, synced and renamed; a folder is made as a draft beside its place, with everything
in it, and renamed. Both are followed by a sync of the folder that holds the name. What a file system cannot do at all
(sync a folder, lock a file by `flock`) is done without it or in another way; what it fails at is one sentence.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout, UnixFileLock

from lrbias.errors import InvalidInput, StoreError, shorten

LOCK = "lock"  # the name of the lock file in a folder
TAKE_OVER_SECONDS = 0.2  # for a second look at a lock that a dead process has left
# what a file system answers that has no sync of folders, and one that has no locks
UNSYNCED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}
UNLOCKED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
# the path's own fault, not the disk's
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP, errno.ENOENT}
REFUSED |= {errno.EEXIST, errno.EINVAL}


def reason_of(error: OSError) -> str:
    """What the system says, without the path."""
    return error.strerror or str(error)


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Replace `path` by `data` so that a reader, a crash or a full disk finds the old or the new file, never a part.

    Raises StoreError.
    """
    temporary = path.with_name(path.name + ".partial")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        _forget(temporary)
        raise not_written(path, error, path.parent) from error


def not_written(path: Path, error: OSError, folder: Path) -> StoreError:
    """The sentence for a file that cannot be written, or cannot since `folder` is there no more."""
    if not folder.exists():
        return StoreError(f"{path} cannot be written: {folder} was removed in the meantime.")
    return StoreError(f"{path} cannot be written ({reason_of(error)}); nothing that was committed is lost.")


def remove_file(path: Path) -> None:
    """Remove a file if it is there; StoreError where that fails."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be removed ({reason_of(error)}); nothing that was committed is lost."
        ) from error


def _forget(path: Path) -> None:
    with contextlib.suppress(
        OSError
    ):  # the disk has failed already, which is about to be said; readers ignore the file
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` last. Nothing on systems that cannot: Windows opens no folder, others sync none."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSYNCED:
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path, within: Path | None = None) -> list[Path]:
    """Make a folder and those above it, each synced into its parent; returns those that were made, outermost first.

    within: a folder above it that has to be there: OSError (ENOENT) where it is not. After an error none is left.
    """
    if folder == within or folder.exists():
        return []
    made = make_folder(folder.parent, within)
    try:
        folder.mkdir(exist_ok=True)
        made.append(folder)
        sync_folder(folder.parent)
    except OSError:
        remove_empty(made)
        raise
    return made


def remove_empty(folders: list[Path]) -> None:
    """Remove folders, outermost first in the list, as far as nobody has put anything there."""
    with contextlib.suppress(OSError):  # another process uses one of them, and so those around it
        for folder in reversed(folders):
            folder.rmdir()


class Draft:
    """A folder in the making: `folder` until the end of the block, `path` after it; `held` is its lock."""

    def __init__(self, path: Path, folder: Path, held: BaseFileLock, shared: bool):
        self.path = path
        self.folder = folder
        self.held = held
        self._shared = shared

    def _clear(self) -> None:
        """Remove what a killed creation left."""
        for entry in self.folder.iterdir():
            if not entry.name.startswith(LOCK):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def _appear(self) -> None:
        """Take the name, keeping the lock: one of the kernel's goes with the file, others are by name."""
        follows = isinstance(self.held, UnixFileLock)
        if not follows:  # and Windows renames no folder in which a file is open
            self.held.release()
        os.rename(self.folder, self.path)
        if not self._shared:  # else others may have begun to use it, whatever happens from here on
            self.folder = self.path
        if not follows:
            self.held = lock(self.path / LOCK, self.path)
        sync_folder(self.path.parent)

    def _remove(self) -> None:
        self.held.release()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def drafted(path: Path, name: str | None = None) -> Iterator[Draft]:
    """Yield the Draft of a new folder at `path`, which appears at the end of the block, complete and synced.

    name: of the draft beside it, where several processes may make the same folder at once; None: one that a later call
    takes over when this one is killed. An error in
    the block or after it leaves nothing behind, neither a draft nor the folders made above it; an OSError becomes
    InvalidInput or StoreError. The lock, `draft.held`, stays with the caller after the block.
    """
    folder = path.with_name(name or f".{path.name}.new")
    made = []
    try:
        made = make_folder(path.parent)
        draft = _begun(path, folder, shared=name is not None)
        try:
            draft._clear()
            yield draft
            draft._appear()
        except BaseException:
            draft._remove()
            raise
    except OSError as error:
        remove_empty(made)
        raise not_writable(path, error) from error
    except BaseException:
        remove_empty(made)
        raise


def _begun(path: Path, folder: Path, shared: bool) -> Draft:
    new = make_folder(folder)
    try:
        return Draft(path, folder, lock(folder / LOCK, path), shared)
    except BaseException:
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def remove_stale(folder: Path, pattern: str) -> None:
    """Remove the drafts in `folder` that killed processes have left: those whose lock nobody holds."""
    for draft in folder.glob(pattern):
        try:
            held = lock(draft / LOCK, draft)
        except (StoreError, InvalidInput):  # in the making, or not ours to remove
            continue
        shutil.rmtree(draft, ignore_errors=True)
        held.release()


def not_writable(path: Path, error: OSError) -> InvalidInput | StoreError:
    """The sentence for a folder that cannot be made at `path`."""
    if error.errno in REFUSED:
        accepted = f"a folder that can be written ({reason_of(error)})"
        return InvalidInput(f"store = {shorten(str(path))} is not accepted: expected {accepted}.")
    return StoreError(f"{path} cannot be made ({reason_of(error)}).")


def lock(path: Path, shown: Path) -> BaseFileLock:
    """The lock file at `path`, acquired; StoreError when another process holds it. `release` it at the end.

    Where the file system has no locks, a file beside it that names the process stands for one.
    """
    try:
        return _acquired(path)
    except Timeout:
        raise StoreError(
            f"{shown} is being written by another process; wait for it to end, or choose another store."
        ) from None
    except OSError as error:
        raise not_writable(shown, error) from None


def _acquired(path: Path) -> BaseFileLock:
    if not path.parent.is_dir():  # which some locks would make
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if issubclass(FileLock, SoftFileLock):  # this Python has no flock
        return _soft(path)
    held = FileLock(path, fallback_to_soft=False)
    try:
        held.acquire(timeout=0)
    except OSError as error:
        if isinstance(error, Timeout) or error.errno not in UNLOCKED:
            raise
        return _soft(path)
    return held


def _soft(path: Path) -> BaseFileLock:
    """A lock by the existence of a file; of a process that is no more it is taken over."""
    held = SoftFileLock(path.with_name(path.name + ".held"))
    held.acquire(timeout=TAKE_OVER_SECONDS)
    return held
