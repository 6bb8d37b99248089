"""A run through the API: what is recorded, when it ends, and that it is the same wherever it is kept."""

import os
import signal
import threading

import numpy as np
import pytest

import lrbias as lb
from lrbias import metrics
from lrbias.steppers import _chunks as chunks
from lrcore import layout, reference
from runs import fingerprint, settings


@pytest.fixture(scope="module")
def run():
    return lb.train(**settings(record=lb.Record(every=10)))


def test_memory_and_disk_hold_the_same_run(tmp_path):
    kept = lb.train(**settings(), store=tmp_path / "run")
    assert fingerprint(kept) == fingerprint(lb.train(**settings()))
    assert fingerprint(lb.open(tmp_path / "run")) == fingerprint(kept)


def test_the_run_is_gradient_descent(run):
    """Losses, parameters and singular values against 200 steps of the reference."""
    arguments = settings()
    params = arguments["network"].params.copy()
    target = arguments["problem"].target
    losses = np.empty(200)
    reference.gd_steps(params, arguments["network"].widths, target, 0.02, losses)
    assert np.allclose(run.losses[:200], losses, rtol=1e-12)
    assert np.allclose(run.network.params, params, rtol=1e-11)
    product = np.empty_like(target)
    reference.product(params, arguments["network"].widths, product)
    assert np.allclose(run["product/singular_values"][-1], np.linalg.svd(product)[1], atol=1e-12)
    assert run.losses[200] == pytest.approx(0.5 * np.sum((product - target) ** 2), rel=1e-9)


def test_loss_steps_and_records_line_up(run):
    assert run.steps.tolist() == list(range(0, 201, 10))
    assert len(run.loss) == len(run.steps) == len(run["product/singular_values"]) == 21
    assert len(run.losses) == 201
    assert np.array_equal(run.loss, run.losses[run.steps])
    assert (run.status, run.step, run.checkpoints) == ("finished", 200, [0, 50, 100, 150, 200])


def test_every_metric_of_every_matrix_is_recorded(run):
    for name in (*lb.metrics.RANKS, "singular_values", "gradient_singular_values"):
        for where in ("product", "layer/1", "layer/2"):
            assert f"{where}/{name}" in run
    for name in ("balancedness", "layer_alignment"):
        assert f"layer/1/{name}" in run
    for name in run.names:
        assert np.isfinite(run[name]).all(), name


def test_recorded_metrics_equal_their_definitions(run):
    """At the last record, from the last network, with plain NumPy."""
    arguments = settings()
    target, (first, second) = arguments["problem"].target, run.network.layers
    product = second @ first
    residual = product - target
    slopes = (second.T @ residual, residual @ first.T)
    values = np.linalg.svd(product)[1]
    last = {name: run[name][-1] for name in run.names}
    assert last["product/effective_rank"] == pytest.approx(values.sum() / values[0])
    assert last["product/stable_rank"] == pytest.approx((values**2).sum() / values[0] ** 2)
    p = values / values.sum()
    assert last["product/entropy_rank"] == pytest.approx(np.exp(-np.sum(p * np.log(p))))
    assert last["product/relative_rank"] == (values > 1e-3 * values[0]).sum()
    assert last["product/relative_rank_frobenius"] == (values > 1e-3 * np.linalg.norm(values)).sum()
    assert last["layer/1/numerical_rank"] == (np.linalg.svd(first)[1] > 1e-6).sum()
    assert last["layer/1/balancedness"] == pytest.approx(np.linalg.norm(second.T @ second - first @ first.T))
    u1 = np.linalg.svd(first)[0][:, 0]
    v2 = np.linalg.svd(second)[2][0]
    assert last["layer/1/layer_alignment"] == pytest.approx(abs(u1 @ v2))
    assert last["gradient_norm"] == pytest.approx(np.sqrt(sum((slope**2).sum() for slope in slopes)))
    assert np.allclose(last["layer/2/gradient_singular_values"], np.linalg.svd(slopes[1])[1], atol=1e-12)
    assert np.allclose(last["product/gradient_singular_values"], np.linalg.svd(residual)[1], atol=1e-12)
    cosine = (first * slopes[0]).sum() / np.linalg.norm(first) / np.linalg.norm(slopes[0])
    assert last["layer/1/weight_gradient_alignment"] == pytest.approx(cosine)
    moved = first - 0.02 * slopes[0]
    change = np.linalg.norm(moved / np.linalg.norm(moved) - first / np.linalg.norm(first))
    assert last["layer/1/direction_change"] == pytest.approx(change, rel=1e-6)
    left, _, right = np.linalg.svd(product)
    teacher_left, _, teacher_right = np.linalg.svd(target)
    assert np.allclose(last["product/alignment_left"], np.abs(np.sum(left * teacher_left, axis=0))[:2])
    expected = np.diag(teacher_left.T @ product @ teacher_right.T)
    assert np.allclose(last["product/mode_strengths"], expected[:2])
    assert np.allclose(last["product/alignment_right"], np.abs(np.sum(right * teacher_right, axis=1))[:2])


