"""Sections of condensed and chosen sets: their images before and after, and the curves of their making."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from markupsafe import Markup

from condensekit.html.charts import COLOURS, Axis, Series, chart, thinned
from condensekit.html.numbers import short, size
from condensekit.html.strips import Strip, strips
from condensekit.report.found import Found, Member
from condensekit.report.section import Section, charts, paragraph
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.grid import Pixels

NO_CURVES = ("step", "attempt", "seconds")  # columns of metrics.csv that are no metric of the images
MOST_CURVES, MOST_SEEDS = 4, COLOURS
WIDE = 30  # a metric whose largest value is so many times its smallest has a logarithmic axis


def images_section(found: Found, budget: int) -> Section | None:
    """The images of the first seed that has a set, beside those of its first snapshot."""
    member = next((m for m in found.members if m.set is not None), None)
    if member is None or member.set is None:
        return None
    made = member.set
    note = f" Of {len(found.members)} seeds, {member.path.name} is shown." if len(found.members) > 1 else ""
    return Section("Images", [grid(made, member.start, budget, note)])


def grid(
    made: CondensedSet, start: tuple[int, Sequence[Sequence[Pixels]]] | None, budget: int, note: str = ""
) -> Markup:
    """The images of a set, a row for each class with its name.

    Args:
        made: The set.
        start: A step and the images after it, a list for each class; None: there are none.
        budget: Largest number of characters of the pictures.
        note: A sentence for the caption.
    """
    channels, height, width = made.spec.shape
    if channels not in (1, 3):
        return paragraph(f"Images of {channels} channels have no picture: a picture needs 1 or 3.{note}")
    pixels, labels = made.pixels()
    of = {
        k: [image for _, image in some] for k, some in groupby(zip(labels, pixels, strict=True), lambda pair: pair[0])
    }
    named = {label: made.spec.class_names.get(label, str(label)) for label in made.classes}
    caption = (
        f"{len(pixels):,} images of {height} x {width} pixels, {len(named):,} classes; "
        f"stored in {size(made.nbytes)}.{note}"
    )
    if start is None:
        return strips([Strip(named[k], [of[k]]) for k in named], ["images"], caption, budget)
    step, before = start
    rows = [Strip(named[k], [early, of[k]]) for k, early in zip(named, before, strict=True)]
    return strips(rows, [f"after step {step:,}", "at the end"], caption, budget)


def curves_section(found: Found) -> Section | None:
    """The metrics of each step, a line for each seed."""
    members = [m for m in found.members if m.metrics]
    names = [
        name for name in dict.fromkeys(n for m in members for row in m.metrics for n in row) if name not in NO_CURVES
    ]
    drawn = [one for name in names[:MOST_CURVES] if (one := curve(name, members)) is not None]
    return Section("Learning curves", [charts(drawn)]) if drawn else None


def curve(name: str, members: Sequence[Member]) -> Markup | None:
    """A chart of one metric by step; None if it has no finite value."""
    lines = {m.path.name: points for m in members[:MOST_SEEDS] if (points := _points(m.metrics, name))}
    values = [y for points in lines.values() for _, y in points]
    if not values:
        return None
    log = min(values) > 0 and max(values) > WIDE * min(values)
    label = name.replace("_", " ")
    first, last = (next(iter(lines.values()))[place] for place in (0, -1))
    alt = f"{label} by step: from {short(first[1])} in step {first[0]:.0f} to {short(last[1])} in step {last[0]:.0f}"
    left = f"{MOST_SEEDS} of {len(members)} seeds are shown." if len(members) > MOST_SEEDS else ""
    return chart(
        alt,
        Axis.over("step", [x for points in lines.values() for x, _ in points], whole=True),
        Axis.over(f"{label}, logarithmic" if log else label, values, log=log),
        [Series(seed, points, look=look) for look, (seed, points) in enumerate(lines.items())],
        left,
    )


def _points(rows: Sequence[Mapping[str, float]], name: str) -> list[tuple[float, float]]:
    return thinned([(row["step"], row[name]) for row in rows if name in row])
