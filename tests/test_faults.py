"""A disk that fails, at every operation in turn: one sentence, no draft left, and what was committed still reads."""

from concurrent.futures import ThreadPoolExecutor

import pytest

import faults
import lrbias as lb
from lrbias.cli._app import _expected
from runs import fingerprint, settings

SMALL = {"shape": [4, 4], "rank": 2, "spectral_norm": 3.0, "gamma": 1.0, "steps": 20, "checkpoint_every": 10}
SMALL["metrics"] = ["singular_values"]


def run(folder):
    """A run that is made, or resumed, below a folder that need not be there."""
    path = folder / "above/run"
    if path.exists():
        return [fingerprint(lb.resume(path, steps=60))]
    return [fingerprint(lb.train(**settings(60, checkpoint_every=30), store=path))]


def _swept(folder, over):
    with ThreadPoolExecutor(1) as executor:
        made = lb.sweep(SMALL, over, folder / "above/sweep", executor=executor, progress=False)
    if "failed" in made.counts():
        raise lb.RunsFailed(next(iter(made._failures.values())), made)
    return [fingerprint(made[name]) for name in made.names]


def sweep(folder):
    return _swept(folder, {"lr": [0.01, 0.02]})


def batch(folder):
    return _swept(folder, {"seed": range(8)})


def ensemble(folder):
    problem = lb.Completion(lb.from_singular_values((4, 4), [10.0], seed=0), entries=10, reduction="mean")
    start = lb.Network.gaussian(widths=(4,) * 3, gamma=0.5, seed=0)
    many = lb.ensemble(problem, start, lb.SGD(lr=0.1), 100, runs=66, every=50, store=folder / "above/many", threads=1)
    return many.ranks.tolist()


def tracker(folder):
    import torch

    model = torch.nn.Linear(4, 3)
    torch.nn.init.ones_(model.weight)
    with lb.nn.RankTracker(model, store=folder / "above/tracked", resume=True) as watching:
        while watching.steps < 3:
            watching.step()
        watching.commit()
    run = lb.open(folder / "above/tracked")
    return run["singular_values"].tolist()


def _try(work, folder, limit, error):
    """One operation fails while it works; then it works again. Returns whether the failure was told of."""
    with faults.failing_at(folder, limit, error) as disk:
        raised = _raised(work, folder)
    if len(disk.done) < limit:  # a tracker commits by the clock
        return False
    failed = disk.done[limit - 1]
    if raised is not None:
        assert _expected(raised) in (1, 2), (failed, raised)
        assert "\n" not in str(raised)
    drafts = [str(entry) for entry in folder.rglob("*") if entry.name.endswith((".new", ".partial"))]
    assert not drafts, (failed, drafts)
    for config in folder.rglob("config.json"):
        assert lb.open(config.parent).check() == [], failed
    return raised is not None


def _raised(work, folder):
    try:
        work(folder)
    except Exception as error:
        return error
    return None


WORKS = [run, sweep, batch, ensemble, tracker]


def _operations(work, folder):
    folder.mkdir()
    with faults.failing_at(folder) as disk:
        expected = work(folder)
    return len(disk.done), expected


def _fail_at(work, times, folder):
    """Fail at so many operations, all over the work, or at each (None): (how many there are, how often it was told)."""
    count, expected = _operations(work, folder / "whole")
    told = 0
    for limit in range(1, count + 1, 1 if times is None else max(1, count // times)):
        place = folder / f"{limit}"
        place.mkdir()
        told += _try(work, place, limit, faults.ERRORS[limit % len(faults.ERRORS)])
        assert work(place) == expected, f"after the failure of operation {limit} of {count}"
    return count, told


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_a_disk_that_fails_once(work, tmp_path):
    _, told = _fail_at(work, 6, tmp_path)
    assert told > 0


@pytest.mark.evidence
@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_a_disk_that_fails_at_every_operation(work, tmp_path):
    count, told = _fail_at(work, None, tmp_path)
    print(f"\n{work.__name__}: {count} operations failed, {told} of them told in a sentence; the others did no harm")


@pytest.mark.parametrize("work", [run, sweep, ensemble], ids=lambda work: work.__name__)
def test_what_appears_is_synced_into_what_holds_it(work, tmp_path):
    """By the strict model of a power cut a name lasts when its folder is synced after it was made."""
    (tmp_path / "disk").mkdir()
    with faults.failing_at(tmp_path) as disk:
        work(tmp_path / "disk")
    names = [(name, path) for name, path in disk.done if name in ("os.mkdir", "os.rename", "sync folder", "os.replace")]
    for place, (name, path) in enumerate(names):
        if name == "sync folder":
            continue
        above = path.rpartition("/")[0] or "."
        assert ("sync folder", above) in names[place:], (name, path)


def test_a_run_whose_folder_is_removed_comes_not_back_in_part(tmp_path):
    from shutil import rmtree

    def remove(network):
        asked.append(network)
        if len(asked) == 40:
            rmtree(tmp_path / "run")
        return 0.0

    asked = []
    record = lb.Record(every=1, metrics={"singular_values": 1, "mine": remove})
    with pytest.raises(lb.StoreError, match="run was removed in the meantime") as told:
        lb.train(**settings(record=record), store=tmp_path / "run")
    assert "lrbias resume" not in str(told.value)
    assert list(tmp_path.iterdir()) == []
