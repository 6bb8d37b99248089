"""Ensembles: every run is the one that is trained alone; nothing is made twice, and what is damaged is named."""

import io
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import lrbias as lb
from lrbias.analysis._intervals import rate_interval, share_interval
from lrbias.steppers import EnsembleStepper
from lrbias.sweeps import _ensembles as ensembles
from lrbias.sweeps._ensemble_data import TEST_ERROR
from lrbias.system._files import lock

ARRAYS = ("ranks", "absorbing", "train_error", "test_error", "diverged", "ended", "values", "lr", "ridge")
LOWER, UPPER = 0.2, 0.3  # with these the ranks of short runs change


def _problem(seed=3, **changes):
    target = lb.from_singular_values((6, 6), [2.0, 1.0], seed=1)
    return lb.Completion(target, **{"fraction": 0.75, "seed": seed, "reduction": "mean", **changes})


def _network(seed=2, widths=(6, 6, 6), gamma=0.7, **changes):
    return lb.Network.gaussian(widths, gamma=gamma, seed=seed, **changes)


def _settings(**changes):
    arguments = {"problem": _problem(), "network": _network(), "method": lb.SGD(lr=0.3, sampling_seed=5), "runs": 9}
    sets = lb.AbsorbingSets(balance=9)  # which small random starts are in
    return {**arguments, "steps": 300, "every": 50, "lower": LOWER, "upper": UPPER, "sets": sets, **changes}


def _many(**changes):
    """Of three groups, the last of which is not full."""
    return _settings(**{"runs": 2 * ensembles.GROUP + 6, **changes})


def _listed(value, i):
    return value[i] if isinstance(value, list) else value


def _alone(i, problem, network, method, steps, every, sets=None, **_):
    """Run i, trained by `lb.train`."""
    problem, network, own = (_listed(value, i) for value in (problem, network, method))
    if own is method:
        own = method.model_copy(update={"sampling_seed": (method.sampling_seed + i) % 2**64})
    numbers = {f"absorbing_{name}": value for name, value in (sets.model_dump() if sets else {}).items()}
    record = lb.Record(every=every, metrics=["singular_values", "errors", "absorbing_rank"], **numbers)
    return lb.train(problem, network, own, steps, record, forecast=False)


def _check(made, settings, runs=(0, 5, 8)):
    """The runs are those that are trained alone: parameters bit for bit, ranks, sets and errors at every record."""
    for i in runs:
        run = _alone(i, **settings)
        assert run.status == "finished"
        assert np.array_equal(made.network(i).params, run.network.params)
        assert made.network(i).widths == run.widths
        assert np.array_equal(made.steps, run.steps)
        assert np.array_equal(made.ranks[i], run.jumps(LOWER, UPPER).ranks)
        assert np.array_equal(made.absorbing[i], run["absorbing_rank"])
        tolerance = {"rel": 1e-6} if made.network(i).dtype == np.float64 else {"rel": 1e-5, "abs": 1e-6}
        assert made.train_error[i] == pytest.approx(run["train_error"], **tolerance)
        assert made.test_error[i] == pytest.approx(run["test_error"], **tolerance)
        assert made.values[i] == pytest.approx(run["product/singular_values"][-1], rel=1e-4, abs=1e-6)
        own = made.lr[i], made.ridge[i], made.sampling_seed[i]
        assert own == (run.settings["lr"], run.settings.get("ridge", 0), run.settings.get("sampling_seed", 0))


def _arrays(made):
    return {**{name: getattr(made, name) for name in ARRAYS}, "seed": made.sampling_seed, "params": made._params}


def _same(one, other):
    np.testing.assert_equal(_arrays(one), _arrays(other))


