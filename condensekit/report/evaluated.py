"""Section of an evaluation: accuracies of networks trained on sets, with intervals, and its verdict."""

from __future__ import annotations

from condensekit import tables
from condensekit.html.numbers import percent, size
from condensekit.html.tables import bar, table
from condensekit.report.section import MOST_NOTES, Section, paragraph
from condensekit.report.words import capital, images_of, points, sure
from condensekit.stats import interval, units
from condensekit.training.evaluation import Evaluation, EvaluationRow

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


def verdict(found: Evaluation) -> str | None:
    """The comparison of the first set with its reference, in a sentence; None if there are no rows."""
    if not found.rows:
        return None
    row = next((row for row in found.rows if row.difference is not None), found.rows[0])
    taught = f"{capital(images_of(row.set, row.images))} teach{'es' * (row.images == 1)} a network ({row.network})"
    said = f"{taught} {percent(row.accuracy_mean)} accuracy on the test images"
    other = _reference(found, row)
    if other is None or row.difference is None:
        return f"{said}; nothing was trained to compare with."
    return (
        f"{said}, {images_of(other.set, other.images)} {percent(other.accuracy_mean)}: a difference of "
        f"{points(row.difference)}, {sure(row.ci95, row.unit, len(units(row.accuracies)[0]))}."
    )


def section(found: Evaluation) -> Section:
    """The table of accuracies and what its reader should know."""
    protocol = found.protocol.get("name")
    caption = (
        "Accuracy on the test images of networks trained from scratch on each set"
        f"{f', protocol {protocol}' if protocol else ''}. Differences are paired. Intervals are over sets if there are "
        "at least three, else over trainings; trainings: sets x networks."
    )
    return Section(
        "Accuracy",
        [table(COLUMNS, [cells(row) for row in found.rows], caption), *map(paragraph, found.notes[:MOST_NOTES])],
    )


def cells(row: EvaluationRow) -> list[object]:
    """The cells of a row under :data:`COLUMNS`."""
    found = interval(units(row.accuracies)[0])
    low, high = found or (row.accuracy_mean, row.accuracy_mean)
    return [
        row.set,
        percent(row.accuracy_mean),
        "-" if found is None else f"{100 * low:.1f} to {100 * high:.1f}",
        bar(low, row.accuracy_mean, high),
        tables.signed(row.difference, row.ci95) or "-",
        row.reference or "",
        f"{row.images:,}",
        size(row.nbytes),
        row.network,
        f"{row.sets} x {row.networks}" if row.sets > 1 else row.networks,
    ]


def seconds(found: Evaluation) -> float:
    """Seconds of all its trainings."""
    return sum(row.wall_s for row in found.rows)


def _reference(found: Evaluation, row: EvaluationRow) -> EvaluationRow | None:
    return next(
        (one for one in found.rows if (one.set, one.network, one.ipc) == (row.reference, row.network, row.ipc)), None
    )
