"""Sampling: how the real images of a step are drawn from each class."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from condensekit.compute import Compute
from condensekit.data.images import ClassImages
from condensekit.errors import refuse, whole
from condensekit.methods.scorer import LIGHT, NARROW, cross_entropies, lightly_trained
from condensekit.networks.base import Network
from condensekit.progress import SILENT, Progress
from condensekit.rng import Draw
from condensekit.selection.clustering import cluster_centres, squared_distances
from condensekit.selection.embeddings import Embedding, RandomEmbedding
from condensekit.training.train import TrainProtocol

log = logging.getLogger(__name__)

WEIGHTS = ("unbiased", "none")
LLOYD_STEPS = 10  # of the clusters of real batches: a good partition is enough


class Sampler(ABC):
    """Draws real batches; holds whatever was worked out from the data beforehand."""

    @abstractmethod
    def draw(self, data: ClassImages, labels: Sequence[int], n: int, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """Source indices (L, n) int64 of n images of each class, and weights (L, n) float32 with mean 1, or None.

        A row depends on its own class alone, whichever classes are asked for beside it.
        """


class Sampling(ABC):
    """A recipe for a :class:`Sampler`. ``name`` is what tables call it.

    ``separable`` tells whether the images drawn from a class stay the same when other classes are left out of
    the data.
    """

    name: str

    @property
    @abstractmethod
    def separable(self) -> bool:
        """See the class."""

    @abstractmethod
    def sampler(
        self,
        data: ClassImages,
        draw: Draw,
        compute: Compute,
        before: Sampler | None = None,
        progress: Progress = SILENT,
    ) -> Sampler:
        """The sampler of step ``draw.step``: a function of data, seed and step alone, so that a resume makes it again.

        Args:
            data: The real images.
            draw: The randomness of the step; the first is 1.
            compute: Runs networks.
            before: The sampler of the step before, returned as it is where nothing is due; None at a start.
            progress: Told about training and clustering.
        """


@dataclass(frozen=True)
class Uniform(Sampling, Sampler):
    """Every image of a class equally likely, none twice before all have been drawn once."""

    name: str = "uniform"
    separable: ClassVar[bool] = True

    def sampler(
        self,
        data: ClassImages,
        draw: Draw,
        compute: Compute,
        before: Sampler | None = None,
        progress: Progress = SILENT,
    ) -> Sampler:
        """Itself: there is nothing to prepare."""
        return self

    def draw(self, data: ClassImages, labels: Sequence[int], n: int, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """See :class:`Sampler`; no weights."""
        return data.draw_indices(labels, n, draw), None


class _Prepared(Sampler):
    """A sampler that serves a run of steps: the ``turn``-th since the start, counted from 0."""

    turn: int


class _Refreshed(Sampling):
    """Prepares a new sampler every ``refresh`` steps."""

    refresh: int

    def sampler(
        self,
        data: ClassImages,
        draw: Draw,
        compute: Compute,
        before: Sampler | None = None,
        progress: Progress = SILENT,
    ) -> Sampler:
        """See :meth:`Sampling.sampler`; a retried step gets the sampler of the first try."""
        turn = (draw.step - 1) // self.refresh
        if isinstance(before, _Prepared) and before.turn == turn:
            return before
        return self.prepare(data, draw.at(turn), compute, progress)

    @abstractmethod
    def prepare(self, data: ClassImages, draw: Draw, compute: Compute, progress: Progress) -> _Prepared:
        """The sampler of turn ``draw.step``."""


@dataclass(frozen=True)
class Importance(_Refreshed):
    """Real images drawn by their relative cross-entropy: what a lightly trained network finds hard comes more often.

    Tukan, Maalouf and Osadchy, "Dataset Distillation Meets Provable Subset Selection" (arXiv 2307.08086); only its
    abstract was at hand. Image x of a class of N is drawn with p(x) = (1 - epsilon) CE(x) / sum(CE) + epsilon / N,
    the sum over its class. The scorer is trained on the real images before the first step, and another from a new
    seed every ``refresh`` steps: an untrained one would find all images alike, a fully trained one none hard. In a
    class whose losses are all 0, as in data of one class, or not finite, every image is equally likely.

    Args:
        weights: ``unbiased`` weighs each image by 1 / (N p), over the batch's mean of these: the target of uniform
            batches, with another variance. Of exactly unbiased weights the sum wanders, which about doubled the
            error of a class mean; this ratio's bias falls as 1 / n. ``none`` matches the hard images, as the abstract
            reads: another target, which cost 5 to 9 points of accuracy at one image per class
            (``benchmarks/README.md``, importance).
        epsilon: Share of uniform draws, in [0, 1]; above 0 for unbiased weights, of which it keeps 1 / (N p) below
            1 / epsilon.
        refresh: Steps for which one scorer serves.
        network: The scorer's architecture.
        protocol: How it is trained.
    """

    weights: str = "unbiased"
    epsilon: float = 0.1
    refresh: int = 1000
    network: Network = field(default_factory=lambda: NARROW)
    protocol: TrainProtocol = LIGHT
    name: str = "importance"
    separable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        refuse(
            None if self.weights in WEIGHTS else f"weights must be one of {', '.join(WEIGHTS)}, got {self.weights!r}",
            None if 0 <= self.epsilon <= 1 else f"epsilon must lie in [0, 1], got {self.epsilon}",
            "weights='unbiased' needs epsilon above 0 (images of loss 0 would never be drawn); weights='none' does not"
            if self.weights == "unbiased" and self.epsilon == 0
            else None,
            whole("refresh", self.refresh, 1),
        )

    def prepare(self, data: ClassImages, draw: Draw, compute: Compute, progress: Progress) -> _Prepared:
        """Train the scorer and score every image."""
        module = lightly_trained(data, self.network, self.protocol, draw, compute, progress)
        losses = cross_entropies(module, data, compute)
        if not torch.isfinite(losses).all():
            log.warning("the scorer diverged: classes with such a loss are drawn uniformly; lower the protocol's lr")
        parts = losses.split(data.offsets.diff().tolist())
        return Weighted(draw.step, data, [relative(part, self.epsilon) for part in parts], self.weights == "unbiased")


class Weighted(_Prepared):
    """Images drawn with given probabilities, in O(L n log N), by inverting their distribution.

    The draw is stratified: the j-th of n images comes from the j-th n-th of the distribution, so that an image is
    drawn n p times on average, and never much more or less often.

    Args:
        turn: Which run of steps this serves.
        data: The images.
        probabilities: For each class in the order of ``data.classes`` a float64 tensor that sums to 1.
        unbiased: Weigh each image in proportion to 1 / p.
    """

    def __init__(self, turn: int, data: ClassImages, probabilities: Sequence[Tensor], unbiased: bool) -> None:
        self.turn, self.unbiased = turn, unbiased
        self.row = {label: row for row, label in enumerate(data.classes)}
        self.probability = torch.cat(list(probabilities))
        ends = [part.cumsum(0) for part in probabilities]
        self.ends = torch.cat([row + end / end[-1] for row, end in enumerate(ends)])

    def draw(self, data: ClassImages, labels: Sequence[int], n: int, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """See :class:`Sampler`."""
        rows = torch.tensor([self.row[label] for label in labels])[:, None]
        within = draw.uniform64("real", torch.tensor(list(labels)), n)
        point = rows + (torch.arange(n) + within) / n
        below_next = torch.nextafter((rows + 1).double(), torch.zeros((), dtype=torch.float64))
        places = torch.searchsorted(self.ends, torch.minimum(point, below_next), right=True)
        if not self.unbiased:
            return data.order[places], None
        return data.order[places], mean_one(1 / self.probability[places])


@dataclass(frozen=True)
class Clustered(_Refreshed):
    """Real images that represent their class: those nearest to the centres of its k-means clusters.

    DREAM (Liu et al., "DREAM: Efficient Dataset Distillation by Representative Matching", ICCV 2023). A batch holds
    the image nearest to each centre, largest cluster first, then the second nearest to each, and so on. It stays
    the same until the next refresh; then another network embeds the images.

    Departures from the authors' code: each image weighs as much as the part of its cluster that it stands for,
    because equal weights match the rare as if it were common (the error of a class mean was twice that of a uniform
    batch, and stayed until the next refresh); an untrained network, so that classes stay apart
    (:class:`condensekit.methods.scorer.TrainedEmbedding` sees them all), where theirs is the one being trained; and
    refreshed more rarely, where theirs is after every 10 steps.

    Args:
        clusters: In each class; as many as it has images in a smaller class. Best the batch size, as theirs is.
        refresh: Steps for which one clustering serves.
        embedding: Where distances are measured.
    """

    clusters: int = 128
    refresh: int = 200
    embedding: Embedding = field(default_factory=lambda: RandomEmbedding(NARROW))
    name: str = "kmeans"

    def __post_init__(self) -> None:
        refuse(
            whole("clusters", self.clusters, 1),
            whole("refresh", self.refresh, 1),
        )

    @property
    def separable(self) -> bool:
        """Whether the embedding is that of an untrained network, or pixels."""
        return self.embedding.separable

    def prepare(self, data: ClassImages, draw: Draw, compute: Compute, progress: Progress) -> _Prepared:
        """Embed and cluster the images, class by class."""
        embed = self.embedding.prepare(data, draw, compute)
        ranked = {}
        with progress.stage("cluster the real images", len(data.classes)) as stage:
            for label in data.classes:
                own = data.indices_of(label)
                features = embed(own).double()
                features -= features.mean(0)
                k, key = min(self.clusters, len(own)), draw.key(f"clusters/{label}")
                rows, cluster = representatives(features, cluster_centres(features, k, key, LLOYD_STEPS))
                ranked[label] = own[rows], cluster
                stage.advance()
        return Ranked(draw.step, ranked)


class Ranked(_Prepared):
    """The first images of each class in a given order, from the start again where a class has too few.

    Args:
        turn: Which run of steps this serves.
        ranked: For each label source indices (N,) of all its images, and the cluster of each, (N,) int64.
    """

    def __init__(self, turn: int, ranked: Mapping[int, tuple[Tensor, Tensor]]) -> None:
        self.turn, self.ranked = turn, ranked

    def draw(self, data: ClassImages, labels: Sequence[int], n: int, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """See :class:`Sampler`; always the same images, which share the size of their cluster as weight."""
        chosen, weights = [], []
        for label in labels:
            indices, cluster = self.ranked[label]
            places = torch.arange(n) % len(indices)
            size, there = cluster.bincount(), cluster[places].bincount(minlength=int(cluster.max()) + 1)
            chosen.append(indices[places])
            weights.append((size / there)[cluster[places]])
        return torch.stack(chosen), mean_one(torch.stack(weights))


def mean_one(weights: Tensor) -> Tensor:
    """(L, n) weights above 0 as float32, each row over its mean."""
    return (weights / weights.mean(1, keepdim=True)).float()


def relative(losses: Tensor, epsilon: float) -> Tensor:
    """(N,) probabilities (1 - epsilon) loss / sum + epsilon / N; equal ones where the sum is about 0 or not finite.

    Args:
        losses: (N,) float64, at least 0.
        epsilon: Share of the equal part, in [0, 1].
    """
    total, equal = losses.sum(), torch.full_like(losses, 1 / len(losses))
    if not (torch.isfinite(total) and total >= torch.finfo(total.dtype).tiny):  # below it products lose digits
        return equal
    return (1 - epsilon) * losses / total + epsilon * equal


def representatives(features_ND: Tensor, centres_KD: Tensor) -> tuple[Tensor, Tensor]:  # noqa: N803
    """(N,) rows of features (N, D), those that stand for the whole first, and the cluster (N,) of each of them.

    The nearest member of each cluster, largest cluster first, then the second nearest of each, and so on.
    """
    k = len(centres_KD)
    gap, cluster = squared_distances(features_ND, centres_KD).min(1)
    size = torch.bincount(cluster, minlength=k)
    by_gap = gap.argsort(stable=True)
    grouped = by_gap[cluster[by_gap].argsort(stable=True)]  # cluster by cluster, nearest first
    rank = torch.empty_like(grouped)
    rank[grouped] = torch.arange(len(grouped)) - (size.cumsum(0) - size)[cluster[grouped]]
    place = size.argsort(descending=True, stable=True).argsort()  # of a cluster among the clusters
    order = (rank * k + place[cluster]).argsort()
    return order, cluster[order]
