"""Replayed data set: the decoded memory, with samples of the same fields as the stream's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol

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

from condensekit.data.images import ClassImages
from condensekit.errors import CondensekitError, ConfigError, function, refuse
from condensekit.replay.adapters.stream import Layout, check_batchable
from condensekit.training.train import ByRow


class Source(ByRow, Protocol):
    """Images by row with labels and task labels (N,) int64.

    Such as :class:`~condensekit.replay.memory.decoded.DecodedImages`.
    """

    labels: Tensor
    tasks: Tensor

    def __getitem__(self, i: int) -> Tensor:
        """One image (C, H, W) normalised float32, on the CPU."""


class Replayed(torch.utils.data.Dataset[tuple[Tensor, Any]]):
    """Data set of pairs of an image and a target; an image is decoded when it is read.

    Args:
        source: The images, with (N,) int64 labels.
        target: Type of tensor targets; None: the targets are integers.
    """

    def __init__(self, source: Source, target: torch.dtype | None) -> None:
        self.source = source
        self.targets: list[int] = source.labels.tolist()
        self._items: Any = self.targets if target is None else source.labels.to(target)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[Tensor, Any]:
        return self.source[i], self._items[i]


def replayed(source: Source, layout: Layout, groups: TransformGroups | None) -> AvalancheDataset:
    """Make the data set that is mixed with the stream.

    Args:
        source: The images, their labels and their task labels.
        layout: Fields of a sample.
        groups: Transforms of replayed images; None: no transforms.
    """
    pairs = Replayed(source, layout.target)
    attributes = [DataAttribute(pairs.targets, "targets")]
    if not layout.tasked:
        return ClassificationDataset([pairs], data_attributes=attributes, transform_groups=copy.copy(groups))
    attributes.append(TaskLabels(source.tasks.tolist()))
    return TaskAwareSupervisedClassificationDataset(
        [pairs], data_attributes=attributes, transform_groups=copy.copy(groups)
    )


def transform_groups(transforms: TransformGroups | Callable[[Tensor], Tensor] | None) -> TransformGroups | None:
    """Transform groups as they are given, or groups in which a callable transforms training images only.

    Raises:
        ConfigError: ``transforms`` is neither of the two.
    """
    if transforms is None or isinstance(transforms, TransformGroups):
        return transforms
    refuse(function("transforms", transforms, "a TransformGroups, a function of images, or None"))
    return TransformGroups({"train": (transforms, None), "eval": (None, None)})


class _First:
    """The first image of a data set in place of a memory."""

    def __init__(self, data: ClassImages) -> None:
        self.data, self.labels, self.tasks = data, data.labels[data.order[:1]], torch.zeros(1, dtype=torch.int64)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, i: int) -> Tensor:
        return self.data.at(torch.tensor([i]))[0]

    def at(self, rows: Tensor, device: torch.device | str = "cpu") -> Tensor:
        return self.data.at(rows, device)


def check_replayed(data: ClassImages, layout: Layout, groups: TransformGroups | None) -> None:
    """Try the transforms of replayed images on the first image of ``data``.

    Raises:
        DataError: The transforms give another shape or dtype than the stream's.
        ConfigError: The transforms fail, for example because they expect PIL images.
    """
    try:
        check_batchable(replayed(_First(data), layout, groups), data.spec.shape, "a replayed image")
    except CondensekitError:
        raise
    except Exception as error:
        raise ConfigError(
            f"the transforms of replayed images fail ({type(error).__name__}: {error}): they must accept tensors "
            "(C, H, W), normalised as in the stream; transforms that expect PIL images do not work"
        ) from error


class GroupView(ExemplarsBuffer):
    """Read-only view of one class in a memory, for plugins that read ``buffer_groups``."""

    def __init__(self, dataset: AvalancheDataset, stored: int) -> None:
        super().__init__(stored)
        self._buffer = dataset

    def resize(self, strategy: Any, new_size: int) -> None:
        """Raise ConfigError: all classes share one budget."""
        raise ConfigError(f"a single class cannot be resized (to {new_size}): resize the whole buffer")
