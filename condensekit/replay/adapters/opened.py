"""Opened source: an experience whose source has random transforms of its own, read without them in evaluation.

``MNIST(root, transform=...)`` gives augmented images in evaluation, too. Stock buffers draw them anew for each epoch. A
memory needs one image instead, which is then augmented in replay.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from condensekit.replay.adapters.reading import same, spread
from condensekit.replay.adapters.transforms import Way, followed, is_random, through, ways
from condensekit.rng import isolated

TRIED = 16  # largest number of images on which it is tried that their shape is the same without random transforms


class Opened(Dataset[Any]):
    """Pairs of an image and a target in evaluation, without the random transforms of the source.

    Args:
        dataset: Data set of an experience.
        bare: Its only source, without the source's transform of images.
        way: The way from the source in evaluation.

    Attributes:
        images: Transforms of the images of ``bare``.
    """

    def __init__(self, dataset: Any, bare: Any, way: Way) -> None:
        self.dataset, self.bare, self.targets = dataset, bare, way.targets
        self.images = (*(part for part in way.own if not is_random(part)), *way.images)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        item = self.bare[followed(self.dataset, i)[1]]
        return through(self.images, item[0]), through(self.targets, item[1])


def evaluated(dataset: Any) -> Any:
    """The samples of an experience in evaluation: :class:`Opened` if that makes them fixed, else ``dataset.eval()``."""
    tested, found = dataset.eval(), ways(dataset, "eval")
    if len(found) != 1 or not any(is_random(part) for part in found[0].own):
        return tested
    way = found[0]
    bare = copy.copy(way.source)
    for name in {"transform", "transforms"} & vars(bare).keys():  # torchvision keeps both
        setattr(bare, name, None)
    try:
        opened = Opened(dataset, bare, way)
        for i in spread(len(dataset), TRIED):
            place = followed(dataset, i)[1]
            with isolated(i):
                given = way.source[place]
            with isolated(i):
                again = through(way.own, bare[place][0])
            alike = same(given[0], again) and _alike(opened[i][0], tested[i][0])
            if not alike:
                return tested
    except Exception:  # a source that needs its transform may raise anything without it
        return tested
    return opened


def _alike(image: Any, other: Any) -> bool:
    """Whether both are tensors of one shape and dtype."""
    both = isinstance(image, Tensor) and isinstance(other, Tensor)
    return both and image.shape == other.shape and image.dtype == other.dtype
