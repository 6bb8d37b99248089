"""Batched kernels: every run has the bits that it has alone, whoever shares its block, and none disturbs another."""

import numpy as np
import pytest
from numba import vectorize

from backends import REFERENCE, cases
from lrcore import cpu, layout, tableau
from lrcore.cpu import _vector, workspace
from lrcore.status import DIVERGED, OK
from networks import relative

WIDTHS = [(4, 4), (3, 5, 1, 4, 2, 6), (8, 8, 8, 8), (1, 1), (2, 7, 3), (1, 1, 1), (9, 4, 13), (6, 1, 6)]
METHODS = ["gd", "rk4"]
TABLEAUS = {
    "rk4": tableau.RK4,
    "heun": tableau.HEUN,
    # Kutta's third-order method: two slopes in one stage, one of them with a negative factor.
    "kutta3": tableau._explicit("kutta3", [[1 / 2], [-1, 2]], [1 / 6, 2 / 3, 1 / 6], order=3),
}


@vectorize(["float32(float32, float32, float32)", "float64(float64, float64, float64)"])
def _fma(a, b, c):
    return _vector.fma(a, b, c)


def _product(a, b):
    """Matrices of all runs, (m, k, R) · (k, n, R): one chain of FMAs for each element, k ascending."""
    out = np.zeros((a.shape[0], b.shape[1], a.shape[2]), a.dtype)
    for k in range(a.shape[1]):
        out = _fma(a[:, k, None], b[None, k], out)
    return out


def _loss_and_residual(layers, target):
    prefix = [layers[0]]
    for layer in layers[1:]:
        prefix.append(_product(layer, prefix[-1]))
    residual = prefix[-1] - target
    columns = np.zeros_like(residual[0])
    for row in residual:
        columns = _fma(row, row, columns)
    total = columns[0]
    for column in columns[1:]:
        total = total + column
    return total * total.dtype.type(0.5), residual, prefix


def _gradients(layers, residual, prefix):
    back = residual
    gradients = []
    for i in range(len(layers) - 1, 0, -1):
        gradients.append(_product(back, prefix[i - 1].swapaxes(0, 1)))
        back = _product(layers[i].swapaxes(0, 1), back)
    return [*gradients, back][::-1]


def _emulate(method, params, widths, targets, h, steps):
    """(params, losses, statuses) of all runs (R first) by the specification of the bits; h (R,)."""
    shapes = layout.shapes(widths)
    starts = layout.offsets(widths)
    minus = params.dtype.type(-1)
    params = params.T.copy()
    target = targets.T.reshape(widths[-1], widths[0], -1)
    losses = np.full((steps, len(h)), minus)
    going = np.ones(len(h), bool)

    def evaluate(point):
        layers = [point[starts[i] : starts[i + 1]].reshape(*shape, -1) for i, shape in enumerate(shapes)]
        loss, residual, prefix = _loss_and_residual(layers, target)
        return loss, np.concatenate([g.reshape(-1, len(h)) for g in _gradients(layers, residual, prefix)])

    for k in range(steps):
        loss, gradient = evaluate(params)
        losses[k] = np.where(going, loss, minus)
        going &= np.isfinite(loss)
        if method == "gd":
            new = _fma(-h, gradient, params)
        else:
            a, b = TABLEAUS[method].astype(params.dtype)
            slopes = [_fma(minus, gradient, np.zeros_like(params))]
            for s in range(1, b.size):
                point = params
                for j in range(s):
                    if a[s, j] != 0:
                        point = _fma(h * a[s, j], slopes[j], point)
                slopes.append(_fma(minus, evaluate(point)[1], np.zeros_like(params)))
            new = params
            for s in range(b.size):
                new = _fma(h * b[s], slopes[s], new)
        params = np.where(going, new, params)
    return params.T, losses.T, np.where(going, OK, DIVERGED)


def _make(widths, runs, dtype=np.float64, seed=0):
    """(params (R, P), widths, targets (R, n_N·n_0), steps (R,)): layers of about unit norm, every run another one."""
    rng = np.random.default_rng(seed)
    widths = layout.as_widths(widths)
    scale = np.concatenate([np.full(m * n, 0.7 / np.sqrt(max(m, n))) for m, n in layout.shapes(widths)])
    params = (rng.normal(size=(runs, scale.size)) * scale).astype(dtype)
    targets = rng.normal(size=(runs, widths[-1] * widths[0])).astype(dtype)
    return params, widths, targets, rng.uniform(0.005, 0.05, runs).astype(dtype)


