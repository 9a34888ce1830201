"""What a method is: hyper-parameters, a first state and one step. It never loops, logs, saves or picks a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from condensekit.augment import Augmentation
from condensekit.compute import Compute
from condensekit.images import ClassImages
from condensekit.networks import FeatureNetwork, separable
from condensekit.rng import Draw

State = dict[str, Tensor]  # what a checkpoint holds; "images" is (K, ipc, C, H, W), normalised
GROUP_PIXELS = {"cpu": 1024 * 32 * 32, "cuda": 131072 * 32 * 32}  # images of one group of classes, in pixels


@dataclass(frozen=True)
class StepContext:
    """What one step may use; made by ``condense`` for each step.

    Args:
        data: The real images.
        draw: The randomness of this step.
        module: The embedding network of this step, without gradients for its parameters.
        compute: How networks run.
        augmentation: Siamese augmentation of real and synthetic images, or None.
    """

    data: ClassImages
    draw: Draw
    module: FeatureNetwork
    compute: Compute
    augmentation: Augmentation | None

    def groups(self, per_class: int) -> Iterator[slice]:
        """Rows of classes to process together: few enough that memory does not grow with the classes.

        Args:
            per_class: Images that each class puts into memory.

        A network with batch norm mixes the images of a batch: all classes form one group.
        """
        total = len(self.data.classes)
        height, width = self.data.spec.shape[1:]
        room = GROUP_PIXELS.get(self.compute.device.type, GROUP_PIXELS["cpu"])
        size = max(1, room // (per_class * height * width)) if separable(self.module) else total
        for start in range(0, total, size):
            yield slice(start, min(start + size, total))

    def real(self, labels: Sequence[int], n: int) -> tuple[Tensor, Tensor | None]:
        """``n`` real images of each class.

        Returns:
            images (L, n, C, H, W) float32, normalised, augmented; weights (L, n) with mean 1, or None.
        """

        def one(label: int) -> Tensor:
            return self.augment(self.data.sample([label], n, self.draw, self.compute.device), [label])

        if self.compute.device.type == "cpu":
            return torch.cat(self.compute.map(one, labels)), None
        return self.augment(self.data.sample(labels, n, self.draw, self.compute.device), labels), None

    def augment(self, images: Tensor, labels: Sequence[int]) -> Tensor:
        """(L, n, C, H, W) images under this step's augmentation, the same for all images of a class."""
        if self.augmentation is None:
            return images
        return self.augmentation.apply(images, self.augmentation.draw(self.draw, labels))

    def features(self, images: Tensor) -> Tensor:
        """(L, n, C, H, W) to (L, n, D) embeddings, without a graph."""
        features = self.compute.features(self.module, images.flatten(0, 1))
        return features.reshape(*images.shape[:2], -1)

    def gradient(
        self, synthetic: Tensor, labels: Sequence[int], loss: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """A loss of the embedded synthetic images, and its gradient with respect to their values.

        The gradient is taken with respect to the embeddings first, then chunk by chunk through the
        network, then through the augmentation.

        Args:
            synthetic: (L, m, C, H, W) normalised images.
            labels: Their L class labels.
            loss: (L, m, D) embeddings -> (L,) losses.

        Returns:
            losses (L,), detached; gradient of their sum, (L, m, C, H, W).
        """
        images = synthetic.detach().requires_grad_()
        augmented = self.augment(images, labels)
        features, pull = self.compute.pullback(self.module, augmented.detach().flatten(0, 1))
        leaf = features.reshape(*images.shape[:2], -1).requires_grad_()
        losses = loss(leaf)
        (wanted,) = torch.autograd.grad(losses.sum(), leaf)
        back = pull(wanted.flatten(0, 1)).reshape(images.shape)
        if augmented is images:
            return losses.detach(), back
        return losses.detach(), torch.autograd.grad(augmented, images, back)[0]


class Condenser(ABC):
    """A condensation method: frozen hyper-parameters with :meth:`init` and :meth:`step`.

    ``separable`` tells whether the classes can be condensed apart, each giving the same images as in a
    joint run.
    """

    separable: ClassVar[bool]
    name: str

    @abstractmethod
    def init(self, synthetic: Tensor, ctx: StepContext) -> State:
        """The first state, given the initial images (K, ipc, C, H, W); classes in the order of ``ctx.data.classes``."""

    @abstractmethod
    def step(self, state: State, ctx: StepContext) -> tuple[State, dict[str, Tensor]]:
        """One matching step.

        Returns:
            The new state, and 0-dim metrics. The metric ``finite`` must be there: where it is False the
            returned state equals the given one.
        """


def keep_if(finite: Tensor, new: State, old: State) -> State:
    """``new`` where the 0-dim flag ``finite`` holds, else ``old``: decided on the device, without a stall."""
    return {name: torch.where(finite, value, old[name]) for name, value in new.items()}
