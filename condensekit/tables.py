"""Tables: rows of results as text for a terminal, Markdown, JSON values or a pandas data frame."""

from __future__ import annotations

import dataclasses
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from condensekit.errors import ConfigError, printable

WIDTH, NARROWEST = 100, 24  # characters of a line without a terminal; a narrower terminal counts as one of so many
Column = list[str]  # the head, and a cell for each row


def text(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    caption: str = "",
    notes: Iterable[str] = (),
    settings: Sequence[str] = (),
    width: int | None = None,
) -> str:
    """A table as aligned Markdown that fits a terminal, below its caption and above its notes.

    A wide table is divided into tables one below the other, each with the first column; where not even two columns
    fit, each row becomes a list.

    >>> print(text(["set", "accuracy %"], [["dm", 90.3], ["random", 72.8]], caption="On 359 test images."))
    On 359 test images.
    <BLANKLINE>
    | set    | accuracy % |
    |--------|------------|
    | dm     | 90.3       |
    | random | 72.8       |

    Args:
        columns: Heads of the columns, at least one.
        rows: Cells of the rows.
        caption: What the numbers are.
        notes: What the reader should know, one paragraph each.
        settings: Heads of columns that move to the caption if all rows have the same value.
        width: Longest line in characters, at least 24; None: that of the terminal, or 100 if there is none.
    """
    width = max(NARROWEST, width or terminal())
    table = [list(map(_cell, column)) for column in zip(columns, *rows, strict=True)]
    alike = [column for column in table if column[0] in settings and len(set(column[1:])) == 1]
    told = [f"In all rows: {', '.join(f'{column[0]} {column[1]}' for column in alike)}."] * bool(alike)
    blocks = _blocks([column for column in table if column not in alike], width)
    captions = [" ".join(filter(None, (caption, *told)))]
    return "\n\n".join([*_wrapped(captions, width), *blocks, *_wrapped(notes, width)])


def terminal() -> int:
    """Characters of a line of the terminal; 100 if there is none."""
    return shutil.get_terminal_size((WIDTH, 0)).columns


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table for a document, as wide as it is.

    >>> print(markdown(["set", "n"], [["dm", 5]]))
    | set | n |
    |---|---|
    | dm | 5 |
    """
    lines = ["| " + " | ".join(map(_cell, line)) + " |" for line in (columns, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(columns), *lines[1:]])


def as_frame(rows: Iterable[Any]) -> Any:
    """A pandas data frame with a line for each row; the rows are dataclasses.

    Raises:
        ConfigError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise ConfigError("to_pandas() needs pandas: pip install pandas, or use to_json()") from None
    return pandas.DataFrame([dataclasses.asdict(row) for row in rows])


def signed(value: float | None, interval: Sequence[float] | None = None) -> str:
    """A difference of fractions in percentage points: ``+1.2 [+0.3, +2.1]``; empty text for None."""
    if value is None:
        return ""
    bounds = "" if interval is None else " [{:+.1f}, {:+.1f}]".format(*(100 * bound for bound in interval))
    return f"{100 * value:+.1f}{bounds}"


def _cell(value: object) -> str:
    return printable(value).replace("|", "\\|")


def _width(table: Sequence[Column]) -> int:
    """Characters of a line: each column has a bar and two blanks, and the last one a bar more."""
    return sum(max(map(len, column)) + 3 for column in table) + 1


def _blocks(table: Sequence[Column], width: int) -> list[str]:
    """The table as tables of at most ``width`` characters, of which each has the first column.

    Where no two columns fit side by side, each row becomes a list.
    """
    first, *rest = table
    if any(_width([first, column]) > width for column in rest):
        return [
            _listed([column[0] for column in table], row, width) for row in zip(*(c[1:] for c in table), strict=True)
        ]
    found: list[list[Column]] = [[first]]
    for column in rest:
        if _width([*found[-1], column]) > width:
            found.append([first])
        found[-1].append(column)
    return ["\n".join(_lines(block)) for block in found]


def _lines(block: Sequence[Column]) -> list[str]:
    widths = [max(map(len, column)) for column in block]
    head, *lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in zip(*block, strict=True)]
    return [head, "|" + "|".join("-" * (wide + 2) for wide in widths) + "|", *lines]


def _listed(heads: Sequence[str], row: Sequence[str], width: int) -> str:
    """A row as its first cell, and a line for each further one."""
    lines = [f"  {head}: {cell}" for head, cell in zip(heads[1:], row[1:], strict=True) if cell]
    return "\n".join(textwrap.fill(line, width, subsequent_indent="    ") for line in (row[0], *lines))


def _wrapped(paragraphs: Iterable[str], width: int) -> list[str]:
    return [textwrap.fill(printable(one), width) for one in paragraphs if one]
