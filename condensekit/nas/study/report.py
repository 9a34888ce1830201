"""Ranking rows: how well each ranker ranks, how sure that is, what it cost and from when on it pays."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from condensekit import tables
from condensekit.nas.study import ranking
from condensekit.nas.study.bootstrap import Statistic, bootstrap, mean_regret, rank_correlation, top_correlation
from condensekit.nas.study.ranking import Floats, Retest

USUAL_NOISE = 0.5  # percentage points: what two accuracies must differ by to count, where no repeats say
AMONG, AMONG_FEW = 100, 25  # candidates in a draw of the regret: as published; few enough for many draws
Scores = Mapping[str, float | None]
"""By key of the architecture: None where the candidate failed, no entry where it was not scored."""


@dataclass(frozen=True)
class RankerCost:
    """What a ranker cost on all its candidates.

    Args:
        preparation_s: Seconds before the first candidate.
        trials_s: Seconds of all trials together, as if one ran at a time.
        flops: Operations of both.
        image_steps: Images passed forward and backward through candidates.
        evaluations: Architectures whose truth it was told.
        truths_s: Seconds that those truths took; None where that is not known.
        work: The images and operations of preparation and trials, and the passes over the data that they are worth.
    """

    preparation_s: float = 0.0
    trials_s: float = 0.0
    flops: int = 0
    image_steps: int = 0
    evaluations: int = 0
    truths_s: float | None = 0.0
    work: Mapping[str, float] = field(default_factory=dict)

    @property
    def total_s(self) -> float:
        """Seconds of everything, of truths as far as they are known."""
        return self.preparation_s + self.trials_s + (self.truths_s or 0.0)


@dataclass(frozen=True)
class RankingRow:
    """What is known of one ranker; None where a figure is undefined or there is no truth.

    Args:
        ranker: Its name.
        spearman: Rank correlation with the truth, over all candidates.
        kendall: Kendall's tau.
        spearman_top: Rank correlation in the truth's top half.
        kendall_top: Kendall's tau there.
        recall_top: Of the best tenth.
        regret: In percentage points among 100 random candidates: the exact mean over all draws, a single draw of all
            candidates where there are no more.
        regret_25: The same among 25.
        ci95_regret_25: Its interval: like all intervals [lo, hi], by a bootstrap over distinct architectures.
        pairs: Accuracy on pairs that differ by more than the truth's noise.
        partial: Rank correlation given the number of parameters.
        strata: By label, by value: rank correlation and size of each stratum.
        ci95: Interval of ``spearman``.
        ci95_top: Interval of ``spearman_top``.
        cost_s: Seconds of everything, of truths as well.
        preparation_s: Seconds before the first candidate.
        flops: Operations, see :class:`RankerCost`.
        image_steps: See there.
        evaluations: See there.
        work: See there.
        pays_from: The number of candidates from which on ranking costs less than training them all.
        failed: Candidates without a score.
        n: Candidates.
        agreement: Rank correlation with each other ranker.
        reference: The ranker that it is compared with; None for the reference itself, and without one.
        difference: [value, lo, hi] of ``spearman`` less that of the reference, paired.
        difference_top: The same of ``spearman_top``.
    """

    ranker: str
    spearman: float | None
    kendall: float | None
    spearman_top: float | None
    kendall_top: float | None
    recall_top: float | None
    regret: float | None
    regret_25: float | None
    ci95_regret_25: list[float] | None
    pairs: float | None
    partial: float | None
    strata: dict[str, dict[str, dict[str, Any]]]
    ci95: list[float] | None
    ci95_top: list[float] | None
    cost_s: float
    preparation_s: float
    flops: int
    image_steps: int
    evaluations: int
    work: Mapping[str, float]
    pays_from: int | None
    failed: int
    n: int
    agreement: dict[str, float | None] = field(default_factory=dict)
    reference: str | None = None
    difference: list[float] | None = None
    difference_top: list[float] | None = None


@dataclass(frozen=True)
class Ground:
    """What rankers are compared on.

    Args:
        truth: (N, R) measurements in percent of each key of ``keys``; none at all where there is no truth.
        keys: The architectures that have a truth.
        groups: By key, which architectures compute the same thing.
        params: By key, the number of parameters.
        strata: By name, by key: which stratum an architecture belongs to.
        full_s: Seconds that one full training takes; None where it is not known.
        seed: Of the resamples.
    """

    keys: tuple[str, ...] = ()
    truth: Floats = field(default_factory=lambda: np.zeros((0, 1)))
    groups: Mapping[str, Hashable] = field(default_factory=dict)
    params: Mapping[str, int] = field(default_factory=dict)
    strata: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    full_s: float | None = None
    seed: int = 0

    @property
    def retest(self) -> Retest:
        """What the truth's repeats say about its own noise."""
        return ranking.retest(self.truth)

    def rows(self, scores: Scores) -> tuple[list[str], Floats]:
        """The keys that have a score and a truth, and their mean truths."""
        at = [i for i, k in enumerate(self.keys) if k in scores]
        return [self.keys[i] for i in at], self.truth.mean(1)[at]

    def grouped(self, keys: Sequence[str]) -> list[Hashable]:
        """The group of each key."""
        return [self.groups.get(k, k) for k in keys]


