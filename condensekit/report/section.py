"""Section: a title and the pieces below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from condensekit.html import shown

MOST_NOTES = 20  # paragraphs from the notes of a result


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Args:
        title: Its title.
        pieces: Tables, charts, grids and paragraphs.
    """

    title: str
    pieces: Sequence[Markup]


def paragraph(text: str) -> Markup:
    """A paragraph of plain text."""
    return Markup("<p>{}</p>").format(shown(text))


def charts(pieces: Sequence[Markup]) -> Markup:
    """Charts beside each other where the page is wide."""
    return Markup('<div class="charts">{}</div>').format(Markup("\n").join(pieces))
