"""Other systems and file systems, emulated: without affinity, forks, flock, sync of folders, or folders to open."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

import lrbias as lb
from lrbias.system import _files as files
from lrbias.system import _threads as threads
from runs import fingerprint, settings

HERE = Path(__file__).resolve().parent


def _work(folder, emulated, tracker, workers):
    """What emulation/work.py finds in a Python of its own, and what is left in its folder."""
    folder.mkdir()
    path = [str(HERE / "emulation"), str(HERE), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "LRBIAS_EMULATE": emulated, "PYTHONPATH": os.pathsep.join(path)}
    warnings = ["-W", "error", "-W", "ignore:only soft file lock"]  # as filelock says without fcntl
    words = [sys.executable, *warnings, HERE / "emulation/work.py", folder, tracker, str(workers)]
    answer = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert not list(folder.rglob("*.partial"))
    assert not list(folder.rglob("*.new"))
    return json.loads(answer.stdout), sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize(
    ("emulated", "tracker", "workers"),
    [pytest.param("macos,unsynced", "no", 2, marks=pytest.mark.evidence), ("windows", "yes", 0)],
)
def test_everything_works_on_other_systems(emulated, tracker, workers, tmp_path):
    """A run is trained and resumed, a model tracked, a sweep and an ensemble made twice: with the bits of this one."""
    found, left = _work(tmp_path / "there", emulated, tracker, workers)
    assert found["train"] == fingerprint(lb.train(**settings(200)))
    assert len(set(found["sweep"])) == 4
    assert len(found["ensemble"]) == 8
    assert found.get("tracker") == (11 if tracker == "yes" else None)
    assert left == ["above", "many", "sweep", *(["tracked"] if tracker == "yes" else [])]


@pytest.mark.evidence
@pytest.mark.parametrize("emulated", ["", "macos", "unsynced", "windows", "windows,unsynced"])
def test_other_systems_make_the_same_bits(emulated, tmp_path):
    workers = 0 if "windows" in emulated else 2
    here, there = (_work(tmp_path / f"{i}", each, "yes", workers)[0] for i, each in enumerate(("", emulated)))
    assert here == there


def _refuse_flock(monkeypatch, number):
    import fcntl

    def refuse(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS], ids=errno.errorcode.get)
def test_a_file_system_without_flock_takes_runs(number, tmp_path, monkeypatch):
    """Network file systems answer 37 and 95."""
    expected = fingerprint(lb.train(**settings(150)))
    _refuse_flock(monkeypatch, number)
    lb.train(**settings(100), store=tmp_path / "run")
    run = lb.resume(tmp_path / "run", steps=150)
    assert fingerprint(run) == expected
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
    assert not list(tmp_path.rglob("*.held*"))


def test_soft_locks_keep_others_out_and_outlive_nobody(tmp_path, monkeypatch):
    _refuse_flock(monkeypatch, errno.ENOLCK)
    lb.train(**settings(50), store=tmp_path / "run")
    held = files.lock(tmp_path / "run/lock", tmp_path / "run")
    assert isinstance(held, filelock.SoftFileLock)
    with pytest.raises(lb.StoreError, match="being written by another process"):
        lb.resume(tmp_path / "run", steps=100)
    held.release()
    pid = os.fork()
    if pid == 0:
        held = files.lock(tmp_path / "run/lock", tmp_path / "run")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert (tmp_path / "run/lock.held").exists()
    assert lb.resume(tmp_path / "run", steps=100).step == 100


def test_a_lock_that_fails_otherwise_leaves_no_draft(tmp_path, monkeypatch):
    _refuse_flock(monkeypatch, errno.EIO)
    with pytest.raises(lb.StoreError, match=f"run cannot be made .{os.strerror(errno.EIO)}"):
        lb.train(**settings(50), store=tmp_path / "above/run")
    assert list(tmp_path.iterdir()) == []


def test_files_are_synced_even_where_folders_are_not(tmp_path, monkeypatch):
    """EINVAL is let pass for folders only."""

    def refuse(descriptor):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", refuse)
    files.sync_folder(tmp_path)
    with pytest.raises(lb.StoreError, match="a cannot be written"):
        files.write_file(tmp_path / "a", b"1")
    assert list(tmp_path.iterdir()) == []


def test_cores_are_counted_without_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 2, raising=False)
    assert threads.cores() == 2
    monkeypatch.delattr(os, "process_cpu_count")
    assert threads.cores() == 3
    monkeypatch.setattr(threads, "_share", 1)
    assert threads.cores() == 1
