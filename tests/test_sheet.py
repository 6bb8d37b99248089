"""A record in one call: every part against the reference and against the kernels one by one; what is refused; bits."""

import hashlib
import itertools

import numpy as np
import pytest

import lrbias as lb
from lrbias import metrics
from lrcore import cpu, layout, reference
from lrcore.cpu import decomposition, svd, workspace
from lrcore.sheet import PRODUCT, SIDES, Compared, Point, Sheet

SHAPES = [(4, 4, 4, 4), (8, 8, 8), (5, 7, 6, 9), (9, 2, 3, 5, 4), (6, 5), (1, 3, 1), (33, 20, 40)]
SINGLE = [("gradient_norm",), ("squared_norm",), ("cost",), ("strengths",), ("balancedness",), ("neighbours",)]


def _parts(depth):
    keys = [PRODUCT, *range(1, depth + 1)]
    parts = [(name, key) for name in ("values", "ranks") for key in (*keys, *(("gradient", key) for key in keys))]
    return [*parts, *itertools.product(("cosines", "angles"), SIDES), *SINGLE, ("directions",)]


def _compared(m, n, count, rng, clusters=None):
    left, right = (np.linalg.qr(rng.normal(size=(side, min(m, n))))[0].copy() for side in (m, n))
    rows = np.array(clusters or [(i, i + 1) for i in range(count)], np.int64)
    return Compared(left, right, rows, left[:, :count].copy(), right[:, :count].copy(), 1e-6, 1e-3, 1.0)


def _point(widths, dtype, rng, params=None):
    """A network near a target, with what follows from it."""
    widths = layout.as_widths(widths)
    if params is None:
        params = rng.normal(size=layout.size(widths)) / np.sqrt(max(widths))
    params = np.asarray(params, dtype)
    work = workspace.allocate(widths, dtype)
    product, gradient = np.empty((widths[-1], widths[0]), dtype), np.empty_like(params)
    target = rng.normal(size=product.shape).astype(dtype)
    cpu.product(params, widths, product, work)
    cpu.loss_and_gradient(params, widths, target, gradient, work)
    return Point(params, widths, target, product, gradient, product - target, 0.01)


def _both(sheet, point):
    """What the kernels write and what the reference does."""
    ours, expected = np.full((2, sheet.size), -7.0)
    cpu.fill_sheet(sheet, point, ours, workspace.allocate_sheet(sheet))
    with np.errstate(all="ignore"):
        reference.fill_sheet(sheet, point, expected)
    return ours, expected


def _sheet(widths, dtype, rng, parts=None, count=None):
    m, n = widths[-1], widths[0]
    compared = _compared(m, n, min(*widths, 3) if count is None else count, rng)
    return Sheet(widths, dtype, parts or _parts(len(widths) - 1), compared)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("widths", SHAPES, ids=str)
def test_every_part_is_that_of_the_reference(widths, dtype, rng):
    sheet, point = _sheet(widths, dtype, rng), _point(widths, dtype, rng)
    ours, expected = _both(sheet, point)
    sure = 1e-10 if dtype == "float64" else 2e-4
    for part, place in sheet.places.items():
        # the reference has angles by their cosines; a root of a value that is 0 but for rounding is no longer small
        far = 1e-6 if part[0] in ("angles", "cost") else 0
        assert np.allclose(ours[place], expected[place], rtol=sure, atol=max(sure, far)), part


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_what_a_sheet_forms_itself_has_the_bits_of_what_it_is_given(dtype, rng):
    widths = (6, 7, 5, 8)
    given, compared = _point(widths, dtype, rng), _compared(8, 6, 2, rng)
    empty = given._replace(product=given.product * 0, gradient=given.gradient * 0, slope=given.slope * 0)
    outs = []
    for forms, point in ((False, given), (True, empty)):
        sheet = Sheet(widths, dtype, _parts(3), compared, forms)
        outs.append(np.empty(sheet.size))
        cpu.fill_sheet(sheet, point, outs[-1], workspace.allocate_sheet(sheet))
    assert np.array_equal(*outs)
    for name in ("product", "gradient", "slope"):
        assert np.array_equal(getattr(empty, name), getattr(given, name)), name


