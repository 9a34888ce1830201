"""Classic selections: random, herding, k-means and k-center."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from condensekit.compute import Compute
from condensekit.data.images import ClassImages
from condensekit.errors import refuse, whole
from condensekit.rng import Draw
from condensekit.selection.base import Chosen, Selection, check_sizes
from condensekit.selection.clustering import cluster_centres, farthest_first, herd, nearest_distinct
from condensekit.selection.embeddings import Embedding, RandomEmbedding


@dataclass(frozen=True)
class Random(Selection):
    """Uniformly drawn images, each at most once; a smaller ``ipc`` gives the first images of a larger ``ipc``.

    >>> import condensekit as ck
    >>> train, test = ck.load("digits")
    >>> chosen = ck.select(train, ck.Random(), ipc=2, seed=1)
    >>> chosen.counts[0]
    2
    """

    name: ClassVar[str] = "random"

    def __call__(self, data: ClassImages, ipc: int, draw: Draw, compute: Compute) -> Chosen:
        """See :class:`Selection`."""
        check_sizes(data, ipc)
        parts = []
        for label in data.classes:
            indices = data.indices_of(label)
            parts.append(indices[draw.permutation(f"random/{label}", len(indices))[:ipc]])
        return Chosen(torch.cat(parts))


@dataclass(frozen=True)
class _Embedded(Selection):
    """A selection from each class separately, by distances in an embedding.

    Args:
        embedding: The space in which distances are measured.
        candidates: Number of random images of each class to choose from; 0: all images. On a CPU, embedding all images
            of a large data set takes longer than a short condensation.
    """

    embedding: Embedding = field(default_factory=RandomEmbedding)
    candidates: int = 0

    def __post_init__(self) -> None:
        refuse(whole("candidates", self.candidates, 0))

    def __call__(self, data: ClassImages, ipc: int, draw: Draw, compute: Compute) -> Chosen:
        """See :class:`Selection`. Raises ConfigError if there are fewer candidates than images to choose."""
        check_sizes(data, ipc)
        self.check_candidates(ipc)
        embed = self.embedding.prepare(data, draw, compute)
        parts = []
        for label in data.classes:
            indices = data.indices_of(label)
            if self.candidates:
                some = draw.permutation(f"candidates/{label}", len(indices))[: self.candidates]
                indices = indices[some.sort().values]
            features = embed(indices).double()  # centred doubles: small distances far from the origin survive
            n, key = min(ipc, len(indices)), draw.key(f"{self.name}/{label}")
            parts.append(indices[self.pick(features - features.mean(0), n, key)])
        return Chosen(torch.cat(parts))

    name: ClassVar[str]

    @abstractmethod
    def pick(self, features_ND: Tensor, ipc: int, key: int) -> Tensor:  # noqa: N803
        """Choose (ipc,) different rows of the centred float64 features (N, D) of a class; ``key`` is a seed."""


@dataclass(frozen=True)
class Herding(_Embedded):
    """The images whose running mean stays closest to the class mean (Welling, "Herding Dynamical Weights", ICML 2009).

    Departure from iCaRL (Rebuffi et al., CVPR 2017), which made it the usual choice of exemplars: features
    are not scaled to unit length, so that the mean is the same as in distribution matching.

    >>> import condensekit as ck
    >>> train, test = ck.load("digits")
    >>> len(ck.select(train, ck.Herding(candidates=20), ipc=2))
    20
    """

    name: ClassVar[str] = "herding"

    def pick(self, features_ND: Tensor, ipc: int, key: int) -> Tensor:  # noqa: N803
        """See the class."""
        return herd(features_ND, ipc)


@dataclass(frozen=True)
class KMeans(_Embedded):
    """The image nearest to each of ``ipc`` k-means centres, as in DREAM (Liu et al., ICCV 2023).

    >>> import condensekit as ck
    >>> train, test = ck.load("digits")
    >>> len(ck.select(train, ck.KMeans(candidates=20), ipc=2))
    20
    """

    name: ClassVar[str] = "kmeans"

    def pick(self, features_ND: Tensor, ipc: int, key: int) -> Tensor:  # noqa: N803
        """See the class."""
        return nearest_distinct(features_ND, cluster_centres(features_ND, ipc, key))


@dataclass(frozen=True)
class KCenter(_Embedded):
    """Greedy k-center (Sener and Savarese, ICLR 2018): the image nearest to the mean, then always the farthest.

    >>> import condensekit as ck
    >>> train, test = ck.load("digits")
    >>> len(ck.select(train, ck.KCenter(candidates=20), ipc=2))
    20
    """

    name: ClassVar[str] = "kcenter"

    def pick(self, features_ND: Tensor, ipc: int, key: int) -> Tensor:  # noqa: N803
        """See the class."""
        return farthest_first(features_ND, ipc)
