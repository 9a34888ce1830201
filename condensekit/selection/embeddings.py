"""Embeddings: the spaces in which distances between real images are measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from condensekit.compute import Compute
from condensekit.data.images import ClassImages
from condensekit.networks.base import FeatureNetwork, Network
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw

BLOCK = 512  # images embedded in one call
Embed = Callable[[Tensor], Tensor]


class Embedding(ABC):
    """A space in which distances between images are measured.

    Attributes:
        separable: Whether the features of a class are the same if the data lack other classes.
        untrained: Whether the features come from an untrained network, which a trained network may replace.
        network: The architecture; None: the embedding uses no network.
    """

    separable: ClassVar[bool] = True
    untrained: ClassVar[bool] = False
    network: Network | None = None

    @abstractmethod
    def prepare(self, data: ClassImages, draw: Draw, compute: Compute) -> Embed:
        """Make the function from source indices (n,) of ``data`` to float32 features (n, D)."""


@dataclass(frozen=True)
class RandomEmbedding(Embedding):
    """The features of one untrained network, the same for all classes.

    Args:
        network: The architecture; batch norm layers are in evaluation mode, so that images do not mix.
    """

    network: Network = field(default_factory=ConvNet)
    untrained: ClassVar[bool] = True

    def prepare(self, data: ClassImages, draw: Draw, compute: Compute) -> Embed:
        """See :meth:`Embedding.prepare`."""
        module = self.network.new(data.spec.shape, 1, draw, "embedding", compute.device)
        return embed_with(module.requires_grad_(False).eval(), data, compute)


@dataclass(frozen=True)
class Pixels(Embedding):
    """The normalised pixels themselves."""

    def prepare(self, data: ClassImages, draw: Draw, compute: Compute) -> Embed:
        """See :meth:`Embedding.prepare`."""
        return lambda indices: data.gather(indices).flatten(1)


def embed_with(module: FeatureNetwork, data: ClassImages, compute: Compute) -> Embed:
    """A function from source indices of ``data`` to the features of ``module``."""
    return lambda indices: torch.cat(
        [compute.features(module, data.gather(block, compute.device)).cpu() for block in indices.split(BLOCK)]
    )