def test_parts_alone_have_the_bits_that_they_have_together(rng):
    widths = (6, 7, 5, 6)
    compared, point = _compared(6, 6, 2, rng), _point(widths, np.float64, rng)
    whole = Sheet(widths, np.float64, _parts(3), compared)
    together = np.empty(whole.size)
    cpu.fill_sheet(whole, point, together, workspace.allocate_sheet(whole))
    for part, place in whole.places.items():
        sheet = Sheet(widths, np.float64, [part], compared)
        alone = np.empty(sheet.size)
        cpu.fill_sheet(sheet, point, alone, workspace.allocate_sheet(sheet))
        assert np.array_equal(alone, together[place]), part


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_values_ranks_and_cosines_are_those_of_the_kernels_one_by_one(dtype, rng):
    widths = (9, 12, 10, 8)
    clusters = [(0, 2), (0, 2), (2, 3)]
    compared, point = _compared(8, 9, 3, rng, clusters), _point(widths, dtype, rng)
    sheet = Sheet(widths, dtype, _parts(3), compared)
    ours, _ = _both(sheet, point)
    layers = layout.layers(point.params, point.widths)
    matrices = [point.product, *layers]
    counts = [3, 1, 1, 1]
    found = cpu.spectra(matrices, counts, workspace.allocate_spectra([each.shape for each in matrices], counts))
    for key, (_, values, _) in enumerate(found):
        ranks = np.empty(6)
        cpu.rank_metrics(values.astype(np.float64), 1e-6, 1e-3, ranks)
        assert np.array_equal(ours[sheet.places["values", key]], values)
        assert np.array_equal(ours[sheet.places["ranks", key]], ranks)
    if dtype == np.float64:
        cosines = np.empty(3)
        cpu.vector_alignment(found[0][0], compared.left, compared.clusters, cosines)
        assert np.array_equal(ours[sheet.places["cosines", "left"]], cosines)


HARD = {
    "identity": np.tile(np.eye(5).ravel(), 3),  # vectors of equal values
    "zero": np.zeros(75),
    "tiny": np.full(75, 1e-310),
    "huge": np.eye(5).ravel().tolist() * 2 + (1e200 * np.arange(25.0)).tolist(),
    "a zero layer": np.r_[np.zeros(25), np.arange(50.0)],
}


@pytest.mark.parametrize("name", HARD)
def test_what_cannot_be_certified_is_made_by_lapack(name, rng):
    sheet = _sheet((5, 5, 5, 5), np.float64, rng)
    with np.errstate(all="ignore"):
        point = _point((5, 5, 5, 5), np.float64, rng, HARD[name])
    before = svd.lapack_calls.total()
    ours, expected = _both(sheet, point)
    assert name == "huge" or svd.lapack_calls.total() > before
    for part, place in sheet.places.items():
        if part[0] in ("values", "squared_norm", "gradient_norm", "balancedness"):
            scale = np.nan_to_num(np.abs(expected[place]).max(initial=0), posinf=0)
            assert np.allclose(ours[place], expected[place], rtol=1e-9, atol=1e-13 * scale, equal_nan=True), part
    for side in SIDES:
        assert not np.isnan(ours[sheet.places["angles", side]]).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_nan_where_it_matters(bad, rng):
    params = rng.normal(size=75)
    params[-1] = bad
    sheet = _sheet((5, 5, 5, 5), np.float64, rng)
    with np.errstate(all="ignore"):
        ours, _ = _both(sheet, _point((5, 5, 5, 5), np.float64, rng, params))
    for part in (("values", PRODUCT), ("ranks", PRODUCT), ("ranks", 3), ("cosines", "left"), ("angles", "right")):
        assert np.isnan(ours[sheet.places[part]]).all(), part
    for part in (("values", 1), ("ranks", 2)):
        assert np.isfinite(ours[sheet.places[part]]).all(), part


def test_matrices_that_are_too_large_go_to_lapack_at_every_record(rng, monkeypatch):
    """Those that angles come from, too."""
    monkeypatch.setattr(decomposition, "LARGEST", 2)
    sheet, point = _sheet((5, 4, 6), np.float64, rng), _point((5, 4, 6), np.float64, rng)
    work = workspace.allocate_sheet(sheet)
    expected = _both(sheet, point)[1]
    for _ in range(2):
        before = svd.lapack_calls["size"]
        ours = np.empty(sheet.size)
        cpu.fill_sheet(sheet, point, ours, work)
        assert svd.lapack_calls["size"] - before == 6 + 4
        for part, place in sheet.places.items():
            assert np.allclose(ours[place], expected[place], atol=1e-6 if part[0] == "angles" else 1e-10), part


def test_a_sheet_is_filled_again_without_a_trace_of_what_was_there(rng):
    sheet = _sheet((5, 5, 5, 5), np.float64, rng)
    points = [_point((5, 5, 5, 5), np.float64, rng), _point((5, 5, 5, 5), np.float64, rng, HARD["identity"])]
    work = workspace.allocate_sheet(sheet)
    for point in (*points, *points):
        ours, again = np.empty((2, sheet.size))
        cpu.fill_sheet(sheet, point, ours, work)
        cpu.fill_sheet(sheet, point, again, workspace.allocate_sheet(sheet))
        assert np.array_equal(ours, again)


def test_records_of_several_intervals_have_the_bits_of_every_one():
    problem = lb.Factorization(lb.from_singular_values((6, 5), [3.0, 1.5], seed=3))
    network = lb.Network.gaussian((5, 7, 6), gamma=1.0, seed=2)
    often = {"singular_values": 2, "alignment": 3, "gradient_norm": 1, "effective_rank": 6, "representation_cost": 4}
    runs = [
        lb.train(problem, network, lb.GD(lr=0.02), 600, lb.Record(metrics=metrics), forecast=False)
        for metrics in (often, dict.fromkeys(often, 1))
    ]
    for name in runs[0].names:
        if name != "loss":
            interval = 600 // (len(runs[0][name]) - 1)
            assert np.array_equal(runs[0][name], runs[1][name][::interval]), name


