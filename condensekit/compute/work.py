"""Work of networks: images put through them and operations, and both as passes over a training set."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from condensekit.errors import ConfigError
from condensekit.networks.convnet import ConvNet
from condensekit.networks.cost import Shape


@dataclass(frozen=True)
class Spent:
    """Work done by networks; the same run does the same work on every machine.

    Args:
        images: Images put through a network; forward and backward together count once.
        flops: Operations; a backward pass counts as two forward passes.
    """

    images: int = 0
    flops: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.images + other.images, self.flops + other.flops)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.images - other.images, self.flops - other.flops)

    def passes(self, images: int, shape: Shape) -> dict[str, float]:
        """The work in passes over a training set.

        Args:
            images: Training images.
            shape: (C, H, W) of each.

        Returns:
            ``passes``: images put through a network, divided by the training images. ``w128_passes``: operations,
            divided by those of one forward pass of all training images through a ConvNet of depth 3 and width 128.
        """
        return {
            "passes": round(self.images / images, 4),
            "w128_passes": round(self.flops / (images * _reference_flops(shape)), 4),
        }


@lru_cache
def _reference_flops(shape: Shape) -> int:
    """Operations of one image's forward pass in the papers' ConvNet, or in the deepest ConvNet that fits the image."""
    for depth in (3, 2, 1):
        with suppress(ConfigError):
            return ConvNet(depth=depth).build(shape, 10).flops
    return ConvNet(depth=1).build((shape[0], 8, 8), 10).flops


def resident_peak() -> int:
    """The largest resident memory of the process so far, in bytes; 0 if the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
