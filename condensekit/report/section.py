"""Section: a title and the pieces below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Args:
        title: Its title.
        pieces: Tables, charts, grids and paragraphs.
    """

    title: str
    pieces: Sequence[Markup]