def sheet_hash():
    """A hash of the parts that are found without library functions of one machine: all but angles, entropy and cost."""
    rng = np.random.default_rng(5)
    digest = hashlib.sha256()
    for widths in ((8, 8, 8, 8), (5, 17, 9), (33, 20, 40)):
        params = rng.integers(-99, 99, layout.size(widths)) / 512
        target = rng.integers(-99, 99, (widths[-1], widths[0])) / 64
        sheet = _sheet_of_integers(widths, rng)
        work = workspace.allocate(layout.as_widths(widths))
        product, gradient = np.empty(target.shape), np.empty_like(params)
        cpu.product(params, sheet.widths, product, work)
        cpu.loss_and_gradient(params, sheet.widths, target, gradient, work)
        out = np.empty(sheet.size)
        point = Point(params, sheet.widths, target, product, gradient, product - target, 0.125)
        cpu.fill_sheet(sheet, point, out, workspace.allocate_sheet(sheet))
        for part, place in sheet.places.items():
            if part[0] not in ("angles", "cost", "ranks"):
                digest.update(out[place].tobytes())
    return digest.hexdigest()


def _sheet_of_integers(widths, rng):
    """Directions that are columns of the identity, so that no library makes them."""
    sides = [np.eye(side)[:, :3].copy() for side in (widths[-1], widths[0])]
    rows = np.array([(0, 1), (1, 3), (1, 3)], np.int64)
    compared = Compared(*sides, rows, *sides, 1e-6, 1e-3, 1.0)
    return Sheet(widths, np.float64, _parts(len(widths) - 1), compared)


class Halving(lb.GD):
    """A method whose step size changes although it has no schedule."""

    def rates(self, first, count):
        return self.lr * 0.5 ** np.arange(first, first + count)


def test_the_step_size_of_a_record_is_that_of_its_step():
    network = lb.Network.gaussian((4, 4, 4), seed=1)
    problem = lb.Factorization(lb.from_singular_values((4, 4), [2.0, 1.0], seed=0))
    method = Halving(lr=0.1)
    context = metrics.RunContext(
        problem, network.widths, network.dtype, lb.Record(metrics=("direction_change",)), method
    )
    state, schedule = metrics.NetworkState(context), metrics.MetricSchedule(context)
    for step in (0, 10, 20):
        found = {}
        schedule.measure(
            state, network.params, step, lambda group, row, value, found=found: found.update(group.split(value))
        )
        expected = np.empty((2, 3))
        state.at(network.params, step)
        reference.directions(network.params, state.gradient, state.widths, method.rates(step, 1)[0], expected)
        assert np.allclose(
            [found["layer/1/direction_change"], found["layer/2/direction_change"]], expected[:, 2], rtol=1e-10
        )


def test_quantities_without_numbers_have_rows_all_the_same(tmp_path):
    """A target of zeros has no directions."""
    network = lb.Network.gaussian((5, 6, 6), seed=1)
    arguments = lb.Factorization(np.zeros((6, 5))), network, lb.GD(lr=0.02), 60
    for store in (None, tmp_path / "run"):
        run = lb.train(*arguments, lb.Record(every=5, metrics=("alignment",)), store=store, forecast=False)
        assert run["product/alignment_left"].shape == (13, 0)


@pytest.mark.parametrize("metrics", [["balancedness"], {"singular_values": 10, "balancedness": 7}, ["errors"]])
def test_a_batch_records_metrics_that_have_nothing_to_say(metrics, tmp_path):
    """One layer is balanced with no other one, a whole target has no hidden entries."""
    base = {"shape": [6, 6], "rank": 2, "gamma": 1.0, "steps": 60, "lr": 0.01, "depth": 1, "metrics": metrics}
    made = lb.sweep(base, {"seed": range(8)}, tmp_path / "sweep", workers=1, progress=False)
    assert made.counts() == {"finished": 8}


@pytest.mark.parametrize("dtype", ["float16", "int64", "int32", ">f8", "bool"])
def test_matrices_of_other_types_are_refused(dtype):
    with pytest.raises(TypeError, match="the workspace is for"):
        cpu.spectra([np.ones((5, 4)).astype(dtype)], [0], workspace.allocate_spectra([(5, 4)], [0]))


@pytest.mark.parametrize(("shape", "count"), [((3, 2), 0), ((50, 40), 0), ((5, 4), 2)])
def test_matrices_that_the_workspace_was_not_made_for_are_refused(shape, count):
    with pytest.raises(TypeError, match="the workspace is for"):
        cpu.spectra([np.ones(shape)], [count], workspace.allocate_spectra([(5, 4)], [0]))
