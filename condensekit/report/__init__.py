"""Report: one HTML file that shows what runs found, how sure it is, what it cost and how to repeat it.

from condensekit.report import report

report(["runs/dm", "runs/replay"], "report.html")

The names below are imported at their first use: the verdicts of single results need no page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from condensekit import lazy

if TYPE_CHECKING:
    from condensekit.report.page import Reported, report

__getattr__, __dir__ = lazy(__name__, {"page": ("Reported", "report")})

__all__ = ["Reported", "report"]
