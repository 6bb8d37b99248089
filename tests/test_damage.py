"""Damage and mix-ups are found: flipped bits, files of other runs, files that somebody made to do harm."""

import functools
import io
import json
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr

import damage
import lrbias as lb
from lrbias.cli import main
from lrbias.storage import _format as store
from lrbias.storage import read_json, write_json
from lrbias.system._archives import Damaged, pack, parse_array, read_archive, unpack
from runs import fingerprint, settings

OLD = Path(__file__).with_name("run_without_owner.zip")  # made by lrbias before files said whose they are


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run of 60 steps, in several chunks, its twin (the same settings) and one of another target."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "MOST_CHUNK_ROWS", 16)
        folder = tmp_path_factory.mktemp("damage")
        kind = damage.Finished()
        for name, seed in (("run", 0), ("twin", 0), ("another", 7)):
            kind.make(folder / name, seed)
        yield folder


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    """A copy of the run that a test may damage."""
    monkeypatch.setattr(store, "MOST_CHUNK_ROWS", 16)
    shutil.copytree(made / "run", tmp_path / "run")
    return tmp_path / "run"


def _damaged(path):
    """The sentence of whatever refuses the run: opening it or its check; None when nothing does."""
    try:
        return next(iter(lb.open(path).check()), None)
    except lb.StoreError as error:
        return str(error)


@pytest.mark.parametrize(
    "name", ["checkpoints/step-00000040.npz", "observed.npz", "log.zarr/losses/zarr.json", "log.zarr/product/zarr.json"]
)
def test_a_flipped_bit_anywhere_in_a_header_is_found(run, name):
    """Of a sample; `make evidence` flips every one."""
    file = run / name
    own = file.read_bytes()
    places = damage.header_bytes(file)
    for place in places[:: max(1, len(places) // 20)]:
        data = bytearray(own)
        data[place] ^= 1 << place % 8
        file.write_bytes(data)
        assert Path(name).name in (_damaged(run) or ""), (place, data[place])
    file.write_bytes(own)
    assert _damaged(run) is None


def test_the_checkpoint_whose_header_was_changed_is_not_trained_on(run):
    """One bit of byte 68: another order of the axes, or another type, of numbers that are read as well as before."""
    file = run / "checkpoints/step-00000060.npz"
    own = file.read_bytes()
    for bit in range(8):
        file.write_bytes(own[:68] + bytes([own[68] ^ 1 << bit]) + own[69:])
        with pytest.raises(lb.StoreError, match=r"step-00000060\.npz is damaged.*from_checkpoint=40"):
            lb.resume(run, steps=70)


SWAPS = {
    "a checkpoint of a twin": ("twin/checkpoints/step-00000060.npz", "checkpoints/step-00000060.npz", "another run"),
    "a checkpoint renamed": ("run/checkpoints/step-00000020.npz", "checkpoints/step-00000060.npz", "checkpoint 20"),
    "the losses of a twin": ("twin/log.zarr/losses/c/1", "log.zarr/losses/c/1", "another run"),
    "a chunk elsewhere": ("run/log.zarr/losses/c/2", "log.zarr/losses/c/1", "chunk losses 2"),
    "another layer": (
        "run/log.zarr/layer/1/singular_values/c/0/0",
        "log.zarr/layer/2/singular_values/c/0/0",
        "layer/1",
    ),
    "progress of a twin": ("twin/progress.json", "progress.json", "another run"),
    "config of a twin": ("twin/config.json", "config.json", "another run"),
    "another target": ("another/target.npy", "target.npy", "checksum"),
    "another mask": ("another/target.npy", "observed.npz", "observed.npz is damaged"),
    "another experiment": ("another/config.json", "experiment.toml", "experiment.toml is damaged"),
    "another description": (
        "run/log.zarr/losses/zarr.json",
        "log.zarr/gradient_norm/zarr.json",
        "gradient_norm/zarr.json",
    ),
}


@pytest.mark.parametrize("swap", SWAPS)
def test_a_file_of_another_run_or_place_is_found(made, run, swap):
    source, name, words = SWAPS[swap]
    shutil.copyfile(made / source, run / name)
    assert words in (_damaged(run) or ""), _damaged(run)


def test_descriptions_of_arrays_are_written_anew_by_resume(run):
    """Damage there loses nothing: rows are read without them."""
    before = fingerprint(lb.open(run))
    (run / "log.zarr/zarr.json").unlink()
    file = run / "log.zarr/losses/zarr.json"
    file.write_text(file.read_text().replace('"separator": "/"', '"separator": "."'))
    assert len(lb.open(run).check()) == 2
    assert fingerprint(lb.open(run)) == before
    assert fingerprint(lb.resume(run)) == before  # which has nothing else to do
    assert lb.open(run).check() == []
    log = zarr.open_group(run / "log.zarr", mode="r")
    assert np.array_equal(log["losses"][:61], lb.open(run).losses)
    assert np.array_equal(log["layer/2/singular_values"][:31], lb.open(run)["layer/2/singular_values"])


def test_a_deleted_checkpoint_is_missed(run, capsys):
    (run / "checkpoints/step-00000020.npz").unlink()
    with pytest.raises(SystemExit) as ended:
        main(["info", str(run), "--check"])
    assert ended.value.code == 1
    assert "step-00000020.npz is missing" in capsys.readouterr().out
    assert lb.resume(run, from_checkpoint=0).check() == []  # makes it again


def test_resume_writes_nothing_before_what_it_needs_is_verified(run):
    """The last chunk of one quantity is damaged, and all others are fine."""
    chunk = max((run / "log.zarr/losses/c").iterdir(), key=lambda file: int(file.name))
    chunk.write_bytes(chunk.read_bytes()[:-20] + bytes(20))
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file.name != "lock"}
    with pytest.raises(lb.StoreError, match="losses"):
        lb.resume(run, steps=200)
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file.name != "lock"} == before


