"""Bootstrap: intervals of ranking statistics, from paired resamples of distinct architectures."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from condensekit.errors import DataError, refuse, whole
from condensekit.nas.study.ranking import MIN_CANDIDATES, TOP_SHARE, Floats, expected_first, measured, placed
from condensekit.rng import Draw

RESAMPLES = 2000  # usual number of resamples

Statistic = Callable[[Floats, Floats], Floats]  # (B, N) scores and (B, N) truths -> (B,) values, NaN if undefined


@dataclass(frozen=True)
class Interval:
    """A statistic, or a difference of two statistics, with its 95 % percentile interval.

    Args:
        value: Value in the sample.
        lo: Lower end of the interval.
        hi: Upper end of the interval.
    """

    value: float
    lo: float
    hi: float


def rank_correlation(scores: Floats, truth: Floats) -> Floats:
    """Spearman's correlation of each row; 0 for a row of equal scores, NaN for a row of equal truths."""
    return _correlation(scores, truth, np.ones(truth.shape, dtype=np.bool_))


def top_correlation(scores: Floats, truth: Floats) -> Floats:
    """Spearman's correlation in the best half by truth of each row, including ties with the last candidate in it."""
    kept = max(1, math.ceil(TOP_SHARE * truth.shape[1]))
    return _correlation(scores, truth, truth >= np.sort(truth, axis=1)[:, -kept, None])


def mean_regret(among: int) -> Statistic:
    """Statistic of :func:`~condensekit.nas.study.ranking.regret` of each row, in draws of ``among`` candidates."""
    return lambda scores, truth: expected_first(truth, truth, among) - expected_first(scores, truth, among)


def _correlation(scores: Floats, truth: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Spearman's correlation of the chosen candidates of each row; NaN if their truths are equal."""
    x, y = (_standard(values, chosen) for values in (scores, truth))
    return np.asarray(np.where(y.any(1), (x * y).sum(1).clip(-1, 1), np.nan))


def _standard(values: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Ranks of the chosen candidates of each row, centred, of unit length; 0 for other candidates and equal values."""
    ranks = stats.rankdata(np.where(chosen, values, -np.inf), axis=1)  # other candidates shift all ranks equally
    mean = (ranks * chosen).sum(1, keepdims=True) / chosen.sum(1, keepdims=True)
    centred = np.where(chosen, ranks - mean, 0.0)
    length = np.sqrt((centred**2).sum(1, keepdims=True))
    return np.asarray(centred / np.where(length > 0, length, 1.0))


def bootstrap(
    scores: Sequence[float | None] | ArrayLike,
    truth: ArrayLike,
    groups: Sequence[Hashable] | None = None,
    *,
    against: Sequence[float | None] | ArrayLike | None = None,
    statistic: Statistic = rank_correlation,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """95 % percentile interval of a statistic, or of its difference between two rankers of the same candidates.

    Args:
        scores: (N,) score of each candidate; None or not finite: the candidate failed.
        truth: (N,) truth of each candidate, finite.
        groups: (N,) group of each candidate. Candidates of a group compute the same, so that they are not independent:
            the group is drawn as a whole. None: each candidate is a group.
        against: (N,) scores of a ranker whose statistic is subtracted; it has the same resamples. None: no difference.
        statistic: Statistic of each resample.
        resamples: Number of resamples, at least 1.
        seed: Seed of the resamples; the same seed draws the same candidates for every ranker.

    Returns:
        The interval; None for fewer than three groups, or if the statistic is undefined in the sample or in all
        resamples.

    Raises:
        ConfigError: ``resamples`` is below 1.
        DataError: The lengths differ, or a truth is not finite.
    """
    refuse(whole("resamples", resamples, 1))
    ours = placed(scores)
    values = measured(truth, len(ours))
    theirs = None if against is None else placed(against)
    names = list(range(len(ours))) if groups is None else list(groups)
    if len(names) != len(ours) or (theirs is not None and len(theirs) != len(ours)):
        other = "" if theirs is None else f" and {len(theirs)} scores to compare with"
        raise DataError(f"there are {len(ours)} scores, but {len(names)} groups{other}: give a value per candidate")
    members = _members(names)
    if len(members) < MIN_CANDIDATES:
        return None
    observed = _difference(statistic, ours, theirs, values, np.arange(len(ours))[None])
    if not np.isfinite(observed[0]):
        return None
    drawn = _resampled(members, resamples, seed)
    found = np.concatenate([_difference(statistic, ours, theirs, values, rows) for rows in drawn])
    defined = found[np.isfinite(found)]
    if not len(defined):
        return None
    lo, hi = np.percentile(defined, (2.5, 97.5))
    return Interval(float(observed[0]), float(lo), float(hi))


def _difference(
    statistic: Statistic, ours: Floats, theirs: Floats | None, truth: Floats, rows: NDArray[np.intp]
) -> Floats:
    found = statistic(ours[rows], truth[rows])
    return found if theirs is None else found - statistic(theirs[rows], truth[rows])


def _members(names: Sequence[Hashable]) -> list[NDArray[np.intp]]:
    """Rows of each group; groups come in the order of their first members."""
    return [np.array([i for i, other in enumerate(names) if other == name]) for name in dict.fromkeys(names)]


def _resampled(members: Sequence[NDArray[np.intp]], resamples: int, seed: int) -> list[NDArray[np.intp]]:
    """Blocks (B, N) of the rows of all resamples; groups of several candidates give resamples of different lengths."""
    generator = np.random.default_rng(Draw(seed).key("bootstrap"))
    picks = generator.integers(0, len(members), (resamples, len(members)))
    if all(len(rows) == 1 for rows in members):
        return [np.concatenate(members)[picks]]
    return [np.concatenate([members[pick] for pick in row])[None] for row in picks]
