"""Sections of condensed and chosen sets: their images before and after, and the curves of their making."""

from __future__ import annotations

from condensekit.html.layout import charts
from condensekit.html.metrics import curves
from condensekit.report.found import Found
from condensekit.report.section import Section


def images_section(found: Found, budget: int) -> Section | None:
    """The images of the first seed that has a set, beside those of its first snapshot."""
    member = next((m for m in found.members if m.set is not None), None)
    if member is None or member.set is None:
        return None
    note = f" Of {len(found.members)} seeds, {member.path.name} is shown." if len(found.members) > 1 else ""
    before = None
    if member.start is not None:
        step, images = member.start
        before = (f"after step {step:,}" if step else "at the start", images)
    return Section("Images", [member.set.grid(note, before, budget)])


def curves_section(found: Found) -> Section | None:
    """The metrics of each step, a line for each seed."""
    drawn = curves({m.path.name: m.metrics for m in found.members if m.metrics})
    return Section("Learning curves", [charts(drawn)]) if drawn else None