def _run(core, method, params, widths, targets, h, pieces):
    """(params, losses, statuses) of all runs, R first; `pieces`: the steps of each call. Scratch starts as NaN."""
    lanes = core.lanes(params.dtype)
    dtype = params.dtype
    blocked, targets, h = (layout.to_lanes(array, lanes) for array in (params, targets, h))
    statuses = np.full((len(blocked), lanes), -1)
    losses = []
    for steps in pieces:
        stages = 0 if method == "gd" else TABLEAUS[method].stages
        work = core.workspace.allocate_batch(widths, dtype, stages)
        core.spoil(work)
        losses.append(np.full((len(blocked), steps, lanes), -1, dtype))
        if method == "gd":
            core.batch_gd_steps(blocked, widths, targets, h, losses[-1], statuses, work)
        else:
            scheme = TABLEAUS[method].astype(dtype)
            core.batch_rk_steps(blocked, widths, targets, h, scheme, losses[-1], statuses, work)
    found = (blocked, np.concatenate(losses, axis=1), statuses)
    return tuple(layout.from_lanes(array, len(params)) for array in found)


def _assert_same_bits(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.dtype.kind == b.dtype.kind
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("method", ["gd", *TABLEAUS])
@cases("widths", WIDTHS, [(3, 5, 1, 4, 2, 6), (2, 7, 3)])
def test_bits_are_those_of_the_specification(core, widths, method, dtype):
    runs, steps = core.pick((19, 25), (3, 3))
    problem = _make(widths, runs, dtype)
    found = _run(core, method, *problem, pieces=[steps])
    _assert_same_bits(found, _emulate(method, *problem, steps=steps))
    assert (found[2] == OK).all()
    assert (found[1][:, -1] < found[1][:, 0]).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("method", ["gd", *TABLEAUS])
@cases("widths", WIDTHS, [(6, 1, 6), (3, 3, 2, 3)])
def test_bits_are_those_of_each_run_alone(core, widths, method, dtype):
    runs, steps = core.pick((10, 25), (3, 2))
    params, widths, targets, h = _make(widths, runs, dtype, seed=1)
    found = _run(core, method, params, widths, targets, h, pieces=[steps])
    losses, statuses = np.full((runs, steps), -1, dtype), np.full(runs, -1)
    for r in range(runs):
        target = targets[r].reshape(widths[-1], widths[0])
        if method == "gd":
            work = core.workspace.allocate(widths, dtype)
            statuses[r] = core.gd_steps(params[r], widths, target, h[r], losses[r], work)
        else:
            scheme = TABLEAUS[method]
            work = core.workspace.allocate(widths, dtype, stages=scheme.stages)
            statuses[r] = core.rk_steps(params[r], widths, target, h[r], scheme.astype(dtype), losses[r], work)
    _assert_same_bits(found, (params, losses, statuses))


@pytest.mark.parametrize("method", METHODS)
@cases("widths", WIDTHS, [(4, 4), (2, 7, 3), (1, 1, 1), (3, 2, 4, 2, 3)])
def test_runs_equal_the_reference(core, widths, method):
    problem = _make(widths, core.pick(11, 3))
    found, expected = (_run(side, method, *problem, pieces=[core.pick(100, 3)]) for side in (core, REFERENCE))
    assert relative(found[0], expected[0]) < 1e-12
    assert np.abs(found[1] / expected[1] - 1).max() < 1e-12
    assert np.array_equal(found[2], expected[2])


@pytest.mark.parametrize("method", METHODS)
@cases("runs", [1, 7, 8, 9, 16, 17], [1, 2, 5])
def test_a_run_does_not_depend_on_its_block(core, runs, method):
    params, widths, targets, h = _make(core.pick((5, 4, 6), (2, 1, 3)), runs)
    pieces = core.pick([30], [2])
    together = _run(core, method, params, widths, targets, h, pieces)
    for r in range(runs):
        alone = _run(core, method, params[r : r + 1], widths, targets[r : r + 1], h[r : r + 1], pieces)
        _assert_same_bits(alone, [array[r : r + 1] for array in together])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("method", METHODS)
def test_pieces_do_not_change_bits(core, method, dtype):
    widths, runs, pieces = core.pick(((3, 5, 1, 4, 2, 6), 21, [1, 7, 0, 32]), ((3, 2, 1, 4), 3, [1, 0, 2]))
    problem = _make(widths, runs, dtype)
    whole = _run(core, method, *problem, pieces=[sum(pieces)])
    _assert_same_bits(_run(core, method, *problem, pieces), whole)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_diverges_stops_alone(core, method, dtype):
    widths, runs, steps, rate = core.pick(((4, 6, 3), 20, 60, 30), ((2, 3, 2), 5, 6, 1e9))
    params, widths, targets, h = _make(widths, runs, dtype)
    calm = _run(core, method, params, widths, targets, h, pieces=[steps])
    wild = h.copy()
    wild[[2, runs - 1]] = rate  # in a full block, and the last run, which also fills up the last block
    with np.errstate(over="ignore", invalid="ignore"):
        expected = _emulate(method, params, widths, targets, wild, steps)
    found = _run(core, method, params, widths, targets, wild, pieces=[steps])
    _assert_same_bits(found, expected)
    assert np.flatnonzero(found[2] == DIVERGED).tolist() == [2, runs - 1]
    others = found[2] == OK
    _assert_same_bits([array[others] for array in found], [array[others] for array in calm])
    for losses in found[1][~others]:
        last = int(np.argmin(np.isfinite(losses)))
        assert last > 0
        assert not np.isfinite(losses[last])
        assert (losses[:last] >= 0).all()
        assert (losses[last + 1 :] == -1).all()


def test_a_block_of_which_all_runs_diverge_ends(core):
    params, widths, targets, h = _make((4, 6, 3), 3)
    _, losses, statuses = _run(core, "gd", params, widths, targets, h + 30, pieces=[200])
    assert (statuses == DIVERGED).all()
    assert (losses[:, -1] == -1).all()


def test_a_diverged_run_diverges_again_at_once(core):
    params, widths, targets, h = _make((4, 6, 3), 3)
    first, h[1] = core.pick((60, 30), (4, 1e9))
    _, losses, statuses = _run(core, "rk4", params, widths, targets, h, pieces=[first, 5])
    assert statuses.tolist() == [OK, DIVERGED, OK]
    assert not np.isfinite(losses[1, first])
    assert (losses[1, first + 1 :] == -1).all()
    assert np.isfinite(losses[[0, 2]]).all()


@pytest.mark.parametrize("shape", [(5,), (8, 3), (17, 2, 3)], ids=str)
def test_to_lanes_and_back(rng, shape):
    array = rng.normal(size=shape)
    blocked = layout.to_lanes(array, 8)
    assert blocked.shape == (-(-shape[0] // 8), *shape[1:], 8)
    assert blocked.ctypes.data % layout.LANE_BYTES == 0
    assert np.array_equal(blocked[0, ..., 3], array[3])
    assert np.array_equal(blocked[-1, ..., -1], array[-1])
    assert np.array_equal(layout.from_lanes(blocked, shape[0]), array)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_nothing_is_written_beyond_the_buffers(widths, dtype):
    lanes = layout.lanes(dtype)
    guards = []

    def guarded(like):
        memory = layout.aligned((like.size + 64 * lanes,), dtype)
        margin = 32 * lanes
        memory.fill(7)
        inside = memory[margin : margin + like.size].reshape(like.shape)
        inside[:] = like
        guards.extend([memory[:margin], memory[margin + like.size :]])
        return inside

    params, widths, targets, h = _make(widths, lanes, dtype)
    params, targets, h = (guarded(layout.to_lanes(array, lanes)) for array in (params, targets, h))
    losses = guarded(np.ones((1, 3, lanes)))
    statuses = np.empty((1, lanes), np.int64)
    work = workspace.BatchWorkspace(*map(guarded, workspace.allocate_batch(widths, dtype, stages=4)))
    cpu.batch_gd_steps(params, widths, targets, h, losses, statuses, work)
    cpu.batch_rk_steps(params, widths, targets, h, tableau.RK4.astype(dtype), losses, statuses, work)
    assert all((guard == 7).all() for guard in guards)
