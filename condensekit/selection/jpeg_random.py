"""Random images as JPEG: a baseline for condensed sets at equal bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from condensekit.compute import Compute
from condensekit.data.images import ClassImages
from condensekit.errors import refuse, require
from condensekit.rng import Draw
from condensekit.selection.base import Chosen, Selection, check_sizes
from condensekit.sets.codecs import CODECS, JPEG
from condensekit.sets.codes import Code
from condensekit.sets.coding import LABEL, plain_bytes

CODEC = CODECS[JPEG]


def uncodable(name: str, data: ClassImages) -> str | None:
    """The problem of coding the images of ``data`` for ``name``, such as a selection; None if there is no problem."""
    if data.images.dtype == torch.uint8 and CODEC.misfit(data.spec.shape) is None:
        return None
    told = f"{name} needs 8-bit images of 1 or 3 channels, got {data.images.dtype} {data.spec.shape}"
    if CODEC.misfit(data.spec.shape):
        return told
    return f"{told}: give 8-bit pixels, or a memory spec=ck.ImageSpec({data.spec.shape}, mean=..., std=...)"


@dataclass(frozen=True)
class JpegRandom(Selection):
    """Random images, coded as JPEG: as many as fit into the bytes of ``ipc`` images of 8-bit pixels, with labels.

    The bytes are those of labels and files. The tables of the files are equal and count once for each class. Every
    class gets at least one image. Networks are trained on the decoded images.

    Args:
        quality: JPEG quality, 1 to 95.

    Raises:
        ConfigError: A quality out of range; when called, images that are not 8-bit or have neither 1 nor 3 channels.
    """

    quality: int = 75
    name: ClassVar[str] = "jpeg-random"
    codes: ClassVar[bool] = True  # its images are stored as JPEG

    def __post_init__(self) -> None:
        require(self.quality in CODEC.qualities, f"quality must be an integer in 1 to 95, got {self.quality}")

    def __call__(self, data: ClassImages, ipc: int, draw: Draw, compute: Compute) -> Chosen:
        """See :class:`~condensekit.selection.base.Selection`; classes may get different numbers of images."""
        refuse(uncodable(self.name, data))
        check_sizes(data, ipc)
        indices, codes = list[int](), list[Code]()
        for label in data.classes:
            left = plain_bytes(data.spec.shape, ipc)
            for place, (index, code) in enumerate(self._coded(data, label, draw)):
                left -= len(code.body) + (0 if place else len(code.head)) + LABEL
                if place and left < 0:
                    break
                indices.append(index)
                codes.append(code)
        return Chosen(torch.tensor(indices), codes=codes)

    def least(self, data: ClassImages, draw: Draw) -> tuple[int, int]:
        """The largest size in bytes of a first image, with tables and label, and the label of its class."""
        refuse(uncodable(self.name, data))
        first = ((next(self._coded(data, label, draw)), label) for label in data.classes)
        return max((len(code.head) + len(code.body) + LABEL, label) for (_, code), label in first)

    def _coded(self, data: ClassImages, label: int, draw: Draw) -> Iterator[tuple[int, Code]]:
        """The index and the code of each image of a class, in random order."""
        order = data.indices_of(label)[draw.permutation(f"{self.name}/{label}", data.count(label))]
        return ((index, CODEC.code(data.images[index][None], self.quality)[0]) for index in order.tolist())