def test_stray_files_are_ignored(run):
    expected = fingerprint(lb.open(run))
    shutil.copyfile(run / "checkpoints/step-00000040.npz", run / "checkpoints/step-00000040 (copy).npz")
    shutil.copyfile(run / "checkpoints/step-00000040.npz", run / "checkpoints/step-latest.npz")
    (run / "a.partial").mkdir()
    (run / "checkpoints/step-00000099.npz").mkdir()
    assert lb.open(run).checkpoints == [0, 20, 40, 60]
    assert lb.open(run).check() == []
    assert fingerprint(lb.resume(run)) == expected
    assert lb.resume(run, steps=70).step == 70
    assert (run / "a.partial").is_dir()


def test_the_log_does_not_depend_on_the_settings_of_zarr(tmp_path, made):
    """What ZARR_DEFAULT_ZARR_FORMAT=2 sets: Zarr would write its second format."""
    with zarr.config.set({"default_zarr_format": 2}):
        damage.Finished().make(tmp_path / "run")
        assert fingerprint(lb.open(tmp_path / "run")) == fingerprint(lb.open(made / "run"))
    assert lb.open(tmp_path / "run").check() == []
    assert zarr.open_group(tmp_path / "run/log.zarr", mode="r")["losses"].metadata.zarr_format == 3


def test_a_run_from_before_files_said_whose_they_are_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "MOST_CHUNK_ROWS", 16)  # as it was made
    with zipfile.ZipFile(OLD) as archive:
        archive.extractall(tmp_path)
    path = tmp_path / "run"
    kind = damage.Finished()
    old = lb.open(path)
    assert old.check() == []
    arguments = kind.arguments()
    assert np.array_equal(old.losses, lb.train(**arguments).losses)
    resumed = lb.resume(path, steps=70)
    whole = lb.train(**{**arguments, "steps": 70})
    assert np.array_equal(resumed.losses, whole.losses)
    assert resumed.check() == []
    file = path / "checkpoints/step-00000020.npz"
    own = file.read_bytes()
    file.write_bytes(own[:68] + bytes([own[68] ^ 1]) + own[69:])
    assert "step-00000020.npz is damaged" in _damaged(path)
    shutil.copyfile(path / "checkpoints/step-00000040.npz", file)
    assert "that of step 40" in _damaged(path)


