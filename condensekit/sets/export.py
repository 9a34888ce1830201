"""Condensed images as pictures: a folder that any image loader reads, and one grid to look at."""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from condensekit.data.images import ImageSpec
from condensekit.errors import ConfigError
from condensekit.runs.files import staged, write_bytes_atomic
from condensekit.sets.condensed import CondensedSet

GAP = 2  # pixels between the images of a grid
SMALLEST = 32  # pixels: smaller images are enlarged in a grid


def to_folder(condensed: CondensedSet, folder: str | Path) -> int:
    """Write each decoded image as ``folder/<class name>/<number>.png``, the layout of torchvision's ImageFolder.

    Pixels are clamped to [0, 1] and rounded to 8 bits; soft labels are left out. The folder appears
    whole or not at all.

    Returns:
        How many images were written.

    Raises:
        ConfigError: The folder exists and is not empty, or the images have neither 1 nor 3 channels.
        StoreError: It cannot be written.
    """
    folder = Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not an empty folder: choose another folder")
    pixels, labels = _pixels(condensed)
    names = _folder_names(condensed.classes, condensed.spec)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    written = dict.fromkeys(condensed.classes, 0)
    try:
        with staged(folder, "write"):
            for name in names.values():
                (temporary / name).mkdir(parents=True)
            for image, label in zip(pixels, labels, strict=True):
                Image.fromarray(image).save(temporary / names[label] / f"{written[label]:05d}.png")
                written[label] += 1
            os.replace(temporary, folder)
    except BaseException:
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary)
        raise
    return len(pixels)


def to_png_grid(condensed: CondensedSet, path: str | Path, per_class: int = 10) -> None:
    """Write the picture of :func:`png_grid`, atomically.

    Args:
        condensed: The set.
        path: The PNG file; replaced where it exists.
        per_class: At most this many images of each class.

    Raises:
        ConfigError: The images have neither 1 nor 3 channels.
        StoreError: The file cannot be written.
    """
    write_bytes_atomic(Path(path), png_grid(condensed, per_class))


def png_grid(condensed: CondensedSet, per_class: int = 10) -> bytes:
    """One PNG picture with a row for each class, in the order of the labels; small images are enlarged.

    Raises:
        ConfigError: The images have neither 1 nor 3 channels.
    """
    pixels, labels = _pixels(condensed)
    rows = [[image for image, of in zip(pixels, labels, strict=True) if of == label] for label in condensed.classes]
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


def _pixels(condensed: CondensedSet) -> tuple[list[NDArray[np.uint8]], list[int]]:
    """Decoded images, (H, W) uint8 where grey and (H, W, 3) where coloured, and their labels."""
    channels = condensed.spec.shape[0]
    if channels not in (1, 3):
        raise ConfigError(f"a PNG needs images of 1 or 3 channels, these have {channels}")
    images, labels = condensed.decode()
    pixels = (condensed.spec.to_pixels(images) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return list(pixels[..., 0] if channels == 1 else pixels), labels.tolist()


def _folder_names(labels: tuple[int, ...], spec: ImageSpec) -> dict[int, str]:
    """A distinct, harmless folder name for each label: the class name, where it is one."""
    safe = {k: re.sub(r"[^\w .+()-]+", "_", spec.class_names.get(k, str(k))).strip(" .") for k in labels}
    spelled = [name.lower() for name in safe.values()]  # some file systems do not tell A from a
    good = {k: bool(name.strip("_")) and spelled.count(name.lower()) == 1 for k, name in safe.items()}
    return {k: name if good[k] else f"{name}_{k}" for k, name in safe.items()}
