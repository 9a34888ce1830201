"""Opened experience: evaluation without random transforms, where a stream has the same transforms in both modes.

``MNIST(root, transform=...)`` and ``TransformGroups({"train": ...})`` augment images in evaluation, too. Stock buffers
draw them anew for each epoch. A memory needs one image instead, which is then augmented in replay.
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
    """Pairs of an image and a target in evaluation, without torchvision's random transforms.

    Args:
        dataset: Data set of an experience, which has one source.
        way: The way from the source in evaluation.

    Attributes:
        bare: The source, without its own transform of images if this is random.
        own: The transforms of images that ``bare`` lacks.
        images: The transforms of the images of ``bare`` that are not random.
    """

    def __init__(self, dataset: Any, way: Way) -> None:
        self.dataset, self.targets = dataset, way.targets
        self.bare, self.own = way.source, way.own if any(is_random(part) for part in way.own) else ()
        self.images = tuple(part for part in self.own + way.images if not is_random(part))
        if self.own:
            self.bare = copy.copy(way.source)
            for name in {"transform", "transforms"} & vars(self.bare).keys():  # torchvision keeps both
                setattr(self.bare, name, None)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        item = self.bare[followed(self.dataset, i)[1]]
        return through(self.images, item[0]), through(self.targets, item[1])

    def is_right(self, source: Any, i: int) -> bool:
        """Whether ``bare`` and its transforms give what ``source`` gives for sample ``i``, and images keep shape."""
        place = followed(self.dataset, i)[1]
        with isolated(i):
            given = source[place][0]
        with isolated(i):
            again = through(self.own, self.bare[place][0])
        return same(given, again) and _alike(self[i][0], self.dataset.eval()[i][0])


def evaluated(dataset: Any) -> Any:
    """The samples of an experience in evaluation: :class:`Opened` if it has random transforms, else ``dataset.eval()``.

    Experiences of several sources, and images whose shape depends on the random transforms, are not opened.
    """
    found = ways(dataset, "eval")
    if len(found) == 1 and any(is_random(part) for part in found[0].own + found[0].images):
        try:
            opened = Opened(dataset, found[0])
            if all(opened.is_right(found[0].source, i) for i in spread(len(dataset), TRIED)):
                return opened
        except Exception:  # a source that needs its transform may raise anything without it
            pass
    return dataset.eval()


def _alike(image: Any, other: Any) -> bool:
    """Whether both are tensors of one shape and dtype."""
    both = isinstance(image, Tensor) and isinstance(other, Tensor)
    return both and image.shape == other.shape and image.dtype == other.dtype
