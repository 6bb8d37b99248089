"""Sweeps: what they expand to, that their runs are those made alone, and that nothing is lost or made twice."""

import csv
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import lrbias as lb
from lrbias import experiments as experiment
from lrbias.cli import main
from lrbias.plots import sweep_plots
from lrbias.storage import RunWriter
from lrbias.storage._batch import read_batch
from lrbias.sweeps._axes import expand
from lrbias.sweeps._sweep import forecast_sweep
from runs import fingerprint

BASE = {
    "shape": [6, 5],
    "rank": 2,
    "spectral_norm": 3.0,
    "gamma": 1.0,
    "steps": 200,
    "every": 10,
    "checkpoint_every": 50,
}
OVER = {"depth": [2, 3], "lr": [0.01, 3.0], "seed": range(2)}
NAMES = [f"depth={depth},lr={lr},seed={seed}" for depth in (2, 3) for lr in (0.01, 3.0) for seed in (0, 1)]


def _here(store, base=BASE, over=OVER, **options):
    """The sweep, made in a thread of this process."""
    with ThreadPoolExecutor(1) as executor:
        return lb.sweep(base, over, store, executor=executor, progress=False, **options)


def _alone(settings):
    whole = experiment.Experiment.from_words(settings)
    return lb.train(**whole.arguments(), forecast=False)


def _times(path):
    return {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file() and file.name != "lock"}


def test_axes_expand_in_order_and_together():
    over = {"depth,teacher_depth": [(2, 3), (4, 2)], "lr": np.array([0.5, 0.25])}
    runs = expand({"rank": 1}, over)
    assert list(runs) == [f"depth={d},teacher_depth={t},lr={lr}" for d, t in ((2, 3), (4, 2)) for lr in (0.5, 0.25)]
    assert runs["depth=4,teacher_depth=2,lr=0.25"] == {"rank": 1, "depth": 4, "teacher_depth": 2, "lr": 0.25}
    assert list(expand({}, {"widths": [[5, 7, 6]], "shape": [(6, 5)]})) == ["widths=5x7x6,shape=6x5"]


BAD = [
    ({}, {}, "at least one axis"),
    ({}, {"rank": []}, "at least one value"),
    ({}, {"rank": 5}, "a list of values"),
    ({}, {"rnak": [5]}, "keys of an experiment"),
    ({"rank": 5}, {"rank": [5]}, "fixed there"),
    ({}, {"rank": [5], "rank,depth": [[5, 2]]}, "one axis only"),
    ({}, {"rank,depth": [[5]]}, "2 values in each row"),
    ({}, {"rank": [5, 5]}, "two of them are the same"),
    ({}, {"rank": [5, -1]}, "rank = -1 .*in the run rank=-1"),
    ({"method": "flow"}, {"lr": [0.1]}, "not of flow"),
]


