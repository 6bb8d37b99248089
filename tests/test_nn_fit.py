"""Training networks: a step is that of the loss with λ‖W‖², and a run that is resumed is bitwise equal."""

import os
import signal

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import lrbias as lb
from lrbias.nn import Images, Training, fit
from lrbias.nn._fit import trained
from runs import call, fingerprint

torch.set_num_threads(1)
SMALL = {"data": "digits", "network": "mlp-bn", "width": 12, "depth": 2, "batch": 32, "weight_decay": 1e-3, "epochs": 2}


def images(count=24, seed=0):
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((2, count, 1, 4, 4)).astype(np.float32)
    labels = rng.integers(0, 3, (2, count))
    return Images("noise", inputs[0], labels[0], inputs[1], labels[1], 3)


class Own(nn.Module):
    """Dropout, batch norm and a convolution: whatever a step draws or keeps."""

    def __init__(self, at=None):
        super().__init__()
        convolutions = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)
        self.layers = nn.Sequential(*convolutions, nn.Flatten(), nn.Dropout(0.3))
        self.last = nn.Linear(16, 3)
        self.at = at
        self.calls = 0

    def forward(self, inputs):
        if self.training:
            self.calls += 1
            if self.calls == self.at:
                os.kill(os.getpid(), signal.SIGINT)
        return self.last(self.layers(inputs))


def own(at=None, seed=5):
    torch.manual_seed(seed)
    return Own(at)


def test_a_step_is_that_of_the_mean_loss_with_weight_decay():
    """W ← (1 − 2μλ) W − μ ∇ of the mean cross entropy, for every parameter."""
    model = own().double()
    data = images()
    lr, decay = 0.2, 0.03
    data = Images("noise", data.train_inputs.astype(np.float64), data.train_labels, data.test_inputs.astype(np.float64),
                  data.test_labels, 3)  # fmt: skip
    model.layers[-1].p = 0.0
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    settings = Training(batch=24, lr=lr, weight_decay=decay, steps=1)
    order = settings.order(0, 24)
    model.train()
    loss = cross_entropy(model(torch.from_numpy(data.train_inputs)), torch.from_numpy(data.train_labels))
    gradients = dict(zip(before, torch.autograd.grad(loss, list(model.parameters())), strict=True))
    run = fit(settings, model=model, images=data)
    assert sorted(order) == list(range(24))
    for name, value in model.named_parameters():
        expected = (1 - 2 * lr * decay) * before[name] - lr * gradients[name]
        torch.testing.assert_close(value.detach(), expected, rtol=1e-12, atol=1e-14)
    assert run["loss"][1] == pytest.approx(loss.item(), rel=1e-12)


