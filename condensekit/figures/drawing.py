"""Drawing: an empty matplotlib figure that a notebook shows, and a figure as a PNG file."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from condensekit.errors import printable

DPI = 110


class Drawn(Figure):
    """A matplotlib figure that shows itself in a notebook, without pyplot and without a window.

    ``savefig`` writes it to a file; ``axes`` are its panels, to change or add what one likes.
    """

    def _repr_png_(self) -> bytes:
        return png(self)


def label(text: str, most: int = 40) -> str:
    """A text as it stands in a figure: at most ``most`` characters, none of which is markup."""
    plain = printable(text)
    return (plain if len(plain) <= most else f"{plain[: most - 3]}...").replace("$", r"\$")


@contextmanager
def drawing() -> Iterator[None]:
    """Draw with matplotlib's defaults inside, and not with a ``matplotlibrc`` of the current folder."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def png(figure: Figure, dpi: int = DPI, metadata: Mapping[str, Any] | None = None) -> bytes:
    """The content of a PNG file of a figure."""
    picture = io.BytesIO()
    with drawing():
        figure.savefig(picture, format="png", dpi=dpi, metadata=dict(metadata or {}))
    return picture.getvalue()
