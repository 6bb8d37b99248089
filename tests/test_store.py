"""The run directory: damage is named and loses nothing else, one writer at a time, readers never see a torn log."""

import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

import lrbias as lb
from lrbias.storage import _format as store
from runs import fingerprint, quiet_train, settings


@pytest.fixture
def stored(tmp_path):
    """A finished run of 200 steps with checkpoints every 50, and its fingerprint."""
    run = lb.train(**settings(), store=tmp_path / "run")
    return tmp_path / "run", fingerprint(run)


def _flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
def test_a_damaged_chunk_is_named_and_repaired_from_a_checkpoint(stored, damage):
    path, expected = stored
    chunk = next(file for file in (path / "log.zarr/product/singular_values/c").rglob("*") if file.is_file())
    if damage == "truncate":
        chunk.write_bytes(chunk.read_bytes()[:-10])
    elif damage == "flip":
        _flip(chunk)
    else:
        chunk.unlink()
    run = lb.open(path)
    with pytest.raises(lb.StoreError, match="product/singular_values"):
        run["product/singular_values"]
    assert len(run.check()) == 1
    assert len(run.losses) == 201  # everything else is there
    assert run["product/effective_rank"].shape == (29,)
    assert fingerprint(lb.resume(path, from_checkpoint=0)) == expected
    assert lb.open(path).check() == []


def test_rows_after_a_damaged_chunk_survive(tmp_path):
    """More than one chunk: a power of two of rows of 40 bytes within 256 KiB are 4096."""
    record = lb.Record(every=1, metrics="singular_values")
    run = lb.train(**settings(5000, record=record, checkpoint_every=1000), store=tmp_path / "run")
    expected = fingerprint(run)
    full = run["product/singular_values"]
    folder = tmp_path / "run/log.zarr/product/singular_values/c"
    chunks = sorted(folder.iterdir(), key=lambda entry: int(entry.name))
    assert len(chunks) >= 2
    _flip(chunks[0] / "0")
    source = lb.open(tmp_path / "run")._source
    rows = len(full) - len(full) % 2
    assert np.array_equal(source.read("product/singular_values", 4096, rows), full[4096:rows])
    assert fingerprint(lb.resume(tmp_path / "run", from_checkpoint=0)) == expected


@pytest.fixture
def killed(tmp_path):
    """A run whose process ended without a word at step 140, after the commit at 100."""
    path = tmp_path / "run"
    record = lb.Record(
        every=1, metrics={"singular_values": 7, "end": lambda network: os._exit(9) if ended(network) else 0}
    )
    whole = lb.train(**settings(200, record=lb.Record(every=1, metrics={"singular_values": 7})))
    limit = whole.losses[140]
    target = lb.Factorization(whole.target)

    def ended(network):
        return 0.5 * np.sum((network.product() - target.target) ** 2) <= limit

    pid = os.fork()
    if pid == 0:
        quiet_train(**settings(200, record=record), store=path)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    return path, whole


def test_a_killed_run_has_all_that_was_committed(killed):
    path, whole = killed
    run = lb.open(path)
    assert (run.status, run.step) == ("running", 100)
    assert np.array_equal(run.losses, whole.losses[:101])
    assert np.array_equal(run["product/singular_values"], whole["product/singular_values"][:15])
    assert run.check() == []
    finished = lb.resume(path, metrics={"end": lambda network: 0})
    assert np.array_equal(finished.losses, whole.losses)
    assert np.array_equal(finished["product/singular_values"], whole["product/singular_values"])
    assert not (path / "tail.npz").exists()


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
def test_a_damaged_tail_is_named_and_repaired_from_the_start(killed, damage):
    path, whole = killed
    tail = path / "tail.npz"
    if damage == "truncate":
        tail.write_bytes(tail.read_bytes()[:-10])
    elif damage == "flip":
        _flip(tail)
    else:
        tail.unlink()
    assert any("tail.npz" in sentence for sentence in lb.open(path).check())
    with pytest.raises(lb.StoreError, match=r"tail\.npz.*from_checkpoint=0"):
        lb.resume(path, metrics={"end": lambda network: 0})
    repaired = lb.resume(path, metrics={"end": lambda network: 0}, from_checkpoint=0)
    assert np.array_equal(repaired.losses, whole.losses)
    assert repaired.check() == []


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
def test_a_damaged_checkpoint_is_named_with_a_way_out(stored, damage):
    path, _ = stored
    checkpoint = path / "checkpoints/step-00000200.npz"
    if damage == "truncate":
        checkpoint.write_bytes(checkpoint.read_bytes()[:-30])
    elif damage == "flip":
        _flip(checkpoint)
    else:
        checkpoint.unlink()
    with pytest.raises(lb.StoreError, match=r"step-00000200\.npz.*from_checkpoint=150"):
        lb.resume(path, steps=300)
    assert len(lb.open(path).losses) == 201
    resumed = lb.resume(path, steps=300, from_checkpoint=150)
    assert fingerprint(resumed) == fingerprint(lb.train(**settings(300)))