def test_records_are_of_the_steps_between_and_accuracies_of_the_network():
    run = fit(Training(**SMALL, every=20))
    model, data = trained(run)
    assert run.step == 2 * (len(data.train_labels) // 32)
    assert list(run.steps_of("loss")) == list(range(0, run.step + 1, 20))
    assert run["loss"][-1] < run["loss"][1]
    assert run["train_accuracy"][-1] > 0.5
    model.eval()
    with torch.no_grad():
        right = (model(torch.from_numpy(data.test_inputs)).argmax(1).numpy() == data.test_labels).mean()
    assert lb.nn.RankTracker(model).close()["singular_values"].shape[1] == run["singular_values"].shape[1]
    last = fit(Training(**SMALL, every=run.step))
    assert last["test_accuracy"][-1] == right
    assert run.bounds()["1"] == pytest.approx(lb.theory.rank_bound(0.1, 1e-3, 32))


def test_a_network_learns_the_digits():
    run = fit(Training(**{**SMALL, "width": 60, "epochs": 8, "lr": 0.2, "momentum": 0.5}))
    assert run["test_accuracy"][-1] > 0.9


@pytest.mark.parametrize("changes", [{}, {"momentum": 0.9}, {"augment": True}, {"milestones": (1, 2), "factor": 0.5}])
def test_bits_do_not_depend_on_checkpoints_or_on_the_store(tmp_path, changes):
    settings = Training(**{**SMALL, **changes}, every=15)
    expected = fingerprint(fit(settings))
    assert fingerprint(fit(settings, store=tmp_path / "run", checkpoint_every=7)) == expected
    assert fingerprint(lb.open(tmp_path / "run")) == expected
    assert len(list((tmp_path / "run/checkpoints").iterdir())) == 1


@pytest.mark.parametrize("at", [1, 2, 9, 17])
def test_an_interrupted_run_goes_on_with_the_same_bits(tmp_path, at):
    """Within an epoch, between records; with dropout, momentum, crops and flips."""
    settings = Training(batch=4, lr=0.05, weight_decay=1e-3, momentum=0.9, epochs=4, every=5, augment=True)
    data = images()
    path = tmp_path / "run"
    expected = fit(settings, model=own(), images=data)
    with pytest.raises(lb.Interrupted) as ended:
        fit(settings, store=path, model=own(at), images=data, checkpoint_every=4)
    assert ended.value.run.status == "interrupted"
    assert ended.value.run.step == at
    run = lb.nn.resume(path, model=own(seed=9), images=data)
    assert (run.status, run.step) == ("finished", 24)
    assert fingerprint(run) == fingerprint(expected)


def test_a_finished_run_can_be_taken_further_or_is_returned_as_it_is(tmp_path):
    expected = fingerprint(fit(Training(**SMALL, steps=60, every=20)))
    fit(Training(**SMALL, steps=40, every=20), store=tmp_path / "run")
    assert lb.resume(tmp_path / "run").step == 40
    assert fingerprint(lb.resume(tmp_path / "run", steps=60)) == expected


def test_the_learning_rate_falls_at_the_milestones():
    settings = Training(lr=1.0, milestones=(2, 5), factor=0.1)
    np.testing.assert_allclose([settings.rate(epoch) for epoch in range(7)], [1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_every_epoch_has_an_order_of_its_own_that_the_seed_determines():
    first, second = (Training(seed=3).order(epoch, 50) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(50))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, Training(seed=3).order(0, 50))
    assert not np.array_equal(first, Training(seed=4).order(0, 50))


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Linear(16, 3))
    run = fit(Training(batch=4, lr=1e6, epochs=20, every=1), model=model, images=images(), store=tmp_path / "run")
    assert run.status == "diverged"
    assert f"the loss at step {run.step} is" in run.detail
    assert np.isfinite(run["loss"][1:]).all()
    assert len(run["loss"]) == run.step
    assert lb.nn.resume(tmp_path / "run", model=model, images=images()).status == "diverged"


def test_pytorchs_generator_is_left_as_it_was():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    fit(Training(**SMALL, steps=3))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight_decay": -1e-3}, "weight_decay = -0.001 is not accepted: expected a finite number of at least 0"),
        ({"batch": 5000}, "batch = 5000 is not accepted: expected at most 1438, the number of training images"),
        ({"batch": 0}, "batch = 0 is not accepted"),
        ({"batch": 1}, "batch = 1 is not accepted: expected at least 2 for this network"),
        ({"lr": 0}, "lr = 0 is not accepted"),
        ({"momentum": 1}, "momentum = 1 is not accepted"),
        ({"data": "imagenet"}, "'imagenet' is not accepted: expected one of"),
        ({"data": "fashion-mnist", "folder": "nowhere"}, "apt install dataset-fashion-mnist"),
        ({"data": "cifar-10"}, "folder"),
        ({"network": "alexnet"}, "network = 'alexnet' is not accepted"),
        ({"milestones": (0,)}, "milestones"),
        ({"optimizer": "adam"}, "optimizer = 'adam' is not accepted: Training knows only"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(work, changes, message):
    with pytest.raises(lb.InvalidInput, match=message) as raised:
        fit(Training(**{**SMALL, **changes}), store="run")
    assert "\n" not in str(raised.value)
    assert not list(work.iterdir())


def test_a_batch_of_one_is_accepted_where_the_network_can_be_trained_on_it():
    run = fit(Training(batch=1, steps=2), model=own(), images=images())
    assert run.step == 2


@pytest.mark.parametrize("every", [0, -1, 2.5, "often"])
def test_intervals_of_checkpoints_and_steps_are_counts(work, every):
    with pytest.raises(
        lb.InvalidInput, match=r"checkpoint_every = .* is not accepted: expected an integer of at least 1"
    ):
        fit(Training(**SMALL), store="run", checkpoint_every=every)
    assert not list(work.iterdir())
    fit(Training(**SMALL, steps=2), store="run")
    with pytest.raises(lb.InvalidInput, match=r"steps = .* is not accepted"):
        lb.nn.resume("run", steps=every)


def test_own_models_and_images_are_given_again(tmp_path):
    settings = Training(batch=4, epochs=1)
    fit(settings, model=own(), images=images(), store=tmp_path / "run")
    with pytest.raises(lb.InvalidInput, match=r"model = None is not accepted: expected what lb.nn.fit was given"):
        lb.resume(tmp_path / "run", steps=9)
    assert lb.nn.resume(tmp_path / "run", steps=9, model=own(), images=images()).step == 9


def test_the_command_continues_a_run(work, capsys):
    fit(Training(**SMALL, steps=10), store="run")
    code, shown, _ = call(capsys, "resume run --steps 20 --quiet --format png")
    assert code == 0
    assert "ModelRun: mlp-bn, 3 matrices, finished at step 20" in shown
    assert (work / "run/figures/overview.png").is_file()
    code, _, error = call(capsys, "resume run --steps 30 --threads 2 --quiet")
    assert code == 2
    assert "threads = 2 cannot be set: it is a run of a model." in error
