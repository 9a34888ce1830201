"""Storing: the storage through which images are learnt, and in which the set ends."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from condensekit.data.spec import ImageSpec
from condensekit.errors import choice, refuse, whole
from condensekit.sets.codecs import CODECS
from condensekit.sets.coding import coded
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import STORAGES
from condensekit.sets.through import Through


@dataclass(frozen=True)
class Storing:
    """A storage through which images are learnt, so that they learn what survives it, and in which the set is stored.

    In each step, the method sees each image with what the storage has made of it: the gap between the image and the
    image after it was stored and decoded. The gradient moves the image itself (straight-through). The gap is measured
    again every few steps, because a picture codec is slow, and the storing of an image is not the work of a GPU.

    >>> import condensekit as ck
    >>> train, test = ck.load("digits")
    >>> made = ck.condense(train, "dm through=webp-mosaic through.room=500", ipc=5, steps=2).set
    >>> made.formation.dtype, int(max(made.select([0]).nbytes, 500))
    ('webp-mosaic', 500)

    Args:
        storage: A name of :class:`~condensekit.sets.formation.Formation`, such as ``avif-mosaic`` or ``4bit``.
        room: Bytes for each class, with labels: pictures get the highest quality at which the first images fit, and in
            the end the highest quality at which the learnt images fit.
        quality: Quality of pictures, instead of a room; None without a room: the usual one.
        every: Steps for which a gap is kept.
    """

    storage: str
    room: int | None = None
    quality: int | None = None
    every: int = 25

    def __post_init__(self) -> None:
        refuse(
            choice("through", self.storage, STORAGES),
            None if self.room is None else whole("room", self.room, 1),
            None if self.quality is None else whole("quality", self.quality, 1),
            "room chooses the quality: leave out quality, or room"
            if self.room is not None and self.quality is not None
            else None,
            whole("every", self.every, 1),
        )

    def qualities(self, images: Tensor, spec: ImageSpec) -> Tensor:
        """The quality of each class, (K,) int64, for the first images (K, ipc, C, H, W); 0: the storage has none.

        Raises:
            ConfigError: The images do not fit into the room at the lowest quality.
        """
        codec = CODECS.get(self.storage)
        if codec is None or len(codec.qualities) == 1:
            return torch.zeros(len(images), dtype=torch.int64)
        labels = torch.arange(len(images)).repeat_interleave(images.shape[1])
        values = images.detach().cpu().float().flatten(0, 1)
        return torch.tensor(coded(values, labels, spec, codec, self.room, self.quality)[2]["quality"])

    def gap(self, images: Tensor, spec: ImageSpec, qualities: Tensor) -> Tensor:
        """What the storage changes in images (K, ipc, C, H, W), of the same shape, at these qualities."""
        return Through(self.storage, spec, qualities.tolist() if qualities.any() else None)(images) - images

    def stored(self, made: CondensedSet) -> CondensedSet:
        """The learnt set in this storage."""
        return made.stored_as(self.storage, room=self.room, quality=self.quality)