def _bomb(file):
    """An archive whose member is small on disk and 160 MB when it is read."""
    file.write_bytes(_bomb_bytes())


@functools.cache
def _bomb_bytes():
    data = io.BytesIO()
    np.savez_compressed(data, params=np.zeros(20_000_000))
    return data.getvalue()


def _sparse(file):
    """A file of 80 GB, of which nothing is on the disk."""
    with open(file, "wb") as opened:
        opened.truncate(80 << 30)


def _huge_header(file):
    """A header that promises 80 GB."""
    data = pack({"params": np.zeros(4)})
    file.write_bytes(data.replace(b"(4,)" + b" " * 9, b"(9999999999,)", 1))


@pytest.mark.parametrize("make", [_bomb, _sparse, _huge_header])
@pytest.mark.parametrize("name", ["checkpoints/step-00000060.npz", "tail.npz", "log.zarr/losses/c/3", "target.npy"])
def test_sizes_are_checked_before_memory_is_taken(run, make, name):
    make(run / name)
    tracemalloc.start()
    try:
        assert Path(name).name in (_damaged(run) or "")
        with pytest.raises(lb.StoreError):
            lb.resume(run, steps=70)
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()


def _edited(path, change):
    """A document with another content and the right checksum."""
    document = read_json(path)
    change(document)
    write_json(path, document)