def ranking_rows(
    scores: Mapping[str, Scores], costs: Mapping[str, RankerCost], ground: Ground, reference: str | None = "random"
) -> tuple[RankingRow, ...]:
    """A row for each ranker.

    Args:
        scores: By ranker.
        costs: By ranker.
        ground: The truth and what goes with it.
        reference: The ranker to compare the others with; None, or a ranker that is not there: no comparison.
    """
    return tuple(_row(name, scores, costs[name], ground, reference) for name in scores)


def _row(
    name: str, all_scores: Mapping[str, Scores], cost: RankerCost, ground: Ground, reference: str | None
) -> RankingRow:
    scores = all_scores[name]
    compared = reference if reference in all_scores and reference != name else None
    difference, difference_top = differences(scores, all_scores.get(compared or ""), ground)
    keys, truth = ground.rows(scores)
    values, n = [scores[k] for k in keys], len(keys)
    top = ranking.best(truth) if n else np.zeros(0, dtype=bool)
    best = [values[i] for i in np.flatnonzero(top)]
    groups = ground.grouped(keys)
    given = [float(ground.params[k]) for k in keys] if ground.params else []

    def interval(statistic: Statistic = rank_correlation) -> list[float] | None:
        found = bootstrap(values, truth, groups, statistic=statistic, seed=ground.seed) if n else None
        return None if found is None else [found.lo, found.hi]

    return RankingRow(
        ranker=name,
        spearman=ranking.spearman(values, truth),
        kendall=ranking.kendall(values, truth),
        spearman_top=ranking.spearman(best, truth[top]),
        kendall_top=ranking.kendall(best, truth[top]),
        recall_top=ranking.recall(values, truth, max(1, round(ranking.RECALLED_SHARE * n))) if n else None,
        regret=ranking.regret(values, truth, AMONG) if n >= ranking.MIN_CANDIDATES else None,
        regret_25=ranking.regret(values, truth, AMONG_FEW) if n >= ranking.MIN_CANDIDATES else None,
        ci95_regret_25=interval(mean_regret(AMONG_FEW)),
        pairs=ranking.pair_accuracy(values, truth, ground.retest.noise or USUAL_NOISE) if n else None,
        partial=ranking.partial(values, truth, given) if given else None,
        strata={label: _inside(values, truth, [of[k] for k in keys]) for label, of in ground.strata.items() if n},
        ci95=interval(),
        ci95_top=interval(top_correlation) if top.sum() >= ranking.MIN_CANDIDATES else None,
        cost_s=round(cost.total_s, 3),
        preparation_s=round(cost.preparation_s, 3),
        flops=cost.flops,
        image_steps=cost.image_steps,
        evaluations=cost.evaluations,
        work=dict(cost.work),
        pays_from=_pays_from(cost, len(scores), ground.full_s),
        failed=sum(value is None for value in scores.values()),
        n=n if ground.keys else len(scores),
        agreement={other: _agreement(scores, theirs) for other, theirs in all_scores.items() if other != name},
        reference=compared,
        difference=difference,
        difference_top=difference_top,
    )


