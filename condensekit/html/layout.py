"""Layout: paragraphs, and charts beside each other."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from condensekit.html.environment import shown

MOST_NOTES = 20  # paragraphs from the notes of a result


def paragraph(text: str) -> Markup:
    """A paragraph of plain text."""
    return Markup("<p>{}</p>").format(shown(text))


def charts(pieces: Sequence[Markup]) -> Markup:
    """Charts beside each other where the page is wide."""
    return Markup('<div class="charts">{}</div>').format(Markup("\n").join(pieces))