@pytest.mark.parametrize(("base", "over", "said"), BAD, ids=[said for _, _, said in BAD])
def test_bad_axes_are_refused_before_anything_is_made(base, over, said, tmp_path):
    with pytest.raises(lb.InvalidInput, match=said):
        lb.sweep(base, over, tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_names_that_a_folder_cannot_have_stay_apart():
    long = ["x" * 200 + end for end in "ab"]
    names = list(expand({}, {"target": ["a/b.npy", "a_b.npy", *long]}))
    assert len(set(names)) == 4
    assert all("/" not in name and len(name) < 140 for name in names)


def test_what_only_python_can_hold_is_refused(tmp_path):
    for base, executor, said in (
        ({**BASE, "metrics": {"f": len}}, None, "a TOML file can hold"),
        (5, None, "base = 5"),
        (BASE, 3, "executor = 3"),
    ):
        with pytest.raises(lb.InvalidInput, match=said):
            lb.sweep(base, OVER, tmp_path / "s", executor=executor)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_beginning_leaves_no_half_folder(tmp_path, monkeypatch):
    """The folder appears by one rename; shards that begin together agree on it."""
    rename = os.rename

    def other_first(draft, path):
        monkeypatch.undo()
        _here(path, over={"seed": [1]})  # another shard makes the folder in between
        rename(draft, path)

    monkeypatch.setattr(os, "rename", other_first)
    assert _here(tmp_path / "s", over={"seed": [1]}).counts() == {"finished": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("shard", [(0, 0), (2, 2), (-1, 2), 1, (0.5, 2)], ids=str)
def test_bad_shards_are_refused(shard, tmp_path):
    with pytest.raises(lb.InvalidInput, match="shard"):
        lb.sweep(BASE, OVER, tmp_path / "s", shard=shard)
    assert list(tmp_path.iterdir()) == []


def test_runs_of_a_sweep_are_those_made_alone_and_are_made_once(tmp_path):
    """By two processes, one run in each at a time; diverging runs are rows."""
    made = lb.sweep(BASE, OVER, tmp_path / "s", workers=2, progress=False)
    assert made.names == NAMES
    assert made.counts() == {"finished": 4, "diverged": 4}
    for name in (NAMES[0], NAMES[5], NAMES[6]):
        assert fingerprint(made[name]) == fingerprint(_alone(made.settings(name)))
    before = _times(tmp_path)
    again = lb.sweep(BASE, OVER, tmp_path / "s", workers=2, progress=False)
    assert again.table() == made.table() == lb.open_sweep(tmp_path / "s").table()
    assert _times(tmp_path) == before


def test_the_table_says_what_was_varied_and_how_it_ended(tmp_path):
    made = _here(tmp_path / "s")
    rows = made.table()
    assert [row["run"] for row in rows] == NAMES
    assert [(row["depth"], row["lr"], row["seed"]) for row in rows[:3]] == [(2, 0.01, 0), (2, 0.01, 1), (2, 3.0, 0)]
    run = made[NAMES[0]]
    assert rows[0]["last_loss"] == run.losses[-1]
    assert rows[0]["t"] == pytest.approx(2.0)
    assert rows[0]["escape_steps"] == run.escape_steps()
    assert rows[0]["product/effective_rank"] == run["product/effective_rank"][-1]
    assert rows[2]["status"] == "diverged"
    made.write(tmp_path / "table.csv")
    with open(tmp_path / "table.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["run"] for row in read] == NAMES
    assert float(read[0]["last_loss"]) == rows[0]["last_loss"]
    assert "8 runs" in repr(made)


def test_the_table_as_an_array(tmp_path):
    over = {"depth,teacher_depth": [(2, 3), (3, 2)], "lr": [0.01, 3.0], "seed": [4]}
    made = _here(tmp_path / "s", over=over)
    array = made.to_xarray()
    assert dict(array.sizes) == {"depth_teacher_depth": 2, "lr": 2, "seed": 1, "mode": 2}
    rows = {row["run"]: row for row in made.table()}
    assert list(array["teacher_depth"].values) == [3, 2]
    for i, depth in enumerate((2, 3)):
        for lr in (0.01, 3.0):
            cell = array.isel(depth_teacher_depth=i).sel(lr=lr, seed=4)
            row = rows[str(cell["run"].values)]
            assert (row["depth"], row["lr"]) == (depth, lr)
            assert cell["last_loss"] == row["last_loss"]
            assert cell["status"] == row["status"]
            assert [None if np.isnan(s) else s for s in cell["escape_steps"].values] == row["escape_steps"]


def test_figures_of_a_sweep_show_its_runs(tmp_path):
    made = _here(tmp_path / "s")
    figure = sweep_plots.curves(made, "loss")
    assert len(figure.axes) == 4
    lines = [line for axes in figure.axes for line in axes.get_lines()]
    assert len(lines) == 8
    run = made[NAMES[0]]
    drawn = lines[0]
    assert np.allclose(drawn.get_xdata(), run.steps[1:] * 0.01)
    assert np.allclose(drawn.get_ydata(), run.loss[1:])
    maps = sweep_plots.map_over(made, "product/effective_rank", x="lr", y="depth")
    images = [axes.images[0].get_array() for axes in maps.axes if axes.images]
    first = made[NAMES[0]]["product/effective_rank"][-1]
    assert len(images) == 2
    assert images[0][0, 0] == first
    assert np.ma.is_masked(images[0][0, 1]), "a run that diverged has no final rank"
    counts = sweep_plots.map_over(made, "escaped").axes[-1].get_yticks()
    assert (counts % 1 == 0).all(), "modes are counted"
    with pytest.raises(lb.InvalidInput, match="x = 'steps'"):
        sweep_plots.map_over(made, x="steps")
    with pytest.raises(SystemExit) as ended:
        main(["plot", str(tmp_path / "s"), "-o", str(tmp_path / "figures"), "--format", "png"])
    assert ended.value.code == 0
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert names >= {"curves-loss", "curves-product-effective_rank", "map-escaped", "map-last_escape_t"}


def test_figures_of_a_sweep_in_which_everything_diverges_at_once(tmp_path):
    made = _here(tmp_path / "s", over={"lr": [1e6, 1e7], "gamma,seed": [(0.2, 1), (0.3, 2)]}, base=_without("gamma"))
    assert made.counts() == {"diverged": 4}
    assert len(sweep_plots.save(made, tmp_path / "figures", ("png",))) >= 2
    page = lb.report(made.path, tmp_path / "r.html").read_text()
    assert page.count("<figure") >= len(sweep_plots.available(made)) >= 2
    assert "4 diverged" in page


def _without(key):
    return {name: value for name, value in BASE.items() if name != key}


def test_shards_make_the_sweep_together(tmp_path):
    first = _here(tmp_path / "s", shard=(0, 3))
    assert first.counts() == {"finished": 1, "diverged": 2, "missing": 5}
    for i in (1, 2):
        last = _here(tmp_path / "s", shard=(i, 3))
    assert last.counts() == {"finished": 4, "diverged": 4}
    for name in NAMES:
        assert fingerprint(last[name]) == fingerprint(_alone(last.settings(name)))


def test_a_changed_sweep_is_refused_with_the_difference(tmp_path):
    _here(tmp_path / "s", over={"seed": [1]})
    with pytest.raises(lb.InvalidInput, match=r"base\.steps is 200 and not 300"):
        _here(tmp_path / "s", base={**BASE, "steps": 300}, over={"seed": [1]})
    with pytest.raises(lb.InvalidInput, match=r"over\.seed is \[1\] and not \[1, 2\]"):
        _here(tmp_path / "s", over={"seed": [1, 2]})
    with pytest.raises(lb.InvalidInput, match="does not exist yet"):
        _here(tmp_path, over={"seed": [1]})


def test_a_run_that_fails_is_a_row_and_is_tried_again(tmp_path):
    missing = str(tmp_path / "later.npy")
    over = {"target": [missing], "seed": [1, 2]}
    base = {key: BASE[key] for key in ("steps", "gamma")}
    with pytest.raises(lb.RunsFailed) as raised:
        _here(tmp_path / "s", base, over)
    failed = raised.value.sweep
    assert failed.counts() == {"failed": 2}
    assert "expected the path of a .npy" in failed.table()[0]["detail"]
    np.save(missing, np.diag([2.0, 1.0, 0.5]))
    assert _here(tmp_path / "s", base, over).counts() == {"finished": 2}


def test_runs_that_were_killed_are_resumed(tmp_path):
    """The process of the sweep ends without a word right after the commit of its first run at step 100."""
    whole = _here(tmp_path / "whole", over={"seed": [1, 2]})
    pid = os.fork()
    if pid == 0:
        commit = RunWriter.commit

        def last(writer, step, *rest):
            commit(writer, step, *rest)
            if step == 100:
                os._exit(9)

        RunWriter.commit = last
        _here(tmp_path / "s", over={"seed": [1, 2]})
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    killed = lb.open_sweep(tmp_path / "s")
    assert killed.counts() == {"running": 1, "missing": 1}
    assert killed.table()[0]["step"] == 100
    again = _here(tmp_path / "s", over={"seed": [1, 2]})
    assert [fingerprint(again[name]) for name in again.names] == [fingerprint(whole[name]) for name in whole.names]


def _kill_a_worker(path):
    """Kill a child of this process as soon as the first run has begun."""
    import multiprocessing

    waiting = threading.Event()
    while not any(path.glob("runs/*/progress.json")):
        waiting.wait(0.005)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)


def test_a_worker_that_dies_is_replaced(tmp_path):
    base = {**BASE, "steps": 2000}
    killer = threading.Thread(target=_kill_a_worker, args=(tmp_path / "s",))
    killer.start()
    made = lb.sweep(base, {"seed": range(4)}, tmp_path / "s", workers=2, progress=False)
    killer.join()
    assert made.counts() == {"finished": 4}
    assert fingerprint(made["seed=0"]) == fingerprint(_alone(made.settings("seed=0")))


TOML = """
[problem.target]
shape = [6, 5]
rank = 2
spectral_norm = 3.0
[network]
gamma = 1.0
[run]
steps = 3000
checkpoint_every = 50
[record]
every = 10

[sweep]
lr = [0.01, 3.0]
"depth,teacher_depth" = [[2, 2], [3, 2], [4, 2]]
"""


@pytest.mark.evidence
def test_the_command_survives_the_death_of_its_process(tmp_path):
    """Killed when some runs are begun; its workers end with it, and the same command makes what is missing."""
    (tmp_path / "small.toml").write_text(TOML)
    words = [sys.executable, "-m", "lrbias", "sweep", "small.toml", "-o", "s", "--json", "--workers", "2"]
    child = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    waiting = threading.Event()
    while len(list(tmp_path.glob("s/runs/*/progress.json"))) < 2 and child.poll() is None:
        waiting.wait(0.005)
    child.kill()
    child.wait()
    answer = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    table = json.loads(answer.stdout)["runs"]
    assert [row["status"] for row in table] == ["finished"] * 3 + ["diverged"] * 3
    assert "6 runs, about" in answer.stderr
    made = lb.open_sweep(tmp_path / "s")
    assert fingerprint(made[made.names[1]]) == fingerprint(_alone(made.settings(made.names[1])))


def test_the_forecast_of_a_sweep(tmp_path, capsys):
    (tmp_path / "small.toml").write_text(TOML)
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(tmp_path / "small.toml"), "--dry-run", "--json"])
    assert ended.value.code == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["runs"] == 6
    assert 0 < facts["seconds"] < 60
    assert facts["bytes"] > 6 * 3000 * 8
    assert forecast_sweep(BASE, OVER)["runs"] == 8
    assert [entry.name for entry in tmp_path.iterdir()] == ["small.toml"]


