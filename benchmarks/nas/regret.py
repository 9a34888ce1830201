"""Regret: what taking a ranker's first of random candidates loses, put together from two samples of NAS-Bench-201.

A sample of 100 cells is one draw of 100 candidates, whose regret says little. Here candidates are drawn many times: as
in a random 100 from the better half as often as it has cells, and the rest from the worse half.
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

BETTER = 2_678 / 4_930  # of the distinct computations have at least the median truth of all rows of the table
BAR = "synflow+jacov"  # what costs no training: others are compared with it, on the same candidates
DRAWS, RESAMPLES, EACH = 2_000, 200, 50  # of candidates; of cells, for the interval; of candidates in each of those
Rows = NDArray[np.intp]
Ends = tuple[float, float, float]  # a value and its 95 % interval


def regrets(whole: Sheet, top: Sheet) -> dict[str, tuple[Ends, Ends | None]]:
    """By ranker that scored both samples: its mean regret in points of the truth, and that less the one of :data:`BAR`.

    Each with a 95 % interval.

    Args:
        whole: A sample of all cells.
        top: One of the better half.
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
    """See :func:`regrets`.

    Args:
        parts: By ranker, the (N,) finite scores whose ranks among the candidates of a draw are summed.
        truth: (N,) truths.
        better: (N,) which belong to the better half; some do, and some do not.
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
    """(draws, 100) candidates. Those of the worse half may be drawn twice: a sample has hardly enough of them."""
    rows = []
    for count in np.minimum(rng.binomial(AMONG, BETTER, draws), len(pools[0])):
        rows.append(np.r_[rng.choice(pools[0], count, replace=False), rng.choice(pools[1], AMONG - count)])
    return np.array(rows)


def _lost(scores: Sequence[Floats], truth: Floats, rows: Rows) -> Floats:
    """(draws,) the best truth of each draw less that of the ranker's first; ties are first equally often."""
    total = np.sum([stats.rankdata(part[rows], axis=1) for part in scores], axis=0)
    first = total == total.max(1, keepdims=True)
    return np.asarray(truth[rows].max(1) - (truth[rows] * first).sum(1) / first.sum(1))
