"""Ranking quality: statistics of how well scores rank architectures, without NaN and with a rule for ties.

``scores`` come from a ranker; None or a value that is not finite means that the candidate failed. ``truth`` comes from
full training, in percent. Higher is better in both. A failed candidate ranks below all others. Ties count as if they
were broken at random, so that the correlation of constant scores is 0.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from condensekit.errors import DataError, refuse, whole

Floats = NDArray[np.float64]

MIN_CANDIDATES = 3  # smallest number of candidates of a ranking
TOP_SHARE = 0.5  # fraction of the candidates that is the top
RECALLED_SHARE = 0.1  # fraction of the candidates that a search should find


def placed(scores: Sequence[float | None] | ArrayLike) -> Floats:
    """(N,) finite float64 scores; failed candidates get a value below the smallest score."""
    values = np.array([np.nan if s is None else s for s in np.asarray(scores, dtype=object)], dtype=np.float64)
    good = np.isfinite(values)
    return np.where(good, values, np.nextafter(values[good].min() - 1, -np.inf) if good.any() else 0.0)


def measured(truth: ArrayLike, count: int) -> Floats:
    """(count,) float64 truths.

    Raises:
        DataError: Another number of truths, or a truth that is not finite.
    """
    values = np.asarray(truth, dtype=np.float64)
    if values.shape != (count,):
        raise DataError(f"there are {count} scores but truths of shape {values.shape}: give a truth per candidate")
    if not np.isfinite(values).all():
        at = int((~np.isfinite(values)).argmax())
        raise DataError(f"the truth of candidate {at} is not finite: leave this candidate out")
    return values


def spearman(scores: Sequence[float | None] | ArrayLike, truth: ArrayLike) -> float | None:
    """Spearman's rank correlation.

    Args:
        scores: (N,) scores of a ranker; None or not finite: the candidate failed.
        truth: (N,) finite truths.

    Returns:
        A value in [-1, 1]; 0 for constant scores; None for fewer than three candidates or a constant truth.

    Raises:
        DataError: The lengths differ, or a truth is not finite.
    """
    return _correlation(stats.spearmanr, scores, truth)


def kendall(scores: Sequence[float | None] | ArrayLike, truth: ArrayLike) -> float | None:
    """Kendall's tau-b of (N,) scores and (N,) truths: arguments, range and errors are those of :func:`spearman`."""
    return _correlation(stats.kendalltau, scores, truth)


def _correlation(statistic: object, scores: Sequence[float | None] | ArrayLike, truth: ArrayLike) -> float | None:
    x = placed(scores)
    y = measured(truth, len(x))
    if len(x) < MIN_CANDIDATES or np.ptp(y) == 0:
        return None
    return 0.0 if np.ptp(x) == 0 else float(statistic(x, y).statistic)  # type: ignore[operator]


def best(truth: ArrayLike, share: float = TOP_SHARE) -> NDArray[np.bool_]:
    """(N,) whether each candidate is in the best ``share`` by truth, including ties with the last candidate in it."""
    values = np.asarray(truth, dtype=np.float64)
    kept = max(1, math.ceil(share * len(values)))
    return np.asarray(values >= np.sort(values)[-kept])


def recall(scores: Sequence[float | None] | ArrayLike, truth: ArrayLike, k: int) -> float | None:
    """Fraction of the k best candidates by truth that are among the k best by score.

    Args:
        scores: (N,) scores of a ranker; None or not finite: the candidate failed.
        truth: (N,) finite truths.
        k: Number of best candidates.

    Returns:
        A value in [0, 1]; None if k is not in 1 to N - 1.

    Raises:
        DataError: The lengths differ, or a truth is not finite.
    """
    x = placed(scores)
    y = measured(truth, len(x))
    if not 0 < k < len(x):
        return None
    return float(_membership(x, k) @ _membership(y, k)) / k


def _membership(values: Floats, k: int) -> Floats:
    """(N,) probability that each value is among the k largest, if ties are broken at random."""
    cut = np.sort(values)[-k]
    above, level = values > cut, values == cut
    return np.asarray(above + level * (k - above.sum()) / level.sum())


