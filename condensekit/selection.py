"""Real images that stand for their class: the simplest condensation, every method's start and its baseline."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from condensekit.compute import Compute
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, DataError, refuse, whole
from condensekit.networks.base import FeatureNetwork, Network
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw
from condensekit.runs.describe import describe
from condensekit.sets.condensed import CondensedSet, Formation
from condensekit.sets.packing import pack

BLOCK = 512  # images embedded at a time
LLOYD_STEPS = 300  # at most; clusters of one class settle within a few dozen

Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Chosen:
    """What a selection returns.

    Args:
        indices: (K * ipc,) int64 source indices, grouped by class in the order of ``data.classes``; within
            a class all different, unless the selection draws with replacement.
        weights: (K * ipc,) float32, or None where all count the same: the sum of w f(x) over the chosen images
            of a class estimates, without bias, the sum of f(x) over the whole class.
        pixels: (K * ipc, C, H, W) uint8 that stand for the images, where coding has changed them.
        coded: (K * ipc,) int64 bytes that each takes in that coding.
    """

    indices: Tensor
    weights: Tensor | None = None
    pixels: Tensor | None = None
    coded: Tensor | None = None


class Selection(Protocol):
    """Chooses ``ipc`` images of each class: a pure function of its arguments."""

    @property
    def name(self) -> str:
        """What tables call it."""

    def __call__(self, data: ClassImages, ipc: int, draw: Draw, compute: Compute) -> Chosen:
        """Choose; all randomness comes from ``draw``. Raises DataError for a class smaller than ``ipc``."""


class Embedding(ABC):
    """Where distances between images are measured.

    ``separable`` tells whether the features of a class stay the same when other classes are left out of the data.
    """

    separable: ClassVar[bool] = True

    @abstractmethod
    def prepare(self, data: ClassImages, draw: Draw, compute: Compute) -> Embed:
        """The function from source indices (n,) of ``data`` to float32 features (n, D)."""


@dataclass(frozen=True)
class RandomEmbedding(Embedding):
    """The features of one untrained network, the same for all classes.

    Args:
        network: The architecture; a batch norm layer is used in evaluation mode, so that images stay apart.
    """

    network: Network = field(default_factory=ConvNet)

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
    """The features of the images of ``data`` in ``module``, as a function of their source indices."""
    return lambda indices: torch.cat(
        [compute.features(module, data.gather(block, compute.device)).cpu() for block in indices.split(BLOCK)]
    )


@dataclass(frozen=True)
class Random:
    """Uniformly drawn images without repeats; those of a smaller ``ipc`` are the first of a larger one."""

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
class _Embedded(ABC):
    """A selection that looks at one class at a time, in an embedding.

    Args:
        embedding: Where distances are measured.
        candidates: Images of each class that are looked at, drawn at random; 0 for all. Embedding all of a large data
            set takes longer than a short condensation on a CPU.
    """

    embedding: Embedding = field(default_factory=RandomEmbedding)
    candidates: int = 0

    def __post_init__(self) -> None:
        refuse(whole("candidates", self.candidates, 0))

    def __call__(self, data: ClassImages, ipc: int, draw: Draw, compute: Compute) -> Chosen:
        """See :class:`Selection`; a ConfigError where there are fewer candidates than images to choose."""
        check_sizes(data, ipc)
        check_candidates(self, ipc)
        embed = self.embedding.prepare(data, draw, compute)
        parts = []
        for label in data.classes:
            indices = data.indices_of(label)
            if self.candidates:
                some = draw.permutation(f"candidates/{label}", len(indices))[: self.candidates]
                indices = indices[some.sort().values]
            features = embed(indices).double()  # centred doubles: small distances far from the origin survive
            parts.append(indices[self.pick(features - features.mean(0), ipc, draw.key(f"{self.name}/{label}"))])
        return Chosen(torch.cat(parts))

    name: ClassVar[str]

    @abstractmethod
    def pick(self, features_ND: Tensor, ipc: int, key: int) -> Tensor:  # noqa: N803
        """(ipc,) different rows of one class's centred float64 features (N, D); ``key`` seeds what is random."""


