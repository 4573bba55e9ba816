"""Paired statistics, against scipy's own and by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tutelage.stats import Interval, mean_and_spread, paired_interval, verdict

ABOVE, AROUND, BELOW = Interval(2, 1, 3), Interval(0.1, -1, 1.2), Interval(-2, -3, -1)


def test_mean_and_spread_by_hand():
    assert mean_and_spread([70.0, 71.0, 72.0]) == (71.0, 1.0)
    assert mean_and_spread([70.0]) == (70.0, None)


def test_an_interval_by_hand():
    # Differences 1, 2, 3: mean 2, deviation 1, and t(0.975; 2) = 4.302653.
    mean, low, high = paired_interval([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]) or (0, 0, 0)
    assert mean == 2.0
    assert high - mean == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)
    assert mean - low == pytest.approx(high - mean)


@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=3, max_size=8, unique=True
    ).filter(lambda pairs: np.std([a - b for a, b in pairs]) > 1e-3),
    st.sampled_from([0.9, 0.95, 0.99]),
)
def test_intervals_are_those_of_scipys_paired_t_test(
    pairs: list[tuple[float, float]], level: float
):
    first, second = zip(*pairs, strict=True)
    ours = paired_interval(first, second, level=level)
    theirs = stats.ttest_rel(first, second).confidence_interval(level)
    assert ours is not None
    assert ours.low == pytest.approx(theirs.low, rel=1e-9, abs=1e-9)
    assert ours.high == pytest.approx(theirs.high, rel=1e-9, abs=1e-9)


@given(st.lists(st.floats(0, 100), min_size=3, max_size=6), st.floats(-50, 50))
def test_what_all_seeds_share_cancels(values: list[float], shift: float):
    other = [value + shift for value in values]
    interval = paired_interval(other, values)
    assert interval is not None
    assert interval.mean == pytest.approx(shift, abs=1e-9)
    assert interval.high - interval.low == pytest.approx(0, abs=1e-9)


def test_two_seeds_give_no_interval():
    assert paired_interval([3.0, 5.0], [1.0, 2.0]) is None
    assert paired_interval([], []) is None


def test_unequal_numbers_of_seeds_are_our_mistake():
    with pytest.raises(ValueError, match="zip"):
        paired_interval([1.0, 2.0, 3.0], [1.0, 2.0])


@pytest.mark.parametrize("count", [3, 5])
def test_nineteen_of_twenty_intervals_hold_the_truth(count: int):
    draws = np.random.default_rng(0).normal(0.7, 1.3, size=(4000, count))
    zeros = [0.0] * count
    intervals = [paired_interval(row.tolist(), zeros) for row in draws]
    inside = [interval.low <= 0.7 <= interval.high for interval in intervals if interval]
    # Three standard deviations of a binomial of 4,000 are one point.
    assert np.mean(inside) == pytest.approx(0.95, abs=0.0105)


@pytest.mark.parametrize(
    ("intervals", "words"),
    [
        ([ABOVE, ABOVE], "shown"),
        ([ABOVE, AROUND], "not shown"),
        ([AROUND, AROUND], "not shown"),
        ([ABOVE, BELOW], "contradicted"),
        ([BELOW, BELOW], "contradicted"),
        ([ABOVE, Interval(1, 0, 2)], "not shown"),
        ([ABOVE, None], "too few seeds"),
        ([BELOW, None], "too few seeds"),
        ([None, None], "too few seeds"),
        ([], "too few seeds"),
    ],
)
def test_a_gain_is_shown_only_over_both_controls(intervals: list[Interval | None], words: str):
    assert verdict(intervals) == words
    assert verdict(intervals[::-1]) == words
