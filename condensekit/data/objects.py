"""Data set objects: objects with a length and (image, label, ...) items, such as torchvision's or Avalanche's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler, default_collate

from condensekit.data.arrays import Values, as_bytes, check_layout, settled
from condensekit.data.decoding import alike, as_image, check_size, shown, stacked
from condensekit.data.images import ClassImages, ImageSpec, spec_of
from condensekit.data.labels import as_labels
from condensekit.data.origins import flippable, names_of, place
from condensekit.errors import DataError, quoted
from condensekit.progress import SILENT, Progress

READ_TWICE = 16  # items, evenly spaced, that are read twice: 1 in 65,536 random flips goes unnoticed
RESIZED = (
    "resize in the data set's transform, such as Resize((32, 32)), or pass the path of its folder and image_size=N"
)
TAKEN = (
    "a data set object with a length and (image, label) items, a list of such items, (images, labels) arrays, or what "
    "condensekit.load returns"
)


def as_images(given: Any, name: str = "data", layout: str | None = None) -> ClassImages:
    """Convert images in any supported form to :class:`ClassImages`.

    Args:
        given: :class:`ClassImages`; a pair (images, labels) of arrays or tensors; a torchvision-style data set, a
            ``Subset`` of one, a ``DataLoader`` of all its items, or a list of (image, label) tuples; an Avalanche
            experience, read with its evaluation transforms.
        name: Name of the argument in errors.
        layout: ``NCHW`` or ``NHWC``, the axes of arrays; None: see :func:`condensekit.data.arrays.as_nchw`.

    Raises:
        DataError: Another object, or images that cannot be used.
    """
    if isinstance(given, ClassImages):
        return given
    if isinstance(given, str | Path):
        raise DataError(f"{name} must be images, got {str(given)!r}: pass a part of what load({str(given)!r}) returns")
    if isinstance(given, tuple) and len(given) == 2:
        if all(isinstance(part, ClassImages | Dataset) for part in given):
            raise DataError(f"{name} must be one set of images, got two: pass the training or the test images alone")
        return ClassImages.from_arrays(*given, layout=layout)
    if isinstance(given, DataLoader) and not _gives_all(given):
        raise DataError(
            f"{name} must be a data set, got a DataLoader with a sampler or collate_fn of its own: pass the data set "
            "that you mean, such as loader.dataset or a Subset of it"
        )
    inner = getattr(given, "dataset", None)
    if inner is not None and not hasattr(given, "__getitem__"):  # an experience
        given = inner.eval() if hasattr(inner, "eval") else inner
    if isinstance(given, Mapping) and given and not any(isinstance(p, np.ndarray | Tensor) for p in given.values()):
        parts = ", ".join(map(repr, list(given)[:5]))
        raise DataError(f"{name} must be one set of images, got a dictionary of {parts}: pass one of them")
    listed = isinstance(given, list) and bool(given) and all(isinstance(item, tuple) for item in given)
    sized = hasattr(given, "__len__") and hasattr(given, "__getitem__")
    other = isinstance(given, type | bytes | list | tuple | dict | np.ndarray | Tensor) or not sized
    if other and not listed and not isinstance(given, IterableDataset):  # of a stream, from_dataset says what to pass
        raise DataError(f"{name} must be images with labels, got {quoted(given)}: pass {TAKEN}")
    return from_dataset(given, layout=layout)


def _gives_all(loader: DataLoader[Any]) -> bool:
    """Whether a loader gives the items of its data set as they are, each once, in whatever order."""
    sampler = loader.sampler
    once = isinstance(sampler, SequentialSampler) or (isinstance(sampler, RandomSampler) and not sampler.replacement)
    return once and loader.collate_fn is default_collate and len(sampler) == len(loader.dataset)  # type: ignore[arg-type]


def from_dataset(
    dataset: Any,
    *,
    image_size: int | None = None,
    spec: ImageSpec | None = None,
    layout: str | None = None,
    progress: Progress = SILENT,
) -> ClassImages:
    """The images of a torchvision-style or Avalanche data set object, read item by item, in order.

    The items alone count: ``data``, ``targets`` and the like of the object are not read, for transforms, wrappers and
    subclasses change what an item is. Pixels that are bytes, or floats that are all multiples of 1/255 in [0, 1] (as
    ``ToTensor`` makes them), become uint8. Other floats in [0, 1] are pixels too, and floats beyond are taken as
    normalised already: see :func:`condensekit.data.arrays.settled`.

    Class names are those of :func:`condensekit.data.origins.names_of`; a label without a name is its own name.

    Args:
        dataset: Has a length and (image, label, ...) items, or items ``{"image": ..., "label": ...}``: a PIL image,
            array or tensor and an integer or a string. Its transforms apply: random ones are refused.
        image_size: Resize every image to this many pixels in height and width.
        spec: Normalisation and class names to use; computed if None.
        layout: As in :func:`as_images`.
        progress: Told how many images are read.

    Raises:
        DataError: An item that cannot be used; the text names its index, and its file where the data set tells it.
        ConfigError: An ``image_size`` below 1, or an unknown layout.
    """
    check_size(image_size)
    check_layout(layout)
    if isinstance(dataset, IterableDataset):
        raise DataError(
            f"{type(dataset).__name__} has no items by index: pass list(dataset), or a list of the first items"
        )
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise DataError(f"a data set needs a length and items by index, {type(dataset).__name__} lacks them")
    if not len(dataset):
        raise DataError("the data set is empty: expected at least one image")
    labels: list[Any] = []
    values = Values()
    images = _items(dataset, labels, values, layout)
    read = shown(alike(images, "item {}".format, image_size, RESIZED), len(dataset), progress)
    pixels, are_pixels = settled(stacked(read, len(dataset)), values)
    numbers, names = as_labels(labels, None if spec is None else spec.class_names)
    if spec is not None:
        return ClassImages(pixels, numbers, spec)
    names = names or names_of(dataset, numbers.tolist())
    return ClassImages(pixels, numbers, spec_of(pixels, numbers, names, flippable(dataset), are_pixels))


def _items(dataset: Any, labels: list[Any], values: Values, layout: str | None) -> Iterator[Tensor]:
    """The images one by one; ``labels`` and ``values`` grow with them."""
    kind = None
    step = math.ceil(len(dataset) / READ_TWICE)
    for index in range(len(dataset)):
        image, label = _item(dataset, index, layout)
        if index % step == 0 and not _same((image, label), _item(dataset, index, layout)):
            raise DataError(
                f"{place(dataset, index)} differs from reading to reading: its transforms are random; switch them "
                "off, for example with transform=ToTensor()"
            )
        kind = kind or image.dtype
        if image.dtype != kind:
            raise DataError(f"item {index} is {image.dtype}, item 0 is {kind}: let the data set give one of the two")
        labels.append(label)
        values.see(image[None])
        yield as_bytes(image)


def _same(first: tuple[Tensor, Any], second: tuple[Tensor, Any]) -> bool:
    """Whether an item that was read twice is the same."""
    (image, label), (again, relabelled) = first, second
    return bool(label == relabelled) and torch.equal(image.nan_to_num(), again.nan_to_num())


def _item(dataset: Any, index: int, layout: str | None) -> tuple[Tensor, Any]:
    """The image (C, H, W) and the label of one item."""
    with _reading(dataset, index):
        item = dataset[index]
    if isinstance(item, Mapping):
        if not {"image", "label"} <= set(item):
            raise DataError(
                f"item {index} is a dictionary with {', '.join(map(repr, item)) or 'no entries'}: pass a list of "
                "(image, label) tuples, such as [(item['img'], item['fine_label']) for item in dataset]"
            )
        item = item["image"], item["label"]
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise DataError(f"item {index} must be (image, label, ...), got {type(item).__name__}")
    with _reading(dataset, index):
        image = as_image(item[0], layout)
    return image, _plain(item[1], index)


@contextmanager
def _reading(dataset: Any, index: int) -> Iterator[None]:
    """Turn any error of a decoder, a transform or the user's own code into one that names the item."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{place(dataset, index)}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(
            f"{place(dataset, index)} cannot be read: {type(error).__name__}: {error}; repair it, or leave it out "
            "with torch.utils.data.Subset"
        ) from error


def _plain(label: Any, index: int) -> Any:
    """A label as a Python number or text; a row of several numbers as a tuple, which may be one-hot."""
    value = label.value if isinstance(label, Enum) else label
    value = value.tolist() if isinstance(value, Tensor | np.ndarray | np.generic) else value
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, list | tuple) and value and all(isinstance(part, bool | int | float) for part in value):
        return tuple(value)
    if isinstance(value, bool | float) or not isinstance(value, int | str):
        told = f"a dictionary with {', '.join(map(repr, value))}" if isinstance(value, Mapping) else quoted(label)
        way_out = "; give int(label)" if isinstance(value, bool) else ""
        if isinstance(value, Mapping | list | tuple):
            way_out = "; detection and other tasks with several objects in an image have no classes to condense"
        raise DataError(f"the label of item {index} must be an integer or a string, got {told}{way_out}")
    return value
