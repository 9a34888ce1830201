"""Several runs together: their accuracies in one table, and against the bytes that they store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from condensekit.html.charts import Axis, Series, chart
from condensekit.html.layout import charts, paragraph
from condensekit.html.numbers import percent
from condensekit.html.tables import table
from condensekit.replay.study import pieces as replayed
from condensekit.report.found import Found
from condensekit.report.section import Section
from condensekit.training import pieces as evaluated


@dataclass(frozen=True)
class _Stored:
    """The accuracy of images, and the bytes that they take."""

    name: str
    nbytes: int
    accuracy: float


def sections(found: Sequence[Found]) -> list[Section]:
    """Sections that need more than one run; none if the runs share no kind of result."""
    evaluations = {str(one.path): one.evaluation for one in found if one.evaluation and one.evaluation.rows}
    replays = {str(one.path): one.replay for one in found if one.replay and one.replay.rows}
    made = []
    if len(evaluations) > 1:
        rows = [[run, *evaluated.cells(row)] for run, one in evaluations.items() for row in one.rows]
        shown = table(
            ("run", *evaluated.COLUMNS), rows, "Accuracy of networks trained from scratch on the sets of all runs."
        )
        stored = [_Stored(r.set, r.nbytes, r.accuracy_mean) for one in evaluations.values() for r in one.rows if r.ipc]
        alike = _alike({run: one.protocol for run, one in evaluations.items()}, "training protocols")
        made.append(Section("Accuracy", [*alike, shown, *against_bytes(stored, "accuracy, %")]))
    if len(replays) > 1:
        rows = [[run, *replayed.cells(row)] for run, one in replays.items() for row in one.rows]
        shown = table(("run", *replayed.COLUMNS), rows, "Final accuracy of the memories of all runs.")
        kept = [
            _Stored(row.memory, row.nbytes, row.final_accuracy_mean) for one in replays.values() for row in one.rows
        ]
        alike = _alike({run: one.settings for run, one in replays.items()}, "settings")
        made.append(Section("Replay", [*alike, shown, *against_bytes(kept, "final accuracy, %")]))
    return made


def against_bytes(stored: Sequence[_Stored], name: str) -> list[Markup]:
    """A chart of accuracy against stored bytes, a line for each kind of images; none if all store the same."""
    by: dict[str, dict[int, list[float]]] = {}
    for one in stored:
        if one.nbytes > 0:
            by.setdefault(one.name, {}).setdefault(one.nbytes, []).append(100 * one.accuracy)
    lines = {kind: [(float(n), sum(v) / len(v)) for n, v in sorted(some.items())] for kind, some in by.items()}
    sizes = {x for points in lines.values() for x, _ in points}
    if len(sizes) < 2:
        return []
    ends = ", ".join(
        f"{kind} {percent(points[-1][1] / 100)} in {points[-1][0]:,.0f} bytes" for kind, points in lines.items()
    )
    drawn = chart(
        f"{name} against stored bytes: {ends}",
        Axis.over("stored bytes, logarithmic", sizes, log=True),
        Axis.over(name, [y for points in lines.values() for _, y in points]),
        [Series(kind, points, look=look) for look, (kind, points) in enumerate(lines.items())],
        "The same images in several runs are one point, their mean.",
    )
    return [charts([drawn])]


def _alike(settings: Mapping[str, Mapping[str, object]], what: str) -> list[Markup]:
    """A warning if runs differ in their settings."""
    first = next(iter(settings.values()))
    other = [run for run, told in settings.items() if told != first]
    text = f"The {what} of these runs differ: accuracies of different runs cannot be compared with each other."
    return [paragraph(text)] if other else []
