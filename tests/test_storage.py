"""What is kept of a run is the same in a run directory, in the file of a batch and in memory: one set of tests."""

import json

import numpy as np
import pytest

import lrbias as lb
from lrbias.errors import StoreError
from lrbias.problems import restore
from lrbias.runs import Run
from lrbias.storage import (
    LOSSES,
    BatchWriter,
    Entry,
    Log,
    MemoryStorage,
    Quantity,
    RunFolder,
    RunSource,
    RunStorage,
    RunWriter,
    committed,
    losses_quantity,
)
from lrbias.storage import _format as disk
from lrbias.storage._batch import MemberFolder
from lrbias.training import listed_quantities
from runs import fingerprint

WIDTHS = (2, 3, 2)
STEPS = 60
QUANTITIES = [
    losses_quantity(np.dtype("f8")),
    Quantity("product/rank", (), "f8", 4),
    Quantity("product/values", (2,), "f4", 4),
    Quantity("layer/1/table", (2, 3), "f8", 10),
    Quantity("units", (), "i4", 10),
]
OWNER = "0" * 32


def rows_of(quantity, rng=None):
    """Every row that the run has, the same at each call."""
    rng = np.random.default_rng(len(quantity.name))
    rows = rng.normal(size=(STEPS // quantity.interval + 1, *quantity.shape)) * 100
    return rows.astype(quantity.dtype)


ROWS = {quantity.name: rows_of(quantity) for quantity in QUANTITIES}
LAYERS = {step: np.random.default_rng(step).normal(size=12) for step in range(0, STEPS + 1, 20)}


class Kept:
    """A place for a run: `storage` to write to, and `reopened` for what another process would read there."""

    def __init__(self, kind, folder):
        target = lb.from_singular_values((2, 2), [2.0, 1.0], seed=1)
        self.problem = lb.Factorization(target)
        self._kind = kind
        method = lb.GD(lr=0.1)
        settings = {**method.settings(), **lb.Record(every=4).settings(), "checkpoint_every": 20}
        self.config = {
            "settings": {**settings, "steps": STEPS},
            "widths": list(WIDTHS),
            "quantities": listed_quantities(QUANTITIES),
            "functions": [],
            "reduced": None,
            "target_source": None,
            "made_with": {"lrbias": "test"},
        }
        getattr(self, f"_{kind}")(folder, target)

    def _directory(self, folder, target):
        start = {"params": LAYERS[0]}
        self.storage = RunWriter.create(folder / "run", self.config, {}, (target, {}), start, QUANTITIES, STEPS)
        self.reopened = lambda: RunFolder.existing(folder / "run")

    def _memory(self, folder, target):
        self.storage = MemoryStorage(self.config, (target, {}))
        self.storage.write_checkpoint(0, {"params": LAYERS[0]}, WIDTHS)
        self.reopened = lambda: self.storage

    def _batch(self, folder, target):
        """The second one of three runs."""
        listed = json.loads(json.dumps(self.config["quantities"]))
        entries = [Entry(name, self.config["settings"], listed, target) for name in ("a", "b", "c")]
        facts = {"steps": STEPS, "widths": list(WIDTHS), "made_with": self.config["made_with"]}
        start = np.stack([np.zeros(12), LAYERS[0], np.ones(12)])
        batch = BatchWriter(folder / "batch.npz", OWNER, entries, start, facts)
        self.storage = batch.members[1]

        def reopened():
            batch.save()
            return MemberFolder(folder / "batch.npz", folder / "runs" / "b", OWNER)

        self.reopened = reopened

    def run(self):
        source = self.reopened()
        return Run(source, source.config(), restore(*source.data()))

    def write(self, log, first, last):
        """Rows of the steps first … last, as training has them: the loss of the last one with a commit there."""
        for step in range(first, last + 1):
            for quantity in QUANTITIES:
                if step % quantity.interval == 0:
                    log.set(quantity.name, step // quantity.interval, ROWS[quantity.name][step // quantity.interval])

    def commit(self, log, step, status, detail="…"):
        if status == "running":
            self.storage.write_tail(log.tails())
        else:
            log.flush()
        at = step - step % 20
        if status not in ("diverged", "failed"):
            self.storage.write_checkpoint(at, {"params": LAYERS[at]}, WIDTHS)
        self.storage.commit(step, at, status, detail, [4, 10], 1.5)

    def begun(self):
        log = Log(QUANTITIES, self.storage)
        log.restore(0, self.storage.progress())
        return log


@pytest.fixture(params=["directory", "batch", "memory"])
def kept(request, tmp_path, monkeypatch):
    """Blocks of at most eight rows, so that there are several."""
    monkeypatch.setattr(disk, "MOST_CHUNK_ROWS", 8)
    kept = Kept(request.param, tmp_path)
    yield kept
    kept.storage.close()


def counted(source):
    """{quantity: rows that count}."""
    progress = source.progress()
    numbers = {quantity.name: committed(progress, quantity.name, quantity.interval) for quantity in QUANTITIES}
    return {name: source.read(name, 0, count) for name, count in numbers.items()}


def same_up_to(found, step):
    for quantity in QUANTITIES:
        expected = ROWS[quantity.name][: step // quantity.interval + 1]
        assert found[quantity.name].dtype == expected.dtype
        assert np.array_equal(found[quantity.name], expected), quantity.name


def test_each_place_is_a_storage_of_runs(kept):
    assert isinstance(kept.storage, RunStorage)
    assert isinstance(kept.reopened(), RunSource)


def test_nothing_is_there_before_the_first_commit(kept):
    kept.write(kept.begun(), 0, 7)
    source = kept.reopened()
    assert (source.progress()["status"], source.progress()["step"]) == ("new", 0)
    assert source.checkpoint_steps() == [0]
    assert np.array_equal(source.checkpoint(0), LAYERS[0])
    assert [len(rows) for rows in counted(source).values()] == [0] * len(QUANTITIES)


@pytest.mark.parametrize("step", [20, 40])
def test_rows_in_whole_blocks_and_in_the_tail_are_read_back(kept, step):
    log = kept.begun()
    kept.write(log, 0, step)
    kept.commit(log, step, "running")
    same_up_to(counted(kept.reopened()), step)
    assert np.array_equal(kept.reopened().read(LOSSES, 6, 11), ROWS[LOSSES][6:11]), "across two blocks"
    assert np.array_equal(kept.reopened().read(LOSSES, step - 3, step), ROWS[LOSSES][step - 3 : step]), "of the tail"
    assert kept.reopened().read("product/values", 3, 3).shape == (0, 2)


def test_rows_after_a_commit_do_not_count_before_the_next(kept):
    log = kept.begun()
    kept.write(log, 0, 20)
    kept.commit(log, 20, "running")
    kept.write(log, 21, 37)
    same_up_to(counted(kept.reopened()), 20)
    assert kept.run().step == 20


def test_a_run_that_has_ended_has_all_rows(kept):
    log = kept.begun()
    for first, last in ((0, 20), (21, 40), (41, 60)):
        kept.write(log, first, last)
        kept.commit(log, last, "running" if last < STEPS else "finished")
    source = kept.reopened()
    same_up_to(counted(source), STEPS)
    assert source.progress()["status"] == "finished"
    assert source.problems() == []
    assert source.rows_at_once(LOSSES) >= 1


def test_checkpoints_are_read_back(kept):
    log = kept.begun()
    for step in (20, 40):
        kept.write(log, step - 20, step)
        kept.commit(log, step, "running")
    source = kept.reopened()
    assert source.checkpoint_steps() == [0, 20, 40]
    for step in (0, 20, 40):
        assert np.array_equal(source.checkpoint(step), LAYERS[step])
        assert np.array_equal(source.checkpoint_arrays(step)["params"], LAYERS[step])
    source.checkpoint(40)[:] = 0
    source.checkpoint_arrays(40)["params"][:] = 0
    assert np.array_equal(kept.reopened().checkpoint(40), LAYERS[40]), "who reads gets a copy"


def test_progress_says_what_counts(kept):
    log = kept.begun()
    kept.write(log, 0, 40)
    kept.commit(log, 40, "finished", "all steps were made")
    progress = kept.reopened().progress()
    assert (progress["step"], progress["checkpoint"], progress["losses"]) == (40, 40, 41)
    assert (progress["status"], progress["detail"]) == ("finished", "all steps were made")
    assert progress["rows"] == {"4": 11, "10": 5}
    assert progress["elapsed"] >= 0


def test_a_run_that_diverged_keeps_what_was_recorded_before(kept):
    log = kept.begun()
    kept.write(log, 0, 20)
    kept.commit(log, 20, "running")
    kept.write(log, 21, 24)
    kept.commit(log, 24, "diverged", "the loss at step 24 is inf")
    source = kept.reopened()
    assert source.progress()["rows"] == {"4": 6, "10": 3}
    assert source.progress()["losses"] == 25
    assert source.checkpoint_steps() == [0, 20]
    run = kept.run()
    assert (run.status, run.step, run.detail) == ("diverged", 24, "the loss at step 24 is inf")


def test_an_interrupted_run_shows_everything_up_to_its_step(kept):
    """The file of a batch says that it goes on: the sweep does that."""
    log = kept.begun()
    kept.write(log, 0, 20)
    kept.commit(log, 20, "interrupted", "interrupted by a signal; resume continues it")
    same_up_to(counted(kept.reopened()), 20)
    run = kept.run()
    assert run.step == 20
    assert run.status == ("running" if isinstance(kept.reopened(), MemberFolder) else "interrupted")
    assert np.array_equal(run.network.params, LAYERS[20])


def test_rows_go_on_where_a_commit_was(kept):
    log = kept.begun()
    kept.write(log, 0, 20)
    kept.commit(log, 20, "running")
    kept.write(log, 21, 31)
    again = Log(QUANTITIES, kept.storage)
    again.restore(20, kept.storage.progress())
    kept.write(again, 20, STEPS)
    kept.commit(again, STEPS, "finished")
    same_up_to(counted(kept.reopened()), STEPS)


def test_a_run_is_the_same_wherever_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "MOST_CHUNK_ROWS", 8)
    found = []
    for kind in ("directory", "batch", "memory"):
        folder = tmp_path / kind
        folder.mkdir()
        kept = Kept(kind, folder)
        log = kept.begun()
        kept.write(log, 0, STEPS)
        kept.commit(log, STEPS, "finished", "all steps were made")
        run = kept.run()
        facts = {key: value for key, value in run.summary().items() if key not in ("path", "elapsed_s")}
        found.append((fingerprint(run), facts, run.names, run.checkpoints, run.label))
        assert run["loss"].tolist() == ROWS[LOSSES][::4].tolist()
        kept.storage.close()
    assert found[0] == found[1] == found[2]


def test_rows_that_cannot_be_read_do_not_count():
    """Where going back fails, nothing of the block that should have been read is handed on."""

    class Broken(MemoryStorage):
        def __init__(self):
            self.blocks = []

        def read(self, name, first, last):
            raise StoreError("damaged")

        def write_block(self, name, index, block):
            self.blocks.append(block.copy())

    storage = Broken()
    log = Log([Quantity("rank", (), "f8", 1)], storage)
    for row in range(3):
        log.set("rank", row, 1.0)
    with pytest.raises(StoreError):
        log.restore(2)
    log.flush()
    assert storage.blocks == []
