"""Plot of a class-incremental run: accuracy after each experience."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from condensekit.errors import require
from condensekit.runs.files import write_bytes_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curves = Mapping[str, Mapping[str, Any]]


def plot(curves: Curves, path: Path, source: str = "") -> None:
    """Write :func:`figure` to a file.

    Args:
        curves: See :func:`figure`.
        path: PNG file to write.
        source: Text for the entry ``Source`` in the metadata of the file.

    Raises:
        StoreError: The file cannot be written.
    """
    from condensekit.figures import png

    write_bytes_atomic(path, png(figure(curves), metadata={"Source": source}))


def figure(curves: Curves) -> Figure:
    """Draw a panel for each regime, with a line for each memory and bands of one standard deviation.

    Args:
        curves: ``mean`` and ``std`` of the accuracy after each experience, by ``regime/memory``; see
            :attr:`condensekit.replay.study.results.ReplayResult.accuracy_by_experience`.

    Raises:
        ConfigError: There are no curves.
    """
    from condensekit.figures import drawing

    require(bool(curves), "the result has no accuracy by experience to plot")
    with drawing():
        return _drawn(curves)


def _drawn(curves: Curves) -> Figure:
    from matplotlib import colormaps

    from condensekit.figures import Drawn, label

    named = {(key.partition("/")[0], key.partition("/")[2]): curve for key, curve in curves.items()}
    regimes, memories = (list(dict.fromkeys(key[place] for key in named)) for place in (0, 1))
    figure = Drawn(figsize=(6 * len(regimes), 4.5), layout="constrained")
    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
    experiences = len(next(iter(curves.values()))["mean"])
    for axes, regime in zip(figure.subplots(1, len(regimes), squeeze=False)[0], regimes, strict=True):
        for name in (memory for where, memory in named if where == regime):
            curve = named[regime, name]
            points = [
                (i + 1, 100 * m, 100 * s)
                for i, (m, s) in enumerate(zip(curve["mean"], curve["std"], strict=True))
                if m is not None
            ]
            at, means, spreads = zip(*points, strict=True)
            colour = colours[memories.index(name) % len(colours)]
            axes.plot(at, means, marker="o", color=colour, label=label(name))
            low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
            axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set(
            title=regime,
            xlabel="experience",
            ylabel="accuracy on all classes seen, %",
            xticks=range(1, experiences + 1),
        )
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return figure
