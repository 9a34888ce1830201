"""Origins of items: the data set, the file and the class name behind each item of a wrapped data set."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

FLIPS = {  # whether torchvision's data sets of these names may be mirrored; digits and letters may not
    **dict.fromkeys(("MNIST", "QMNIST", "KMNIST", "EMNIST", "SVHN", "USPS", "Omniglot"), False),
    "FashionMNIST": True,  # a subclass of MNIST
}
WRAPPED = ("dataset", "datasets", "_flat_data", "_datasets")  # where Subset, ConcatDataset and Avalanche's keep others
TARGETS = ("targets", "labels", "_labels")  # where torchvision's data sets keep the labels of all items
FILES = ("samples", "imgs", "_samples", "_image_files", "images")  # where data sets of files keep the path of each item


def origin(dataset: Any, index: int) -> tuple[Any, int]:
    """The data set inside of ``Subset``, ``ConcatDataset`` and Avalanche's wrappers, and the index there."""
    while True:
        dataset = getattr(dataset, "_flat_data", dataset)
        read_by = getattr(type(dataset), "__getitem__", None)
        if read_by is Subset.__getitem__:
            dataset, index = dataset.dataset, int(dataset.indices[index])
            continue
        flat = hasattr(dataset, "_datasets") and hasattr(dataset, "_cumulative_sizes")  # Avalanche's
        if not flat and read_by is not ConcatDataset.__getitem__:
            return dataset, index
        if flat and dataset._indices is not None:
            index = int(dataset._indices[index])
        ends = dataset._cumulative_sizes if flat else dataset.cumulative_sizes
        part = bisect_right(ends, index)
        index -= ends[part - 1] if part else 0
        dataset = (dataset._datasets if flat else dataset.datasets)[part]


def place(dataset: Any, index: int) -> str:
    """``item 3``, with its file if the data set tells it."""
    inner, at = origin(dataset, index)
    for name in FILES:
        listed = getattr(inner, name, None)
        if isinstance(listed, list | tuple) and len(listed) == len(inner):
            file = listed[at][0] if isinstance(listed[at], tuple | list) and listed[at] else listed[at]
            if isinstance(file, str | Path):
                return f"item {index} ({file})"
    return f"item {index}"


def names_of(dataset: Any, labels: Sequence[int]) -> dict[int, str]:
    """The name of each label in ``labels``, which are those of the items of ``dataset`` in order.

    A data set tells its names by ``class_to_idx``; without it, by the order of ``classes``, if its labels begin with 0.
    They hold through ``Subset``, ``ConcatDataset`` and Avalanche's wrappers. A label whose items mostly have another
    label in ``targets`` of the data set inside, as after a ``target_transform`` that renumbers, has no name.

    Returns:
        Names by label, without the labels that have none.
    """
    origins = [origin(dataset, index) for index in range(len(labels))]
    inner = {id(one): one for one, _ in origins}
    found: dict[int, set[int]] = defaultdict(set)  # labels by the data set that they come from
    for (one, _), label in zip(origins, labels, strict=True):
        found[id(one)].add(label)
    told = {key: (_targets(one), getattr(one, "target_transform", None) is not None) for key, one in inner.items()}
    named = {key: _named(one, set(told[key][0] or found[key])) for key, one in inner.items()}
    votes: dict[int, Counter[str | None]] = defaultdict(Counter)
    for (one, at), label in zip(origins, labels, strict=True):
        targets, changed = told[id(one)]
        holds = not changed if targets is None else targets[at] == label
        votes[label][named[id(one)].get(label) if holds else None] += 1
    best = {label: count.most_common(1)[0] for label, count in votes.items()}
    return {k: name for k, (name, n) in best.items() if name is not None and 2 * n > votes[k].total()}


def _named(dataset: Any, labels: set[int]) -> dict[int, str]:
    """Class name by label as the data set tells it."""
    numbers, listed = getattr(dataset, "class_to_idx", None), getattr(dataset, "classes", None)
    if isinstance(numbers, Mapping) and all(isinstance(number, Integral) for number in numbers.values()):
        shared = Counter(numbers.values())
        return {int(number): str(name) for name, number in numbers.items() if shared[number] == 1}
    features = getattr(dataset, "features", None)  # of Hugging Face's datasets
    listed = getattr(features.get("label"), "names", listed) if isinstance(features, Mapping) else listed
    if isinstance(listed, list | tuple) and min(labels) == 0 and max(labels) < len(listed):
        return {label: str(name) for label, name in enumerate(listed)}
    return {}


def _targets(dataset: Any) -> list[int] | None:
    """The labels that a data set of torchvision's keeps beside its items; None if there are none of this form."""
    for name in TARGETS:
        kept = getattr(dataset, name, None)
        listed = kept.tolist() if isinstance(kept, Tensor | np.ndarray) else kept
        whole = isinstance(listed, list | tuple) and len(listed) == len(dataset)
        if whole and listed and all(isinstance(label, Integral) for label in listed):
            return [int(label) for label in listed]
    return None


def flippable(dataset: Any) -> bool:
    """Whether mirrored items still show their class: False for torchvision's digits and letters, wrapped or not."""
    known = (FLIPS[kind.__name__] for kind in type(dataset).__mro__ if kind.__name__ in FLIPS)
    inner = [getattr(dataset, name, None) for name in WRAPPED]
    parts = [part for found in inner for part in (found if isinstance(found, list | tuple) else [found])]
    return next(known, True) and all(flippable(part) for part in parts if part is not None)
