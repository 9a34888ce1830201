"""Figure of images: a row for each class with its name."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from condensekit.errors import require
from condensekit.figures.drawing import Drawn, drawing, label
from condensekit.html.strips import CLASSES, PER_CLASS, Strip, beside

SIDE = 0.6  # inches of an image
NAME, TITLE = 24, 200  # characters of a class name and of the title


def images(rows: Sequence[Strip], shape: tuple[int, int, int], title: str) -> Figure:
    """A figure of the first images of the first classes; its title says how many are left out.

    Args:
        rows: The classes, see :func:`condensekit.html.strips.by_class`.
        shape: (C, H, W) of an image.
        title: What they are.

    Raises:
        ConfigError: The images have neither 1 nor 3 channels.
    """
    channels, height, width = shape
    require(channels in (1, 3), f"a figure needs images of 1 or 3 channels, these have {channels}")
    shown = [row for row in rows if row.images[0]]
    columns, most = max(len(row.images[0]) for row in shown), max(row.count for row in rows)
    left = [f"{PER_CLASS} of up to {most:,} images of each class"] if most > columns else []
    left += [f"{CLASSES} of {len(rows):,} classes"] if len(rows) > len(shown) else []
    size = (1.6 + SIDE * columns * max(1.0, width / height), 0.6 + SIDE * len(shown) * max(1.0, height / width))
    with drawing():
        figure = Drawn(figsize=size, layout="constrained")
        figure.suptitle("\n".join([label(title, TITLE), *[", ".join(left)] * bool(left)]), fontsize="small", wrap=True)
        for row, axes in zip(shown, figure.subplots(len(shown), 1, squeeze=False)[:, 0], strict=True):
            axes.imshow(beside(row.images[0], columns), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set(xticks=[], yticks=[], frame_on=False)
            axes.set_ylabel(label(row.name, NAME), rotation=0, ha="right", va="center", fontsize="small")
    return figure
