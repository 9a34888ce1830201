"""Pieces of pages about evaluations: the table of accuracies with a bar for each, and the texts below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from condensekit import tables
from condensekit.html.layout import MOST_NOTES, paragraph
from condensekit.html.numbers import percent, size
from condensekit.html.tables import bar, table
from condensekit.stats import interval, units

COLUMNS = (
    "set",
    "accuracy",
    "95 % interval",
    "0 to 100 %",
    "difference, points",
    "to",
    "images",
    "bytes",
    "network",
    "trainings",
)
Row = Any  # an EvaluationRow, whose module uses this one


def accuracies(rows: Sequence[Row], protocol: Mapping[str, Any], notes: Sequence[str]) -> list[Markup]:
    """The table of an evaluation, and what its reader should know.

    Args:
        rows: Its rows.
        protocol: Its training protocol.
        notes: Its notes.
    """
    name = protocol.get("name")
    caption = (
        "Accuracy on the test images of networks trained from scratch on each set"
        f"{f', protocol {name}' if name else ''}. Differences are paired. Intervals are over sets if there are "
        "at least three, else over trainings; trainings: sets x networks."
    )
    return [table(COLUMNS, [cells(row) for row in rows], caption), *map(paragraph, notes[:MOST_NOTES])]


def cells(row: Row) -> list[object]:
    """The cells of a row under :data:`COLUMNS`."""
    low, high = spread(row)
    return [
        row.set,
        percent(row.accuracy_mean),
        "-" if low == high else f"{100 * low:.1f} to {100 * high:.1f}",
        bar(low, row.accuracy_mean, high),
        tables.signed(row.difference, row.ci95) or "-",
        row.reference or "",
        f"{row.images:,}",
        size(row.nbytes),
        row.network,
        f"{row.sets} x {row.networks}" if row.sets > 1 else row.networks,
    ]


def spread(row: Row) -> tuple[float, float]:
    """The ends of the 95 % interval of the accuracy; both are the mean if there is none."""
    return interval(units(row.accuracies)[0]) or (row.accuracy_mean, row.accuracy_mean)
