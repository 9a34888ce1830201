"""Coding: the images of a set as codes, at the best quality at which each class fits into a number of bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from condensekit.data.spec import ImageSpec
from condensekit.errors import ConfigError, refuse, require, whole, within
from condensekit.sets.codecs import CODECS
from condensekit.sets.codes import Code, Codec, joined
from condensekit.sets.formation import decode_values

LABEL = 8  # bytes of a label, which is int64


def plain_bytes(shape: tuple[int, int, int], n: int) -> int:
    """Bytes of ``n`` images (C, H, W) of 8-bit pixels that are not coded, with their labels."""
    return n * (math.prod(shape) + LABEL)


def taken(codes: Sequence[Code], codec: Codec) -> int:
    """Bytes of the coded images of a class, with their labels."""
    return len(joined(codes, torch.zeros(len(codes)), codec)[0]) + LABEL * len(codes)


@dataclass(frozen=True)
class Values:
    """The way between the normalised values of a set and what a codec codes.

    Args:
        spec: Spec of the images.
        codec: The codec.
        range: The least and the greatest value of the set if its images are no pixels and the codec codes pixels: they
            become the pixels 0 and 255. Else None.
    """

    spec: ImageSpec
    codec: Codec
    range: tuple[float, float] | None

    @classmethod
    def of(cls, images: Tensor, spec: ImageSpec, codec: Codec) -> Values:
        """For all images (M, C, H, W) float32 of a set."""
        low, high = images.aminmax()
        return cls(spec, codec, None if spec.pixels or not codec.pixels else (float(low), float(high)))

    def ranges(self, count: int) -> Tensor | None:
        """(count, C, 2) float32 :attr:`range` of each image and channel, or None."""
        return None if self.range is None else torch.tensor(self.range).expand(count, self.spec.shape[0], 2).clone()

    def coded(self, images: Tensor) -> Tensor:
        """What the codec codes of normalised images (N, C, H, W): uint8 pixels, clamped to their range, or values."""
        if not self.codec.pixels:
            return images
        spec = self.spec if self.range is None else self.spec.between(self.range)
        return (spec.to_pixels(images) * 255).round().to(torch.uint8)


def restored(found: Tensor, spec: ImageSpec, ranges: Tensor | None) -> Tensor:
    """Normalised images (N, C, H, W) float32 of what a codec decoded, and their ranges (N, C, 2) if they have them."""
    if found.dtype != torch.uint8:
        return found
    return spec.normalise(found) if ranges is None else decode_values(found, ranges)


def qualities_of(codec: Codec, quality: int | Sequence[int] | None, classes: int) -> list[int]:
    """The quality of each class: one for all, one for each, or None: the usual one.

    Raises:
        ConfigError: Another number of them, or one that the codec does not have.
    """
    if quality is None:
        return [codec.usual] * classes
    found: list[Any] = [*quality] if isinstance(quality, Sequence) else [quality] * classes
    if len(codec.qualities) == 1:
        raise ConfigError(f"{codec.name} has no quality, got quality={quality}: leave it out")
    require(len(found) == classes, f"quality needs one value for each of {classes} classes, got {len(found)}")
    refuse(*(whole("quality", one) for one in found))
    refuse(*(within(f"quality of {codec.name}", one, codec.qualities[0], codec.qualities[-1]) for one in found))
    return [int(one) for one in found]


def in_room(images: Tensor, codec: Codec, room: int) -> tuple[list[Code], int] | None:
    """Code the images of a class at the highest quality at which they fit.

    Args:
        images: (N, C, H, W), as :meth:`Codec.code` takes them.
        codec: The codec.
        room: Bytes for the codes and labels.

    Returns:
        The codes and the quality; None: they do not fit at the lowest quality.
    """
    best, low, high = None, 0, len(codec.qualities)
    while low < high:  # what is larger at a lower quality costs a better choice at most: what is returned fits
        middle = (low + high) // 2
        codes = codec.code(images, codec.qualities[middle])
        if taken(codes, codec) <= room:
            best, low = (codes, codec.qualities[middle]), middle + 1
        else:
            high = middle
    return best


def coded(
    images: Tensor,
    labels: Tensor,
    spec: ImageSpec,
    codec: Codec,
    room: int | None = None,
    quality: int | Sequence[int] | None = None,
    other: int = 0,
) -> tuple[list[Code], Tensor | None, dict[str, Any]]:
    """Code the images of a set, class by class.

    Args:
        images: (M, C, H, W) float32, normalised; the images of a class stand together.
        labels: (M,) int64.
        spec: Their spec.
        codec: The codec.
        room: Bytes for each class, with labels and ``other``; None: no limit, and a given ``quality``.
        quality: Quality of all classes, or of each; None without a room: the usual one.
        other: Bytes that each image takes besides code, label and range.

    Returns:
        The codes, the ranges of :class:`Values`, and what the provenance tells.

    Raises:
        ConfigError: Images that the codec does not store; a class that does not fit; both room and quality.
    """
    values = Values.of(images, spec, codec)
    ranges = values.ranges(len(images))
    other += 0 if ranges is None else ranges[0].nbytes
    classes = torch.unique_consecutive(labels).tolist()
    require(room is None or quality is None, "room= chooses the quality: leave out quality=, or room=")
    given = qualities_of(codec, quality, len(classes))
    found, used = list[Code](), list[int]()
    for label, one in zip(classes, given, strict=True):
        mine = values.coded(images[labels == label])
        if room is None:
            codes: tuple[list[Code], int] | None = codec.code(mine, one), one
        else:
            codes = in_room(mine, codec, room - other * len(mine))
        if codes is None:
            needed = taken(codec.code(mine, codec.qualities[0]), codec) + other * len(mine)
            raise too_large(needed, len(mine), label, spec, codec.name, room)
        found += codes[0]
        used.append(codes[1])
    told = {"name": codec.name, "room": room, "quality": used if len(codec.qualities) > 1 else None}
    return found, ranges, {**told, "range": None if values.range is None else list(values.range)}


def check_room(sizes: Tensor, labels: Tensor, spec: ImageSpec, name: str, room: int | None) -> None:
    """Raise ConfigError if the stored images of a class, of ``sizes`` (M,) bytes, take more than ``room`` bytes."""
    for label in [] if room is None else torch.unique(labels).tolist():
        mine = sizes[labels == label]
        if int(mine.sum()) > (room or 0):
            raise too_large(int(mine.sum()), len(mine), label, spec, name, room)


def too_large(needed: int, count: int, label: int, spec: ImageSpec, name: str, room: int | None) -> ConfigError:
    """The error for ``count`` images of a class that need more bytes than ``room`` in the storage called ``name``."""
    codec = CODECS.get(name)
    lowest = f"at the lowest quality of {name}" if codec is not None and len(codec.qualities) > 1 else f"as {name}"
    taken = f"the {count} images of class {spec.name_of(label)} take more than {room:,} bytes {lowest}: {needed:,}"
    if needed >= plain_bytes(spec.shape, count):
        size = f"{spec.shape[1]} x {spec.shape[2]}"
        return ConfigError(
            f"{taken}, more than plain pixels; {name} saves nothing on {count} images of {size} pixels: leave them as "
            "they are"
        )
    plain = -(-needed // plain_bytes(spec.shape, 1))
    return ConfigError(f"{taken}, as many as {plain:,} plain images: store fewer of them, or give them more bytes")
