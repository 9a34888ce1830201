"""JPEG: coded images, their sizes in bytes, and their decoded pixels."""

from __future__ import annotations

import io
import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, refuse, whole
from condensekit.sets.condensed import CondensedSet

LABEL = 8  # bytes of a label, which is int64
QUALITIES = range(1, 96)
CHANNELS = (1, 3)
SCAN = b"\xff\xda"  # the marker in a JPEG file between the tables and the picture


@dataclass(frozen=True, eq=False)
class Picture:
    """One image as JPEG.

    Args:
        pixels: (C, H, W) uint8 decoded pixels.
        size: Bytes of the picture.
        tables: Bytes of the tables, which are the same for all images of the same size and quality.
    """

    pixels: Tensor
    size: int
    tables: int


def jpeg(pixels: Tensor, quality: int) -> Picture:
    """Code a (C, H, W) uint8 image of 1 or 3 channels with a quality in 1 to 95."""
    file = io.BytesIO()
    array = pixels.cpu().numpy()
    Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0)).save(file, "JPEG", quality=quality)
    tables = file.getvalue().index(SCAN)
    decoded = np.atleast_3d(np.asarray(Image.open(file)))
    return Picture(torch.from_numpy(decoded.copy()).permute(2, 0, 1), len(file.getvalue()) - tables, tables)


def plain_bytes(shape: tuple[int, int, int], n: int) -> int:
    """Bytes of ``n`` images (C, H, W) of 8-bit pixels that are not coded, with their labels."""
    return n * (math.prod(shape) + LABEL)


def uncodable(name: str, data: ClassImages) -> str | None:
    """The problem of coding the images of ``data`` for ``name``, such as a selection; None if there is no problem."""
    if data.images.dtype == torch.uint8 and data.spec.shape[0] in CHANNELS:
        return None
    return f"{name} needs 8-bit images of 1 or 3 channels, got {data.images.dtype} {data.spec.shape}"


def sizes(pictures: Iterable[Picture]) -> list[int]:
    """The size of each picture in bytes; the tables count with the first picture."""
    return [picture.size + (0 if place else picture.tables) for place, picture in enumerate(pictures)]


def as_jpeg(made: CondensedSet, room: int) -> CondensedSet:
    """Code the images of each class as JPEG, at the highest quality at which they fit.

    Args:
        made: A set; its images are clamped to pixels, or mapped to pixels if they are none, see
            :attr:`CondensedSet.pixel_spec`; the provenance then says the range. Packed images are coded packed.
        room: Bytes for each class: files, whose tables count once, labels and soft labels.

    Returns:
        The decoded images, stored as float32, with the size of each coded image.

    Raises:
        ConfigError: ``room`` below 1; images of neither 1 nor 3 channels; images that do not fit at the lowest quality.
    """
    refuse(
        whole("room", room, 1),
        None if made.spec.shape[0] in CHANNELS else f"JPEG needs images of 1 or 3 channels, got {made.spec.shape}",
    )
    plain = made.stored_as("float32")
    soft = 0 if plain.soft_labels is None else plain.soft_labels.nbytes // len(plain)
    spec = plain.pixel_spec
    pixels = (spec.to_pixels(plain.images) * 255).round().to(torch.uint8)
    shown, each, used = plain.images.clone(), torch.zeros(len(plain), dtype=torch.int64), []
    for label in plain.classes:
        rows = (plain.labels == label).nonzero()[:, 0]
        used.append(bisect_right(QUALITIES, room - soft * len(rows), key=partial(taken, pixels[rows])))  # 0: none
        if not used[-1]:
            raise ConfigError(
                f"the {len(rows)} images of class {plain.spec.name_of(label)} take more than {room:,} bytes at the "
                "lowest quality: store fewer of them, or give them more bytes"
            )
        pictures = [jpeg(image, used[-1]) for image in pixels[rows]]
        shown[rows] = spec.normalise(torch.stack([picture.pixels for picture in pictures]))
        each[rows] = torch.tensor(sizes(pictures))
    told = {"room": room, "quality": used, "range": None if plain.spec.pixels else list(plain.value_range)}
    provenance = {**plain.provenance, "jpeg": told}
    return replace(plain, images=shown, coded=each, provenance=provenance)


def taken(pixels: Tensor, quality: int) -> int:
    """Bytes of the coded images (N, C, H, W) uint8 of a class: files, whose tables count once, and labels."""
    return sum(sizes(jpeg(image, quality) for image in pixels)) + LABEL * len(pixels)
