"""HTML: tables, charts and image grids as fragments of a page, for reports and notebooks.

Each piece gives a :class:`markupsafe.Markup`, in which all text is escaped; :func:`standalone` adds the style sheet.
"""

from __future__ import annotations

from condensekit.html.environment import render, shown, standalone, style

__all__ = ["render", "shown", "standalone", "style"]
