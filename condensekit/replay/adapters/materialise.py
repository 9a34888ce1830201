"""Materialised data set: all samples as tensors, if each reading gives the same samples."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.transforms import flat_transforms_recursive
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, default_collate

from condensekit.rng import isolated

LIMIT = 4 << 30  # largest size of one data set in bytes
BLOCK = 512  # number of samples that are collated together
FIXED = (
    "CenterCrop",
    "Compose",
    "ConvertImageDtype",
    "Grayscale",
    "Identity",
    "Normalize",
    "PILToTensor",
    "Pad",
    "Resize",
    "ToDtype",
    "ToImage",
    "ToTensor",
)  # torchvision's transforms without random numbers


class Unfit(Exception):  # noqa: N818 - a reason, not a failure
    """The reason why a data set cannot be read in advance."""


def materialise(dataset: AvalancheDataset) -> list[Tensor]:
    """Read all samples of a data set under its current transforms.

    Returns:
        A tensor of len(dataset) rows for each field of a sample: images (N, C, H, W), targets (N,), and so on.

    Raises:
        Unfit: The transforms are random or unknown, the samples do not stack or take more than ``LIMIT`` bytes, or
            the data set has its own collate function.
    """
    if dataset.collate_fn is not default_collate:
        raise Unfit("the data set has a collate function of its own")
    for transform in _transforms(dataset):
        if not _fixed(transform):
            name = getattr(transform, "__name__", type(transform).__name__)
            raise Unfit(f"its transform {name} may be random: give a batched augmentation instead")
    if len(dataset) == 0:
        raise Unfit("the data set is empty")
    with isolated(0):
        once, again = _block(dataset, range(1)), _block(dataset, range(1))
        if not all(torch.equal(a, b) for a, b in zip(once, again, strict=True)):
            raise Unfit("a sample differs between two readings")
        if len(dataset) * sum(field.numel() * field.element_size() for field in once) > LIMIT:
            raise Unfit(f"its {len(dataset)} samples take more than {LIMIT:,} bytes")
        found = [torch.empty((len(dataset), *field.shape[1:]), dtype=field.dtype) for field in once]
        for start in range(0, len(dataset), BLOCK):
            rows = range(start, min(start + BLOCK, len(dataset)))
            for column, field in zip(found, _block(dataset, rows), strict=True):
                if column.shape[1:] != field.shape[1:] or column.dtype != field.dtype:
                    shape = tuple(field.shape[1:])
                    raise Unfit(f"its samples do not stack (from sample {start} on their shape is {shape})")
                column[start : rows.stop] = field
    return found


def _block(dataset: AvalancheDataset, rows: range) -> list[Tensor]:
    try:
        fields = default_collate([dataset[i] for i in rows])
    except (RuntimeError, TypeError, ValueError) as error:
        raise Unfit(f"its samples do not stack ({error})") from error
    if not isinstance(fields, list | tuple) or not all(isinstance(f, Tensor) and len(f) == len(rows) for f in fields):
        raise Unfit("its samples are not tuples of tensors and numbers")
    return list(fields)


def _fixed(transform: Any) -> bool:
    if isinstance(transform, partial):  # the map of class labels in nc_benchmark
        return str(transform.func.__module__).startswith("avalanche.")
    kind = type(transform)
    return kind.__module__.startswith("torchvision.transforms") and kind.__name__ in FIXED


def _transforms(dataset: Any, group: str = "train") -> Iterator[Any]:
    """Every transform of images or targets between the stored samples and the samples that are read."""
    flat = getattr(dataset, "_flat_data", dataset)  # Avalanche has no public way to read the transforms
    if hasattr(flat, "_transform_groups"):
        group = flat._transform_groups.current_group if dataset is not flat else group
        for groups in (flat._frozen_transform_groups, flat._transform_groups):
            yield from _flat(groups.transform_groups[group])
    else:
        for name in ("transform", "target_transform"):
            yield from _flat(getattr(flat, name, None))
    children = [flat.dataset] if isinstance(flat, Subset) else getattr(flat, "_datasets", ())
    for child in flat.datasets if isinstance(flat, ConcatDataset) else children:
        yield from _transforms(child, group)


def _flat(transform: Any) -> Iterator[Any]:
    if transform is None:
        return
    for position in (0, 1):
        for found in flat_transforms_recursive(transform, position):
            inner = getattr(found, "transforms", None)
            yield from (found,) if inner is None else (part for item in inner for part in _flat(item))
