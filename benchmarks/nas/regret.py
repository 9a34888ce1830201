"""Regret of taking a ranker's best of 100 random candidates, from two samples of NAS-Bench-201.

A sample of 100 cells is a single draw of 100 candidates, whose regret is not precise. Here candidates are drawn many
times. In each draw the number of candidates from the better half is that of a random draw from all cells; the other
candidates come from the worse half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.nas.sheets import Sheet
from condensekit.nas.study.ranking import Floats, placed
from condensekit.nas.study.report import AMONG
from condensekit.rng import Draw

BETTER = 2_678 / 4_930  # fraction of distinct computations with at least the median truth of all rows of the table
BAR = "synflow+jacov"  # ranker without training, with which the others are compared on the same candidates
DRAWS, RESAMPLES, EACH = 2_000, 200, 50  # draws for a value; resamples of cells for an interval; draws per resample
Rows = NDArray[np.intp]
Ends = tuple[float, float, float]  # a value and the ends of its 95 % interval


def regrets(whole: Sheet, top: Sheet) -> dict[str, tuple[Ends, Ends | None]]:
    """Mean regret of each ranker that scored both samples, and its difference to that of :data:`BAR`.

    Args:
        whole: Sample of all cells.
        top: Sample of the better half of cells.

    Returns:
        Mean regret and difference (None without :data:`BAR`) in percentage points with 95 % intervals, by ranker.
    """
    truths = {k: float(np.mean(t["truth"])) for sheet in (whole, top) for k, t in sheet.trials.items()}
    keys, truth = list(truths), np.array(list(truths.values()))
    better = truth >= min(truths[k] for k in top.trials)
    names = [name for name in whole.scores if name in top.scores and "[" not in name]
    found = {part: {**whole.scores[part], **top.scores[part]} for name in names for part in name.split("+")}
    scores = {part: placed([values.get(k) for k in keys]) for part, values in found.items()}
    parts = {name: [scores[part] for part in name.split("+")] for name in names}
    return sampled(parts, truth, better)


def sampled(
    parts: Mapping[str, Sequence[Floats]], truth: Floats, better: NDArray[np.bool_]
) -> dict[str, tuple[Ends, Ends | None]]:
    """Mean regrets and differences from scores and truths, see :func:`regrets`.

    Args:
        parts: (N,) finite scores of each part of a ranker, by ranker; the ranks of the parts in a draw are summed.
        truth: (N,) truths.
        better: (N,) whether each candidate is in the better half; both halves have candidates.
    """
    rng = np.random.default_rng(Draw(0).key("regret"))
    pools = np.flatnonzero(better), np.flatnonzero(~better)
    rows = _drawn(rng, pools, DRAWS)
    means = {name: float(_lost(scores, truth, rows).mean()) for name, scores in parts.items()}
    spread = {name: np.zeros(RESAMPLES) for name in parts}
    for again in range(RESAMPLES):
        rows = _drawn(rng, tuple(rng.choice(pool, len(pool)) for pool in pools), EACH)
        for name, scores in parts.items():
            spread[name][again] = _lost(scores, truth, rows).mean()
    ahead = {name: _ends(means[name] - means[BAR], spread[name] - spread[BAR]) for name in parts if BAR in parts}
    return {name: (_ends(mean, spread[name]), ahead.get(name)) for name, mean in means.items()}


def _ends(value: float, spread: Floats) -> Ends:
    lo, hi = np.percentile(spread, (2.5, 97.5))
    return value, float(lo), float(hi)


def _drawn(rng: np.random.Generator, pools: tuple[Rows, ...], draws: int) -> Rows:
    """(draws, 100) candidates; those of the worse half may be drawn twice, because a sample has few of them."""
    rows = []
    for count in np.minimum(rng.binomial(AMONG, BETTER, draws), len(pools[0])):
        rows.append(np.r_[rng.choice(pools[0], count, replace=False), rng.choice(pools[1], AMONG - count)])
    return np.array(rows)


def _lost(scores: Sequence[Floats], truth: Floats, rows: Rows) -> Floats:
    """(draws,) best truth of each draw minus the truth of the best by score; ties are averaged."""
    total = np.sum([stats.rankdata(part[rows], axis=1) for part in scores], axis=0)
    first = total == total.max(1, keepdims=True)
    return np.asarray(truth[rows].max(1) - (truth[rows] * first).sum(1) / first.sum(1))
