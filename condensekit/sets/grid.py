"""Grid: one picture of many images, with a row for each class."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from condensekit.errors import DataError

GAP = 2  # pixels between the images
SMALLEST = 32  # pixels; smaller images are enlarged
PICTURED, COLUMNS = 1 << 20, 10  # largest number of pixels, and of images of a class, in a picture of a whole set

Pixels = NDArray[np.uint8]


def png_grid(pixels: Sequence[Pixels], labels: Sequence[int], per_class: int = 10) -> bytes:
    """A PNG picture with a row for each class, in the order of the labels; small images are enlarged.

    Args:
        pixels: Images, (H, W) uint8 if grey and (H, W, 3) if coloured.
        labels: The label of each image.
        per_class: Largest number of images of each class.
    """
    rows = [[image for image, of in zip(pixels, labels, strict=True) if of == label] for label in sorted(set(labels))]
    columns = min(per_class, max(len(row) for row in rows))
    factor = max(1, -(-SMALLEST // min(pixels[0].shape[:2])))
    height, width = (factor * side + GAP for side in pixels[0].shape[:2])
    canvas = np.full((len(rows) * height + GAP, columns * width + GAP, *pixels[0].shape[2:]), 255, np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row[:columns]):
            top, left = GAP + r * height, GAP + c * width
            large = image.repeat(factor, 0).repeat(factor, 1)
            canvas[top : top + large.shape[0], left : left + large.shape[1]] = large
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "PNG")
    return buffer.getvalue()


def columns_of(shape: Sequence[int]) -> int:
    """How many images of each class a picture of (K, ipc, C, H, W) images has room for; 0: none can be shown."""
    classes, ipc, channels, height, width = shape
    room = PICTURED // (classes * max(height, SMALLEST) * max(width, SMALLEST))
    return min(ipc, room, COLUMNS) if channels in (1, 3) else 0


def read_grid(picture: bytes, shape: tuple[int, int, int], counts: Sequence[int]) -> list[list[Pixels]]:
    """The images of a picture of :func:`png_grid`, a list for each class.

    Args:
        picture: The PNG file.
        shape: (C, H, W) of the images.
        counts: Number of images of each class, in the order of the rows.

    Raises:
        DataError: It is no PNG file, or not a grid of such images.
    """
    channels, height, width = shape
    factor = max(1, -(-SMALLEST // min(height, width)))
    down, right = factor * height + GAP, factor * width + GAP
    try:
        image = Image.open(io.BytesIO(picture), formats=["PNG"])
        fits = image.mode == ("L" if channels == 1 else "RGB") and image.height == len(counts) * down + GAP
        columns, rest = divmod(image.width - GAP, right)
        if not fits or rest or not 1 <= columns <= max(counts):
            raise DataError(f"it is {image.width} x {image.height} pixels, which is no grid of these images")
        canvas = np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"it is no PNG file ({error})") from error
    return [
        [
            canvas[GAP + r * down :, GAP + c * right :][: factor * height : factor, : factor * width : factor]
            for c in range(min(columns, count))
        ]
        for r, count in enumerate(counts)
    ]
