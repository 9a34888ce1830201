"""Replayed data set: decoded memory whose samples look like the stream's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
from avalanche.benchmarks.utils.classification_dataset import (
    ClassificationDataset,
    TaskAwareSupervisedClassificationDataset,
)
from avalanche.benchmarks.utils.data_attribute import TaskLabels
from avalanche.benchmarks.utils.transform_groups import TransformGroups
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor

from condensekit.errors import CondensekitError, ConfigError
from condensekit.replay.adapters.stream import Layout, check_batchable


class Decoded(torch.utils.data.Dataset[tuple[Tensor, Any]]):
    """Pairs of image and target.

    Args:
        images: (N, C, H, W) float32, normalised.
        labels: (N,) int64.
        target: Type of tensor targets; None for integers.
    """

    def __init__(self, images: Tensor, labels: Tensor, target: torch.dtype | None) -> None:
        self.images = images
        self.targets: list[int] = labels.tolist()
        self._items: Any = self.targets if target is None else labels.to(target)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[Tensor, Any]:
        return self.images[i], self._items[i]


def replayed(
    images: Tensor, labels: Tensor, tasks: Mapping[int, int], layout: Layout, groups: TransformGroups | None
) -> AvalancheDataset:
    """The data set that is mixed with the stream's.

    Args:
        images: (N, C, H, W) float32, normalised.
        labels: (N,) int64.
        tasks: Task label of each class; 0 where there is none.
        layout: What a sample looks like.
        groups: Transforms of its own, or None.
    """
    source = Decoded(images, labels, layout.target)
    attributes = [DataAttribute(source.targets, "targets")]
    if not layout.tasked:
        return ClassificationDataset([source], data_attributes=attributes, transform_groups=copy.copy(groups))
    attributes.append(TaskLabels([tasks.get(label, 0) for label in source.targets]))
    return TaskAwareSupervisedClassificationDataset(
        [source], data_attributes=attributes, transform_groups=copy.copy(groups)
    )


def transform_groups(transforms: TransformGroups | Callable[[Tensor], Tensor] | None) -> TransformGroups | None:
    """A callable as the transform of training alone; groups as they are.

    Raises:
        ConfigError: Something else.
    """
    if transforms is None or isinstance(transforms, TransformGroups):
        return transforms
    if not callable(transforms):
        raise ConfigError(f"transforms must be a TransformGroups or a callable on images, got {transforms!r}")
    return TransformGroups({"train": (transforms, None), "eval": (None, None)})


def check_replayed(dataset: AvalancheDataset, shape: tuple[int, ...]) -> None:
    """Try the transforms on one image.

    Raises:
        DataError: They give another shape or dtype than the stream has.
        ConfigError: They fail, as a stream's own do that take PIL images.
    """
    try:
        check_batchable(dataset, shape, "a replayed image")
    except CondensekitError:
        raise
    except Exception as error:
        raise ConfigError(
            f"the transforms of replayed images fail ({type(error).__name__}: {error}): they are given tensors "
            "(C, H, W), normalised as the stream's; a stream's own transforms that take PIL images do not fit"
        ) from error


class ClassView(ExemplarsBuffer):
    """One class of a memory, to look at: what plugins find in ``buffer_groups``."""

    def __init__(self, dataset: AvalancheDataset, stored: int) -> None:
        super().__init__(stored)
        self._buffer = dataset

    def resize(self, strategy: Any, new_size: int) -> None:
        """Refused: one budget holds for all classes."""
        raise ConfigError(f"one class cannot be resized (to {new_size}): resize the whole buffer")
