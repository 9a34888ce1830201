"""Metrics: learning curves of condensations, a chart for each metric with a line for each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from condensekit.html.charts import COLOURS, Axis, Point, Series, chart, thinned
from condensekit.html.numbers import short

NO_CURVES = ("step", "attempt", "seconds")  # entries of a step that are no metric of the images
MOST_CURVES, MOST_RUNS = 4, COLOURS
WIDE = 30  # a metric whose largest value is so many times its smallest has a logarithmic axis
Steps = Sequence[Mapping[str, float]]
"""The metrics of each step, with its number as ``step``."""


def metrics_of(runs: Mapping[str, Steps]) -> dict[str, dict[str, list[Point]]]:
    """For each metric, the finite points (step, value) of each run: at most :data:`MOST_CURVES` metrics.

    Args:
        runs: The steps of each run, by its name.
    """
    entries = dict.fromkeys(name for rows in runs.values() for row in rows for name in row)
    found = {}
    for name in [name for name in entries if name not in NO_CURVES][:MOST_CURVES]:
        lines = {run: thinned([(row["step"], row[name]) for row in rows if name in row]) for run, rows in runs.items()}
        found[name] = {run: points for run, points in lines.items() if points}
    return {name: lines for name, lines in found.items() if lines}


def logarithmic(values: Sequence[float]) -> bool:
    """Whether the axis of these values is logarithmic."""
    return min(values) > 0 and max(values) > WIDE * min(values)


def curves(runs: Mapping[str, Steps]) -> list[Markup]:
    """A chart for each metric of :func:`metrics_of`, with a line for each of the first :data:`MOST_RUNS` runs."""
    some = dict(list(runs.items())[:MOST_RUNS])
    left = f"{MOST_RUNS} of {len(runs)} seeds are shown." if len(runs) > MOST_RUNS else ""
    return [_curve(name, lines, left) for name, lines in metrics_of(some).items()]


def _curve(name: str, lines: Mapping[str, Sequence[Point]], left: str) -> Markup:
    values = [y for points in lines.values() for _, y in points]
    log, label = logarithmic(values), name.replace("_", " ")
    first, last = (next(iter(lines.values()))[place] for place in (0, -1))
    return chart(
        f"{label} by step: from {short(first[1])} in step {first[0]:.0f} to {short(last[1])} in step {last[0]:.0f}",
        Axis.over("step", [x for points in lines.values() for x, _ in points], whole=True),
        Axis.over(f"{label}, logarithmic" if log else label, values, log=log),
        [Series(run, points, look=look) for look, (run, points) in enumerate(lines.items())],
        left,
    )
