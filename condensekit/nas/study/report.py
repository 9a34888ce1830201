"""Report of a contest: a row for each ranker with ranking quality, intervals and costs, and the table of rows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from condensekit.nas.study import ranking
from condensekit.nas.study.bootstrap import Statistic, bootstrap, mean_regret, rank_correlation, top_correlation
from condensekit.nas.study.ranking import Floats, Retest

USUAL_NOISE = 0.5  # percentage points: noise of a truth without repeats
AMONG, AMONG_FEW = 100, 25  # numbers of candidates in a draw of the regret: the published number, and a smaller number
LEAST_RECALLED = 5  # architectures in the best tenth, from which its recall means something
REGRET, SIZE = "regret", "architectures"  # columns of the table
Scores = Mapping[str, float | None]
"""Scores by key of the architecture. None: the candidate failed; no entry: the candidate was not scored."""


@dataclass(frozen=True)
class RankerCost:
    """Cost of a ranker on all its candidates.

    Args:
        preparation_s: Seconds of the preparation, before the first candidate.
        trials_s: Sum of the seconds of all trials.
        flops: FLOPs of preparation, trials and truths; None: unknown, because a candidate cannot be counted.
        image_steps: Number of images that passed forward and backward through candidates.
        evaluations: Number of architectures with a truth to which the ranker was fitted.
        truths_s: Seconds of these truths; None: unknown.
        work: Images and FLOPs of preparation, trials and truths, and the equivalent passes over the training images.
    """

    preparation_s: float = 0.0
    trials_s: float = 0.0
    flops: int | None = 0
    image_steps: int = 0
    evaluations: int = 0
    truths_s: float | None = 0.0
    work: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def total_s(self) -> float:
        """Seconds of preparation, trials and truths; unknown seconds of truths count 0."""
        return self.preparation_s + self.trials_s + (self.truths_s or 0.0)


@dataclass(frozen=True)
class RankingRow:
    """Results of one ranker. None: the value is undefined, or there is no truth.

    Intervals are [lo, hi] at 95 %, from a bootstrap over distinct architectures.

    >>> import condensekit as ck
    >>> from condensekit.nas import Contest, Maker, Running, Setting, ranker, space
    >>> train, test = ck.load("digits")
    >>> train, held = train.split(0.2, seed=0)
    >>> setting = Setting(Maker(train), held)
    >>> contest = Contest(space("convnet-small", (1, 8, 8), 10), [ranker("params")], setting, trials=3)
    >>> row = contest.run(Running(engine="sequential")).rows[0]
    >>> row.ranker, row.n, row.spearman  # no truth, no correlation
    ('params', 3, None)

    Args:
        ranker: Name of the ranker.
        spearman: Spearman's rank correlation with the truth, over all candidates.
        kendall: Kendall's tau with the truth, over all candidates.
        spearman_top: Spearman's rank correlation in the top half by truth.
        kendall_top: Kendall's tau in the top half by truth.
        recall_top: Fraction of the best tenth by truth that is in the best tenth by score.
        regret: Mean regret among 100 random candidates, in percentage points; with at most 100 candidates, that of all
            candidates.
        regret_25: Mean regret among 25 random candidates, in percentage points.
        ci95_regret_25: Interval of ``regret_25``.
        pairs: Fraction of correctly ordered pairs, of the pairs that differ by more than the noise of the truth.
        partial: Rank correlation given the number of parameters.
        strata: Rank correlation and size of each stratum, by label and value.
        ci95: Interval of ``spearman``.
        ci95_top: Interval of ``spearman_top``.
        cost_s: Seconds of preparation, trials and truths.
        preparation_s: Seconds of the preparation.
        flops: FLOPs, see :class:`RankerCost`.
        image_steps: See :class:`RankerCost`.
        evaluations: See :class:`RankerCost`.
        work: See :class:`RankerCost`.
        pays_from: Smallest number of candidates for which the ranker costs less than full training of all; None: never
            or unknown.
        failed: Number of candidates without a score.
        n: Number of candidates.
        agreement: Rank correlation with each other ranker, by name.
        reference: Name of the ranker with which this ranker is compared; None: there is no comparison.
        difference: [value, lo, hi] of ``spearman`` minus that of the reference, paired by candidate.
        difference_top: [value, lo, hi] of ``spearman_top`` minus that of the reference, paired by candidate.
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
    flops: int | None
    image_steps: int
    evaluations: int
    work: Mapping[str, float | None]
    pays_from: int | None
    failed: int
    n: int
    agreement: dict[str, float | None] = field(default_factory=dict)
    reference: str | None = None
    difference: list[float] | None = None
    difference_top: list[float] | None = None


