"""Makes a Python behave like that of another system, as far as files, processes and signals go.

Python imports a module of this name when it starts, from PYTHONPATH: so what is missing there is missing before
anything else is imported, and in the workers of a sweep, too. LRBIAS_EMULATE names what to emulate, with commas.
"""

import errno
import os
import signal
import stat
import sys


def macos():
    """No affinity."""
    for name in ("sched_getaffinity", "sched_setaffinity", "pidfd_open", "process_cpu_count"):
        if hasattr(os, name):
            delattr(os, name)


def windows():
    """No affinity, forks, users and process groups, neither flock nor rlimits; folders can be opened by nobody, and
    renamed when no file in them is open. (PyTorch goes by the platform, and needs `register_at_fork` on this one.)"""
    macos()
    for name in ("getuid", "setpgid", "getpgid", "mkfifo", "fork"):
        delattr(os, name)
    for name in ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGALRM", "SIGKILL"):
        delattr(signal, name)
    os.environ.setdefault("USERNAME", "user")
    for name in ("fcntl", "resource"):
        sys.modules[name] = None
    _refuse_folders()


def _refuse_folders():
    system_open, system_rename = os.open, os.rename

    def open_file(path, flags, *rest, **named):
        if isinstance(path, (str, os.PathLike)) and os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return system_open(path, flags, *rest, **named)

    def rename(source, target, **named):
        inside = os.path.realpath(source) + os.sep
        if os.path.isdir(source) and any(opened.startswith(inside) for opened in _opened()):
            raise PermissionError(errno.EACCES, "The process cannot access the file", str(source))
        return system_rename(source, target, **named)

    os.open = open_file
    os.rename = rename


def _opened():
    """The files that this process has open."""
    for descriptor in os.listdir("/proc/self/fd"):
        if os.path.exists(link := f"/proc/self/fd/{descriptor}"):
            yield os.readlink(link)


def unsynced():
    """A file system on which a folder cannot be synced."""
    system_sync = os.fsync

    def sync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        system_sync(descriptor)

    os.fsync = sync


KNOWN = {emulated.__name__: emulated for emulated in (macos, windows, unsynced)}
for name in filter(None, os.environ.get("LRBIAS_EMULATE", "").split(",")):
    KNOWN[name]()
