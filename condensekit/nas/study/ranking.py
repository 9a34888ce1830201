"""Ranking quality: how well scores rank architectures, without NaN and with a rule for every tie.

``scores`` are what a ranker says (None or a value that is not finite: the candidate failed), ``truth`` what full
training says, in percentage points; larger is better in both. A failed candidate stands below all others, where a
search would leave it. Ties count as if they were broken at random: constant scores rank nothing, so their correlation
is 0.
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

MIN_CANDIDATES = 3  # for a ranking
TOP_SHARE = 0.5  # of the candidates: the top
RECALLED_SHARE = 0.1  # of the candidates: those that a search is after


def placed(scores: Sequence[float | None] | ArrayLike) -> Floats:
    """(N,) finite float64: the scores; a failed candidate stands below the smallest score."""
    values = np.array([np.nan if s is None else s for s in np.asarray(scores, dtype=object)], dtype=np.float64)
    good = np.isfinite(values)
    return np.where(good, values, np.nextafter(values[good].min() - 1, -np.inf) if good.any() else 0.0)


def measured(truth: ArrayLike, count: int) -> Floats:
    """(count,) float64 truths.

    Raises:
        DataError: Another number of them, or a truth that is not finite.
    """
    values = np.asarray(truth, dtype=np.float64)
    if values.shape != (count,):
        raise DataError(f"there are {count} scores but truths of shape {values.shape}: give one for each candidate")
    if not np.isfinite(values).all():
        raise DataError(f"the truth of candidate {int((~np.isfinite(values)).argmax())} is not finite: leave it out")
    return values


def spearman(scores: Sequence[float | None] | ArrayLike, truth: ArrayLike) -> float | None:
    """Spearman's rank correlation.

    Args:
        scores: (N,) what a ranker says; None or not finite where a candidate failed.
        truth: (N,) what full training says, all finite.

    Returns:
        In [-1, 1]; 0 for constant scores; None for fewer than three candidates or a constant truth.

    Raises:
        DataError: Lengths that differ, or a truth that is not finite.
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
    """(N,) which candidates belong to the best ``share`` by truth, with all that tie with the last of them."""
    values = np.asarray(truth, dtype=np.float64)
    kept = max(1, math.ceil(share * len(values)))
    return np.asarray(values >= np.sort(values)[-kept])


def recall(scores: Sequence[float | None] | ArrayLike, truth: ArrayLike, k: int) -> float | None:
    """The share of the k truly best that are among the k best scores.

    Args:
        scores: (N,) what a ranker says; None or not finite where a candidate failed.
        truth: (N,) what full training says, all finite.
        k: How many count as the best.

    Returns:
        In [0, 1]; None where k is not in 1 to N - 1, so that there is nothing to find.

    Raises:
        DataError: Lengths that differ, or a truth that is not finite.
    """
    x = placed(scores)
    y = measured(truth, len(x))
    if not 0 < k < len(x):
        return None
    return float(_membership(x, k) @ _membership(y, k)) / k


def _membership(values: Floats, k: int) -> Floats:
    """How likely each is among the k largest, ties broken at random."""
    cut = np.sort(values)[-k]
    above, level = values > cut, values == cut
    return np.asarray(above + level * (k - above.sum()) / level.sum())


def regret(scores: Sequence[float | None] | ArrayLike, truth: ArrayLike, among: int) -> float | None:
    """Truth lost by taking the first by score, instead of the best, of ``among`` candidates drawn at random.

    Args:
        scores: (N,) what a ranker says; None or not finite where a candidate failed.
        truth: (N,) what full training says, all finite.
        among: Candidates in a draw, at least 1; from N on there is one draw, all of them.

    Returns:
        The mean over all draws without replacement, exactly, in the unit of ``truth``, at least 0; None for fewer than
        two candidates.

    Raises:
        ConfigError: ``among`` is below 1.
        DataError: Lengths that differ, or a truth that is not finite.
    """
    refuse(whole("among", among, 1))
    x = placed(scores)
    y = measured(truth, len(x))
    if len(x) < 2:
        return None
    best_first, ours = expected_first(np.stack([y, x]), np.stack([y, y]), among)
    return float(best_first - ours)