@pytest.mark.parametrize(
    "words", [["--table", "no/t.csv"], ["--shard", "2"], ["--shard", "2/2"], ["--workers", "0"], []], ids=" ".join
)
def test_bad_words_leave_nothing_behind(words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(TOML if words else "rank = 3\n")
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "small.toml", "-o", "s", "--quiet", *words])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["small.toml"]


def _workers_of(pid):
    """The processes that `pid` started to make runs."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in children if b"popen_loky" in _command_of(child)]


def _command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _kill_once(words, folder, seconds, whom):
    """Start the command and kill it, or one of its workers, after a while. Returns whether there was one to kill."""
    child = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        child.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        victims = [child.pid] if whom == "parent" else _workers_of(child.pid)
        for victim in victims[:1]:
            os.kill(victim, signal.SIGKILL)
        child.wait()
        return bool(victims)


BATCHED = TOML.replace(
    '"depth,teacher_depth" = [[2, 2], [3, 2], [4, 2]]', "seed = [" + ", ".join(map(str, range(24))) + "]"
)


def _ended(store, made):
    """{file: time} of what belongs to runs that have ended, in their directories or batches."""
    times = {}
    for name, status in made.statuses().items():
        if status in ("finished", "diverged"):
            times.update(_times(store / "runs" / name))
    for batch in store.glob("batches/*.npz"):
        if all(member["status"] != "running" for member in read_batch(batch).document["members"]):
            times[batch] = batch.stat().st_mtime_ns
    return times


@pytest.mark.evidence
@pytest.mark.parametrize(
    "toml", [TOML.replace("3000", "4000"), BATCHED.replace("3000", "6000")], ids=["alone", "batched"]
)
def test_sweeps_survive_kills_at_random_times(toml, tmp_path):
    """Thirty kills, of the parent and of workers in turn: the same bits at the end, and no finished run made again."""
    (tmp_path / "small.toml").write_text(toml)
    words = [sys.executable, "-m", "lrbias", "sweep", "small.toml", "--quiet", "--workers", "2", "-o"]
    started = time.monotonic()
    subprocess.run([*words, "whole"], cwd=tmp_path, check=True)
    duration = time.monotonic() - started
    whole = lb.open_sweep(tmp_path / "whole")
    expected = [fingerprint(whole[name]) for name in whole.names]
    chance = random.Random(1)
    kills = 0
    sweeps = 0
    while kills < 30:
        store = tmp_path / f"s{sweeps}"
        finished = {}
        for whom in itertools.islice(itertools.cycle(("parent", "worker")), 3):
            kills += _kill_once([*words, store.name], tmp_path, chance.uniform(0.2, 1) * duration, whom)
            if not (store / "sweep.json").is_file():
                continue
            now = _ended(store, lb.open_sweep(store))
            assert {path: now[path] for path in finished} == finished, "a finished run was touched again"
            finished = now
        subprocess.run([*words, store.name], cwd=tmp_path, check=True)
        made = lb.open_sweep(store)
        assert [fingerprint(made[name]) for name in made.names] == expected
        now = _ended(store, made)
        assert {path: now[path] for path in finished} == finished
        sweeps += 1
    print(f"\n{kills} kills in {sweeps} sweeps of {len(expected)} runs: all ended with the same bits")
