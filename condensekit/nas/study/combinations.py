"""Combinations: scores made of other scores, by a sum of ranks, a ridge regression or an additive model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from condensekit.errors import DataError
from condensekit.nas.rankers.base import Combination, Ranker
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.study.ranking import MIN_CANDIDATES, Floats, placed
from condensekit.nas.trials.log import Trial

PENALTIES = tuple(10.0**power for power in range(-2, 4))  # of the ridge; leave-one-out chooses among them


def rank_sum(*rankers: Sequence[float | None] | ArrayLike) -> Floats:
    """(N,) sums of the candidates' ranks (1 is the lowest score, ties share) under each of the rankers.

    Args:
        rankers: (N,) scores each, at least one ranker; None or not finite where a candidate failed, which then has the
            lowest rank.

    Returns:
        float64 in [F, F * N] for F rankers.

    Raises:
        DataError: No ranker, or rankers with different numbers of scores.
    """
    sizes = [len(scores) for scores in rankers]  # type: ignore[arg-type]
    if len(set(sizes)) != 1:
        raise DataError(f"a sum of ranks needs one score of each ranker for each candidate, got {sizes} scores")
    return np.asarray(np.sum([stats.rankdata(placed(scores)) for scores in rankers], axis=0), dtype=np.float64)


def ridge(features: ArrayLike, truth: ArrayLike, wanted: ArrayLike) -> Floats:
    """(M,) predictions for ``wanted`` by a ridge regression fitted on a few candidates whose truth is known.

    Features are turned into ranks among all candidates first, so that no ranker's scale matters; the penalty is
    chosen by leave-one-out among :data:`PENALTIES`.

    Args:
        features: (K, F) scores of the candidates to fit on.
        truth: (K,) their truths.
        wanted: (M, F) scores of the candidates to predict.

    Raises:
        DataError: Fewer than three candidates to fit on, or sizes that differ.
    """
    from sklearn.linear_model import RidgeCV

    known, asked, goal = (np.asarray(a, dtype=np.float64) for a in (features, wanted, truth))
    if len(known) < MIN_CANDIDATES or len(known) != len(goal) or known.shape[1] != asked.shape[1]:
        raise DataError(
            f"a ridge needs at least {MIN_CANDIDATES} candidates with a truth each and the same features for all, "
            f"got features {known.shape}, truths {goal.shape}, to predict {asked.shape}"
        )
    both = np.vstack([known, asked])
    ranks = np.column_stack([stats.rankdata(placed(column)) for column in both.T]) / len(both)
    model = RidgeCV(alphas=PENALTIES).fit(ranks[: len(known)], goal)
    return np.asarray(model.predict(ranks[len(known) :]), dtype=np.float64)


def additive(
    architectures: Sequence[Mapping[str, Any]], truth: ArrayLike, wanted: Sequence[Mapping[str, Any]]
) -> Floats:
    """(M,) predictions by a ridge regression on one-hot choices: what a table of main effects already knows.

    Args:
        architectures: (K,) choices by label of those to fit on, at least three.
        truth: (K,) their truths.
        wanted: (M,) choices of those to predict; a value that no architecture of ``architectures`` has counts as none
            of those that they have.

    Returns:
        float64 in the unit of ``truth``.

    Raises:
        DataError: Fewer than three architectures to fit on, or another number of truths.
    """
    columns = sorted({(label, str(value)) for a in (*architectures, *wanted) for label, value in a.items()})

    def one_hot(rows: Sequence[Mapping[str, Any]]) -> Floats:
        return np.array([[str(a.get(label)) == value for label, value in columns] for a in rows], dtype=np.float64)

    return ridge(one_hot(architectures), truth, one_hot(wanted))


def shared_by(
    one: Ranker | Combination, found: Mapping[str, Sequence[Trial]], some: Sequence[Architecture]
) -> list[Architecture]:
    """Those of some architectures that all parts of a combination have scored, failed trials included."""
    tables = _tables(one, found)
    return [a for a in some if all(key(a) in table for table in tables)]


def _tables(one: Ranker | Combination, found: Mapping[str, Sequence[Trial]]) -> list[dict[str, Trial]]:
    """Each part's trials by key of the architecture."""
    return [{key(t.architecture): t for t in found[part.name]} for part in one.parts]


def combined(
    one: Ranker | Combination,
    found: Mapping[str, Sequence[Trial]],
    ranked: Sequence[Architecture],
    known: Sequence[Architecture],
    truth: ArrayLike,
) -> list[Trial]:
    """Trials of a combination, of those architectures that all its parts have scored.

    Args:
        one: What to combine.
        found: The parts' trials, by name.
        ranked: The architectures to score.
        known: Those that a regression is fitted on.
        truth: Their truths; where there are fewer than three, a regression has no trials.
    """
    tables = _tables(one, found)
    shared, told = (shared_by(one, found, some) for some in (ranked, known))
    if not shared or (one.fitted and (len(told) < MIN_CANDIDATES or len(told) < len(known))):
        return []

    def features(some: Sequence[Architecture]) -> Floats:
        return np.array([[table[key(a)].score for table in tables] for a in some], dtype=np.float64)

    if not one.fitted:
        values = rank_sum(*features(shared).T)
    elif one.parts:
        values = ridge(features(told), truth, features(shared))
    else:
        values = additive(told, truth, shared)
    costs = [sum(table[key(a)].cost_s for table in tables) for a in shared]
    return [
        Trial(one.name, a, score, cost_s=cost) for a, score, cost in zip(shared, values.tolist(), costs, strict=True)
    ]