@dataclass(frozen=True)
class Ground:
    """Truths and further data on which rankers are compared.

    Args:
        keys: Keys of the N architectures with a truth.
        truth: (N, R) measurements in percent of these architectures; without a truth N is 0.
        groups: Group of each architecture, by key; architectures of a group compute the same.
        params: Number of parameters of each architecture, by key.
        strata: Stratum of each architecture, by label and by key.
        full_s: Seconds of one full training; None: unknown.
        seed: Seed of the resamples.
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
        """Reliability of the truth."""
        return ranking.retest(self.truth)

    def rows(self, scores: Scores) -> tuple[list[str], Floats]:
        """Keys of the architectures with a score and a truth, and their mean truths."""
        at = [i for i, k in enumerate(self.keys) if k in scores]
        return [self.keys[i] for i in at], self.truth.mean(1)[at]

    def grouped(self, keys: Sequence[str]) -> list[Hashable]:
        """Group of each key."""
        return [self.groups.get(k, k) for k in keys]


def ranking_rows(
    scores: Mapping[str, Scores], costs: Mapping[str, RankerCost], ground: Ground, reference: str | None = "random"
) -> tuple[RankingRow, ...]:
    """Make a row for each ranker.

    Args:
        scores: Scores of each ranker, by name.
        costs: Cost of each ranker, by name.
        ground: Truths and further data.
        reference: Name of the ranker with which the others are compared; None, or a name that ``scores`` does not
            have: no comparison.
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
    """[value, lo, hi] of Spearman's correlation minus that of ``theirs``, over all and in the top half, or None."""
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
    """Spearman's correlation of two rankers; None: the scores of one ranker are equal, or there are too few."""
    shared = [k for k in ours if k in theirs]
    mine, other = (ranking.placed([scores[k] for k in shared]) for scores in (ours, theirs))
    found = ranking.spearman(mine, other)
    return None if found is None or np.ptp(mine) == 0 else found


def _pays_from(cost: RankerCost, count: int, full_s: float | None) -> int | None:
    if not count or full_s is None or cost.truths_s is None:
        return None
    return ranking.break_even(cost.preparation_s + cost.truths_s, cost.trials_s / count, full_s)


def cells(rows: Sequence[RankingRow]) -> tuple[list[str], list[list[str]]]:
    """Head and lines of the table of rows; without a truth it has costs and agreement only.

    Columns that are empty in all rows are left out, and so is what few candidates cannot tell.
    """
    measured = any(row.spearman is not None for row in rows)
    columns = (
        {"ranker": [row.ranker for row in rows], **(_measures(rows) if measured else {})}
        | {"cost, s": [f"{row.cost_s:,.0f}" if row.cost_s >= 10 else f"{row.cost_s:.2g}" for row in rows]}
        | {"pays from": _pays(rows)}
        | {"failed": [str(row.failed or "") for row in rows]}
        | ({} if measured else {f"with {one.ranker}": _agreements(rows, one.ranker) for one in rows})
        | {SIZE: [str(row.n) for row in rows]}
    )
    shown = {head: column for head, column in columns.items() if any(column)}
    return list(shown), [list(line) for line in zip(*shown.values(), strict=True)]


def caption(rows: Sequence[RankingRow], truth: str | None) -> str:
    """What the numbers of the table are.

    Args:
        rows: The rows.
        truth: Name of the truth; None: there is none.
    """
    if truth is None or all(row.spearman is None for row in rows):
        return "Cost of each ranker, and its rank correlation with the others; no truth says how good its order is."
    heads = cells(rows)[0]
    told = [
        f"Agreement of each ranker with the truth ({truth}); brackets: 95 % intervals over architectures.",
        "rho: Spearman's rank correlation; tau: Kendall's.",
        "Regret: points of accuracy lost by taking the best by score instead of the best by truth"
        + (f", on average over random draws of {AMONG} or {AMONG_FEW} candidates." if REGRET not in heads else "."),
        "Pairs: share of the pairs in the right order.",
        "Pays from: number of candidates from which the measured seconds are fewer than those of full training."
        * ("pays from" in heads),
    ]
    return " ".join(filter(None, told))


def _measures(rows: Sequence[RankingRow]) -> dict[str, list[str]]:
    """The columns that compare a ranker with the truth."""
    most = max(row.n for row in rows)
    few = most <= AMONG_FEW
    return {
        "rho": [_number(row.spearman, row.ci95) for row in rows],
        "rho, top half": [_number(row.spearman_top, row.ci95_top) for row in rows],
        "tau": [_number(row.kendall) for row in rows],
        "recall of the top tenth": [
            _number(row.recall_top) if row.n >= LEAST_RECALLED / ranking.RECALLED_SHARE else "" for row in rows
        ],
        f"{REGRET} among {AMONG}" if most > AMONG else REGRET: [_number(row.regret) for row in rows],
        f"{REGRET} among {AMONG_FEW}": ["" if few else _number(row.regret_25, row.ci95_regret_25) for row in rows],
        "pairs": [_number(row.pairs) for row in rows],
        "rho given params": [_number(row.partial) for row in rows],
    }


def _pays(rows: Sequence[RankingRow]) -> list[str]:
    """From how many candidates rankers are cheaper than full training; nothing if that is so for none of them."""
    found = [_number(row.pays_from) for row in rows]
    scored = [row.n > row.failed for row in rows]
    return [number or "never" * (any(found) and some) for number, some in zip(found, scored, strict=True)]


def _agreements(rows: Sequence[RankingRow], other: str) -> list[str]:
    return [_number(row.agreement.get(other)) for row in rows]


def _number(value: float | None, interval: Sequence[float] | None = None) -> str:
    """A figure with its interval; empty text for None. Large figures have no decimals."""
    if value is None:
        return ""
    bounds = "" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]"
    return (f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 100 else f"{value:.2f}") + bounds
