"""Section of a replay run: accuracy by experience, tables, matrices of accuracies, and its verdict."""

from __future__ import annotations

import re

from markupsafe import Markup

from condensekit.html.layout import charts, paragraph
from condensekit.html.numbers import percent, size
from condensekit.html.tables import matrix
from condensekit.replay.study.memories import SAME
from condensekit.replay.study.pieces import curves, results
from condensekit.replay.study.results import ReplayResult, ReplayRow
from condensekit.report.cells import Matrices, Matrix
from condensekit.report.section import Section
from condensekit.report.words import images_of, points, sure

MOST_MATRICES, LARGEST_MATRIX = 6, 20


def verdict(found: ReplayResult) -> str | None:
    """The comparison that was named before the run, in a sentence; None if there are no rows."""
    if not found.rows:
        return None
    told = f"After the last of {_experiences(found)} experiences"
    one = next((c for c in found.contrasts if c.primary), next(iter(found.contrasts), None))
    row = _row(found, one.memory, one.regime) if one else found.rows[0]
    other = _row(found, one.against, one.regime) if one else None
    row = row or found.rows[0]
    said = (
        f"{told}, a network that keeps {_held(row)} ({row.regime}) "
        f"reaches {percent(row.final_accuracy_mean)} accuracy on all classes"
    )
    if one is None or other is None:
        return f"{said}; no condensed memory was compared with a real one."
    return (
        f"{said}, one that keeps {_held(other)} {percent(other.final_accuracy_mean)}: a difference of "
        f"{points(one.difference)}, {sure(one.ci95, one.unit, _count(row, one.unit))}."
    )


def sections(found: ReplayResult | None, held: Matrices) -> list[Section]:
    """Curves, table, comparisons and matrices; without a result the matrices."""
    if found is None:
        return matrix_section(None, held)
    made = (
        [Section("Accuracy by experience", [charts(curves(found.accuracy_by_experience))])]
        if found.accuracy_by_experience
        else []
    )
    made.append(Section("Results", results(found.rows, found.contrasts)))
    return [*made, *matrix_section(found, held)]


def matrix_section(found: ReplayResult | None, held: Matrices) -> list[Section]:
    """The matrix of accuracies of each memory; with a result, of its rows."""
    named = {f"{regime}, {folder}": square for (regime, folder), square in held.items()}
    if found is not None:
        pairs = {f"{row.memory}, {row.regime}": _matrix_of(row, held) for row in found.rows}
        named = {name: square for name, square in pairs.items() if square}
    drawn = [_matrix(name, square) for name, square in list(named.items())[:MOST_MATRICES]]
    left = len(named) - len(drawn)
    more = [paragraph(f"The matrices of {left} further memories are left out.")] if left else []
    return [Section("Matrix of accuracies", [charts(drawn), *more])] if drawn else []


def _matrix(name: str, square: Matrix) -> Markup:
    shown = [row[:LARGEST_MATRIX] for row in square[:LARGEST_MATRIX]]
    numbers = [str(i) for i in range(1, len(shown) + 1)]
    cut = f" The first {LARGEST_MATRIX} of {len(square)} experiences." if len(square) > LARGEST_MATRIX else ""
    caption = f"{name}: accuracy in percent after each experience on the classes of each one.{cut}"
    return matrix(shown, [f"after {i}" for i in numbers], [f"on {i}" for i in numbers], caption)


def _matrix_of(row: ReplayRow, held: Matrices) -> Matrix | None:
    """The matrix in the folder of a memory, ``NAME`` or ``NAME-IMAGES``; None if no folder, or several, fit."""
    name = SAME.get(row.memory, row.memory).replace("/", "_").replace(" ", "_")
    fits = {folder: square for (regime, folder), square in held.items() if regime == row.regime}
    exact = fits.get(f"{name}-{row.ipc}") or fits.get(name)
    others = [square for folder, square in fits.items() if re.fullmatch(rf"{re.escape(name)}-\d+", folder)]
    return exact or (others[0] if len(others) == 1 else None)


def _row(found: ReplayResult, memory: str, regime: str) -> ReplayRow | None:
    return next((row for row in found.rows if (row.memory, row.regime) == (memory, regime)), None)


def _held(row: ReplayRow) -> str:
    """The images of a memory and their bytes."""
    return f"{images_of(row.memory, row.images, row.learnt)} in {size(row.nbytes)}"


def _experiences(found: ReplayResult) -> int:
    return max((len(curve["mean"]) for curve in found.accuracy_by_experience.values()), default=0)


def _count(row: ReplayRow, unit: str | None) -> int:
    return row.sets if unit == "set" else row.n
