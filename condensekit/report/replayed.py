"""Section of a replay run: accuracy by experience, tables, matrices of accuracies, and its verdict."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from markupsafe import Markup

from condensekit import tables
from condensekit.html.charts import Axis, Series, chart
from condensekit.html.numbers import percent, size
from condensekit.html.tables import matrix, table
from condensekit.replay.study.memories import SAME
from condensekit.replay.study.results import ReplayResult, ReplayRow
from condensekit.report.cells import Matrices, Matrix
from condensekit.report.section import MOST_NOTES, Section, charts, paragraph
from condensekit.report.words import images_of, points, sure

COLUMNS = (
    "memory",
    "final accuracy",
    "above random, points",
    "average",
    "forgetting",
    "images",
    "bytes",
    "runs",
    "regime",
)
MOST_MATRICES, LARGEST_MATRIX = 6, 20
Curves = Mapping[str, Mapping[str, Any]]


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
    rows = [cells(row) for row in found.rows]
    notes = [paragraph(f"{row.memory}: {row.note}.") for row in found.rows[:MOST_NOTES] if row.note]
    caption = (
        "Accuracy on the test images of all classes after the last experience: mean and standard deviation over class "
        "orders. Above random: paired differences, with 95 % intervals. Average: over the experiences. Forgetting: "
        "best former accuracy minus the last one. Runs: class orders x networks."
    )
    made.append(Section("Results", [table(COLUMNS, rows, caption), *contrasts(found), *notes]))
    return [*made, *matrix_section(found, held)]


def curves(by: Curves) -> list[Markup]:
    """A chart for each regime, with a line for each memory and a band of one standard deviation.

    Args:
        by: ``mean``, ``std`` and ``orders`` by ``regime/memory``, see :class:`ReplayResult`.
    """
    named = [(*key.partition("/")[::2], curve) for key, curve in by.items()]
    looks = {name: look for look, name in enumerate(dict.fromkeys(name for _, name, _ in named))}
    return [_chart(regime, list(some), looks) for regime, some in groupby(named, lambda one: one[0])]


def _chart(regime: str, some: Sequence[tuple[str, str, Mapping[str, Any]]], looks: Mapping[str, int]) -> Markup:
    lines = [
        Series(name, points, _band(curve), look=looks[name]) for _, name, curve in some if (points := _points(curve))
    ]
    orders = max(len(curve.get("orders", ())) for _, _, curve in some)
    told = ", ".join(f"{line.name} {line.points[-1][1]:.1f} %" for line in lines)
    lows, highs = ([ends[place] for line in lines for ends in line.band] for place in (1, 2))
    band = f" Bands: one standard deviation over {orders} class orders." if orders > 1 else ""
    return chart(
        f"Accuracy on all classes seen by experience, {regime}; after the last one: {told}",
        Axis.over("experience", [x for line in lines for x, _ in line.points], whole=True),
        Axis.over("accuracy on all classes seen, %", [*lows, *highs, *(y for line in lines for _, y in line.points)]),
        lines,
        f"{regime}.{band}",
    )


def _points(curve: Mapping[str, Any]) -> list[tuple[float, float]]:
    return [(i, 100 * value) for i, value in enumerate(curve["mean"], 1) if value is not None]


def _band(curve: Mapping[str, Any]) -> list[tuple[float, float, float]]:
    pairs = enumerate(zip(curve["mean"], curve["std"], strict=True), 1)
    found = [(float(i), 100 * max(0.0, m - s), 100 * min(1.0, m + s)) for i, (m, s) in pairs if m is not None]
    return found if any(low < high for _, low, high in found) else []


def cells(row: ReplayRow) -> list[object]:
    """The cells of a row under :data:`COLUMNS`."""
    spread = f" ± {100 * row.final_accuracy_std:.1f}" if len(row.finals) > 1 else ""
    return [
        row.memory,
        f"{100 * row.final_accuracy_mean:.1f}{spread} %",
        tables.signed(row.difference, row.ci95) or "-",
        percent(row.average_accuracy_mean),
        percent(row.forgetting_mean),
        f"{row.images:,}",
        size(row.nbytes),
        row.n,
        row.regime,
    ]


def contrasts(found: ReplayResult) -> list[Markup]:
    """The table of all comparisons, if there are several."""
    if len(found.contrasts) < 2:
        return []
    columns = ("condensed", "against", "regime", "difference, points", "p", "p, Holm", "named before the run")
    rows = [
        [
            one.memory,
            ", ".join([one.against, *one.same]),
            one.regime,
            tables.signed(one.difference, one.ci95),
            _p(one.p),
            _p(one.p_holm),
            "yes" if one.primary else "",
        ]
        for one in found.contrasts
    ]
    return [table(columns, rows, "Comparisons of condensed memories with real ones; p of a paired t test over sets.")]


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


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
    return f"{images_of(row.memory, row.images)} in {size(row.nbytes)}"


def _experiences(found: ReplayResult) -> int:
    return max((len(curve["mean"]) for curve in found.accuracy_by_experience.values()), default=0)


def _count(row: ReplayRow, unit: str | None) -> int:
    return row.sets if unit == "set" else row.n
