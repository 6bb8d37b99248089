"""What the first edition wrote (formats 1 and 2) opens in the words of today, and goes on.

earlier.tar.xz holds runs that it made: `run`, finished; `killed`, the same at step 20 of 30, with its last rows in the
tail; `sgd`; a sweep of two batches; an ensemble.
"""

import tarfile
from pathlib import Path

import numpy as np
import pytest

import lrbias as lb
from lrbias.experiments import Experiment, read_toml
from lrbias.settings import RENAMED_SETTINGS
from lrbias.storage import _earlier as earlier

METRICS = ["singular_values", "effective_rank", "errors", "distance_from_init", "hessian_min_eigenvalues"]
BASE = {
    "shape": [4, 4],
    "rank": 2,
    "spectral_norm": 2.0,
    "depth": 2,
    "steps": 20,
    "every": 5,
    "checkpoint_every": 10,
    "gamma": 0.8,
    "metrics": ["singular_values", "effective_rank"],
}
OVER = {"lr": [0.01, 0.05], "seed": range(8)}


@pytest.fixture
def folder(tmp_path):
    with tarfile.open(Path(__file__).parent / "earlier.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def _again(run, steps):
    """The run `run`, made by this version."""
    method = lb.GD(
        lr=0.05,
        ridge=0.01,
        lr_schedule=lb.LinearDecay(factor=0.5, stop=20),
        ridge_schedule=lb.PiecewiseConstant(factor=0.5, milestones=[10]),
    )
    start = lb.Network.tied((4, 3, 4), alpha=0.5, seed=1)
    return lb.train(run.problem, start, method, steps, record=lb.Record(every=5, metrics=METRICS), progress=False)


def test_a_run_says_its_settings_in_the_words_of_today(folder):
    run = lb.open(folder / "run")
    assert (run.settings["init"], run.settings["reduction"], run.settings["symmetric_mask"]) == ("tied", "mean", True)
    assert run.settings["lr_schedule"] == {"kind": "linear_decay", "factor": 0.5, "start": 0, "stop": 20}
    assert run.settings["ridge_schedule"] == {"kind": "piecewise_constant", "factor": 0.5, "milestones": [10]}
    assert run.settings["metrics"] == METRICS
    assert run.metrics["distance_from_init"] == [f"{above}distance_from_init" for above in ("", "layer/1/", "layer/2/")]
    assert not set(run.settings) & set(RENAMED_SETTINGS)


def test_its_rows_are_those_of_the_same_run_today(folder):
    run = lb.open(folder / "run")
    again = _again(run, 30)
    assert run.names == again.names
    assert np.array_equal(run.losses, again.losses)
    for name in run.names:
        np.testing.assert_allclose(run[name], again[name], rtol=1e-9, atol=1e-12)
    assert np.array_equal(run.network_at(17).params, again.network_at(17).params)


@pytest.mark.parametrize("name", ["run", "killed"])
def test_a_run_goes_on_under_the_names_of_its_files(folder, name):
    again = _again(lb.open(folder / name), 70)
    run = lb.resume(folder / name, steps=70, progress=False)
    assert np.array_equal(run.losses, again.losses)
    assert run["layer/2/distance_from_init"] == pytest.approx(again["layer/2/distance_from_init"], rel=1e-9)
    assert run["test_error"] == pytest.approx(again["test_error"], rel=1e-9)
    assert lb.open(folder / name).check() == []
    assert (folder / name / "log.zarr" / "movement").is_dir()
    assert not (folder / name / "log.zarr" / "distance_from_init").exists()


def test_rows_in_the_tail_have_the_names_of_today(folder):
    run = lb.open(folder / "killed")
    assert (run.step, run.status) == (20, "running")
    assert len(run["test_error"]) == len(run["layer/1/distance_from_init"]) == 5


def test_intervals_of_metrics_are_translated(folder):
    assert lb.open(folder / "sgd").settings["metrics"] == {"distance_from_init": 5, "errors": 10}


def test_a_sweep_goes_on_with_the_words_of_today(folder):
    before = lb.open_sweep(folder / "sweep")
    assert before.base == BASE
    rows = before.table()
    (folder / "sweep" / "batches" / "0001.npz").unlink()
    assert "missing" in lb.open_sweep(folder / "sweep").statuses().values()
    made = lb.sweep(BASE, OVER, folder / "sweep", workers=1, progress=False)
    timed = [{key: value for key, value in row.items() if key != "elapsed_s"} for row in rows]
    found = [{key: value for key, value in row.items() if key != "elapsed_s"} for row in made.table()]
    assert [row["last_loss"] for row in found] == [row["last_loss"] for row in timed]
    assert [row["run"] for row in found] == [row["run"] for row in timed]
    with pytest.raises(lb.InvalidInput, match=r"another sweep, in which base\.spectral_norm is 2\.0 and not 3\.0"):
        lb.sweep({**BASE, "spectral_norm": 3.0}, OVER, folder / "sweep", progress=False)


def test_a_run_of_its_batch_opens_alone(folder):
    run = lb.open(folder / "sweep" / "runs" / "lr=0.05,seed=3")
    assert (run.settings["spectral_norm"], len(run.losses)) == (2.0, 21)


def test_an_ensemble_goes_on_with_the_words_of_today(folder):
    before = lb.open_ensemble(folder / "ensemble")
    (folder / "ensemble" / "groups" / "00000.npz").unlink()
    ramp = np.arange(1, 5.0)
    problem = lb.Completion(np.outer(ramp, ramp), fraction=0.8, reduction="mean")
    method = lb.SGD(lr=0.01, lr_schedule=lb.SquareWave(factor=0.5, period=10))
    arguments = {"steps": 40, "runs": 3, "every": 10, "store": folder / "ensemble", "progress": False}
    made = lb.ensemble(problem, lb.Network.gaussian((4, 4, 4), 0.5), method, **arguments)
    assert np.array_equal(made.network(2).params, before.network(2).params)
    assert lb.open_ensemble(folder / "ensemble").test_error.shape == before.test_error.shape == (3, 5)


WORDS = [
    (("scale", 2.0), ("spectral_norm", 2.0)),
    (("pairs", True), ("symmetric_mask", True)),
    (("mean", False), ("reduction", "sum")),
    (("init", "identical"), ("init", "scaled_identity")),
    (("init", "gaussian"), ("init", "gaussian")),
    (("metrics", "all"), ("metrics", "all")),
    (("lr_schedule", "steps:factor=0.5,at=3+9"), ("lr_schedule", "piecewise_constant:factor=0.5,milestones=3+9")),
    (("lr_schedule", "anneal:factor=0.1,stop=9,shape=linear"), ("lr_schedule", "linear_decay:factor=0.1,stop=9")),
    (
        ("lr_schedule", "anneal:factor=0.1,stop=9,shape=geometric"),
        ("lr_schedule", "exponential_decay:factor=0.1,stop=9"),
    ),
    (("ridge_schedule", None), ("ridge_schedule", None)),
]


@pytest.mark.parametrize(("there", "here"), WORDS, ids=lambda pair: "=".join(map(str, pair)))
def test_words_are_translated_once_and_those_of_today_stay(there, here):
    assert earlier.current_setting(*there) == here
    assert earlier.current_setting(*here) == here


def test_axes_that_vary_together_are_translated():
    found = earlier.current_axes({"init,alpha": [["identical", 0.1], ["tied", 0.2]], "mean": [True, False]})
    assert found == {"init,alpha": [["scaled_identity", 0.1], ["tied", 0.2]], "reduction": ["mean", "sum"]}


def test_a_function_of_the_users_keeps_its_name():
    assert earlier.current_quantities(["movement", "layer/1/movement"], ["movement"]) == {
        "movement": "movement",
        "layer/1/distance_from_init": "layer/1/movement",
    }
    assert earlier.current_quantities(["movement", "distance_from_init"], ["distance_from_init"]) == {
        "movement": "movement",
        "distance_from_init": "distance_from_init",
    }


def test_an_experiment_file_of_an_earlier_run_repeats_it(folder, tmp_path):
    words = read_toml(folder / "run" / "experiment.toml")
    again = lb.train(**Experiment.from_words(words).arguments(), progress=False, forecast=False)
    assert np.array_equal(again.losses, lb.open(folder / "run").losses)
    (tmp_path / "experiment.toml").write_text((folder / "run" / "experiment.toml").read_text())
    with pytest.raises(lb.InvalidInput, match="outside of a section"):  # beside no run it is a file like any other
        read_toml(tmp_path / "experiment.toml")


REFUSED = {
    "setting": ({"scale": 2.0}, "scale = 2.0 is not accepted (it is called spectral_norm now)"),
    "init": ({"init": "identical"}, "it is called scaled_identity now"),
    "metric": ({"metrics": ["movement"]}, "it is called distance_from_init now"),
    "schedule": ({"lr_schedule": "anneal:factor=0.1,stop=9"}, "it is called exponential_decay now"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_earlier_word_is_refused_with_the_one_of_today(case):
    words, sentence = REFUSED[case]
    with pytest.raises(lb.InvalidInput) as refused:
        Experiment.from_words(words)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("steps = 5", "steps = … below [run]"),  # also the name that a schedule had
        ("scale = 2.0", "spectral_norm = … below [problem.target]"),
        ("mean = true", "reduction = … below [problem]"),
    ],
)
def test_a_line_outside_of_a_section_is_told_where_it_belongs_now(line, place, tmp_path):
    (tmp_path / "a.toml").write_text(line)
    with pytest.raises(lb.InvalidInput) as refused:
        read_toml(tmp_path / "a.toml")
    assert str(refused.value).endswith(f"it stands outside of a section; write {place}.")
