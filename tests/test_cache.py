"""Compiled kernels on disk: fresh after an edit, whole or compiled again, and somewhere when nothing can be written."""

import os
import shutil
import subprocess
import sys

import pytest
from numba import njit

from conftest import ROOT
from lrcore.cpu import _cache

RANKS = """
import numpy as np
from lrcore import cpu
out = np.empty(6)
cpu.rank_metrics(np.array([3.0, 1.0, 0.0]), 0.1, 0.1, out)
print(out[0], cpu.rank_metrics.stats.cache_path)
"""


def _python(code, path, **environment):
    """(stdout, stderr) of Python code in a process whose packages lie at `path`."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    kept.update(environment, PYTHONPATH=str(path))
    kept = {name: value for name, value in kept.items() if value is not None}
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=path, env=kept, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout, answer.stderr


def _copy(folder):
    shutil.copytree(ROOT / "lrcore", folder / "lrcore", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_an_edited_formula_reaches_the_kernels_that_call_it(tmp_path):
    package = _copy(tmp_path)
    before, _ = _python(RANKS, package)
    formulas = package / "lrcore/formulas.py"
    source = formulas.read_text()
    start = "def effective_rank(values):"
    edited = source.replace(start, f"{start}\n    return 7.5\n\n\ndef _unused(values):")
    assert edited != source
    formulas.write_text(edited)
    after, _ = _python(RANKS, package)
    assert float(before.split()[0]) == pytest.approx(4 / 3)
    assert float(after.split()[0]) == 7.5
    assert str(package) in before
    assert before.split()[1] != after.split()[1]


def test_a_folder_of_the_users_is_the_parent(tmp_path, monkeypatch):
    monkeypatch.setattr(_cache.config, "CACHE_DIR", str(tmp_path))
    assert _cache.folder.__wrapped__() == tmp_path / f"lrbias-{_cache.source_digest()}"


def test_where_nothing_is_writable_kernels_are_kept_in_a_temporary_folder(tmp_path):
    """As in read-only site-packages and without a home: a file stands where each folder would be made."""
    package = _copy(tmp_path / "packages")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (package / "lrcore/cpu/__pycache__").touch()
    environment = {"HOME": None, "TMPDIR": str(temporary)}
    first, warned = _python(RANKS, package, **environment)
    assert str(temporary) in first
    assert warned.count("Warning") == 1
    assert "Set NUMBA_CACHE_DIR to choose a folder." in warned
    kept = {file: file.stat().st_mtime_ns for file in temporary.rglob("*.nbc")}
    assert kept
    assert _python(RANKS, package, **environment)[0] == first
    assert {file: file.stat().st_mtime_ns for file in temporary.rglob("*.nbc")} == kept


def test_a_temporary_folder_that_others_can_write_is_not_believed(tmp_path):
    ours = _cache._private(tmp_path)
    assert _cache._private(tmp_path) == ours
    ours.chmod(0o777)
    other = _cache._private(tmp_path)
    assert other != ours
    assert other.stat().st_mode & 0o077 == 0


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Makes a small function that is kept in an empty folder, as after a start of Python."""
    _cache._warn_once.cache_clear()
    monkeypatch.setattr(_cache, "folder", lambda: tmp_path)

    def double(x):
        return 2 * x

    def make():
        dispatcher = njit(double)
        dispatcher._cache = _cache.KernelCache(double)
        return dispatcher

    return make


def _damage(file, how):
    data = bytearray(file.read_bytes())
    if how == "truncated":
        data = data[: len(data) // 2]
    elif how == "empty":
        data = b""
    else:
        data[-20] ^= 4
    file.write_bytes(data)


@pytest.mark.parametrize("how", ["truncated", "empty", "a bit"])
def test_a_damaged_file_is_named_and_replaced(kept, tmp_path, how):
    assert kept()(21) == 42
    (file,) = tmp_path.iterdir()
    _damage(file, how)
    with pytest.warns(RuntimeWarning, match=f"{file.name} is damaged; the kernel is compiled again"):
        assert kept()(21) == 42
    whole = kept()
    assert whole(21) == 42
    assert sum(whole.stats.cache_hits.values()) == 1


def test_processes_that_compile_for_different_types_at_once_do_not_meet(kept, tmp_path):
    """Numbered files could meet: a process loaded the code that another had made for its types. So a file is named
    after its types, whatever was there before."""

    def names(*values):
        for file in tmp_path.iterdir():
            file.unlink()
        for value in values:
            assert kept()(value) == 2 * value
        return {file.name for file in tmp_path.iterdir()}

    whole, half = names(21), names(0.25)
    assert len(whole | half) == 2
    assert names(0.25, 21) == names(21, 0.25) == whole | half
    again = kept()
    assert again._cache.has_files
    assert (again(21), again(0.25)) == (42, 0.5)
    assert sum(again.stats.cache_hits.values()) == 2


def test_a_folder_that_cannot_be_written_costs_a_warning(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(_cache, "folder", lambda: tmp_path / "file" / "folder")
    (tmp_path / "file").touch()
    with pytest.warns(RuntimeWarning, match="cannot be kept"):
        assert kept()(21) == 42
