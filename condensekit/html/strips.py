"""Strips: a row of small images for each class, with its name, as PNG pictures inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from condensekit.html.environment import render
from condensekit.html.layout import paragraph

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
        count: Number of images that the class has, if ``images`` are only the first of them.
    """

    name: str
    images: Sequence[Sequence[Pixels]]
    count: int = 0


def excerpt(labels: Sequence[int]) -> list[int]:
    """Places of the images that a grid can show: the first ones of each class, of the classes with the least labels."""
    shown = dict.fromkeys(sorted(set(labels))[:CLASSES], PER_CLASS)
    places = []
    for place, label in enumerate(labels):
        if shown.get(label, 0):
            shown[label] -= 1
            places.append(place)
    return places


def by_class(
    images: NDArray[np.float32], labels: Sequence[int], counts: Mapping[int, int], names: Mapping[int, str]
) -> list[Strip]:
    """A row for each class; the images of :func:`excerpt` are enough.

    Args:
        images: (N, C, H, W) pixels in [0, 1]; without 1 or 3 channels they have no picture, and the rows are empty.
        labels: The label of each image.
        counts: Number of images of each label, in the order of the rows.
        names: Class name by label.
    """
    of: dict[int, list[Pixels]] = {label: [] for label in counts}
    if images.shape[1] in (1, 3):
        for label, image in zip(labels, as_pixels(images), strict=True):
            of[label].append(image)
    return [Strip(names.get(label, str(label)), [of[label]], count) for label, count in counts.items()]


def as_pixels(images: NDArray[np.float32]) -> list[Pixels]:
    """(N, C, H, W) pixels in [0, 1], with 1 or 3 channels, as images of 8 bits."""
    found = (images * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    return list(found[..., 0] if images.shape[1] == 1 else found)


def grid(
    rows: Sequence[Strip],
    shape: tuple[int, int, int],
    note: str = "",
    before: tuple[str, Sequence[Sequence[Pixels]]] | None = None,
    budget: int = BUDGET,
) -> Markup:
    """The images of all classes; a sentence if they have no picture.

    Args:
        rows: The classes, see :func:`by_class`.
        shape: (C, H, W) of an image.
        note: The end of the caption, after the numbers of images and classes.
        before: Name of a column of earlier images, and these images for each class; None: there are none.
        budget: Largest number of characters of the pictures.
    """
    channels, height, width = shape
    if channels not in (1, 3):
        return paragraph(f"Images of {channels} channels have no picture: a picture needs 1 or 3{note}")
    count, classes = sum(row.count for row in rows), len(rows)
    caption = (
        f"{count:,} image{'s' * (count != 1)} of {height} x {width} pixels, {classes:,} class{'es' * (classes != 1)}"
        f"{note}"
    )
    if before is None:
        return strips(rows, ["images"], caption, budget)
    name, early = before
    both = [replace(row, images=[some, *row.images]) for row, some in zip(rows, early, strict=True)]
    return strips(both, [name, "at the end"], caption, budget)


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
    most = max(max(row.count, *map(len, row.images)) for row in rows)
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
    canvas = beside(small)
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "PNG", optimize=True)
    scale = max(1, -(-SMALLEST // min(height, width)))
    return _Picture(
        Markup(base64.b64encode(buffer.getvalue()).decode()), len(small), scale * canvas.shape[1], scale * height
    )


def beside(images: Sequence[Pixels], columns: int = 0) -> Pixels:
    """Images in a row, with a gap between them, and room for ``columns`` images if there are fewer."""
    height, width = images[0].shape[:2]
    gap = max(1, min(height, width) // 16)
    canvas = np.full((height, max(columns, len(images)) * (width + gap) - gap, *images[0].shape[2:]), BETWEEN, np.uint8)
    for place, image in enumerate(images):
        left = place * (width + gap)
        canvas[:, left : left + width] = image
    return canvas


def _shrunk(image: Image.Image) -> Image.Image:
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return image
