"""Ranking statistics: scipy and brute force are the oracles; ties, failures and constants have defined results."""

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from condensekit.errors import ConfigError, DataError
from condensekit.nas.study import ranking, report
from condensekit.nas.study.bootstrap import bootstrap, mean_regret, rank_correlation, top_correlation
from condensekit.nas.study.combinations import additive, rank_sum, ridge

RNG = np.random.default_rng(0)
TRUTH = RNG.normal(size=60)
SCORES = TRUTH + RNG.normal(size=60)
TIED = np.round(SCORES)


def known(found):
    """A statistic that is defined."""
    assert found is not None
    return found


@pytest.mark.parametrize("scores", [SCORES, TIED], ids=["distinct", "tied"])
def test_correlations_are_those_of_scipy(scores):
    assert ranking.spearman(scores, TRUTH) == pytest.approx(stats.spearmanr(scores, TRUTH).statistic)
    assert ranking.kendall(scores, TRUTH) == pytest.approx(stats.kendalltau(scores, TRUTH).statistic)


def test_a_failed_candidate_stands_last():
    assert ranking.spearman([3.0, None, 2.0, math.nan, 9.0], [3, 0, 2, 1, 4]) == pytest.approx(
        stats.spearmanr([3, 0, 2, 0, 9], [3, 0, 2, 1, 4]).statistic
    )


@pytest.mark.parametrize(
    ("scores", "truth", "expected"),
    [
        ([1.0, 1.0, 1.0], [1, 2, 3], 0.0),
        ([None, None, None], [1, 2, 3], 0.0),
        ([1.0, 2.0, 3.0], [5, 5, 5], None),
        ([1.0, 2.0], [1, 2], None),
        ([], [], None),
    ],
    ids=["constant scores", "all failed", "constant truth", "two", "none"],
)
def test_degenerate_cases_are_defined(scores, truth, expected):
    for statistic in (ranking.spearman, ranking.kendall):
        assert statistic(scores, truth) == expected
    assert ranking.partial(scores, truth, range(len(scores))) in (expected, None)
    assert bootstrap(scores, truth) is None or expected == 0.0
    json.dumps([ranking.regret(scores, truth, 2), ranking.recall(scores, truth, 1)], allow_nan=False)


def test_recall_counts_ties_as_broken_at_random():
    assert ranking.recall(SCORES, TRUTH, 6) == len({*np.argsort(-SCORES)[:6]} & {*np.argsort(-TRUTH)[:6]}) / 6
    assert ranking.recall([1, 1, 1, 1], [4, 3, 2, 1], 1) == pytest.approx(0.25)
    assert ranking.recall([2, 1, 1, 0], [4, 3, 2, 1], 2) == pytest.approx((1 + 0.5) / 2)
    assert ranking.recall(SCORES, TRUTH, 60) is None


@pytest.mark.parametrize("scores", [SCORES[:8], TIED[:8]], ids=["distinct", "tied"])
@pytest.mark.parametrize("among", [1, 3, 8, 100])
def test_regret_is_the_mean_over_all_draws(scores, among):
    truth = TRUTH[:8]
    lost = []
    for drawn in itertools.combinations(range(8), min(among, 8)):
        first = [i for i in drawn if scores[i] == max(scores[list(drawn)])]
        lost.append(max(truth[list(drawn)]) - np.mean(truth[first]))
    assert ranking.regret(scores, truth, among) == pytest.approx(np.mean(lost))


def test_the_regret_of_every_resample_is_that_of_its_rows():
    rows = RNG.integers(0, 60, (5, 60))
    expected = [ranking.regret(TIED[r], TRUTH[r], 25) for r in rows]
    assert mean_regret(25)(TIED[rows], TRUTH[rows]) == pytest.approx(expected)
    interval = known(bootstrap(SCORES, TRUTH, statistic=mean_regret(25)))
    assert interval.value == pytest.approx(ranking.regret(SCORES, TRUTH, 25))
    assert 0 <= interval.lo < interval.value < interval.hi


def test_pairs_closer_than_the_noise_do_not_count():
    assert ranking.pair_accuracy([1, 2, 0], [0.0, 0.4, 2.0], 0.5) == 0.0
    assert ranking.pair_accuracy([1, 2, 2], [0.0, 0.4, 2.0], 0.5) == pytest.approx((1 + 0.5) / 2)
    assert ranking.pair_accuracy([1, 2], [0.0, 0.4], 0.5) is None


