"""Pieces of pages about searches: the table of rankers, and a scatter of each ranker's scores against the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from condensekit.html.charts import Axis, Series, chart
from condensekit.html.layout import MOST_NOTES, paragraph
from condensekit.html.tables import table
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.study import report
from condensekit.nas.study.report import RankingRow
from condensekit.nas.trials.log import Trial

MOST_PANELS, MOST_POINTS = 9, 1000
Values = Mapping[str, Sequence[float]]


def rankers(
    rows: Sequence[RankingRow], truth: str | None, best: Mapping[str, Any] | None, notes: Sequence[str]
) -> list[Markup]:
    """The best candidate, the table of rankers, and the notes of a search; ``truth`` is the name of its truth."""
    told = [paragraph(f"Best candidate by {best['ranker']}: {named(best['architecture'])}.")] if best else []
    shown = table(*report.cells(rows), report.caption(rows, truth))
    return [*told, shown, *map(paragraph, notes[:MOST_NOTES])]


def scatters(trials: Sequence[Trial], truth: Values, rows: Sequence[RankingRow]) -> list[Markup]:
    """A chart for each ranker: its score against the truth in percent; empty without a truth.

    Args:
        trials: The trials of all rankers.
        truth: Measurements in percent, by key of the architecture.
        rows: The rows of the rankers.
    """
    by: dict[str, list[tuple[float, float, str]]] = {}
    for trial in trials:
        values = truth.get(key(trial.architecture))
        if values and trial.score is not None:
            by.setdefault(trial.ranker, []).append((sum(values) / len(values), trial.score, named(trial.architecture)))
    return [_scatter(name, some, rows) for name, some in list(by.items())[:MOST_PANELS]]


def _scatter(name: str, some: Sequence[tuple[float, float, str]], rows: Sequence[RankingRow]) -> Markup:
    row = next((one for one in rows if one.ranker == name), None)
    rho = f", rank correlation {row.spearman:.2f}" if row and row.spearman is not None else ""
    shown = some[:MOST_POINTS]
    left = f" {MOST_POINTS:,} of {len(some):,} candidates are shown." if len(some) > MOST_POINTS else ""
    return chart(
        f"Scores of {name} against the truth for {len(some)} candidates{rho}",
        Axis.over("truth, % of the test images", [x for x, _, _ in shown]),
        Axis.over("score", [y for _, y, _ in shown]),
        [Series(name, [(x, y) for x, y, _ in shown], line=False, texts=[text for _, _, text in shown])],
        f"{name}{rho}.{left}",
    )


def named(architecture: Architecture) -> str:
    """An architecture in words: ``width 64, depth 2``."""
    return ", ".join(f"{name} {value}" for name, value in architecture.items() if value is not None)
