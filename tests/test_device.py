"""Where a run is made changes nothing in it: on a GPU, or in Numba's simulator of one, it has the bits of the CPU.

What is refused, and how, needs neither.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

import lrbias as lb
from lrbias import devices
from lrbias.experiments import RunOptions
from lrbias.storage import _batch_writer as batch_writer
from lrbias.storage import read_json, write_json
from lrbias.storage._format import progress_document
from lrbias.sweeps import _batches as batching
from lrbias.sweeps import _ensembles as ensembles
from lrbias.sweeps._sweep import forecast_sweep
from lrbias.training import _run_recorder as recording
from runs import call, fingerprint

NO_EXTRA = "" if importlib.util.find_spec("numba_cuda") else "numba-cuda is not installed: pip install 'lrbias[cuda]'"


def _no_gpu():
    """Why nothing runs on a GPU here, as a test's reason to be skipped; empty where it does."""
    if NO_EXTRA:
        return NO_EXTRA
    from lrcore import cuda

    return f"{cuda.missing()}; NUMBA_ENABLE_CUDASIM=1 simulates one" if cuda.missing() else ""


needs_extra = pytest.mark.skipif(bool(NO_EXTRA), reason=NO_EXTRA)
on_gpu = pytest.mark.skipif(bool(_no_gpu()), reason=_no_gpu())

TARGET = lb.from_singular_values((3, 2), [3.0, 1.5], seed=3)
NETWORK = lb.Network.gaussian((2, 3, 3), gamma=0.5, seed=2)
MEASURED = np.random.default_rng(1).normal(size=(4, 3, 2))
BASE = {"shape": [3, 2], "rank": 1, "depth": 2, "gamma": 0.6, "steps": 8, "every": 4, "checkpoint_every": 4}
SEEDS = {"lr": [0.02, 30.0], "seed": range(4)}  # one of the two step sizes diverges


def arguments(**changes):
    """A run of lb.train that the simulator makes in a second; everything is recorded."""
    own = {"problem": lb.Factorization(TARGET), "network": NETWORK, "method": lb.GD(lr=0.02), "steps": 8}
    record = lb.Record(every=4)
    return {**own, "record": record, "checkpoint_every": 4, "forecast": False, "progress": False, **changes}


def _schedule():
    return lb.GD(lr=0.02, ridge=0.1, lr_schedule="piecewise_constant:factor=0.5,milestones=4")


RUNS = {
    "gd": {},
    "float32": {
        "network": lb.Network.gaussian((2, 3, 3), gamma=0.5, seed=2, dtype="float32"),
        "record": lb.Record(every=4, metrics=("effective_rank",)),
    },
    "rk4": {"method": lb.GradientFlow(dt=0.02), "steps": 4},
    "diverging": {"method": lb.GD(lr=30.0)},
    "ridge and schedule": {"method": _schedule()},
    "ridge of a flow": {"method": lb.GradientFlow(dt=0.02, scheme="heun", ridge=0.1), "steps": 4},
    "completion": {"problem": lb.Completion(TARGET, entries=4, seed=1, reduction="mean")},
    "sensing": {"problem": lb.Sensing(MEASURED, np.einsum("kij,ij->k", MEASURED, TARGET), TARGET), "steps": 4},
    "regression": {"problem": lb.Regression(MEASURED[:, 0], MEASURED[:, :, 1]), "steps": 4},
    "sgd": {
        "problem": lb.Completion(TARGET, entries=5, seed=1),
        "method": lb.SGD(lr=0.01, ridge=1e-3, batch=2, replacement=False),
    },
    "diagonal": {
        "problem": lb.Factorization(lb.from_eigenvalues(3, [2.0, -1.0], seed=1)),
        "network": lb.Network.scaled_identity(3, 2, 0.3),
    },
    "compressed": {
        "problem": lb.Factorization(lb.from_singular_values((6, 6), [2.0], seed=1)),
        "network": lb.Network.orthogonal((6, 6, 6), 0.3, seed=2),
        "method": lb.GradientFlow(dt=0.02),
        "steps": 4,
        "record": lb.Record(every=4, metrics=("singular_values",)),
    },
    "dopri5": {
        "problem": lb.Factorization(TARGET[:2]),
        "network": lb.Network.gaussian((2, 2, 2), gamma=0.5, seed=2),
        "method": lb.GradientFlow(dt=0.2, scheme="dopri5", rtol=1e-3),
        "steps": 4,
    },
    "greedy": {
        "network": None,
        "method": lb.GLRL(epsilon=1.0, inner=lb.GD(lr=0.1), check_every=4, tolerance=0.1, max_rank=2),
        "steps": 12,
    },
}