SCHEDULED = {
    "lr": 0.4,
    "ridge": 0.02,
    "lr_schedule": {"kind": "piecewise_constant", "factor": 0.5, "milestones": [75, 210]},
    "ridge_schedule": {"kind": "exponential_decay", "factor": 0.1, "start": 20, "stop": 280},
}
SETTINGS = {
    "plain": dict,
    "deep": lambda: {"network": _network(widths=(6, 7, 5, 6)), "sets": lb.AbsorbingSets(balance=9, alpha=1, slack=0.1)},
    "float32": lambda: {"network": _network(dtype="float32"), "method": lb.SGD(lr=0.2, batch=3, replacement=False)},
    "schedules": lambda: {"method": lb.SGD(**SCHEDULED)},
    "sum": lambda: {"problem": _problem(reduction="sum"), "method": lb.SGD(lr=0.01, sampling_seed=2**64 - 3)},
    "one layer": lambda: {"network": _network(widths=(6, 6))},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_runs_of_an_ensemble_are_those_made_alone(name):
    settings = _settings(**SETTINGS[name]())
    made = lb.ensemble(**settings)
    _check(made, settings)
    assert made.ranks.shape == (9, 7)
    assert made.down.sum() + made.up.sum() > 0
    assert len(np.unique(made.absorbing)) > 1
    assert len({made.network(i).params.tobytes() for i in range(9)}) == 9
    assert not made.diverged.any()


LISTS = {
    "problem": lambda: [_problem(seed) for seed in range(9)],
    "network": lambda: [_network(seed) for seed in range(9)],
    "method": lambda: [lb.SGD(lr=0.1 + 0.02 * i, ridge=0.002 * i, sampling_seed=7 * i + 1) for i in range(9)],
}


@pytest.mark.parametrize("names", [("problem",), ("network",), ("method",), tuple(LISTS)], ids="+".join)
def test_runs_can_have_problems_starts_and_methods_of_their_own(names):
    settings = _settings(runs=None, **{name: LISTS[name]() for name in names})
    made = lb.ensemble(**settings)
    assert len(made) == 9
    _check(made, settings)


def test_lists_go_on_in_the_next_group():
    """Run 64 is the first of the second group."""
    problems = [_problem(seed) for seed in range(66)]
    networks = [_network(seed) for seed in range(66)]
    methods = [lb.SGD(lr=0.2 + 0.002 * i, sampling_seed=i) for i in range(66)]
    settings = _settings(runs=None, problem=problems, network=networks, method=methods)
    _check(lb.ensemble(**settings), settings, [63, 64, 65])


def test_without_hidden_entries_there_is_no_test_error():
    made = lb.ensemble(**_settings(problem=_problem(fraction=1.0)))
    assert np.isnan(made.test_error).all()
    assert np.isfinite(made.train_error).all()


def test_groups_and_threads_change_nothing(monkeypatch):
    whole = lb.ensemble(**_many(), threads=1)
    both = threading.Barrier(2)  # which is broken, and the call with it, unless two threads come
    make = EnsembleStepper.step
    met = {threading.get_ident()}

    def meet(group, losses, step):
        if threading.get_ident() not in met:
            met.add(threading.get_ident())
            both.wait(60)
        return make(group, losses, step)

    monkeypatch.setattr(EnsembleStepper, "step", meet)
    _same(lb.ensemble(**_many(), threads=2), whole)
    assert len(met) == 3
    monkeypatch.undo()
    _check(whole, _many(), [63, 64, 133])
    part = lb.ensemble(**_settings(method=lb.SGD(lr=0.3, sampling_seed=5 + 60)))
    for name in ("ranks", "absorbing", "sampling_seed", "_params"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)[60:69])


def _one_diverges(lr):
    methods = [lb.SGD(lr=0.3, sampling_seed=seed) for seed in range(9)]
    methods[4] = lb.SGD(lr=lr, sampling_seed=4)
    return _settings(runs=None, method=methods, steps=60, every=5)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("widths", [(6, 6), (6, 6, 6), (6, 6, 6, 6)], ids=str)
def test_a_run_that_diverges_is_a_row_and_the_others_are_unaffected(widths, dtype):
    """On the way everything may be too large for its squares."""
    network = _network(widths=widths, dtype=dtype)
    lr = 9 if len(widths) > 2 else {"float64": 1e150, "float32": 1e19}[dtype]
    made = lb.ensemble(**{**_one_diverges(lr), "network": network})
    sound = lb.ensemble(**{**_one_diverges(0.3), "network": network})
    assert list(np.flatnonzero(made.diverged)) == [4]
    ended = made.ended[4]
    assert 0 < ended <= 60
    assert list(made.counted[4]) == [step < ended for step in made.steps]
    after = made.steps >= ended
    for errors in (made.train_error, made.test_error):
        assert np.isnan(errors[4, after]).all()
        assert not np.isnan(errors[4, 0])
    assert set(made.ranks[4, after]) == {made.ranks[4, ~after][-1]}
    assert (made.absorbing[4, after] == -1).all()
    assert (made.values[4] == 0).all()
    others = np.arange(9) != 4
    for name, array in _arrays(made).items():
        np.testing.assert_equal(array[others], _arrays(sound)[name][others])