def differences(ours: Scores, theirs: Scores | None, ground: Ground) -> tuple[list[float] | None, list[float] | None]:
    """[value, lo, hi] of Spearman's correlation less that of ``theirs``, over all and in the top half; or None."""
    if theirs is None:
        return None, None
    keys, truth = ground.rows({k: None for k in ours if k in theirs})
    if not keys:
        return None, None
    mine, other, groups = [ours[k] for k in keys], [theirs[k] for k in keys], ground.grouped(keys)
    whole = bootstrap(mine, truth, groups, against=other, seed=ground.seed)
    top = bootstrap(mine, truth, groups, against=other, statistic=top_correlation, seed=ground.seed)
    return tuple(None if found is None else [found.value, found.lo, found.hi] for found in (whole, top))  # type: ignore[return-value]


def _inside(values: Sequence[float | None], truth: Floats, labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Correlation and size of each stratum."""
    found = ranking.strata(values, truth, labels)
    return {name: {"spearman": rho, "n": size} for name, (rho, size) in found.items()}


def _agreement(ours: Scores, theirs: Scores) -> float | None:
    """Spearman's correlation of two rankers; None where either gives all the same score."""
    shared = [k for k in ours if k in theirs]
    mine, other = (ranking.placed([scores[k] for k in shared]) for scores in (ours, theirs))
    found = ranking.spearman(mine, other)
    return None if found is None or np.ptp(mine) == 0 else found


def _pays_from(cost: RankerCost, count: int, full_s: float | None) -> int | None:
    if not count or full_s is None or cost.truths_s is None:
        return None
    return ranking.break_even(cost.preparation_s + cost.truths_s, cost.trials_s / count, full_s)


COLUMNS = {
    "ranker": "ranker",
    "spearman": "rho",
    "ci95": "95 % interval",
    "kendall": "tau",
    "spearman_top": "rho, top half",
    "ci95_top": "95 % interval",
    "recall_top": "recall of the top tenth",
    "regret": f"regret among {AMONG}",
    "regret_25": f"regret among {AMONG_FEW}",
    "ci95_regret_25": "95 % interval",
    "pairs": "pairs",
    "partial": "rho given params",
    "cost_s": "cost, s",
    "pays_from": "pays from",
    "failed": "failed",
    "n": "n",
}


def cells(rows: Sequence[RankingRow]) -> tuple[list[str], list[list[str]]]:
    """Head and lines of a table of the rows; without a truth only cost and agreement."""
    if any(row.spearman is not None for row in rows):
        return list(COLUMNS.values()), [[_cell(row, column) for column in COLUMNS] for row in rows]
    names = [row.ranker for row in rows]
    head = ["ranker", "cost, s", "n", *(f"with {name}" for name in names)]
    return head, [
        [row.ranker, _shown(row.cost_s), _shown(row.n), *(_shown(row.agreement.get(other)) for other in names)]
        for row in rows
    ]


def table(rows: Sequence[RankingRow]) -> str:
    """The rows in Markdown."""
    return tables.markdown(*cells(rows))


def regret_text(row: RankingRow, among: int) -> str:
    """The regret among 100 or 25 candidates, and whether it is that of a single draw; empty where there is none."""
    value = row.regret if among == AMONG else row.regret_25
    return _shown(value) + " (one draw)" * (value is not None and row.n <= among)


def _cell(row: RankingRow, column: str) -> str:
    among = {"regret": AMONG, "regret_25": AMONG_FEW}
    return regret_text(row, among[column]) if column in among else _shown(vars(row)[column])


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "[" + ", ".join(f"{end:.2f}" for end in value) + "]"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