@pytest.mark.parametrize("name", ["config.json", "progress.json", "target.npy"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
def test_damaged_small_files_are_named(stored, name, damage):
    path, _ = stored
    if damage == "truncate":
        (path / name).write_bytes((path / name).read_bytes()[:-20])
    elif damage == "flip":
        _flip(path / name)
    else:
        (path / name).unlink()
    error = lb.InvalidInput if (name, damage) == ("config.json", "delete") else lb.StoreError
    with pytest.raises(error, match=name if error is lb.StoreError else "run directory"):
        lb.open(path)
    with pytest.raises(error):
        lb.resume(path, steps=300)


def test_a_second_writer_is_refused(stored):
    path, _ = stored
    with FileLock(path / "lock"), pytest.raises(lb.StoreError, match="being written by another process"):
        lb.resume(path, steps=300)
    assert lb.resume(path, steps=300).step == 300


def test_two_creations_at_once_are_refused(tmp_path):
    (tmp_path / ".run.new").mkdir()
    with FileLock(tmp_path / ".run.new/lock"), pytest.raises(lb.StoreError, match="another process"):
        lb.train(**settings(), store=tmp_path / "run")
    assert lb.train(**settings(), store=tmp_path / "run").status == "finished"
    assert not (tmp_path / ".run.new").exists()


def test_a_longer_run_in_pieces_has_the_same_bits(stored):
    path, _ = stored
    for steps in (201, 333, 400, 1000):
        assert lb.resume(path, steps=steps).step == steps
    whole = lb.train(**settings(1000))
    assert fingerprint(lb.open(path)) == fingerprint(whole)
    assert lb.open(path).settings["steps"] == 1000


def test_resuming_a_finished_run_returns_it(stored):
    path, expected = stored
    before = sorted((file, file.stat().st_mtime_ns) for file in path.rglob("*") if file.name != "lock")
    assert fingerprint(lb.resume(path)) == expected
    assert sorted((file, file.stat().st_mtime_ns) for file in path.rglob("*") if file.name != "lock") == before


def test_a_full_disk_loses_no_committed_row(tmp_path):
    """A file-size limit makes the first large file fail after some commits, in a process of its own."""
    record = lb.Record(every=1, metrics="singular_values")
    arguments = settings(6000, record=record, checkpoint_every=500)
    path = tmp_path / "run"
    pid = os.fork()
    if pid == 0:
        quiet_train(**{**arguments, "steps": 1000}, store=path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
        try:
            lb.resume(path, steps=6000)
        except lb.StoreError as error:
            (tmp_path / "said").write_text(str(error))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    said = (tmp_path / "said").read_text()
    assert "cannot be written" in said
    assert f"lrbias resume {path}" in said
    run = lb.open(path)
    assert run.step >= 1000
    assert run.check() == []
    assert not list(path.rglob("*.partial"))
    assert fingerprint(lb.resume(path, steps=6000)) == fingerprint(lb.train(**arguments))


def test_a_reader_never_sees_a_torn_or_shrinking_log(tmp_path):
    """Another process trains; this one opens the run again and again until it has ended.

    At every tenth of its steps that one waits until this one has seen the tenth before.
    """
    path = tmp_path / "run"
    gate, key = os.pipe()
    tenth = 2000
    calls = []

    def wait(network):
        calls.append(network)
        if len(calls) > 2:  # which are for the set-up and the start
            os.read(gate, 1)
        return 0.0

    metrics = {"singular_values": 3, "stable_rank": 3, "gate": wait}
    arguments = settings(10 * tenth, record=lb.Record(every=tenth, metrics=metrics), checkpoint_every=250)
    child = os.fork()
    if child == 0:
        quiet_train(**arguments, store=path)
        os._exit(0)
    seen = []
    sizes = set()
    opened = 0
    ended = False
    while not ended:
        ended = os.waitpid(child, os.WNOHANG)[0] == child
        if not path.exists():
            continue
        run = lb.open(path)
        losses = run.losses
        values = run["product/singular_values"]
        assert np.isfinite(losses).all()
        assert np.isfinite(values).all()
        assert len(run.steps_of("product/stable_rank")) == len(values)
        seen.append((run.step, len(losses), values))
        if len(losses) > tenth * opened:
            os.write(key, b"1")
            opened += 1
    final = lb.open(path)
    assert final.status == "finished"
    full_losses = final.losses
    full_values = final["product/singular_values"]
    for (step, rows, values), (next_step, next_rows, _) in itertools.pairwise(seen):
        assert step <= next_step
        assert rows <= next_rows <= len(full_losses)
        assert np.array_equal(values, full_values[: len(values)])
        sizes.add(rows)
    assert len(sizes) >= 8, "the reader saw every tenth, but for the first ones"


def test_the_directory_is_as_documented(stored):
    path, _ = stored
    names = {entry.name for entry in path.iterdir()} - {"lock"}
    assert names == {"config.json", "experiment.toml", "target.npy", "log.zarr", "checkpoints", "progress.json"}
    config = json.loads((path / "config.json").read_text())
    assert config["settings"]["lr"] == 0.02
    for key in ("lrbias", "numba", "numpy", "cpu", "promise", "commit"):
        assert key in config["made_with"]
    metadata = json.loads((path / "log.zarr/losses/zarr.json").read_text())
    assert [codec["name"] for codec in metadata["codecs"]] == ["bytes", "gzip", "crc32c"]
    assert metadata["shape"][0] % metadata["chunk_grid"]["configuration"]["chunk_shape"][0] == 0


def test_the_written_experiment_repeats_the_run(stored, tmp_path):
    path, expected = stored
    moved = tmp_path / "elsewhere"
    shutil.copytree(path, moved)
    command = [
        sys.executable,
        "-m",
        "lrbias",
        "run",
        moved / "experiment.toml",
        "-o",
        tmp_path / "again",
        "--quiet",
        "--no-figures",
    ]
    subprocess.run(command, check=True, capture_output=True)
    assert fingerprint(lb.open(tmp_path / "again")) == expected


def test_runs_from_given_layers_repeat_too(tmp_path, rng):
    network = lb.Network.from_layers([rng.normal(size=(7, 5)), rng.normal(size=(6, 7))])
    run = lb.train(**settings(network=network), store=tmp_path / "run")
    command = [
        sys.executable,
        "-m",
        "lrbias",
        "run",
        tmp_path / "run/experiment.toml",
        "-o",
        tmp_path / "again",
        "--quiet",
        "--no-figures",
    ]
    subprocess.run(command, check=True, capture_output=True)
    assert fingerprint(lb.open(tmp_path / "again")) == fingerprint(run)


def test_nothing_uses_pickle(stored):
    path, _ = stored
    with np.load(path / "checkpoints/step-00000050.npz", allow_pickle=False) as archive:
        assert sorted(archive) == ["params", "step", "widths"]


@pytest.mark.parametrize(("rows", "after"), [(None, 10), (16, 10), (16, 70)])
def test_a_run_that_goes_back_and_is_interrupted_keeps_the_rows_that_count(tmp_path, monkeypatch, rows, after):
    """Also those after the step where it is interrupted: in the same block, and in later ones that the tail has."""
    if rows:
        monkeypatch.setattr(store, "MOST_CHUNK_ROWS", rows)
    asked = []

    def interrupt(network):
        asked.append(network)
        if len(asked) == after // 2 + 2:  # one call is made before the first step
            os.kill(os.getpid(), signal.SIGINT)
        return 0.0

    metrics = {"singular_values": 1, "effective_rank": 7, "mine": lambda network: 0.0}
    arguments = settings(record=lb.Record(every=2, metrics=metrics))
    expected = fingerprint(lb.train(**arguments, store=tmp_path / "run"))
    with pytest.raises(lb.Interrupted):
        lb.resume(tmp_path / "run", from_checkpoint=50, metrics={"mine": interrupt})
    run = lb.open(tmp_path / "run")
    assert (run.status, run.step) == ("finished", 200)
    assert fingerprint(run) == expected
    assert run.check() == []


def _crash(run, stride, times):
    """What tests/crash.py reports: none of the resumed runs differed from one that was not killed."""
    driver = Path(__file__).with_name("crash.py")
    words = ["--run", run, "--stride", str(stride), "--random", str(times)]
    answer = subprocess.run([sys.executable, driver, *words], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    report = json.loads(answer.stdout)
    assert report["killed_at_random"] == times
    assert report["identical"] == report["killed_at_a_write"] + times
    return report


@pytest.mark.parametrize(("run", "stride", "times"), [("descent", 17, 2), ("greedy", 29, 0)])
def test_crash_driver_short(run, stride, times):
    """Kills at a sample of the store's writes; `make evidence` kills at every one and at random times."""
    assert _crash(run, stride, times)["killed_at_a_write"] >= 5


@pytest.mark.evidence
@pytest.mark.parametrize("run", ["descent", "regimes", "greedy", "network"])
def test_crash_driver_full(run):
    report = _crash(run, 1, 50)
    print(report)
    assert report["killed_at_a_write"] == report["writes"]
    ends = report["phase_ends"]
    steps = {int(step) for step in report["committed"] if step != "none"}
    if run == "greedy":
        assert len(ends) == 2
        assert ends[0] in steps
        for first, last in zip([0, *ends], ends, strict=False):
            assert any(first < step < last for step in steps)
