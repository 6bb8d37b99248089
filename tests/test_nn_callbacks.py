"""The tracker in other people's loops: their steps, what they log, their checkpoints, and how they end."""

import logging
import shutil
import struct
import sys

import numpy as np
import pytest
import torch
from torch import nn

import lrbias as lb

torch.set_num_threads(1)

LIGHTNING_SAYS = (  # advice about speed, and about a loader that cannot be resumed within an epoch: ours need not be
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    # Lightning itself uses what PyTorch is about to remove
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),
)
INPUTS = torch.randn(32, 6, generator=torch.Generator().manual_seed(5))
LABELS = (INPUTS[:, 0] > 0).long()
BATCHES = 6  # in an epoch


class Stopped(Exception):
    """The training ends in the middle."""


def same_rows(run, expected):
    assert run.step == expected.step
    for name in expected.names:
        np.testing.assert_array_equal(run[name], expected[name])


def norms_of(model):
    return [torch.linalg.matrix_norm(matrix.value()).item() for matrix in lb.nn.weight_matrices(model)]


def network():
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # before transformers is imported
    monkeypatch.setattr(logging.getLogger("lightning.pytorch.utilities.rank_zero"), "level", logging.ERROR)


# ── Lightning ───────────────────────────────────────────────────────────────────────────────────────────────


def lightning_module(stop_at=None, **others):
    """A module that draws its batches by its own step, keeps what it logged and its norms, and may stop."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network()
            self.norms = {}
            self.logged = {}
            self.validated = {}
            self.norms[0] = norms_of(self)

        def training_step(self, batch, batch_idx):
            if self.global_step == stop_at:
                raise Stopped
            first = self.global_step % 4 * 8
            logits = self.network(INPUTS[first : first + 8])
            loss = nn.functional.cross_entropy(logits, LABELS[first : first + 8])
            self.log("loss", loss)
            self.logged[self.global_step + 1] = loss.item()
            return loss

        def validation_step(self, batch, batch_idx):
            accuracy = (self.network(INPUTS).argmax(1) == LABELS).float().mean()
            self.log("val_accuracy", accuracy)
            self.validated[self.global_step] = accuracy.item()

        def on_train_batch_end(self, outputs, batch, batch_idx):
            self.norms[self.global_step] = norms_of(self)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)

        def train_dataloader(self):
            return torch.utils.data.DataLoader(range(BATCHES))

        def val_dataloader(self):
            return torch.utils.data.DataLoader(range(1))

    return type("Mine", (Module,), others)()


def lightning_fit(module, callbacks, folder, epochs=2, **others):
    """The Trainer after it has fitted `module`; ckpt_path among the others goes to `fit`."""
    import lightning

    ckpt = others.pop("ckpt_path", None)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    others = {"max_epochs": epochs, "default_root_dir": folder, "enable_checkpointing": False} | others
    trainer = lightning.Trainer(**quiet, **others, callbacks=callbacks, num_sanity_val_steps=1)
    trainer.fit(module, ckpt_path=ckpt)
    return trainer


def checkpoints(folder):
    """Two callbacks: checkpoints after every second batch, and at the end of each epoch."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    after_epochs = ModelCheckpoint(folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    return ModelCheckpoint(folder, "{step}", every_n_train_steps=2, save_top_k=-1), after_epochs


def lightning_only(test):
    for mark in LIGHTNING_SAYS:
        test = mark(test)
    return test


