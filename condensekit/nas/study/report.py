"""One row for each ranker: how well it ranks, how sure that is, what it cost and from when on it pays."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from condensekit.nas.study import ranking
from condensekit.nas.study.bootstrap import Interval, bootstrap, mean_regret, top_correlation
from condensekit.nas.study.ranking import Floats, Retest

NOISE = 0.5  # percentage points: what two accuracies must differ by to count, where no repeats say
AMONG, FEW = 100, 25  # candidates in a draw of the regret: as published, and few enough for a mean over many draws
Scores = Mapping[str, float | None]
"""By key of the architecture: None where the candidate failed, no entry where it was not scored."""


@dataclass(frozen=True)
class Spent:
    """What a ranker cost on all its candidates.

    Args:
        preparation_s: Seconds before the first candidate.
        trials_s: Seconds of all trials together, as if one ran at a time.
        flops: Estimated operations of both.
        image_steps: Images passed forward and backward through candidates.
        evaluations: Architectures whose truth it was told.
        truths_s: Seconds that those truths took; None where that is not known.
    """

    preparation_s: float = 0.0
    trials_s: float = 0.0
    flops: float = 0.0
    image_steps: int = 0
    evaluations: int = 0
    truths_s: float | None = 0.0

    @property
    def total_s(self) -> float:
        """Seconds, those of truths as far as known."""
        return self.preparation_s + self.trials_s + (self.truths_s or 0.0)


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


def row(name: str, scores: Scores, spent: Spent, ground: Ground) -> dict[str, Any]:
    """What :func:`ranking_rows` says about one ranker, without the comparisons with others."""
    keys, truth = ground.rows(scores)
    values = [scores[k] for k in keys]
    n = len(keys)
    top = ranking.best(truth) if n else np.zeros(0, dtype=bool)
    best = [values[i] for i in np.flatnonzero(top)]
    noise = ground.retest.noise or NOISE
    groups = ground.grouped(keys)
    given = [float(ground.params[k]) for k in keys] if ground.params else []
    count = len(scores)
    return {
        "ranker": name,
        "spearman": ranking.spearman(values, truth),
        "kendall": ranking.kendall(values, truth),
        "spearman_top": ranking.spearman(best, truth[top]),
        "kendall_top": ranking.kendall(best, truth[top]),
        "recall_top": ranking.recall(values, truth, max(1, round(ranking.RECALLED * n))) if n else None,
        "regret": ranking.regret(values, truth, AMONG) if n >= ranking.FEWEST else None,
        "regret_25": ranking.regret(values, truth, FEW) if n >= ranking.FEWEST else None,
        "ci95_regret_25": _ends(bootstrap(values, truth, groups, statistic=mean_regret(FEW), seed=ground.seed))
        if n
        else None,
        "pairs": ranking.pair_accuracy(values, truth, noise) if n else None,
        "partial": ranking.partial(values, truth, given) if given else None,
        "strata": {label: _inside(values, truth, [of[k] for k in keys]) for label, of in ground.strata.items() if n},
        "ci95": _ends(bootstrap(values, truth, groups, seed=ground.seed)) if n else None,
        "ci95_top": _ends(bootstrap(values, truth, groups, statistic=top_correlation, seed=ground.seed))
        if top.sum() >= ranking.FEWEST
        else None,
        "cost_s": round(spent.total_s, 3),
        "preparation_s": round(spent.preparation_s, 3),
        "flops": spent.flops,
        "image_steps": spent.image_steps,
        "evaluations": spent.evaluations,
        "pays_from": _pays_from(spent, count, ground.full_s),
        "failed": sum(value is None for value in scores.values()),
        "n": n if ground.keys else count,
    }


def ranking_rows(
    scores: Mapping[str, Scores], spent: Mapping[str, Spent], ground: Ground, baseline: str | None = "random"
) -> list[dict[str, Any]]:
    """A row for each ranker.

    Args:
        scores: By ranker.
        spent: By ranker.
        ground: The truth and what goes with it.
        baseline: The ranker to compare the others with; None, or one that is not there, for none.

    Returns:
        Dictionaries of JSON values, None where something is undefined or there is no truth. Correlations are of all
        candidates and of the truth's top half; ``recall_top`` of the best tenth; ``regret`` in percentage points
        among 100 random candidates, and ``regret_25`` among 25: exact means over all draws, a single draw of all where
        there are no more; ``pairs`` the accuracy on pairs that differ by more than the truth's noise; ``partial`` the
        correlation given the number of parameters; ``ci95``, ``ci95_top`` and ``ci95_regret_25`` bootstrap intervals
        over distinct architectures; ``pays_from`` the number of candidates from which on ranking costs less than
        training them all; ``agreement`` Spearman's correlation with each other ranker; ``difference`` and
        ``difference_top``: [value, lo, hi] to the baseline, paired.
    """
    rows = []
    for name, ours in scores.items():
        found = row(name, ours, spent[name], ground)
        found["agreement"] = {other: _agreement(ours, theirs) for other, theirs in scores.items() if other != name}
        against = scores.get(baseline or "") if name != baseline else None
        found["difference"], found["difference_top"] = differences(ours, against, ground)
        rows.append(found)
    return rows


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


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.lo, interval.hi]


def _pays_from(spent: Spent, count: int, full_s: float | None) -> int | None:
    if not count or full_s is None or spent.truths_s is None:
        return None
    return ranking.break_even(spent.preparation_s + spent.truths_s, spent.trials_s / count, full_s)


COLUMNS = {
    "ranker": "ranker",
    "spearman": "rho",
    "ci95": "95 % interval",
    "kendall": "tau",
    "spearman_top": "rho, top half",
    "ci95_top": "95 % interval",
    "recall_top": "recall of the top tenth",
    "regret": f"regret among {AMONG}",
    "regret_25": f"regret among {FEW}",
    "ci95_regret_25": "95 % interval",
    "pairs": "pairs",
    "partial": "rho given params",
    "cost_s": "cost, s",
    "pays_from": "pays from",
    "failed": "failed",
    "n": "n",
}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in Markdown; without a truth only cost and agreement."""
    names = [str(r["ranker"]) for r in rows]
    if not any(r["spearman"] is not None for r in rows):
        head = ["ranker", "cost, s", "n", *(f"with {name}" for name in names)]
        body = [
            [name, _shown(r["cost_s"]), _shown(r["n"]), *(_shown(r["agreement"].get(other)) for other in names)]
            for name, r in zip(names, rows, strict=True)
        ]
    else:
        head, body = list(COLUMNS.values()), [[_cell(r, column) for column in COLUMNS] for r in rows]
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def regret_text(row: Mapping[str, Any], name: str) -> str:
    """The ``regret`` or ``regret_25`` of a row, and whether it is that of a single draw; empty where there is none."""
    among = AMONG if name == "regret" else FEW
    return _shown(row[name]) + " (one draw)" * (row[name] is not None and row["n"] <= among)


def _cell(row: Mapping[str, Any], column: str) -> str:
    return regret_text(row, column) if column in ("regret", "regret_25") else _shown(row[column])


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "[" + ", ".join(f"{end:.2f}" for end in value) + "]"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