@dataclass(frozen=True)
class Herding(_Embedded):
    """The images whose running mean stays closest to the class mean (Welling, "Herding Dynamical Weights", ICML 2009).

    Departure from iCaRL (Rebuffi et al., CVPR 2017), which made it the usual choice of exemplars: features
    are not scaled to unit length, so that the mean is the one that distribution matching matches.
    """

    name: ClassVar[str] = "herding"

    def pick(self, features_ND: Tensor, ipc: int, key: int) -> Tensor:  # noqa: N803
        """See the class."""
        return herd(features_ND, ipc)


@dataclass(frozen=True)
class KMeans(_Embedded):
    """The image nearest to each of ``ipc`` k-means centres, as in DREAM (Liu et al., ICCV 2023)."""

    name: ClassVar[str] = "kmeans"

    def pick(self, features_ND: Tensor, ipc: int, key: int) -> Tensor:  # noqa: N803
        """See the class."""
        return nearest_distinct(features_ND, cluster_centres(features_ND, ipc, key))


@dataclass(frozen=True)
class KCenter(_Embedded):
    """Farthest first, from the image nearest to the mean: greedy k-center (Sener and Savarese, ICLR 2018)."""

    name: ClassVar[str] = "kcenter"

    def pick(self, features_ND: Tensor, ipc: int, key: int) -> Tensor:  # noqa: N803
        """See the class."""
        return farthest_first(features_ND, ipc)


def selected_set(
    data: ClassImages,
    selection: Selection,
    ipc: int,
    draw: Draw,
    compute: Compute,
    formation: Formation = Formation(),  # noqa: B008 - frozen
) -> CondensedSet:
    """The chosen images as a set that trains, saves and exports like a condensed one.

    Args:
        data: Where to choose from.
        selection: How.
        ipc: Stored images per class, at least 1.
        draw: Randomness; a set with seed s is ``Draw(s)``.
        compute: Runs the embedding network.
        formation: How the images are stored; with a factor f, f * f times as many are chosen, shrunk and packed.

    Raises:
        ConfigError: An ``ipc`` below 1, a factor that does not divide the image size, or that a coding rules out.
        DataError: A class with too few images.
    """
    refuse(formation.misfit(data.spec.shape))
    check_sizes(data, ipc, formation.factor)
    chosen = selection(data, ipc * formation.factor**2, draw, compute)
    if chosen.pixels is not None and formation != Formation():
        raise ConfigError(f"{selection.name} images are stored as they are coded: leave out factor and storage")
    indices = chosen.indices
    images = data.gather(indices) if chosen.pixels is None else data.spec.normalise(chosen.pixels)
    provenance = {
        "selection": selection.name,
        "options": describe(selection),
        "ipc": int(ipc),
        "seed": int(draw.seed),
        "indices": indices.tolist(),
        "data": data.fingerprint(),
    }
    return CondensedSet.from_images(
        pack(images, formation.factor),
        data.labels[indices][:: formation.factor**2],
        data.spec,
        formation=formation,
        coded=chosen.coded,
        provenance=provenance,
    )


def check_sizes(data: ClassImages, ipc: int, factor: int = 1) -> None:
    """Raise ConfigError for an ``ipc`` below 1, DataError for a class with fewer than ``ipc * factor**2`` images."""
    refuse(whole("ipc", ipc, 1))
    for label in data.classes:
        if data.count(label) < ipc * factor**2:
            packed = "" if factor == 1 else f" with factor={factor}, which takes {ipc * factor**2}"
            raise DataError(
                f"class {data.spec.name_of(label)} has {data.count(label)} images but ipc={ipc}{packed}: "
                "lower ipc, or start a condensation from noise"
            )


def check_candidates(selection: Selection, each: int) -> None:
    """Raise ConfigError for a selection that looks at fewer images of each class than the ``each`` it is to choose."""
    looked_at = selection.candidates if isinstance(selection, _Embedded) else 0
    refuse(
        f"{each} images per class cannot be chosen among {looked_at} candidates: raise candidates, or 0: all"
        if 0 < looked_at < each
        else None
    )


