"""Figure of accuracies: a mark with its interval for each set, a panel for each network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from condensekit.figures.drawing import Drawn, drawing, label


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of networks trained on a set.

    Args:
        panel: Name of the network.
        name: Name of the set.
        mean: Mean accuracy, a fraction, as the next two.
        low: Lower end of its 95 % interval; the mean if there is none.
        high: Upper end of the interval.
    """

    panel: str
    name: str
    mean: float
    low: float
    high: float


def accuracies(found: Sequence[Accuracy]) -> Figure:
    """A panel for each network, with a mark and an interval in percent for each set, the first one above."""
    panels = list(dict.fromkeys(one.panel for one in found))
    most = max((sum(one.panel == panel for one in found) for panel in panels), default=1)
    with drawing():
        figure = Drawn(figsize=(5 * max(1, len(panels)), 1.2 + 0.4 * most), layout="constrained")
        for panel, axes in zip(panels, figure.subplots(1, max(1, len(panels)), squeeze=False)[0], strict=False):
            rows = [one for one in found if one.panel == panel]
            means = [100 * one.mean for one in rows]
            ends = [[100 * (r.mean - r.low) for r in rows], [100 * (r.high - r.mean) for r in rows]]
            axes.errorbar(means, range(len(rows)), xerr=ends, fmt="o", capsize=3)
            axes.set_yticks(range(len(rows)), [label(one.name) for one in rows])
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.set(title=label(panel), xlabel="accuracy on the test images, %")
            axes.grid(alpha=0.3, axis="x")
    return figure
