"""Transforms of a stream: the way of its samples from their source, and which transforms draw random numbers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from avalanche.benchmarks.utils.flat_data import FlatData
from avalanche.benchmarks.utils.transforms import MultiParamCompose, MultiParamTransformCallable, TupleTransform
from torch import nn
from torch.utils.data import ConcatDataset, Subset, TensorDataset

FIXED = (
    "CenterCrop",
    "ConvertImageDtype",
    "FiveCrop",
    "Grayscale",
    "Identity",
    "LinearTransformation",
    "Normalize",
    "PILToTensor",
    "Pad",
    "RGB",
    "Resize",
    "TenCrop",
    "ToDtype",
    "ToImage",
    "ToPILImage",
    "ToPureTensor",
    "ToTensor",
)  # torchvision's transforms without random numbers
SOURCES = ("torchvision.datasets.", "avalanche.benchmarks.datasets.", "condensekit.replay.")  # modules of data sets


@dataclass(frozen=True)
class Way:
    """The way of a data set's samples: a source, and the transforms that follow, in order.

    Args:
        source: The data set that gives the samples.
        own: Transforms of images in the source itself.
        labels: Transforms of targets in the source itself.
        images: Transforms of images in the data sets around the source.
        targets: Transforms of targets in the data sets around the source.
    """

    source: Any
    own: tuple[Any, ...]
    labels: tuple[Any, ...]
    images: tuple[Any, ...]
    targets: tuple[Any, ...]

    @property
    def transforms(self) -> tuple[Any, ...]:
        """All transforms, of images and of targets."""
        return self.own + self.labels + self.images + self.targets

    @property
    def known(self) -> bool:
        """Whether the classes of the source and of all transforms tell that nothing is random."""
        return source_known(self.source) and all(is_fixed(transform) for transform in self.transforms)


def ways(dataset: Any, group: str = "") -> list[Way]:
    """The way from each source of a data set.

    Args:
        dataset: An Avalanche data set.
        group: Group of transforms: ``train``, ``eval``; empty: the current group.
    """
    flat = _flat_data(dataset)  # Avalanche has no public way to read the transforms
    group = group or flat._transform_groups.current_group
    return list(_ways(flat, group))


def followed(dataset: Any, i: int) -> tuple[Any, int]:
    """The source of sample ``i``, and the sample's index there."""
    flat = _flat_data(dataset)
    if isinstance(flat, Subset):
        return followed(flat.dataset, flat.indices[i])
    if isinstance(flat, ConcatDataset):
        number = bisect_right(flat.cumulative_sizes, i)
        return followed(flat.datasets[number], i - (flat.cumulative_sizes[number - 1] if number else 0))
    if isinstance(flat, FlatData):
        number, i = flat._get_idx(i)
        return followed(flat._datasets[number], i)
    return flat, i


def through(transforms: Iterable[Any], value: Any) -> Any:
    """A value after several transforms."""
    for transform in transforms:
        value = transform(value)
    return value


def is_random(transform: Any) -> bool:
    """Whether a transform's class is one of torchvision's that draw random numbers."""
    return of_torchvision(transform) and type(transform).__name__ not in (*FIXED, "Lambda")


def is_fixed(transform: Any) -> bool:
    """Whether a transform's class tells that it draws no random numbers."""
    if isinstance(transform, partial):  # the map of class labels in nc_benchmark
        return str(transform.func.__module__).startswith("avalanche.")
    ours = type(transform).__module__ == "condensekit.replay.adapters.space"
    return ours or (of_torchvision(transform) and type(transform).__name__ in FIXED)


def of_torchvision(transform: Any) -> bool:
    """Whether a transform's class is torchvision's."""
    return type(transform).__module__.startswith("torchvision.transforms")


def source_known(source: Any) -> bool:
    """Whether the class of a source tells that it draws no random numbers, other than in its transforms."""
    return type(source) in (list, TensorDataset) or type(source).__module__.startswith(SOURCES)


def _flat_data(dataset: Any) -> Any:
    return getattr(dataset, "_flat_data", dataset)


def _children(flat: Any) -> Sequence[Any]:
    if isinstance(flat, Subset):
        return [flat.dataset]
    if isinstance(flat, ConcatDataset):
        return flat.datasets
    return flat._datasets if isinstance(flat, FlatData) else []


def _ways(dataset: Any, group: str) -> Iterator[Way]:
    flat = _flat_data(dataset)
    children = _children(flat)
    if not children:
        own, labels = (tuple(_parts(getattr(flat, name, None), 0)) for name in ("transform", "target_transform"))
        yield Way(flat, own, labels, (), ())
    names = ("_frozen_transform_groups", "_transform_groups")
    groups = [getattr(flat, name).transform_groups[group] for name in names if children and hasattr(flat, name)]
    images, targets = (tuple(part for each in groups for part in _parts(each, place)) for place in (0, 1))
    for child in children:
        for way in _ways(child, group):
            yield replace(way, images=way.images + images, targets=way.targets + targets)


def _parts(transform: Any, place: int) -> Iterator[Any]:
    """The single transforms of images (``place`` 0) or targets (1) in a composed transform, in order."""
    if isinstance(transform, TupleTransform):
        yield from _parts(transform.transforms[place] if place < len(transform.transforms) else None, place)
    elif isinstance(transform, MultiParamTransformCallable):
        yield transform
    elif isinstance(transform, MultiParamCompose) or (
        of_torchvision(transform) and type(transform).__name__ == "Compose"
    ):
        for part in transform.transforms:
            yield from _parts(part, place)
    elif type(transform) is nn.Sequential:
        for part in transform:
            yield from _parts(part, place)
    elif transform is not None:
        yield transform
