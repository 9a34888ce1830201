"""Section of a search: scores against the truth, the Pareto front, the table of rankers, and its verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from condensekit.html.charts import Axis, Series, chart
from condensekit.html.layout import charts
from condensekit.html.numbers import short
from condensekit.html.tables import table
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.study.pieces import MOST_POINTS, named, rankers, scatters
from condensekit.nas.study.report import RankingRow
from condensekit.nas.study.result import SearchResult
from condensekit.networks.cost import Cost
from condensekit.report.section import Section

MOST_FRONT = 30
Sizes = Mapping[str, Cost]


@dataclass(frozen=True)
class Placed:
    """A candidate of the Pareto front: its operations for one image, and its quality, higher is better."""

    architecture: Architecture
    flops: int
    quality: float


def verdict(found: SearchResult) -> str | None:
    """How well the rankers order the candidates, and what the best one is; None if there are no trials."""
    if not found.trials:
        return None
    count = len({key(trial.architecture) for trial in found.trials})
    row = _headline(found.rows)
    if row is None:
        names = ", ".join(dict.fromkeys(trial.ranker for trial in found.trials))
        return f"{count:,} candidates were scored by {names}; no full training says how good their order is."
    said = (
        f"The order of {count:,} candidates by {row.ranker} agrees with full training by a rank correlation of "
        f"{row.spearman:.2f}"
    )
    said += f" (95 % interval {row.ci95[0]:.2f} to {row.ci95[1]:.2f})" if row.ci95 else ""
    other = next((one for one in found.rows if one.ranker == row.reference), None)
    if other is not None and other.spearman is not None and row.difference:
        value, low, high = row.difference
        none = "; it holds 0, so that this search shows no difference" if low <= 0 <= high else ""
        said += f", by {other.ranker} of {other.spearman:.2f}: a difference of {value:+.2f}, "
        said += f"95 % interval {low:+.2f} to {high:+.2f}{none}"
    return f"{said}."


def sections(found: SearchResult, sizes: Sizes) -> list[Section]:
    """Best candidate, table, scatter and front."""
    told = rankers(found.rows, found.truth_name, found.best, found.notes)
    made = [Section("Rankers", told)] if found.rows else []
    if panels := scatters(found.trials, found.values, found.rows):
        made.append(Section("Scores against the truth", [charts(panels)]))
    if front := front_pieces(found, sizes):
        made.append(Section("Quality against operations", front))
    return made


def front_pieces(found: SearchResult, sizes: Sizes) -> list[Markup]:
    """A chart of quality against operations with its Pareto front, and the table of the front; empty without sizes."""
    truth = bool(found.values)
    by = found.best["ranker"] if found.best else next((t.ranker for t in found.trials), "")
    what = "truth, % of the test images" if truth else f"score of {by}"
    placed = _placed(found, sizes, None if truth else by)
    if len(placed) < 2:
        return []
    front = pareto(placed)
    shown = placed[:MOST_POINTS]
    points = [(float(one.flops), one.quality) for one in front]
    drawn = chart(
        f"{what} against operations for {len(placed)} candidates; the front goes from {front[0].quality:.3g} at "
        f"{short(front[0].flops)} to {front[-1].quality:.3g} at {short(front[-1].flops)} operations",
        Axis.over("operations of one image, logarithmic", [one.flops for one in placed], log=True),
        Axis.over(what, [one.quality for one in placed]),
        [
            Series(
                "candidates",
                [(one.flops, one.quality) for one in shown],
                line=False,
                texts=[named(one.architecture) for one in shown],
                look=7,
            ),
            Series("Pareto front", points, look=1),
        ],
        "No other candidate is better than one of the front and needs no more operations.",
    )
    columns = ("architecture", "operations", "parameters", what)
    rows = [
        [
            named(one.architecture),
            short(one.flops),
            short(sizes[key(one.architecture)].params),
            format(one.quality, ".1f" if truth else ".3g"),
        ]
        for one in front
    ]
    return [charts([drawn]), table(columns, rows, "The Pareto front, from few operations to many.", MOST_FRONT)]


def pareto(placed: Sequence[Placed]) -> list[Placed]:
    """The candidates that no other one beats with no more operations, by operations."""
    front: list[Placed] = []
    for one in sorted(placed, key=lambda p: (p.flops, -p.quality)):
        if not front or one.quality > front[-1].quality:
            front.append(one)
    return front


def _placed(found: SearchResult, sizes: Sizes, ranker: str | None) -> list[Placed]:
    """Each candidate once, with its truth, or with its score by ``ranker``."""
    made: dict[str, Placed] = {}
    for trial in found.trials:
        name = key(trial.architecture)
        values = found.values.get(name)
        quality = (sum(values) / len(values) if values else None) if ranker is None else trial.score
        if name in sizes and quality is not None and ranker in (None, trial.ranker):
            made.setdefault(name, Placed(trial.architecture, sizes[name].flops, quality))
    return list(made.values())


def _headline(rows: Sequence[RankingRow]) -> RankingRow | None:
    """The first ranker that is compared with another one, else the first with a correlation."""
    known = [row for row in rows if row.spearman is not None]
    return next((row for row in known if row.difference), next(iter(known), None))
