"""Codes: the coded images of a set one after another in one tensor, with what a class shares stored once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from condensekit.errors import DataError

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Code:
    """One coded image.

    Args:
        head: What images of a class share: the tables of a JPEG file, a whole mosaic, or the range of values.
        body: What only this image has.
    """

    head: bytes
    body: bytes


class Codec(ABC):
    """A form in which images are stored as bytes.

    Attributes:
        pixels: Whether it codes 8-bit pixels; False: normalised values.
        qualities: Qualities that can be chosen, ascending; a single one if there is no choice.
        usual: The quality of images for which neither a quality nor a number of bytes is given.
        smallest: Smallest number of bytes that an image can add to its class.
    """

    pixels: bool = True
    qualities: range = range(1)
    usual: int = 0
    smallest: int = 1

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name as a storage: ``avif-mosaic``."""

    def misfit(self, shape: Shape) -> str | None:
        """The problem of storing images (C, H, W) in this form; None if there is no problem."""
        return None

    @abstractmethod
    def code(self, images: Tensor, quality: int) -> list[Code]:
        """Code the images of a class.

        Args:
            images: (N, C, H, W) uint8 pixels, or normalised float32 values if the codec takes no ``pixels``.
            quality: One of :attr:`qualities`.
        """

    @abstractmethod
    def decode(self, codes: Sequence[Code], shape: Shape) -> Tensor:
        """The images (N, C, H, W) of codes, as pixels or values like those of :meth:`code`.

        Raises:
            DataError: A code is none of images (C, H, W); the text has its place.
        """

    @abstractmethod
    def cut(self, part: bytes, shape: Shape) -> int | None:
        """Where the body begins in a part of :func:`joined`.

        0: the part is a body, 1: there is one byte that says which head is meant, more: there is a head. None: the part
        is no code.
        """

    def after(self, code: Code) -> Code | None:
        """The code that an empty part after ``code`` stands for; None: no part is empty."""
        return None


def joined(codes: Sequence[Code], labels: Tensor, codec: Codec) -> tuple[Tensor, Tensor]:
    """Write codes one after another.

    The first image of a class has its head. A later image is its body only, with the head of the image before it. If it
    has another head of its class, one byte before its body says how many heads were written since.

    Args:
        codes: The images.
        labels: (M,) int64; a new class begins where the label changes.
        codec: The codec of the images.

    Returns:
        (B,) uint8 bytes, and (M,) int64 size of each image in them.
    """
    parts, heads, before, label = list[bytes](), list[bytes](), Code(b"", b""), None
    for code, own in zip(codes, labels.tolist(), strict=True):
        if own != label:
            heads, before, label = [], Code(b"", b""), own
        if heads and code == codec.after(before):
            parts.append(b"")
        elif code.head == before.head:
            parts.append(code.body)
        elif code.head in heads[-256:]:
            parts.append(bytes([heads[::-1].index(code.head)]) + code.body)
        else:
            heads.append(code.head)
            parts.append(code.head + code.body)
        before = code
    return torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.uint8), torch.tensor([len(part) for part in parts])


def divided(stream: Tensor, sizes: Tensor, codec: Codec, shape: Shape) -> list[Code]:
    """The codes of :func:`joined`, of images (C, H, W).

    Raises:
        DataError: The bytes are not those of ``joined``.
    """
    if stream.ndim != 1 or stream.dtype != torch.uint8 or int(sizes.sum()) != len(stream) or bool((sizes < 0).any()):
        raise DataError(
            f"codes must be (B,) uint8 bytes, and their sizes must sum to B, got {tuple(stream.shape)} {stream.dtype} "
            f"and the sum {int(sizes.sum())}"
        )
    whole, found = stream.numpy().tobytes(), list[Code]()
    heads, before, start = list[bytes](), Code(b"", b""), 0
    for place, size in enumerate(sizes.tolist()):
        part, start = whole[start : start + size], start + size
        follows = codec.after(before) if heads and not part else None
        cut = codec.cut(part, shape) if part else None
        if follows is not None:
            before = follows
        elif cut == 1 and part[0] < len(heads):
            before = Code(heads[-1 - part[0]], part[1:])
        elif cut is not None and cut > 1:
            heads.append(part[:cut])
            before = Code(part[:cut], part[cut:])
        elif cut == 0 and heads:
            before = Code(before.head, part)
        else:
            raise DataError(f"code {place} is no image stored as {codec.name}")
        found.append(before)
    return found
