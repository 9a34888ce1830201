"""Tables: rows of results as Markdown, JSON values or a pandas data frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from condensekit.errors import ConfigError, printable


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table.

    >>> print(markdown(["set", "n"], [["dm", 5]]))
    | set | n |
    |---|---|
    | dm | 5 |
    """
    lines = [columns, ["---"] * len(columns), *rows]
    text = ["| " + " | ".join(printable(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]
    text[1] = "|" + "---|" * len(columns)
    return "\n".join(text)


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
