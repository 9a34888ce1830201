"""Report: one HTML file that shows what runs found, how sure it is, what it cost and how to repeat it.

from condensekit.report import report

report(["runs/dm", "runs/replay"], "report.html")
"""

from __future__ import annotations

from condensekit.report.page import Reported, report

__all__ = ["Reported", "report"]