def regret(scores: Sequence[float | None] | ArrayLike, truth: ArrayLike, among: int) -> float | None:
    """Mean loss of truth if the best by score is taken, instead of the best by truth, of candidates drawn at random.

    Args:
        scores: (N,) scores of a ranker; None or not finite: the candidate failed.
        truth: (N,) finite truths.
        among: Number of candidates in a draw, at least 1; a larger number than N is N.

    Returns:
        The exact mean over all draws without replacement, in the unit of ``truth``, at least 0; None for fewer than
        two candidates.

    Raises:
        ConfigError: ``among`` is below 1.
        DataError: The lengths differ, or a truth is not finite.
    """
    refuse(whole("among", among, 1))
    x = placed(scores)
    y = measured(truth, len(x))
    if len(x) < 2:
        return None
    best_first, ours = expected_first(np.stack([y, x]), np.stack([y, y]), among)
    return float(best_first - ours)


def expected_first(scores: Floats, truth: Floats, among: int) -> Floats:
    """Mean truth of the best candidate by score in draws of candidates at random without replacement.

    Args:
        scores: (B, N) finite scores; each of the B rows is a ranking.
        truth: (B, N) finite truths.
        among: Number of candidates in a draw, at least 1; a larger number than N is N.

    Returns:
        (B,) in the unit of ``truth``; candidates with equal scores are the best with equal probability.
    """
    rows, n = scores.shape
    m, left = min(among, n), n - np.arange(1, n)
    # the i-th best of n is first in a draw of m with probability C(n - i, m - 1) / C(n, m)
    chance = m / n * np.cumprod([1.0, *np.maximum(0, left - m + 1) / left])
    order = np.argsort(-scores, axis=1, kind="stable")
    steps = np.diff(np.take_along_axis(scores, order, 1), axis=1) != 0
    level = np.cumsum(np.hstack([np.ones((rows, 1), dtype=bool), steps])) - 1
    share = np.bincount(level, np.tile(chance, rows)) / np.bincount(level)
    return np.asarray((share[level].reshape(rows, n) * np.take_along_axis(truth, order, 1)).sum(1))


def pair_accuracy(scores: Sequence[float | None] | ArrayLike, truth: ArrayLike, noise: float) -> float | None:
    """Fraction of pairs in which the better candidate by truth has the higher score.

    Only pairs whose truths differ by more than ``noise`` count.

    Args:
        scores: (N,) scores of a ranker; None or not finite: the candidate failed.
        truth: (N,) finite truths.
        noise: Smallest difference in the unit of ``truth``, at least 0.

    Returns:
        A value in [0, 1], in which a tie counts one half; None if no pair differs by more than ``noise``.

    Raises:
        DataError: The lengths differ, or a truth is not finite.
    """
    x = placed(scores)
    y = measured(truth, len(x))
    first, second = np.triu_indices(len(x), 1)
    gap = y[first] - y[second]
    apart = np.abs(gap) > noise
    if not apart.any():
        return None
    agree = np.sign(x[first] - x[second])[apart] * np.sign(gap[apart])
    return float((1 + agree).mean() / 2)


def partial(
    scores: Sequence[float | None] | ArrayLike, truth: ArrayLike, given: Sequence[float] | ArrayLike
) -> float | None:
    """Partial Spearman correlation of scores and truth, given another quantity such as the number of parameters.

    Args:
        scores: (N,) scores of a ranker; None or not finite: the candidate failed.
        truth: (N,) finite truths.
        given: (N,) finite values of the quantity, whose ranks are regressed out of the ranks of scores and truth.

    Returns:
        A value in [-1, 1]; 0 if ``given`` explains the scores completely. None for fewer than four candidates, a
        constant truth, or if ``given`` explains the truth completely.

    Raises:
        DataError: The lengths differ, or a truth is not finite.
    """
    x, z = placed(scores), np.asarray(given, dtype=np.float64)
    y = measured(truth, len(x))
    _as_many("numbers to take out", z, x)
    if len(x) <= MIN_CANDIDATES or np.ptp(y) == 0:
        return None
    rx, ry = (_without(stats.rankdata(values), stats.rankdata(z)) for values in (x, y))
    if rx is None or ry is None:
        return None if ry is None else 0.0
    return float(rx @ ry / math.sqrt(float(rx @ rx) * float(ry @ ry)))


