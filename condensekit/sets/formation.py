"""Formation: how images are stored, and the values that are stored."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from condensekit.errors import DataError, choice, refuse, whole
from condensekit.sets.codecs import CODECS
from condensekit.sets.codes import Codec

DTYPES = {"float32": torch.float32, "float16": torch.float16, "uint8": torch.uint8}
STORAGES = (*DTYPES, *CODECS)
MAX_DECODED = 1 << 30  # bytes; a set that decodes to more must be stored in at least 1/1024 of them
MAX_RATIO = 1024  # of 8-bit values, that is a factor of 16


@dataclass(frozen=True)
class Formation:
    """How images are stored.

    >>> import condensekit as ck
    >>> train, test = ck.load("digits")
    >>> packed = ck.select(train, "random", ipc=1, formation=ck.Formation(factor=2, dtype="uint8"))
    >>> len(packed), len(packed.decode()[0])
    (10, 40)

    Args:
        factor: 1 stores every image unchanged. f packs f * f smaller images into each stored image, which is
            decoded by cropping and bilinear up-sampling (IDC, Kim et al., ICML 2022).
        dtype: ``float32``, ``float16`` or ``uint8``. uint8 maps the range [lo, hi] of each image and channel
            to 0..255; the ranges are stored and count in the bytes. Or a name of
            :data:`condensekit.sets.codecs.CODECS`: ``2bit`` to ``8bit`` (bits of a value), ``jpeg`` (a picture for each
            image), ``jpeg-mosaic``, ``webp-mosaic`` or ``avif-mosaic`` (a picture for each class). Such images are
            decoded when they are asked for; :meth:`CondensedSet.stored_as` chooses the quality of pictures.
    """

    factor: int = 1
    dtype: str = "float32"

    def __post_init__(self) -> None:
        refuse(choice("storage dtype", self.dtype, STORAGES))
        refuse(whole("factor", self.factor, 1))

    @property
    def coded(self) -> bool:
        """Whether the images are stored as codes."""
        return self.dtype in CODECS

    @property
    def codec(self) -> Codec:
        """The codec of a formation that is :attr:`coded`."""
        return CODECS[self.dtype]

    def on(self, shape: tuple[int, int, int]) -> Formation:
        """The formation for images (C, H, W): by default the same for all."""
        return self

    def misfit(self, shape: tuple[int, int, int], count: int = 1) -> str | None:
        """The problem of storing ``count`` images (C, H, W) in this form; None if there is no problem."""
        height, width = shape[1:]
        if height % self.factor or width % self.factor:
            return f"factor {self.factor} does not divide the image size {height}x{width}: use another factor, or 1"
        decoded = count * math.prod(shape) * 4 * self.factor**2
        itemsize = 1 if self.coded else DTYPES[self.dtype].itemsize
        if decoded > MAX_DECODED and 4 * self.factor**2 > MAX_RATIO * itemsize:
            return (
                f"factor {self.factor} decodes {count} stored images to {decoded:,} bytes: use a factor of at most 16"
            )
        return self.codec.misfit(shape) if self.coded else None

    def fits(self, images: Tensor) -> bool:
        """Whether finite images (M, C, H, W) can be stored in this dtype: float16 ends at 65,504."""
        if self.dtype == "float16":
            return bool(torch.isfinite(images.to(torch.float16)).all())
        together = (0, 2, 3) if self.coded else (2, 3)  # whose range must be finite
        return self.dtype == "float32" or bool(torch.isfinite(images.amax(together) - images.amin(together)).all())


@dataclass(frozen=True)
class BySize(Formation):
    """A formation that packs large images only, because a small part of a small image shows too little.

    Args:
        smallest: Height and width in pixels from which images are packed. M3D with 100 steps on held-out images, three
            seeds: at 8 pixels packing costs 7 points on digits and 2 on Fashion-MNIST; from 12 pixels on, it gains at
            one image per class.
    """

    smallest: int = 12

    def on(self, shape: tuple[int, int, int]) -> Formation:
        """See :meth:`Formation.on`."""
        return Formation(self.factor if min(shape[1:]) >= self.smallest else 1, self.dtype)


def check_each(good: Tensor, problem: str) -> None:
    """Raise DataError with the index of the first image of which a flag in ``good`` (M, ...) is False."""
    bad = ~good.flatten(1).all(1) if good.ndim > 1 else ~good
    if bad.any():
        raise DataError(f"image {int(bad.nonzero()[0])} {problem}")


def check_storable(images: Tensor, dtype: str) -> None:
    """Raise DataError if images (M, C, H, W) float32 have a value that is not finite, or too large for ``dtype``."""
    check_each(torch.isfinite(images), "has a value that is not finite: nothing was stored")
    if not Formation(dtype=dtype).fits(images):
        raise DataError(f"a value is too large for {dtype} (float16 ends at 65,504): store as float32")


def encode(images: Tensor, dtype: str) -> tuple[Tensor, Tensor | None]:
    """Stored values of images (M, C, H, W) float32 in ``dtype``, and their ranges (M, C, 2), which only uint8 has.

    Raises:
        ConfigError: An unknown dtype, or a codec.
        DataError: A value that is not finite, or too large for float16.
    """
    refuse(choice("storage", dtype, DTYPES))
    check_storable(images, dtype)
    if dtype != "uint8":
        return images.to(DTYPES[dtype]), None
    lo, hi = images.amin((2, 3)), images.amax((2, 3))
    scale = torch.where(hi > lo, 255 / (hi - lo), torch.zeros_like(hi))
    codes = ((images - lo[..., None, None]) * scale[..., None, None]).round().clamp(0, 255)
    return codes.to(torch.uint8), torch.stack([lo, hi], dim=-1)


def decode_values(stored: Tensor, ranges: Tensor | None) -> Tensor:
    """The images (M, C, H, W) float32 of stored values and their ranges (M, C, 2), if they have ranges."""
    if ranges is None:
        return stored.to(torch.float32)
    lo, hi = ranges[..., 0, None, None], ranges[..., 1, None, None]
    return stored.to(torch.float32) / 255 * (hi - lo) + lo