@lightning_only
def test_lightning_counts_steps_of_the_optimizer_and_each_record_has_what_was_logged_about_it(tmp_path):
    module = lightning_module()
    tracker = lb.nn.RankTracker(module, store=tmp_path / "run", scalars=("loss", "val_accuracy"))
    often = {"accumulate_grad_batches": 2, "val_check_interval": BATCHES - 2}  # before the last step of an epoch
    trainer = lightning_fit(module, [tracker.lightning()], tmp_path, **often)
    run = lb.open(tmp_path / "run")
    steps = 2 * BATCHES // 2
    assert (run.status, run.step, trainer.global_step) == ("finished", steps, steps)
    np.testing.assert_allclose(run["layers/norm"], [module.norms[step] for step in range(steps + 1)], rtol=1e-6)
    np.testing.assert_array_equal(run["loss"][1:], [module.logged[step] for step in range(1, steps + 1)])
    del module.validated[0]  # a sanity check
    assert list(module.validated) == [steps // 2 - 1, steps - 1]
    expected = [module.validated.get(step, np.nan) for step in range(steps + 1)]
    np.testing.assert_array_equal(run["val_accuracy"], expected)


@lightning_only
def test_lightning_counts_epochs_where_those_are_the_unit():
    module = lightning_module()
    tracker = lb.nn.RankTracker(module, unit="epoch", scalars=("loss", "val_accuracy"))
    lightning_fit(module, [tracker.lightning()], None, epochs=3)
    run = tracker.run
    assert (run.status, run.step, run.unit) == ("finished", 3, "epoch")
    np.testing.assert_allclose(run["layers/norm"], [module.norms[BATCHES * epoch] for epoch in range(4)], rtol=1e-6)
    np.testing.assert_array_equal(run["loss"][1:], [module.logged[BATCHES * epoch] for epoch in (1, 2, 3)])
    assert np.isfinite(run["val_accuracy"][1:]).all()


@lightning_only
def test_lightning_counts_the_steps_of_all_optimizers():
    """Two steps in a batch, seen at its end."""

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.network(INPUTS), LABELS)
            self.manual_backward(loss)
            optimizer.step()
        self.log("loss", loss)

    def configure_optimizers(self):
        return [torch.optim.SGD(self.network[place].parameters(), 0.1) for place in (0, 2)]

    module = lightning_module(training_step=training_step, configure_optimizers=configure_optimizers)
    module.automatic_optimization = False
    tracker = lb.nn.RankTracker(module, every=3)
    trainer = lightning_fit(module, [tracker.lightning()], None)
    run = tracker.run
    assert run.step == trainer.global_step == 4 * BATCHES
    assert np.isfinite(run["loss"][1:]).all()
    ends = [-(-step // 2) * 2 for step in run.steps_of("loss")]
    np.testing.assert_allclose(run["layers/norm"], [module.norms[step] for step in ends], rtol=1e-6)


@lightning_only
@pytest.mark.parametrize(("unit", "every"), [("step", 4), ("epoch", 1)])
def test_lightning_goes_on_from_its_own_checkpoint(tmp_path, unit, every):
    settings = {"unit": unit, "every": every, "scalars": ("loss", "val_accuracy")}
    whole = lb.nn.RankTracker(module := lightning_module(), **settings)
    lightning_fit(module, [whole.lightning()], tmp_path, epochs=3)
    store = tmp_path / "run"
    saved = tmp_path / "checkpoints"
    module = lightning_module(stop_at=2 * BATCHES + 1)
    tracker = lb.nn.RankTracker(module, store=store, **settings)
    with pytest.raises(Stopped):
        lightning_fit(module, [tracker.lightning(), *checkpoints(saved)], tmp_path, 3, enable_checkpointing=True)
    run = lb.open(store)
    assert (run.status, run.detail) == ("interrupted", "Stopped ended the training")
    assert run.step == ((2 * BATCHES + 1) // every * every if unit == "step" else 2)
    for name in ("epoch=1", f"step={BATCHES + 2}", f"step={BATCHES - 2}"):  # the last one, and earlier ones
        module = lightning_module()
        tracker = lb.nn.RankTracker(module, store=store, resume=True, **settings)
        callbacks = [tracker.lightning(), *checkpoints(saved)]
        path = saved / f"{name}.ckpt"
        lightning_fit(module, callbacks, tmp_path, 3, enable_checkpointing=True, ckpt_path=path)
        run = lb.open(store)
        assert run.status == "finished"
        assert run.check() == []
        same_rows(run, whole.run)


@lightning_only
@pytest.mark.parametrize("unit", ["step", "epoch"])
def test_a_checkpoint_after_the_last_batch_of_an_epoch_leaves_no_row_out(tmp_path, unit):
    """Lightning does not end that epoch again, nor repeat its validation."""
    whole = lb.nn.RankTracker(module := lightning_module(), unit=unit, store=tmp_path / "run")
    saving = {"epochs": 3, "enable_checkpointing": True}
    lightning_fit(module, [whole.lightning(), *checkpoints(tmp_path)], tmp_path, **saving)
    expected = {name: whole.run[name] for name in whole.run.names}
    tracker = lb.nn.RankTracker(module := lightning_module(), unit=unit, store=tmp_path / "run", resume=True)
    saving["ckpt_path"] = tmp_path / f"step={2 * BATCHES}.ckpt"
    lightning_fit(module, [tracker.lightning(), *checkpoints(tmp_path)], tmp_path, **saving)
    for name in expected:
        np.testing.assert_array_equal(tracker.run[name], expected[name])


@lightning_only
def test_lightning_goes_on_from_a_checkpoint_that_knows_nothing_of_the_tracker(tmp_path):
    whole = lb.nn.RankTracker(module := lightning_module(), store=tmp_path / "run")
    lightning_fit(module, [whole.lightning()], tmp_path)
    saving = {"enable_checkpointing": True}
    lightning_fit(lightning_module(), [*checkpoints(tmp_path)], tmp_path, **saving)
    saving["ckpt_path"] = tmp_path / f"step={BATCHES}.ckpt"
    expected = {name: whole.run[name] for name in whole.run.names}
    tracker = lb.nn.RankTracker(module := lightning_module(), store=tmp_path / "run", resume=True)
    lightning_fit(module, [tracker.lightning(), *checkpoints(tmp_path)], tmp_path, **saving)
    run = lb.open(tmp_path / "run")
    assert run.step == 2 * BATCHES
    for name in set(expected) - {"loss"}:
        np.testing.assert_array_equal(run[name], expected[name])
    tracker = lb.nn.RankTracker(module := lightning_module())
    with pytest.raises(
        lb.InvalidInput, match=f"steps = {BATCHES - 1} is not accepted: expected at most 0, before which"
    ):
        lightning_fit(module, [tracker.lightning(), *checkpoints(tmp_path)], tmp_path, **saving)
    assert tracker.run.status == "interrupted"


# ── The Trainer of transformers ─────────────────────────────────────────────────────────────────────────────

SENTENCES, LENGTH, VOCABULARY = 24, 5, 11
STEPS = SENTENCES // 4 // 2  # in an epoch: batches of 4, two of them for a step


@pytest.fixture
def transformers():
    import transformers

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    yield transformers
    transformers.logging.set_verbosity(verbosity)


def gpt(transformers):
    """A language model with dropout: what is resumed must find its random numbers again."""
    torch.manual_seed(4)
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": VOCABULARY, "n_positions": LENGTH}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, attn_pdrop=0.2, resid_pdrop=0.2)
    return transformers.GPT2LMHeadModel(config)


def sentences():
    tokens = torch.randint(0, VOCABULARY, (SENTENCES, LENGTH), generator=torch.Generator().manual_seed(6))
    return [{"input_ids": row, "labels": row} for row in tokens]


def train_gpt(transformers, model, callbacks, folder, checkpoint=None, **others):
    """The Trainer after two epochs."""
    arguments = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "logging_steps": 1,
        "eval_strategy": "epoch",
        "save_strategy": "no",
        "learning_rate": 0.05,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        **others,
    }
    arguments = transformers.TrainingArguments(output_dir=str(folder), **arguments)
    data = sentences()
    trainer = transformers.Trainer(model, arguments, train_dataset=data, eval_dataset=data[:4], callbacks=callbacks)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer


def watcher(transformers, act):
    """A callback that calls act(model, state) after each step."""

    class Watcher(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **others):
            act(model, state)

    return Watcher()


def test_the_trainer_of_transformers_counts_steps_of_the_optimizer_and_notes_its_logs(tmp_path, transformers):
    model = gpt(transformers)
    norms = {0: norms_of(model)}
    tracker = lb.nn.RankTracker(model, scalars=("loss", "eval_loss", "train_loss"))
    keep = watcher(transformers, lambda model, state: norms.update({state.global_step: norms_of(model)}))
    trainer = train_gpt(transformers, model, [tracker.hugging_face(), keep], tmp_path)
    run = tracker.run
    assert (run.status, run.step) == ("finished", 2 * STEPS)
    assert {layer.name for layer in run.layers} >= {"transformer.h.0.attn.c_attn.query", "transformer.h.0.mlp.c_fc"}
    np.testing.assert_allclose(run["layers/norm"], [norms[step] for step in range(2 * STEPS + 1)], rtol=1e-6)
    for name in run.scalars:
        logged = {entry["step"]: entry[name] for entry in trainer.state.log_history if name in entry}
        np.testing.assert_array_equal(run[name], [logged.get(step, np.nan) for step in range(2 * STEPS + 1)])
        assert logged
    assert list(run.steps_of("loss")[np.isfinite(run["eval_loss"])]) == [STEPS, 2 * STEPS]
    trainer.evaluate()  # the tracker is closed, and minds nothing


def test_the_trainer_of_transformers_counts_epochs_where_those_are_the_unit(tmp_path, transformers):
    model = gpt(transformers)
    tracker = lb.nn.RankTracker(model, unit="epoch", scalars=("eval_loss",))
    trainer = train_gpt(transformers, model, [tracker.hugging_face()], tmp_path, num_train_epochs=3)
    run = tracker.run
    logged = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert (run.status, run.step) == ("finished", 3)
    np.testing.assert_array_equal(run["eval_loss"], [np.nan, *logged])
    np.testing.assert_allclose(run["layers/norm"][-1], norms_of(model), rtol=1e-6)


def test_the_last_record_is_not_that_of_the_best_weights_which_the_trainer_loads(tmp_path, transformers):
    model = gpt(transformers)
    seen = []
    tracker = lb.nn.RankTracker(model, scalars=("eval_loss",))
    best = {"load_best_model_at_end": True, "save_strategy": "epoch", "save_only_model": True}
    best |= {"metric_for_best_model": "eval_loss", "greater_is_better": True}
    keep = watcher(transformers, lambda model, state: seen.append(norms_of(model)))
    train_gpt(transformers, model, [tracker.hugging_face(), keep], tmp_path, **best)
    run = tracker.run
    assert run["eval_loss"][STEPS] > run["eval_loss"][2 * STEPS]
    np.testing.assert_allclose(norms_of(model), seen[STEPS - 1], rtol=1e-6)
    np.testing.assert_allclose(run["layers/norm"][1:], seen, rtol=1e-6)


@pytest.mark.parametrize(("unit", "every"), [("step", 2), pytest.param("epoch", 1, marks=pytest.mark.evidence)])
def test_the_trainer_of_transformers_goes_on_from_its_own_checkpoint(tmp_path, transformers, unit, every):
    settings = {"unit": unit, "every": every, "scalars": ("loss", "eval_loss")}
    saving = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": STEPS}
    whole = lb.nn.RankTracker(model := gpt(transformers), **settings)
    train_gpt(transformers, model, [whole.hugging_face()], tmp_path, **saving)

    def stop(model, state):
        if state.global_step == STEPS + 2:
            raise Stopped

    class Killed(transformers.TrainerCallback):
        def on_save(self, args, state, control, **others):
            killed(store, tmp_path / f"killed-{state.global_step}")

    store = tmp_path / "run"
    tracker = lb.nn.RankTracker(model := gpt(transformers), store=store, **settings)
    callbacks = [tracker.hugging_face(), watcher(transformers, stop), Killed()]
    with pytest.raises(Stopped), tracker:
        train_gpt(transformers, model, callbacks, tmp_path, **saving)
    assert lb.open(store).status == "interrupted"
    for step, folder in ((STEPS + 1, store), (1, store), (STEPS, tmp_path / f"killed-{STEPS}")):
        tracker = lb.nn.RankTracker(model := gpt(transformers), store=folder, resume=True, **settings)
        checkpoint = str(tmp_path / f"checkpoint-{step}")
        train_gpt(transformers, model, [tracker.hugging_face()], tmp_path, checkpoint, **saving)
        run = lb.open(folder)
        assert run.status == "finished"
        assert run.check() == []
        same_rows(run, whole.run)


# ── Loops like those of Keras, and loops of one's own ───────────────────────────────────────────────────────


def keras_fit(callback, model, epochs, batches):
    """What keras.Model.fit calls, in its order and with its arguments; returns the norms after each batch."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    norms = [norms_of(model)]
    callback.set_model(model)
    callback.set_params({"verbose": 0, "epochs": epochs, "steps": batches})
    callback.on_train_begin(None)
    for epoch in range(epochs):
        callback.on_epoch_begin(epoch, None)
        for batch in range(batches):
            callback.on_train_batch_begin(batch, logs=None)
            loss = descend(model, optimizer)
            norms.append(norms_of(model))
            callback.on_train_batch_end(batch, logs={"loss": loss, "unknown": 1.0})
        callback.on_test_begin(None)
        callback.on_test_batch_begin(0, logs=None)
        callback.on_test_batch_end(0, logs={"loss": 0.5})
        callback.on_test_end({"loss": 0.5})
        callback.on_epoch_end(epoch, {"loss": loss, "val_accuracy": epoch / 4, "unknown": [1.0]})
    callback.on_train_end({"loss": loss})
    return norms


def descend(model, optimizer):
    """The loss before a step of the optimizer."""
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(INPUTS), LABELS)
    loss.backward()
    optimizer.step()
    return loss.item()


def test_loops_like_those_of_keras():
    model = network()
    tracker = lb.nn.RankTracker(model, scalars=("loss", "val_accuracy"))
    norms = keras_fit(tracker.keras(), model, epochs=2, batches=4)
    run = tracker.run
    assert (run.status, run.step) == ("finished", 8)
    np.testing.assert_allclose(run["layers/norm"], norms, rtol=1e-6)
    assert np.isfinite(run["loss"][1:]).all()
    np.testing.assert_array_equal(run["val_accuracy"], [*[np.nan] * 4, 0.0, *[np.nan] * 3, 0.25])


def test_loops_like_those_of_keras_by_epochs():
    model = network()
    tracker = lb.nn.RankTracker(model, unit="epoch", scalars=("val_accuracy",))
    norms = keras_fit(tracker.keras(), model, epochs=3, batches=4)
    run = tracker.run
    np.testing.assert_allclose(run["layers/norm"], norms[::4], rtol=1e-6)
    np.testing.assert_array_equal(run["val_accuracy"], [np.nan, 0.0, 0.25, 0.5])


def test_a_loop_that_calls_no_more_than_it_must():
    model = network()
    tracker = lb.nn.RankTracker(model, scalars=("loss", "val_accuracy"))
    callback = tracker.keras()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    norms = [norms_of(model)]
    for step in range(6):
        callback.on_train_batch_end(step, {"loss": descend(model, optimizer)})
        norms.append(norms_of(model))
        if step == 2:
            callback.on_epoch_end(0, {"val_accuracy": 0.5})
    callback.on_train_end()
    run = tracker.run
    np.testing.assert_allclose(run["layers/norm"], norms, rtol=1e-6)
    np.testing.assert_array_equal(run["val_accuracy"], [*[np.nan] * 4, 0.5, np.nan, np.nan])
    with pytest.raises(AttributeError, match="no attribute 'of_no_moment'"):
        callback.of_no_moment  # noqa: B018


def test_two_lines_in_a_loop_of_ones_own_for_a_network_of_monai():
    from monai.networks.nets import UNet

    torch.manual_seed(3)
    model = UNet(spatial_dims=2, in_channels=1, out_channels=2, channels=(4, 8), strides=(2,))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    images = torch.randn(2, 1, 8, 8)
    masks = torch.randint(0, 2, (2, 8, 8))

    tracker = lb.nn.RankTracker(model, every=2)
    tracker.watch(optimizer)

    norms = [norms_of(model)]
    for _ in range(4):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), masks)
        loss.backward()
        tracker.note(loss=loss)
        optimizer.step()
        norms.append(norms_of(model))
    run = tracker.close()
    optimizer.step()  # no longer watched
    assert tracker.steps == run.step == 4
    np.testing.assert_allclose(run["layers/norm"], norms[::2], rtol=1e-6)
    assert run["loss"][-1] == loss.item()


# ── Checkpoints of a tracker ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("on_disk", [False, True])
def test_rows_after_the_step_that_a_tracker_goes_back_to_do_not_count(tmp_path, on_disk):
    model = nn.Linear(4, 4)
    tracker = lb.nn.RankTracker(model, every=2, store=tmp_path / "run" if on_disk else None)
    for step in range(1, 10):
        tracker.step(loss=step)
        if step == 5:
            state = tracker.state_dict()
    assert state == {"steps": 5, "noted": {"loss": 5.0}}
    tracker.load_state_dict(state)
    run = tracker.run
    assert (run.step, len(run["loss"]), tracker.steps) == (4, 3, 5)
    tracker.step()
    run = tracker.close()
    assert (run.step, list(run["loss"][1:])) == (6, [2.0, 4.0, 5.0])
    assert run.check() == []


def test_a_tracker_does_not_go_on_from_steps_that_it_has_not_seen():
    tracker = lb.nn.RankTracker(nn.Linear(2, 2), every=3)
    tracker.load_state_dict({"steps": 2})
    for steps in (3, 300, -1):
        with pytest.raises(
            lb.InvalidInput, match=rf"steps = {steps} is not accepted: expected at most 2, before which"
        ):
            tracker.load_state_dict({"steps": steps})
    tracker.step()
    tracker.load_state_dict({"steps": 5})
    tracker.close()
    with pytest.raises(lb.InvalidInput, match="the tracker is closed"):
        tracker.load_state_dict({"steps": 2})


def killed(run, copy):
    """What a process leaves that is killed now."""
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("lock"))
    return copy


def test_a_tracker_goes_on_where_it_was_asked_for_its_state(tmp_path):
    model = nn.Linear(4, 4)
    seen = []
    tracker = lb.nn.RankTracker(model, store=tmp_path / "run")
    for step in range(1, 6):
        with torch.no_grad():
            model.weight.mul_(0.5)
        tracker.step(loss=step)
        seen.append(norms_of(model))
    state = tracker.state_dict()
    folder = killed(tmp_path / "run", tmp_path / "killed")
    tracker.close()
    tracker = lb.nn.RankTracker(model, store=folder, resume=True)
    assert tracker.steps == 5
    tracker.load_state_dict(state)
    run = tracker.close()
    assert run.check() == []
    assert (run.step, list(run["loss"][1:])) == (5, [1.0, 2.0, 3.0, 4.0, 5.0])
    np.testing.assert_allclose(run["layers/norm"][1:], seen, rtol=1e-6)


def test_a_run_that_was_killed_before_anything_counted_begins_again(tmp_path):
    model = nn.Linear(4, 4)
    tracker = lb.nn.RankTracker(model, store=tmp_path / "run")
    folder = killed(tmp_path / "run", tmp_path / "killed")
    tracker.step()
    expected = tracker.close()
    tracker = lb.nn.RankTracker(model, store=folder, resume=True)
    tracker.step()
    same_rows(tracker.close(), expected)
    with pytest.raises(lb.InvalidInput, match="tracked the same matrices and numbers"):
        lb.nn.RankTracker(model, epsilon=0.1, store=folder, resume=True)


# ── Scalars for a board, and libraries that are not there ───────────────────────────────────────────────────


def events(folder):
    """{(tag, step): value} of the event files in a folder."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in folder.iterdir():
        data = path.read_bytes()
        place = 0
        while place < len(data):  # a record: its length and a checksum, itself and a checksum
            (length,) = struct.unpack_from("<Q", data, place)
            event = Event.FromString(data[place + 12 : place + 12 + length])
            found.update({(value.tag, event.step): value.simple_value for value in event.summary.value})
            place += 16 + length
    return found


def test_scalars_of_a_run_for_tensorboard(tmp_path):
    model = network()
    tracker = lb.nn.RankTracker(model, every=2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(6):
        tracker.step(loss=descend(model, optimizer))
    run = tracker.close()
    count = lb.nn.write_scalars(run, tmp_path / "board")
    found = events(tmp_path / "board")
    assert len(found) == count
    for tag, name in (("average/stable_rank",) * 2, ("layer/2/relative_rank",) * 2, ("loss", "loss")):
        expected = dict(zip(run.steps_of(name), run[name].astype(np.float32), strict=True))
        written = {step: value for (written, step), value in found.items() if written == f"ranks/{tag}"}
        assert written == {step: value for step, value in expected.items() if np.isfinite(value)}
    assert len([1 for tag, _ in found if tag == "ranks/loss"]) == 3

    class Board:
        calls = 0

        def add_scalar(self, tag, value, step):
            self.calls += tag.startswith("mine/")

        def flush(self):
            self.flushed = True

    board = Board()
    assert lb.nn.write_scalars(run, board, tag="mine") == count == board.calls
    assert board.flushed


@pytest.mark.parametrize(
    ("library", "use", "message"),
    [
        ("lightning", lambda tracker: tracker.lightning(), "this needs lightning: pip install lightning."),
        ("transformers", lambda tracker: tracker.hugging_face(), "this needs transformers: pip install transformers."),
        (
            "tensorboardX",
            lambda tracker: lb.nn.write_scalars(tracker.run, "board"),
            "this needs tensorboardX: pip install 'lrbias[tensorboard]'.",
        ),
    ],
)
def test_a_library_that_is_missing_is_one_sentence(work, monkeypatch, library, use, message):
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    for name in {library, "pytorch_lightning"}:  # one library under two names
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(lb.InvalidInput) as raised:
        use(lb.nn.RankTracker(nn.Linear(2, 2)))
    assert str(raised.value) == message
    assert not list(work.iterdir())
