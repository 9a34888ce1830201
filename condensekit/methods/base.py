"""Method interface: hyper-parameters, a first state and one step. Loop, log, files and device are the driver's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from condensekit.compute import Compute, Machine
from condensekit.data.images import ClassImages
from condensekit.methods.encoders import Encoder, Fresh
from condensekit.methods.sampling import Sampler, Uniform
from condensekit.networks.base import FeatureNetwork, separable
from condensekit.ranks import ALONE, Ranks
from condensekit.rng import Draw
from condensekit.sets.packing import unpack
from condensekit.training.augment import Augmentation

State = dict[str, Tensor]  # the tensors of a checkpoint; "images" is (K, ipc, C, H, W), normalised
GROUP_PIXELS = {"cpu": 1024 * 32 * 32, "cuda": 131072 * 32 * 32}  # pixels of one group of classes


@dataclass(frozen=True)
class StepContext:
    """Everything that one step may use; the driver makes a context for each step.

    Args:
        data: The real images.
        draw: The random numbers of this step.
        module: The embedding network of this step, without gradients for its parameters.
        compute: Runs networks.
        augmentation: Siamese augmentation of real and synthetic images, or None.
        sampling: How real batches are drawn.
        factor: Packing of the synthetic images; they are unpacked before a network sees them.
        prefix: Number of synthetic images of each class, the first ones, that take part in this step; None: all.
        prepared: The tensors that the encoder made before the first step.
        encoder: The source of the weights of ``module``.
        fewer: By label, the number of synthetic images of a class that takes fewer than the others. The other rows of
            its images take no part, see :meth:`taking_part`.
        classes: The classes of the whole run, in the order of the outputs of ``module``; ``data`` may have fewer, where
            other ranks condense the others.
        ranks: The ranks that share :meth:`by_class`.
        rate: The factor of the step size in this step, a number or a 0-dim tensor; see
            :mod:`condensekit.methods.schedule`.
        gap: What a storage changes in the synthetic images of the classes of ``data``, (K, ipc, C, H, W), which the
            method sees; see :mod:`condensekit.methods.storing`. None: nothing.
    """

    data: ClassImages
    draw: Draw
    module: FeatureNetwork
    compute: Compute
    augmentation: Augmentation | None
    sampling: Sampler = Uniform()  # noqa: RUF009 - frozen
    factor: int = 1
    prefix: int | None = None
    prepared: Mapping[str, Tensor] = field(default_factory=dict)
    encoder: Encoder = Fresh()  # noqa: RUF009 - frozen
    fewer: Mapping[int, int] = field(default_factory=dict)
    classes: Sequence[int] = ()
    ranks: Ranks = ALONE
    rate: float | Tensor = 1.0
    gap: Tensor | None = None

    def groups(self, per_class: int) -> Iterator[slice]:
        """Groups of classes to process together, small enough that memory does not grow with the number of classes.

        Args:
            per_class: Images of each class in memory.

        For a network with batch norm, which mixes the images of a batch, all classes form one group.
        """
        total = len(self.data.classes)
        height, width = self.data.spec.shape[1:]
        room = GROUP_PIXELS.get(self.compute.device.type, GROUP_PIXELS["cpu"])
        size = max(1, room // (per_class * height * width)) if separable(self.module) else total
        for start in range(0, total, size):
            yield slice(start, min(start + size, total))

    def real(self, labels: Sequence[int], n: int) -> tuple[Tensor, Tensor | None]:
        """Draw ``n`` real images of each class.

        Returns:
            images (L, n, C, H, W) float32, normalised, augmented; weights (L, n) with mean 1, or None.
        """
        indices, weights = self.sampling.draw(self.data, labels, n, self.draw)
        device = self.compute.device

        def one(row: int) -> Tensor:
            return self.augment(self.data.gather(indices[row : row + 1], device), labels[row : row + 1])

        if device.type == "cpu":
            images = torch.cat(self.compute.map(one, range(len(labels))))
        else:
            images = self.augment(self.data.gather(indices, device), labels)
        return images, None if weights is None else weights.to(device, non_blocking=True)

    def augment(self, images: Tensor, labels: Sequence[int]) -> Tensor:
        """Apply this step's augmentation to (L, n, C, H, W) images; it is the same for all images of a class."""
        if self.augmentation is None:
            return images
        return self.augmentation.apply(images, self.augmentation.draw(self.draw, labels))

    def count(self, label: int, total: int) -> int:
        """The number of a class's ``total`` synthetic images that take part in this step."""
        return min(self.prefix or total, self.fewer.get(label, total))

    def taking_part(self, values: Tensor, labels: Sequence[int]) -> Tensor:
        """The rows of (L, ipc, ...) images or labels that take part in this step: (L, n, ...), with a graph.

        All classes give n rows. A class with fewer repeats them, and begins with another one in each step, so that
        over the steps each counts alike. Images are as their storage gives them back.
        """
        if self.gap is not None and values.ndim == self.gap.ndim:
            known = [self.data.classes.index(label) for label in labels]
            values = values + self.gap.index_select(0, torch.tensor(known).to(values.device, non_blocking=True))
        total = values.shape[1]
        n = self.prefix or total
        counts = [self.count(label, total) for label in labels]
        if min(counts) == n:
            return values[:, :n]
        turns = [self.draw.step if count < n else 0 for count in counts]  # so that no class depends on the others
        each = [(torch.arange(n) + turn) % count for turn, count in zip(turns, counts, strict=True)]
        rows = torch.stack(each).to(values.device, non_blocking=True)
        return values[torch.arange(len(labels), device=values.device)[:, None], rows]

    def shown(self, synthetic: Tensor, labels: Sequence[int]) -> Tensor:
        """Unpack and augment (L, m, C, H, W) synthetic images into (L, m * f * f, C, H, W) images for the network."""
        unpacked = unpack(synthetic.flatten(0, 1), self.factor)
        return self.augment(unpacked.reshape(len(synthetic), -1, *synthetic.shape[2:]), labels)

    def outputs(self, labels: Sequence[int]) -> Tensor:
        """(L,) int64 outputs of a trained network that stand for these classes, on the device."""
        known = list(self.classes or self.data.classes)
        return torch.tensor([known.index(label) for label in labels]).to(self.compute.device, non_blocking=True)

    def by_class(self, one: Callable[[int], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Compute tensors for each class, on the workers; each rank computes those of its share of the classes.

        Args:
            one: The row of a class in ``data.classes`` -> its tensors, of the same shapes for each class.

        Returns:
            These tensors of all classes: (K, ...) each.
        """
        total = len(self.data.classes)
        found = self.compute.map(one, range(total)[self.ranks.part(total)])
        return tuple(self.ranks.rows(torch.stack(column), total) for column in zip(*found, strict=True))

    def load(self, i: int) -> None:
        """Fill ``module`` with the weights of network ``i`` of this step; a step begins with network 0.

        All networks share one module, so that memory does not grow and a compiled module stays valid.
        Graphs made with the former weights can no longer be used.
        """
        draw = Draw(Draw(self.draw.seed).key(f"network/{i}"), self.draw.step, self.draw.attempt) if i else self.draw
        self.encoder.load(self.module, draw, self.prepared)

    def load_expert(self) -> None:
        """Fill ``module`` with trained weights: a classifier whose output k is the k-th class of the data.

        Raises:
            ConfigError: An encoder of untrained networks.
        """
        self.encoder.load_trained(self.module, self.draw, self.prepared)

    def features(self, images: Tensor) -> Tensor:
        """Embed (L, n, C, H, W) images as (L, n, D) features, without a graph."""
        features = self.compute.features(self.module, images.flatten(0, 1))
        return features.reshape(*images.shape[:2], -1)

    def gradient(
        self, synthetic: Tensor, labels: Sequence[int], loss: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Compute a loss of the embedded synthetic images, and its gradient with respect to the images.

        The gradient goes back through the loss first, then chunk by chunk through the network, then
        through the augmentation.

        Args:
            synthetic: (L, m, C, H, W) normalised images.
            labels: Their L class labels.
            loss: (L, m, D) embeddings -> (L,) losses.

        Returns:
            losses (L,), detached; gradient of their sum, (L, m, C, H, W).
        """
        images = synthetic.detach().requires_grad_()
        shown = self.shown(self.taking_part(images, labels), labels)
        features, pull = self.compute.pullback(self.module, shown.detach().flatten(0, 1))
        leaf = features.reshape(*shown.shape[:2], -1).requires_grad_()
        losses = loss(leaf)
        (wanted,) = torch.autograd.grad(losses.sum(), leaf)
        back = pull(wanted.flatten(0, 1)).reshape(shown.shape)
        return losses.detach(), torch.autograd.grad(shown, images, back)[0]


class Surroundings(Protocol):
    """What a method sees of the recipe that it is part of; see :class:`condensekit.methods.recipe.Recipe`."""

    @property
    def encoder(self) -> Encoder:
        """Where the embedding networks come from."""

    @property
    def augmentation(self) -> Augmentation | None:
        """Siamese augmentation, or None."""

    @property
    def soft_labels(self) -> bool:
        """Whether trained networks label the images."""


class Condenser(ABC):
    """A condensation method: frozen hyper-parameters with :meth:`init` and :meth:`step`.

    Attributes:
        name: Its name in run folders and tables.
        separable: Whether a class gives the same images when it is condensed without the other classes. Then the first
            axis of each tensor of its state is the classes, but of 0-dim tensors, so that ranks can share it.
        by_class: Of a method that is not separable, whether its steps use :meth:`StepContext.by_class`, so that ranks
            can share them.
        features_only: Whether it compares features only, so that a network trained elsewhere can embed.
        scheduled: Whether its step size follows :attr:`StepContext.rate`.
    """

    separable: ClassVar[bool]
    by_class: ClassVar[bool] = False
    features_only: ClassVar[bool] = False
    scheduled: ClassVar[bool] = False
    name: str

    @property
    def gives_soft_labels(self) -> bool:
        """Whether :meth:`soft_labels` returns labels."""
        return False

    @property
    def averaged(self) -> tuple[str, ...]:
        """The tensors of the state that make the set; a recipe's ``average`` takes their mean over steps."""
        return ("images",)

    @property
    def bounded(self) -> bool:
        """Whether its images stay between the ends of the pixel values."""
        return False

    def misfits(self, data: ClassImages, recipe: Surroundings, machine: Machine) -> Sequence[str | None]:
        """The problems of the method with these arguments; entries that are None are no problem.

        Args:
            data: The real images, whose classes are condensed together.
            recipe: The recipe with this method.
            machine: Device and precision of the networks.
        """
        return ()

    @abstractmethod
    def init(self, synthetic: Tensor, ctx: StepContext) -> State:
        """Make the first state from the first images (K, ipc, C, H, W); class k is ``ctx.data.classes[k]``."""

    @abstractmethod
    def step(self, state: State, ctx: StepContext) -> tuple[State, dict[str, Tensor]]:
        """Make one matching step.

        Returns:
            The new state, and metrics, which are 0-dim tensors. The metric ``finite`` is required: if it is
            False, the returned state must equal the given state. On several ranks, the metrics of all are combined by
            :meth:`condensekit.ranks.Ranks.combined`.
        """

    def soft_labels(self, state: State) -> Tensor | None:
        """The soft labels of the set: (K * ipc * f * f, K) probabilities; None (the default): no soft labels."""
        return None


def all_finite(*values: Tensor) -> Tensor:
    """A 0-dim flag: whether all values of all tensors are finite."""
    return torch.isfinite(torch.stack([end for value in values for end in value.aminmax()])).all()


def keep_if(finite: Tensor, new: State, old: State) -> State:
    """``new`` if the 0-dim flag ``finite`` is True, else ``old``; decided on the device, so the CPU does not wait.

    The result takes the memory of ``new``.
    """
    return {name: torch.where(finite, value, old[name], out=value) for name, value in new.items()}
