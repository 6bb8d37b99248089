"""Entries and measurements: which are observed, what the loss and the errors are, what training makes of them."""

import warnings

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import lrbias as lb
from lrbias.experiments import Experiment, read_toml
from lrbias.problems._observed import load_observed, restore
from lrbias.theory import representation_cost
from runs import fingerprint, settings

TARGET = lb.from_singular_values((6, 5), [3.0, 1.5], seed=3)
SHAPE = TARGET.shape
NAN = float("nan")
steady = hypothesis.settings(deadline=None)
masks = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(lambda shape: arrays(bool, shape)).filter(np.any)


def _mask(count, seed=0):
    mask = np.zeros(SHAPE, bool)
    mask.flat[np.random.default_rng(seed).permutation(mask.size)[:count]] = True
    return mask


def _quietly(*arguments, **others):
    """A Completion whose rows and columns may be empty."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lb.DataWarning)
        return lb.Completion(*arguments, **others)


def _without(target, positions):
    """The target with NaN at these positions."""
    target = target.copy()
    target[tuple(zip(*positions, strict=True))] = NAN
    return target


def test_a_mask_says_what_is_observed():
    mask = _mask(20)
    for form in (mask, mask.astype(int), mask * 0.25, mask.tolist()):
        problem = lb.Completion(TARGET, form)
        assert np.array_equal(problem.mask, mask)
        assert problem.count == 20
    assert not problem.mask.flags.writeable
    assert repr(problem) == "Completion(20 of 30 entries of a 6 × 5 matrix, connected)"


def test_a_mask_is_copied():
    mask = _mask(20)
    problem = lb.Completion(TARGET, mask)
    mask[:] = True
    assert problem.count == 20


def test_positions_are_observed():
    mask = _mask(18)
    assert np.array_equal(lb.Completion(TARGET, entries=np.argwhere(mask)).mask, mask)
    assert np.array_equal(lb.Completion(TARGET, entries=np.argwhere(mask)[::-1].tolist()).mask, mask)


@pytest.mark.parametrize(("fraction", "count"), [(1, 30), (0.5, 15), (0.42, 13), (0.81, 24)])
def test_a_fraction_is_a_number_of_entries(fraction, count):
    problem = _quietly(TARGET, fraction=fraction, seed=8)
    assert problem.count == count
    assert np.array_equal(problem.mask, _quietly(TARGET, entries=count, seed=8).mask)


def test_entries_depend_on_seed_and_number_alone():
    drawn = [_quietly(target, entries=14, seed=seed).mask for target in (TARGET, -TARGET) for seed in (1, 2, 2**64 - 1)]
    for same in range(3):
        assert np.array_equal(drawn[same], drawn[same + 3])
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_more_entries_of_one_seed_contain_the_fewer():
    for count in range(1, 30):
        fewer, more = (_quietly(TARGET, entries=k, seed=6).mask for k in (count, count + 1))
        assert more[fewer].all()
        assert more.sum() == fewer.sum() + 1 == count + 1


def test_every_entry_is_drawn_as_often_as_any_other():
    counts = sum(_quietly(TARGET, entries=10, seed=seed).mask.astype(int) for seed in range(600))
    spread = np.sqrt(600 / 3 * 2 / 3)
    assert (np.abs(counts - 200) < 5 * spread).all()
    assert counts.std() > 0.5 * spread


def test_what_is_nan_is_neither_observed_nor_known():
    hole = [(0, 0), (3, 2), (5, 4)]
    target = _without(TARGET, hole)
    whole = lb.Completion(target)
    drawn = _quietly(target, fraction=0.5)
    assert np.array_equal(whole.mask, ~np.isnan(target))
    assert drawn.count == 14  # half of the 27 that are known, rounded to even
    assert not drawn.mask[np.isnan(target)].any()
    assert np.isfinite(whole.target).all()
    assert list(whole.errors(TARGET)) == ["train"]  # nothing is hidden


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_an_empty_row_or_column_gives_a_warning(axis):
    mask = np.ones(SHAPE, bool)
    mask[(2, 4), :] = False
    target = TARGET if axis == "rows" else TARGET.T
    with pytest.warns(lb.DataWarning, match=rf"2 {axis} \(2, 4\) have no observed entry") as caught:
        problem = lb.Completion(target, mask if axis == "rows" else mask.T)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert problem.components == 3
    assert not problem.connected


def test_a_run_that_is_opened_does_not_warn_again(tmp_path):
    mask = np.ones(SHAPE, bool)
    mask[:, 1] = False
    lb.train(**settings(5, problem=_quietly(TARGET, mask)), store=tmp_path / "run")
    assert lb.open(tmp_path / "run").problem.components == 2


def _components(mask):
    """By union and find: rows are 0 … m − 1, columns m … m + n − 1."""
    rows, columns = mask.shape
    above = list(range(rows + columns))

    def top(node):
        while above[node] != node:
            node = above[node]
        return node

    for row, column in np.argwhere(mask):
        above[top(row)] = top(rows + column)
    return len({top(node) for node in range(rows + columns)})


@steady
@given(mask=masks)
def test_components_equal_those_of_a_brute_force(mask):
    problem = _quietly(np.ones(mask.shape), mask)
    assert problem.components == _components(mask)
    assert problem.connected == (_components(mask) == 1)


def test_two_blocks_are_in_two_parts():
    mask = np.zeros((4, 5), bool)
    mask[:2, :2] = mask[2:, 2:] = True
    problem = lb.Completion(np.ones((4, 5)), mask)
    assert problem.facts() == {"observed_entries": 10, "observed_share": 0.5, "components": 2}
    assert "in 2 parts" in repr(problem)


def test_a_graph_in_parts_is_a_warning_of_the_forecast():
    problem = lb.Completion(np.ones((4, 4)), np.kron(np.eye(2), np.ones((2, 2))))
    network = lb.Network.gaussian((4, 4, 4))
    method = lb.GD(lr=0.01)
    sentence = "the graph of observed entries has 2 parts"
    with pytest.warns(lb.ForecastWarning, match=sentence):
        lb.train(problem, network, method, 5)
    expected = lb.forecast(problem, network, method, 5)
    assert sentence in str(expected)
    assert expected.escape_steps == []


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_weights_and_entries_say_the_same_loss(reduction, rng):
    """½ Σ weights (W − Ŵ)², and the mean of weight · ½ (W_rc − Ŵ_rc)² over single entries."""
    problem = lb.Completion(TARGET, entries=17, reduction=reduction)
    product = rng.normal(size=SHAPE)
    squares = (product - TARGET)[problem.mask] ** 2
    expected = 0.5 * (squares.mean() if reduction == "mean" else squares.sum())
    assert 0.5 * np.sum(problem.weights * (product - TARGET) ** 2) == pytest.approx(expected, rel=1e-14)
    entries = problem.entries(np.float64)
    residuals = product[entries.rows, entries.columns] - entries.values
    assert np.mean(entries.weight * 0.5 * residuals**2) == pytest.approx(expected, rel=1e-14)
    assert np.array_equal(np.argwhere(problem.mask), np.stack([entries.rows, entries.columns], axis=1))
    assert np.array_equal(problem.slope(product), problem.weights * (product - TARGET))


def test_errors_are_root_mean_squares(rng):
    """Over what is observed and over what is known besides; for one product and for many."""
    target = _without(TARGET, [(1, 1), (4, 3)])
    problem = _quietly(target, entries=15)
    products = rng.normal(size=(3, *SHAPE))
    found = problem.errors(products)
    hidden = ~problem.mask & ~np.isnan(target)
    for i, product in enumerate(products):
        residual = product - TARGET
        assert found["train"][i] == pytest.approx(np.sqrt(np.mean(residual[problem.mask] ** 2)), rel=1e-14)
        assert found["test"][i] == pytest.approx(np.sqrt(np.mean(residual[hidden] ** 2)), rel=1e-14)
        assert problem.errors(product)["train"] == pytest.approx(found["train"][i], rel=1e-14)


@pytest.mark.parametrize("method", [lb.GD(lr=0.02), lb.GradientFlow(dt=0.02)], ids=["gd", "flow"])
def test_all_entries_are_the_whole_target(method):
    record = lb.Record(metrics={"gradient_norm": 10, "singular_values": 20, "alignment": 20})
    whole = lb.train(**settings(method=method, record=record))
    entries = lb.train(**settings(problem=lb.Completion(TARGET), method=method, record=record))
    assert whole.names == entries.names
    for name in whole.names:
        assert np.allclose(entries[name], whole[name], rtol=1e-12, atol=1e-12), name
    assert np.allclose(entries.network.params, whole.network.params, rtol=1e-12, atol=1e-12)


def test_what_is_not_observed_does_not_matter():
    problem = lb.Completion(TARGET, entries=20)
    other = lb.Completion(np.where(problem.mask, TARGET, 7.0), problem.mask)
    runs = [lb.train(**settings(problem=each, record=lb.Record(metrics=()))) for each in (problem, other)]
    assert np.array_equal(runs[0].losses, runs[1].losses)
    assert np.array_equal(runs[0].network.params, runs[1].network.params)


def test_the_mean_loss_is_the_sum_over_the_number():
    """A learning rate that is 20 times as large makes the same steps."""
    total = lb.train(**settings(problem=lb.Completion(TARGET, entries=20), method=lb.GD(lr=0.02)))
    mean = lb.train(**settings(problem=lb.Completion(TARGET, entries=20, reduction="mean"), method=lb.GD(lr=0.4)))
    assert np.allclose(total.losses, 20 * mean.losses, rtol=1e-11)


def _units(mask):
    """The matrices e_i e_jᵀ of the observed entries."""
    matrices = np.zeros((mask.sum(), *mask.shape))
    matrices[np.arange(len(matrices)), *np.nonzero(mask)] = 1
    return matrices


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_measuring_single_entries_is_completion(reduction):
    problem = lb.Completion(TARGET, entries=20, reduction=reduction)
    measured = lb.Sensing(_units(problem.mask), TARGET[problem.mask], target=TARGET, reduction=reduction)
    record = lb.Record(every=20, metrics=("gradient_norm", "gradient_singular_values", "singular_values"))
    method = lb.GD(lr=0.4 if reduction == "mean" else 0.02, ridge=0.01)
    runs = [lb.train(**settings(problem=each, method=method, record=record)) for each in (problem, measured)]
    assert np.allclose(runs[0].losses, runs[1].losses, rtol=1e-12, atol=1e-14)
    assert runs[0].names == runs[1].names
    for name in runs[0].names:
        assert np.allclose(runs[0][name], runs[1][name], rtol=1e-11, atol=1e-12), name


def _measurements(count=12, seed=1):
    rng = np.random.default_rng(seed)
    matrices = rng.normal(size=(count, *SHAPE)) / np.sqrt(SHAPE[0] * SHAPE[1])
    return matrices, np.einsum("kij,ij->k", matrices, TARGET)


@pytest.mark.parametrize("method", [lb.GradientFlow(dt=0.1), lb.GD(lr=0.1)], ids=["flow", "gd"])
def test_training_on_measurements_fits_them(method):
    matrices, values = _measurements()
    problem = lb.Sensing(matrices, values)
    run = lb.train(
        **settings(6000, problem=problem, method=method, record=lb.Record(every=1000), checkpoint_every=6000)
    )
    found = np.einsum("kij,ij->k", matrices, run.network.product())
    assert np.abs(found - values).max() < 1e-6
    assert run.losses[0] == pytest.approx(_loss_of(matrices, values, run.checkpoint(0).product()), rel=1e-12)
    assert run["train_error"][-1] == pytest.approx(np.sqrt(np.mean((found - values) ** 2)), rel=1e-6)
    assert "test_error" not in run


def _loss_of(matrices, values, product):
    return 0.5 * np.sum((np.einsum("kij,ij->k", matrices, product) - values) ** 2)


def test_a_known_truth_gives_a_test_error(rng):
    matrices, values = _measurements()
    problem = lb.Sensing(matrices, values, target=TARGET)
    product = rng.normal(size=SHAPE)
    found = problem.errors(product)
    assert found["test"] == pytest.approx(np.linalg.norm(product - TARGET) / np.sqrt(30), rel=1e-14)
    assert found["train"] == pytest.approx(np.sqrt(2 * _loss_of(matrices, values, product) / 12), rel=1e-13)
    assert np.allclose(problem.errors(np.stack([product, TARGET]))["test"], [found["test"], 0], rtol=1e-14)


def test_without_a_truth_the_target_is_the_smallest_matrix_that_fits():
    matrices, values = _measurements()
    problem = lb.Sensing(matrices, values)
    assert np.allclose(np.einsum("kij,ij->k", matrices, problem.target), values)
    assert np.allclose(problem.target.ravel(), np.linalg.pinv(matrices.reshape(12, -1)) @ values)


RIDGE = {"problem": lb.Completion(TARGET, entries=20, seed=4), "network": lb.Network.gaussian((5, 7, 7, 6), 0.6, 2)}


def test_a_minimum_with_ridge_is_balanced_and_costs_its_least_norm():
    """Where the gradient of L + λ Σ ‖W_i‖² vanishes, Σ ‖W_i‖² is the least of all networks with this product."""
    record = lb.Record(every=1000, metrics=("representation_cost", "balancedness", "gradient_norm", "singular_values"))
    method = lb.GD(lr=0.05, ridge=0.05)
    run = lb.train(**settings(5000, **RIDGE, method=method, record=record, checkpoint_every=5000))
    assert run["gradient_norm"][0] > 1
    assert run["gradient_norm"][-1] < 1e-8
    assert run["layer/1/balancedness"][-1] < 1e-8 < run["layer/1/balancedness"][0]
    assert run["layer/2/balancedness"][-1] < 1e-8
    cost = representation_cost(run["product/singular_values"][-1], 3)
    assert cost > 1  # it has not collapsed
    assert run["squared_norm"][-1] == pytest.approx(cost, rel=1e-6)
    assert run["product/representation_cost"][-1] == pytest.approx(cost, rel=1e-12)
    assert run["squared_norm"][0] > 1.1 * run["product/representation_cost"][0]
    fit = 0.5 * np.sum((run.network.product() - TARGET)[RIDGE["problem"].mask] ** 2)
    assert run.losses[-1] == pytest.approx(fit + 0.05 * run["squared_norm"][-1], rel=1e-12)


def test_gd_with_ridge_tends_to_the_flow_with_ridge():
    """Halving the learning rate halves the distance."""
    flow = lb.train(**settings(40, **RIDGE, method=lb.GradientFlow(dt=0.025, ridge=0.1), record=lb.Record(metrics=())))
    gaps = []
    for halvings in (2, 3, 4):
        method = lb.GD(lr=0.025 / 2**halvings, ridge=0.1)
        steps = 40 * 2**halvings
        gd = lb.train(**settings(steps, **RIDGE, method=method, record=lb.Record(metrics=()), checkpoint_every=steps))
        gaps.append(np.abs(gd.network.params - flow.network.params).max())
    assert gaps[0] / gaps[1] == pytest.approx(2, abs=0.3)
    assert gaps[1] / gaps[2] == pytest.approx(2, abs=0.2)


def test_a_ridge_on_a_whole_target_is_minimised_too():
    """At depth one the minimum is Ŵ/(1 + 2λ)."""
    network = lb.Network.gaussian((5, 6), seed=1)
    run = lb.train(lb.Factorization(TARGET), network, lb.GD(lr=0.3, ridge=0.25), 200, forecast=False)
    assert np.allclose(run.network.product(), TARGET / 1.5, atol=1e-12)
    assert run.losses[-1] == pytest.approx(np.sum(TARGET**2) * (0.5 / 9 + 0.25 / 2.25), rel=1e-10)


STORED = {
    "mask": lb.Completion(TARGET, _mask(20), reduction="mean"),
    "drawn": lb.Completion(TARGET, entries=20, seed=9),
    "nan": lb.Completion(_without(TARGET, [(1, 1), (4, 3)]), entries=20, seed=9),
    "measurements": lb.Sensing(*_measurements(), reduction="mean"),
    "measurements of a truth": lb.Sensing(*_measurements(), target=TARGET),
}


@pytest.mark.parametrize("kind", STORED)
def test_a_run_directory_has_the_whole_problem(kind, tmp_path):
    """Opened again, and made again from its experiment file: the same errors, so what is hidden is known, too."""
    problem = STORED[kind]
    run = lb.train(**settings(60, problem=problem, method=lb.GD(lr=0.02, ridge=0.01)), store=tmp_path / "run")
    opened = lb.open(tmp_path / "run").problem
    assert type(opened) is type(problem)
    assert opened.reduction == problem.reduction
    assert opened.errors(TARGET) == problem.errors(TARGET)
    assert {name: array.tolist() for name, array in opened.observed.items()} == {
        name: array.tolist() for name, array in problem.observed.items()
    }
    arguments = Experiment.from_words(read_toml(tmp_path / "run/experiment.toml")).arguments()
    assert arguments["problem"].errors(TARGET) == problem.errors(TARGET)
    assert fingerprint(lb.train(**arguments, forecast=False)) == fingerprint(run)


def test_runs_say_what_their_errors_are_over():
    record = lb.Record(metrics=("errors",))
    shown = {kind: repr(lb.train(**settings(5, problem=each, record=record))) for kind, each in STORED.items()}
    assert "over the observed entries, " in shown["mask"]
    assert shown["mask"].count("over the hidden ones") == 1
    assert "over the measurements\n" in shown["measurements"]
    assert "over the measurements, " in shown["measurements of a truth"]
    assert "over the whole truth" in shown["measurements of a truth"]


@pytest.mark.parametrize("kind", STORED)
def test_a_problem_is_restored_from_what_it_keeps(kind):
    problem = STORED[kind]
    again = restore(problem.target, problem.observed, problem.reduction)
    assert repr(again) == repr(problem)
    assert again.errors(TARGET) == problem.errors(TARGET)


def test_a_damaged_mask_is_named(tmp_path):
    lb.train(**settings(5, problem=STORED["mask"]), store=tmp_path / "run")
    file = tmp_path / "run/observed.npz"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(lb.StoreError, match=r"observed\.npz is damaged"):
        lb.open(tmp_path / "run")


def test_an_experiment_draws_the_entries_of_its_seed():
    keys = {"shape": [6, 5], "rank": 2, "depth": 2, "mask_seed": 3, "reduction": "mean"}
    problem = Experiment.from_words({**keys, "entries": 20}).make_problem()
    whole = Experiment.from_words({"shape": [6, 5], "rank": 2, "depth": 2}).make_problem()
    assert np.array_equal(problem.mask, lb.Completion(whole.target, entries=20, seed=3).mask)
    assert np.array_equal(Experiment.from_words({**keys, "fraction": 2 / 3}).make_problem().mask, problem.mask)
    assert problem.reduction == "mean"


def test_masks_are_read_from_files(tmp_path):
    mask = _mask(20)
    np.save(tmp_path / "mask.npy", mask.astype(float))
    np.savetxt(tmp_path / "mask.csv", mask, delimiter=",", fmt="%d")
    np.savez(tmp_path / "mask.npz", mask=mask)
    for name in ("mask.npy", "mask.csv", "mask.npz"):
        assert np.array_equal(load_observed(tmp_path / name)["mask"] != 0, mask), name


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_bit_in_a_file_of_masks_changes_nothing_unseen(save, tmp_path, rng):
    """Of a mask so large that NumPy, told by its header that it is smaller, would not reach the checksum at its end."""
    mask = rng.integers(0, 2, (70, 90)).astype(float)
    path = tmp_path / "mask.npz"
    save(path, mask=mask)
    data = path.read_bytes()
    refused = 0
    for place in range(200):  # where the headers are
        for bit in range(8):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            try:
                found = load_observed(path)
            except lb.InvalidInput:
                refused += 1
            else:
                assert found.keys() == {"mask"}
                assert np.array_equal(found["mask"], mask), (place, bit)
    assert refused > 1000
