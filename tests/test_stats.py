"""Paired statistics, against scipy's own and by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tutelage.stats import (
    Interval,
    TwoLevel,
    bootstrap_interval,
    holm_intervals,
    mean_and_spread,
    paired_interval,
    paired_p_value,
    seeds_needed,
    sign_flip_floor,
    sign_flip_p_value,
    two_level_bootstrap,
    verdict,
)

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


def test_a_p_value_is_that_of_scipys_paired_t_test():
    first, second = [70.1, 71.5, 69.8, 72.0], [69.0, 70.9, 69.9, 70.0]
    assert paired_p_value(first, second) == pytest.approx(stats.ttest_rel(first, second).pvalue)
    assert paired_p_value([1.0, 1.0, 1.0], [0.0, 0.0, 0.0]) == 0
    assert paired_p_value([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]) == 1
    assert paired_p_value([1.0, 2.0], [0.0, 0.0]) is None


# Several comparisons at once


def test_one_comparison_needs_no_correction():
    first, second = [3.0, 5.0, 7.0], [2.0, 3.0, 4.0]
    assert holm_intervals([(first, second)]) == [paired_interval(first, second)]


def test_holms_levels_by_hand():
    clear, close, none = [5.0, 5.1, 5.2, 5.1], [1.0, 1.6, 1.2, 0.9], [0.5, -0.5, 0.3, -0.2]
    zeros = [0.0] * 4
    found = holm_intervals([(none, zeros), (clear, zeros), (close, zeros)])
    levels = (1 - 0.05 / 1, 1 - 0.05 / 3, 1 - 0.05 / 2)
    expected = [
        paired_interval(values, zeros, level=level)
        for values, level in zip((none, clear, close), levels, strict=True)
    ]
    assert found == expected
    assert verdict([found[1]]) == verdict([found[2]]) == "shown"
    assert verdict([found[0]]) == "not shown"


def test_what_comes_after_a_comparison_that_shows_nothing_shows_nothing():
    zeros = [0.0] * 4
    near = [1.0, 2.0, 0.4, 1.6]  # p = 0.036: shown alone, but not as one of two
    assert verdict([paired_interval(near, zeros)]) == "shown"
    found = holm_intervals([(near, zeros), ([1.1, 2.2, 0.3, 1.6], zeros)])
    assert [verdict([one]) for one in found] == ["not shown", "not shown"]


def test_what_cannot_be_tested_yet_counts_as_the_least_certain():
    few, zeros = ([1.0, 2.0], [0.0, 0.0]), [0.0] * 3
    found = holm_intervals([few, ([2.0, 2.1, 2.2], zeros), ([], [])])
    widened = paired_interval([2.0, 2.1, 2.2], zeros, level=1 - 0.05 / 3)
    assert found == [None, widened, None]


def test_of_twenty_tables_without_any_effect_at_most_one_says_something():
    draws = np.random.default_rng(1).normal(size=(1500, 4, 5))
    zeros = [0.0] * 5
    wrong = [
        any(verdict([one]) != "not shown" for one in holm_intervals([(x, zeros) for x in table]))
        for table in draws.tolist()
    ]
    assert np.mean(wrong) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1500)
    assert np.mean(wrong) >= 0.02  # and it is no empty promise


# Without assuming a distribution


@pytest.mark.parametrize(("count", "floor"), [(3, 0.25), (5, 0.0625), (6, 0.03125)])
def test_floors_of_the_sign_flip_test(count: int, floor: float):
    assert sign_flip_floor(count) == floor


def test_below_six_seeds_there_is_no_sign_flip_test():
    assert sign_flip_p_value([9.0] * 5, [1.0] * 5) is None
    assert sign_flip_p_value([9.0] * 6, [1.0] * 6) == sign_flip_floor(6)


@given(st.lists(st.floats(-5, 5), min_size=6, max_size=8))
def test_a_sign_flip_test_is_scipys(differences: list[float]):
    zeros = [0.0] * len(differences)
    expected = stats.permutation_test(
        (differences, zeros),
        lambda first, second, axis: np.mean(first - second, axis=axis),
        permutation_type="samples",
        n_resamples=2 ** len(differences),
        vectorized=True,
    ).pvalue
    assert sign_flip_p_value(differences, zeros) == pytest.approx(expected)


def test_of_many_seeds_a_sample_of_flips_is_enough():
    differences = np.random.default_rng(2).normal(0.4, 1.0, size=30)
    ours = sign_flip_p_value(differences.tolist(), [0.0] * 30)
    _, expected = stats.ttest_1samp(differences, 0)
    assert ours == pytest.approx(expected, abs=0.02)


# Seeds and pictures


def test_a_difference_that_every_seed_and_picture_shares_has_no_spread():
    found = two_level_bootstrap(np.ones((3, 50)), np.zeros((3, 50)))
    assert found == TwoLevel(1.0, 1.0, 1.0, 0.0, 0.0)


def test_without_differences_between_seeds_only_pictures_remain():
    row = np.random.default_rng(0).random(400) < 0.3
    found = two_level_bootstrap(np.tile(row, (4, 1)), np.zeros((4, 400)))
    assert found is not None
    assert found.over_seeds == pytest.approx(0, abs=1e-12)
    # The standard error of a share: √(p(1 - p) / n).
    share = row.mean()
    assert found.mean == pytest.approx(share)
    assert found.over_pictures == pytest.approx(math.sqrt(share * (1 - share) / 400), rel=0.1)


def test_without_differences_between_pictures_only_seeds_remain():
    values = [0.1, 0.4, 0.2, 0.5]
    found = two_level_bootstrap(np.tile(np.array(values)[:, None], (1, 100)), np.zeros((4, 100)))
    assert found is not None
    assert found.over_pictures == pytest.approx(0, abs=1e-12)
    assert found.over_seeds == pytest.approx(np.std(values, ddof=1) / 2, rel=0.1)
    interval = paired_interval(values, [0.0] * 4)
    assert interval is not None
    assert found.high - found.low == pytest.approx(interval.high - interval.low, rel=0.1)


@pytest.mark.parametrize(("seeds", "pictures"), [(3, 300), (5, 100), (5, 1000)])
def test_two_level_intervals_hold_the_truth(seeds: int, pictures: int):
    """Students that share their difficult pictures; the truth is the difference of all students.

    The interval may be too wide, where luck of a seed with a picture is most of it, not too narrow.
    """
    generator, inside = np.random.default_rng(3), []
    for _ in range(300):
        difficulty = generator.normal(0, 1.0, size=pictures)
        better, other = (
            (difficulty + skill + generator.normal(0, 0.1, (seeds, 1))
             + generator.normal(0, 0.7, (seeds, pictures))) > 0
            for skill in (0.6, 0.4)
        )  # fmt: skip
        found = two_level_bootstrap(better, other, draws=200)
        assert found is not None
        inside.append(found.low <= TRUTH <= found.high)
    assert np.mean(inside) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 300)


# Both are right where a normal number of variance 1 + 0.01 + 0.49 is above −skill.
TRUTH = stats.norm.cdf(0.6 / math.sqrt(1.5)) - stats.norm.cdf(0.4 / math.sqrt(1.5))


def test_two_levels_need_three_seeds_and_two_equal_tables():
    assert two_level_bootstrap(np.ones((2, 9)), np.zeros((2, 9))) is None
    with pytest.raises(ValueError, match="seeds × pictures"):
        two_level_bootstrap(np.ones((3, 9)), np.zeros((3, 8)))


# How many seeds


@pytest.mark.parametrize(("difference", "spread"), [(1.0, 0.7), (0.9, 0.7), (-2.0, 0.7)])
def test_so_many_seeds_show_it_four_times_of_five(difference: float, spread: float):
    count = seeds_needed(difference, spread)
    assert count is not None
    draws = np.random.default_rng(4).normal(difference, spread, size=(4000, count))
    zeros = [0.0] * count
    said = [verdict([paired_interval(row, zeros)]) for row in draws.tolist()]
    expected = "shown" if difference > 0 else "contradicted"
    assert np.mean([word == expected for word in said]) >= 0.8 - 0.02


def test_nothing_shows_what_is_not_there():
    assert seeds_needed(0.0, 0.7) is None
    assert seeds_needed(0.0, 0.0) is None
    assert seeds_needed(1.0, 0.0) == 3


# Pictures alone


def test_the_bootstrap_of_a_share_is_about_its_standard_error():
    values = (np.random.default_rng(5).random(900) < 0.2).astype(float)
    found = bootstrap_interval(values)
    half = 1.96 * math.sqrt(values.mean() * (1 - values.mean()) / 900)
    assert found.mean == values.mean()
    assert found.high - found.mean == pytest.approx(half, rel=0.1)
    assert found.mean - found.low == pytest.approx(half, rel=0.1)


def test_bootstrap_intervals_hold_the_truth():
    draws = np.random.default_rng(6).choice([-1.0, 0.0, 1.0], p=[0.1, 0.75, 0.15], size=(400, 300))
    found = [bootstrap_interval(row, draws=300) for row in draws]
    inside = [interval.low <= 0.05 <= interval.high for interval in found]
    assert np.mean(inside) == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 400) + 0.005)


# Folds, which share what they train on


def test_an_interval_over_folds_by_hand():
    # Differences 1, 2, 3 of three folds: half as many test as train, 1/3 + 1/2 of the variance.
    found = paired_interval([2.0, 4.0, 6.0], [1.0, 2.0, 3.0], overlap=0.5)
    assert found is not None
    assert found.high - found.mean == pytest.approx(4.302653 * math.sqrt(5 / 6), abs=1e-6)


FOLDS = st.lists(st.floats(-5, 5), min_size=3, max_size=10)


@given(FOLDS, st.floats(0, 2))
def test_a_p_value_over_folds_agrees_with_the_interval(values: list[float], overlap: float):
    zeros = [0.0] * len(values)
    p_value = paired_p_value(values, zeros, overlap=overlap)
    interval = paired_interval(values, zeros, overlap=overlap)
    assert p_value is not None
    assert interval is not None
    if abs(p_value - 0.05) > 1e-6 and len(set(values)) > 1:
        assert (p_value < 0.05) == (interval.low > 0 or interval.high < 0)


@given(FOLDS, st.floats(0, 2))
def test_what_folds_share_widens_and_moves_nothing(values: list[float], overlap: float):
    zeros = [0.0] * len(values)
    alone, shared = paired_interval(values, zeros), paired_interval(values, zeros, overlap=overlap)
    assert alone is not None
    assert shared is not None
    assert shared.mean == alone.mean
    factor = math.sqrt(1 + overlap * len(values))
    assert shared.high - shared.mean == pytest.approx(factor * (alone.high - alone.mean))


def test_each_comparison_has_its_own_overlap():
    pairs = [([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]), ([9.0, 9.1, 9.2], [1.0, 1.0, 1.0])]
    found = holm_intervals(pairs, overlaps=[0.5, 0.25])
    # The second is the surer one: its level is 1 - 0.05 / 2, that of the first is 0.95.
    assert found[0] == paired_interval(*pairs[0], overlap=0.5)
    assert found[1] == paired_interval(*pairs[1], level=0.975, overlap=0.25)
    assert holm_intervals(pairs, overlaps=[0.0, 0.0]) == holm_intervals(pairs)


def test_intervals_over_folds_hold_the_truth_where_the_usual_ones_do_not():
    """Differences that share a part, as two of five folds do by three of five pictures."""
    draw = np.random.default_rng(0)
    rounds, correlation = 2000, 0.2  # test pictures over all: what the formula supposes
    common = draw.normal(size=(rounds, 1)) * math.sqrt(correlation)
    own = draw.normal(size=(rounds, 5)) * math.sqrt(1 - correlation)
    held = {0.0: 0, 0.25: 0}
    for row in (common + own).tolist():
        for overlap in held:
            found = paired_interval(row, [0.0] * 5, overlap=overlap)
            assert found is not None
            held[overlap] += found.low <= 0 <= found.high
    assert held[0.0] / rounds < 0.9
    assert held[0.25] / rounds == pytest.approx(0.95, abs=0.02)
