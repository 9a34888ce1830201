"""Tables of results, tables of facts, and matrices of accuracies as HTML."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from condensekit.html.environment import render, shown
from condensekit.html.numbers import percent

MOST = 200  # rows of a table, and facts
SHADES = 10  # of a matrix; the style sheet has them
_NUMBER = re.compile(r"\[?[+\-]?[\d.,]+.*|-|")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], caption: str, most: int = MOST) -> Markup:
    """A table that scrolls in a box of its own where the page is narrow; columns of numbers stand to the right.

    Args:
        columns: The heads.
        rows: The cells; :class:`~markupsafe.Markup` stays as it is. The first cell of a row is its head.
        caption: What the table shows.
        most: Largest number of rows; the caption says how many are left out.
    """
    shown = rows[:most]
    numeric = [all(_numeric(row[place]) for row in shown) for place in range(len(columns))]
    left = len(rows) - len(shown)
    return render("table.html", columns=columns, rows=shown, numeric=numeric, caption=caption, left=left)


def facts(entries: Mapping[str, object], most: int = MOST) -> Markup:
    """Names with their values; None and further entries are left out."""
    told = {_broken(name): value for name, value in entries.items() if value is not None}
    return render("facts.html", entries=dict(list(told.items())[:most]), left=max(0, len(told) - most))


def matrix(
    rows: Sequence[Sequence[float | None]], heads: Sequence[str], columns: Sequence[str], caption: str
) -> Markup:
    """A table of fractions in percent, the larger the darker; an empty cell for None."""
    cells = [[(None, 0) if v is None else (percent(v)[:-2], round(SHADES * v)) for v in row] for row in rows]
    return render("matrix.html", rows=list(zip(heads, cells, strict=True)), columns=columns, caption=caption)


def bar(low: float, value: float, high: float) -> Markup:
    """A mark for a fraction in a cell of a table, with its interval; the cell beside it has the numbers."""
    return render("bar.html", low=100 * max(0.0, low), value=100 * value, high=100 * min(1.0, high))


def _numeric(cell: object) -> bool:
    return isinstance(cell, int | float) or (not isinstance(cell, Markup) and bool(_NUMBER.fullmatch(str(cell or ""))))


def _broken(name: str) -> Markup:
    """A dotted name that may go on in another line after each dot and underscore."""
    return Markup("<wbr>").join(re.findall(r"[^._]*[._]?", shown(name)))