EDITS = {
    "no settings": ("config.json", lambda d: d.pop("settings")),
    "settings of nothing": ("config.json", lambda d: d["settings"].clear()),
    "settings of a wrong type": ("config.json", lambda d: d.update(settings=[1])),
    "steps as text": ("config.json", lambda d: d["settings"].update(steps="many")),
    "no such method": ("config.json", lambda d: d["settings"].update(method="magic")),
    "widths that are none": ("config.json", lambda d: d.update(widths=[3, -4, 4])),
    "other widths": ("config.json", lambda d: d.update(widths=[3, 5, 4])),
    "a path as a name": ("config.json", lambda d: d["quantities"].update({"../../x": d["quantities"]["losses"]})),
    "a row of 10^18 numbers": ("config.json", lambda d: d["quantities"]["losses"].update(shape=[10**9, 10**9])),
    "no such dtype": ("config.json", lambda d: d["quantities"]["losses"].update(dtype="O8")),
    "more rows than steps": ("progress.json", lambda d: d.update(losses=10**12)),
    "steps below zero": ("progress.json", lambda d: d.update(step=-1)),
    "a status that is none": ("progress.json", lambda d: d.update(status=7)),
    "no rows": ("progress.json", lambda d: d.pop("rows")),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_document_with_a_right_checksum_and_a_wrong_content_is_one_sentence(run, edit, capsys):
    name, change = EDITS[edit]
    _edited(run / name, change)
    with pytest.raises(SystemExit) as ended:
        main(["info", str(run), "--check"])
    assert ended.value.code == 1
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err
    with pytest.raises((lb.StoreError, lb.InvalidInput)):
        lb.resume(run, steps=80)


@pytest.mark.parametrize("name", ["config.json", "progress.json", "log.zarr/losses/zarr.json"])
def test_json_nested_without_end_is_one_sentence(run, name):
    (run / name).write_text("[" * 100_000 + "]" * 100_000)
    assert name in _damaged(run)


def test_an_archive_is_refused_unless_it_is_whole_and_what_it_should_be(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b/c": np.array("text"), "d": np.zeros((0, 2), "i4")}
    data = pack(arrays, "owner", "thing 7")
    found = unpack(data, "owner", "thing 7")
    assert all(np.array_equal(found[name], arrays[name]) and found[name].dtype == arrays[name].dtype for name in arrays)
    (tmp_path / "x.npz").write_bytes(data)
    assert sorted(np.load(tmp_path / "x.npz", allow_pickle=False)) == sorted(arrays)  # NumPy reads it as well
    for owner, what in (("other", "thing 7"), ("owner", "thing 8")):
        with pytest.raises(Damaged):
            unpack(data, owner, what)
    with pytest.raises(Damaged, match="whose"):
        unpack(pack(arrays), "owner", "thing 7")
    for place in range(len(data)):
        for bit in (1, 32, 128):
            with pytest.raises(Damaged):
                unpack(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :], "owner", "thing 7")
    with pytest.raises(Damaged, match="at most 10"):
        read_archive(tmp_path / "x.npz", most=10)
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(Damaged, match="not one that was written"):
        parse_array((tmp_path / "object.npy").read_bytes())


def test_an_ensemble_is_verified_as_a_whole(tmp_path):
    kind = damage.Ensemble()
    for name, seed in (("e", 0), ("other", 1)):
        kind.make(tmp_path / name, seed)
    path = tmp_path / "e"
    expected = kind.read(tmp_path / "e")
    groups = [path / "groups/00000.npz", path / "groups/00001.npz"]
    shutil.copyfile(groups[0], path / "groups/00000 (copy).npz")
    assert kind.read(path) == expected
    own = groups[1].read_bytes()
    shutil.copyfile(groups[0], groups[1])
    with pytest.raises(lb.StoreError, match="it is 00000 and not 00001"):
        lb.open_ensemble(path)
    groups[1].write_bytes(own)
    for source in (path / "groups/00000.npz", tmp_path / "other/data.npz"):
        shutil.copyfile(source, path / "data.npz")
        with pytest.raises(lb.StoreError, match=r"data\.npz is damaged .*writes it anew"):
            lb.open_ensemble(path)
        assert kind.go_on(path) == expected
        assert kind.read(path) == expected


def test_a_batch_under_another_number_or_of_another_sweep_is_found(tmp_path):
    kind = damage.Batch()
    for name, seed in (("s", 0), ("other", 1)):
        kind.make(tmp_path / name, seed)
    file = tmp_path / "s/batches/0001.npz"
    own = (tmp_path / "s/batches/0001.npz").read_bytes()
    for source in (tmp_path / "s/batches/0000.npz", tmp_path / "other/batches/0001.npz"):
        shutil.copyfile(source, file)
        with pytest.raises(lb.StoreError, match=r"0001\.npz is damaged \(it belongs to another"):
            kind.read(tmp_path / "s")
    file.write_bytes(own)
    kind.read(tmp_path / "s")


@pytest.mark.evidence
def test_a_check_takes_little_memory(tmp_path):
    """Of a run with 200 MB of rows, in a process of its own."""
    wide = lb.Record(every=1, metrics={"wide": lambda network: np.zeros(4096)})
    lb.train(**settings(6000, record=wide, checkpoint_every=3000), store=tmp_path / "run")
    code = (
        "import resource, sys, lrbias as lb; run = lb.open(sys.argv[1]); before = resource.getrusage(0).ru_maxrss; "
        "assert run.check() == []; print(resource.getrusage(0).ru_maxrss - before)"
    )
    said = subprocess.run([sys.executable, "-c", code, tmp_path / "run"], capture_output=True, text=True, check=True)
    size = sum(file.stat().st_size for file in (tmp_path / "run/log.zarr").rglob("*") if file.is_file())
    print(f"{size / 1e6:.0f} MB of rows are checked within {int(said.stdout) / 1e3:.1f} MB more than the run takes")
    assert size > 190e6
    assert int(said.stdout) < 30e3


@pytest.mark.evidence
@pytest.mark.parametrize("kind", [*damage.KINDS, *damage.MODELS])
def test_no_flip_and_no_swap_goes_unseen(kind, tmp_path):
    driver = Path(__file__).with_name("damage.py")
    words = [sys.executable, driver, "--kinds", kind]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    report = json.loads(answer.stdout)[kind]
    print(kind, report["flips"], report["swaps"])
    assert report["told"] == []
    assert set(report["flips"]) | set(report["swaps"]) <= {"detected", "harmless"}
    assert sum(report["flips"].values()) >= 1000
    assert sum(report["swaps"].values()) >= 20
