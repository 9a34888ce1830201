"""Pieces of pages about replay runs: accuracy by experience, the table of memories, and that of their comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from markupsafe import Markup

from condensekit import tables
from condensekit.html.charts import Axis, Series, chart
from condensekit.html.layout import MOST_NOTES, paragraph
from condensekit.html.numbers import percent, size
from condensekit.html.tables import table
from condensekit.replay.study.contrasts import Contrast

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
Curves = Mapping[str, Mapping[str, Any]]
Row = Any  # a ReplayRow, whose module uses this one


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


def results(rows: Sequence[Row], compared: Sequence[Contrast]) -> list[Markup]:
    """The table of memories, their comparisons and their notes."""
    caption = (
        "Accuracy on the test images of all classes after the last experience: mean and standard deviation over class "
        "orders. Above random: paired differences, with 95 % intervals. Average: over the experiences. Forgetting: "
        "best former accuracy minus the last one. Runs: class orders x networks."
    )
    notes = [paragraph(f"{row.memory}: {row.note}.") for row in rows[:MOST_NOTES] if row.note]
    return [table(COLUMNS, [cells(row) for row in rows], caption), *contrasts(compared), *notes]


def cells(row: Row) -> list[object]:
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


def contrasts(found: Sequence[Contrast]) -> list[Markup]:
    """The table of all comparisons, if there are several."""
    if len(found) < 2:
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
        for one in found
    ]
    return [table(columns, rows, "Comparisons of condensed memories with real ones; p of a paired t test over sets.")]


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"
