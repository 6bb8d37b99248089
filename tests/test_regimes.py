"""Curvature, tangent kernel, updates and distances along a run: what they are, and the same bits when it is resumed."""

import threading

import numpy as np
import pytest

import lrbias as lb
from lrbias.training import _run_recorder as recording
from lrcore import cpu, layout
from lrcore.cpu import workspace
from runs import fingerprint, settings

METRICS = ("sharpness", "hessian_min_eigenvalues", "ntk", "ntk_eigenvalues", "updates", "distance_from_init")
TARGET = lb.from_singular_values((6, 5), [3.0, 1.5], seed=3)
START = lb.Network.gaussian((5, 7, 6), gamma=0.6, seed=2)
CASES = {
    "gd": {},
    "ridge": {"method": lb.GD(lr=0.02, ridge=0.05, ridge_schedule="exponential_decay:factor=0.1,start=0,stop=100")},
    "entries": {"problem": lb.Completion(TARGET, fraction=0.6, seed=1)},
    "scaled": {"network": START.scaled(3.0), "method": lb.GD(lr=0.002)},
    "deep": {"network": lb.Network.gaussian((5, 4, 3, 6), gamma=0.5, seed=1)},
    "one layer": {"network": lb.Network.gaussian((5, 6), gamma=0.5, seed=1)},
    "flow": {"method": lb.GradientFlow(dt=0.1, scheme="dopri5")},
    "float32": {"network": lb.Network.gaussian((5, 7, 6), gamma=0.6, seed=2, dtype="float32")},
}


def _arguments(case="gd", steps=60, **changes):
    own = {"network": START, "record": lb.Record(every=20, metrics=METRICS), "checkpoint_every": 20}
    return settings(steps, **{**own, **CASES[case], **changes})


def _hessian(run, step):
    """All eigenvalues of the Hessian at a checkpoint, from the dense one, smallest first."""
    params = run.checkpoint(step).params.astype(np.float64)
    widths = layout.as_widths(run.widths)
    dense = np.empty((params.size, params.size))
    work = workspace.allocate_curvature(widths)
    ridge = float(run.method.ridges(step, 1)[0])
    cpu.hessian(params, widths, run.problem.objective(np.float64), ridge, dense, work)
    return np.linalg.eigvalsh(dense)


def _kernel(network):
    """K = J Jᵀ from the Jacobian of the output with respect to all weights."""
    layers = [layer.astype(np.float64) for layer in network.layers]
    columns = []
    for i, layer in enumerate(layers):
        for j, k in np.ndindex(layer.shape):
            unit = np.zeros_like(layer)
            unit[j, k] = 1
            moved = network.output_scale * np.linalg.multi_dot(
                [np.eye(network.widths[-1]), *[*layers[:i], unit, *layers[i + 1 :]][::-1], np.eye(network.widths[0])]
            )
            columns.append(moved.ravel())
    jacobian = np.array(columns).T
    return jacobian @ jacobian.T


@pytest.mark.parametrize("case", CASES)
def test_what_is_recorded_is_what_it_is_called(case):
    run = lb.train(**_arguments(case))
    exact = 1e-4 if case == "float32" else 1e-9
    first = _kernel(run.checkpoint(0))
    before = None
    for row, step in enumerate(run.steps_of("distance_from_init")):
        network = run.checkpoint(step)
        values = _hessian(run, step)
        span = np.abs(values).max()
        assert run["hessian/largest"][row] == pytest.approx(values[::-1][:3], abs=1e-6 * span)
        assert run["hessian/smallest"][row] == pytest.approx(values[:3], abs=1e-6 * span)
        kernel = _kernel(network)
        norm = np.linalg.norm(kernel)
        cosine = np.sum(kernel * first) / norm / np.linalg.norm(first)
        assert run["ntk/norm"][row] == pytest.approx(norm, rel=exact)
        assert run["ntk/distance"][row] == pytest.approx(1 - cosine, abs=10 * exact)
        expected = np.linalg.norm(kernel - first) / np.linalg.norm(first)
        assert run["ntk/change"][row] == pytest.approx(expected, abs=1e-3 if case == "float32" else 1e-7)
        assert run["ntk/eigenvalues"][row] == pytest.approx(np.linalg.eigvalsh(kernel)[::-1][:3], rel=1e-5)
        moved = [np.linalg.norm(a - b) for a, b in zip(network.layers, run.checkpoint(0).layers, strict=True)]
        assert [run[f"layer/{i}/distance_from_init"][row] for i in range(1, run.depth + 1)] == pytest.approx(
            moved, rel=1e-5
        )
        assert run["distance_from_init"][row] == pytest.approx(np.linalg.norm(moved), rel=1e-5)
        _check_updates(run, row, network, before or network)
        before = network


