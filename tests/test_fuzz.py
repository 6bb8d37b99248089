"""Commands and calls made at random end as documented: no traceback, no hang, nothing left behind by what is refused.

A sample by default; `make evidence` runs 2 000 command lines and 750 calls.
"""

import os

import pytest

import fuzz_api
import fuzz_commands


@pytest.fixture
def folder(tmp_path, monkeypatch):
    made = fuzz_commands.Folder(tmp_path)
    monkeypatch.chdir(made.path)
    monkeypatch.setenv("HOME", str(made.path / "home"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path.parent / "matplotlib"))
    restore = made.restore

    def restore_and_return():
        os.chdir(tmp_path)
        restore()
        os.chdir(made.path)

    made.restore = restore_and_return
    return made


def _commands(folder, count, seed, apart):
    faults, codes = fuzz_commands.fuzz(folder, count, seed, apart)
    print(f"{count} command lines: exit codes {codes}, {len(faults)} faults")
    assert [(words, files, wrong) for words, files, wrong, _ in faults] == []
    assert set(codes) >= {0, 2}


def _calls(folder, count, seed):
    faults, counts = fuzz_api.fuzz(folder, count, seed)
    print(f"{count} calls: {counts}, {len(faults)} faults")
    assert [(name, arguments, raised.splitlines()[-1]) for name, arguments, raised in faults] == []


@pytest.mark.filterwarnings("ignore")  # what commands warn of is for their user
def test_a_sample_of_command_lines(folder):
    _commands(folder, 15, seed=11, apart=0)


def test_a_sample_of_calls(folder):
    _calls(folder, len(fuzz_api.calls(folder.path)), seed=11)


@pytest.mark.evidence
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(4))
def test_two_thousand_command_lines(folder, seed):
    _commands(folder, 500, seed, apart=0.02)


@pytest.mark.evidence
def test_750_calls(folder):
    _calls(folder, 750, seed=0)
