"""Importance selections: images drawn in proportion to their largest possible share in a loss, with weights.

Tukan, Maalouf and Osadchy, "Dataset Distillation Meets Provable Subset Selection" (arXiv 2307.08086): start
a condensed set from images drawn by their relative contribution to a k-means loss or, for kernel ridge
regression, to the kernel-fitting loss. Only the abstract of the paper was available. The formulas are those
of coreset theory; each function names its source.

The weighted images give an unbiased estimate of the loss of the whole class, for all centres or regressors.
A condensed set has no weights, and without weights, rare images count too much, most of all at one image per
class. Compare with :class:`condensekit.selection.classic.KMeans`, which takes the images nearest to the centres.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from condensekit.compute import Compute
from condensekit.data.images import ClassImages
from condensekit.errors import refuse, whole
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw
from condensekit.selection.base import Chosen, Selection, check_sizes
from condensekit.selection.clustering import plus_plus_centres, squared_distances
from condensekit.selection.embeddings import Embedding, RandomEmbedding

FORMULAS = ("default", "bachem")
CERTAIN = 1 - 1e-9  # a larger inclusion probability becomes 1, so that rounding never draws an image twice
ONE = torch.zeros(1, dtype=torch.int64)  # the single label for random numbers of a whole class


@dataclass(frozen=True)
class _Importance(Selection):
    """A selection that draws the images of each class separately, in proportion to a score.

    Args:
        embedding: The features of the loss; by default those of a narrow network, because all images are embedded.
        replacement: True: draw each image from all images, so that an image may be drawn twice; weights 1 / (ipc p).
            False: image x is drawn with probability min(1, c score(x)), where c gives ipc images; weights 1 / this
            probability. In both cases, the weighted sum over the chosen images is unbiased.
    """

    embedding: Embedding = field(default_factory=lambda: RandomEmbedding(ConvNet(width=32)))
    replacement: bool = False

    name: ClassVar[str]

    def __call__(self, data: ClassImages, ipc: int, draw: Draw, compute: Compute) -> Chosen:
        """See :class:`condensekit.selection.base.Selection`; always with weights."""
        check_sizes(data, ipc)
        embed = self.embedding.prepare(data, draw, compute)
        take = with_replacement if self.replacement else without_replacement
        indices, weights = [], []
        for label in data.classes:
            own, keyed = data.indices_of(label), Draw(draw.key(f"{self.name}/{label}"))
            n = min(ipc, len(own))
            rows, weight = take(self.scores(embed(own).double(), n, keyed), n, keyed)
            indices.append(own[rows])
            weights.append(weight)
        return Chosen(torch.cat(indices), torch.cat(weights).float())

    @abstractmethod
    def scores(self, features_ND: Tensor, ipc: int, draw: Draw) -> Tensor:  # noqa: N803
        """(N,) scores, at least 0 and not all 0, of one class's float64 features (N, D)."""


@dataclass(frozen=True)
class ImportanceKMeans(_Importance):
    """Images drawn by their sensitivity for the k-means loss of their class.

    Args:
        embedding: The space in which distances are measured.
        replacement: See above.
        formula: ``default`` or ``bachem``; see :func:`kmeans_sensitivity`.
        clusters: Number of centres of the loss; None: the number of images to draw.
    """

    formula: str = "default"
    clusters: int | None = None
    name: ClassVar[str] = "importance-kmeans"

    def __post_init__(self) -> None:
        refuse(
            None if self.formula in FORMULAS else f"formula must be one of {', '.join(FORMULAS)}, got {self.formula!r}",
            None if self.clusters is None else whole("clusters", self.clusters, 1),
        )

    def scores(self, features_ND: Tensor, ipc: int, draw: Draw) -> Tensor:  # noqa: N803
        """See :func:`kmeans_sensitivity`, around centres from k-means++."""
        centred = features_ND - features_ND.mean(0)
        k = min(self.clusters or ipc, len(centred))
        return kmeans_sensitivity(centred, plus_plus_centres(centred, k, draw.key("centres")), self.formula)


@dataclass(frozen=True)
class ImportanceKRR(_Importance):
    """Images drawn by their ridge leverage for the loss of kernel ridge regression on their class.

    The features are scaled to mean squared length 1, and get a column for the label, which is constant within a
    class. The leverage within a class is an upper bound of the leverage among all classes at the same ridge.
    Therefore the guarantee holds for the joint regression, although classes are drawn separately.

    Args:
        embedding: The feature map whose inner product is the kernel. Time goes with the cube of the features (or of
            the images of a class, if fewer).
        replacement: See above.
    """

    name: ClassVar[str] = "importance-krr"

    def scores(self, features_ND: Tensor, ipc: int, draw: Draw) -> Tensor:  # noqa: N803
        """See :func:`ridge_leverage`; the ridge makes them sum to ``ipc``, where it can."""
        length = features_ND.square().sum(1).mean().sqrt()
        scaled = features_ND / torch.where(length > 0, length, 1.0)
        return ridge_leverage(torch.cat([scaled, torch.ones_like(scaled[:, :1])], 1), ipc)


