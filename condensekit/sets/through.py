"""Through a storage: images as they are after they were stored and decoded, for a condensation that looks at these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from condensekit.data.spec import ImageSpec
from condensekit.errors import DataError, choice, refuse
from condensekit.sets.codecs import CODECS
from condensekit.sets.coding import Values, qualities_of, restored
from condensekit.sets.formation import STORAGES, Formation, decode_values, encode


@dataclass(frozen=True)
class Through:
    """A function from images to the images that a storage gives back.

    >>> import torch
    >>> from condensekit.testing import shapes
    >>> data = shapes()
    >>> through = Through("webp-mosaic", data.spec, quality=30)
    >>> images = torch.stack([data.gather(data.indices_of(label)[:4]) for label in data.classes])
    >>> through(images).shape == images.shape
    True

    It is constant almost everywhere: ``images + (through(images) - images).detach()`` has the stored values and the
    gradient of the images (straight-through).

    Args:
        storage: A name of :class:`~condensekit.sets.formation.Formation`.
        spec: Shape and normalisation of the images.
        quality: Quality of pictures, of all classes or of each; None: the usual one.

    Raises:
        ConfigError: An unknown storage, one that this Pillow lacks, or a quality that it does not have.
    """

    storage: str
    spec: ImageSpec
    quality: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        refuse(choice("storage", self.storage, STORAGES))
        refuse(Formation(dtype=self.storage).misfit(self.spec.shape))

    def __call__(self, images: Tensor) -> Tensor:
        """Store and decode.

        Args:
            images: (K, N, C, H, W) normalised, N stored images of each of K classes; packed images stay packed.

        Returns:
            The same shape, float32, on the same device, without a gradient; what
            ``CondensedSet.stored_as(storage, quality=quality)`` decodes to.

        Raises:
            DataError: Another shape.
        """
        if images.ndim != 5 or tuple(images.shape[2:]) != self.spec.shape:
            raise DataError(f"images must be (K, N, {self.spec.shape}), got shape {tuple(images.shape)}")
        values = images.detach().to("cpu", torch.float32)
        codec = CODECS.get(self.storage)
        if codec is None:
            found = decode_values(*encode(values.flatten(0, 1), self.storage)).reshape(images.shape)
        else:
            way, shape = Values.of(values.flatten(0, 1), self.spec, codec), self.spec.shape
            qualities = qualities_of(codec, self.quality, len(values))
            found = torch.stack(
                [
                    restored(codec.decode(codec.code(way.coded(own), one), shape), self.spec, way.ranges(len(own)))
                    for own, one in zip(values, qualities, strict=True)
                ]
            )
        return found.to(images.device)