@pytest.fixture
def launches(monkeypatch):
    """The names of the kernels that are launched."""
    from lrcore.cuda import _target

    names = []
    launch = _target.Kernel.__call__

    def note(kernel, *given):
        names.append(kernel.name)
        return launch(kernel, *given)

    monkeypatch.setattr(_target.Kernel, "__call__", note)
    return names


@on_gpu
@pytest.mark.parametrize("name", RUNS)
def test_a_run_on_a_gpu_is_the_run_on_the_cpu(name, launches):
    """Losses, layers and everything that was recorded, bit for bit."""
    whole = lb.train(**arguments(**RUNS[name]))
    assert launches == []
    run = lb.train(**arguments(**RUNS[name]), device="cuda")
    assert launches
    assert fingerprint(run) == fingerprint(whole)
    assert (run.status, run.detail, run.reduced) == (whole.status, whole.detail, whole.reduced)
    assert run.reduced == (name if name in ("diagonal", "compressed") else None)
    np.testing.assert_equal(run.phases, whole.phases)
    assert len(run.phases) == (2 if name == "greedy" else 0)
    assert run.settings == {**whole.settings, "device": "cuda"}


@on_gpu
def test_large_networks_are_looked_at_on_the_gpu(monkeypatch, launches):
    """Products, gradients and balancedness of a record; of a network that is not large they are made on the CPU."""
    named = lb.Record(every=4, metrics=("effective_rank", "balancedness", "gradient_norm", "product"))
    for changes in ({}, RUNS["completion"], RUNS["ridge and schedule"]):
        own = arguments(record=named, **changes)
        whole = lb.train(**own)
        small = fingerprint(lb.train(**own, device="cuda"))
        few = len(launches)
        with monkeypatch.context() as patched:
            patched.setattr(devices, "WIDE", 3)
            assert fingerprint(lb.train(**own, device="cuda")) == small == fingerprint(whole)
        assert len(launches) - few > few > 0
        launches.clear()


@on_gpu
def test_measuring_beside_needs_no_core_of_its_own(monkeypatch):
    """Training waits for the GPU, so that even a single core is free."""
    beside = []
    has = recording.logs_asynchronously

    def note(*given):
        beside.append(has(*given))
        return beside[-1]

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(recording, "logs_asynchronously", note)
    runs = [fingerprint(lb.train(**arguments(record=lb.Record(every=2)), device=name)) for name in ("cpu", "cuda")]
    assert beside == [False, True]
    assert runs[0] == runs[1]


