"""Figure of metrics: learning curves of condensations, a panel for each metric."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from condensekit.errors import require
from condensekit.figures.drawing import Drawn, drawing, label
from condensekit.html.metrics import Steps, logarithmic, metrics_of


def metrics(runs: Mapping[str, Steps]) -> Figure:
    """A panel for each metric by step, with a line for each run.

    Args:
        runs: The steps of each run, by its name.

    Raises:
        ConfigError: There is no step with a finite metric.
    """
    found = metrics_of(runs)
    require(bool(found), "no step has a metric to plot: condense for at least one step")
    with drawing():
        figure = Drawn(figsize=(5 * len(found), 3.5), layout="constrained")
        for (name, lines), axes in zip(found.items(), figure.subplots(1, len(found), squeeze=False)[0], strict=True):
            for run, points in lines.items():
                axes.plot([x for x, _ in points], [y for _, y in points], label=label(run))
            if logarithmic([y for points in lines.values() for _, y in points]):
                axes.set_yscale("log")
            axes.set(xlabel="step", ylabel=name.replace("_", " "))
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")
    return figure
