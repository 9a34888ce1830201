"""Sampling: the choice of the real images of each step."""

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
from condensekit.errors import choice, refuse, whole, within
from condensekit.methods.scorer import LIGHT, NARROW, cross_entropies, lightly_trained
from condensekit.networks.base import Network
from condensekit.progress import SILENT, Progress
from condensekit.rng import Draw
from condensekit.selection.clustering import cluster_centres, squared_distances
from condensekit.selection.embeddings import Embedding, RandomEmbedding
from condensekit.training.train import TrainProtocol

log = logging.getLogger(__name__)

WEIGHTS = ("unbiased", "none")
LLOYD_STEPS = 10  # steps of k-means for real batches, which need no exact clusters


class Sampler(ABC):
    """Draws real batches; holds everything that was computed from the data before."""

    @abstractmethod
    def draw(self, data: ClassImages, labels: Sequence[int], n: int, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """Draw n images of each class: source indices (L, n) int64, and weights (L, n) float32 with mean 1, or None.

        A row depends only on its class, and not on the other classes of the call.
        """


class Sampling(ABC):
    """A description from which a :class:`Sampler` is made; ``name`` is its name in tables.

    ``separable`` says whether the images drawn from a class are the same if the data lack other classes.
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
        """Make the sampler of step ``draw.step``; it depends only on data, seed and step, so a resume makes it again.

        Args:
            data: The real images.
            draw: The random numbers of the step; the first step is 1.
            compute: Runs networks.
            before: The sampler of the last step, which is returned if it is still valid; None in the first step.
            progress: Receives the steps of training and clustering.
        """


@dataclass(frozen=True)
class Uniform(Sampling, Sampler):
    """Uniform draws: all images of a class are equally likely, and each is drawn once before any is drawn twice."""

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
        """Return this object, which needs no preparation."""
        return self

    def draw(self, data: ClassImages, labels: Sequence[int], n: int, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """See :class:`Sampler`; no weights."""
        return data.draw_indices(labels, n, draw), None


class _Prepared(Sampler):
    """A sampler that is used for ``refresh`` steps in a row; ``turn`` counts these groups of steps from 0."""

    turn: int


class _Refreshed(Sampling):
    """A sampling that makes a new sampler every ``refresh`` steps."""

    refresh: int

    def sampler(
        self,
        data: ClassImages,
        draw: Draw,
        compute: Compute,
        before: Sampler | None = None,
        progress: Progress = SILENT,
    ) -> Sampler:
        """See :meth:`Sampling.sampler`; a repeated step gets the same sampler."""
        turn = (draw.step - 1) // self.refresh
        if isinstance(before, _Prepared) and before.turn == turn:
            return before
        return self.prepare(data, draw.at(turn), compute, progress)

    @abstractmethod
    def prepare(self, data: ClassImages, draw: Draw, compute: Compute, progress: Progress) -> _Prepared:
        """Make the sampler of turn ``draw.step``."""


@dataclass(frozen=True)
class Importance(_Refreshed):
    """Draws in proportion to the cross-entropy: images that are hard for a lightly trained network come more often.

    Tukan, Maalouf and Osadchy, "Dataset Distillation Meets Provable Subset Selection" (arXiv 2307.08086); only the
    abstract was available. Image x of a class of N images is drawn with probability
    p(x) = (1 - epsilon) CE(x) / sum(CE) + epsilon / N, where the sum is over its class. A scorer is trained on the real
    images before the first step, and a new scorer every ``refresh`` steps. For an untrained scorer, all images would be
    equally hard; for a fully trained scorer, no image would be hard. If the losses of a class are all 0 (as in data of
    one class) or not finite, all its images are equally likely.

    >>> import condensekit as ck
    >>> recipe = ck.recipes.dm(sampling=ck.Importance(epsilon=0.2))
    >>> recipe == ck.Recipe.parse("dm sampling=importance sampling.epsilon=0.2")
    True

    Args:
        weights: ``unbiased``: the weight of an image is 1 / (N p), divided by the mean of the batch. The expected
            target is that of uniform batches, but for a bias that falls as 1 / n. (Without the division, the sum of
            the weights varies, and the error of a class mean is about twice as large.) ``none``: no weights. This
            matches the hard images, as the abstract says, and cost 5 to 9 points of accuracy at one image per class
            (``benchmarks/README.md``, importance).
        epsilon: Share of uniform draws, in [0, 1]. Unbiased weights need a value above 0, which keeps 1 / (N p) below
            1 / epsilon.
        refresh: Steps for which one scorer is used.
        network: The architecture of the scorer.
        protocol: How the scorer is trained.
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
            choice("weights", self.weights, WEIGHTS),
            within("epsilon", self.epsilon, 0, 1),
            whole("refresh", self.refresh, 1),
        )
        refuse(
            "weights='unbiased' needs epsilon above 0 (else images of loss 0 are never drawn); weights='none' does not"
            if self.weights == "unbiased" and self.epsilon == 0
            else None
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
    """A sampler with given probabilities, in time O(L n log N), by inverting their distribution.

    The draw is stratified: the distribution is cut into n equal parts, and one image is drawn from each part. An image
    is drawn n p times on average, and never much more or less often.

    Args:
        turn: The group of steps for which this sampler is used.
        data: The images.
        probabilities: For each class in the order of ``data.classes``, a float64 tensor that sums to 1.
        unbiased: Whether images have weights in proportion to 1 / p.
    """

    def __init__(self, turn: int, data: ClassImages, probabilities: Sequence[Tensor], unbiased: bool) -> None:
        self.turn, self.unbiased = turn, unbiased
        self.row = {label: row for row, label in enumerate(data.classes)}
        self.order = data.order
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
            return self.order[places], None
        return self.order[places], mean_one(1 / self.probability[places])


@dataclass(frozen=True)
class Clustered(_Refreshed):
    """Representative images: the images nearest to the centres of the k-means clusters of each class.

    DREAM (Liu et al., "DREAM: Efficient Dataset Distillation by Representative Matching", ICCV 2023). A batch holds
    the nearest image of each centre, largest cluster first, then the second nearest of each centre, and so on. The
    batch stays the same until the next refresh; then another network embeds the images.

    Departures from the authors' code:

    - Images have weights: the size of the cluster, divided by its images in the batch. Equal weights would treat rare
      images as common ones; the error of a class mean was twice that of a uniform batch.
    - The embedding network is untrained, so that classes do not depend on each other
      (:class:`condensekit.methods.scorer.TrainedEmbedding` has seen all classes). The authors use the network that is
      being trained.
    - The authors make new clusters every 10 steps.

    Args:
        clusters: Clusters of each class, at most its number of images; best the batch size, as in the authors' code.
        refresh: Steps for which one clustering is used.
        embedding: The space in which distances are measured.
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
        """Whether the embedding is separable, as an untrained network or pixels are."""
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
    """A sampler of the first images of each class in a given order; a small class is repeated from its start.

    Args:
        turn: The group of steps for which this sampler is used.
        ranked: For each label, the source indices (N,) of all its images and their clusters, (N,) int64.
    """

    def __init__(self, turn: int, ranked: Mapping[int, tuple[Tensor, Tensor]]) -> None:
        self.turn, self.ranked = turn, ranked

    def draw(self, data: ClassImages, labels: Sequence[int], n: int, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """See :class:`Sampler`; always the same images. The size of a cluster is shared as weight by its images."""
        chosen, weights = [], []
        for label in labels:
            indices, cluster = self.ranked[label]
            places = torch.arange(n) % len(indices)
            size, there = cluster.bincount(), cluster[places].bincount(minlength=int(cluster.max()) + 1)
            chosen.append(indices[places])
            weights.append((size / there)[cluster[places]])
        return torch.stack(chosen), mean_one(torch.stack(weights))


def mean_one(weights: Tensor) -> Tensor:
    """(L, n) weights above 0 as float32, each row divided by its mean."""
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
    """Order all rows of features (N, D), representative rows first: (N,) rows, and the cluster (N,) of each row.

    First the nearest row of each centre, largest cluster first, then the second nearest of each, and so on.
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