@pytest.mark.parametrize(("steps", "every"), [(7, 1), (8, 1), (9, 1), (12, 1), (12, 4), (20, 5)])
def test_a_run_diverges_at_the_record_at_which_it_does_so_alone(steps, every):
    """Also at the very last one, whose loss no further step asks for."""
    settings = _settings(network=_network(widths=(6,) * 4), method=lb.SGD(lr=30.0), steps=steps, every=every)
    made = lb.ensemble(**settings)
    for i in range(9):
        run = _alone(i, **settings)
        assert made.diverged[i] == (run.status == "diverged")
        assert made.ended[i] == -(-run.step // every) * every
        assert made.counted[i].sum() == len(run["train_error"])
        assert np.isnan(made.train_error[i]).sum() == steps // every + 1 - len(run["train_error"])
    assert made.diverged.any()


def test_a_second_call_reads_what_the_first_one_made(tmp_path, monkeypatch):
    made = lb.ensemble(**_many(), store=tmp_path / "e")
    _same(made, lb.ensemble(**_many()))

    def refuse(*arguments):
        raise AssertionError("made again")

    monkeypatch.setattr(ensembles, "_make_groups", refuse)
    _same(lb.ensemble(**_many(), store=tmp_path / "e"), made)
    opened = lb.open_ensemble(tmp_path / "e")
    _same(opened, made)
    assert opened.path == made.path == tmp_path / "e"
    assert repr(opened) == repr(made)


def test_a_group_that_is_gone_is_made_again_alone_with_the_same_bits(tmp_path, monkeypatch):
    made = lb.ensemble(**_many(), store=tmp_path / "e")
    files = sorted((tmp_path / "e/groups").iterdir())
    assert len(files) == 3
    files[1].unlink()
    with pytest.raises(lb.StoreError, match="70 of 134 runs"):
        lb.open_ensemble(tmp_path / "e")
    make = ensembles._make_groups
    parts = []

    def note(whole, chosen, *rest):
        parts.extend(part for part, _ in chosen.values())
        return make(whole, chosen, *rest)

    monkeypatch.setattr(ensembles, "_make_groups", note)
    _same(lb.ensemble(**_many(), store=tmp_path / "e"), made)
    assert parts == [range(64, 128)]
    _same(lb.open_ensemble(tmp_path / "e"), made)


def test_a_group_of_another_ensemble_is_named(tmp_path):
    for name, steps in (("a", 50), ("b", 100)):
        lb.ensemble(**_settings(steps=steps), store=tmp_path / name)
    (tmp_path / "b/groups/00000.npz").write_bytes((tmp_path / "a/groups/00000.npz").read_bytes())
    with pytest.raises(lb.StoreError, match=r"00000\.npz belongs to another ensemble; remove it"):
        lb.open_ensemble(tmp_path / "b")


@pytest.mark.parametrize("damage", [lambda data: data[:-500], lambda data: b"", lambda data: _flipped(data)])
def test_a_damaged_group_is_named(damage, tmp_path):
    lb.ensemble(**_many(), store=tmp_path / "e")
    file = tmp_path / "e/groups/00001.npz"
    file.write_bytes(damage(file.read_bytes()))
    for read in (lambda: lb.open_ensemble(tmp_path / "e"), lambda: lb.ensemble(**_many(), store=tmp_path / "e")):
        with pytest.raises(lb.StoreError, match=r"00001\.npz is damaged .*; remove it"):
            read()


def _flipped(data):
    """One bit of the parameters is another one."""
    with np.load(io.BytesIO(data)) as archive:
        place = data.index(archive["params"].tobytes())
    return data[: place + 100] + bytes([data[place + 100] ^ 1]) + data[place + 101 :]


OTHERS = {
    "steps": {"steps": 350},
    "every": {"every": 100},
    "runs": {"runs": 8},
    "lr": {"method": lb.SGD(lr=0.31, sampling_seed=5)},
    "ridge": {"method": lb.SGD(lr=0.3, sampling_seed=5, ridge=0.1)},
    "sampling_seed": {"method": lb.SGD(lr=0.3, sampling_seed=6)},
    "shared": {"method": lb.SGD(lr=0.3, sampling_seed=5, batch=2)},
    "lower": {"lower": 0.1},
    "upper": {"upper": 0.4},
    "sets": {"sets": lb.AbsorbingSets(slack=0.4)},
}


def test_another_ensemble_in_the_folder_is_refused_with_what_differs(tmp_path):
    lb.ensemble(**_settings(), store=tmp_path / "e")
    others = {
        **{f"{name} ": changes for name, changes in OTHERS.items()},
        "data": {"network": _network(seed=3)},
        "data ": {"problem": _problem(seed=4)},
        "dtype": {"network": _network(dtype="float32")},
        "widths": {"network": _network(widths=(6, 5, 6))},
    }
    for name, changes in others.items():
        with pytest.raises(lb.InvalidInput, match=f"^store = .*another ensemble, whose {name.strip()} is different"):
            lb.ensemble(**_settings(**changes), store=tmp_path / "e")


def test_equal_settings_are_the_same_ensemble_whoever_made_the_objects(tmp_path):
    """Also with a schedule that has a list in it, and numbers of NumPy's."""
    first = _settings(method=lb.SGD(**SCHEDULED), lower=LOWER, runs=3)
    again = _settings(method=lb.SGD(**SCHEDULED), lower=np.float64(LOWER), runs=np.int64(3), steps=np.int32(300))
    _same(lb.ensemble(**first, store=tmp_path / "e"), lb.ensemble(**again, store=str(tmp_path / "e")))


def test_a_folder_that_is_something_else_or_in_use_is_refused(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(lb.InvalidInput, match=r"^store = .*does not exist yet"):
        lb.ensemble(**_settings(), store=tmp_path / "taken")
    with pytest.raises(lb.InvalidInput, match=r"^path = .*the folder of an ensemble"):
        lb.open_ensemble(tmp_path / "taken")
    lb.ensemble(**_settings(), store=tmp_path / "above/e")
    held = lock(tmp_path / "above/e/lock", "it")
    with pytest.raises(lb.StoreError, match="is being written by another process"):
        lb.ensemble(**_settings(), store=tmp_path / "above/e")
    held.release()
    assert len(lb.ensemble(**_settings(), store=tmp_path / "above/e")) == 9


def test_the_folder_holds_what_was_trained(tmp_path):
    settings = _settings(runs=None, network=LISTS["network"](), problem=[_problem(seed % 2) for seed in range(9)])
    lb.ensemble(**settings, store=tmp_path / "e")
    with np.load(tmp_path / "e/data.npz") as data:
        for i in range(9):
            problem = settings["problem"][i]
            assert np.array_equal(data["targets"][data["problem_of"][i]], problem.target)
            assert np.array_equal(data["masks"][data["problem_of"][i]], problem.mask)
            assert np.array_equal(data["starts"][data["start_of"][i]], settings["network"][i].params)


def wait_after_the_first_group(store):
    """The call of the test below, each group of which waits for a signal once it was made; in a process of its own."""
    make = ensembles._make_groups

    def waiting(whole, chosen, own, device, received, stop):
        found = make(whole, chosen, own, device, received, stop)
        while not received:
            select.select([], [], [], 0.01)
        return found

    ensembles._make_groups = waiting
    lb.ensemble(**_many(), store=store, threads=1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_ensemble_that_was_interrupted_goes_on_with_the_same_call(number, tmp_path):
    words = [sys.executable, "-c", "import sys, test_ensemble as t; t.wait_after_the_first_group(sys.argv[1])"]
    folder = Path(__file__).parent
    with subprocess.Popen([*words, tmp_path / "e"], cwd=folder, stderr=subprocess.PIPE, text=True) as child:
        while not (tmp_path / "e/groups/00000.npz").exists() and child.poll() is None:
            select.select([], [], [], 0.01)
        child.send_signal(number)
        _, said = child.communicate(timeout=60)
    assert "Interrupted: interrupted; " in said
    assert "holds 1 of 3 groups, and the same call goes on" in said
    before = (tmp_path / "e/groups/00000.npz").stat().st_mtime_ns
    assert os.listdir(tmp_path / "e/groups") == ["00000.npz"]
    _same(lb.ensemble(**_many(), store=tmp_path / "e"), lb.ensemble(**_many()))
    assert (tmp_path / "e/groups/00000.npz").stat().st_mtime_ns == before


def test_progress_is_shown_when_it_is_wanted(capsys):
    lb.ensemble(**_many(steps=50), progress=True)
    assert "run 134 of 134" in capsys.readouterr().err
    lb.ensemble(**_many(steps=50))
    assert capsys.readouterr().err == ""


def _by_hand():
    """Three runs with records at 0, 10, …, 40; the second one diverged between 20 and 30."""
    document = {"steps": 40, "every": 10, "widths": [4, 5, 6], "runs": 3}
    numbers = {"lr": [0.1] * 3, "ridge": [0.0] * 3, "sampling_seed": [0, 1, 2**64 - 1]}
    nan = np.nan
    groups = [
        {
            "ranks": np.array([[4, 4, 1, 1, 2], [2, 1, 1, 1, 1]], np.int16),
            "absorbing": np.array([[2, 1, 1, -1, 1], [1, 0, 1, -1, -1]], np.int16),
            "train_error": np.array([[1, 1, 1, 1, 1], [1, 2, 3, nan, nan]], np.float32),
            TEST_ERROR: np.ones((2, 5), np.float32),
            "diverged": np.array([False, True]),
            "ended": np.array([40, 30]),
            "values": np.ones((2, 4)),
            "params": np.arange(100.0).reshape(2, 50),
        },
        {
            "ranks": np.full((1, 5), 3, np.int16),
            "absorbing": np.array([[3, 3, 2, 3, 3]], np.int16),
            "train_error": np.ones((1, 5), np.float32),
            TEST_ERROR: np.ones((1, 5), np.float32),
            "diverged": np.array([False]),
            "ended": np.array([40]),
            "values": np.ones((1, 4)),
            "params": np.zeros((1, 50)),
        },
    ]
    return lb.Ensemble({**document, **numbers}, [{**group, "seconds": np.array([1.5])} for group in groups])


def test_jumps_of_an_ensemble_count_directions_of_runs_that_do_not_diverge():
    made = _by_hand()
    assert len(made) == 3
    assert list(made.steps) == [0, 10, 20, 30, 40]
    assert list(made.down) == [3, 0, 0]
    assert list(made.up) == [1, 0, 0]


def test_the_time_is_that_of_all_groups():
    assert _by_hand().seconds == 3.0


def test_records_count_until_a_run_diverges():
    assert [int(row.sum()) for row in _by_hand().counted] == [5, 3, 5]


def test_the_first_record_of_a_rank_or_less():
    made = _by_hand()
    assert [list(made.reached(rank)) for rank in (0, 1, 2, 3)] == [[-1] * 3, [20, 10, -1], [20, 0, -1], [20, 0, 0]]


def test_entries_into_and_exits_from_the_sets():
    """Sets contain those before them; to be in none is to have left, and so is to diverge."""
    made = _by_hand()
    assert [list(made.entered(rank)) for rank in (0, 1, 2)] == [[0, 1, 0], [1, 1, 0], [1, 1, 1]]
    assert [list(made.exits(rank)) for rank in (0, 1, 2, 3)] == [[0, 1, 0], [1, 1, 0], [1, 1, 1], [1, 1, 0]]
    assert list(made.inside(2)[0]) == [True, True, True, False, True]


def test_the_table_has_rates_per_million_steps_with_intervals():
    facts = _by_hand().table()
    time = 80e-6  # of the two that did not diverge
    assert facts["down"] == {"count": 3, "rate": pytest.approx(3 / time), "interval": rate_interval(3, time)}
    assert facts["up"] == {"count": 1, "rate": pytest.approx(1 / time), "interval": rate_interval(1, time)}
    inside = 50e-6  # two records of the first run from which it was seen to go on, three of the second
    assert facts["exits"]["count"] == 2
    assert facts["exits"]["rate"] == pytest.approx(2 / inside)
    assert facts["exits"]["interval"] == pytest.approx(rate_interval(2, inside))
    assert facts["reached"] == {"rank": 1, "runs": 1, "share": share_interval(1, 3)}
    assert facts["entered"] == {"set": "B_1", "runs": 2}
    assert (facts["runs"], facts["steps"], facts["diverged"]) == (3, 40, 1)
    assert _by_hand().table(rank=3)["reached"]["runs"] == 2


def test_the_rate_of_first_jumps_counts_a_run_until_its_first_one():
    """It is at 20; the third run has none in its 40 steps; the second one, and the third later, diverged."""
    made = _by_hand()
    assert made.jump_rate() == {"count": 1, "rate": pytest.approx(1 / 60e-6), "interval": rate_interval(1, 60e-6)}
    made.diverged[2], made.ended[2] = True, 20
    assert made.jump_rate()["rate"] == pytest.approx(1 / 20e-6)
    made.ranks[:] = 3
    assert made.jump_rate() == {"count": 0, "rate": 0, "interval": rate_interval(0, 40e-6)}


def test_without_time_in_a_set_there_is_no_rate_of_exits():
    made = _by_hand()
    made.absorbing[:] = -1
    assert made.table()["exits"] == {"count": 0, "rate": None, "interval": (0.0, float("inf"))}
    assert "exits 0, — (95 %: 0 to inf)" in repr(made)


def test_an_ensemble_says_what_it_found():
    said = repr(_by_hand())
    assert "3 runs of 40 steps, widths 4 → 5 → 6, 1 diverged" in said
    assert "down  3, 3.75e+04 (95 %: 7.73e+03 to 1.1e+05)" in said
    assert "B_1 entered by 2 runs, exits 2, 4e+04" in said


def test_the_network_of_a_run_is_a_copy():
    made = _by_hand()
    network = made.network(1)
    assert np.array_equal(network.params, np.arange(50.0, 100))
    assert network.widths == (4, 5, 6)
    network.params[:] = 0
    assert made.network(1).params.any()


BAD = {
    "steps": ({"steps": 301}, "every = 50 .* a divisor of steps = 301"),
    "no steps": ({"steps": 0}, "steps = 0"),
    "every": ({"every": 0}, "every = 0 .* at least 1"),
    "runs": ({"runs": 0}, "runs = 0 .* at least 1"),
    "no runs": ({"runs": None}, "runs = None .* at least 1"),
    "lengths": ({"runs": None, "problem": 3, "method": 2}, "method = <a list of 2> .* a list of 3"),
    "runs and list": ({"runs": 4, "network": 3}, "network = <a list of 3> .* a list of 4"),
    "empty": ({"runs": None, "problem": 0}, "runs = 0 .* at least 1"),
    "wide": ({"network": lambda: _network(widths=(6, 65, 6))}, "widths = .* at most 64 neurons"),
    "other shape": ({"network": lambda: _network(widths=(6, 5))}, "widths = .* shape of the target"),
    "batches": ({"method": lambda: [lb.SGD(lr=0.1), lb.SGD(lr=0.1, batch=2)]}, "method = .* only"),
    "schedules": ({"method": lambda: [lb.SGD(lr=0.1), lb.SGD(**SCHEDULED)]}, "method = .* only"),
    "batch": ({"method": lambda: lb.SGD(lr=0.1, batch=28)}, "batch = 28 .* at most 27, the number of observed"),
    "whole": ({"problem": lambda: lb.Factorization(np.eye(6))}, r"problem = Factorization.* a Completion"),
    "descent": ({"method": lambda: lb.GD(lr=0.1)}, "method = GD.* an SGD"),
    "nothing": ({"network": lambda: None}, "network = None .* a Network"),
    "entries": ({"problem": lambda: [_problem(), _problem(fraction=0.8)]}, "problem = .* problems like the first"),
    "means": ({"problem": lambda: [_problem(), _problem(reduction="sum")]}, "problem = .* problems like the first"),
    "unknown": ({"problem": lambda: _unknown()}, "problem = .* hidden entries are known"),
    "widths": ({"network": lambda: [_network(), _network(widths=(6, 5, 6))]}, "network = .* networks like the first"),
    "dtypes": ({"network": lambda: [_network(), _network(dtype="float32")]}, "network = .* networks like the first"),
    "thresholds": ({"lower": 0.4}, "lower = 0.4 .* at most upper = 0.3"),
    "upper": ({"upper": 1}, "upper = 1.* less than 1"),
    "sets": ({"sets": 5}, "sets = 5 .* an AbsorbingSets"),
    "threads": ({"threads": 0}, "threads = 0 .* from 1 to 256"),
    "store": ({"store": ""}, "store = "),
}


def _unknown():
    target = np.ones((6, 6))
    np.fill_diagonal(target, np.nan)
    return lb.Completion(target)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changes, said = BAD[name]
    settings = {"store": tmp_path / "e", **_settings(runs=None if name in ("batches", "schedules") else 2), **changes}
    for key in LISTS:
        if isinstance(settings[key], int):
            settings[key] = LISTS[key]()[: settings[key]]
        elif callable(settings[key]):
            settings[key] = settings[key]()
    with pytest.raises(lb.InvalidInput, match=f"^{said}") as caught:
        lb.ensemble(**settings)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
    assert list(tmp_path.iterdir()) == []
