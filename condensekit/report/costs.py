"""Section of costs: seconds, passes over the images, and bytes of what a run made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from condensekit.html.numbers import seconds, short, size
from condensekit.html.tables import table
from condensekit.report import evaluated
from condensekit.report.found import Found, Member
from condensekit.report.section import Section

COLUMNS = ("part", "time", "images through networks", "passes over the data", "operations", "stored")
Row = list[object]


def section(found: Found) -> Section | None:
    """A row for each part of the run whose cost is recorded."""
    rows = list(_rows(found))
    caption = "Cost of each part. An image counts each time it passes through a network; '-': not recorded."
    return Section("Cost", [table(COLUMNS, rows, caption)]) if rows else None


def _rows(found: Found) -> Iterator[Row]:
    for member in found.members:
        yield from _of_set(member, f" {member.path.name}" * (len(found.members) > 1))
    if found.evaluation is not None and found.evaluation.rows:
        work = _sum(row.work for row in found.evaluation.rows)
        yield _row("training and testing on the sets", evaluated.seconds(found.evaluation), work, None)
    for row in found.replay.rows if found.replay else ():
        yield _row(f"filling {row.memory} ({row.regime})", row.condense_s, row.work or {}, row.nbytes)
        yield _row(f"training on {row.memory} ({row.regime})", row.train_s, {}, None)
    for ranker in found.search.rows if found.search else ():
        yield _row(f"ranking by {ranker.ranker}", ranker.cost_s, ranker.work, None)


def _of_set(member: Member, name: str) -> Iterator[Row]:
    if member.set is None:
        return
    told, nbytes = member.set.provenance, member.set.nbytes
    work = told.get("work") if isinstance(told.get("work"), Mapping) else {}
    before, steps = _part(work, "preparation"), _part(work, "condensing")
    if trained := _part(work, "encoders"):
        yield _row(f"training the encoders, which all sets share{name}", None, trained, None)
    if told.get("preparation_s") and before.get("images"):
        yield _row(f"preparation (first images){name}", told["preparation_s"], before, None)
    yield _row(f"making the set{name}", told.get("elapsed_s"), steps, nbytes)


def _part(work: Any, name: str) -> Mapping[str, Any]:
    found = work.get(name)
    return found if isinstance(found, Mapping) else {}


def _sum(works: Iterator[Mapping[str, Any]] | Any) -> dict[str, float]:
    total: dict[str, float] = {}
    for work in works:
        for name, value in work.items():
            total[name] = total.get(name, 0) + (value or 0)
    return total


def _row(part: str, time: Any, work: Mapping[str, Any], nbytes: int | None) -> Row:
    def counted(name: str) -> str:
        value = work.get(name)
        return short(value) if isinstance(value, int | float) else "-"

    shown = seconds(time) if isinstance(time, int | float) else "-"
    return [
        part,
        shown,
        counted("images"),
        counted("passes"),
        counted("flops"),
        "-" if nbytes is None else size(nbytes),
    ]