def expected_first(scores: Floats, truth: Floats, among: int) -> Floats:
    """Mean truth of the first by score among some candidates drawn at random without replacement.

    Args:
        scores: (B, N) finite scores, B lists of them.
        truth: (B, N) finite truths.
        among: Candidates in a draw, at least 1; from N on all of them.

    Returns:
        (B,) in the unit of ``truth``; candidates with equal scores are first equally often.
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
    """How often the better of two candidates has the higher score, where their truths differ by more than ``noise``.

    Args:
        scores: (N,) what a ranker says; None or not finite where a candidate failed.
        truth: (N,) what full training says, all finite.
        noise: In the unit of ``truth``, at least 0.

    Returns:
        In [0, 1]; a tie counts one half. None where no pair differs so much.

    Raises:
        DataError: Lengths that differ, or a truth that is not finite.
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
    """Spearman's correlation of scores and truth once the ranks of ``given`` (parameters, say) are taken out of both.

    Args:
        scores: (N,) what a ranker says; None or not finite where a candidate failed.
        truth: (N,) what full training says, all finite.
        given: (N,) finite numbers.

    Returns:
        In [-1, 1]; 0 where ``given`` leaves nothing of the scores. None for fewer than four candidates, a constant
        truth, or where ``given`` leaves nothing of the truth.

    Raises:
        DataError: Lengths that differ, or a truth that is not finite.
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
    """Centred ``ranks`` less their regression on ``given``; None where nothing is left."""
    r, z = ranks - ranks.mean(), given - given.mean()
    left = r - z * float(r @ z) / float(z @ z) if np.ptp(given) > 0 else r
    return left if float(left @ left) > 1e-9 * len(r) else None


def strata(
    scores: Sequence[float | None] | ArrayLike, truth: ArrayLike, labels: Sequence[Hashable]
) -> dict[str, tuple[float | None, int]]:
    """Spearman's correlation inside each stratum.

    Args:
        scores: (N,) what a ranker says; None or not finite where a candidate failed, which then stands last in its
            stratum.
        truth: (N,) what full training says, all finite.
        labels: (N,) which stratum each candidate belongs to.

    Returns:
        By the label's text, in order of appearance: the correlation, see :func:`spearman`, and the number of
        candidates.

    Raises:
        DataError: Lengths that differ, or a truth that is not finite.
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
        raise DataError(f"there are {len(scores)} scores but {len(found)} {what}: give one for each candidate")


@dataclass(frozen=True)
class Retest:
    """How reliable a truth measured several times is.

    Args:
        single: Mean Spearman correlation between two of its measurements; None for a single measurement.
        single_top: The same inside the best half by their mean; a little high, because the mean chose.
        ceiling: The most that a ranker without error can reach against the mean of all measurements: the square root
            of the mean's reliability (Spearman and Brown).
        noise: Half width of the 95 % interval of the difference of two typical candidates' means, in the truth's unit;
            typical, because a few that sometimes fail to learn would hide all other differences.
    """

    single: float | None
    single_top: float | None
    ceiling: float | None
    noise: float | None


def retest(repeats: ArrayLike) -> Retest:
    """What repeated measurements of the same candidates say about each other.

    Args:
        repeats: (N, R) finite measurements of N candidates.

    Returns:
        Correlations in [-1, 1], a ceiling in [0, 1] and a noise in the unit of ``repeats``; the ceiling is 0 where
        measurements do not agree at all. All None for fewer than two measurements or three candidates.

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
    """The number of candidates from which on a ranker with a preparation is cheaper than ``instead`` for each; or None.

    All in the same unit, seconds say; None: it never is.
    """
    return math.floor(preparation / (instead - each)) + 1 if instead > each else None