def test_partial_correlation_is_the_textbook_formula():
    size = TRUTH + RNG.normal(size=60)
    xy, xz, yz = (stats.spearmanr(a, b).statistic for a, b in ((SCORES, TRUTH), (SCORES, size), (TRUTH, size)))
    assert ranking.partial(SCORES, TRUTH, size) == pytest.approx((xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2)))
    assert ranking.partial(size, TRUTH, size) == 0.0
    assert ranking.partial(SCORES, size, size) is None


def test_strata_are_ranked_apart():
    found = ranking.strata([1, 2, 3, 3, 2, 1], [1, 2, 3, 1, 2, 3], ["a", "a", "a", "b", "b", "b"])
    assert set(found) == {"a", "b"}
    assert found["a"] == pytest.approx((1.0, 3))
    assert found["b"] == pytest.approx((-1.0, 3))


def test_best_keeps_those_that_tie_with_the_last():
    assert ranking.best([1, 2, 2, 3]).tolist() == [False, True, True, True]


def test_retest_follows_spearman_and_brown():
    quality = RNG.normal(size=2000)
    repeats = quality[:, None] + 0.5 * RNG.normal(size=(2000, 2))
    found = ranking.retest(repeats)
    assert found.single == pytest.approx(stats.spearmanr(*repeats.T).statistic)
    assert found.ceiling == pytest.approx(stats.spearmanr(repeats.mean(1), quality).statistic, abs=0.02)
    assert found.noise == pytest.approx(1.96 * 0.5, rel=0.1)
    assert 0 < known(found.single_top) < known(found.single)
    assert ranking.retest(repeats[:, :1]) == ranking.Retest(None, None, None, None)


@pytest.mark.parametrize("repeats", [2, 3, 5])
def test_measurements_that_contradict_each_other_have_no_ceiling(repeats):
    """At a mean correlation of -1 / (R - 1), the least there is, the formula of Spearman and Brown has its pole."""
    turned = [np.roll(np.arange(repeats), shift) for shift in range(repeats)]
    found = ranking.retest(np.array(turned, dtype=float) if repeats > 2 else [[1, 3], [2, 2], [3, 1]])
    assert found.single == pytest.approx(-1 / (repeats - 1))
    assert found.ceiling == 0.0


def test_break_even_is_the_first_number_that_pays():
    n = ranking.break_even(100.0, 2.0, 12.0)
    assert n == 11
    assert 100 + 2 * n < 12 * n
    assert not 100 + 2 * (n - 1) < 12 * (n - 1)
    assert ranking.break_even(100.0, 2.0, 2.0) is None


