"""Plot of a search: the scores of each ranker against the truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from condensekit.errors import require
from condensekit.nas.spaces.architecture import key
from condensekit.nas.trials.log import Trial
from condensekit.runs.files import write_bytes_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Truth = Mapping[str, Sequence[float]]
Points = Mapping[str, Sequence[tuple[float, float | None]]]
"""For each ranker, the place and the score of each candidate; None: it failed."""


def scatter(trials: Sequence[Trial], truth: Truth, path: Path) -> bool:
    """Write :func:`figure` to a file, if a candidate has a truth.

    Args:
        trials: Trials of all rankers.
        truth: Measurements in percent, by key of the architecture; candidates without a measurement are left out.
        path: PNG file to write.

    Returns:
        Whether the file was written; False: no candidate has a truth.

    Raises:
        StoreError: The file cannot be written.
    """
    if not _against(trials, truth):
        return False
    from condensekit.figures import png

    write_bytes_atomic(path, png(figure(trials, truth), dpi=120))
    return True


def figure(trials: Sequence[Trial], truth: Truth) -> Figure:
    """Draw a panel for each ranker: score over truth in percent, with failed candidates as crosses at the bottom.

    Without a truth, the scores are drawn over the rank of the candidate, the best one first.

    Args:
        trials: Trials of all rankers.
        truth: Measurements in percent, by key of the architecture; candidates without a measurement are left out.

    Raises:
        ConfigError: No candidate was scored.
    """
    from condensekit.figures import drawing

    measured = _against(trials, truth)
    ranked = {} if measured else _ranked(trials)
    require(bool(measured or ranked), "the search has no scores to plot: no candidate was scored")
    with drawing():
        return _drawn(measured, "truth, %") if measured else _drawn(ranked, "rank of the candidate")


def _against(trials: Sequence[Trial], truth: Truth) -> Points:
    found: dict[str, list[tuple[float, float | None]]] = {}
    for trial in trials:
        values = truth.get(key(trial.architecture))
        if values:
            found.setdefault(trial.ranker, []).append((sum(values) / len(values), trial.score))
    return found


def _ranked(trials: Sequence[Trial]) -> Points:
    scores: dict[str, list[float]] = {}
    for trial in trials:
        if trial.score is not None:
            scores.setdefault(trial.ranker, []).append(trial.score)
    return {name: list(enumerate(sorted(some, reverse=True), 1)) for name, some in scores.items()}


def _drawn(found: Points, name: str) -> Figure:
    from condensekit.figures import Drawn, label

    columns = min(3, len(found))
    rows = math.ceil(len(found) / columns)
    figure = Drawn(figsize=(3.4 * columns, 3.0 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for (ranker, points), panel in zip(found.items(), panels, strict=False):
        good = [(x, y) for x, y in points if y is not None]
        panel.scatter([x for x, _ in good], [y for _, y in good], s=12, alpha=0.7)
        failed = [x for x, y in points if y is None]
        if failed:
            panel.scatter(failed, [min((y for _, y in good), default=0.0)] * len(failed), marker="x", color="tab:red")
        panel.set(title=label(ranker), xlabel=name, ylabel="score")
    for panel in list(panels):
        panel.set_visible(False)
    return figure