def test_each_metric_has_its_own_interval():
    run = lb.train(**settings())
    assert run.steps_of("layer/1/singular_values").tolist() == list(range(201))
    assert run.steps_of("product/effective_rank").tolist() == list(range(0, 201, 7))
    assert run.steps_of("gradient_norm").tolist() == [0, 50, 100, 150, 200]
    assert run["product/alignment_left"].shape == (11, 2)


def test_recording_does_not_change_training():
    everything = lb.train(**settings(record=lb.Record(every=1)))
    nothing = lb.train(**settings(record=lb.Record(metrics=())))
    assert nothing.names == ["losses"]
    assert np.array_equal(everything.losses, nothing.losses)
    assert np.array_equal(everything.network.params, nothing.network.params)


def test_the_length_of_kernel_calls_does_not_change_bits(monkeypatch):
    expected = fingerprint(lb.train(**settings()))
    monkeypatch.setattr(chunks, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(chunks, "FIRST_CHUNK", 1)
    assert fingerprint(lb.train(**settings())) == expected


@pytest.mark.parametrize("method", [lb.GD(lr=0.02), lb.GradientFlow(dt=0.02)])
def test_the_number_of_threads_does_not_change_bits(method, tmp_path):
    """Narrow and wide: less than one panel of columns, and several that are shared out."""
    narrow = settings(method=method)
    wide = settings(
        20,
        problem=lb.Factorization(lb.from_singular_values((60, 70), [3.0, 1.5], seed=3)),
        network=lb.Network.gaussian((70, 90, 60), gamma=1.0, seed=2),
        method=method,
    )
    for arguments in (narrow, wide):
        expected = fingerprint(lb.train(**arguments))
        assert fingerprint(lb.train(**arguments, threads=2)) == expected
        assert fingerprint(lb.train(**arguments, threads=3)) == expected
    lb.train(**{**narrow, "steps": 100}, store=tmp_path / "run", threads=2)
    assert fingerprint(lb.resume(tmp_path / "run", steps=200, threads=3)) == fingerprint(lb.train(**narrow))


def test_measuring_beside_the_training_gives_the_same_run(monkeypatch):
    """One core: at once. Two: in a thread of its own, also when that is slower than the training."""
    arguments = settings(record=lb.Record(every=1))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    inline = fingerprint(lb.train(**arguments))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr("lrbias.metrics._schedule.SMALL", 0)
    assert fingerprint(lb.train(**arguments)) == inline


def test_errors_beside_the_training_surface(monkeypatch, tmp_path):
    """A metric that fails in the other thread ends the run there, although training went on meanwhile."""
    from lrbias import metrics

    arguments = settings(record=lb.Record(every=2, metrics=("balancedness", "singular_values")))
    whole = lb.train(**arguments)

    def fail_late(state):
        if state.loss <= whole.losses[60]:
            raise FloatingPointError("at the thirtieth record")
        return state.balancedness()

    assert (np.diff(whole.losses) < 0).all()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr("lrbias.metrics._schedule.SMALL", 0)
    broken = metrics.Metric("balancedness", metrics.METRICS["balancedness"].quantities, fail_late, lambda context: {})
    with monkeypatch.context() as patched:
        patched.setitem(metrics.METRICS._known, "balancedness", broken)
        with pytest.raises(FloatingPointError, match="thirtieth"):
            lb.train(**arguments, store=tmp_path / "run")
    failed = lb.open(tmp_path / "run")
    assert (failed.status, failed.step) == ("failed", 60)
    assert np.array_equal(failed["layer/1/balancedness"], whole["layer/1/balancedness"][:30])
    assert np.array_equal(failed.losses, whole.losses[:61])
    assert fingerprint(lb.resume(tmp_path / "run")) == fingerprint(whole)


def test_users_functions_are_metrics(tmp_path):
    functions = {
        "norms": lambda network: [np.linalg.norm(layer) for layer in network.layers],
        "first": lambda n: n.params[0],
    }
    run = lb.train(
        **settings(record=lb.Record(every=20, metrics={**functions, "stable_rank": 50})), store=tmp_path / "run"
    )
    assert run["norms"].shape == (11, 2)
    assert run["norms"][-1, 0] == pytest.approx(np.linalg.norm(run.network.layers[0]))
    with pytest.raises(lb.InvalidInput, match="first, norms"):
        lb.resume(tmp_path / "run", steps=300)
    longer = lb.resume(tmp_path / "run", steps=300, metrics=functions)
    at_once = lb.train(**settings(300, record=lb.Record(every=20, metrics={**functions, "stable_rank": 50})))
    assert fingerprint(longer) == fingerprint(at_once)


def test_a_failing_function_loses_nothing(tmp_path):
    def fragile(network):
        if fragile.calls == 8:
            raise ZeroDivisionError("not this time")
        fragile.calls += 1
        return network.params[1]

    fragile.calls = 0
    record = lb.Record(every=7, metrics={"fragile": fragile, "singular_values": 1})
    with pytest.raises(ZeroDivisionError):
        lb.train(**settings(record=record), store=tmp_path / "run")
    run = lb.open(tmp_path / "run")
    assert (run.status, run.step) == ("failed", 49)
    assert "not this time" in run.detail
    assert len(run["fragile"]) == 7
    assert len(run["layer/1/singular_values"]) == 49
    fragile.calls = 100
    resumed = lb.resume(tmp_path / "run", metrics={"fragile": fragile})
    assert fingerprint(resumed) == fingerprint(lb.train(**settings(record=record)))


def test_a_users_function_cannot_change_the_run():
    def vandal(network):
        network.params[:] = 0
        return 0

    disturbed = lb.train(**settings(record=lb.Record(every=1, metrics={"vandal": vandal})))
    assert np.array_equal(disturbed.network.params, lb.train(**settings()).network.params)


@pytest.mark.parametrize("every", [1, 10, 200])
def test_stop_at_a_loss_is_exact(every):
    whole = lb.train(**settings())
    threshold = float(whole.losses[123])
    run = lb.train(**settings(record=lb.Record(every=every, metrics="stable_rank"), stop=lb.Stop(loss=threshold)))
    assert (run.status, run.step) == ("stopped", 123)
    assert np.array_equal(run.losses, whole.losses[:124])
    assert run.losses[-1] <= threshold < run.losses[-2]


def test_stop_at_a_gradient_norm_on_a_record():
    whole = lb.train(**settings(600, record=lb.Record(every=1, metrics="gradient_norm")))
    norms = whole["gradient_norm"]
    run = lb.train(**settings(600, record=lb.Record(every=25, metrics=()), stop=lb.Stop(gradient=norms[500] * 1.0001)))
    expected = next(step for step in range(0, 601, 25) if norms[step] <= norms[500] * 1.0001)
    assert (run.status, run.step) == ("stopped", expected)


def test_a_start_that_is_already_good_enough_makes_no_step():
    run = lb.train(**settings(stop=lb.Stop(loss=1e6)))
    assert (run.status, run.step, len(run.losses)) == ("stopped", 0, 1)


def test_float32_runs_in_float32(tmp_path):
    network = lb.Network.gaussian((5, 7, 6), gamma=1.0, seed=2, dtype="float32")
    run = lb.train(**settings(network=network, record=lb.Record(every=10)), store=tmp_path / "run")
    assert run.network.dtype == run.losses.dtype == run["product/singular_values"].dtype == np.float32
    assert np.allclose(run.losses, lb.train(**settings()).losses, rtol=1e-3)


def test_flow_runs_and_is_what_gd_tends_to():
    flow = lb.train(**settings(method=lb.GradientFlow(dt=0.02)))
    gaps = []
    for halvings in (2, 3, 4):
        gd = lb.train(**settings(200 * 2**halvings, method=lb.GD(lr=0.02 / 2**halvings), record=lb.Record(metrics=())))
        gaps.append(np.abs(gd.network.params - flow.network.params).max())
    assert gaps[0] / gaps[1] == pytest.approx(2, abs=0.3)
    assert gaps[1] / gaps[2] == pytest.approx(2, abs=0.2)


def test_euler_flow_is_gd():
    euler = lb.train(**settings(method=lb.GradientFlow(dt=0.02, scheme="euler")))
    assert np.allclose(euler.network.params, lb.train(**settings()).network.params, rtol=1e-12)


def test_depth_one_converges_to_the_target():
    target = lb.from_singular_values((4, 3), [2.0, 1.0])
    run = lb.train(lb.Factorization(target), lb.Network.gaussian((3, 4), seed=1), lb.GD(lr=0.5), 100, forecast=False)
    assert np.allclose(run.network.product(), target, atol=1e-12)
    assert "layer/1/balancedness" not in run


def test_degenerate_targets_are_aligned_as_subspaces():
    """Two equal values: single vectors are arbitrary, the plane is not."""
    target = lb.from_singular_values((6, 5), [2.0, 2.0, 1.0], seed=5)
    run = lb.train(**settings(2000, problem=lb.Factorization(target), record=lb.Record(every=100)))
    assert run.escape_steps()[2] is not None
    assert (run["product/alignment_left"][-1] > 0.9999).all()
    assert (run["product/angles_right"][-1] < 0.01).all()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_save_everything(tmp_path, number):
    def interrupt(network):
        if interrupt.calls == 5:
            os.kill(os.getpid(), number)
        interrupt.calls += 1
        return 0

    interrupt.calls = 0
    record = lb.Record(every=7, metrics={"interrupt": interrupt, "singular_values": 1})
    with pytest.raises(lb.Interrupted, match="everything is saved; continue with: ") as caught:
        lb.train(**settings(record=record), store=tmp_path / "run")
    partial = caught.value.run
    assert caught.value.signal == number
    assert partial.status == "interrupted"
    assert 0 < partial.step < 200
    assert partial.checkpoints[-1] == partial.step
    interrupt.calls = 100
    advice = str(caught.value).split("continue with: ")[1]
    assert "'interrupt': …" in advice
    resumed = eval(advice.replace("…", "interrupt"), {"lb": lb, "interrupt": interrupt})
    assert fingerprint(resumed) == fingerprint(lb.train(**settings(record=record)))


def test_interrupted_runs_in_memory_are_handed_over():
    def interrupt(network):
        if network.params[0] != start.params[0]:
            os.kill(os.getpid(), signal.SIGINT)
        return 0

    start = settings()["network"]
    with pytest.raises(KeyboardInterrupt) as caught:
        lb.train(**settings(record=lb.Record(every=50, metrics={"interrupt": interrupt})))
    assert len(caught.value.run.losses) == caught.value.run.step + 1 == 51


def test_training_works_outside_the_main_thread():
    runs = []
    thread = threading.Thread(target=lambda: runs.append(lb.train(**settings())))
    thread.start()
    thread.join()
    assert fingerprint(runs[0]) == fingerprint(lb.train(**settings()))


def test_the_initial_network_is_left_alone():
    arguments = settings()
    before = arguments["network"].params.copy()
    lb.train(**arguments)
    assert np.array_equal(arguments["network"].params, before)


def test_divergence_keeps_what_was_recorded(tmp_path):
    run = lb.train(**settings(method=lb.GD(lr=0.6), checkpoint_every=2), store=tmp_path / "run")
    assert run.status == "diverged"
    assert f"step {run.step}" in run.detail
    assert not np.isfinite(run.losses[-1])
    assert np.isfinite(run.losses[:-1]).all()
    assert len(run.losses) == run.step + 1
    assert len(run["product/singular_values"]) == run.step
    assert np.isfinite(run.network.params).all()
    assert run.checkpoints[-1] < run.step
    with pytest.raises(lb.InvalidInput, match="diverged"):
        lb.resume(tmp_path / "run")


def test_progress_goes_to_stderr(capsys, monkeypatch):
    from lrbias.system._progress import Plain

    monkeypatch.setattr(Plain, "interval", 0.0)
    lb.train(**settings(), progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "steps/s" in shown.err
    assert "effective rank" in shown.err
    assert " left" in shown.err
    lb.train(**settings())
    assert capsys.readouterr().err == ""


def test_runs_show_themselves(run):
    text = repr(run)
    assert "finished at step 200 of 200" in text
    assert "2 of 2 modes" in text
    assert "<table>" in run._repr_html_()


def test_to_xarray(run):
    dataset = run.to_xarray()
    assert dataset["losses"].sizes["step"] == 201
    values = dataset["product_singular_values"]
    assert values.attrs["name"] == "product/singular_values"
    assert np.array_equal(values, run["product/singular_values"])
    assert dataset[values.dims[0]].values.tolist() == run.steps.tolist()


def test_layers_of_gaussian_networks_are_streams():
    """A layer does not change when others are added after it; teacher and student of one seed differ."""
    short, long = lb.Network.gaussian((8, 8, 8), seed=4), lb.Network.gaussian((8, 8, 8, 3), seed=4)
    assert np.array_equal(short.layers[1], long.layers[1])
    assert not np.array_equal(
        lb.Network.gaussian((8, 8), gamma=0, seed=4).product(), lb.teacher((8, 8), 8, 1, 1.0, seed=4)
    )


def test_gaussian_standard_deviation():
    network = lb.Network.gaussian((400, 100, 300), gamma=1.2, seed=0)
    for layer, width in zip(network.layers, (400, 100), strict=True):
        assert layer.std() == pytest.approx(width**-1.2, rel=0.02)
        assert abs(layer.mean()) < 4 * width**-1.2 / np.sqrt(layer.size)


def test_teacher_has_its_rank_scale_and_a_reasonable_spread():
    for shape, rank, depth in [((100, 100), 10, 3), ((30, 50), 5, 2), ((20, 60), 20, 1), ((40, 25), 3, 5)]:
        values = np.linalg.svd(lb.teacher(shape, rank, depth, spectral_norm=7.0, seed=3))[1]
        assert values[0] == pytest.approx(7.0)
        assert values[rank - 1] > 0.01 * 7
        assert (values[rank:] < 1e-12).all()


def test_spectrum_has_the_given_values():
    matrix = lb.from_singular_values((5, 8), [4.0, 2.0, 2.0, 0.5], seed=1)
    assert np.allclose(np.linalg.svd(matrix)[1], [4, 2, 2, 0.5, 0])


def test_layers_are_views_of_the_network():
    network = lb.Network.from_layers([np.ones((3, 2)), np.ones((4, 3))])
    network.layers[0][:] = 2
    assert (network.product() == 6).all()
    assert network.widths == (2, 3, 4)
    assert layout.size(network.widths) == network.params.size


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_rank_of_what_is_not_finite_is_a_number(bad):
    """0 is the rank of a zero matrix. Of the layers that are finite the ranks are known."""
    arguments = settings()
    network = arguments["network"]
    context = metrics.RunContext(
        arguments["problem"], network.widths, network.dtype, lb.Record(), arguments["method"], start=network.params.copy
    )
    params = network.params.copy()
    schedule = metrics.MetricSchedule(context)
    found = {}
    params[-1] = bad  # in the last layer
    state = metrics.NetworkState(context)
    schedule.measure(state, params, 0, lambda group, row, value: found.update(group.split(value)))
    for name in metrics.RANKS:
        assert np.isnan(found[f"product/{name}"]), name
        assert np.isnan(found[f"layer/2/{name}"]), name
        assert np.isfinite(found[f"layer/1/{name}"]), name
    for quantity in schedule.quantities:
        assert quantity.dtype != "i4", "which cannot hold a NaN"


def test_the_representation_cost_is_summed_in_double_precision():
    problem = lb.Factorization(lb.from_singular_values((4, 4), [3.0, 1.5], seed=3))
    network = lb.Network.gaussian((4, 4, 4, 4), gamma=1.0, seed=2, dtype="float32")
    record = lb.Record(every=1, metrics=("representation_cost", "singular_values"))
    run = lb.train(problem, network, lb.GD(lr=0.02), 50, record, progress=False, forecast=False)
    costs = [lb.theory.representation_cost(values, 3) for values in run["product/singular_values"]]
    assert np.array_equal(run["product/representation_cost"], np.array(costs, np.float32))
