"""Strips: a row of small images for each class, with its name, as PNG pictures inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from condensekit.html.environment import render

Pixels = NDArray[np.uint8]
LARGEST, SMALLEST = 96, 32  # pixels of a side; larger images are shrunk, smaller ones enlarged by the browser
PER_CLASS, CLASSES = 10, 60  # the most images of a class and the most classes that are shown
BETWEEN = 255  # white between the images
BUDGET = 3_000_000  # characters of the pictures of one page


@dataclass(frozen=True, eq=False)
class Strip:
    """The images of one class.

    Args:
        name: Name of the class.
        images: For each column, such as before and after, its images: (H, W) uint8 if grey, (H, W, 3) if coloured.
    """

    name: str
    images: Sequence[Sequence[Pixels]]


def strips(rows: Sequence[Strip], columns: Sequence[str], caption: str, budget: int = BUDGET) -> Markup:
    """A grid of images with a row for each class; the caption says how many images are left out.

    Args:
        rows: The classes; each has as many columns.
        columns: Names of the columns, such as ``start`` and ``end``.
        caption: What the grid shows.
        budget: Largest number of characters of its pictures; at least one image is shown.
    """
    height, width = (min(LARGEST, side) for side in next(image for one in rows[0].images for image in one).shape[:2])
    each = 4 * len(columns) * (height + 1) * (width + 1)  # characters of an image of each column, at the most
    per_class = max(1, min(PER_CLASS, budget // (each * min(CLASSES, len(rows)))))
    classes = max(1, min(CLASSES, budget // (each * per_class)))
    most = max(len(one) for row in rows for one in row.images)
    shown = [
        (row.name, [(name, _picture(one[:per_class])) for name, one in zip(columns, row.images, strict=True)])
        for row in rows[:classes]
    ]
    left = [f"{per_class} of up to {most:,} images of each class are shown."] if most > per_class else []
    left += [f"{classes} of {len(rows):,} classes are shown."] if len(rows) > classes else []
    return render("strips.html", rows=shown, columns=columns, caption=" ".join([caption, *left]))


@dataclass(frozen=True)
class _Picture:
    """A picture of several images beside each other."""

    data: Markup
    count: int
    width: int
    height: int


def _picture(images: Sequence[Pixels]) -> _Picture | None:
    if not images:
        return None
    small = [np.asarray(_shrunk(Image.fromarray(image))) for image in images]
    height, width = small[0].shape[:2]
    gap = max(1, min(height, width) // 16)
    canvas = np.full((height, len(small) * (width + gap) - gap, *small[0].shape[2:]), BETWEEN, np.uint8)
    for place, image in enumerate(small):
        left = place * (width + gap)
        canvas[:, left : left + width] = image
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "PNG", optimize=True)
    scale = max(1, -(-SMALLEST // min(height, width)))
    return _Picture(
        Markup(base64.b64encode(buffer.getvalue()).decode()), len(small), scale * canvas.shape[1], scale * height
    )


def _shrunk(image: Image.Image) -> Image.Image:
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return image
