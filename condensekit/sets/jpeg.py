"""JPEG: coded images, their sizes in bytes, and their decoded pixels."""

from __future__ import annotations

import io
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import partial

import torch
from PIL import Image
from torch import Tensor

from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, refuse, whole
from condensekit.sets.codes import Code
from condensekit.sets.condensed import CondensedSet

LABEL = 8  # bytes of a label, which is int64
QUALITIES = range(1, 96)
CHANNELS = (1, 3)


def jpeg(pixels: Tensor, quality: int) -> Code:
    """Code a (C, H, W) uint8 image of 1 or 3 channels with a quality in 1 to 95."""
    file = io.BytesIO()
    array = pixels.cpu().numpy()
    Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0)).save(file, "JPEG", quality=quality)
    return Code.of(file.getvalue())


def plain_bytes(shape: tuple[int, int, int], n: int) -> int:
    """Bytes of ``n`` images (C, H, W) of 8-bit pixels that are not coded, with their labels."""
    return n * (math.prod(shape) + LABEL)


def uncodable(name: str, data: ClassImages) -> str | None:
    """The problem of coding the images of ``data`` for ``name``, such as a selection; None if there is no problem."""
    if data.images.dtype == torch.uint8 and data.spec.shape[0] in CHANNELS:
        return None
    told = f"{name} needs 8-bit images of 1 or 3 channels, got {data.images.dtype} {data.spec.shape}"
    if data.spec.shape[0] not in CHANNELS:
        return told
    return f"{told}: give 8-bit pixels, or a memory spec=ck.ImageSpec({data.spec.shape}, mean=..., std=...)"


def sizes(codes: Iterable[Code]) -> Iterator[int]:
    """The size in bytes of each image of a class, coded with one quality; the tables count with the first image."""
    return (len(code.scan) + (0 if place else len(code.tables)) for place, code in enumerate(codes))


def as_jpeg(made: CondensedSet, room: int) -> CondensedSet:
    """Code the images of each class as JPEG, at the highest quality at which they fit.

    Args:
        made: A set; its images are clamped to pixels, or mapped to pixels if they are none, see
            :attr:`CondensedSet.pixel_spec`; the provenance then says the range. Packed images are coded packed.
        room: Bytes for each class: files, whose tables count once, labels and soft labels.

    Returns:
        The coded images, in the order of the classes.

    Raises:
        ConfigError: ``room`` below 1; images of neither 1 nor 3 channels; images that do not fit at the lowest quality.
    """
    refuse(
        whole("room", room, 1),
        None if made.spec.shape[0] in CHANNELS else f"JPEG needs images of 1 or 3 channels, got {made.spec.shape}",
    )
    plain = made.stored_as("float32")
    plain = plain.take(torch.argsort(plain.labels, stable=True))
    soft = 0 if plain.soft_labels is None else plain.soft_labels.nbytes // len(plain)
    ranges = None if plain.spec.pixels else torch.tensor(plain.value_range).expand(*plain.images.shape[:2], 2)
    other = soft + (0 if ranges is None else ranges[0].nbytes)
    pixels = (plain.pixel_spec.to_pixels(plain.images) * 255).round().to(torch.uint8)
    codes, used = list[Code](), list[int]()
    for label in plain.classes:
        mine = pixels[plain.labels == label]
        used.append(bisect_right(QUALITIES, room - other * len(mine), key=partial(taken, mine)))  # 0: none
        if not used[-1]:
            raise ConfigError(
                f"the {len(mine)} images of class {plain.spec.name_of(label)} take more than {room:,} bytes at the "
                f"lowest quality: {_way_out(taken(mine, QUALITIES[0]) + other * len(mine), mine)}"
            )
        codes += [jpeg(image, used[-1]) for image in mine]
    told = {"room": room, "quality": used, "range": None if plain.spec.pixels else list(plain.value_range)}
    return CondensedSet.from_codes(
        codes,
        plain.labels,
        plain.spec,
        factor=plain.formation.factor,
        ranges=ranges,
        soft_labels=plain.soft_labels,
        provenance={**plain.provenance, "jpeg": told},
    )


def _way_out(needed: int, pixels: Tensor) -> str:
    """What to do with the images of a class (N, C, H, W) that need so many bytes as JPEG."""
    _, channels, height, width = pixels.shape
    shape, size = (channels, height, width), f"{height} x {width}"
    if needed >= plain_bytes(shape, len(pixels)):
        return f"{needed:,}, more than without JPEG, which saves nothing at {size} pixels: leave them as they are"
    plain = -(-needed // plain_bytes(shape, 1))
    return f"{needed:,}, as many as {plain:,} plain images: store fewer of them, or give them more bytes"


def taken(pixels: Tensor, quality: int) -> int:
    """Bytes of the coded images (N, C, H, W) uint8 of a class: files, whose tables count once, and labels."""
    return sum(sizes(jpeg(image, quality) for image in pixels)) + LABEL * len(pixels)