def check_start(chosen: Chosen, name: str, data: ClassImages, each: int) -> None:
    """Raise ConfigError unless a selection chose what a condensation can start from.

    Args:
        chosen: What it returned.
        name: The selection's.
        data: Where it chose from.
        each: Images of each class it was asked for.
    """
    if not isinstance(chosen, Chosen):
        raise ConfigError(f"{name} returned a {type(chosen).__name__}, expected a Chosen")
    refuse(None if chosen.pixels is None else coded_start(name))
    indices, wanted = chosen.indices, torch.tensor(data.classes).repeat_interleave(each)
    asked = f"expected ({len(wanted)},) source indices, {each} of each class in the order of data.classes"
    if indices.shape != wanted.shape or indices.is_floating_point():
        raise ConfigError(f"{name} chose {tuple(indices.shape)} {indices.dtype}, {asked}")
    strange = indices[~torch.isin(indices, data.order)]
    refuse(f"{name} chose image {int(strange[0])}, which is not among the data: {asked}" if len(strange) else None)
    wrong = (data.labels[indices] != wanted).nonzero()[:, 0]
    if len(wrong):
        place = int(wrong[0])
        found, label = data.spec.name_of(int(data.labels[indices[place]])), data.spec.name_of(int(wanted[place]))
        raise ConfigError(f"place {place} of what {name} chose is of class {found}, not of class {label}: {asked}")


def coded_start(name: str) -> str:
    """Why the coded images of the selection of that name are no start."""
    return f"{name} images count as they are coded, which ends when they move: start from uncoded ones, say Random()"


def herd(features_ND: Tensor, n: int, start: Tensor | None = None) -> Tensor:  # noqa: N803
    """(n,) rows of centred features (N, D), greedily keeping the sum of those taken closest to 0; no row twice.

    The sum begins with ``start`` (D,), that of what was taken before; None for nothing.
    """
    lengths = features_ND.square().sum(1)
    total = features_ND.new_zeros(features_ND.shape[1]) if start is None else start.clone()
    taken: list[int] = []
    for _ in range(n):
        cost = lengths + 2 * (features_ND @ total)  # ||total + x||^2, but for a constant
        cost[taken] = torch.inf
        taken.append(int(cost.argmin()))
        total += features_ND[taken[-1]]
    return torch.tensor(taken)


def farthest_first(features_ND: Tensor, n: int) -> Tensor:  # noqa: N803
    """(n,) rows of centred features (N, D): the one nearest to 0, then each time the one farthest from all taken."""
    taken = [int(features_ND.square().sum(1).argmin())]
    gap = features_ND.new_full((len(features_ND),), torch.inf)
    for _ in range(n - 1):
        gap = torch.minimum(gap, (features_ND - features_ND[taken[-1]]).square().sum(1))
        gap[taken] = -1.0
        taken.append(int(gap.argmax()))
    return torch.tensor(taken)


def plus_plus_centres(features_ND: Tensor, k: int, key: int) -> Tensor:  # noqa: N803
    """(k, D) rows of float64 features (N, D) that k-means++ seeds clusters with; ``key`` is its randomness."""
    from sklearn.cluster import kmeans_plusplus

    return torch.from_numpy(kmeans_plusplus(features_ND.numpy(), k, random_state=key & 0xFFFFFFFF)[0])


def cluster_centres(features_ND: Tensor, k: int, key: int, steps: int = LLOYD_STEPS) -> Tensor:  # noqa: N803
    """(k, D) k-means centres of float64 features (N, D): k-means++ from ``key``, then Lloyd until nothing moves.

    Ends after ``steps`` Lloyd steps at most.

    Not scikit-learn's Lloyd: with three threads or more its sums, and so the bits, vary from run to run.
    """
    centres = plus_plus_centres(features_ND, k, key)
    for _ in range(steps):
        member = F.one_hot(squared_distances(features_ND, centres).argmin(1), k).double()
        size = member.sum(0)[:, None]
        moved = torch.where(size > 0, member.T @ features_ND / size.clamp(min=1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def nearest_distinct(features_ND: Tensor, centres_KD: Tensor) -> Tensor:  # noqa: N803
    """(K,) rows of features (N, D): for each centre (K, D) in turn the nearest row not yet taken; K <= N."""
    distances = squared_distances(features_ND, centres_KD)
    taken: list[int] = []
    for column in distances.unbind(1):
        column[taken] = torch.inf
        taken.append(int(column.argmin()))
    return torch.tensor(taken)


def squared_distances(x_ND: Tensor, y_MD: Tensor) -> Tensor:  # noqa: N803
    """(N, M) squared distances between the rows of centred float64 (N, D) and (M, D)."""
    return x_ND.square().sum(1)[:, None] + y_MD.square().sum(1)[None] - 2 * (x_ND @ y_MD.T)
