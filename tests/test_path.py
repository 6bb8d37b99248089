"""Distance from a path: the kernel against brute force and exact cases; the product as a metric; runs as paths."""

import hashlib
import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import lrbias as lb
from lrbias.analysis import _paths
from lrbias.plots import _figures as plots
from lrcore import cpu, reference
from runs import call, settings

NAME = "product/matrix"


def _nearest(points, path, pieces=None, kernel=cpu.nearest_on_path):
    """(squared distances, places); pieces: rows (first, last) of the path in the order in which they are given."""
    points, path = np.array(points, float), np.array(path, float)
    best, places = np.full(len(points), np.inf), np.full(len(points), np.nan)
    for first, last in pieces or [(0, len(path) - 1)]:
        kernel(points, path[first : last + 1], first, best, places, np.empty(last + 1 - first))
    return best, places


def _walks(rows, count, size, seed=0):
    """Random walks: points that keep near the path, and points that go elsewhere."""
    rng = np.random.default_rng(seed)
    path = rng.normal(size=(count, size)).cumsum(axis=0)
    near = path[rng.integers(count, size=rows // 2)] + 0.1 * rng.normal(size=(rows // 2, size))
    return np.concatenate([near, rng.normal(size=(rows - rows // 2, size)).cumsum(axis=0)]), path


@pytest.mark.parametrize("size", [2, 3, 7, 8, 9, 63, 64, 100, 131, 400])
def test_the_kernel_is_brute_force_over_all_segments(size):
    points, path = _walks(60, 90, size, seed=size)
    best, places = _nearest(points, path)
    expected, where = _nearest(points, path, kernel=reference.nearest_on_path)
    assert np.allclose(best, expected, rtol=1e-12, atol=0)
    assert np.allclose(places, where, rtol=0, atol=1e-9)


def test_points_on_the_path_are_there():
    """Rows, and points at fractions that binary numbers can hold: exactly 0, at exactly that place."""
    path = np.random.default_rng(1).integers(-64, 64, size=(40, 20)) * 16.0
    assert _nearest(path, path)[0].tolist() == [0] * 40
    assert _nearest(path, path)[1].tolist() == list(range(40))
    for fraction in (0.25, 0.5, 0.875):
        best, places = _nearest(path[:-1] + fraction * np.diff(path, axis=0), path)
        assert best.tolist() == [0] * 39
        assert places.tolist() == [j + fraction for j in range(39)]


def test_a_circle_around_a_straight_path():
    """Radius 5 at places along it and beyond both ends, in whole numbers: exact."""
    path = np.zeros((11, 3))
    path[:, 0] = 2 * np.arange(11)
    circle = [(y, z) for y, z in itertools.product(range(-5, 6), repeat=2) if y * y + z * z == 25]
    assert len(circle) == 12
    for x, place in ((0, 0.0), (7, 3.5), (20, 10.0), (8.5, 4.25)):
        best, places = _nearest([(x, y, z) for y, z in circle], path)
        assert best.tolist() == [25.0] * 12
        assert places.tolist() == [place] * 12
    for x, place in ((-12, 0.0), (32, 10.0)):
        best, places = _nearest([(x, y, z) for y, z in circle], path)
        assert best.tolist() == [169.0] * 12
        assert places.tolist() == [place] * 12


def _halves(count, size):
    """Pieces of `size` rows, each beginning with the last row of the one before."""
    return [(first, min(first + size - 1, count - 1)) for first in range(0, count - 1, size - 1)]


@pytest.mark.parametrize("size", [2, 3, 10, 89])
def test_pieces_give_the_bits_of_the_whole_in_any_order(size):
    points, path = _walks(80, 90, 37)
    whole = _nearest(points, path)
    pieces = _halves(90, size)
    for order in (pieces, pieces[::-1], np.random.default_rng(0).permutation(pieces).tolist()):
        assert np.array_equal(_nearest(points, path, order), whole)
    one_by_one = [_nearest(points[i : i + 1], path) for i in range(80)]
    assert np.array_equal(np.concatenate(one_by_one, axis=1), whole)


@hypothesis_settings(max_examples=150, deadline=None)
@given(st.integers(1, 30), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**31), st.integers(2, 7))
def test_with_many_ties_neither_pieces_nor_their_order_matter(count, size, range_of, seed, rows):
    """Few whole numbers, so rows repeat, segments have no length and distances are equal."""
    rng = np.random.default_rng(seed)
    points, path = (rng.integers(-range_of, range_of + 1, size=(n, size)) for n in (25, count))
    best, places = whole = _nearest(points, path)
    pieces = _halves(count, rows) or [(0, 0)]
    assert np.array_equal(_nearest(points, path, pieces[::-1]), whole)
    assert np.array_equal(_nearest(points[::-1], path), np.stack(whole)[:, ::-1])
    expected, _ = _nearest(points, path, kernel=reference.nearest_on_path)
    assert np.allclose(best, expected, rtol=1e-12, atol=1e-30)
    at = np.minimum(places.astype(int), count - 1)
    there = path[at] + (places - at)[:, None] * (path[np.minimum(at + 1, count - 1)] - path[at])
    assert np.allclose(np.sum((points - there) ** 2, axis=1), best, atol=1e-12)


def test_of_equally_near_places_it_is_the_earliest():
    square = [(0, 0), (2, 0), (2, 2), (0, 2), (0, 0), (2, 0)]
    points = [(1, 1), (1, -1), (2, 0), (-3, -3), (1.5, 1.5), (0, 0)]
    for pieces in (None, [(3, 5), (0, 3)], _halves(6, 2)[::-1]):
        best, places = _nearest(points, square, pieces)
        assert best.tolist() == [1, 1, 0, 18, 0.25, 0]
        assert places.tolist() == [0.5, 0.5, 1, 0, 1.75, 0]
    still = np.ones((50, 3))
    assert _nearest([(1, 1, 1), (2, 1, 1)], still)[1].tolist() == [0, 0]
    assert _nearest([(1, 1, 1), (2, 1, 1)], still, [(30, 49), (0, 30)])[1].tolist() == [0, 0]


def test_what_is_not_finite():
    """A point gives NaN; a row is no part of the path, and no segment goes across it."""
    path = np.array([(0, 0), (4, 0), (np.nan, 0), (4, 8), (8, 8), (np.inf, 1), (20, 20)])
    points = [(2, 1), (np.nan, 0), (4, 4.5), (21, 20), (8, np.inf), (4, 3)]
    for kernel in (cpu.nearest_on_path, reference.nearest_on_path):
        for pieces in (None, _halves(7, 2), _halves(7, 3)[::-1]):
            best, places = _nearest(points, path, pieces, kernel)
            assert np.array_equal(best, [1, np.nan, 12.25, 1, np.nan, 9], equal_nan=True)
            assert np.array_equal(places, [0.5, np.nan, 3, 6, np.nan, 1], equal_nan=True)


def test_nothing_finite_is_infinitely_far():
    best, places = _nearest([(1, 2)], [(np.nan, 0), (0, np.inf)])
    assert best.tolist() == [np.inf]
    assert np.isnan(places).all()


def _exact(point, start, end):
    """(distance, fraction) of one point and one segment, in rational numbers."""
    point, start, end = ([Fraction(float(x)) for x in vector] for vector in (point, start, end))
    step = [b - a for a, b in zip(start, end, strict=True)]
    along = sum((p - a) * s for p, a, s in zip(point, start, step, strict=True)) / sum(s * s for s in step)
    along = min(max(along, 0), 1)
    return math.sqrt(sum((p - a - along * s) ** 2 for p, a, s in zip(point, start, step, strict=True))), along


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9])
def test_tiny_distances_do_not_cancel(fraction):
    """1e-12 away from a path of norm 10, where differences of squared norms would be rounding alone."""
    rng = np.random.default_rng(3)
    path = rng.normal(size=(50, 100))
    path *= 10 / np.linalg.norm(path, axis=1)[:, None]
    path[1:] = path[:-1] + 0.1 * np.diff(path, axis=0)
    directions = rng.normal(size=(49, 100))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    points = path[:-1] + fraction * np.diff(path, axis=0) + 1e-12 * directions
    best, places = _nearest(points, path)
    for j, point in enumerate(points):
        segments = [k for k in (j - 1, j) if k >= 0]
        expected = min(_exact(point, path[k], path[k + 1])[0] for k in segments)
        assert expected == pytest.approx(1e-12, rel=0.1)
        assert math.sqrt(best[j]) == pytest.approx(expected, rel=2e-3)
    assert np.allclose(places, np.arange(49) + fraction, rtol=0, atol=1e-11)


def test_a_path_of_one_row_is_a_point():
    points = np.array([(3, 4, 0), (0, 0, 0), (2, 3, 6)])
    assert np.array_equal(_nearest(points, [(0, 0, 0)]), [[25, 0, 49], [0, 0, 0]])


def path_hash():
    """A hash of squared distances and places of random walks."""
    found = [_nearest(*_walks(50, 200, size)) for size in (5, 64, 131)]
    return hashlib.sha256(np.concatenate(found).tobytes()).hexdigest()


METRICS = ("singular_values", "effective_rank", "product")


def _train(steps=200, every=5, metrics=METRICS, **changes):
    return lb.train(**settings(steps, record=lb.Record(every=every, metrics=metrics), **changes))


@pytest.fixture(scope="module")
def run():
    return _train(checkpoint_every=5)


def test_the_product_is_recorded_where_it_is_named(run):
    """Every record, also where several wait to be written, against the product of that checkpoint's layers."""
    rows = run[NAME]
    assert rows.shape == (41, 6, 5)
    for step, row in zip(run.steps_of(NAME), rows, strict=True):
        assert np.allclose(row, run.checkpoint(step).product(), rtol=0, atol=1e-14)
    assert not (rows[:-1] == rows[1:]).all(axis=(1, 2)).any()
    assert np.array_equal(run.rows(NAME, 7, 12), rows[7:12])
    assert np.array_equal(run.rows(NAME, 38, 99), rows[38:])
    assert run.rows(NAME, 60, 99).shape == (0, 6, 5)
    assert NAME not in lb.train(**settings(10, record=lb.Record()))


def test_all_that_looks_at_a_run_takes_rows_that_are_matrices(work, capsys):
    made = _train(store="a")
    pytest.importorskip("xarray")
    found = made.to_xarray()["product_matrix"]
    assert found.dims == ("step_every_5", "product_matrix_axis_1", "product_matrix_axis_2")
    assert np.array_equal(found, lb.open("a")[NAME])
    assert lb.open("a").check() == []
    assert len(plots.save(made, "figures", ("png",))) == 5
    code, text, _ = call(capsys, "info a --check --json")
    assert code == 0
    assert NAME in json.loads(text)["names"]
    assert call(capsys, "report a -o page.html")[0] == 0
    assert call(capsys, "info a")[0] == 0


def test_a_run_follows_itself_exactly(run):
    t, distances, nearest = lb.trajectory_distance(run, run)
    assert t.tolist() == (run.steps_of(NAME) * 0.02).tolist()
    assert distances.tolist() == [0.0] * 41
    assert np.array_equal(nearest, t)


def test_a_flow_with_half_the_step_goes_the_same_way():
    """Up to the error of the method, which is of order 4."""
    coarse, half, fine = (_train(200 * k, 1, method=lb.GradientFlow(dt=0.02 / k)) for k in (1, 2, 8))
    t, distances, nearest = lb.trajectory_distance(coarse, half)
    assert 0 < distances.max() < 1e-6
    assert np.allclose(nearest, t, rtol=0, atol=1e-5)
    gaps = [lb.trajectory_distance(run, fine)[1].max() for run in (coarse, half)]
    assert gaps[0] / gaps[1] == pytest.approx(16, rel=0.2)


def test_joining_records_errs_by_the_square_of_their_distance():
    """The chord of a curve: one flow against itself with every 8th and with every 16th point."""
    flow, *others = (_train(400, every, method=lb.GradientFlow(dt=0.01)) for every in (1, 8, 16))
    gaps = [lb.trajectory_distance(flow, other)[1].max() for other in others]
    assert gaps[1] / gaps[0] == pytest.approx(4, rel=0.15)


def test_gd_goes_another_way_than_the_flow_by_the_first_power_of_its_step():
    flow = _train(4000, 2, method=lb.GradientFlow(dt=0.001))
    runs = [_train(200 * 2**k, 2**k, method=lb.GD(lr=0.02 / 2**k)) for k in range(3)]
    gaps = [lb.trajectory_distance(run, flow)[1].max() for run in runs]
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.1)
    assert gaps[1] / gaps[2] == pytest.approx(2, rel=0.1)
    at_records = np.linalg.norm(flow[NAME][:, None] - runs[0][NAME], axis=(2, 3)).min(axis=0)
    longest = np.linalg.norm(np.diff(flow[NAME], axis=0), axis=(1, 2)).max()
    gain = at_records - lb.trajectory_distance(runs[0], flow)[1]
    assert gain.min() > -1e-15
    assert 0.01 * longest < gain.max() < 0.5 * longest


def test_runs_are_read_in_pieces_from_folders_too(work, monkeypatch):
    run, other = _train(store="a"), _train(310, 7, method=lb.GD(lr=0.013), store="b")
    whole = lb.trajectory_distance(run, other)
    assert whole[1][1:].min() > 0
    for rows in (1, 4, 11):
        monkeypatch.setattr(_paths, "PIECE_BYTES", rows * 30 * 8)
        assert np.array_equal(lb.trajectory_distance("a", work / "b"), whole)


def test_a_run_that_diverged_is_as_far_as_it_was_finite():
    wild, run = _train(method=lb.GD(lr=0.6), every=1), _train(every=1)
    assert wild.status == "diverged"
    _, distances, _ = lb.trajectory_distance(wild, run)
    finite = np.isfinite(wild[NAME]).all(axis=(1, 2))
    assert np.array_equal(np.isnan(distances), ~finite)
    assert lb.trajectory_distance(run, wild)[1][0] == 0


def test_what_is_refused(run):
    bare = _train(metrics=("singular_values",))
    with pytest.raises(lb.InvalidInput, match=r"^run = 'GD, lr = 0.02' is not accepted: .* recorded product/matrix"):
        lb.trajectory_distance(bare, run)
    with pytest.raises(lb.InvalidInput, match=r"^reference = 'GD, lr = 0.02' is not accepted: .* metric product\.$"):
        lb.trajectory_distance(run, bare)
    turned = {"problem": lb.Factorization(lb.from_singular_values((5, 6), [3.0]))}
    other = _train(10, network=lb.Network.gaussian((6, 7, 5), gamma=1.0, seed=0), **turned)
    with pytest.raises(lb.InvalidInput, match=r"^reference = .* a target of shape \(6, 5\), as the other one has\.$"):
        lb.trajectory_distance(run, other)
    with pytest.raises(lb.InvalidInput, match=r"^run = 3 is not accepted: expected a Run or the path of one\.$"):
        lb.trajectory_distance(3, run)
    with pytest.raises(lb.InvalidInput, match="a run directory"):
        lb.trajectory_distance(run, "nowhere")
    own = _train(10, metrics={NAME: lambda network: network.product()[:2]})
    with pytest.raises(lb.InvalidInput, match="recorded product/matrix, the metric product"):
        lb.trajectory_distance(run, own)


def test_a_comparison_tells_the_distance_where_it_is_known(run, tmp_path):
    flow, bare = _train(800, method=lb.GradientFlow(dt=0.005)), _train(metrics=METRICS[:2])
    compared = lb.compare([run, bare, flow])
    assert compared.followed == [run]
    first, second, last = compared.table()
    t, distances, nearest = compared.trajectory_distance(run)
    assert np.array_equal((t, distances, nearest), lb.trajectory_distance(run, flow))
    assert first["largest_trajectory_distance"] == pytest.approx(distances.max() / np.linalg.norm(run.target))
    assert first["largest_trajectory_distance"] < first["largest_distance"]
    assert second["largest_trajectory_distance"] is last["largest_trajectory_distance"] is None
    assert "max dist/‖Ŵ‖" in str(compared)
    names = [path.name for path in compared.save(tmp_path, ("png",))]
    assert names == ["comparison.png", "trajectory-distance.png"]


def test_a_comparison_without_products_is_what_it_was(run, tmp_path):
    compared = lb.compare([run, _train(400, method=lb.GD(lr=0.01), metrics=METRICS[:2])])
    assert compared.followed == []
    assert "dist/" not in str(compared)
    assert [path.name for path in compared.save(tmp_path, ("png",))] == ["comparison.png"]
    with pytest.raises(lb.InvalidInput, match="recorded product/matrix, the reference too"):
        plots.trajectory_distance(compared)


def test_the_figure_shows_every_run_but_the_reference(run):
    flow, slow = _train(800, method=lb.GradientFlow(dt=0.005)), _train(400, method=lb.GD(lr=0.01))
    compared = lb.compare([run, flow, slow])
    (axes,) = plots.trajectory_distance(compared).axes
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel()
    assert axes.get_ylabel()
    assert "gradient flow (rk4), dt = 0.005" in axes.get_title()
    assert [line.get_label() for line in axes.get_lines()] == ["GD, lr = 0.02", "GD, lr = 0.01"]
    for line, shown in zip(axes.get_lines(), (run, slow), strict=True):
        t, distances, _ = compared.trajectory_distance(shown)
        assert np.array_equal(line.get_xdata(), t)
        positive = distances > 0
        assert np.allclose(line.get_ydata()[positive], distances[positive] / np.linalg.norm(run.target), rtol=1e-15)
        assert not positive[0]
        assert np.isnan(line.get_ydata()[0])


def test_runs_that_go_exactly_the_same_way_can_be_drawn(run, tmp_path):
    compared = lb.compare([run, _train()])
    assert compared.table()[1]["largest_trajectory_distance"] == 0
    assert len(compared.save(tmp_path, ("png",))) == 2


def test_greedy_learning_has_a_path_but_no_common_time(tmp_path):
    """The smaller the start of GD, the closer it comes to the path of greedy low-rank learning (Li, Luo and Lyu)."""
    greedy = _train(None, 10, method=lb.GLRL(epsilon=1e-6, inner=lb.GD(lr=0.02)), network=None)
    starts = [lb.Network.gaussian((5, 7, 6), gamma=gamma, seed=2) for gamma in (2, 3, 4)]
    runs = [_train(1500, 10, network=start) for start in starts]
    gaps = [lb.trajectory_distance(run, greedy)[1].max() for run in runs]
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2]
    compared = lb.compare([greedy, *runs])
    assert compared.reference is runs[0]
    assert compared.horizon == 30
    for times, values in (compared.difference(greedy), compared.distance(greedy)):
        assert times.size == values.size == 0
    row = compared.table()[0]
    assert row["largest_difference"] is row["largest_distance"] is compared.order() is None
    assert row["largest_trajectory_distance"] > 0
    assert "greedy ones aside" in str(compared)
    assert [path.stem for path in compared.save(tmp_path, ("png",))] == ["comparison", "trajectory-distance"]
    alone = lb.compare([greedy, greedy])
    assert alone.reference is greedy
    assert alone.horizon == 0
