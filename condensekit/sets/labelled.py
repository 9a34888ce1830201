"""Labelled picture: the images of a set as a PNG file for people, with class names and scale."""

from __future__ import annotations

import importlib.util
import io
import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from condensekit.errors import printable
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.grid import GAP, Pixels

CLASSES, PER_CLASS = 60, 10  # the most that are shown
SMALLEST, LARGEST = 48, 128  # pixels of a side; smaller images are enlarged, larger ones shrunk
NAME, TITLE = 24, 60  # characters of a class name and of a line of the title
TEXT, MARGIN = 13, 8  # pixels of the letters and around them
SHAPE = 1.4  # width of a picture in parts of its height, if the classes can be arranged so


def labelled(condensed: CondensedSet) -> bytes:
    """A PNG picture: a row for each class, with its name; above it, what the images are and how large they are.

    Raises:
        ConfigError: The images have neither 1 nor 3 channels.
    """
    shown = _excerpt(condensed)
    pixels, labels = shown.pixels()
    scale = _scale(pixels[0])
    rows = {k: [_scaled(one, scale) for one, of in zip(pixels, labels, strict=True) if of == k] for k in shown.classes}
    names = [condensed.spec.class_names.get(k, str(k)) for k in rows]
    canvas = _arranged([_row(name, images[:PER_CLASS]) for name, images in zip(names, rows.values(), strict=True)])
    title = _text(_title(condensed, scale))
    return _png(_stacked([title, canvas]))


def _excerpt(condensed: CondensedSet) -> CondensedSet:
    """The first stored images of each of the first classes."""
    each = -(-PER_CLASS // condensed.formation.factor**2)
    places = [(condensed.labels == k).nonzero()[:each, 0] for k in condensed.classes[:CLASSES]]
    return condensed.take(torch.cat(places))


def _title(condensed: CondensedSet, scale: float) -> str:
    """What the images are, what the picture leaves out, and how large a pixel is."""
    _, height, width = condensed.spec.shape
    factor, most = condensed.formation.factor, condensed.ipc * condensed.formation.factor**2
    count = len(condensed) * factor**2
    told = [f"{printable(condensed.name)}: {count:,} images of {height} x {width} pixels, {condensed.nbytes:,} bytes"]
    if factor > 1:
        told.append(f"unpacked from {len(condensed):,} stored images, each at 1/{factor} of the resolution")
    if most > PER_CLASS:
        told.append(f"the first {PER_CLASS} of up to {most:,} images of a class")
    if len(condensed.classes) > CLASSES:
        told.append(f"the first {CLASSES} of {len(condensed.classes):,} classes")
    if not condensed.spec.pixels:
        told.append("black and white are the least and the greatest value of these images")
    if scale != 1:
        told.append(
            f"each pixel is drawn {scale:g} x {scale:g}" if scale > 1 else f"shown at 1/{1 / scale:g} of the size"
        )
    return "; ".join(told)


def _scale(image: Pixels) -> float:
    """How many times an image is enlarged; below 1 if it is shrunk."""
    sides = image.shape[:2]
    return float(-(-SMALLEST // min(sides))) if min(sides) < SMALLEST else 1 / max(1, -(-max(sides) // LARGEST))


def _scaled(image: Pixels, scale: float) -> Pixels:
    if scale >= 1:
        return image.repeat(int(scale), 0).repeat(int(scale), 1)
    return np.asarray(Image.fromarray(image).reduce(round(1 / scale)))


def _row(name: str, images: Sequence[Pixels]) -> tuple[str, Pixels]:
    """A name and the images of its class beside each other."""
    height, width, *colours = images[0].shape
    canvas = np.full((height, len(images) * (width + GAP) - GAP, *colours), 255, np.uint8)
    for place, image in enumerate(images):
        canvas[:, place * (width + GAP) :][:, :width] = image
    return printable(name) if len(name) <= NAME else f"{printable(name[: NAME - 3])}...", canvas


def _arranged(rows: Sequence[tuple[str, Pixels]]) -> Pixels:
    """All rows, each with its name to the left, in as many columns as make the picture nearly :data:`SHAPE`."""
    names = [_text(name) for name, _ in rows]
    high = max(max(name.shape[0], row.shape[0]) for name, (_, row) in zip(names, rows, strict=True)) + GAP
    left, right = max(name.shape[1] for name in names), max(row.shape[1] for _, row in rows)
    wide = left + right + MARGIN
    columns = min(range(1, len(rows) + 1), key=lambda n: abs(n * wide - SHAPE * high * -(-len(rows) // n)))
    lines = -(-len(rows) // columns)
    canvas = np.full((lines * high, columns * wide, *rows[0][1].shape[2:]), 255, np.uint8)
    for place, (name, (_, row)) in enumerate(zip(names, rows, strict=True)):
        top, start = place % lines * high, place // lines * wide
        middle = top + (high - GAP - name.shape[0]) // 2
        canvas[middle : middle + name.shape[0], start + left - name.shape[1] : start + left] = _coloured(name, canvas)
        canvas[top : top + row.shape[0], start + left : start + left + row.shape[1]] = row
    return canvas


def _stacked(parts: Sequence[Pixels]) -> Pixels:
    """Pictures below each other, with a margin around them."""
    like = parts[-1]
    wide = max(part.shape[1] for part in parts) + 2 * MARGIN
    canvas = np.full((sum(part.shape[0] + MARGIN for part in parts) + MARGIN, wide, *like.shape[2:]), 255, np.uint8)
    top = MARGIN
    for part in parts:
        canvas[top : top + part.shape[0], MARGIN : MARGIN + part.shape[1]] = _coloured(part, like)
        top += part.shape[0] + MARGIN
    return canvas


def _coloured(grey: Pixels, like: Pixels) -> Pixels:
    """A picture with as many channels as ``like``."""
    return grey[..., None].repeat(3, 2) if grey.ndim < like.ndim else grey


def _text(text: str) -> Pixels:
    """Black letters on white, in lines of at most :data:`TITLE` characters, with a margin to the right."""
    lines, font = textwrap.wrap(text, TITLE) or [" "], _font()
    wide = max(round(font.getlength(line)) for line in lines) + MARGIN
    image = Image.new("L", (wide, len(lines) * (TEXT + 4)), 255)
    drawn = ImageDraw.Draw(image)
    for place, line in enumerate(lines):
        drawn.text((0, place * (TEXT + 4)), line, 0, font)
    return np.asarray(image)


@cache
def _font() -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib, which has Latin, Greek, Cyrillic and Arabic letters."""
    found = importlib.util.find_spec("matplotlib")
    assert found is not None
    folder = Path(found.origin or "").parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / "DejaVuSans.ttf"), TEXT)


def _png(canvas: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "PNG")
    return buffer.getvalue()
