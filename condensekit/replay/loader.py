"""Batches by index from tensors, instead of Avalanche's sample by sample."""

from __future__ import annotations

from collections.abc import Callable

from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor

from condensekit.augment import Augmentation


class TensorLoader(SupervisedPlugin):
    """Reads an experience and the memory once, then makes batches by index on the strategy's device.

    Put it behind plugins that set the loader, such as ``ReplayPlugin``.

    Args:
        augmentation: Stands in for the training transforms, on whole batches; None keeps the stream's own.
        seed: Of the augmentation.
    """

    def __init__(self, augmentation: Augmentation | Callable[[Tensor], Tensor] | None = None, *, seed: int = 0) -> None:
        super().__init__()
        self.augmentation, self.seed = augmentation, seed
