"""Confidence intervals of counts: against published values, and how often they hold the truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

import lrbias as lb
from lrbias.analysis._intervals import rate_interval, share_interval

# Events, trials, bounds of 95 %, as tables of Clopper and Pearson have them.
SHARES = [(0, 10, 0, 0.3085), (1, 10, 0.0025, 0.4450), (5, 10, 0.1871, 0.8129), (10, 10, 0.6915, 1), (0, 1, 0, 0.975)]
# Events, bounds of 95 % of the mean, as tables of Garwood have them.
RATES = [(0, 0, 3.6889), (1, 0.0253, 5.5716), (2, 0.2422, 7.2247), (5, 1.6235, 11.6683), (10, 4.7954, 18.3904)]


@pytest.mark.parametrize(("count", "total", "lower", "upper"), SHARES)
def test_shares_are_those_of_the_tables(count, total, lower, upper):
    assert share_interval(count, total) == pytest.approx((lower, upper), abs=5e-5)


@pytest.mark.parametrize(("count", "lower", "upper"), RATES)
@pytest.mark.parametrize("exposure", [1, 0.25, 40.0])
def test_rates_are_those_of_the_tables(count, lower, upper, exposure):
    assert rate_interval(count, exposure) == pytest.approx((lower / exposure, upper / exposure), abs=5e-5 / exposure)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(("count", "total"), [(0, 3), (1, 64), (5, 20), (63, 64), (100, 100), (3000, 10_000)])
def test_at_a_bound_of_a_share_the_count_is_just_that_unlikely(count, total, level):
    """Each tail has half of 1 − level; by sums of probabilities, and by quantiles of the beta distribution."""
    lower, upper = share_interval(count, total, level)
    tail = (1 - level) / 2
    if count > 0:
        assert stats.binom.sf(count - 1, total, lower) == pytest.approx(tail, rel=1e-6)
        assert lower == pytest.approx(special.betaincinv(count, total - count + 1, tail), rel=1e-8)
    if count < total:
        assert stats.binom.cdf(count, total, upper) == pytest.approx(tail, rel=1e-6)
        assert upper == pytest.approx(special.betaincinv(count + 1, total - count, 1 - tail), rel=1e-8)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("count", [0, 1, 5, 400])
def test_at_a_bound_of_a_rate_the_count_is_just_that_unlikely(count, level):
    lower, upper = (bound * 7.0 for bound in rate_interval(count, 7.0, level))
    tail = (1 - level) / 2
    assert stats.poisson.cdf(count, upper) == pytest.approx(tail, rel=1e-9)
    if count:
        assert stats.poisson.sf(count - 1, lower) == pytest.approx(tail, rel=1e-9)


@pytest.mark.parametrize("share", [0.003, 0.1, 0.5, 0.97])
@pytest.mark.parametrize("total", [12, 200])
def test_intervals_of_shares_hold_the_truth_often_enough(share, total, rng):
    """20 000 experiments; the standard error of what is counted is 0.0015."""
    counts, times = np.unique(rng.binomial(total, share, 20_000), return_counts=True)
    intervals = [share_interval(count, total) for count in counts]
    held = [lower <= share <= upper for lower, upper in intervals]
    assert times @ held >= 0.94 * 20_000


@pytest.mark.parametrize("mean", [0.05, 1.0, 3.7, 30.0])
def test_intervals_of_rates_hold_the_truth_often_enough(mean, rng):
    counts, times = np.unique(rng.poisson(mean, 20_000), return_counts=True)
    intervals = [rate_interval(count, 0.5) for count in counts]
    held = [lower <= mean / 0.5 <= upper for lower, upper in intervals]
    assert times @ held >= 0.94 * 20_000
    assert mean < 1 or times @ held < 0.99 * 20_000, "they are not wider than they have to be"


@given(st.integers(1, 500), st.data())
def test_one_event_more_moves_both_bounds_up(total, data):
    count = data.draw(st.integers(0, total - 1))
    for few, many in (
        (share_interval(count, total), share_interval(count + 1, total)),
        (rate_interval(count, total), rate_interval(count + 1, total)),
    ):
        assert few[0] < many[0]
        assert few[1] < many[1]
        assert 0 <= few[0] <= count / total <= few[1]


def test_more_of_the_same_and_a_lower_level_make_intervals_narrower():
    for interval in (share_interval, rate_interval):
        widths = [np.diff(interval(k, 10 * k))[0] for k in (1, 10, 100, 1000)]
        assert widths == sorted(widths, reverse=True)
        assert np.diff(interval(5, 50, 0.5)) < np.diff(interval(5, 50)) < np.diff(interval(5, 50, 0.999))


def test_bounds_are_plain_numbers():
    for found in (share_interval(np.int64(0), np.int64(10)), rate_interval(np.int64(0), np.float64(3))):
        assert [type(bound) for bound in found] == [float, float]


@pytest.mark.parametrize(
    ("interval", "count", "amount", "said"),
    [
        (share_interval, 11, 10, "count = 11 .* from 0 to total = 10"),
        (share_interval, -1, 10, "count = -1"),
        (share_interval, float("nan"), 10, "count = nan"),
        (share_interval, 0, 0, "total = 0 .* at least 1"),
        (rate_interval, -1, 10, "count = -1"),
        (rate_interval, 2, 0, "exposure = 0 .* greater than 0"),
        (rate_interval, 2, -3, "exposure = -3 .* greater than 0"),
        (rate_interval, 2, float("nan"), "exposure = nan"),
    ],
)
def test_what_is_no_count_is_refused(interval, count, amount, said):
    with pytest.raises(lb.InvalidInput, match=f"^{said}"):
        interval(count, amount)
