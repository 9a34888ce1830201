"""Replayed data set: the decoded memory, with samples of the same fields as the stream's."""

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
    """Data set of pairs of an image and a target.

    Args:
        images: (N, C, H, W) float32, normalised.
        labels: (N,) int64.
        target: Type of tensor targets; None: the targets are integers.
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
    """Make the data set that is mixed with the stream.

    Args:
        images: (N, C, H, W) float32, normalised.
        labels: (N,) int64.
        tasks: Task label of each class; a class without an entry gets 0.
        layout: Fields of a sample.
        groups: Transforms of replayed images; None: no transforms.
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
    """Transform groups as they are given, or groups in which a callable transforms training images only.

    Raises:
        ConfigError: ``transforms`` is neither of the two.
    """
    if transforms is None or isinstance(transforms, TransformGroups):
        return transforms
    if not callable(transforms):
        raise ConfigError(f"transforms must be a TransformGroups or a callable on images, got {transforms!r}")
    return TransformGroups({"train": (transforms, None), "eval": (None, None)})


def check_replayed(dataset: AvalancheDataset, shape: tuple[int, ...]) -> None:
    """Try the transforms of replayed images on one image.

    Raises:
        DataError: The transforms give another shape or dtype than the stream's.
        ConfigError: The transforms fail, for example because they expect PIL images.
    """
    try:
        check_batchable(dataset, shape, "a replayed image")
    except CondensekitError:
        raise
    except Exception as error:
        raise ConfigError(
            f"the transforms of replayed images fail ({type(error).__name__}: {error}): they must accept tensors "
            "(C, H, W), normalised as in the stream; transforms that expect PIL images do not work"
        ) from error


class ClassView(ExemplarsBuffer):
    """Read-only view of one class of a memory, for plugins that read ``buffer_groups``."""

    def __init__(self, dataset: AvalancheDataset, stored: int) -> None:
        super().__init__(stored)
        self._buffer = dataset

    def resize(self, strategy: Any, new_size: int) -> None:
        """Raise ConfigError: all classes share one budget."""
        raise ConfigError(f"a single class cannot be resized (to {new_size}): resize the whole buffer")