@on_gpu
@pytest.mark.parametrize("name", ["gd", "sgd", "dopri5", "diagonal", "greedy"])
@pytest.mark.parametrize(("first", "then"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_run_goes_on_on_another_device(name, first, then, tmp_path, launches):
    own = arguments(**RUNS[name])
    whole = fingerprint(lb.train(**own))
    steps = own["steps"]
    own["steps"] = steps // 2
    lb.train(**own, device=first, store=tmp_path / "run")
    assert bool(launches) == (first == "cuda")
    launches.clear()
    run = lb.resume(tmp_path / "run", steps=steps, device=then)
    assert bool(launches) == (then == "cuda")
    assert fingerprint(run) == whole
    assert (run.settings["device"], lb.open(run.path).settings["device"]) == (then, then)
    assert ("gpu" in run.info) == (first == "cuda")
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert ["gpu" in made for made in config["resumed_with"]] == [then == "cuda"]


@on_gpu
def test_a_run_resumes_where_it_was_unless_told_otherwise(tmp_path, launches):
    lb.train(**arguments(steps=4), device="cuda", store=tmp_path / "run")
    launches.clear()
    lb.resume(tmp_path / "run", steps=8)
    assert launches
    assert 'device = "cuda"' in (tmp_path / "run/experiment.toml").read_text()
    assert lb.open(tmp_path / "run").info["gpu"].startswith(devices.CUDA.kernels.device_properties().name)


class Here:
    """An executor that does everything when it is asked to."""

    def submit(self, task, job):
        future = Future()
        future.set_result(task(job))
        return future


def _rows(made):
    return [{key: value for key, value in row.items() if key != "elapsed_s"} for row in made.table()]


@on_gpu
def test_a_sweep_on_a_gpu_is_the_sweep_on_the_cpu(tmp_path, launches):
    """One batch of all runs, some of which diverge."""
    made = lb.sweep(BASE, SEEDS, tmp_path / "gpu", executor=Here(), progress=False, device="cuda")
    assert launches
    assert len(list((tmp_path / "gpu/batches").glob("*.npz"))) == 1
    launches.clear()
    whole = lb.sweep(BASE, SEEDS, tmp_path / "cpu", executor=Here(), progress=False)
    assert launches == []
    assert made.counts() == whole.counts() == {"finished": 4, "diverged": 4}
    assert _rows(made) == _rows(whole)
    for name in made.names:
        assert fingerprint(made[name]) == fingerprint(whole[name])
        assert made[name].settings == {**whole[name].settings, "device": "cuda"}
    assert "gpu" in made[made.names[0]].info


@on_gpu
@pytest.mark.parametrize(("first", "then"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_sweep_that_was_stopped_goes_on_on_another_device(first, then, tmp_path, monkeypatch, launches):
    over = {"seed": range(8)}
    where = {"store": tmp_path / "s", "executor": Here(), "progress": False}
    whole = lb.sweep(BASE, over, tmp_path / "whole", executor=Here(), progress=False)
    monkeypatch.setattr(batching, "SAVE_SECONDS", 0)
    monkeypatch.setattr(batching, "SAVE_SHARE", np.inf)
    saves = []
    write = batch_writer.write_batch

    def stop_after_two(*given):
        write(*given)
        saves.append(1)
        if len(saves) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(batch_writer, "write_batch", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            lb.sweep({**BASE, "device": first}, over, **where)
    begun = lb.open_sweep(tmp_path / "s")
    assert 0 < begun[begun.names[0]].step < 8
    launches.clear()
    made = lb.sweep({**BASE, "device": first}, over, **where, device=then)
    assert bool(launches) == (then == "cuda")
    assert [fingerprint(made[name]) for name in made.names] == [fingerprint(whole[name]) for name in made.names]


@on_gpu
def test_runs_of_a_sweep_go_on_on_another_device(tmp_path, launches):
    """Runs of their own, too: one was stopped, the other not begun."""
    over = {"seed": [1, 2]}
    where = {"store": tmp_path / "s", "executor": Here(), "progress": False}
    whole = lb.sweep(BASE, over, tmp_path / "whole", executor=Here(), progress=False)
    lb.sweep({**BASE, "device": "auto", "threads": 2}, over, **where)
    assert launches
    run = lb.open(tmp_path / "s/runs/seed=2")
    assert (run.settings["device"], run.settings["threads"]) == ("cuda", 1), "auto is looked up where a sweep is made"
    shutil.rmtree(run.path)
    _take_back(tmp_path / "s/runs/seed=1")
    launches.clear()
    made = lb.sweep({**BASE, "device": "auto", "threads": 2}, over, **where, device="cpu")
    assert launches == []
    assert [fingerprint(made[name]) for name in made.names] == [fingerprint(whole[name]) for name in made.names]
    for run in map(made.__getitem__, made.names):
        assert (run.settings["device"], run.settings["threads"]) == ("cpu", 2)
    _take_back(tmp_path / "s/runs/seed=1")
    made = lb.sweep({**BASE, "device": "auto", "threads": 2}, over, **where)
    assert launches
    assert [fingerprint(made[name]) for name in made.names] == [fingerprint(whole[name]) for name in made.names]


def _take_back(path):
    """Make a finished run one that was killed after its checkpoint at step 4."""
    progress = read_json(path / "progress.json")
    intervals = [int(interval) for interval in progress["rows"]]
    killed = progress_document(4, 4, "running", "training goes on, or was killed", intervals, 1.0)
    write_json(path / "progress.json", {**progress, **killed, "tail": False})


@on_gpu
def test_a_gpu_has_one_worker(tmp_path, capsys):
    """In a process of its own, from the command line, with a forecast."""
    (tmp_path / "s.toml").write_text(
        "[problem.target]\nshape = [3, 2]\nrank = 1\n[network]\ndepth = 2\n[run]\nsteps = 2\n[record]\nevery = 2\n"
        "[sweep]\nseed = [1, 2, 3, 4, 5, 6, 7, 8]\n"
    )
    code, shown, said = call(capsys, f"sweep {tmp_path}/s.toml -o {tmp_path}/s --device cuda --json")
    assert code == 0, said
    rows = json.loads(shown)["runs"]
    assert [row["status"] for row in rows] == ["finished"] * 8
    assert "8 runs, about" in said
    assert lb.open_sweep(tmp_path / "s")["seed=1"].settings["device"] == "cuda"


@on_gpu
def test_the_forecast_times_the_device(launches):
    own = arguments()
    expected = lb.forecast(**{name: own[name] for name in ("problem", "network", "method", "steps")}, device="cuda")
    assert launches
    assert 0 < expected.seconds < 60
    launches.clear()
    many = forecast_sweep({**BASE, "steps": 40}, {"seed": range(8)}, device="cuda")
    assert launches
    assert many["runs"] == 8
    assert 0 < many["seconds"] < 600


@on_gpu
def test_an_ensemble_on_a_gpu_is_the_ensemble_on_the_cpu(tmp_path, monkeypatch, launches):
    """Groups are trained together there, and kept apart: one that is gone is made again on the CPU."""
    monkeypatch.setattr(ensembles, "GROUP", 3)
    problem = lb.Completion(lb.from_singular_values((2, 2), [2.0], seed=1), entries=3, seed=1, reduction="mean")
    network = lb.Network.gaussian((2, 2, 2), gamma=0.7, seed=2)
    own = {"problem": problem, "network": network, "method": lb.SGD(lr=0.3), "runs": 7, "steps": 4, "every": 2}
    own.update(progress=False, threads=1)
    whole = lb.ensemble(**own)
    assert launches == []
    made = lb.ensemble(**own, store=tmp_path / "e", device="cuda")
    assert len(launches) == 2 + 2 * 2, "steps and the loss after them: to compile, then twice for all runs"
    launches.clear()
    (tmp_path / "e/groups/00001.npz").unlink()
    again = lb.ensemble(**own, store=tmp_path / "e")
    assert launches == []
    for name in ("ranks", "absorbing", "train_error", "test_error", "diverged", "ended", "values"):
        for found in (made, again):
            assert getattr(found, name).tobytes() == getattr(whole, name).tobytes(), name
    assert all(np.array_equal(made.network(i).params, whole.network(i).params) for i in range(7))


def test_waiting_groups_are_shared_by_threads():
    together = ensembles._side_by_side
    assert together([0, 1, 2], 2, devices.CPU) == [[0], [1], [2]]
    assert together([0, 2, 5], 2, devices.CUDA) == [[0, 2], [5]]
    assert [len(part) for part in together(list(range(130)), 2, devices.CUDA)] == [64, 64, 2]
    assert together([], 2, devices.CUDA) == []


def test_batches_are_as_large_as_the_device_wants_them():
    def planned(count, device, workers=1, **changes):
        runs = {f"{seed}": {**BASE, "seed": seed, **changes} for seed in range(count)}
        return [len(names) for names in batching.plan_batches(runs, device, workers).values()]

    assert planned(100, devices.CPU) == [16] * 6 + [4]
    assert planned(100, devices.CUDA) == [100]
    assert planned(100, devices.CUDA, workers=2) == [56, 44]
    assert planned(5000, devices.CUDA) == [4096, 904]
    assert planned(8, devices.CUDA, shape=[100, 90]) == [8]
    assert planned(8, devices.CPU, shape=[100, 90]) == []
    assert planned(8, devices.CUDA, shape=[130, 90]) == []
    many = planned(600, devices.CUDA, shape=[100, 100], steps=20_000, every=10, checkpoint_every=1000)
    assert sum(many) == 600
    assert max(many) == many[0] < 200, "what two gigabytes hold"


def test_one_file_knows_that_there_are_gpus():
    """Nothing else imports the kernels of the GPU, asks for their library, or compares the name of a device."""
    root = Path(lb.__file__).parent
    words = re.compile(r"import cuda|lrcore\.cuda|numba.cuda|[!=]= .cuda.")
    assert [path.name for path in sorted(root.rglob("*.py")) if words.search(path.read_text())] == ["devices.py"]


# What is refused.

REASONS = ("the NVIDIA driver is too old for this version of CUDA: update the driver", "there is no NVIDIA GPU here")


@needs_extra
@pytest.mark.parametrize("reason", REASONS)
def test_a_device_that_cannot_be_used_is_one_sentence(reason, work, monkeypatch, capsys):
    from lrcore import cuda

    monkeypatch.setattr(cuda, "missing", lambda: reason)
    code, shown, said = call(capsys, "run --shape 3 2 --rank 1 --steps 3 --device cuda -o run")
    assert (code, shown) == (2, "")
    assert said == f"lrbias: device = 'cuda' is not accepted: {reason} ('cpu' makes the same bits).\n"
    for refused in (
        lambda: lb.train(**arguments(), device="cuda", store="run"),
        lambda: lb.sweep({**BASE, "device": "cuda"}, {"seed": range(8)}, "s", progress=False),
        lambda: forecast_sweep({**BASE, "device": "cuda"}, {"seed": range(8)}),
        lambda: lb.ensemble(lb.Completion(TARGET), NETWORK, lb.SGD(lr=0.1), 2, 3, 1, store="e", device="cuda"),
    ):
        with pytest.raises(lb.InvalidInput, match=f"^device = 'cuda' is not accepted: {reason}"):
            refused()
    assert list(work.iterdir()) == []
    assert fingerprint(lb.train(**arguments(), device="auto")) == fingerprint(lb.train(**arguments()))


@needs_extra
def test_a_run_that_needs_a_gpu_is_left_as_it_is(work, monkeypatch):
    """It is not resumed without one, unless that is asked for."""
    from lrcore import cuda

    run = lb.train(**arguments(steps=4), store="run")
    config = read_json(run.path / "config.json")
    write_json(run.path / "config.json", {**config, "settings": {**config["settings"], "device": "cuda"}})
    before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file() and path.name != "lock"}
    monkeypatch.setattr(cuda, "missing", lambda: REASONS[1])
    with pytest.raises(lb.InvalidInput, match="no NVIDIA GPU"):
        lb.resume("run", steps=8)
    assert {path: path.read_bytes() for path in before} == before
    assert lb.open("run").settings["device"] == "cuda"
    whole = fingerprint(lb.train(**arguments()))
    assert fingerprint(lb.resume("run", steps=6, device="auto")) != whole
    assert fingerprint(lb.resume("run", steps=8, device="cpu")) == whole


def _command(words, work, start=""):
    """(exit code, stdout, stderr) of a command in a process without simulator and GPU, which begins with `start`."""
    code = f"{start}\nimport sys\nfrom lrbias.cli import main\nmain(sys.argv[1:])"
    free = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    free.pop("NUMBA_ENABLE_CUDASIM", None)
    words = [sys.executable, "-c", code, *words.split()]
    ended = subprocess.run(words, cwd=work, env=free, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout, ended.stderr


def _one_sentence(said):
    return said.startswith("lrbias: device = 'cuda' is not accepted: ") and said.count("\n") == 1


WITHOUT_EXTRA = "import sys; sys.modules['numba_cuda'] = None"


def test_without_the_extra_the_sentence_says_how_to_install_it(work):
    code, shown, said = _command("run --shape 3 2 --rank 1 --steps 3 --device cuda -o run", work, WITHOUT_EXTRA)
    assert (code, shown) == (2, "")
    assert _one_sentence(said)
    assert "pip install 'lrbias[cuda]'" in said
    assert list(work.iterdir()) == []
    words = "run --shape 3 2 --rank 1 --steps 3 --device auto -o run --no-figures --quiet"
    assert _command(words, work, WITHOUT_EXTRA)[0] == 0
    assert "gpu" not in lb.open(work / "run").info


@needs_extra
def test_without_a_driver_or_a_gpu_the_sentence_says_so(work):
    code, shown, said = _command("run --shape 3 2 --rank 1 --steps 3 --device cuda -o run", work)
    assert (code, shown) == (2, "")
    assert _one_sentence(said)
    assert "no NVIDIA driver is installed here" in said or "there is no NVIDIA GPU here" in said
    assert list(work.iterdir()) == []


def test_help_asks_nothing_of_the_extra(work):
    start = WITHOUT_EXTRA + (
        "; import atexit; atexit.register(lambda: {'numba', 'lrcore.cpu', 'lrcore.cuda'} & set(sys.modules)"
        " and print('kernels were imported'))"
    )
    for words in ("--help", "run --help", "resume --help", "sweep --help"):
        code, shown, said = _command(words, work, start)
        assert (code, said) == (0, "")
        assert "kernels were imported" not in shown
        assert words == "--help" or "cuda" in shown


@on_gpu
def test_too_little_memory_is_one_sentence(work, monkeypatch, capsys):
    from lrcore.cuda import workspace

    monkeypatch.setattr(workspace, "free_memory", lambda: 1000)
    wide = "--shape 30 20 --rank 1 --depth 2 --steps 3 -o run"
    for words in (f"run {wide} --device cuda", f"run {wide} --device cuda --quiet", f"run {wide} --device auto"):
        code, shown, said = call(capsys, words)
        assert (code, shown) == (2, "")
        assert _one_sentence(said)
        assert "(20, 30, 30) needs " in said
    monkeypatch.setattr(workspace, "free_memory", lambda: 100)
    with pytest.raises(lb.InvalidInput, match="device = 'cuda' is not accepted: a network of widths"):
        lb.train(**arguments(), device="cuda", store="run")
    assert list(work.iterdir()) == []
    lb.train(**arguments(steps=4), store="run")
    with pytest.raises(lb.InvalidInput, match="of memory on the device"):
        lb.resume("run", steps=8, device="cuda")
    assert (lb.open("run").step, lb.open("run").settings["device"]) == (4, "cpu")


NAMES = "device = 'gpu' is not accepted: expected cpu, cuda or auto"


def test_unknown_devices_are_refused_by_commands(work, capsys):
    lb.train(**arguments(steps=4), store="run")
    (work / "s.toml").write_text("[run]\nsteps = 3\n[sweep]\nseed = [1, 2]\n")
    for words in ("run", "resume run --steps 8", "sweep s.toml"):
        code, shown, said = call(capsys, f"{words} --device gpu")
        assert (code, shown) == (2, "")
        assert NAMES in said
    assert sorted(path.name for path in work.iterdir()) == ["run", "s.toml"]


@pytest.mark.parametrize("device", ["gpu", "CUDA", "", None, 0, True])
def test_unknown_devices_are_refused_by_functions(device, tmp_path):
    shown = f"^device = {device!r} is not accepted: expected cpu, cuda or auto"
    own = lb.Factorization(TARGET), NETWORK, lb.GD(lr=0.1), 2
    for refused in (
        lambda: lb.train(**arguments(), device=device),
        lambda: lb.ensemble(lb.Completion(TARGET), NETWORK, lb.SGD(lr=0.1), 2, 3, 1, device=device),
        lambda: lb.forecast(*own, device=device),
        lambda: RunOptions(device=device),
        lambda: lb.sweep({**BASE, "device": device}, {"seed": [1]}, tmp_path / "s"),
    ):
        with pytest.raises(lb.InvalidInput, match=shown):
            refused()
    assert list(tmp_path.iterdir()) == []


def test_threads_are_the_cpus(work, capsys):
    sentence = "threads = 2 is not accepted: expected 1 on device = 'cuda'"
    code, _, said = call(capsys, "run --device cuda --threads 2 -o run")
    assert code == 2
    assert sentence in said
    for refused in (
        lambda: lb.train(**arguments(), device="cuda", threads=2, store="run"),
        lambda: lb.sweep({**BASE, "threads": 2}, {"seed": [1]}, "s", device="cuda"),
    ):
        with pytest.raises(lb.InvalidInput, match=sentence):
            refused()
    assert list(work.iterdir()) == []
    lb.train(**arguments(steps=4), threads=2, store="run")
    with pytest.raises(lb.InvalidInput, match=sentence):
        lb.resume("run", steps=8, device="cuda")
    assert lb.open("run").step == 4


def test_a_sweep_is_made_on_one_device(tmp_path):
    with pytest.raises(lb.InvalidInput, match="over = 'device' is not accepted"):
        lb.sweep(BASE, {"device": ["cpu", "cuda"]}, tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


@needs_extra
def test_what_is_made_elsewhere_is_not_looked_for_here(tmp_path, monkeypatch):
    """The executor's machines may have a GPU. Where they have none, the runs of the table say so."""
    from lrcore import cuda

    monkeypatch.setattr(cuda, "missing", lambda: REASONS[1])
    with pytest.raises(lb.RunsFailed, match="device = 'cuda' is not accepted") as raised:
        lb.sweep(BASE, {"seed": range(8)}, tmp_path / "s", executor=Here(), progress=False, device="cuda")
    made = raised.value.sweep
    assert made.counts() == {"failed": 8}
    assert all("device = 'cuda' is not accepted" in row["detail"] for row in made.table())
    done = lb.sweep(BASE, {"seed": range(8)}, tmp_path / "s", executor=Here(), progress=False, device="cpu")
    assert done.counts() == {"finished": 8}


def test_runs_from_before_there_were_devices_go_on(tmp_path):
    run = lb.train(**arguments(steps=4), store=tmp_path / "run")
    config = read_json(run.path / "config.json")
    del config["settings"]["device"]
    write_json(run.path / "config.json", config)
    assert fingerprint(lb.resume(run.path, steps=8)) == fingerprint(lb.train(**arguments()))
