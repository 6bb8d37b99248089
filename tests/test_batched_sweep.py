"""Sweeps of small networks: trained side by side and kept in few files, every run is the one that is trained alone."""

import json
import os

import numpy as np
import pytest

import lrbias as lb
from lrbias.cli import main
from lrbias.devices import CPU
from lrbias.experiments import Experiment
from lrbias.storage import _batch_writer as batch_writer
from lrbias.storage._batch import read_batch
from lrbias.sweeps import _batches as batching
from lrbias.sweeps._sweep import forecast_sweep
from runs import fingerprint

pytestmark = pytest.mark.usefixtures("sweeps_here")
PLAIN = {"shape": [6, 5], "spectral_norm": 3.0, "gamma": 0.8, "steps": 230, "every": 20, "checkpoint_every": 50}
BASE = {**PLAIN, "rank": 2}
GD = {"lr": [0.01, 0.02, 3.0], "seed": range(6)}


def _alone(settings):
    return lb.train(**Experiment.from_words(settings).arguments(), forecast=False, progress=False)


def _same(one, other):
    assert fingerprint(one) == fingerprint(other)
    facts = one.summary()
    expected = other.summary()
    for key in ("path", "elapsed_s"):
        facts.pop(key), expected.pop(key)
    np.testing.assert_equal(facts, expected)
    assert one.settings == other.settings
    assert one.checkpoints == other.checkpoints
    for step in one.checkpoints:
        assert np.array_equal(one.checkpoint(step).params, other.checkpoint(step).params)


@pytest.mark.parametrize(
    ("base", "over"),
    [
        (BASE, GD),
        ({**BASE, "method": "flow"}, {"dt": [0.02, 3.0], "seed": range(4), "depth,teacher_depth": [(2, 2)]}),
        ({**BASE, "dtype": "float32", "scheme": "heun", "method": "flow", "widths": [5, 3, 9, 6]}, {"seed": range(8)}),
        ({**PLAIN, "metrics": ["gradient_norm", "alignment"], "every": 1}, {"rank": [1, 3], "teacher_seed": range(4)}),
        ({**PLAIN, "metrics": {"singular_values": 7, "alignment": 50}, "depth": 1}, {"rank": [5], "seed": range(9)}),
    ],
    ids=["gd", "flow", "float32", "ranks", "intervals"],
)
def test_runs_of_a_batch_are_those_made_alone(base, over, tmp_path):
    made = lb.sweep(base, over, tmp_path / "s", workers=1, progress=False)
    assert list((tmp_path / "s/runs").iterdir()) == []
    for name in made.names[::3] + made.names[-1:]:
        _same(made[name], _alone(made.settings(name)))
    statuses = set(made.counts())
    assert statuses == ({"finished", "diverged"} if 3.0 in over.get("lr", over.get("dt", [])) else {"finished"})


def test_only_small_plain_runs_share_a_batch():
    def planned(**changes):
        runs = {f"{seed}": {**BASE, "seed": seed, **changes} for seed in range(20)}
        return [len(names) for names in batching.plan_batches(runs).values()]

    assert planned() == [8, 8, 4]
    assert batching.plan_batches({f"{seed}": {**BASE, "seed": seed} for seed in range(7)}) == {}
    assert planned(shape=[17, 5]) == []
    assert planned(stop_loss=1e-3) == []
    assert planned(target="a.npy", shape=None, rank=None) == []
    assert planned(method="flow", dt=0.1, scheme="dopri5", lr=None) == [], "its steps are not those of other runs"
    greedy = Experiment.from_words({"method": "glrl", "shape": [3, 3], "rank": 1})
    assert batching._kind(greedy, batching.limits(CPU, 1)) is None, "its network grows"
    assert planned(steps=3_000_000) == [], "more than fits into memory"
    assert planned(rank=7) == [], "it cannot be made: alone it says why"


def test_a_batch_that_was_killed_goes_on(tmp_path):
    """The process ends without a word once the batch was saved for the second time, in mid-run."""
    whole = lb.sweep(BASE, GD, tmp_path / "whole", workers=1, progress=False)
    pid = os.fork()
    if pid == 0:
        batching.SAVE_SECONDS = 0
        batching.SAVE_SHARE = float("inf")
        saves = []
        write = batch_writer.write_batch

        def last(*arguments):
            write(*arguments)
            saves.append(1)
            if len(saves) == 2:
                os._exit(9)

        batch_writer.write_batch = last
        try:
            lb.sweep(BASE, GD, tmp_path / "s", executor=_Here(), progress=False)
        finally:  # whatever happens, the child must not go on with the tests of its parent
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    killed = lb.open_sweep(tmp_path / "s")
    assert killed.counts()["running"] > 1
    run = killed[killed.names[0]]
    assert 0 < run.step < 230
    assert np.array_equal(run.losses, whole[run.path.name].losses[: run.step + 1])
    made = lb.sweep(BASE, GD, tmp_path / "s", workers=1, progress=False)
    assert [fingerprint(made[name]) for name in made.names] == [fingerprint(whole[name]) for name in whole.names]


class _Here:
    """An executor that does everything when it is asked to."""

    def submit(self, task, job):
        from concurrent.futures import Future

        future = Future()
        future.set_result(task(job))
        return future


def test_a_run_in_a_batch_has_a_path_like_any_other(tmp_path, capsys):
    made = lb.sweep(BASE, {"seed": range(8)}, tmp_path / "s", workers=1, progress=False)
    path = tmp_path / "s/runs/seed=3"
    assert fingerprint(lb.open(path)) == fingerprint(made["seed=3"])
    for words, code in ((["info", str(path), "--check"], 0), (["resume", str(path)], 2)):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == code
    assert "is kept in a batch" in capsys.readouterr().err
    with pytest.raises(lb.InvalidInput, match="expected a run directory"):
        lb.open(tmp_path / "s/runs/seed=99")


def test_what_a_sweep_is(tmp_path, capsys):
    lb.sweep(BASE, {"seed": range(9)}, tmp_path / "s", workers=1, progress=False)
    with pytest.raises(SystemExit) as ended:
        main(["info", str(tmp_path / "s"), "--check", "--json"])
    assert ended.value.code == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == {
        "path": str(tmp_path / "s"),
        "varied": ["seed"],
        "runs": 9,
        "finished": 9,
        "damaged": [],
    }
    file = tmp_path / "s/batches/0000.npz"
    data = bytearray(file.read_bytes())
    data[data.index(read_batch(file)["params"].tobytes()) - 3000] ^= 1
    file.write_bytes(data)
    with pytest.raises(SystemExit) as ended:
        main(["info", str(tmp_path / "s"), "--check"])
    assert ended.value.code == 1


def test_a_damaged_batch_is_named(tmp_path):
    made = lb.sweep(BASE, {"seed": range(8)}, tmp_path / "s", workers=1, progress=False)
    (file,) = (tmp_path / "s/batches").glob("*.npz")
    data = bytearray(file.read_bytes())
    place = data.index(read_batch(file)["losses"].tobytes()) + 100
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(lb.StoreError, match=r"0000\.npz is damaged \(Bad CRC"):
        made["seed=0"].losses  # noqa: B018
    file.write_bytes(data[:1000])
    with pytest.raises(lb.StoreError, match=r"0000\.npz is damaged"):
        made.table()


def test_the_forecast_of_batches():
    many = forecast_sweep(BASE, {"seed": range(64)}, workers=1)
    assert 0 < many["seconds"] < 60
    assert 64 * 230 * 8 < many["bytes"] < 64 * 100_000
