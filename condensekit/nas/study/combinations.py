"""Combinations of scores by a sum of ranks, a ridge regression or an additive model."""

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

PENALTIES = tuple(10.0**power for power in range(-2, 4))  # penalties of the ridge, of which leave-one-out chooses one


def rank_sum(*rankers: Sequence[float | None] | ArrayLike) -> Floats:
    """Sum of the ranks of each candidate under several rankers; rank 1 is the lowest score, and ties share a rank.

    Args:
        rankers: (N,) scores of each ranker, at least one ranker. None or not finite: the candidate failed and has the
            lowest rank.

    Returns:
        (N,) float64 in [F, F * N] for F rankers.

    Raises:
        DataError: No ranker, or rankers with different numbers of scores.
    """
    sizes = [len(scores) for scores in rankers]  # type: ignore[arg-type]
    if len(set(sizes)) != 1:
        raise DataError(f"a sum of ranks needs one score of each ranker for each candidate, got {sizes} scores")
    return np.asarray(np.sum([stats.rankdata(placed(scores)) for scores in rankers], axis=0), dtype=np.float64)


def ridge(features: ArrayLike, truth: ArrayLike, wanted: ArrayLike) -> Floats:
    """Predict truths by a ridge regression that is fitted to a few candidates with known truths.

    Features become ranks among all candidates, so that the scales of rankers do not matter. Leave-one-out chooses the
    penalty from :data:`PENALTIES`.

    Args:
        features: (K, F) scores of the candidates with known truths, K at least 3.
        truth: (K,) truths of these candidates.
        wanted: (M, F) scores of the candidates to predict.

    Returns:
        (M,) float64 predictions in the unit of ``truth``.

    Raises:
        DataError: Fewer than three known truths, or sizes that differ.
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
    """Predict truths by a ridge regression on one-hot choices, which knows the main effects of choices only.

    Args:
        architectures: (K,) architectures with known truths, K at least 3.
        truth: (K,) truths of these architectures.
        wanted: (M,) architectures to predict. A choice that no architecture in ``architectures`` has is in none of
            the fitted categories.

    Returns:
        (M,) float64 predictions in the unit of ``truth``.

    Raises:
        DataError: Fewer than three known truths, or sizes that differ.
    """
    columns = sorted({(label, str(value)) for a in (*architectures, *wanted) for label, value in a.items()})

    def one_hot(rows: Sequence[Mapping[str, Any]]) -> Floats:
        return np.array([[str(a.get(label)) == value for label, value in columns] for a in rows], dtype=np.float64)

    return ridge(one_hot(architectures), truth, one_hot(wanted))


def shared_by(
    one: Ranker | Combination, found: Mapping[str, Sequence[Trial]], some: Sequence[Architecture]
) -> list[Architecture]:
    """The architectures in ``some`` that all parts of a combination have scored, including failed trials."""
    tables = _tables(one, found)
    return [a for a in some if all(key(a) in table for table in tables)]


def _tables(one: Ranker | Combination, found: Mapping[str, Sequence[Trial]]) -> list[dict[str, Trial]]:
    """Trials of each part, by key of the architecture."""
    return [{key(t.architecture): t for t in found[part.name]} for part in one.parts]


def combined(
    one: Ranker | Combination,
    found: Mapping[str, Sequence[Trial]],
    ranked: Sequence[Architecture],
    known: Sequence[Architecture],
    truth: ArrayLike,
) -> list[Trial]:
    """Make the trials of a combination, for architectures that all its parts have scored.

    Args:
        one: The combination.
        found: Trials of each part, by name.
        ranked: Architectures to score.
        known: Architectures to which a regression is fitted.
        truth: Truths of ``known``. With fewer than three truths, a regression has no trials.
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
