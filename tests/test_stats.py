"""Intervals of paired comparisons, against scipy."""

import warnings

import pytest
from scipy import stats

from condensekit.stats import interval, paired_interval, units

OURS = [[0.5, 0.55], [0.45, 0.5], [0.6, 0.5], [0.52, 0.58]]
THEIRS = [[0.4, 0.5], [0.45, 0.4], [0.48, 0.5], [0.5, 0.41]]


def test_interval_over_sets_is_scipys():
    def mean(rows):
        return [sum(row) / len(row) for row in rows]

    oracle = stats.ttest_rel(mean(OURS), mean(THEIRS)).confidence_interval(0.95)
    difference, interval, unit = paired_interval(OURS, THEIRS)
    assert unit == "set"
    assert interval == pytest.approx((oracle.low, oracle.high))
    assert difference == pytest.approx((oracle.low + oracle.high) / 2)


@pytest.mark.parametrize("sets", [1, 2])
def test_interval_over_networks_is_scipys(sets):
    flat = ([value for row in rows[:sets] for value in row] for rows in (OURS, THEIRS))
    oracle = stats.ttest_rel(*flat).confidence_interval(0.95)
    difference, interval, unit = paired_interval(OURS[:sets], THEIRS)
    assert unit == "network"
    assert interval == pytest.approx((oracle.low, oracle.high))
    assert difference == pytest.approx((oracle.low + oracle.high) / 2)


def test_intervals_of_one_pair_and_of_equal_differences():
    assert paired_interval([[0.5]], [[0.25]]) == (0.25, None, "network")
    assert paired_interval([[0.5]] * 3, [[0.25]] * 3) == (0.25, (0.25, 0.25), "set")


def test_pairs_reach_as_far_as_both_sides():
    """Sets, and networks of a set, that only one side has are left out."""
    assert paired_interval([[0.5, 0.9], [0.6]], [[0.25]]) == (0.25, None, "network")
    assert paired_interval(OURS, THEIRS[:3]) == paired_interval(OURS[:3], THEIRS[:3])


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_the_interval_of_a_mean_is_scipys(level):
    values = [0.1, 0.4, 0.35, 0.2]
    oracle = stats.ttest_1samp(values, 0.0).confidence_interval(level)
    assert interval(values, level) == pytest.approx((oracle.low, oracle.high))


def test_one_value_has_no_interval_and_equal_ones_have_no_width():
    assert interval([]) is None
    assert interval([0.3]) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert interval([0.3, 0.3, 0.3]) == (0.3, 0.3)


def test_independent_units_are_sets_where_there_are_three():
    assert units([[0.25, 0.75], [0.5], [1.0]]) == ([0.5, 0.5, 1.0], "set")
    assert units([[0.25, 0.75], [0.5]]) == ([0.25, 0.75, 0.5], "network")