def kmeans_sensitivity(features_ND: Tensor, centres_KD: Tensor, formula: str = "default") -> Tensor:  # noqa: N803
    """(N,) float64 share of each row in the k-means loss, at worst over all centres; they sum to 1.

    With d the squared distance of x to its nearest centre and b the size of its cluster B: ``default`` is half
    d / sum(d) and half 1 / (k b). ``bachem`` (Bachem, Lucic and Krause, "Practical Coreset Constructions for Machine
    Learning", arXiv 1703.06476) is a d / c + 2 a sum_B(d) / (b c) + 4 N / b with c = mean(d) and
    a = 16 (ln k + 2), scaled to sum to 1. Where all rows lie on centres only the last term of each counts.

    Args:
        features_ND: (N, D) float64 rows.
        centres_KD: (K, D) float64 centres, rough ones: k-means++ without Lloyd will do.
        formula: ``default`` or ``bachem``.
    """
    k = len(centres_KD)
    nearest = squared_distances(features_ND, centres_KD).argmin(1)
    gap = (features_ND - centres_KD[nearest]).square().sum(1)  # exactly 0 on a centre
    total = gap.sum()
    share = gap / torch.where(total > 0, total, 1.0)
    size = torch.bincount(nearest, minlength=k).double()[nearest]
    if formula == "default":
        score = share / 2 + 1 / (2 * k * size)
    else:
        alpha, n = 16 * (math.log(k) + 2), len(gap)
        in_cluster = torch.zeros(k, dtype=torch.float64).index_add_(0, nearest, share)[nearest]
        score = alpha * n * share + 2 * alpha * n * in_cluster / size + 4 * n / size
    return score / score.sum()


def ridge_leverage(rows_ND: Tensor, total: float) -> Tensor:  # noqa: N803
    """(N,) float64 ridge leverage scores a_i (A^T A + r I)^-1 a_i of the rows of A, each in [0, 1].

    The score of a row is the most it can contribute, over all regressors, to the ridge loss of all rows
    (Alaoui and Mahoney, "Fast Randomized Kernel Ridge Regression with Statistical Guarantees", NIPS 2015).
    The ridge r is the one for which the scores sum to ``total``. Where the rank of A is no larger than that, r
    is 0 and they sum to the rank. Of a singular A only the span of its rows counts.

    Args:
        rows_ND: (N, D) float64. Takes time min(N, D)^2 max(N, D).
        total: What the scores are to sum to, above 0.
    """
    n, dim = rows_ND.shape
    gram = rows_ND @ rows_ND.T if n <= dim else rows_ND.T @ rows_ND
    values, vectors = torch.linalg.eigh(gram)
    real = values > max(n, dim) * torch.finfo(torch.float64).eps * values[-1].clamp(min=0)
    values, vectors = values[real], vectors[:, real]
    part = vectors.square() * values if n <= dim else (rows_ND @ vectors).square()  # of row i in direction j
    scores: Tensor = part @ (1 / (values + ridge_for(values, total)))
    return scores


def ridge_for(eigenvalues: Tensor, total: float) -> float:
    """The ridge r at least 0 for which sum(s / (s + r)) over the eigenvalues s > 0 is ``total``, or 0 if none is."""
    rank = len(eigenvalues)
    if rank <= total:
        return 0.0
    low = math.log(float(eigenvalues.min()) * (rank / total - 1))  # both ends by bounding every term alike
    high = math.log(float(eigenvalues.sum()) / total)
    for _ in range(64):
        middle = (low + high) / 2
        if float((eigenvalues / (eigenvalues + math.exp(middle))).sum()) > total:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


def inclusion(scores: Tensor, n: int) -> Tensor:
    """(N,) probabilities min(1, c score) that sum to ``n``, at most N; the score 0 gets one only where it must.

    Args:
        scores: (N,) float64, at least 0.
        n: Images to take.
    """
    positive = scores > 0
    if int(positive.sum()) <= n:  # all of them, and others alike
        others = (n - positive.sum()) / (~positive).sum().clamp(min=1)
        return torch.where(positive, 1.0, others.double())
    certain = torch.zeros_like(positive)
    while True:
        left = n - certain.sum()
        probability = torch.where(certain, 1.0, scores * (left / scores[~certain].sum()))
        over = (probability > CERTAIN) & ~certain
        if not over.any():
            return probability
        certain |= over


def without_replacement(scores: Tensor, n: int, draw: Draw) -> tuple[Tensor, Tensor]:
    """``n`` different rows, each with its probability of :func:`inclusion`, by systematic sampling in random order.

    Returns:
        rows (n,) int64 in random order; weights (n,) float64, 1 / probability (Horvitz and Thompson, 1952).
    """
    probability = inclusion(scores, n)
    order = draw.permutation("order", len(scores))
    certain = probability[order] == 1
    taken, rest = certain.clone(), (~certain).nonzero()[:, 0]
    count = n - int(certain.sum())
    if count:
        ends = probability[order[rest]].cumsum(0)
        points = torch.arange(count) + draw.uniform64("start", ONE, 1)[0]
        hit = torch.searchsorted(ends * (count / ends[-1]), points, right=True)
        taken[rest[hit.clamp(max=len(rest) - 1)]] = True
    rows = order[taken]
    return rows, 1 / probability[rows]


def with_replacement(scores: Tensor, n: int, draw: Draw) -> tuple[Tensor, Tensor]:
    """``n`` rows drawn independently with probability p in proportion to the scores.

    Returns:
        rows (n,) int64, some of them perhaps the same; weights (n,) float64, 1 / (n p).
    """
    ends = scores.cumsum(0)
    rows = torch.searchsorted(ends / ends[-1], draw.uniform64("rows", ONE, n)[0], right=True)
    return rows, ends[-1] / (n * scores[rows])