def test_truths_must_fit():
    with pytest.raises(DataError, match="3 scores but truths of shape"):
        ranking.spearman([1, 2, 3], [1, 2])
    with pytest.raises(DataError, match="candidate 1 is not finite"):
        ranking.spearman([1, 2, 3], [1, math.nan, 2])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ranking.regret([1, 2], [1, 2], 0), ConfigError, "among must be an integer of at least 1, got 0"),
        (
            lambda: bootstrap(SCORES, TRUTH, resamples=0),
            ConfigError,
            "resamples must be an integer of at least 1, got 0",
        ),
        (lambda: bootstrap(SCORES, TRUTH, "ab"), DataError, "60 scores, but 2 groups"),
        (lambda: bootstrap([1, 2, 3], [1, 2, 3], against=[1]), DataError, "and 1 scores to compare with"),
        (lambda: ranking.partial([1, 2, 3, 4], [1, 2, 3, 4], [1]), DataError, "4 scores but 1 numbers to take out"),
        (lambda: ranking.strata([1, 2, 3], [1, 2, 3], "ab"), DataError, "3 scores but 2 labels"),
        (lambda: ranking.retest([1.0, 2.0]), DataError, r"must be \(N, R\) finite numbers, got shape \(2,\)"),
        (lambda: ranking.retest([[1.0, math.nan]] * 3), DataError, "finite numbers"),
        (lambda: rank_sum([1, 2], [1]), DataError, r"one score of each ranker for each candidate, got \[2, 1\]"),
        (lambda: rank_sum(), DataError, r"got \[\] scores"),
        (lambda: additive([{"a": 1}] * 3, [1, 2], [{"a": 1}]), DataError, "a truth each"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_resample_that_is_undefined_gives_no_interval():
    undefined = [seed for seed in range(40) if bootstrap([1, 2, 3], [1, 2, 3], resamples=1, seed=seed) is None]
    assert 0 < len(undefined) < 40  # a resample that draws one candidate three times has a constant truth


def test_the_rows_of_a_resample_are_ranked_as_scipy_does():
    rows = RNG.integers(0, 60, (5, 60))
    expected = [stats.spearmanr(SCORES[r], TRUTH[r]).statistic for r in rows]
    assert rank_correlation(SCORES[rows], TRUTH[rows]) == pytest.approx(expected)
    best = ranking.best(TRUTH)
    expected = stats.spearmanr(SCORES[best], TRUTH[best]).statistic
    assert top_correlation(SCORES[None], TRUTH[None])[0] == pytest.approx(expected)


def test_the_top_half_holds_all_that_tie_with_its_last():
    truth = np.round(TRUTH)  # ties right across the middle
    best = ranking.best(truth)
    assert best.sum() > len(truth) / 2
    expected = stats.spearmanr(SCORES[best], truth[best]).statistic
    rows = np.stack([np.arange(60), RNG.permutation(60)])
    assert top_correlation(SCORES[rows], truth[rows]) == pytest.approx(expected)


def test_agreement_with_equal_scores_is_undefined_both_ways():
    scores = {"flat": dict.fromkeys("abcd", 1.0), "steep": dict(zip("abcd", range(4), strict=True))}
    rows = report.ranking_rows(scores, dict.fromkeys(scores, report.RankerCost()), report.Ground(seed=0))
    assert [row.agreement for row in rows] == [{"steep": None}, {"flat": None}]


def test_bootstrap_covers_and_pairs():
    single = known(bootstrap(SCORES, TRUTH))
    assert single.lo < single.value < single.hi
    assert single == bootstrap(SCORES, TRUTH)
    worse = SCORES + 0.3 * RNG.normal(size=60)
    paired = known(bootstrap(SCORES, TRUTH, against=worse))
    assert paired.value == pytest.approx(known(ranking.spearman(SCORES, TRUTH)) - known(ranking.spearman(worse, TRUTH)))
    assert paired.hi - paired.lo < single.hi - single.lo
    same = known(bootstrap(SCORES, TRUTH, against=SCORES))
    assert (same.value, same.lo, same.hi) == (0, 0, 0)
    assert known(bootstrap(TRUTH, TRUTH)).hi == 1


def test_copies_of_an_architecture_are_no_evidence():
    distinct = known(bootstrap(SCORES, TRUTH))
    copies = known(bootstrap(np.tile(SCORES, 4), np.tile(TRUTH, 4), groups=[*range(60)] * 4))
    naive = known(bootstrap(np.tile(SCORES, 4), np.tile(TRUTH, 4)))
    assert copies.hi - copies.lo == pytest.approx(distinct.hi - distinct.lo, rel=0.1)
    assert naive.hi - naive.lo < 0.7 * (distinct.hi - distinct.lo)
    assert bootstrap([1, 2, 3, 4], [1, 2, 3, 4], groups="aabb") is None


def test_rank_sum_puts_failures_last_and_shares_ties():
    assert rank_sum([3, 1, 2, None], [5, 5, 9, 7]).tolist() == [5.5, 3.5, 7, 4]


def test_ridge_learns_which_score_to_trust():
    features = np.column_stack([SCORES, RNG.normal(size=60)])
    predicted = ridge(features[:20], TRUTH[:20], features[20:])
    summed = rank_sum(*features[20:].T)
    assert known(ranking.spearman(predicted, TRUTH[20:])) > known(ranking.spearman(summed, TRUTH[20:]))
    with pytest.raises(DataError, match="at least 3"):
        ridge(features[:2], TRUTH[:2], features[20:])


def test_additive_model_knows_main_effects():
    grid: list[dict[str, Any]] = [{"width": w, "act": a} for w in (8, 16, 32) for a in ("relu", "tanh")]
    truth = [a["width"] + 100 * (a["act"] == "relu") for a in grid]
    predicted = additive([grid[i] for i in (0, 1, 2, 5)], [truth[i] for i in (0, 1, 2, 5)], [grid[i] for i in (3, 4)])
    assert predicted[1] > predicted[0]
