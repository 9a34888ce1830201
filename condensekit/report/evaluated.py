"""Section of an evaluation: accuracies of networks trained on sets, with intervals, and its verdict."""

from __future__ import annotations

from condensekit.html.numbers import percent
from condensekit.report.section import Section
from condensekit.report.words import capital, images_of, points, sure
from condensekit.stats import units
from condensekit.training.evaluation import Evaluation, EvaluationRow
from condensekit.training.pieces import accuracies


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
    return Section("Accuracy", accuracies(found.rows, found.protocol, found.notes))


def seconds(found: Evaluation) -> float:
    """Seconds of all its trainings."""
    return sum(row.wall_s for row in found.rows)


def _reference(found: Evaluation, row: EvaluationRow) -> EvaluationRow | None:
    return next(
        (one for one in found.rows if (one.set, one.network, one.ipc) == (row.reference, row.network, row.ipc)), None
    )
