"""Scores of a class-incremental run: accuracies and forgetting over experiences and orders."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from condensekit.replay.study.protocol import Record, Score, Settings

Cell = list[list[Record]]  # for each order, for each experience: a record with scores of the networks, bytes, seconds


def curve(cell: Cell) -> dict[str, Any]:
    """Accuracy after each experience: ``mean`` and ``std`` over orders, and ``orders``, each order's; None: unknown."""
    orders = [[mean(share(score) for score in found["scores"]) for found in order] for order in cell]
    columns = [[value for value in column if value is not None] for column in zip(*orders, strict=True)]
    return {
        "mean": [statistics.fmean(column) if column else None for column in columns],
        "std": [statistics.stdev(column) if len(column) > 1 else 0.0 for column in columns],
        "orders": orders,
    }


def final_accuracies(cell: Cell) -> list[list[float]]:
    """Accuracy of each network on all classes after the last experience, a list for each order."""
    return [[sum(score["right"]) / sum(score["count"]) for score in order[-1]["scores"]] for order in cell]


def by_seed(values: Sequence[Sequence[float]], settings: Settings) -> list[list[float]]:
    """The values grouped by the seed of condensation: orders with the same seed have the same images."""
    groups: dict[int, list[float]] = {}
    for order, found in zip(settings.order_numbers(), values, strict=True):
        groups.setdefault(settings.set_seed(order), []).extend(found)
    return list(groups.values())


def share(score: Score, which: slice = slice(None)) -> float | None:
    """Accuracy on the test images of the experiences ``which``; None: there are no images."""
    total = sum(score["count"][which])
    return float(sum(score["right"][which]) / total) if total else None


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the known values; None: all values are unknown."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def averages(cell: Cell) -> Iterator[float | None]:
    """Mean accuracy over the experiences, for each order; None: the accuracy after an experience is unknown."""
    for order in curve(cell)["orders"]:
        yield None if None in order else statistics.fmean(order)


def forgettings(cell: Cell) -> Iterator[float | None]:
    """Forgetting of each network: best former accuracy minus final accuracy, mean over all but the last experience."""
    for order in cell:
        if any(not found["scores"] for found in order) or len(order) < 2:
            yield None
            continue
        for network in range(len(order[-1]["scores"])):
            parts = [found["scores"][network] for found in order]
            now = parts[-1]
            falls = [
                max(part["right"][i] / part["count"][i] for part in parts[i:-1]) - now["right"][i] / now["count"][i]
                for i in range(len(order) - 1)
                if now["count"][i]
            ]
            yield statistics.fmean(falls) if falls else None