def _check_updates(run, row, network, before):
    pairs = {"product": (network.product(), before.product())}
    pairs.update({f"layer/{i}": pair for i, pair in enumerate(zip(network.layers, before.layers, strict=True), 1)})
    for key, (now, then) in pairs.items():
        values = np.linalg.svd(now.astype(float) - then, compute_uv=False)
        rough = 1e-5 if network.dtype == np.float32 else 1e-12
        assert run[f"{key}/update_singular_values"][row] == pytest.approx(values, abs=rough * float(np.abs(now).max()))
        ranks = (values.sum() / values[0], (values**2).sum() / values[0] ** 2) if values[0] else (0, 0)
        found = [run[f"{key}/update_{rank}"][row] for rank in ("effective_rank", "stable_rank")]
        assert found == pytest.approx(ranks, rel=1e-2 if network.dtype == np.float32 else 1e-7)


def test_none_is_recorded_unless_it_is_named():
    run = lb.train(**_arguments(record=lb.Record(every=20)))
    assert not [
        name
        for name in run.names
        if name.startswith(("hessian", "ntk")) or "update" in name or "distance_from_init" in name
    ]
    assert "memory/hessian/largest" not in run._source.checkpoint_arrays(20)


def test_a_start_of_zeros_has_no_kernel():
    method = lb.GLRL(inner=lb.GD(lr=0.05), max_rank=1, check_every=20)
    run = lb.train(**settings(200, network=None, method=method, record=lb.Record(metrics=("ntk",))))
    assert np.isnan(run["ntk/distance"]).all()
    assert run["ntk/norm"][0] == 0


def test_eigenvalues_of_a_record_start_from_those_before():
    run = lb.train(**_arguments(steps=400, record=lb.Record(every=2, metrics=("sharpness",), leading=1)))
    products = run["hessian/largest_products"]
    assert products[1:].mean() < 0.8 * products[0]


def test_rows_are_the_same_beside_the_training_and_in_it(monkeypatch):
    """They are made in order in either thread, since each enters the next."""
    found, threads = [], []

    def note(network):
        threads[-1].add(threading.get_ident())
        return 0.0

    record = lb.Record(every=1, metrics={**dict.fromkeys(METRICS, 1), "mine": note})
    for beside in (True, False):
        monkeypatch.setattr(recording, "logs_asynchronously", lambda *_, beside=beside: beside)
        threads.append(set())
        found.append(fingerprint(lb.train(**_arguments(steps=60, record=record))))
    assert found[0] == found[1]
    own = {threading.get_ident()}
    assert threads[0] - own, "some rows were made beside the training"
    assert threads[1] == own


@pytest.mark.parametrize("every", [20, 12])
def test_a_run_that_is_taken_up_goes_on_with_the_same_bits(tmp_path, every):
    """From checkpoints at which there is a record (20), which is then made twice, and from others (12)."""
    record = lb.Record(
        metrics={"sharpness": every, "updates": 8, "ntk_eigenvalues": every, "ntk": 10, "distance_from_init": 5}
    )
    whole = fingerprint(lb.train(**_arguments(steps=100, record=record)))
    lb.train(**_arguments(steps=60, record=record, store=tmp_path / "run"))
    assert fingerprint(lb.resume(tmp_path / "run", steps=100)) == whole
    for step in (0, 20, 40, 80):
        assert fingerprint(lb.resume(tmp_path / "run", from_checkpoint=step)) == whole


def test_such_runs_of_a_sweep_are_made_alone(tmp_path):
    base = {"shape": [4, 4], "rank": 2, "depth": 2, "steps": 20, "every": 10, "metrics": ["sharpness", "ntk"]}
    made = lb.sweep(base, {"seed": list(range(9))}, tmp_path / "sweep", workers=1, progress=False)
    assert not list((tmp_path / "sweep" / "batches").glob("*.npz"))
    assert made["seed=3"]["hessian/largest"].shape == (3, 3)


def test_settings_are_refused_in_one_sentence():
    with pytest.raises(lb.InvalidInput, match=r"leading = 0 is not accepted: expected an integer of at least 1"):
        lb.Record(leading=0)
    with pytest.raises(
        lb.InvalidInput, match=r"eigen_tolerance = 1 is not accepted: expected a number between 0 and 1"
    ):
        lb.Record(eigen_tolerance=1)
