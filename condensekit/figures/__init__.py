"""Figures: matplotlib figures of images, learning curves and results, for notebooks and files."""

from __future__ import annotations

from condensekit.figures.drawing import Drawn, drawing, label, png

__all__ = ["Drawn", "drawing", "label", "png"]
