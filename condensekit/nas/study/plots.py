"""Plot of a search: the scores of each ranker against the truth."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from condensekit.nas.spaces.architecture import key
from condensekit.nas.trials.log import Trial
from condensekit.runs.files import write_bytes_atomic


def scatter(trials: Sequence[Trial], truth: Mapping[str, Sequence[float]], path: Path) -> bool:
    """Draw a panel for each ranker: score over truth in percent, with failed candidates as crosses at the bottom.

    Args:
        trials: Trials of all rankers.
        truth: Measurements in percent, by key of the architecture; candidates without a measurement are left out.
        path: PNG file to write.

    Returns:
        Whether the file was written; False: no candidate has a truth.

    Raises:
        StoreError: The file cannot be written.
    """
    by_ranker: dict[str, list[tuple[float, float | None]]] = {}
    for trial in trials:
        values = truth.get(key(trial.architecture))
        if values:
            by_ranker.setdefault(trial.ranker, []).append((sum(values) / len(values), trial.score))
    if not by_ranker:
        return False
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # and not a matplotlibrc of the current folder
        _draw(by_ranker, path)
    return True


def _draw(by_ranker: Mapping[str, Sequence[tuple[float, float | None]]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, len(by_ranker))
    rows = math.ceil(len(by_ranker) / columns)
    figure = Figure(figsize=(3.4 * columns, 3.0 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for (name, points), panel in zip(by_ranker.items(), panels, strict=False):
        good = [(x, y) for x, y in points if y is not None]
        panel.scatter([x for x, _ in good], [y for _, y in good], s=12, alpha=0.7)
        failed = [x for x, y in points if y is None]
        if failed:
            panel.scatter(failed, [min((y for _, y in good), default=0.0)] * len(failed), marker="x", color="tab:red")
        panel.set(title=name, xlabel="truth, %", ylabel="score")
    for panel in list(panels):
        panel.set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_bytes_atomic(path, picture.getvalue())