def _without(ranks: Floats, given: Floats) -> Floats | None:
    """Centred ``ranks`` minus their regression on ``given``; None: ``given`` explains the ranks completely."""
    r, z = ranks - ranks.mean(), given - given.mean()
    left = r - z * float(r @ z) / float(z @ z) if np.ptp(given) > 0 else r
    return left if float(left @ left) > 1e-9 * len(r) else None


def strata(
    scores: Sequence[float | None] | ArrayLike, truth: ArrayLike, labels: Sequence[Hashable]
) -> dict[str, tuple[float | None, int]]:
    """Spearman's correlation in each stratum.

    Args:
        scores: (N,) scores of a ranker; None or not finite: the candidate failed and ranks last in its stratum.
        truth: (N,) finite truths.
        labels: (N,) stratum of each candidate.

    Returns:
        The correlation, see :func:`spearman`, and the number of candidates of each stratum, by the text of its label
        in order of appearance.

    Raises:
        DataError: The lengths differ, or a truth is not finite.
    """
    x = placed(scores)
    y = measured(truth, len(x))
    _as_many("labels", labels, x)
    found = {}
    for label in dict.fromkeys(labels):
        inside = np.array([other == label for other in labels])
        found[str(label)] = (spearman(x[inside], y[inside]), int(inside.sum()))
    return found


def _as_many(what: str, found: Sequence[object] | Floats, scores: Floats) -> None:
    if len(found) != len(scores):
        raise DataError(f"there are {len(scores)} scores but {len(found)} {what}: give a value per candidate")


@dataclass(frozen=True)
class Retest:
    """Reliability of a truth that was measured several times; None: undefined.

    Args:
        single: Mean Spearman correlation between two measurements.
        single_top: Mean Spearman correlation between two measurements in the best half by mean truth. It is slightly
            too high, because the mean that selects the half depends on the measurements.
        ceiling: Largest correlation with the mean of all measurements that a ranker without error can reach: the
            square root of the reliability of the mean (Spearman and Brown).
        noise: Half width of the 95 % interval of the difference between the means of two typical candidates, in the
            unit of the truth. A typical candidate has the median variance: a few candidates that sometimes fail to
            learn would dominate the mean variance.
    """

    single: float | None
    single_top: float | None
    ceiling: float | None
    noise: float | None


def retest(repeats: ArrayLike) -> Retest:
    """Reliability of repeated measurements of the same candidates.

    Args:
        repeats: (N, R) finite measurements of N candidates.

    Returns:
        Correlations in [-1, 1], a ceiling in [0, 1] and a noise in the unit of ``repeats``. The ceiling is 0 if the
        mean correlation is not positive. All are None for fewer than two measurements or three candidates.

    Raises:
        DataError: Another shape, or a measurement that is not finite.
    """
    values = np.asarray(repeats, dtype=np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise DataError(f"repeated measurements must be (N, R) finite numbers, got shape {values.shape}")
    n, r = values.shape
    if r < 2 or n < MIN_CANDIDATES:
        return Retest(None, None, None, None)
    single = _mean_correlation(values)
    top = _mean_correlation(values[best(values.mean(1))])
    ceiling = None if single is None else 0.0 if single <= 0 else math.sqrt(r * single / (1 + (r - 1) * single))
    typical = float(np.median(values.var(axis=1, ddof=1))) * (r - 1) / float(stats.chi2.median(r - 1))
    return Retest(single, top, ceiling, 1.96 * math.sqrt(2 * typical / r))


def _mean_correlation(values: Floats) -> float | None:
    pairs = [spearman(values[:, a], values[:, b]) for a, b in zip(*np.triu_indices(values.shape[1], 1), strict=True)]
    found = [rho for rho in pairs if rho is not None]
    return float(np.mean(found)) if found else None


def break_even(preparation: float, each: float, instead: float) -> int | None:
    """Smallest number of candidates for which a ranker with a preparation is cheaper than the alternative.

    Args:
        preparation: Cost of the preparation.
        each: Cost of the ranker per candidate, in the same unit.
        instead: Cost of the alternative per candidate, in the same unit.

    Returns:
        The number of candidates; None: the ranker is never cheaper.
    """
    return math.floor(preparation / (instead - each)) + 1 if instead > each else None
