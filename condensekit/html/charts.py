"""Charts: lines with bands and points as inline SVG in the colours of the page, with a text for the blind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from condensekit.html.environment import render
from condensekit.html.numbers import log_ticks, short, ticks

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 50, 22, 28, 40  # margins
COLOURS, DASHES = 8, 3  # looks of lines; the style sheet has them
MARKERS = (
    "M-3.2,0 a3.2,3.2 0 1,0 6.4,0 a3.2,3.2 0 1,0 -6.4,0 Z",
    "M-2.9,-2.9 H2.9 V2.9 H-2.9 Z",
    "M0,-3.9 L3.6,2.6 H-3.6 Z",
    "M0,-4 L4,0 L0,4 L-4,0 Z",
)
DOTTED = 40  # a line of more points has no markers
MAX_POINTS = 400  # of a line; of a longer one the mean of neighbours is drawn
Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Args:
        name: What it shows, with its unit.
        ticks: Values with a label, ascending; the first and the last are its ends.
        log: Whether it is logarithmic.
    """

    name: str
    ticks: tuple[float, ...]
    log: bool = False

    @classmethod
    def over(cls, name: str, values: Iterable[float], *, log: bool = False, whole: bool = False) -> Axis:
        """An axis that holds all values, of which at least one is finite; above 0 if ``log``, integers if ``whole``."""
        found = [value for value in values if math.isfinite(value)]
        low, high = min(found), max(found)
        if log:
            return cls(name, tuple(log_ticks(low, high)), True)
        if low == high or high - low < 1e-9 * max(abs(low), abs(high)):
            room = 1.0 if whole else abs(low) / 10 or 1.0
            low, high = low - room, high + room
        return cls(name, tuple(ticks(low, high, whole=whole)))

    def place(self, value: float) -> float:
        """Where a value stands, from 0 to 1."""
        low, high = self.ticks[0], self.ticks[-1]
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low)


@dataclass(frozen=True)
class Series:
    """One line or cloud of a chart. Points that are not finite are left out.

    Args:
        name: Its name in the legend.
        points: Its points (x, y).
        band: (x, low, high) of the band around it.
        line: Whether neighbours are joined.
        texts: What each point stands for, shown when it is pointed at; may be empty.
        look: Number of its colour, dashes and marker.
    """

    name: str
    points: Sequence[Point]
    band: Sequence[tuple[float, float, float]] = ()
    line: bool = True
    texts: Sequence[str] = ()
    look: int = 0

    @property
    def classes(self) -> str:
        """Its classes in the style sheet."""
        return f"c{self.look % COLOURS} d{self.look // COLOURS % DASHES}"

    @property
    def marker(self) -> str:
        """The path of its marker."""
        return MARKERS[self.look % len(MARKERS)]


@dataclass(frozen=True)
class _Drawn:
    """A series in the coordinates of the picture."""

    series: Series
    path: Markup
    band: Markup
    markers: list[tuple[str, str]]  # place and text


def chart(alt: str, x: Axis, y: Axis, series: Sequence[Series], caption: str = "") -> Markup:
    """A chart as a figure with a legend, if it has several series, and a caption.

    Args:
        alt: What the chart shows, for those who cannot see it.
        x: The axis from left to right.
        y: The axis from below.
        series: Lines and clouds.
        caption: A sentence below.
    """
    return render(
        "chart.html",
        alt=alt,
        x=x,
        y=y,
        x_ticks=[(_x(x, value), short(value)) for value in x.ticks],
        y_ticks=[(_y(y, value), short(value)) for value in y.ticks],
        drawn=[_draw(one, x, y) for one in series],
        legend=[one for one in series if one.name] if len(series) > 1 else [],
        caption=caption,
        width=WIDTH,
        height=HEIGHT,
        box=(LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM),
    )


def thinned(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """At most ``most`` points: the means of neighbours. Points that are not finite are left out."""
    good = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(good) <= most:
        return good
    ends = [round(place * len(good) / most) for place in range(most + 1)]
    parts = [good[start:end] for start, end in pairwise(ends)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def _draw(one: Series, x: Axis, y: Axis) -> _Drawn:
    points = thinned(one.points) if one.line else list(one.points)
    texts = list(one.texts) or [""] * len(points)
    places = [(f"{_x(x, a)},{_y(y, b)}", text) for (a, b), text in zip(points, texts, strict=False)]
    above = [f"{_x(x, a)},{_y(y, high)}" for a, _, high in one.band]
    below = [f"{_x(x, a)},{_y(y, low)}" for a, low, _ in reversed(one.band)]
    return _Drawn(
        one,
        Markup("M" + " L".join(place for place, _ in places) if one.line and len(places) > 1 else ""),
        Markup("M" + " L".join([*above, *below]) + " Z" if len(one.band) > 1 else ""),
        places if not one.line or len(places) <= DOTTED else [],
    )


def _x(axis: Axis, value: float) -> float:
    return round(LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT), 1)


def _y(axis: Axis, value: float) -> float:
    return round(HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM), 1)
